//! A side that behaves like the Python implementation of `ged`: no early links, a Leader that pings every 30 s, a
//! Follower that never does, hints that are dropped unless it is connecting, no timer while it is.
//!
//! Two faults of the original are left out: it loses the ACKs for what comes bundled with the KCM, and its flushing
//! close waits for a stalled link.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use dilated::{
    Dialect, Generation,
    protocol::{Action, Agreement, DilationMessage, DilationSide, Selection, Verdict},
};
use dilated_subchannel::record::PingId;
use dilated_transit::{HintLimits, Role};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Wanting,
    Connecting,
    Connected,
    /// Leader.
    Flushing,
    /// Follower.
    Lonely,
}

/// The manager. What it wants done it says as ours does.
#[derive(Debug)]
pub(crate) struct PythonManager {
    side: DilationSide,
    role: Role,
    state: State,
    generation: Generation,
    /// What a faster peer said before `start`.
    early: Vec<Vec<u8>>,
    actions: VecDeque<Action>,
}

impl PythonManager {
    pub(crate) fn new(side: DilationSide) -> PythonManager {
        PythonManager {
            side,
            role: Role::Follower,
            state: State::Waiting,
            generation: Generation::default(),
            early: Vec::new(),
            actions: VecDeque::new(),
        }
    }

    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn start(&mut self) {
        self.state = State::Wanting;
        self.send(&DilationMessage::Please {
            side: self.side.as_str().to_owned(),
            use_version: Some(Dialect::Ged),
            parameters: None,
            hears_closing: false,
        });
        for message in std::mem::take(&mut self.early) {
            self.handle_message(&message);
        }
    }

    pub(crate) fn handle_message(&mut self, bytes: &[u8]) {
        if self.state == State::Waiting {
            return self.early.push(bytes.to_vec());
        }
        let message = DilationMessage::parse(bytes, &HintLimits::default()).expect("an honest message");
        match (message, self.state, self.role) {
            (DilationMessage::Please { side, .. }, State::Wanting, _) => {
                self.role = self.side.role_against(&side).expect("two sides");
                self.actions.push_back(Action::Agreed(self.role, Agreement::Ged));
                self.connect();
            }
            (DilationMessage::Hints { hints, .. }, State::Connecting, _) => {
                self.actions.push_back(Action::UseHints { hints, first: false });
            }
            (DilationMessage::Reconnecting, State::Flushing, _) => self.connect(),
            (DilationMessage::Reconnect, state, Role::Follower) => {
                if state == State::Connected {
                    self.actions.push_back(Action::AbortLink);
                }
                self.generation = self.generation.next();
                self.send(&DilationMessage::Reconnecting);
                self.connect();
            }
            (DilationMessage::Hints { .. }, ..) => {}
            (message, state, role) => panic!("a Python {role:?} dies of {message:?} in {state:?}"),
        }
    }

    pub(crate) fn handle_local_hints(&mut self, hints: Vec<dilated_transit::Hint>) {
        if self.state == State::Connecting {
            self.send(&DilationMessage::Hints { hints, generation: None });
        }
    }

    pub(crate) fn handle_selected(&mut self) -> Selection {
        assert_eq!(self.state, State::Connecting, "it listens and dials in no other state");
        self.state = State::Connected;
        Selection::Use
    }

    pub(crate) fn handle_link_lost(&mut self) {
        if self.state != State::Connected {
            return;
        }
        match self.role {
            Role::Follower => self.state = State::Lonely,
            Role::Leader => {
                self.generation = self.generation.next();
                self.state = State::Flushing;
                self.send(&DilationMessage::Reconnect);
            }
        }
    }

    fn connect(&mut self) {
        self.state = State::Connecting;
        self.actions.push_back(Action::Search(self.role, self.generation));
    }

    fn send(&mut self, message: &DilationMessage) {
        self.actions.push_back(Action::Send(message.encode()));
    }
}

const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How it watches over a link: the Leader pings, and closes when no PONG came until the next time.
pub(crate) struct Keepalive {
    next: Option<Instant>,
    outstanding: bool,
    pings: u32,
}

impl Keepalive {
    pub(crate) fn new(role: Role, now: Instant) -> Keepalive {
        Keepalive { next: (role == Role::Leader).then(|| now + PING_INTERVAL), outstanding: false, pings: 0 }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    pub(crate) fn handle_pong(&mut self) {
        self.outstanding = false;
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Verdict {
        if self.next.is_none_or(|next| next > now) {
            return Verdict::Quiet;
        }
        if self.outstanding {
            return Verdict::Dead;
        }
        self.next = Some(now + PING_INTERVAL);
        self.outstanding = true;
        self.pings += 1;
        Verdict::Ping(PingId::from(self.pings.to_be_bytes()))
    }
}
