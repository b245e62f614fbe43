//! The two questions that a client may ask the server: which nameplates are in use, and for a free one.

use super::wire::Wire;
use crate::message::ClientMessage;

/// Asks for the list of nameplates. Questions asked while one is under way share its answer.
#[derive(Debug, Default)]
pub(super) struct Lister {
    wanted: bool,
}

impl Lister {
    pub(super) fn refresh(&mut self, wire: &mut Wire) {
        if !self.wanted {
            self.wanted = true;
            self.connected(wire);
        }
    }

    pub(super) fn connected(&self, wire: &mut Wire) {
        if self.wanted {
            wire.send(ClientMessage::List);
        }
    }

    pub(super) fn answered(&mut self) {
        self.wanted = false;
    }
}

/// Asks for a free nameplate, again on each connection until there is an answer. An answer that is lost
/// leaves a nameplate that the server prunes later.
#[derive(Debug, Default)]
pub(super) struct Allocator {
    words: Option<usize>,
}

impl Allocator {
    pub(super) fn allocate(&mut self, words: usize, wire: &mut Wire) {
        self.words = Some(words);
        self.connected(wire);
    }

    pub(super) fn connected(&self, wire: &mut Wire) {
        if self.words.is_some() {
            wire.send(ClientMessage::Allocate);
        }
    }

    /// The number of words of the code to make, or `None` if nothing was asked.
    pub(super) fn answered(&mut self) -> Option<usize> {
        self.words.take()
    }

    pub(super) fn cancel(&mut self) {
        self.words = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(wire: &mut Wire) -> usize {
        std::iter::from_fn(|| wire.pop()).count()
    }

    #[test]
    fn lister_coalesces_and_repeats() {
        let (mut wire, mut lister) = (Wire::default(), Lister::default());
        lister.refresh(&mut wire);
        lister.refresh(&mut wire);
        assert_eq!(sent(&mut wire), 0);
        for _ in 0..2 {
            wire.open();
            lister.connected(&mut wire);
            assert_eq!(sent(&mut wire), 1);
            lister.refresh(&mut wire);
            assert_eq!(sent(&mut wire), 0);
            wire.lose();
        }
        wire.open();
        lister.answered();
        lister.connected(&mut wire);
        assert_eq!(sent(&mut wire), 0);
        lister.refresh(&mut wire);
        assert_eq!(sent(&mut wire), 1);
    }

    #[test]
    fn allocator_before_and_after_connecting() {
        let (mut wire, mut allocator) = (Wire::default(), Allocator::default());
        assert_eq!(allocator.answered(), None);
        allocator.allocate(3, &mut wire);
        wire.open();
        allocator.connected(&mut wire);
        assert_eq!(sent(&mut wire), 1);
        wire.lose();
        wire.open();
        allocator.connected(&mut wire);
        assert_eq!(sent(&mut wire), 1);
        assert_eq!(allocator.answered(), Some(3));
        assert_eq!(allocator.answered(), None);
        allocator.connected(&mut wire);
        assert_eq!(sent(&mut wire), 0);

        allocator.allocate(2, &mut wire);
        assert_eq!(sent(&mut wire), 1);
    }
}
