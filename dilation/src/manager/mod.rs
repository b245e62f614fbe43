//! The dilation manager: which messages to send, when to connect, when a link counts.
//!
//! What comes before the role is known is the same in both dialects; then `ged` or `dilated1` goes on.
//!
//! ```text
//!            dilate + versions        please
//!  Waiting ──────────────────► Wanting ────► ged: Connecting …     dilated-1: Searching …
//! ```
//!
//! Run loop: call a `handle_*` or a verb, then drain [`Manager::poll_action`], then arm one timer for
//! [`Manager::poll_timeout`].

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use dilated_transit::{Hint, HintLimits, Role};

use crate::{
    dialect::{Agreement, Dialect, Parameters, Terms},
    error::DilationError,
    generation::Generation,
    message::DilationMessage,
    role::DilationSide,
};

mod dilated1;
mod ged;
#[cfg(test)]
mod tests;

pub use dilated1::Choice;

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
    /// The role and the dialect are known: subchannels can be opened.
    Agreed(Role, Agreement),
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
    /// Abort the link, or all of them, at once, without flushing.
    AbortLink,
    /// The dilation ended and cannot come back.
    Failed(DilationError),
}

/// What to do with a link that the connector selected, in `ged`.
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
        /// Our side and terms, once the application called `dilate()`.
        ours: Option<(DilationSide, Terms)>,
        /// The versions of the protocol that the peer speaks, once they are here.
        peer_can: Option<Vec<String>>,
        /// Messages of a peer that was faster, to be replayed in order.
        early: VecDeque<Vec<u8>>,
    },
    /// We said `please`.
    Wanting {
        /// Our side.
        side: DilationSide,
        /// The dialects that both sides offer, in our order.
        common: Vec<Dialect>,
        /// What we said of ourselves.
        parameters: Parameters,
    },
    /// `dilated-1`: looking for a link of our generation.
    Searching {
        /// Ours.
        role: Role,
    },
    /// `dilated-1`: there is a link of our generation.
    Linked {
        /// Ours.
        role: Role,
        /// When the first link of the generation was chosen.
        since: Instant,
        /// Whether the peer was heard on any.
        heard: bool,
    },
    /// `ged`: looking for a link.
    Connecting {
        /// Ours.
        role: Role,
    },
    /// `ged`: on a link, since then.
    Connected {
        /// Ours.
        role: Role,
        /// When the link was chosen.
        since: Instant,
        /// Whether the peer was heard on it, so that it has the link, too.
        heard: bool,
    },
    /// `ged`, Leader: waiting a little before `reconnect`, because links keep dying young.
    Pausing {
        /// Whether the peer was heard on the last one.
        heard: bool,
    },
    /// `ged`, Leader: `reconnect` is sent; our hints would be dropped until `reconnecting` comes.
    Flushing {
        /// Whether a search runs meanwhile.
        early: bool,
    },
    /// `ged`, Follower: the link is gone; the Leader must notice.
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
            state: State::Waiting { ours: None, peer_can: None, early: VecDeque::new() },
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

    /// The application wants to dilate, under this side and on these terms.
    pub fn dilate(&mut self, side: DilationSide, terms: Terms, now: Instant) {
        match &mut self.state {
            State::Waiting { ours, .. } => *ours = Some((side, terms)),
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
            Some(DilationMessage::Please { side, use_version, parameters, hears_closing }) => {
                self.hears_closing = hears_closing;
                self.handle_please(&side, use_version, parameters, now);
            }
            Some(DilationMessage::Hints { hints, generation }) => self.handle_hints(hints, generation, now),
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
            State::Connecting { .. } | State::Connected { .. } => self.tell(hints, None),
            State::Searching { .. } | State::Linked { .. } => self.tell(hints, Some(self.generation)),
            State::Flushing { .. } | State::Lonely => self.held_hints = Some(hints),
            _ => {}
        }
    }

    /// The peer was heard on the link.
    pub fn handle_heard(&mut self) {
        if let State::Connected { heard, .. } | State::Linked { heard, .. } = &mut self.state {
            *heard = true;
        }
    }

    /// The link is gone, in `dilated-1` the last of its generation; `progressed` if the peer had acknowledged anything
    /// on it.
    pub fn handle_link_lost(&mut self, now: Instant, progressed: bool) {
        let (State::Connected { role, since, heard } | State::Linked { role, since, heard }) = self.state
        else {
            return;
        };
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
        match self.state {
            State::Linked { .. } => self.leave_generation(role, heard, now),
            _ => self.leave_link(role, heard, now),
        }
    }

    /// The connection to the mailbox server came, or went.
    pub fn handle_mailbox(&mut self, up: bool) {
        self.mailbox_up = up;
    }

    /// The machine's addresses or routes changed, or it woke up, and the search that runs was begun anew: it gets its
    /// full time again.
    pub fn handle_network_change(&mut self, now: Instant) {
        if let State::Connecting { .. } | State::Searching { .. } = self.state {
            self.arm_connect_timeout(now);
        }
    }

    /// A timer is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.timer {
            Some(Timer::ConnectTimeout(at)) if at <= now => match self.state {
                State::Searching { role } => self.search_again(role, now),
                _ => self.search_took_too_long(now),
            },
            Some(Timer::PauseOver(at)) if at <= now => match self.state {
                State::Searching { role } => self.search(role, now),
                _ => self.end_pause(),
            },
            _ => {}
        }
    }

    /// The wormhole is about to leave the mailbox, after which nothing more can be said: tells a peer that understands
    /// it, so that it does not look for us.
    pub fn say_closing(&mut self) {
        let hears = match &self.state {
            State::Waiting { .. } | State::Stopped(_) => false,
            // Its `please` is not here yet. Whoever offers our dialect is of our kind.
            State::Wanting { common, .. } => common.contains(&Dialect::Dilated1),
            _ => self.hears_closing,
        };
        if hears {
            self.send(&DilationMessage::Closing);
        }
    }

    /// The wormhole ends.
    pub fn stop(&mut self) {
        self.end(None);
    }

    fn start_when_ready(&mut self, now: Instant) {
        let State::Waiting { ours: Some((side, terms)), peer_can: Some(peer_can), early } = &mut self.state
        else {
            return;
        };
        let offered = |dialect: &Dialect| peer_can.iter().any(|version| version == dialect.name());
        let common: Vec<Dialect> = terms.dialects.iter().copied().filter(offered).collect();
        let Some(favourite) = common.first().copied() else {
            let theirs = if peer_can.is_empty() { "no dilation at all".to_owned() } else { shown(peer_can) };
            let ours = terms.dialects.iter().map(|dialect| dialect.name()).collect::<Vec<_>>().join(" or ");
            self.fail(DilationError::PeerCannotDilate { theirs, ours });
            return;
        };
        let early = std::mem::take(early);
        let (side, parameters) = (side.clone(), terms.parameters);
        self.send(&DilationMessage::Please {
            side: side.as_str().to_owned(),
            use_version: Some(favourite),
            parameters: common.contains(&Dialect::Dilated1).then_some(parameters),
            hears_closing: true,
        });
        self.state = State::Wanting { side, common, parameters };
        for message in early {
            self.handle_message(message, now);
        }
    }

    fn handle_please(
        &mut self,
        theirs: &str,
        use_version: Option<Dialect>,
        said: Option<Parameters>,
        now: Instant,
    ) {
        // A second `please` ends a Python wormhole; here it changes nothing.
        let State::Wanting { side, common, parameters } = &self.state else { return };
        let role = match side.role_against(theirs) {
            Ok(role) => role,
            Err(error) => return self.fail(error),
        };
        // The Leader's choice counts; Python does not look at it, and has only one.
        let chosen = match role {
            Role::Leader => common.first().copied(),
            Role::Follower => use_version.filter(|dialect| common.contains(dialect)),
        };
        let ours = *parameters;
        let said = said.unwrap_or_default();
        match chosen {
            None => self.fail(DilationError::Protocol(
                "it leads, and chose a version of the dilation protocol that we did not offer".to_owned(),
            )),
            Some(Dialect::Ged) => {
                self.actions.push_back(Action::Agreed(role, Agreement::Ged));
                self.connect(role, false, now);
            }
            Some(Dialect::Dilated1) => {
                let (aes, standby) = (ours.aes && said.aes, ours.standby || said.standby);
                let agreement = Agreement::Dilated1 { aes, standby, peer: said.mux };
                self.actions.push_back(Action::Agreed(role, agreement));
                self.search(role, now);
            }
        }
    }

    fn handle_hints(&mut self, hints: Vec<Hint>, generation: Option<Generation>, now: Instant) {
        let first = match self.state {
            State::Connecting { role } => {
                if role == Role::Follower {
                    // The Leader is here, perhaps again. If it is a Python one, it dials once for each message of ours.
                    self.fruitless = 0;
                    self.arm_connect_timeout(now);
                }
                !std::mem::replace(&mut self.hinted, true)
            }
            // The peer has moved, and its last message says all.
            State::Connected { .. } | State::Pausing { .. } | State::Flushing { .. } | State::Lonely => true,
            State::Searching { .. } | State::Linked { .. } => {
                self.catch_up(generation.unwrap_or_default(), now);
                if let State::Stopped(_) = self.state {
                    return;
                }
                true
            }
            _ => return,
        };
        self.actions.push_back(Action::UseHints { hints, first });
    }

    /// The link, if there is one, may still bring what the peer wrote.
    fn handle_closing(&mut self) {
        self.peer_closes = true;
        if !matches!(self.state, State::Connected { .. } | State::Linked { .. } | State::Stopped(_)) {
            self.fail(DilationError::PeerClosed);
        }
    }

    fn arm_connect_timeout(&mut self, now: Instant) {
        let patience = doubled(self.timing.connect_timeout, self.fruitless, self.timing.connect_timeout_max);
        self.timer = Some(Timer::ConnectTimeout(now + patience));
    }

    fn pause(&self) -> Option<Duration> {
        let excess = self.short_links.checked_sub(PAUSED_FROM)?;
        Some(doubled(self.timing.pause, excess, self.timing.pause_max))
    }

    fn tell(&mut self, hints: Vec<Hint>, generation: Option<Generation>) {
        self.send(&DilationMessage::Hints { hints, generation });
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
            State::Connecting { .. }
            | State::Flushing { early: true }
            | State::Lonely
            | State::Searching { .. }
            | State::Linked { .. } => {
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
