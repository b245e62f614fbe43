//! The rules about nameplates and mailboxes, over any store. Nothing here knows about connections.
//!
//! Each operation reads, decides, and then writes everything in one atomic [`Store::apply`]. A refusal writes
//! nothing that counts as a side. That is what keeps ghosts away: the Python server stores a third side before
//! it answers `crowded`, and from then on the two legitimate sides are crowded too whenever they come back.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, RngExt as _};

use super::{
    limits::ServerLimits,
    store::{
        Change, MailboxRecord, MailboxSide, Message, Mood, NameplateRecord, NameplateSide, Store, StoreError,
    },
    usage::{Summary, Usage},
};

/// Two sides may meet, and no third.
const SIDES: usize = 2;

/// Why an operation was refused.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Two other sides are there already.
    Crowded,
    /// The side released this nameplate before.
    Reclaimed,
    /// The mailbox is gone: the same side closed it through another connection.
    NotOpen,
    /// A limit; the text is for the client.
    Limit(String),
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// How many mailboxes somebody may still create.
pub(super) type Quota = usize;

/// Application and identifier of a mailbox.
pub(super) type MailboxKey = (String, String);

/// Changes to apply together, and what they do to the totals.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    nameplates: Vec<(String, Step)>,
    new_mailboxes: usize,
    new_bytes: usize,
    gone_mailboxes: usize,
    gone_bytes: usize,
    nameplate_ends: Vec<Summary>,
    mailbox_ends: Vec<Summary>,
}

#[derive(Clone, Copy)]
enum Step {
    Up,
    Down,
}

impl Batch {
    fn delete_nameplate(&mut self, app: &str, name: &str, summary: Summary) {
        self.changes.push(Change::DeleteNameplate { app: app.into(), name: name.into() });
        self.nameplates.push((app.into(), Step::Down));
        self.nameplate_ends.push(summary);
    }

    fn put_nameplate(&mut self, app: &str, name: &str, record: NameplateRecord) {
        self.changes.push(Change::PutNameplate { app: app.into(), name: name.into(), record });
    }

    fn put_mailbox(&mut self, app: &str, id: &str, record: MailboxRecord) {
        self.changes.push(Change::PutMailbox { app: app.into(), id: id.into(), record });
    }
}

/// The rules, the store, and the counters that the limits need.
pub(super) struct Registry<S> {
    store: S,
    limits: ServerLimits,
    usage: Usage,
    nameplates: BTreeMap<String, usize>,
    nameplate_total: usize,
    mailboxes: usize,
    bytes: usize,
}

