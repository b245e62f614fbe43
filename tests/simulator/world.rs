//! The two sides, their network and their time: takes one event after the other, and sees that what must hold holds.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use dilated::{Dialect, RolePreference, protocol::DilationSide};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    app::Load,
    book::Book,
    network::{Network, Notice, Place, RELAY},
    post::{self, Post},
    queue::{Event, Key},
    relay::Relay,
    schedule::{self, Change, Schedule},
    side::{Make, Side, Wish},
    trace::name,
    wires::Wires,
};

/// What happens in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Links are cut anywhere, several times.
    Cuts(Cast),
    /// One cut, when both sides together have opened this many records.
    CutAfterRecord(Cast, u64),
    /// A random schedule of disturbances.
    Disturbances(Cast),
    /// As random, but the mailbox server is gone for good as soon as there is a link, and only one side moves.
    WithoutMailbox,
    /// At first only the relay leads from one to the other, later they reach each other.
    Upgrade,
    /// A second link stands by, and the one in use falls silent or is reset, several times.
    Failover,
}

impl Plan {
    fn cast(self) -> Cast {
        match self {
            Plan::Cuts(cast) | Plan::CutAfterRecord(cast, _) | Plan::Disturbances(cast) => cast,
            Plan::WithoutMailbox | Plan::Upgrade | Plan::Failover => Cast::Dilated1,
        }
    }

    /// Whether it goes on for minutes, with pauses.
    fn is_long(self) -> bool {
        !matches!(self, Plan::Cuts(_) | Plan::CutAfterRecord(..))
    }

    /// Whether the sides have a relay.
    fn has_relay(self, rng: &mut StdRng) -> bool {
        match self {
            Plan::Upgrade | Plan::Failover => true,
            Plan::Disturbances(_) | Plan::WithoutMailbox => rng.random_bool(0.5),
            Plan::Cuts(_) | Plan::CutAfterRecord(..) => false,
        }
    }
}

/// Who plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cast {
    /// Both are ours, and speak `ged`.
    Ours,
    /// Both are ours, and speak `dilated-1`.
    Dilated1,
    /// We lead a Python Follower.
    PythonFollows,
    /// We follow a Python Leader.
    PythonLeads,
}

/// What happened in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Summary {
    pub(crate) cuts: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Links that were taken into service, on both sides.
    pub(crate) links: u64,
    /// From the last disturbance until both sides were on one connection for good.
    pub(crate) converged: Duration,
    /// Links that were taken into service after the last disturbance.
    pub(crate) calm_links: u64,
    /// Times without a common link, and how long they took together.
    pub(crate) outages: u32,
    pub(crate) without_link: Duration,
    /// Events in the busiest second.
    pub(crate) busiest: u64,
    pub(crate) events: u64,
    /// Events while there was nothing to do.
    pub(crate) at_rest: u64,
    /// Links that did not wait for the mailbox.
    pub(crate) early: u64,
    pub(crate) refused: u64,
    pub(crate) replaced: u64,
    /// In `dilated-1`: activations of links, and the last generation.
    pub(crate) activations: u64,
    pub(crate) generation: u64,
}

impl Summary {
    /// Takes the figures of another run into these.
    pub(crate) fn add(&mut self, other: &Summary) {
        self.links += other.links;
        self.bytes += other.bytes;
        self.events += other.events;
        self.outages += other.outages;
        self.without_link += other.without_link;
        self.early += other.early;
        self.refused += other.refused;
        self.replaced += other.replaced;
        self.activations += other.activations;
        self.generation += other.generation;
        self.at_rest = self.at_rest.max(other.at_rest);
        self.busiest = self.busiest.max(other.busiest);
        self.calm_links = self.calm_links.max(other.calm_links);
    }
}

