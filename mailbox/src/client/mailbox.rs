//! The mailbox: opened on each connection; our messages are added until the server echoes them, and again when it
//! has forgotten them.

use std::collections::BTreeSet;

use tracing::{debug, warn};

use super::ClientLimits;
use super::sent::Sent;
use super::wire::Wire;
use crate::error::WormholeError;
use crate::message::{ClientMessage, MailboxMessage, Mood, Phase};

#[derive(Debug)]
enum State {
    /// No nameplate claimed yet.
    Unknown,
    /// Known and to be open on every connection. Opening is also subscribing.
    Open { mailbox: String, told: bool },
    /// To be closed; whether the server did is unknown.
    Closing { mailbox: String, mood: Mood },
    /// Closed, or never opened.
    Closed,
}

/// The mailbox was opened again, and the server replays what it has stored.
struct Replay {
    /// The pong of this number comes after the replay.
    ping: u64,
    /// Nothing came yet.
    empty: bool,
}

pub(super) struct MailboxMachine {
    state: State,
    sent: Sent,
    seen: Seen,
    /// The peer was here, so both know the mailbox and nobody needs the nameplate.
    heard: bool,
    pings: u64,
    replay: Option<Replay>,
}

impl MailboxMachine {
    pub(super) fn new() -> Self {
        Self {
            state: State::Unknown,
            sent: Sent::default(),
            seen: Seen::default(),
            heard: false,
            pings: 0,
            replay: None,
        }
    }

    pub(super) fn connected(&mut self, wire: &mut Wire) {
        match &mut self.state {
            State::Open { mailbox, told } => {
                *told = true;
                wire.send(ClientMessage::Open { mailbox: mailbox.clone() });
                self.replay = None;
                if self.sent.was_stored() {
                    self.sent.replay_begins();
                    self.pings += 1;
                    self.replay = Some(Replay { ping: self.pings, empty: true });
                    wire.send(ClientMessage::Ping { ping: self.pings });
                }
                self.drain(wire);
            }
            State::Closing { mailbox, mood } => {
                let (mailbox, mood) = (mailbox.clone(), *mood);
                // A message that the server never confirmed would be lost to a peer who still wants it:
                // a server takes messages only while the mailbox is open.
                if mood == Mood::Happy && self.sent.has_pending() {
                    wire.send(ClientMessage::Open { mailbox: mailbox.clone() });
                    self.drain(wire);
                }
                wire.send(ClientMessage::Close { mailbox, mood });
            }
            State::Unknown | State::Closed => {}
        }
    }

    fn drain(&self, wire: &mut Wire) {
        self.sent.pending().for_each(|message| wire.send(message));
    }

    pub(super) fn got_mailbox(&mut self, mailbox: String, wire: &mut Wire) {
        if matches!(self.state, State::Unknown) {
            self.state = State::Open { mailbox, told: false };
            if wire.is_up() {
                self.connected(wire);
            }
        }
    }

    pub(super) fn add(&mut self, phase: &str, body: &[u8], wire: &mut Wire) {
        if matches!(self.state, State::Closing { .. } | State::Closed) {
            return;
        }
        let message = self.sent.add(phase, body);
        if matches!(self.state, State::Open { .. }) {
            wire.send(message);
        }
    }

    /// Bytes that wait for an echo.
    pub(super) fn pending_bytes(&self) -> usize {
        self.sent.pending_bytes()
    }

    /// Takes a message from the server. Returns it if it is a peer's and new.
    pub(super) fn received(
        &mut self,
        message: MailboxMessage,
        own_side: &str,
        limits: &ClientLimits,
    ) -> Result<Option<MailboxMessage>, WormholeError> {
        if let Some(replay) = &mut self.replay {
            replay.empty = false;
        }
        if message.side == own_side {
            self.sent.echoed(&message.phase, limits.unsent_bytes);
            return Ok(None);
        }
        if !matches!(self.state, State::Open { .. }) {
            return Ok(None);
        }
        self.heard = true;
        Ok(self.seen.insert(&message.phase, limits)?.then_some(message))
    }