impl<S: Store> Registry<S> {
    pub(super) fn new(store: S, limits: ServerLimits) -> Result<Self, StoreError> {
        let totals = store.totals()?;
        let nameplate_total = totals.nameplates.iter().map(|(_, count)| count).sum();
        Ok(Self {
            store,
            limits,
            usage: Usage::default(),
            nameplates: totals.nameplates.into_iter().collect(),
            nameplate_total,
            mailboxes: totals.mailboxes,
            bytes: totals.bytes,
        })
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    #[cfg(test)]
    pub(super) fn store(&self) -> &S {
        &self.store
    }

    /// What the counters say, to compare with the store.
    #[cfg(test)]
    pub(super) fn counted(&self) -> super::store::Totals {
        let nameplates = self.nameplates.iter().map(|(app, count)| (app.clone(), *count)).collect();
        super::store::Totals { nameplates, mailboxes: self.mailboxes, bytes: self.bytes }
    }

    /// The nameplates of an application, sorted as strings.
    pub(super) fn list(&self, app: &str) -> Result<Vec<String>, Refusal> {
        let mut names = self.store.nameplates(app, self.limits.list_size)?;
        names.sort();
        Ok(names)
    }

    /// Finds a free nameplate, the fewer digits the better, and claims it.
    pub(super) fn allocate(
        &mut self,
        app: &str,
        side: &str,
        quota: &mut Quota,
        now: f64,
        rng: &mut impl Rng,
    ) -> Result<String, Refusal> {
        let name = self.free_nameplate(app, rng)?;
        self.claim(app, &name, side, quota, now, rng)?;
        Ok(name)
    }

    fn free_nameplate(&self, app: &str, rng: &mut impl Rng) -> Result<String, Refusal> {
        for digits in 1..=3 {
            let taken: BTreeSet<String> =
                self.store.nameplates_of_length(app, digits as usize)?.into_iter().collect();
            let numbers = 10_u32.pow(digits - 1)..10_u32.pow(digits);
            let free: Vec<String> =
                numbers.map(|n| n.to_string()).filter(|name| !taken.contains(name)).collect();
            if !free.is_empty() {
                return Ok(free[rng.random_range(0..free.len())].clone());
            }
        }
        for _ in 0..1000 {
            let name = rng.random_range(1_000..1_000_000_u32).to_string();
            if self.store.nameplate(app, &name)?.is_none() {
                return Ok(name);
            }
        }
        Err(Refusal::Limit("unable to find a free nameplate; try again later".into()))
    }

    /// Claims a nameplate for a side, which opens its mailbox for that side, and says which mailbox it is.
    pub(super) fn claim(
        &mut self,
        app: &str,
        name: &str,
        side: &str,
        quota: &mut Quota,
        now: f64,
        rng: &mut impl Rng,
    ) -> Result<String, Refusal> {
        let Some(mut nameplate) = self.store.nameplate(app, name)? else {
            return self.new_nameplate(app, name, side, quota, now, rng);
        };
        let known = nameplate.sides.iter().find(|row| row.side == side);
        if known.is_some_and(|row| !row.claimed) {
            return Err(Refusal::Reclaimed);
        }
        let id = nameplate.mailbox.clone();
        let mailbox = self.store.mailbox(app, &id)?;
        let full_mailbox = mailbox.as_ref().is_some_and(|mailbox| is_crowded_for(mailbox, side));
        if full_mailbox || (known.is_none() && nameplate.sides.len() >= SIDES) {
            if !nameplate.crowded {
                let mut batch = Batch::default();
                batch.put_nameplate(app, name, NameplateRecord { crowded: true, ..nameplate });
                self.commit(batch)?;
            }
            if let Some(mailbox) = mailbox {
                self.note_crowded(app, &id, mailbox)?;
            }
            return Err(Refusal::Crowded);
        }
        let mut batch = Batch::default();
        if known.is_none() {
            nameplate.sides.push(NameplateSide { side: side.into(), claimed: true, added: now });
            batch.put_nameplate(app, name, nameplate);
        }
        if let Some(mailbox) = mailbox {
            batch.put_mailbox(app, &id, opened_by(mailbox, side, now));
        } else {
            // A nameplate and its mailbox are written and deleted together, so only a store that somebody else
            // changed gets here. Heal it.
            self.check_new_mailbox(quota)?;
            batch.new_mailboxes = 1;
            batch.put_mailbox(app, &id, new_mailbox(Some(name), side, now));
        }
        self.commit(batch)?;
        Ok(id)
    }

    fn new_nameplate(
        &mut self,
        app: &str,
        name: &str,
        side: &str,
        quota: &mut Quota,
        now: f64,
        rng: &mut impl Rng,
    ) -> Result<String, Refusal> {
        let of_app = self.nameplates.get(app).copied().unwrap_or(0);
        if of_app >= self.limits.nameplates_per_app || self.nameplate_total >= self.limits.nameplates {
            return Err(Refusal::Limit(
                "too many nameplates are in use on this server; try again later".into(),
            ));
        }
        self.check_new_mailbox(quota)?;
        let id = mailbox_id(rng);
        let mut batch = Batch { new_mailboxes: 1, ..Batch::default() };
        batch.nameplates.push((app.into(), Step::Up));
        let sides = vec![NameplateSide { side: side.into(), claimed: true, added: now }];
        batch.put_mailbox(app, &id, new_mailbox(Some(name), side, now));
        batch.put_nameplate(app, name, NameplateRecord { mailbox: id.clone(), sides, crowded: false });
        self.commit(batch)?;
        *quota -= 1;
        Ok(id)
    }

    fn check_new_mailbox(&self, quota: &Quota) -> Result<(), Refusal> {
        if *quota == 0 {
            return Err(Refusal::Limit("your address opened too many mailboxes; try again later".into()));
        }
        if self.mailboxes >= self.limits.mailboxes {
            return Err(Refusal::Limit("too many mailboxes are open on this server; try again later".into()));
        }
        Ok(())
    }

    /// Gives up a side's claim. The nameplate vanishes with its last claim. Unknown ones are no error: a client
    /// that lost its connection repeats itself.
    pub(super) fn release(&mut self, app: &str, name: &str, side: &str, now: f64) -> Result<(), Refusal> {
        let Some(mut nameplate) = self.store.nameplate(app, name)? else { return Ok(()) };
        let Some(row) = nameplate.sides.iter_mut().find(|row| row.side == side) else { return Ok(()) };
        row.claimed = false;
        let mut batch = Batch::default();
        if nameplate.sides.iter().any(|row| row.claimed) {
            batch.put_nameplate(app, name, nameplate);
        } else {
            batch.delete_nameplate(app, name, Summary::of_nameplate(&nameplate, false, now));
        }
        self.commit(batch)
    }

    /// Opens a mailbox for a side, creating it if need be, and returns what is in it.
    pub(super) fn open(
        &mut self,
        app: &str,
        id: &str,
        side: &str,
        quota: &mut Quota,
        now: f64,
    ) -> Result<Vec<Message>, Refusal> {
        let mut batch = Batch::default();
        match self.store.mailbox(app, id)? {
            Some(mailbox) if is_crowded_for(&mailbox, side) => {
                self.note_crowded(app, id, mailbox)?;
                return Err(Refusal::Crowded);
            }
            Some(mailbox) => batch.put_mailbox(app, id, opened_by(mailbox, side, now)),
            None => {
                self.check_new_mailbox(quota)?;
                batch.new_mailboxes = 1;
                batch.put_mailbox(app, id, new_mailbox(None, side, now));
            }
        }
        let created = batch.new_mailboxes;
        self.commit(batch)?;
        *quota -= created;
        Ok(self.store.messages(app, id)?)
    }

    /// Stores a message.
    pub(super) fn add(&mut self, app: &str, id: &str, message: Message) -> Result<(), Refusal> {
        let Some(mut mailbox) = self.store.mailbox(app, id)? else { return Err(Refusal::NotOpen) };
        let size = message.size();
        if mailbox.messages >= self.limits.messages_per_mailbox {
            let most = self.limits.messages_per_mailbox;
            return Err(Refusal::Limit(format!("this mailbox is full: it may hold {most} messages")));
        }
        if mailbox.bytes.saturating_add(size) > self.limits.mailbox_bytes {
            let most = self.limits.mailbox_bytes;
            return Err(Refusal::Limit(format!("this mailbox is full: it may hold {most} bytes")));
        }
        if self.bytes.saturating_add(size) > self.limits.store_bytes {
            return Err(Refusal::Limit("the server's storage is full; try again later".into()));
        }
        mailbox.updated = message.server_rx;
        mailbox.messages += 1;
        mailbox.bytes += size;
        let mut batch = Batch { new_bytes: size, ..Batch::default() };
        batch.put_mailbox(app, id, mailbox);
        batch.changes.push(Change::AddMessage { app: app.into(), id: id.into(), message });
        self.commit(batch)
    }

    /// Closes a mailbox for a side. True if that was the last side: then mailbox, messages and nameplate are
    /// gone. A side that never opened it, or a mailbox that is gone, is no error, as for `release`.
    pub(super) fn close(
        &mut self,
        app: &str,
        id: &str,
        side: &str,
        mood: Option<Mood>,
        now: f64,
    ) -> Result<bool, Refusal> {
        let Some(mut mailbox) = self.store.mailbox(app, id)? else { return Ok(false) };
        if is_crowded_for(&mailbox, side) {
            self.note_crowded(app, id, mailbox)?;
            return Err(Refusal::Crowded);
        }
        let Some(row) = mailbox.sides.iter_mut().find(|row| row.side == side) else { return Ok(false) };
        row.opened = false;
        row.mood = mood;
        mailbox.updated = now;
        let mut batch = Batch::default();
        let gone = !mailbox.sides.iter().any(|row| row.opened);
        if gone {
            self.delete_mailbox(&mut batch, app, id, &mailbox, false, now)?;
        } else {
            batch.put_mailbox(app, id, mailbox);
        }
        self.commit(batch)?;
        Ok(gone)
    }

    /// Deletes what nobody used since `before`. Mailboxes with a subscriber count as used now.
    pub(super) fn prune<'a>(
        &mut self,
        subscribed: impl Iterator<Item = &'a MailboxKey>,
        before: f64,
        now: f64,
    ) -> Result<(), Refusal> {
        let mut batch = Batch::default();
        for (app, id) in subscribed {
            batch.changes.push(Change::Touch { app: app.clone(), id: id.clone(), updated: now });
        }
        self.commit(batch)?;
        // One transaction per mailbox: a large clean-up must not be lost as a whole.
        for (app, id) in self.store.idle_mailboxes(before)? {
            let Some(mailbox) = self.store.mailbox(&app, &id)? else { continue };
            let mut batch = Batch::default();
            self.delete_mailbox(&mut batch, &app, &id, &mailbox, true, now)?;
            self.commit(batch)?;
        }
        Ok(())
    }

