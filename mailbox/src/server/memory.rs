//! A store that forgets everything when the server ends.

use std::collections::BTreeMap;

use super::store::{Change, MailboxRecord, Message, NameplateRecord, Store, StoreError, Totals};

/// Keeps everything in memory. It never fails.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// By application, then length and digits, so that the shortest come first.
    nameplates: BTreeMap<String, BTreeMap<(usize, String), NameplateRecord>>,
    mailboxes: BTreeMap<(String, String), (MailboxRecord, Vec<Message>)>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::PutNameplate { app, name, record } => {
                self.nameplates.entry(app).or_default().insert((name.len(), name), record);
            }
            Change::DeleteNameplate { app, name } => {
                if let Some(names) = self.nameplates.get_mut(&app) {
                    names.remove(&(name.len(), name));
                    if names.is_empty() {
                        self.nameplates.remove(&app);
                    }
                }
            }
            Change::PutMailbox { app, id, record } => match self.mailboxes.entry((app, id)) {
                std::collections::btree_map::Entry::Occupied(mut entry) => entry.get_mut().0 = record,
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert((record, Vec::new()));
                }
            },
            Change::DeleteMailbox { app, id } => {
                self.mailboxes.remove(&(app, id));
            }
            Change::AddMessage { app, id, message } => {
                if let Some((_, messages)) = self.mailboxes.get_mut(&(app, id)) {
                    messages.push(message);
                }
            }
            Change::Touch { app, id, updated } => {
                if let Some((record, _)) = self.mailboxes.get_mut(&(app, id)) {
                    record.updated = updated;
                }
            }
        }
    }

    fn find(&self, app: &str, id: &str) -> Option<&(MailboxRecord, Vec<Message>)> {
        self.mailboxes.get(&(app.to_owned(), id.to_owned()))
    }
}

impl Store for MemoryStore {
    fn apply(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        changes.into_iter().for_each(|change| self.change(change));
        Ok(())
    }

    fn nameplate(&self, app: &str, name: &str) -> Result<Option<NameplateRecord>, StoreError> {
        let names = self.nameplates.get(app);
        Ok(names.and_then(|names| names.get(&(name.len(), name.to_owned()))).cloned())
    }

    fn nameplates(&self, app: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        let names = self.nameplates.get(app).into_iter().flat_map(BTreeMap::keys);
        Ok(names.take(limit).map(|(_, name)| name.clone()).collect())
    }

    fn nameplates_of_length(&self, app: &str, digits: usize) -> Result<Vec<String>, StoreError> {
        let range = (digits, String::new())..(digits + 1, String::new());
        let names = self.nameplates.get(app).into_iter().flat_map(|names| names.range(range.clone()));
        Ok(names.map(|((_, name), _)| name.clone()).collect())
    }

    fn mailbox(&self, app: &str, id: &str) -> Result<Option<MailboxRecord>, StoreError> {
        Ok(self.find(app, id).map(|(record, _)| record.clone()))
    }

    fn messages(&self, app: &str, id: &str) -> Result<Vec<Message>, StoreError> {
        Ok(self.find(app, id).map(|(_, messages)| messages.clone()).unwrap_or_default())
    }

    fn idle_mailboxes(&self, before: f64) -> Result<Vec<(String, String)>, StoreError> {
        let idle = self.mailboxes.iter().filter(|(_, (record, _))| record.updated <= before);
        Ok(idle.map(|(key, _)| key.clone()).collect())
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        Ok(Totals {
            nameplates: self.nameplates.iter().map(|(app, names)| (app.clone(), names.len())).collect(),
            mailboxes: self.mailboxes.len(),
            bytes: self.mailboxes.values().map(|(record, _)| record.bytes).sum(),
        })
    }
}
