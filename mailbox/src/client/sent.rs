//! Our own messages: added again until the server echoes them, and kept beyond that for a server that forgets.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::message::ClientMessage;

/// What is known of the place of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Not echoed: whether the server has it is unknown.
    Pending,
    /// Echoed on an earlier connection, and not yet replayed on this one.
    Unconfirmed,
    /// Echoed or replayed on this connection.
    Stored,
}

struct Own {
    phase: Arc<str>,
    body: Arc<str>,
    place: Place,
}

impl Own {
    fn to_add(&self) -> ClientMessage {
        ClientMessage::Add { phase: self.phase.clone(), body: self.body.clone() }
    }
}

/// What we have added to the mailbox.
#[derive(Default)]
pub(super) struct Sent {
    /// In the order of sending.
    messages: BTreeMap<u64, Own>,
    numbers: BTreeMap<Arc<str>, u64>,
    next: u64,
    /// Bytes of bodies that are pending, and of the others.
    pending_bytes: usize,
    kept_bytes: usize,
    was_stored: bool,
    /// Some that were echoed are not kept any more.
    incomplete: bool,
}

impl Sent {
    pub(super) fn add(&mut self, phase: &str, body: &[u8]) -> ClientMessage {
        let body = data_encoding::HEXLOWER.encode(body).into();
        let own = Own { phase: phase.into(), body, place: Place::Pending };
        let message = own.to_add();
        self.pending_bytes += own.body.len();
        self.numbers.insert(own.phase.clone(), self.next);
        self.messages.insert(self.next, own);
        self.next += 1;
        message
    }

    /// What to add on a new connection.
    pub(super) fn pending(&self) -> impl Iterator<Item = ClientMessage> {
        self.messages.values().filter(|own| own.place == Place::Pending).map(Own::to_add)
    }

    pub(super) fn has_pending(&self) -> bool {
        self.pending().next().is_some()
    }

    /// Bytes of bodies that wait for an echo.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Whether the server has ever stored something of ours: it echoed it.
    pub(super) fn was_stored(&self) -> bool {
        self.was_stored
    }

    /// Whether not everything that was ever stored could be added again.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// The mailbox is opened again: the replay will show what is still there.
    pub(super) fn replay_begins(&mut self) {
        for own in self.messages.values_mut().filter(|own| own.place == Place::Stored) {
            own.place = Place::Unconfirmed;
        }
    }

    /// The server has this one. Of such messages the newest are kept, at most `most` bytes.
    pub(super) fn echoed(&mut self, phase: &str, most: usize) {
        let own = self.numbers.get(phase).and_then(|number| self.messages.get_mut(number));
        let Some(own) = own else { return };
        if own.place == Place::Pending {
            self.pending_bytes -= own.body.len();
            self.kept_bytes += own.body.len();
        }
        own.place = Place::Stored;
        self.was_stored = true;
        while self.kept_bytes > most && self.drop_oldest() {
            self.incomplete = true;
        }
    }

    /// Drops the oldest message that is not pending, if there is one.
    fn drop_oldest(&mut self) -> bool {
        let mut kept = self.messages.iter().filter(|(_, own)| own.place != Place::Pending);
        let Some(number) = kept.next().map(|(number, _)| *number) else { return false };
        if let Some(own) = self.messages.remove(&number) {
            self.numbers.remove(&own.phase);
            self.kept_bytes -= own.body.len();
        }
        true
    }

    /// The replay is over. What it did not show, the server has forgotten: it is pending again, and returned to be
    /// added now.
    pub(super) fn replay_ended(&mut self) -> Vec<ClientMessage> {
        let mut forgotten = Vec::new();
        for own in self.messages.values_mut().filter(|own| own.place == Place::Unconfirmed) {
            own.place = Place::Pending;
            self.kept_bytes -= own.body.len();
            self.pending_bytes += own.body.len();
            forgotten.push(own.to_add());
        }
        forgotten
    }

    /// Nothing will be added again that was echoed once.
    pub(super) fn drop_stored(&mut self) {
        self.messages.retain(|_, own| own.place == Place::Pending);
        let messages = &self.messages;
        self.numbers.retain(|_, number| messages.contains_key(number));
        self.kept_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phases(messages: impl IntoIterator<Item = ClientMessage>) -> Vec<String> {
        let phase = |message| match message {
            ClientMessage::Add { phase, .. } => phase.to_string(),
            other => panic!("{other:?}"),
        };
        messages.into_iter().map(phase).collect()
    }

    fn sent(count: usize) -> Sent {
        let mut sent = Sent::default();
        for n in 0..count {
            sent.add(&n.to_string(), b"body");
        }
        sent
    }

    #[test]
    fn what_the_replay_does_not_show_is_pending_again_and_in_order() {
        let mut sent = sent(4);
        assert!(!sent.was_stored());
        for n in ["0", "1", "2"] {
            sent.echoed(n, 1000);
        }
        assert_eq!(phases(sent.pending()), ["3"]);
        sent.replay_begins();
        sent.echoed("1", 1000);
        sent.echoed("1", 1000);
        assert_eq!(sent.pending_bytes(), 8);
        assert_eq!(phases(sent.replay_ended()), ["0", "2"]);
        assert_eq!(phases(sent.pending()), ["0", "2", "3"]);
        assert_eq!(sent.pending_bytes(), 24);
        assert_eq!(sent.kept_bytes, 8);
        // A connection that is lost during the replay changes nothing.
        for n in ["0", "2", "3"] {
            sent.echoed(n, 1000);
        }
        sent.replay_begins();
        sent.echoed("1", 1000);
        assert_eq!(sent.kept_bytes, 32);
        sent.replay_begins();
        assert_eq!(phases(sent.replay_ended()), ["0", "1", "2", "3"]);
    }

    #[test]
    fn memory_for_what_was_stored_is_bounded() {
        let mut sent = sent(10);
        for n in 0..10 {
            sent.echoed(&n.to_string(), 24);
            assert!(sent.kept_bytes <= 24);
            assert_eq!(sent.is_incomplete(), n >= 3);
        }
        sent.replay_begins();
        assert_eq!(phases(sent.replay_ended()), ["7", "8", "9"]);
        sent.echoed("7", 24);
        sent.drop_stored();
        assert_eq!(phases(sent.pending()), ["8", "9"]);
        assert_eq!((sent.pending_bytes(), sent.kept_bytes, sent.numbers.len()), (16, 0, 2));
        assert!(sent.was_stored(), "the server had something once");
    }
}
