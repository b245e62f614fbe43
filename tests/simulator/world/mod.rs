//! The two sides, their network and their time: takes one event after the other, and sees that what must hold holds.

mod farewell;
mod judge;
mod plan;

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
    schedule::{Change, Schedule},
    side::{Make, Side},
};

use self::plan::load;
pub(crate) use self::plan::{Cast, Plan, Summary};

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
    /// Since when the active link is activated anew, at the end.
    renewed: Option<Instant>,
    /// Sides that have left, and the mailbox server has everything that they said.
    told: [bool; 2],
    summary: Summary,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]
    pub(crate) fn new(seed: u64, plan: Plan, trace: bool) -> World {
        let start = Instant::now();
        let mut rng = StdRng::seed_from_u64(seed);
        let schedule = plan.schedule(&mut rng);
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
            renewed: None,
            told: [false; 2],
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
            | Event::Left(side)
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
            Event::Left(side) => {
                self.told[side] = self.post.left(side) && self.sides[side].has_said_closing();
                self.sides[side].handle_left(&mut self.network);
            }
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
            Change::Life(life) => {
                assert!(
                    life.is_some() || self.is_done(),
                    "connections that break stop it: {}",
                    self.describe()
                );
                self.network.life = life;
            }
            Change::Nothing => {}
            Change::Close { host, drops } => self.sides[host].close(drops, network),
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
}
