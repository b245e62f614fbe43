//! What will happen, in the order of its time. Events of one moment happen in the order in which they were scheduled,
//! so that a run is the same every time.

use std::{collections::BTreeMap, time::Instant};

use crate::network::{Notice, Place};

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The side begins to dilate.
    Begin(usize),
    /// A timer of the side is due.
    Wake(usize),
    /// The application of the side does something.
    App(usize),
    /// What leads to this end of a connection arrives.
    Arrival(Place),
    /// A host that was frozen looks at what its kernel has noted.
    Notice(Place, Notice),
    /// The machine itself refuses to dial: it has no network, or the address is nobody's.
    Unreachable(Place),
    /// The side's connection to the mailbox server.
    Post(usize),
    /// The next message from the side reaches the mailbox server.
    Mailed(usize),
    /// The next message to the side leaves the mailbox server.
    Delivered(usize),
    /// The side has left the mailbox, or its patience with that was over.
    Left(usize),
    /// The side's monitor tells of a disturbance.
    Monitor(usize),
    /// The next line of the schedule.
    Schedule(usize),
}

/// Names a scheduled event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(Instant, u64);

impl Key {
    pub(crate) fn at(self) -> Instant {
        self.0
    }
}

#[derive(Default)]
pub(crate) struct Queue {
    events: BTreeMap<Key, Event>,
    scheduled: u64,
}

impl Queue {
    pub(crate) fn schedule(&mut self, at: Instant, event: Event) -> Key {
        let key = Key(at, self.scheduled);
        self.scheduled += 1;
        self.events.insert(key, event);
        key
    }

    pub(crate) fn cancel(&mut self, key: Key) {
        self.events.remove(&key);
    }

    pub(crate) fn pop(&mut self) -> Option<(Key, Event)> {
        self.events.pop_first()
    }

    /// Whether this is still to come.
    pub(crate) fn contains(&self, key: Key) -> bool {
        self.events.contains_key(&key)
    }
}
