//! What must hold in every run, and when it is over.

use std::time::Duration;

use super::{Cast, Plan, Summary, World};
use crate::{
    queue::{Event, Key},
    side::{Side, Wish},
    trace::name,
    wires::Wires,
};

/// How long after the last disturbance the two sides may take to be connected and done.
pub(super) const CONVERGENCE: Duration = Duration::from_secs(120);
/// The same with Python, which tells its hints once: only the Leader's next generation helps, and its patience doubles up
/// to 600 s.
const CONVERGENCE_WITH_PYTHON: Duration = Duration::from_secs(240);
/// How long the agreement of the two sides is watched before it counts.
const WATCH: Duration = Duration::from_secs(60);
/// How long they are watched when there is nothing left to do; more events in the second half of that mean that they do
/// not come to rest.
const REST: Duration = Duration::from_secs(60);
const MOST_AT_REST: u64 = 250;
/// How long what both sides say when a link is activated takes to arrive.
const RENEWAL: Duration = Duration::from_secs(2);
/// More events in one second mean that something spins.
const MOST_EVENTS: u64 = 3000;
/// More links after the last disturbance mean that the two sides chase each other.
const MOST_CALM_LINKS: u64 = 24;

impl World {
    /// What follows from every event.
    pub(super) fn after(&mut self) {
        for (number, side) in self.sides.iter_mut().enumerate() {
            for wish in std::mem::take(&mut side.wishes) {
                match wish {
                    Wish::Send(message) => self.post.send(number, message, &mut self.network),
                    Wish::Probe => self.post.probe(number, &mut self.network),
                    Wish::Leave => self.post.leave(number, &mut self.network),
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
        if self.plan.closes() {
            return self.judge_close();
        }
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

    pub(super) fn count(&mut self) {
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
        found && self.agreed.is_some() && self.is_done()
    }

    /// Whether the applications have done all, and the peers have it.
    pub(super) fn is_done(&self) -> bool {
        self.sides.iter().all(|side| side.app.is_done() && side.mux.is_drained())
    }

    pub(super) fn is_over(&mut self) -> bool {
        if self.plan.closes() {
            return self.network.now >= self.calm && self.has_closed();
        }
        let mailed = self.post.is_empty() || self.plan == Plan::WithoutMailbox;
        let calm = self.network.now >= self.calm || matches!(self.plan, Plan::Young(_));
        if !calm || !self.is_settled() || !mailed || !self.is_renewed() {
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

    /// In `dilated-1` the active link is activated once more when all is done: so both sides say all sums again.
    fn is_renewed(&mut self) -> bool {
        if self.plan.cast() != Cast::Dilated1 {
            return true;
        }
        let now = self.network.now;
        let Some(since) = self.renewed else {
            self.renewed = Some(now);
            let side = usize::from(self.summary.events.is_multiple_of(2));
            self.sides[side].renew_link(&mut self.network);
            // Its timers have changed.
            self.after();
            return false;
        };
        self.agreed.is_some_and(|agreed| now >= agreed.max(since) + RENEWAL)
    }

    /// No credit was lost or made.
    fn check_sums(&self) {
        for number in [0, 1] {
            let promised = self.sides[1 - number].config.params();
            let Some(wires) = self.sides[number].wires() else { continue };
            let promised = (promised.link_credit, promised.subchannels);
            assert_eq!(
                wires.audit().ledger().left(),
                promised,
                "what {} may still send and open",
                name(number)
            );
        }
    }

    pub(super) fn finish(mut self) -> Summary {
        if self.plan.closes() {
            self.check_closed();
            return self.summary;
        }
        self.check_sums();
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

    pub(super) fn describe(&self) -> String {
        let [a, b] = self.sides.each_ref().map(Side::describe);
        format!("\n{a}\n{b}\naddresses {} {}", self.network.hosts[0].address, self.network.hosts[1].address)
    }
}
