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

/// Timers of the manager.
#[derive(Debug, Clone, Copy)]
pub struct ManagerTiming {
    /// As Leader: how long a generation may look for a link before the next one starts with fresh hints. Doubles
    /// with every fruitless generation up to `connect_timeout_max`, so that a peer that sleeps for a night does
    /// not fill the mailbox.
    pub connect_timeout: Duration,
    /// The ceiling of that doubling.
    pub connect_timeout_max: Duration,
    /// A link that lived shorter than this counts as a failure.
    pub short_lived: Duration,
    /// After three failures in a row the Leader waits this long before the next generation, doubling.
    pub pause: Duration,
    /// The ceiling of that doubling.
    pub pause_max: Duration,
}

impl Default for ManagerTiming {
    fn default() -> Self {
        ManagerTiming {
            connect_timeout: Duration::from_secs(60),
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
    /// Begin to listen and dial for this generation.
    StartConnector(Role, Generation),
    /// Drop the connector and everything it has open.
    StopConnector,
    /// Hand the peer's hints to the connector.
    UseHints(Vec<Hint>),
    /// Abort the link at once, without flushing.
    AbortLink,
    /// The dilation ended and cannot come back.
    Failed(DilationError),
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
    },
    /// Leader: waiting a little before `reconnect`, because links keep dying young.
    Pausing,
    /// Leader: `reconnect` is sent; hints are stale until `reconnecting` comes.
    Flushing,
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
            Some(DilationMessage::Please { side }) => self.handle_please(&side, now),
            Some(DilationMessage::Hints(hints)) => self.handle_hints(hints),
            Some(DilationMessage::Reconnect) => self.handle_reconnect(now),
            Some(DilationMessage::Reconnecting) => self.handle_reconnecting(now),
            None => {}
        }
    }

    /// The connector has addresses of ours to tell. Hints of a generation that is no longer connecting would be
    /// taken for stale by the peer, or be so; they are dropped.
    pub fn handle_local_hints(&mut self, hints: Vec<Hint>) {
        if matches!(self.state, State::Connecting { .. }) {
            self.send(&DilationMessage::Hints(hints));
        }
    }

    /// The connector chose a link. Returns whether the link may be used; `false` when the choice came too late.
    pub fn handle_selected(&mut self, now: Instant) -> bool {
        let State::Connecting { role } = self.state else { return false };
        self.timer = None;
        self.fruitless = 0;
        self.state = State::Connected { role, since: now };
        true
    }

    /// The link is gone.
    pub fn handle_link_lost(&mut self, now: Instant) {
        let State::Connected { role, since } = self.state else { return };
        if now.saturating_duration_since(since) < self.timing.short_lived {
            self.short_links = self.short_links.saturating_add(1);
        } else {
            self.short_links = 0;
        }
        match role {
            // Only the Leader may ask for the next generation; a Follower that did so would wedge a Python Leader.
            Role::Follower => self.state = State::Lonely,
            Role::Leader => match self.pause() {
                Some(pause) => {
                    self.state = State::Pausing;
                    self.timer = Some(Timer::PauseOver(now + pause));
                }
                None => self.flush(),
            },
        }
    }

    /// A timer is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.timer {
            Some(Timer::ConnectTimeout(at)) if at <= now => {
                self.timer = None;
                self.fruitless = self.fruitless.saturating_add(1);
                self.actions.push_back(Action::StopConnector);
                self.flush();
            }
            Some(Timer::PauseOver(at)) if at <= now => {
                self.timer = None;
                self.flush();
            }
            _ => {}
        }
    }

    /// The wormhole ends.
    pub fn stop(&mut self) {
        self.end(None);
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
        self.send(&DilationMessage::Please { side: side.as_str().to_owned() });
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
                self.connect(role, now);
            }
            Err(error) => self.fail(error),
        }
    }

    fn handle_hints(&mut self, hints: Vec<Hint>) {
        // In every other state they belong to a generation that is over, or to none.
        if matches!(self.state, State::Connecting { .. }) {
            self.actions.push_back(Action::UseHints(hints));
        }
    }

    fn handle_reconnect(&mut self, now: Instant) {
        match self.state {
            State::Connecting { role: Role::Follower } => self.actions.push_back(Action::StopConnector),
            // Python waits in a state of its own until its link has closed; ours is aborted at once, so there is
            // nothing to wait for.
            State::Connected { role: Role::Follower, .. } => self.actions.push_back(Action::AbortLink),
            State::Lonely => {}
            // A Follower must not send it; a Leader that obeyed would start a second conversation.
            _ => {
                tracing::debug!("ignored a `reconnect` that only a Leader may send");
                return;
            }
        }
        self.generation = self.generation.next();
        self.send(&DilationMessage::Reconnecting);
        self.connect(Role::Follower, now);
    }

    fn handle_reconnecting(&mut self, now: Instant) {
        if self.state == State::Flushing {
            self.connect(Role::Leader, now);
        }
    }

    fn connect(&mut self, role: Role, now: Instant) {
        self.timer = match role {
            Role::Follower => None,
            Role::Leader => Some(Timer::ConnectTimeout(
                now + doubled(self.timing.connect_timeout, self.fruitless, self.timing.connect_timeout_max),
            )),
        };
        self.state = State::Connecting { role };
        self.actions.push_back(Action::StartConnector(role, self.generation));
    }

    /// Leader: asks for the next generation.
    fn flush(&mut self) {
        self.generation = self.generation.next();
        self.state = State::Flushing;
        self.send(&DilationMessage::Reconnect);
    }

    fn pause(&self) -> Option<Duration> {
        let excess = self.short_links.checked_sub(3)?;
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
            State::Connecting { .. } => self.actions.push_back(Action::StopConnector),
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
