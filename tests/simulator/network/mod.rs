//! The virtual network: hosts with addresses, paths that fall silent and heal, and TCP connections on them.
//!
//! As with TCP, no byte is lost on a connection that survives: what meets a silent path is held and tried again once
//! the path works. A reset is sent once, and a silent path swallows it; whoever sends to a connection that its other
//! end has forgotten gets one.

mod faults;

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use rand::{RngExt, rngs::StdRng};

use crate::{
    queue::{Event, Key, Queue},
    trace::{Trace, name},
};

/// The two sides are the hosts 0 and 1.
pub(crate) const RELAY: usize = 2;

/// What a socket's buffers hold.
const BUFFERS: usize = 6000;

/// The longest pause of TCP before it tries again.
const LONGEST_RETRY: Duration = Duration::from_secs(120);

/// Connections that both sides together may have, dead ones included that nobody has noticed yet.
const MOST_CONNECTIONS: usize = 300;

/// An end of a connection: 0 has dialled, 1 has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) connection: u64,
    pub(crate) end: usize,
}

impl Place {
    pub(crate) fn other(self) -> Place {
        Place { end: 1 - self.end, ..self }
    }
}

/// What a host is told about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    Accepted,
    Connected,
    Refused,
    /// There is something to read, or the end, or there is room to write.
    Ready,
}

#[derive(Debug)]
enum Segment {
    Syn,
    SynAck,
    Refusal,
    Data(Bytes),
    /// The reader has made room.
    Credit,
    Fin,
    Reset,
    /// The reset of something on the way that has broken the connection. It answers every attempt so, so that no
    /// silence swallows it: bytes were lost, and the connection must not live on without them.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Opening,
    Open,
    /// The other end has sent its last byte, or a reset.
    Ended,
    /// Its owner has let go of it.
    Gone,
}

/// What leads to an end.
#[derive(Debug, Default)]
struct Wire {
    segments: VecDeque<(Instant, Segment)>,
    /// Payload on the way.
    bytes: usize,
    last: Option<Instant>,
    arrival: Option<Key>,
    held_since: Option<Instant>,
}

#[derive(Debug)]
struct End {
    host: usize,
    address: u32,
    state: State,
    wire: Wire,
    received: BytesMut,
    /// A write found no room.
    full: bool,
    /// Bytes that have arrived.
    carried: usize,
}

#[derive(Debug)]
struct Connection {
    port: u16,
    ends: [End; 2],
}

/// A machine.
#[derive(Debug, Default, Clone)]
pub(crate) struct Host {
    /// 0: none.
    pub(crate) address: u32,
    pub(crate) port: Option<u16>,
    /// Nothing that it sends gets anywhere.
    pub(crate) mute: bool,
    /// Nothing gets to it.
    pub(crate) deaf: bool,
    /// It neither sends nor hears.
    pub(crate) suspended: bool,
    /// Nothing that it sends gets to the other side, though everybody else hears it.
    pub(crate) shunned: bool,
}

/// The world as the machines see it: the time, the dice, what will happen, the network.
pub(crate) struct Network {
    pub(crate) now: Instant,
    pub(crate) rng: StdRng,
    pub(crate) queue: Queue,
    pub(crate) trace: Trace,
    pub(crate) hosts: [Host; 3],
    latency: Duration,
    connections: BTreeMap<u64, Connection>,
    /// Connections that the relay has joined, both ways.
    joined: BTreeMap<u64, u64>,
    dialled: u64,
    /// Something on the way breaks each connection when so many bytes have come over it one way.
    pub(crate) life: Option<usize>,
}

/// The n-th address of a host.
pub(crate) fn address(host: usize, n: u32) -> u32 {
    (u32::try_from(host).expect("three hosts") + 1) << 16 | n
}

fn owner(address: u32) -> Option<usize> {
    (address >> 16).checked_sub(1).map(|host| host as usize).filter(|host| *host <= RELAY)
}

/// As it is written in hints; nobody's if it is none.
pub(crate) fn to_ip(address: u32) -> Ipv4Addr {
    if address == 0 { Ipv4Addr::LOCALHOST } else { Ipv4Addr::from(0x0a00_0000 | address) }
}

fn from_ip(ip: &str) -> u32 {
    ip.parse().map_or(0, |ip: Ipv4Addr| if ip.is_loopback() { 0 } else { u32::from(ip) & 0x00ff_ffff })
}

impl Network {
    pub(crate) fn new(start: Instant, rng: StdRng, latency: Duration, trace: bool) -> Network {
        let mut hosts: [Host; 3] = Default::default();
        for (n, host) in hosts.iter_mut().enumerate() {
            host.address = address(n, 1);
        }
        Network {
            now: start,
            rng,
            queue: Queue::default(),
            trace: Trace::new(start, trace),
            hosts,
            latency,
            connections: BTreeMap::new(),
            joined: BTreeMap::new(),
            dialled: 0,
            life: None,
        }
    }

