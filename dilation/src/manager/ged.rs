//! The rules of `ged` (specification `ged`, section "State machines").
//!
//! ```text
//!            dilate + versions        please             selected
//!  Waiting ──────────────────► Wanting ────► Connecting ───────────► Connected
//!                                             ▲  ▲   │ Leader: too long   │ lost
//!                           reconnecting      │  │   ▼                    ▼
//!              Leader:   Flushing ────────────┘  │ Flushing ◄── Pausing ◄─┤ (Leader)
//!                                                │                        │
//!              Follower: Lonely ─────────────────┘ ◄──────────────────────┘ (Follower)
//!                                 reconnect (also from Connecting and Connected)
//! ```
//!
//! # Early links
//!
//! A manager that has lost its link searches at once, under the hints that it remembers and with the listener that
//! it still has, while `reconnect` is on its way through the mailbox. A Python peer listens and dials in Connecting only,
//! so it answers that only when it has heard `reconnect`, and its `reconnecting` is what is late. Two of our own find
//! each other so without the mailbox.
//!
//! What is still in the mail then must not disturb the new link. A Follower that found a link in Lonely knows what that
//! is: one `reconnect`, sent when the Leader lost the same link. It answers but does not obey it. The count is certain
//! because the Leader links early only after the loss of a link on which it has heard the Follower, so that the
//! Follower is in Lonely too; after any other loss it refuses links until each `reconnect` was answered.

use std::time::Instant;

use dilated_transit::Role;

use super::{Action, Manager, Selection, State, Timer};
use crate::{error::DilationError, message::DilationMessage};

impl Manager {
    /// The connector selected a link.
    pub fn handle_selected(&mut self, now: Instant) -> Selection {
        let role = match self.state {
            State::Connecting { role } => role,
            State::Flushing { early: true } => Role::Leader,
            State::Lonely => {
                self.generation = self.generation.next();
                self.outdated += 1;
                Role::Follower
            }
            // The Leader chooses once for each generation, so this is the next.
            State::Connected { role: Role::Follower, .. } => return Selection::Replace,
            // A connection that lost the race of this generation may arrive a moment late. Later, a Follower that
            // dials has lost its link.
            State::Connected { role: Role::Leader, since, heard: true }
                if now.saturating_duration_since(since) >= self.timing.short_lived =>
            {
                return Selection::Replace;
            }
            _ => return Selection::Refuse,
        };
        self.timer = None;
        self.fruitless = 0;
        // The peer did not need them for this link, but may for the next.
        if let Some(hints) = self.held_hints.take() {
            self.tell(hints, None);
        }
        self.state = State::Connected { role, since: now, heard: false };
        Selection::Use
    }

    /// The link is lost.
    pub(super) fn leave_link(&mut self, role: Role, heard: bool, now: Instant) {
        match role {
            // Only the Leader may ask for the next generation; a Follower that did so would wedge a Python Leader.
            Role::Follower => {
                self.state = State::Lonely;
                self.actions.push_back(Action::Search(Role::Follower, self.generation.next()));
            }
            Role::Leader => match self.pause() {
                Some(pause) => {
                    self.state = State::Pausing { heard };
                    self.timer = Some(Timer::PauseOver(now + pause));
                }
                None => self.flush(heard),
            },
        }
    }

    pub(super) fn search_took_too_long(&mut self, now: Instant) {
        let State::Connecting { role } = self.state else { return };
        self.fruitless = self.fruitless.saturating_add(u32::from(self.mailbox_up));
        if role == Role::Leader && self.mailbox_up {
            self.timer = None;
            self.actions.push_back(Action::Rest);
            self.flush(false);
        } else {
            // Without the mailbox no generation can begin, and a Follower cannot ask for one. But hints can be told
            // again: a Python Leader that has moved dials nobody until it hears from us.
            self.actions.push_back(Action::Search(role, self.generation));
            self.arm_connect_timeout(now);
        }
    }

    pub(super) fn handle_reconnect(&mut self, now: Instant) {
        let searching = match self.state {
            _ if self.outdated > 0 => {
                self.outdated -= 1;
                return self.send(&DilationMessage::Reconnecting);
            }
            State::Connecting { role: Role::Follower } => false,
            // It said so before it lost the link on which we waited for its last words.
            State::Connected { .. } if self.peer_closes => return self.fail(DilationError::PeerClosed),
            // Python waits in a state of its own until its link has closed; ours is aborted at once, so there is
            // nothing to wait for.
            State::Connected { role: Role::Follower, .. } => {
                self.actions.push_back(Action::AbortLink);
                false
            }
            State::Lonely => true,
            // A Follower must not send it; a Leader that obeyed would start a second conversation.
            _ => {
                tracing::debug!("ignored a `reconnect` that only a Leader may send");
                return;
            }
        };
        self.generation = self.generation.next();
        self.send(&DilationMessage::Reconnecting);
        self.connect(Role::Follower, searching, now);
    }

    pub(super) fn handle_reconnecting(&mut self, now: Instant) {
        self.unanswered = self.unanswered.saturating_sub(1);
        if let State::Flushing { early } = self.state
            && self.unanswered == 0
        {
            self.connect(Role::Leader, early, now);
        }
    }

    /// Begins to connect; `searching` when an early search already runs.
    pub(super) fn connect(&mut self, role: Role, searching: bool, now: Instant) {
        self.state = State::Connecting { role };
        self.hinted = false;
        self.arm_connect_timeout(now);
        match self.held_hints.take().filter(|_| searching) {
            Some(hints) => self.tell(hints, None),
            None if searching => {}
            None => self.actions.push_back(Action::Search(role, self.generation)),
        }
    }

    pub(super) fn end_pause(&mut self) {
        self.timer = None;
        self.flush(self.state == (State::Pausing { heard: true }));
    }

    /// Leader: asks for the next generation. `early`: searches before it is answered.
    fn flush(&mut self, early: bool) {
        self.generation = self.generation.next();
        self.state = State::Flushing { early };
        self.unanswered += 1;
        self.send(&DilationMessage::Reconnect);
        if early {
            self.actions.push_back(Action::Search(Role::Leader, self.generation));
        }
    }
}
