//! The dilation manager: which messages to send, when to connect, when a link counts
//! (specification `ged`, section "State machines").
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
//!
//! Run loop: call a `handle_*` or a verb, then drain [`Manager::poll_action`], then arm one timer for
//! [`Manager::poll_timeout`].

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use dilated_transit::{Hint, HintLimits, Role};

use crate::{error::DilationError, generation::Generation, message::DilationMessage, role::DilationSide};

#[cfg(test)]
mod tests;

/// Messages from the peer that wait for our own `dilate()`; more is a flood.
const MAX_EARLY_MESSAGES: usize = 256;

/// Links in a row that died young, from which on the Leader pauses.
const PAUSED_FROM: u32 = 3;

/// Timers of the manager.
#[derive(Debug, Clone, Copy)]
pub struct ManagerTiming {
    /// How long a generation may look for a link before the Leader starts the next one, and the Follower tells its
    /// hints again. Default 10 s. Doubles each time up to `connect_timeout_max`, so that a peer that sleeps for a night
    /// does not fill the mailbox.
    pub connect_timeout: Duration,
    /// The ceiling of that doubling. Default 600 s.
    pub connect_timeout_max: Duration,
    /// A link that lived shorter than this counts as a failure. Default 2 s.
    pub short_lived: Duration,
    /// After three failures in a row the Leader waits this long before the next generation, doubling. Default 250 ms.
    pub pause: Duration,
    /// The ceiling of that doubling. Default 30 s.
    pub pause_max: Duration,
}

impl Default for ManagerTiming {
    fn default() -> Self {
        ManagerTiming {
            connect_timeout: Duration::from_secs(10),
            connect_timeout_max: Duration::from_secs(600),
            short_lived: Duration::from_secs(2),
            pause: Duration::from_millis(250),
            pause_max: Duration::from_secs(30),
        }
    }
}

/// What the driver must do now.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Send these bytes as the next `dilate-N` phase.
    Send(Vec<u8>),
    /// The role is known: subchannel ids can be given out.
    RoleChosen(Role),
    /// Begin to search for a link of this generation, or begin anew; close what is open for a former one.
    Search(Role, Generation),
    /// End the search.
    Rest,
    /// Hand the peer's hints to the connector.
    UseHints {
        /// Those of one message.
        hints: Vec<Hint>,
        /// Whether they take the place of all that are known.
        first: bool,
    },
    /// Abort the link at once, without flushing.
    AbortLink,
    /// The dilation ended and cannot come back.
    Failed(DilationError),
}

/// What to do with a link that the connector selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// Use it.
    Use,
    /// The link in use is dead for the peer, who came with this one: report the loss with
    /// [`handle_link_lost`](Manager::handle_link_lost), do what follows, and ask again.
    Replace,
    /// Abort it: it comes too late, or too early.
    Refuse,
}

/// Why we wake up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    /// Connecting has taken too long.
    ConnectTimeout(Instant),
    /// The pause after short-lived links is over.
    PauseOver(Instant),
}

/// The states; those of both roles in one machine, because the role is learnt on the way.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum State {
    /// Our `dilate()` or the peer's versions are missing.
    Waiting {
        /// Our side, once the application called `dilate()`.
        side: Option<DilationSide>,
        /// The versions of the protocol that the peer speaks, once they are here.
        peer_can: Option<Vec<String>>,
        /// Messages of a peer that was faster, to be replayed in order.
        early: VecDeque<Vec<u8>>,
    },
    /// We said `please`.
    Wanting {
        /// Our side.
        side: DilationSide,
    },
    /// Looking for a link.
    Connecting {
        /// Ours.
        role: Role,
    },
    /// On a link, since then.
    Connected {
        /// Ours.
        role: Role,
        /// When the link was chosen.
        since: Instant,
        /// Whether the peer was heard on it, so that it has the link, too.
        heard: bool,
    },
    /// Leader: waiting a little before `reconnect`, because links keep dying young.
    Pausing {
        /// Whether the peer was heard on the last one.
        heard: bool,
    },
    /// Leader: `reconnect` is sent; our hints would be dropped until `reconnecting` comes.
    Flushing {
        /// Whether a search runs meanwhile.
        early: bool,
    },
    /// Follower: the link is gone; the Leader must notice.
    Lonely,
    /// Ended, with the reason when it was an error.
    Stopped(Option<DilationError>),
}

/// The machine. No sockets, no clock.
#[derive(Debug)]
pub struct Manager {
    limits: HintLimits,
    timing: ManagerTiming,
    state: State,
    generation: Generation,
    timer: Option<Timer>,
    fruitless: u32,
    short_links: u32,
    mailbox_up: bool,
    /// Our hints of an early search, until the peer would take them.
    held_hints: Option<Vec<Hint>>,
    /// The peer has sent hints since Connecting began.
    hinted: bool,
    /// The peer understands `closing`.
    hears_closing: bool,
    /// The peer said it.
    peer_closes: bool,
    /// Leader: `reconnect`s that the Follower has not answered.
    unanswered: u64,
    /// Follower: `reconnect`s in the mail that early links have made pointless.
    outdated: u64,
    actions: VecDeque<Action>,
}