/// How long after the last disturbance the two sides may take to be connected and done.
const CONVERGENCE: Duration = Duration::from_secs(120);
/// The same with Python, which tells its hints once: only the Leader's next generation helps, and its patience doubles up
/// to 600 s.
const CONVERGENCE_WITH_PYTHON: Duration = Duration::from_secs(240);
/// How long the agreement of the two sides is watched before it counts.
const WATCH: Duration = Duration::from_secs(60);
/// How long they are watched when there is nothing left to do; more events in the second half of that mean that they do
/// not come to rest.
const REST: Duration = Duration::from_secs(60);
const MOST_AT_REST: u64 = 250;
/// More events in one second mean that something spins.
const MOST_EVENTS: u64 = 3000;
/// More links after the last disturbance mean that the two sides chase each other.
const MOST_CALM_LINKS: u64 = 24;

pub(crate) struct World {
    plan: Plan,
    start: Instant,
    network: Network,
    sides: [Side; 2],
    relay: Relay,
    post: Post,
    schedule: Schedule,
    /// When the last disturbance is over.
    calm: Instant,
    asleep: [bool; 2],
    /// What waits for a side to wake.
    deferred: [Vec<Event>; 2],
    wakes: [Option<Key>; 2],
    /// What the applications do, and their longest pause.
    load: Load,
    pause: Duration,
    agreed: Option<Instant>,
    /// Since when they are not any more.
    lost: Option<Instant>,
    links_before: u64,
    /// Since when there is nothing left to do, and events until half of [`REST`] was over.
    done: Option<Instant>,
    events_before: u64,
    second: (u64, u64),
    summary: Summary,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]
    pub(crate) fn new(seed: u64, plan: Plan, trace: bool) -> World {
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(seed);
        let schedule = match plan {
            Plan::Cuts(_) => schedule::cuts(&mut rng),
            Plan::CutAfterRecord(..) => Schedule::new(),
            Plan::Disturbances(_) => schedule::random(&mut rng),
            Plan::WithoutMailbox => schedule::without_mailbox(&mut rng),
            Plan::Upgrade => schedule::upgrade(&mut rng),
            Plan::Failover => schedule::failover(&mut rng),
        };
        let latency = Duration::from_millis([1, 5, 20, 80, 300][rng.random_range(0..5)]);
        let pause = Duration::from_millis([0, 2000, 20_000, 60_000][rng.random_range(0..4)]);
        let relay = plan.has_relay(&mut rng);
        let cast = plan.cast();
        let leads = [RolePreference::Follower, RolePreference::Leader];
        let preferences = match cast {
            Cast::Ours | Cast::Dilated1 => [RolePreference::Any; 2],
            Cast::PythonFollows => [leads[1], leads[0]],
            Cast::PythonLeads => leads,
        };
        let dialect = if cast == Cast::Dilated1 { Dialect::Dilated1 } else { Dialect::Ged };
        let standby = plan == Plan::Failover || relay && rng.random_bool(0.3);
        let load = load(plan, &mut rng);
        let book = Rc::new(RefCell::new(Book::default()));
        let sides = [0, 1].map(|number| {
            let side = DilationSide::random(preferences[number], &mut rng);
            let python = number == 1 && matches!(cast, Cast::PythonFollows | Cast::PythonLeads);
            let make = Make { number, python, dialect, relay, standby, load };
            Side::new(make, side, book.clone(), &mut rng)
        });
        let mut network = Network::new(start, rng, latency, trace);
        let relay = Relay::start(&mut network);
        let post = Post::new(&network);
        let last = schedule.last().map_or(Duration::ZERO, |(at, _)| *at);
        World {
            plan,
            start,
            calm: start + last,
            network,
            sides,
            relay,
            post,
            schedule,
            asleep: [false; 2],
            deferred: Default::default(),
            wakes: [None; 2],
            load,
            pause: if plan.is_long() { pause } else { Duration::ZERO },
            agreed: None,
            lost: None,
            links_before: 0,
            done: None,
            events_before: 0,
            second: (0, 0),
            summary: Summary::default(),
        }
    }

    pub(crate) fn run(mut self) -> Summary {
        for side in [0, 1] {
            let at = self.start + self.network.up_to(Duration::from_secs(2));
            self.network.queue.schedule(at, Event::Begin(side));
            self.network.queue.schedule(at, Event::App(side));
        }
        for (line, (at, _)) in self.schedule.iter().enumerate() {
            self.network.queue.schedule(self.start + *at, Event::Schedule(line));
        }
        loop {
            let Some((key, event)) = self.network.queue.pop() else {
                panic!("nothing will ever happen again: {}", self.describe());
            };
            self.network.now = key.at();
            self.network.trace.set_time(key.at());
            self.count();
            self.handle(event);
            self.after();
            if self.is_over() {
                return self.finish();
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let host = match event {
            Event::Begin(side)
            | Event::Wake(side)
            | Event::App(side)
            | Event::Post(side)
            | Event::Delivered(side)
            | Event::Monitor(side) => Some(side),
            Event::Notice(place, _) | Event::Unreachable(place) => self.network.host_of(place),
            Event::Arrival(_) | Event::Mailed(_) | Event::Schedule(_) => None,
        };
        if let Some(side) = host.filter(|host| *host != RELAY && self.asleep[*host]) {
            return self.deferred[side].push(event);
        }
        let network = &mut self.network;
        match event {
            Event::Begin(side) => self.sides[side].begin(network),
            Event::Wake(side) => {
                self.wakes[side] = None;
                self.sides[side].handle_timeout(network);
            }
            Event::App(side) => self.step_app(side),
            Event::Arrival(place) => {
                if let Some(notice) = network.arrive(place) {
                    self.tell(place, notice);
                }
            }
            Event::Notice(place, notice) => self.tell(place, notice),
            Event::Unreachable(place) => self.tell(place, Notice::Refused),
            Event::Post(side) => {
                if let Some(change) = self.post.handle_timeout(side, network) {
                    self.tell_mailbox(&change);
                }
            }
            Event::Mailed(side) => self.post.mailed(side, network),
            Event::Delivered(side) => {
                if let Some(message) = self.post.delivered(side, network) {
                    self.sides[side].handle_message(message, network);
                }
            }
            Event::Monitor(side) => self.sides[side].handle_disturbance(network),
            Event::Schedule(line) => self.disturb(self.schedule[line].1),
        }
    }

    fn tell(&mut self, place: Place, notice: Notice) {
        match self.network.host_of(place) {
            None => {}
            Some(RELAY) => self.relay.handle(place, notice, &mut self.network),
            Some(side) if self.asleep[side] => self.deferred[side].push(Event::Notice(place, notice)),
            Some(side) => self.sides[side].handle_network(place, notice, &mut self.network),
        }
    }

    fn tell_mailbox(&mut self, change: &post::Change) {
        self.sides[change.side].handle_mailbox(change.up, &mut self.network);
    }

    fn step_app(&mut self, number: usize) {
        let side = &mut self.sides[number];
        if side.app.is_done() {
            return;
        }
        side.app.step(&mut side.mux, &mut self.network.rng);
        side.settle(&mut self.network);
        let busy = self.network.now >= self.calm || self.network.rng.random_range(0..12) != 0;
        let pause = if busy { Duration::from_millis(20) } else { self.pause };
        let at = self.network.now + self.network.up_to(pause);
        self.network.queue.schedule(at, Event::App(number));
    }

    fn disturb(&mut self, change: Change) {
        let network = &mut self.network;
        network.trace.note(|| format!("--- {change:?}"));
        match change {
            Change::Address(host, address) => {
                network.hosts[host].address = address;
                let at = network.now + Duration::from_millis(1);
                network.queue.schedule(at, Event::Monitor(host));
            }
            Change::Mute(host, on) => network.hosts[host].mute = on,
            Change::Deaf(host, on) => network.hosts[host].deaf = on,
            Change::Shun(host, on) => network.hosts[host].shunned = on,
            Change::Reset { clean } => self.cut(clean),
            Change::Relay(true) => self.relay = Relay::start(network),
            Change::Relay(false) => self.relay.stop(network),
            Change::Mailbox(up) => self.post.set_server(up),
            Change::Away(host, away) => self.post.set_away(host, away),
            Change::Freeze(host) => self.asleep[host] = true,
            Change::Suspend(host) => {
                self.asleep[host] = true;
                network.hosts[host].suspended = true;
            }
            Change::Wake(host) => self.wake(host),
            Change::Abandon(host) if self.asleep[host] => {}
            Change::Abandon(host) => self.sides[host].abandon_link(network),
            Change::Switch(host) => self.sides[host].switch_link(network),
        }
        self.network.retry();
        for change in self.post.look(&mut self.network) {
            if !self.asleep[change.side] {
                self.tell_mailbox(&change);
            }
        }
    }

    /// Everything that came in the meantime waits, all timers are due, and the monitor will notice; in any order.
    fn wake(&mut self, host: usize) {
        self.asleep[host] = false;
        self.network.hosts[host].suspended = false;
        let now = self.network.now;
        let soon = Duration::from_millis(5);
        let notices = now + self.network.up_to(soon);
        for event in std::mem::take(&mut self.deferred[host]) {
            let at = match event {
                Event::Wake(_) => continue,
                Event::Notice(..) => notices,
                _ => now + self.network.up_to(soon),
            };
            self.network.queue.schedule(at, event);
        }
        let at = now + self.network.up_to(Duration::from_secs(1));
        self.network.queue.schedule(at, Event::Monitor(host));
    }

    /// Cuts the link, or else anything.
    fn cut(&mut self, clean: bool) {
        let linked = self.sides.iter().find_map(Side::connection);
        let all = self.network.connections();
        let Some(connection) = linked.or_else(|| all.first().copied()) else { return };
        self.summary.cuts += 1;
        self.network.cut(connection, clean);
    }

    /// What follows from every event.
    fn after(&mut self) {
        for (number, side) in self.sides.iter_mut().enumerate() {
            for wish in std::mem::take(&mut side.wishes) {
                match wish {
                    Wish::Send(message) => self.post.send(number, message, &mut self.network),
                    Wish::Probe => self.post.probe(number, &mut self.network),
                }
            }
            // No timer is lost: the side wakes at the first deadline of its machines.
            let deadline =
                side.deadline().filter(|_| !self.asleep[number]).map(|at| at.max(self.network.now));
            let armed = &mut self.wakes[number];
            if armed.map(Key::at) != deadline {
                if let Some(key) = armed.take() {
                    self.network.queue.cancel(key);
                }
                *armed = deadline.map(|at| self.network.queue.schedule(at, Event::Wake(number)));
            }
            assert!(
                armed.is_none_or(|key| self.network.queue.contains(key)),
                "a timer of {} is lost",
                name(number)
            );
        }
        if let Plan::CutAfterRecord(_, record) = self.plan
            && self.summary.cuts == 0
            && self.records() >= record
            && self.sides.iter().any(Side::is_connected)
        {
            self.cut(true);
        }
        self.judge();
    }

    /// Whether both sides are on one connection, and since when.
    fn judge(&mut self) {
        let [a, b] = &self.sides;
        if self.plan.cast() == Cast::Dilated1 {
            let apart = a.generation().abs_diff(b.generation());
            assert!(apart <= 1, "the generations differ by {apart}");
            let stays = matches!(self.plan, Plan::Upgrade | Plan::Failover);
            assert!(!stays || a.generation().max(b.generation()) == 0, "the generation was left");
        }
        let agreed = match (a.place(), b.place()) {
            (Some(one), Some(other)) if self.network.is_open(one) && self.network.is_open(other) => {
                let both = one.connection == other.connection || self.network.relayed(one, other);
                both && self.sides.iter().all(Side::has_agreed)
            }
            _ => false,
        };
        if !agreed {
            if self.agreed.take().is_some() {
                self.lost = Some(self.network.now);
            }
        } else if self.agreed.is_none() {
            self.agreed = Some(self.network.now);
            if self.plan == Plan::WithoutMailbox && self.post.is_empty() {
                self.network.trace.note(|| "--- the mailbox server is gone for good".to_owned());
                self.post.set_server(false);
            }
            if let Some(lost) = self.lost.take() {
                self.summary.outages += 1;
                self.summary.without_link += self.network.now - lost;
            }
        }
        if self.network.now < self.calm {
            self.links_before = self.links();
            return;
        }
        let calm_links = self.links() - self.links_before;
        assert!(calm_links <= MOST_CALM_LINKS, "{calm_links} links since the last disturbance");
        let late = self.network.now > self.calm + self.bound() && !self.is_settled();
        assert!(
            !late,
            "not connected and done {:?} after the last disturbance: {}",
            self.bound(),
            self.describe()
        );
    }

    fn count(&mut self) {
        let second = (self.network.now - self.start).as_secs();
        if second != self.second.0 {
            self.second = (second, 0);
        }
        self.second.1 += 1;
        self.summary.events += 1;
        self.summary.busiest = self.summary.busiest.max(self.second.1);
        assert!(
            self.second.1 <= MOST_EVENTS,
            "it spins: {} events in one second: {}",
            self.second.1,
            self.describe()
        );
    }

    fn bound(&self) -> Duration {
        match self.plan {
            Plan::Disturbances(Cast::PythonFollows | Cast::PythonLeads) => CONVERGENCE_WITH_PYTHON,
            _ => CONVERGENCE,
        }
    }

    fn is_settled(&self) -> bool {
        let found = match self.plan {
            Plan::Upgrade => self.sides.iter().all(Side::is_direct),
            Plan::Failover => self.sides.iter().all(Side::has_standby),
            _ => true,
        };
        found
            && self.agreed.is_some()
            && self.sides.iter().all(|side| side.app.is_done() && side.mux.is_drained())
    }

    fn is_over(&mut self) -> bool {
        let mailed = self.post.is_empty() || self.plan == Plan::WithoutMailbox;
        if self.network.now < self.calm || !self.is_settled() || !mailed {
            self.done = None;
            return false;
        }
        if !self.plan.is_long() {
            return true;
        }
        let (now, agreed) = (self.network.now, self.agreed.expect("settled").max(self.calm));
        let done = *self.done.get_or_insert(now);
        if now < done + REST / 2 {
            self.events_before = self.summary.events;
        }
        now >= agreed + WATCH && now >= done + REST
    }

    fn finish(mut self) -> Summary {
        let [a, b] = &self.sides;
        if !self.load.wild {
            assert_eq!((a.app.received, b.app.received), (b.app.sent(), a.app.sent()));
        }
        for side in &self.sides {
            let usage = side.mux.usage();
            assert_eq!((usage.outbox_bytes, usage.receive_bytes, usage.subchannels), (0, 0, 0), "{usage:?}");
        }
        self.summary.at_rest = self.summary.events - self.events_before;
        if self.plan.is_long() {
            let events = self.summary.at_rest;
            assert!(events <= MOST_AT_REST, "{events} events although there is nothing to do");
        }
        self.summary.bytes = a.app.received + b.app.received;
        self.summary.early = a.early + b.early;
        self.summary.refused = a.refused + b.refused;
        self.summary.replaced = a.replaced + b.replaced;
        self.summary.activations = a.wires().map_or(0, Wires::epoch);
        self.summary.generation = a.generation();
        self.summary.records = self.records();
        self.summary.links = self.links();
        self.summary.calm_links = self.links() - self.links_before;
        self.summary.converged = self.agreed.expect("settled").saturating_duration_since(self.calm);
        self.summary
    }

    fn records(&self) -> u64 {
        self.sides.iter().map(|side| side.records).sum()
    }

    fn links(&self) -> u64 {
        self.sides.iter().map(|side| side.links).sum()
    }

    fn describe(&self) -> String {
        let [a, b] = self.sides.each_ref().map(Side::describe);
        format!("\n{a}\n{b}\naddresses {} {}", self.network.hosts[0].address, self.network.hosts[1].address)
    }
}

/// What the applications do in a run.
fn load(plan: Plan, rng: &mut StdRng) -> Load {
    let tame = Load { opens: 3, longest: 6000, piece: 1500, wild: false };
    match (plan.cast(), plan) {
        (Cast::Dilated1, Plan::CutAfterRecord(..)) => tame,
        (Cast::Dilated1, _) => {
            let (longest, piece) = if rng.random_bool(0.05) { (150_000, 30_000) } else { (6000, 1500) };
            Load { opens: rng.random_range(1..6), longest, piece, wild: true }
        }
        _ => tame,
    }
}
