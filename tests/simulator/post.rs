//! The mail between the two sides: the mailbox server, each side's connection to it, and messages that take their time.
//! Every message arrives once and in order, as the mailbox client makes sure of; but not before the connections allow.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use dilated_mailbox::client::Backoff;
use rand::RngExt;

use crate::{
    network::Network,
    queue::{Event, Key},
    trace::name,
};

/// As in the product.
const PROBE: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// As in `ClientConfig::default()`: how long a server that is away is waited for at the end.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a probe, a dead connection shows by the pings of the websocket.
const SILENCE: Duration = Duration::from_secs(60);

/// Either half of a message's way takes up to so long, and sometimes ten times as much.
const HALF_WAY: Duration = Duration::from_secs(1);

enum State {
    /// Connected from this address.
    Up {
        address: u32,
        doubt: Option<Doubt>,
    },
    Waiting,
    Connecting,
}

/// The connection is dead; when it shows.
#[derive(Clone, Copy)]
struct Doubt {
    until: Instant,
    /// Asked for, so that the next attempt does not wait.
    probed: bool,
}

struct Client {
    state: State,
    backoff: Backoff,
    timer: Option<Key>,
    /// It alone does not get through.
    away: bool,
    /// It leaves, at this time at the latest.
    leaves: Option<Key>,
    gone: bool,
}

#[derive(Default)]
struct Line {
    messages: VecDeque<(Instant, Vec<u8>)>,
    last: Option<Instant>,
    arrival: Option<Key>,
}

/// A side's connection came, or went.
pub(crate) struct Change {
    pub(crate) side: usize,
    pub(crate) up: bool,
}

pub(crate) struct Post {
    server: bool,
    clients: [Client; 2],
    to_server: [Line; 2],
    to_side: [Line; 2],
}

impl Post {
    /// Both sides are connected.
    pub(crate) fn new(network: &Network) -> Post {
        let clients = [0, 1].map(|n| Client {
            state: State::Up { address: network.hosts[n].address, doubt: None },
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
            timer: None,
            away: false,
            leaves: None,
            gone: false,
        });
        Post { server: true, clients, to_server: Default::default(), to_side: Default::default() }
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.to_server.iter().chain(&self.to_side).all(|line| line.messages.is_empty())
    }

    /// Takes a message of a side.
    pub(crate) fn send(&mut self, from: usize, message: Vec<u8>, network: &mut Network) {
        if self.clients[from].gone {
            return;
        }
        let works = self.works(from, network);
        self.to_server[from].push(message, Event::Mailed(from), works, network);
    }

    /// The side has said everything, and leaves when the server has it.
    pub(crate) fn leave(&mut self, side: usize, network: &mut Network) {
        let at = network.now + CLOSE_TIMEOUT;
        self.clients[side].leaves = Some(network.queue.schedule(at, Event::Left(side)));
        self.leave_if_said(side, network);
    }

    fn leave_if_said(&mut self, side: usize, network: &mut Network) {
        let said = self.to_server[side].messages.is_empty() && self.works(side, network);
        if let Some(key) = self.clients[side].leaves.filter(|_| said) {
            network.queue.cancel(key);
            let at = network.now + network.travel();
            self.clients[side].leaves = Some(network.queue.schedule(at.min(key.at()), Event::Left(side)));
        }
    }

    /// The side is gone. Returns whether the server has all that it said.
    pub(crate) fn left(&mut self, side: usize) -> bool {
        (self.clients[side].leaves, self.clients[side].gone) = (None, true);
        let said = self.to_server[side].messages.is_empty();
        self.to_server[side].messages.clear();
        said
    }

    /// The next message of the side reaches the server, if it can.
    pub(crate) fn mailed(&mut self, from: usize, network: &mut Network) {
        self.to_server[from].arrival = None;
        if !self.works(from, network) {
            return;
        }
        if let Some(message) = self.to_server[from].pop(Event::Mailed(from), network) {
            let works = self.works(1 - from, network);
            self.to_side[1 - from].push(message, Event::Delivered(1 - from), works, network);
            self.leave_if_said(from, network);
        }
    }

    /// The next message reaches the side, if it can.
    pub(crate) fn delivered(&mut self, to: usize, network: &mut Network) -> Option<Vec<u8>> {
        self.to_side[to].arrival = None;
        if !self.works(to, network) {
            return None;
        }
        self.to_side[to].pop(Event::Delivered(to), network)
    }

    /// The server dies, or comes back with what it knew.
    pub(crate) fn set_server(&mut self, up: bool) {
        self.server = up;
    }

    /// The way of one side to the server is cut, without a sign, or works again.
    pub(crate) fn set_away(&mut self, side: usize, away: bool) {
        self.clients[side].away = away;
    }