    /// A pong came. If it ends the replay, what the server has forgotten of ours is added again: the peer, who may
    /// never have got it, does the same, and each recognises by the phase what it has seen before.
    ///
    /// An error if the server has forgotten the mailbox, and with it the nameplate, before the peer came: whoever uses
    /// the code from now on gets another mailbox, and the two would wait for ever.
    pub(super) fn pong(&mut self, number: u64, wire: &mut Wire) -> Result<(), WormholeError> {
        let Some(replay) = self.replay.take_if(|replay| replay.ping == number) else { return Ok(()) };
        if !self.is_open() {
            return Ok(());
        }
        if replay.empty && !self.heard {
            return Err(WormholeError::Forgotten);
        }
        let forgotten = self.sent.replay_ended();
        if forgotten.is_empty() {
            return Ok(());
        }
        debug!(
            messages = forgotten.len(),
            "the mailbox server has forgotten messages of ours; they are added again"
        );
        if self.sent.is_incomplete() {
            warn!(
                "the mailbox server has forgotten messages, and the oldest are not kept here any more: if the other \
                 side has not read them, they are lost"
            );
        }
        forgotten.into_iter().for_each(|message| wire.send(message));
        Ok(())
    }

    /// Whether a message of the peer would be taken.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    pub(super) fn close(&mut self, mood: Mood, wire: &mut Wire) {
        self.sent.drop_stored();
        match &self.state {
            State::Open { mailbox, told: true } => {
                let mailbox = mailbox.clone();
                wire.send(ClientMessage::Close { mailbox: mailbox.clone(), mood });
                self.state = State::Closing { mailbox, mood };
            }
            State::Unknown | State::Open { .. } => self.state = State::Closed,
            State::Closing { .. } | State::Closed => {}
        }
    }

    pub(super) fn closed(&mut self) {
        if matches!(self.state, State::Closing { .. }) {
            self.state = State::Closed;
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Closed)
    }
}

/// The phases that the peer's messages had: a re-opened mailbox replays everything.
#[derive(Default)]
struct Seen {
    numeric: Watermark,
    dilate: Watermark,
    other: BTreeSet<String>,
}

impl Seen {
    /// True if the phase is new.
    fn insert(&mut self, phase: &str, limits: &ClientLimits) -> Result<bool, WormholeError> {
        match Phase::parse(phase) {
            Phase::Numeric(n) => self.numeric.insert(n, limits),
            Phase::Dilate(n) => self.dilate.insert(n, limits),
            _ if self.other.contains(phase) => Ok(false),
            _ if self.other.len() >= limits.other_phases => {
                Err(WormholeError::limit("kinds of messages from the other side", limits.other_phases))
            }
            _ => Ok(self.other.insert(phase.to_owned())),
        }
    }
}

/// A set of numbers that mostly arrive in order, in constant space when they do.
#[derive(Default)]
struct Watermark {
    /// Every number below was seen.
    next: u64,
    ahead: BTreeSet<u64>,
}