impl Manager {
    /// A manager that waits for [`dilate`](Self::dilate) and for the peer's versions.
    pub fn new(limits: HintLimits, timing: ManagerTiming) -> Manager {
        Manager {
            limits,
            timing,
            state: State::Waiting { side: None, peer_can: None, early: VecDeque::new() },
            generation: Generation::default(),
            timer: None,
            fruitless: 0,
            short_links: 0,
            mailbox_up: true,
            held_hints: None,
            hinted: false,
            hears_closing: false,
            peer_closes: false,
            unanswered: 0,
            outdated: 0,
            actions: VecDeque::new(),
        }
    }

    /// Replaces the limits and timers, before [`dilate`](Self::dilate).
    pub fn set_limits(&mut self, limits: HintLimits, timing: ManagerTiming) {
        self.limits = limits;
        self.timing = timing;
    }

    /// Where the machine is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The current generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// How many links in a row died young.
    pub fn short_links(&self) -> u32 {
        self.short_links
    }

    /// The next thing to do; drain it after every call.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.timer? {
            Timer::ConnectTimeout(at) | Timer::PauseOver(at) => Some(at),
        }
    }

    /// The application wants to dilate, under this side.
    pub fn dilate(&mut self, ours: DilationSide, now: Instant) {
        match &mut self.state {
            State::Waiting { side, .. } => *side = Some(ours),
            // It failed before anybody asked; whoever asks is told.
            State::Stopped(Some(error)) => {
                let error = error.clone();
                self.actions.push_back(Action::Failed(error));
            }
            _ => {}
        }
        self.start_when_ready(now);
    }

    /// The peer's version message arrived. `can_dilate` is empty for a peer that cannot.
    pub fn handle_versions(&mut self, can_dilate: &[String], now: Instant) {
        if let State::Waiting { peer_can, .. } = &mut self.state {
            *peer_can = Some(can_dilate.to_vec());
        }
        self.start_when_ready(now);
    }

    /// The next `dilate-N` message, in order.
    pub fn handle_message(&mut self, bytes: Vec<u8>, now: Instant) {
        if let State::Waiting { early, .. } = &mut self.state {
            if early.len() < MAX_EARLY_MESSAGES {
                early.push_back(bytes);
            } else {
                self.fail(DilationError::Protocol(format!(
                    "it sent more than {MAX_EARLY_MESSAGES} dilation messages before we answered"
                )));
            }
            return;
        }
        match DilationMessage::parse(&bytes, &self.limits) {
            Some(DilationMessage::Please { side, hears_closing }) => {
                self.hears_closing = hears_closing;
                self.handle_please(&side, now);
            }
            Some(DilationMessage::Hints(hints)) => self.handle_hints(hints),
            Some(DilationMessage::Reconnect) => self.handle_reconnect(now),
            Some(DilationMessage::Reconnecting) => self.handle_reconnecting(now),
            Some(DilationMessage::Closing) => self.handle_closing(),
            None => {}
        }
    }

    /// The connector has addresses of ours to tell. While connected they are for our own kind, which remembers them;
    /// Python drops them.
    pub fn handle_local_hints(&mut self, hints: Vec<Hint>) {
        match self.state {
            State::Connecting { .. } | State::Connected { .. } => self.send(&DilationMessage::Hints(hints)),
            State::Flushing { .. } | State::Lonely => self.held_hints = Some(hints),
            _ => {}
        }
    }

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
            self.send(&DilationMessage::Hints(hints));
        }
        self.state = State::Connected { role, since: now, heard: false };
        Selection::Use
    }

    /// The peer was heard on the link.
    pub fn handle_heard(&mut self) {
        if let State::Connected { heard, .. } = &mut self.state {
            *heard = true;
        }
    }

    /// The link is gone; `progressed` if the peer had acknowledged anything on it.
    pub fn handle_link_lost(&mut self, now: Instant, progressed: bool) {
        let State::Connected { role, since, heard } = self.state else { return };
        if self.peer_closes {
            return self.fail(DilationError::PeerClosed);
        }
        if now.saturating_duration_since(since) < self.timing.short_lived {
            self.short_links = self.short_links.saturating_add(1);
            if progressed {
                // They lead somewhere: the pause shall not grow.
                self.short_links = self.short_links.min(PAUSED_FROM);
            }
        } else {
            self.short_links = 0;
        }
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

    /// The connection to the mailbox server came, or went.
    pub fn handle_mailbox(&mut self, up: bool) {
        self.mailbox_up = up;
    }

    /// The machine's addresses or routes changed, or it woke up, and the search that runs was begun anew: it gets its
    /// full time again.
    pub fn handle_network_change(&mut self, now: Instant) {
        if let State::Connecting { .. } = self.state {
            self.arm_connect_timeout(now);
        }
    }

    /// A timer is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.timer {
            Some(Timer::ConnectTimeout(at)) if at <= now => self.search_took_too_long(now),
            Some(Timer::PauseOver(at)) if at <= now => {
                self.timer = None;
                let early = self.state == (State::Pausing { heard: true });
                self.flush(early);
            }
            _ => {}
        }
    }

    /// The wormhole is about to leave the mailbox, after which nothing more can be said: tells a peer that understands
    /// it, so that it does not look for us.
    pub fn say_closing(&mut self) {
        if self.hears_closing && !matches!(self.state, State::Waiting { .. } | State::Stopped(_)) {
            self.send(&DilationMessage::Closing);
        }
    }

    /// The wormhole ends.
    pub fn stop(&mut self) {
        self.end(None);
    }

    fn search_took_too_long(&mut self, now: Instant) {
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

    fn start_when_ready(&mut self, now: Instant) {
        let State::Waiting { side: Some(side), peer_can: Some(peer_can), early } = &mut self.state else {
            return;
        };
        if !peer_can.iter().any(|version| version == crate::GED) {
            let theirs = if peer_can.is_empty() { "no dilation at all".to_owned() } else { shown(peer_can) };
            self.fail(DilationError::PeerCannotDilate { theirs });
            return;
        }
        let early = std::mem::take(early);
        let side = side.clone();
        self.send(&DilationMessage::Please { side: side.as_str().to_owned(), hears_closing: true });
        self.state = State::Wanting { side };
        for message in early {
            self.handle_message(message, now);
        }
    }

    fn handle_please(&mut self, theirs: &str, now: Instant) {
        // A second `please` ends a Python wormhole; here it changes nothing.
        let State::Wanting { side } = &self.state else { return };
        match side.role_against(theirs) {
            Ok(role) => {
                self.actions.push_back(Action::RoleChosen(role));
                self.connect(role, false, now);
            }
            Err(error) => self.fail(error),
        }
    }

    fn handle_hints(&mut self, hints: Vec<Hint>) {
        let first = match self.state {
            State::Connecting { .. } => !std::mem::replace(&mut self.hinted, true),
            // The peer has moved, and its last message says all.
            State::Connected { .. } | State::Pausing { .. } | State::Flushing { .. } | State::Lonely => true,
            _ => return,
        };
        self.actions.push_back(Action::UseHints { hints, first });
    }

    fn handle_reconnect(&mut self, now: Instant) {
        let searching = match self.state {
            _ if self.outdated > 0 => {
                self.outdated -= 1;
                return self.send(&DilationMessage::Reconnecting);
            }
            State::Connecting { role: Role::Follower } => false,
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

    fn handle_reconnecting(&mut self, now: Instant) {
        self.unanswered = self.unanswered.saturating_sub(1);
        if let State::Flushing { early } = self.state
            && self.unanswered == 0
        {
            self.connect(Role::Leader, early, now);
        }
    }

    /// The link, if there is one, may still bring what the peer wrote.
    fn handle_closing(&mut self) {
        self.peer_closes = true;
        if !matches!(self.state, State::Connected { .. } | State::Stopped(_)) {
            self.fail(DilationError::PeerClosed);
        }
    }

    /// Begins to connect; `searching` when an early search already runs.
    fn connect(&mut self, role: Role, searching: bool, now: Instant) {
        self.state = State::Connecting { role };
        self.hinted = false;
        self.arm_connect_timeout(now);
        match self.held_hints.take().filter(|_| searching) {
            Some(hints) => self.send(&DilationMessage::Hints(hints)),
            None if searching => {}
            None => self.actions.push_back(Action::Search(role, self.generation)),
        }
    }

    fn arm_connect_timeout(&mut self, now: Instant) {
        let patience = doubled(self.timing.connect_timeout, self.fruitless, self.timing.connect_timeout_max);
        self.timer = Some(Timer::ConnectTimeout(now + patience));
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

    fn pause(&self) -> Option<Duration> {
        let excess = self.short_links.checked_sub(PAUSED_FROM)?;
        Some(doubled(self.timing.pause, excess, self.timing.pause_max))
    }

    fn send(&mut self, message: &DilationMessage) {
        self.actions.push_back(Action::Send(message.encode()));
    }

    fn fail(&mut self, error: DilationError) {
        self.end(Some(error.clone()));
        self.actions.push_back(Action::Failed(error));
    }

    fn end(&mut self, error: Option<DilationError>) {
        match self.state {
            State::Stopped(_) => return,
            State::Connecting { .. } | State::Flushing { early: true } | State::Lonely => {
                self.actions.push_back(Action::Rest);
            }
            _ => {}
        }
        self.timer = None;
        self.state = State::Stopped(error);
    }
}

/// `base · 2^times`, at most `max`.
fn doubled(base: Duration, times: u32, max: Duration) -> Duration {
    base.saturating_mul(2u32.saturating_pow(times)).min(max)
}

/// A peer's list of versions, shortened and with everything unprintable escaped.
fn shown(versions: &[String]) -> String {
    let names: Vec<String> =
        versions.iter().take(8).map(|v| format!("{:?}", v.chars().take(32).collect::<String>())).collect();
    names.join(", ")
}