    fn delete_mailbox(
        &self,
        batch: &mut Batch,
        app: &str,
        id: &str,
        mailbox: &MailboxRecord,
        pruned: bool,
        now: f64,
    ) -> Result<(), Refusal> {
        if let Some(name) = &mailbox.nameplate {
            // The name may have been released and lead to another mailbox by now.
            if let Some(nameplate) = self.store.nameplate(app, name)?.filter(|plate| plate.mailbox == id) {
                batch.delete_nameplate(app, name, Summary::of_nameplate(&nameplate, pruned, now));
            }
        }
        batch.changes.push(Change::DeleteMailbox { app: app.into(), id: id.into() });
        batch.gone_mailboxes += 1;
        batch.gone_bytes += mailbox.bytes;
        batch.mailbox_ends.push(Summary::of_mailbox(mailbox, pruned, now));
        Ok(())
    }

    /// For the statistics only. What matters about a third side is that it leaves no row of its own.
    fn note_crowded(&mut self, app: &str, id: &str, mailbox: MailboxRecord) -> Result<(), Refusal> {
        if mailbox.crowded {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.put_mailbox(app, id, MailboxRecord { crowded: true, ..mailbox });
        self.commit(batch)
    }

    fn commit(&mut self, batch: Batch) -> Result<(), Refusal> {
        if batch.changes.is_empty() {
            return Ok(());
        }
        self.store.apply(batch.changes)?;
        for (app, step) in batch.nameplates {
            let count = self.nameplates.entry(app.clone()).or_default();
            match step {
                Step::Up => {
                    *count += 1;
                    self.nameplate_total += 1;
                }
                Step::Down => {
                    *count = count.saturating_sub(1);
                    self.nameplate_total = self.nameplate_total.saturating_sub(1);
                    if *count == 0 {
                        self.nameplates.remove(&app);
                    }
                }
            }
        }
        self.mailboxes = (self.mailboxes + batch.new_mailboxes).saturating_sub(batch.gone_mailboxes);
        self.bytes = (self.bytes + batch.new_bytes).saturating_sub(batch.gone_bytes);
        batch.nameplate_ends.iter().for_each(|end| self.usage.nameplate_gone(end));
        batch.mailbox_ends.iter().for_each(|end| self.usage.mailbox_gone(end));
        Ok(())
    }
}

fn is_crowded_for(mailbox: &MailboxRecord, side: &str) -> bool {
    mailbox.sides.len() >= SIDES && mailbox.sides.iter().all(|row| row.side != side)
}

fn new_mailbox(nameplate: Option<&str>, side: &str, now: f64) -> MailboxRecord {
    let mailbox = MailboxRecord {
        nameplate: nameplate.map(str::to_owned),
        updated: now,
        sides: Vec::new(),
        crowded: false,
        messages: 0,
        bytes: 0,
    };
    opened_by(mailbox, side, now)
}

fn opened_by(mut mailbox: MailboxRecord, side: &str, now: f64) -> MailboxRecord {
    mailbox.updated = now;
    if let Some(row) = mailbox.sides.iter_mut().find(|row| row.side == side) {
        row.opened = true;
    } else {
        mailbox.sides.push(MailboxSide { side: side.into(), opened: true, added: now, mood: None });
    }
    mailbox
}

/// 64 random bits as 13 characters of base32, like the Python server's.
fn mailbox_id(rng: &mut impl Rng) -> String {
    let mut bits: u64 = rng.random();
    let alphabet = b"abcdefghijklmnopqrstuvwxyz234567";
    let digit = |_| {
        let digit = alphabet[(bits & 31) as usize];
        bits >>= 5;
        char::from(digit)
    };
    (0..13).map(digit).collect()
}