    /// Something has changed that may matter to the connections.
    pub(crate) fn look(&mut self, network: &mut Network) -> Vec<Change> {
        let mut changes = Vec::new();
        for side in [0, 1] {
            let (works, reaches) = (self.works(side, network), self.reaches(side, network));
            let server = self.server;
            let client = &mut self.clients[side];
            match &mut client.state {
                State::Up { doubt, .. } if works => *doubt = None,
                // The kernel of a dead server answers with a reset.
                State::Up { .. } if !server && reaches => {
                    self.lost(side, false, network);
                    changes.push(Change { side, up: false });
                }
                State::Up { doubt, .. } if doubt.is_none() => {
                    let until = network.now + SILENCE / 2 + network.up_to(SILENCE);
                    *doubt = Some(Doubt { until, probed: false });
                    client.arm(until, side, network);
                }
                State::Connecting if reaches => {
                    let soon = network.now + network.up_to(CONNECT_TIMEOUT / 2);
                    if client.timer.is_none_or(|timer| timer.at() > soon) {
                        client.arm(soon, side, network);
                    }
                }
                _ => {}
            }
            if works {
                self.resume(side, network);
            }
        }
        changes
    }

    /// The side suspects its connection: it asks the server for a sign of life, or dials at once.
    pub(crate) fn probe(&mut self, side: usize, network: &mut Network) {
        let works = self.works(side, network);
        let client = &mut self.clients[side];
        match &mut client.state {
            State::Up { .. } if works => {}
            State::Up { doubt, .. } => {
                let until = network.now + PROBE;
                let until = doubt.filter(|doubt| doubt.probed).map_or(until, |doubt| doubt.until.min(until));
                *doubt = Some(Doubt { until, probed: true });
                client.arm(until, side, network);
            }
            State::Waiting | State::Connecting => self.dial(side, network),
        }
    }

    /// The side's timer is due.
    pub(crate) fn handle_timeout(&mut self, side: usize, network: &mut Network) -> Option<Change> {
        let (works, can) = (self.works(side, network), self.server && self.reaches(side, network));
        let client = &mut self.clients[side];
        client.timer = None;
        match &mut client.state {
            State::Up { doubt, .. } if works => {
                *doubt = None;
                None
            }
            State::Up { doubt, .. } => {
                let probed = doubt.is_some_and(|doubt| doubt.probed);
                self.lost(side, probed, network);
                Some(Change { side, up: false })
            }
            State::Waiting => {
                self.dial(side, network);
                None
            }
            State::Connecting if can => {
                client.state = State::Up { address: network.hosts[side].address, doubt: None };
                client.backoff.reset();
                network.trace.note(|| format!("{} is connected to the mailbox server", name(side)));
                self.resume(side, network);
                Some(Change { side, up: true })
            }
            State::Connecting => {
                self.wait(side, network);
                None
            }
        }
    }

    fn lost(&mut self, side: usize, at_once: bool, network: &mut Network) {
        network.trace.note(|| format!("{} has lost the mailbox server", name(side)));
        if at_once { self.dial(side, network) } else { self.wait(side, network) }
    }

    fn wait(&mut self, side: usize, network: &mut Network) {
        let client = &mut self.clients[side];
        client.state = State::Waiting;
        let at = network.now + client.backoff.next_delay(&mut network.rng);
        client.arm(at, side, network);
    }

    fn dial(&mut self, side: usize, network: &mut Network) {
        let took = if self.reaches(side, network) { network.travel() * 4 } else { CONNECT_TIMEOUT };
        let client = &mut self.clients[side];
        client.state = State::Connecting;
        client.arm(network.now + took, side, network);
    }

    fn reaches(&self, side: usize, network: &Network) -> bool {
        !self.clients[side].away && network.is_reachable(side, network.hosts[side].address)
    }

    fn works(&self, side: usize, network: &Network) -> bool {
        let client = &self.clients[side];
        let State::Up { address, .. } = client.state else { return false };
        self.server && !client.gone && !client.away && network.is_reachable(side, address)
    }

    fn resume(&mut self, side: usize, network: &mut Network) {
        self.to_server[side].resume(Event::Mailed(side), network);
        self.to_side[side].resume(Event::Delivered(side), network);
    }
}

impl Client {
    fn arm(&mut self, at: Instant, side: usize, network: &mut Network) {
        if let Some(timer) = self.timer.take() {
            network.queue.cancel(timer);
        }
        self.timer = Some(network.queue.schedule(at, Event::Post(side)));
    }
}

impl Line {
    fn push(&mut self, message: Vec<u8>, event: Event, works: bool, network: &mut Network) {
        let slow = if network.rng.random_range(0..20) == 0 { 10 } else { 1 };
        let at = network.now + network.up_to(HALF_WAY * slow);
        let at = self.last.map_or(at, |last| last.max(at));
        self.last = Some(at);
        self.messages.push_back((at, message));
        if works {
            self.resume(event, network);
        }
    }

    fn pop(&mut self, event: Event, network: &mut Network) -> Option<Vec<u8>> {
        let (_, message) = self.messages.pop_front()?;
        self.resume(event, network);
        Some(message)
    }

    fn resume(&mut self, event: Event, network: &mut Network) {
        if let (Some((at, _)), None) = (self.messages.front(), self.arrival) {
            self.arrival = Some(network.queue.schedule((*at).max(network.now), event));
        }
    }
}