    /// A random time up to `most`.
    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).expect("short");
        Duration::from_micros(self.rng.random_range(0..=micros))
    }

    /// How long something takes from one host to another.
    pub(crate) fn travel(&mut self) -> Duration {
        self.latency + self.up_to(self.latency / 4)
    }

    /// Whether the host reaches others, and they it, but for the other side.
    pub(crate) fn is_reachable(&self, host: usize, address: u32) -> bool {
        let host = &self.hosts[host];
        host.address == address && address != 0 && !host.mute && !host.deaf && !host.suspended
    }

    fn passes(&self, from: &End, to: &End) -> bool {
        let (sender, receiver) = (&self.hosts[from.host], &self.hosts[to.host]);
        let there = sender.address == from.address && receiver.address == to.address;
        let silent = sender.mute || receiver.deaf || sender.suspended || receiver.suspended;
        let shunned = sender.shunned && from.host != RELAY && to.host != RELAY;
        there && from.address != 0 && !silent && !shunned
    }

    /// Begins to dial. [`Notice::Connected`] or [`Notice::Refused`] follows, or nothing.
    pub(crate) fn dial(&mut self, host: usize, hostname: &str, port: u16) -> Place {
        assert!(self.connections.len() < MOST_CONNECTIONS, "too many connections are kept");
        let target = from_ip(hostname);
        let end = |host, address, state| End {
            host,
            address,
            state,
            wire: Wire::default(),
            received: BytesMut::new(),
            full: false,
            carried: 0,
        };
        let ends = [
            end(host, self.hosts[host].address, State::Opening),
            end(owner(target).unwrap_or(host), target, State::Opening),
        ];
        self.dialled += 1;
        let place = Place { connection: self.dialled, end: 0 };
        self.connections.insert(self.dialled, Connection { port, ends });
        self.trace
            .note(|| format!("{} dials {hostname}:{port} (connection {})", name(host), place.connection));
        if self.hosts[host].address == 0 || owner(target).is_none() {
            self.queue.schedule(self.now + Duration::from_millis(1), Event::Unreachable(place));
        } else {
            self.send(place.other(), Segment::Syn);
        }
        place
    }

    pub(crate) fn host_of(&self, place: Place) -> Option<usize> {
        Some(self.connections.get(&place.connection)?.ends[place.end].host)
    }

    /// Our address of the connection.
    pub(crate) fn local_address(&self, place: Place) -> u32 {
        self.connections.get(&place.connection).map_or(0, |connection| connection.ends[place.end].address)
    }

    /// The other end's address of the connection.
    pub(crate) fn remote_address(&self, place: Place) -> Ipv4Addr {
        self.connections
            .get(&place.connection)
            .map_or(Ipv4Addr::UNSPECIFIED, |connection| to_ip(connection.ends[1 - place.end].address))
    }

    /// Whether something wrong has happened to the connection that its owner has not noticed.
    pub(crate) fn is_open(&self, place: Place) -> bool {
        self.connections.get(&place.connection).is_some_and(|c| c.ends[place.end].state == State::Open)
    }

    /// Whether the relay leads from one of these places to the other.
    pub(crate) fn relayed(&self, one: Place, other: Place) -> bool {
        self.joined.get(&one.connection) == Some(&other.connection)
    }

    /// The relay has joined two connections.
    pub(crate) fn join(&mut self, one: Place, other: Place) {
        self.joined.insert(one.connection, other.connection);
        self.joined.insert(other.connection, one.connection);
    }

    /// Writes what there is room for. `Err` if the connection is gone.
    pub(crate) fn write(&mut self, place: Place, output: &mut BytesMut) -> Result<(), ()> {
        let Some(connection) = self.connections.get_mut(&place.connection) else { return Err(()) };
        let [from, to] = connection.ends.get_disjoint_mut([place.end, 1 - place.end]).expect("two ends");
        if from.state != State::Open {
            return Err(());
        }
        let room = BUFFERS.saturating_sub(to.wire.bytes + to.received.len());
        let mut taken = output.split_to(output.len().min(room));
        from.full = !output.is_empty();
        // TCP keeps no boundaries.
        if taken.len() > 1 && self.rng.random_range(0..4) == 0 {
            let first = taken.split_to(self.rng.random_range(1..taken.len()));
            self.send(place.other(), Segment::Data(first.freeze()));
        }
        if !taken.is_empty() {
            self.send(place.other(), Segment::Data(taken.freeze()));
        }
        Ok(())
    }

    /// Takes what has arrived. `Err` at the end.
    pub(crate) fn read(&mut self, place: Place) -> Result<Bytes, ()> {
        let Some(connection) = self.connections.get_mut(&place.connection) else { return Err(()) };
        let [own, other] = connection.ends.get_disjoint_mut([place.end, 1 - place.end]).expect("two ends");
        let bytes = own.received.split().freeze();
        if bytes.is_empty() && own.state != State::Open {
            return Err(());
        }
        if !bytes.is_empty() && other.full {
            other.full = false;
            self.send(place.other(), Segment::Credit);
        }
        Ok(bytes)
    }

    /// Gives the connection up with a reset.
    pub(crate) fn abort(&mut self, place: Place) {
        self.let_go(place, Segment::Reset);
    }

    /// Ends the connection in order.
    pub(crate) fn finish(&mut self, place: Place) {
        self.let_go(place, Segment::Fin);
    }

    fn let_go(&mut self, place: Place, with: Segment) {
        let Some(connection) = self.connections.get_mut(&place.connection) else { return };
        let [own, other] = connection.ends.get_disjoint_mut([place.end, 1 - place.end]).expect("two ends");
        let before = std::mem::replace(&mut own.state, State::Gone);
        if before == State::Opening && place.end == 0 && other.wire.held_since.is_some() {
            // The kernel repeats no SYN for a socket that is closed.
            other.wire.segments.clear();
            other.wire.held_since = None;
        }
        let unread = !own.received.is_empty();
        own.received.clear();
        if before == State::Open {
            let reset = unread || matches!(with, Segment::Reset);
            if reset && other.wire.held_since.is_some() {
                // What the network has not taken is forgotten.
                other.wire.segments.clear();
                other.wire.bytes = 0;
                other.wire.held_since = None;
            }
            self.send(place.other(), if reset { Segment::Reset } else { with });
        }
        self.forget_if_over(place.connection);
    }

    /// Connections that exist.
    pub(crate) fn connections(&self) -> Vec<u64> {
        self.connections.keys().copied().collect()
    }

    fn send(&mut self, to: Place, segment: Segment) {
        let at = self.now + self.travel();
        let Some(connection) = self.connections.get_mut(&to.connection) else { return };
        let wire = &mut connection.ends[to.end].wire;
        let at = wire.last.map_or(at, |last| last.max(at));
        wire.last = Some(at);
        wire.bytes += segment.len();
        wire.segments.push_back((at, segment));
        if wire.arrival.is_none() && wire.held_since.is_none() {
            wire.arrival = Some(self.queue.schedule(at, Event::Arrival(to)));
        }
    }

    /// The segment at the front of a wire arrives. Returns what its host is told.
    pub(crate) fn arrive(&mut self, place: Place) -> Option<Notice> {
        let connection = self.connections.get(&place.connection)?;
        let (to, from) = (&connection.ends[place.end], &connection.ends[1 - place.end]);
        let passes = self.passes(from, to);
        let wire = &mut self.connections.get_mut(&place.connection)?.ends[place.end].wire;
        wire.arrival = None;
        let (_, segment) = wire.segments.front()?;
        if !passes && !matches!(segment, Segment::Reset | Segment::Refusal) {
            wire.held_since = Some(self.now);
            return None;
        }
        let (_, segment) = wire.segments.pop_front()?;
        wire.bytes -= segment.len();
        if let Some((at, _)) = wire.segments.front() {
            wire.arrival = Some(self.queue.schedule((*at).max(self.now), Event::Arrival(place)));
        }
        let notice = if passes { self.take(place, segment) } else { None };
        self.forget_if_over(place.connection);
        notice
    }

    fn take(&mut self, place: Place, segment: Segment) -> Option<Notice> {
        let connection = self.connections.get_mut(&place.connection)?;
        let port = connection.port;
        let end = &mut connection.ends[place.end];
        match (segment, end.state) {
            (Segment::Reset | Segment::Broken, State::Opening | State::Open | State::Ended) => {
                end.state = State::Ended;
                end.received.clear();
                Some(Notice::Ready)
            }
            (Segment::Syn, State::Opening) => {
                if self.hosts[end.host].port == Some(port) {
                    end.state = State::Open;
                    self.send(place.other(), Segment::SynAck);
                    Some(Notice::Accepted)
                } else {
                    end.state = State::Gone;
                    self.send(place.other(), Segment::Refusal);
                    None
                }
            }
            (Segment::SynAck, State::Opening) => {
                end.state = State::Open;
                Some(Notice::Connected)
            }
            (Segment::Refusal, State::Opening) => {
                end.state = State::Ended;
                Some(Notice::Refused)
            }
            (Segment::Data(bytes), State::Open) => {
                end.received.extend_from_slice(&bytes);
                let before = end.carried;
                end.carried += bytes.len();
                if self.life.is_some_and(|life| (before..end.carried).contains(&life)) {
                    self.cut(place.connection, false);
                }
                Some(Notice::Ready)
            }
            (Segment::Credit, State::Open) => Some(Notice::Ready),
            (Segment::Fin, State::Open) => {
                end.state = State::Ended;
                Some(Notice::Ready)
            }
            (Segment::SynAck | Segment::Data(_) | Segment::Fin, State::Gone) => {
                self.send(place.other(), Segment::Reset);
                None
            }
            _ => None,
        }
    }

    /// Nobody's business any more.
    fn forget_if_over(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        let over = |end: &End| match end.state {
            State::Gone => true,
            State::Opening => end.wire.segments.is_empty(),
            State::Open | State::Ended => false,
        };
        if connection.ends.iter().all(over) {
            for end in &connection.ends {
                if let Some(key) = end.wire.arrival {
                    self.queue.cancel(key);
                }
            }
            self.connections.remove(&id);
            self.joined.remove(&id);
        }
    }
}

impl Segment {
    fn len(&self) -> usize {
        match self {
            Segment::Data(bytes) => bytes.remaining(),
            _ => 0,
        }
    }
}
