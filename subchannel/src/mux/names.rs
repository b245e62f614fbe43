//! Who takes the subchannels that the peer opens.

use std::collections::{BTreeMap, VecDeque};

use super::{ListenError, StreamKey};
use crate::record::Name;

/// The names that something listens for or will listen for, and the subchannels that wait to be accepted.
#[derive(Debug, Default)]
pub struct Names {
    entries: BTreeMap<Name, Entry>,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Entry {
    listening: bool,
    expected: bool,
    backlog: VecDeque<StreamKey>,
    event_queued: bool,
}

/// Why a subchannel of the peer is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwanted {
    /// Nothing listens, nor will.
    Unexpected,
    /// Too many wait.
    Busy,
}

impl Names {
    /// Takes subchannels of this name from now on.
    pub(super) fn listen(&mut self, name: &Name) -> Result<(), ListenError> {
        let entry = self.entries.entry(name.clone()).or_default();
        if std::mem::replace(&mut entry.listening, true) {
            return Err(ListenError::InUse(name.to_string()));
        }
        Ok(())
    }

    /// Stops listening. Returns those that waited and now nobody takes.
    pub(super) fn unlisten(&mut self, name: &Name) -> VecDeque<StreamKey> {
        let Some(entry) = self.entries.get_mut(name) else { return VecDeque::new() };
        entry.listening = false;
        if entry.expected {
            return VecDeque::new();
        }
        let backlog = self.entries.remove(name).map(|entry| entry.backlog).unwrap_or_default();
        self.waiting -= backlog.len();
        backlog
    }

    /// Lets subchannels of this name wait for a listener.
    pub(super) fn expect(&mut self, name: &Name) {
        self.entries.entry(name.clone()).or_default().expected = true;
    }

    /// The longest waiting subchannel of this name.
    pub(super) fn accept(&mut self, name: &Name) -> Option<StreamKey> {
        let key = self.entries.get_mut(name)?.backlog.pop_front()?;
        self.waiting -= 1;
        Some(key)
    }

    /// Whether a subchannel of this name would be taken while fewer than `limit` wait. Gives our own copy of the
    /// name, which all subchannels of it share.
    pub(super) fn admit(&self, name: &Name, limit: usize) -> Result<Name, Unwanted> {
        let entry = self.entries.get_key_value(name).filter(|(_, entry)| entry.listening || entry.expected);
        match entry {
            None => Err(Unwanted::Unexpected),
            Some((_, entry)) if entry.backlog.len() >= limit => Err(Unwanted::Busy),
            Some((name, _)) => Ok(name.clone()),
        }
    }

    /// Puts a subchannel that was admitted in line. Returns whether to tell that it is there.
    pub(super) fn push(&mut self, name: &Name, key: StreamKey) -> bool {
        let entry = self.entries.entry(name.clone()).or_default();
        entry.backlog.push_back(key);
        self.waiting += 1;
        entry.listening && !std::mem::replace(&mut entry.event_queued, true)
    }

    /// The event was taken.
    pub(super) fn told(&mut self, name: &Name) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.event_queued = false;
        }
    }

    /// The wormhole is over: all names of which that is not told yet.
    pub(super) fn tell_all(&mut self) -> impl Iterator<Item = Name> {
        self.entries.iter_mut().filter_map(|(name, entry)| {
            (!std::mem::replace(&mut entry.event_queued, true)).then(|| name.clone())
        })
    }

    /// How many wait to be accepted.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }
}