impl Watermark {
    fn insert(&mut self, n: u64, limits: &ClientLimits) -> Result<bool, WormholeError> {
        if n < self.next || !self.ahead.insert(n) {
            return Ok(false);
        }
        while self.ahead.remove(&self.next) {
            self.next += 1;
        }
        if self.ahead.len() > limits.queued_messages {
            return Err(WormholeError::limit("messages that arrived out of order", limits.queued_messages));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(wire: &mut Wire) -> Vec<String> {
        let kind = |message: ClientMessage| match message {
            ClientMessage::Open { .. } => "open".to_owned(),
            ClientMessage::Add { phase, .. } => format!("add {phase}"),
            ClientMessage::Close { mood, .. } => format!("close {mood:?}"),
            ClientMessage::Ping { ping } => format!("ping {ping}"),
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| wire.pop()).map(kind).collect()
    }

    fn message(side: &str, phase: &str) -> MailboxMessage {
        MailboxMessage { side: side.into(), phase: phase.into(), body: vec![] }
    }

    fn receive(machine: &mut MailboxMachine, side: &str, phase: &str) -> bool {
        machine.received(message(side, phase), "me", &ClientLimits::default()).unwrap().is_some()
    }

    fn reconnect(machine: &mut MailboxMachine, wire: &mut Wire) -> Vec<String> {
        wire.lose();
        wire.open();
        machine.connected(wire);
        sent(wire)
    }

    #[test]
    fn queues_before_open_and_repeats_until_echoed() {
        let (mut wire, mut m) = (Wire::default(), MailboxMachine::new());
        m.add("pake", b"a", &mut wire);
        wire.open();
        m.connected(&mut wire);
        assert!(sent(&mut wire).is_empty());
        m.got_mailbox("mb".into(), &mut wire);
        m.add("version", b"b", &mut wire);
        assert_eq!(sent(&mut wire), ["open", "add pake", "add version"]);
        assert_eq!(reconnect(&mut m, &mut wire), ["open", "add pake", "add version"]);
        assert_eq!(m.pending_bytes(), 4);
        assert!(!receive(&mut m, "me", "pake"));
        assert_eq!(reconnect(&mut m, &mut wire), ["open", "ping 1", "add version"]);
        assert!(!receive(&mut m, "me", "version"));
        assert!(!receive(&mut m, "me", "version"), "a replayed echo is harmless");
        assert_eq!(reconnect(&mut m, &mut wire), ["open", "ping 2"]);
        assert_eq!(m.pending_bytes(), 0);
    }

    #[test]
    fn a_mailbox_that_was_forgotten_before_the_peer_came_is_noticed() {
        let (mut wire, mut m) = (Wire::default(), MailboxMachine::new());
        wire.open();
        m.got_mailbox("mb".into(), &mut wire);
        m.add("pake", b"a", &mut wire);
        receive(&mut m, "me", "pake");
        sent(&mut wire);
        // The server remembers: it replays what is ours before the pong.
        assert_eq!(reconnect(&mut m, &mut wire), ["open", "ping 1"]);
        receive(&mut m, "me", "pake");
        assert_eq!(m.pong(1, &mut wire), Ok(()));
        // A pong of an earlier connection proves nothing, the right one does.
        assert_eq!(reconnect(&mut m, &mut wire), ["open", "ping 2"]);
        assert_eq!(m.pong(1, &mut wire), Ok(()));
        assert_eq!(m.pong(2, &mut wire), Err(WormholeError::Forgotten));
    }

    #[test]
    fn what_was_forgotten_after_the_peer_came_is_added_again() {
        let (mut wire, mut m) = (Wire::default(), MailboxMachine::new());
        wire.open();
        m.got_mailbox("mb".into(), &mut wire);
        for phase in ["pake", "version", "0"] {
            m.add(phase, b"a", &mut wire);
            receive(&mut m, "me", phase);
        }
        receive(&mut m, "peer", "pake");
        m.add("1", b"a", &mut wire);
        sent(&mut wire);
        // Everything is forgotten. What nobody echoed is added at once, the rest when the replay turns out to be empty.
        assert_eq!(reconnect(&mut m, &mut wire), ["open", "ping 1", "add 1"]);
        receive(&mut m, "me", "1");
        assert_eq!(m.pong(1, &mut wire), Ok(()));
        assert_eq!(sent(&mut wire), ["add pake", "add version", "add 0"]);
        assert_eq!(m.pong(1, &mut wire), Ok(()));
        assert!(sent(&mut wire).is_empty(), "a pong counts once");
        // Lost before the server had them, they are added again on the next connection, and a part of the replay
        // stands for itself alone.
        receive(&mut m, "me", "pake");
        assert_eq!(reconnect(&mut m, &mut wire), ["open", "ping 2", "add version", "add 0"]);
        receive(&mut m, "me", "1");
        receive(&mut m, "me", "version");
        receive(&mut m, "me", "0");
        assert_eq!(m.pong(2, &mut wire), Ok(()));
        assert_eq!(sent(&mut wire), ["add pake"]);
        // What has its place again is left alone.
        receive(&mut m, "me", "pake");
        assert_eq!(reconnect(&mut m, &mut wire), ["open", "ping 3"]);
        for phase in ["1", "version", "0", "pake"] {
            receive(&mut m, "me", phase);
        }
        assert_eq!(m.pong(3, &mut wire), Ok(()));
        assert!(sent(&mut wire).is_empty());
        // After the end, nothing is.
        assert_eq!(reconnect(&mut m, &mut wire), ["open", "ping 4"]);
        m.close(Mood::Happy, &mut wire);
        assert_eq!(m.pong(4, &mut wire), Ok(()));
        assert_eq!(sent(&mut wire), ["close Happy"]);
    }

    #[test]
    fn known_but_never_opened() {
        let (mut wire, mut m) = (Wire::default(), MailboxMachine::new());
        m.got_mailbox("mb".into(), &mut wire);
        m.add("pake", b"a", &mut wire);
        m.close(Mood::Lonely, &mut wire);
        assert!(m.is_done());
    }

    #[test]
    fn de_duplicates_by_phase() {
        let (mut wire, mut m) = (Wire::default(), MailboxMachine::new());
        wire.open();
        m.got_mailbox("mb".into(), &mut wire);
        for phase in ["pake", "version", "0", "2", "1", "dilate-0", "0x"] {
            assert!(receive(&mut m, "peer", phase));
            assert!(!receive(&mut m, "peer", phase));
            assert!(!receive(&mut m, "another", phase));
        }
        assert_eq!((m.seen.numeric.next, m.seen.numeric.ahead.len()), (3, 0));
    }

    #[test]
    fn closes() {
        let (mut wire, mut m) = (Wire::default(), MailboxMachine::new());
        wire.open();
        m.got_mailbox("mb".into(), &mut wire);
        sent(&mut wire);
        m.close(Mood::Happy, &mut wire);
        assert_eq!(sent(&mut wire), ["close Happy"]);
        m.close(Mood::Scary, &mut wire);
        m.add("0", b"", &mut wire);
        assert!(!receive(&mut m, "peer", "0"), "late messages are ignored");
        assert!(sent(&mut wire).is_empty());
        assert_eq!(reconnect(&mut m, &mut wire), ["close Happy"]);
        m.closed();
        assert!(m.is_done());
        assert!(reconnect(&mut m, &mut wire).is_empty());
        m.add("1", b"", &mut wire);
        m.close(Mood::Scary, &mut wire);
        assert!(sent(&mut wire).is_empty());
    }

    #[test]
    fn closing_while_away_still_delivers_what_was_said() {
        let (mut wire, mut m) = (Wire::default(), MailboxMachine::new());
        wire.open();
        m.got_mailbox("mb".into(), &mut wire);
        wire.lose();
        m.add("0", b"last words", &mut wire);
        m.close(Mood::Happy, &mut wire);
        assert!(!m.is_done());
        assert_eq!(reconnect(&mut m, &mut wire), ["open", "add 0", "close Happy"]);
        assert!(!receive(&mut m, "me", "0"));
        assert_eq!(reconnect(&mut m, &mut wire), ["close Happy"]);
    }

    #[test]
    fn inventions_are_bounded() {
        let (mut wire, mut m) = (Wire::default(), MailboxMachine::new());
        m.got_mailbox("mb".into(), &mut wire);
        let limits = ClientLimits { other_phases: 3, queued_messages: 3, ..ClientLimits::default() };
        let mut take = |phase: String| m.received(message("peer", &phase), "me", &limits);
        for n in 1..=3 {
            assert!(take(format!("x{n}")).is_ok());
            assert!(take(n.to_string()).is_ok());
            assert!(take(format!("dilate-{n}")).is_ok());
        }
        assert!(matches!(take("x4".into()), Err(WormholeError::Limit { .. })));
        assert!(matches!(take("4".into()), Err(WormholeError::Limit { .. })));
        assert!(matches!(take("dilate-4".into()), Err(WormholeError::Limit { .. })));
    }
}
