//! What must hold.

use dilated::{
    Dialect,
    protocol::{DilationMessage, State},
};
use dilated_subchannel::mux::RECORD_OVERHEAD;
use dilated_transit::HintLimits;

use super::{Brain, Side, ged::LIMITS};
use crate::network::Network;

/// Connections that a connector may hold: 32 of others, and one for each hint.
const MOST_HELD: usize = 32 + 32 + 8 + 1;
/// Hints that a connector may remember.
const MOST_HINTS: usize = 40;

impl Side {
    /// What must hold whenever it has come to rest.
    pub(super) fn check(&mut self, network: &Network) {
        while let Some(event) = self.mux.poll_event() {
            self.app.handle_event(&event);
        }
        let usage = self.mux.usage();
        match self.dialect {
            Dialect::Dilated1 => self.check_dilated1(network),
            _ => {
                let (record, slack) = (1500 + 2 * RECORD_OVERHEAD, 4096);
                assert!(usage.outbox_bytes <= LIMITS.outbox + record + slack, "{usage:?}");
                // Reading pauses behind the record that reached the limit.
                assert!(usage.receive_bytes <= LIMITS.total + record, "{usage:?}");
            }
        }
        self.check_timer();
        if let Some(connector) = &self.connector {
            assert!(connector.held() <= MOST_HELD, "{} connections are held", connector.held());
            assert!(connector.remembered() <= MOST_HINTS, "{} hints are remembered", connector.remembered());
        }
        let linked = self.link.is_some() || self.wires.as_ref().is_some_and(|wires| !wires.is_empty());
        assert_eq!(self.is_connected(), linked, "{}", self.describe());
        if let Some(link) = &self.link {
            assert!(link.deadline().is_none_or(|at| at > network.now), "a timer of the link is late");
        }
    }

    /// A search is never without an end, or the hints would not be told again.
    fn check_timer(&self) {
        let Brain::Ours(manager) = &self.brain else { return };
        let searches = matches!(
            manager.state(),
            State::Searching { .. } | State::Connecting { .. } | State::Pausing { .. }
        );
        assert!(!searches || manager.poll_timeout().is_some(), "{:?} for ever", manager.state());
    }

    /// What the peer has said counts at once, in `dilated-1`: its hints are all that are known of it, and it has lost
    /// every link of a generation that is lower than its own.
    pub(super) fn check_heard(&self, message: &[u8]) {
        let Brain::Ours(manager) = &self.brain else { return };
        let (State::Searching { .. } | State::Linked { .. }) = manager.state() else { return };
        let Some(DilationMessage::Hints { hints, generation: Some(generation) }) =
            DilationMessage::parse(message, &HintLimits::default())
        else {
            return;
        };
        assert!(manager.generation() >= generation, "the peer is in generation {generation}");
        let connector = self.connector.as_ref().expect("made with the first search");
        assert!(connector.knows(&hints), "hints that the peer has told are not known");
    }

    fn check_dilated1(&self, network: &Network) {
        let (usage, config) = (self.mux.usage(), &self.config);
        // A chunk may cost a little more than its bytes.
        let most = config.outbox_limit + config.outbox_limit / 2 + config.max_data;
        assert!(usage.outbox_bytes <= most, "{usage:?}");
        // Long messages are put together outside of the credit, a few at a time.
        let assemblers = (config.receive_total / config.max_data).max(1);
        let control = 64 * 1024;
        let most = config.receive_total + control + assemblers * config.max_data;
        assert!(usage.receive_bytes <= most, "{usage:?}");
        if let (Some(wires), Some(mux)) = (&self.wires, self.mux.as_dilated1()) {
            wires.check(self.generation(), mux, &self.book.borrow(), network);
        }
    }
}
