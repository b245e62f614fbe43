//! The rules of `dilated-1` (specification `dilated-1`, section "Generations").
//!
//! ```text
//!             a link of our generation or a later one
//!  Searching g ──────────────────────────────────────► Linked h ≥ g
//!     ▲  ▲                                              │  │ a link, or hints, of a later generation:
//!     │  └── the last link is lost, the peer was heard ─┘  │ the peer has left this one
//!     └─────────────────────────────────────────────────────┘
//! ```
//!
//! Nobody has to ask for the next generation, and nothing waits for the mailbox: a side that has lost its last link
//! searches, and who meets it learns the generation from the handshake. When both search, both count alike. The
//! generations differ by one at most, because nobody leaves one in which the other was not heard.

use std::time::{Duration, Instant};

use dilated_transit::Role;

use super::{Action, Manager, State, Timer};
use crate::{error::DilationError, generation::Generation};

/// Candidates of one search come in a bunch: what the peer said in handshakes that were under way when the link was chosen does
/// not mean that it lost that link.
const BUNCH: Duration = Duration::from_millis(500);

/// What to do with a link over which the peer has confirmed its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Use it. Links of an earlier generation, if there are any, are to be aborted.
    Use,
    /// There is a link of this generation. This one may stand by, or take its place.
    Another {
        /// The peer may not have the other one: this one has to take its place.
        needed: bool,
    },
    /// Close it: it belongs to a generation that is over.
    Refuse,
}

impl Manager {
    /// A candidate of this generation is there; `peer_linked` if the peer had a link when it shook hands.
    pub fn handle_candidate(&mut self, generation: Generation, peer_linked: bool, now: Instant) -> Choice {
        let role = match self.state {
            State::Searching { role } | State::Linked { role, .. } if generation < self.generation => {
                tracing::debug!(%generation, ?role, "a link of a generation that is over");
                return Choice::Refuse;
            }
            State::Searching { role } => role,
            State::Linked { role, .. } if generation > self.generation => role,
            State::Linked { role, heard, since } => {
                let unsure = !peer_linked && !heard && now.saturating_duration_since(since) >= BUNCH;
                return Choice::Another { needed: role == Role::Leader && unsure };
            }
            _ => return Choice::Refuse,
        };
        self.generation = generation;
        self.timer = None;
        self.fruitless = 0;
        self.state = State::Linked { role, since: now, heard: false };
        Choice::Use
    }

    /// Begins to search.
    pub(super) fn search(&mut self, role: Role, now: Instant) {
        self.state = State::Searching { role };
        self.arm_connect_timeout(now);
        self.actions.push_back(Action::Search(role, self.generation));
    }

    /// Nothing was found: hints are told again, and all is tried anew.
    pub(super) fn search_again(&mut self, role: Role, now: Instant) {
        self.fruitless = self.fruitless.saturating_add(u32::from(self.mailbox_up));
        self.search(role, now);
    }

    /// The last link of this generation is lost.
    pub(super) fn leave_generation(&mut self, role: Role, heard: bool, now: Instant) {
        if heard {
            self.generation = self.generation.next();
        }
        match self.pause() {
            // Links that die young, one after the other, are no use. The peer may still come.
            Some(pause) => {
                self.state = State::Searching { role };
                self.timer = Some(Timer::PauseOver(now + pause));
            }
            None => self.search(role, now),
        }
    }

    /// The peer is in this generation. If that is a later one than ours, it has lost what we may still believe in.
    pub(super) fn catch_up(&mut self, generation: Generation, now: Instant) {
        if generation <= self.generation {
            return;
        }
        let (State::Searching { role } | State::Linked { role, .. }) = self.state else { return };
        if self.peer_closes {
            // It said so before it lost the link on which we waited for its last words.
            return self.fail(DilationError::PeerClosed);
        }
        if let State::Linked { .. } = self.state {
            self.actions.push_back(Action::AbortLink);
        }
        self.generation = generation;
        self.search(role, now);
    }
}
