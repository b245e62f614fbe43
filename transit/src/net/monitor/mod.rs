//! What happens to the machine that may break connections: other addresses, other routes, sleep.

#[cfg(target_os = "linux")]
mod netlink;
mod sleep;
mod source;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, UdpSocket},
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::watch, task::JoinSet};

use self::{
    sleep::SleepDetector,
    source::{Changes, Source},
};
use super::{dial::local_addresses, now};

/// The shortest interval between two looks at anything.
const SHORTEST: Duration = Duration::from_millis(10);

/// How long after something was told the next is: an address that is replaced goes and comes within milliseconds.
const FIRST_APART: Duration = Duration::from_millis(20);

/// How often a [`Monitor`] looks where nothing tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitorConfig {
    /// How often the clocks are compared. Default 1 s; at least 10 ms.
    pub tick: Duration,
    /// What the clocks may disagree by, or a comparison may be late by, before it counts as sleep. Default 2 s.
    pub sleep_threshold: Duration,
    /// How often the addresses are listed where the system does not tell of changes. Default 2 s; at least 10 ms.
    pub poll: Duration,
    /// What happens is told at once, and what follows at its heels a little later, at last so much: an interface that
    /// flaps shall not make anybody begin anew all the time. Default 200 ms.
    pub apart: Duration,
}

impl Default for MonitorConfig {
    fn default() -> MonitorConfig {
        MonitorConfig {
            tick: Duration::from_secs(1),
            sleep_threshold: Duration::from_secs(2),
            poll: Duration::from_secs(2),
            apart: Duration::from_millis(200),
        }
    }
}

impl MonitorConfig {
    /// The same, without intervals that would keep a processor busy.
    fn bounded(self) -> MonitorConfig {
        MonitorConfig { tick: self.tick.max(SHORTEST), poll: self.poll.max(SHORTEST), ..self }
    }
}

/// Something that connections may not have survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disturbance {
    /// The list of [`local_addresses`] is another one.
    Addresses,
    /// A route came, went or was renewed, or an interface was set up or down. Only reported on Linux.
    Routes,
    /// The machine slept, or this process was stopped or given no time.
    Woke {
        /// For how long, about.
        after: Duration,
    },
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Disturbance::Addresses => f.write_str("the addresses of this machine changed"),
            Disturbance::Routes => f.write_str("the routes of this machine changed"),
            Disturbance::Woke { after } => {
                write!(f, "this machine, or only this program, stood still for {:.1} s", after.as_secs_f64())
            }
        }
    }
}

/// What has happened since the monitor was started. Nothing in it ever decreases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    addresses: u64,
    routes: u64,
    slept: Duration,
}

/// Tells of every [`Disturbance`] of this machine, as soon as it is known.
///
/// On Linux the kernel tells of addresses and routes; elsewhere, and where it cannot be asked, the addresses are listed
/// from time to time. Sleep shows in the clocks: while a machine sleeps its monotonic clock stands still and its wall
/// clock does not, and a process that was stopped is late for its own timer. A wall clock that somebody sets forward
/// looks like sleep, too.
///
/// A task of its own watches, so that a caller who is busy misses nothing. Dropping the monitor ends it.
#[derive(Debug)]
pub struct Monitor {
    tally: watch::Receiver<Tally>,
    /// The part of the tally that was reported.
    reported: Tally,
    apart: Duration,
    /// When something was reported last, and how long what follows has to wait.
    last: Option<(Instant, Duration)>,
    _task: JoinSet<()>,
}

impl Monitor {
    /// Starts to watch: every change after this call is reported. What cannot be watched is logged, and looked up from
    /// time to time instead.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime that has I/O and time enabled.
    #[must_use]
    pub fn start(config: MonitorConfig) -> Monitor {
        let config = config.bounded();
        let source = Source::open(config.poll);
        Monitor::watch(config, source, || local_addresses(false))
    }

    fn watch(
        config: MonitorConfig,
        source: Source,
        list: impl Fn() -> Vec<IpAddr> + Send + 'static,
    ) -> Monitor {
        let apart = config.apart;
        let (teller, tally) = watch::channel(Tally::default());
        let watch = Watch::new(config, source, list, teller);
        let mut task = JoinSet::new();
        task.spawn(watch.run());
        Monitor { tally, reported: Tally::default(), apart, last: None, _task: task }
    }

    /// Waits for something to happen. After that the next is told 20 ms later at the earliest, and while more follows each
    /// wait is twice the last, up to [`MonitorConfig::apart`]. What happened several times since the last call is told
    /// once. Never ends otherwise.
    ///
    /// Cancel safe: nothing is lost.
    pub async fn next(&mut self) -> Disturbance {
        if let Some((last, wait)) = self.last {
            tokio::time::sleep_until((last + wait).into()).await;
        }
        let reported = self.reported;
        let Ok(tally) = self.tally.wait_for(|tally| *tally != reported).await.map(|tally| *tally) else {
            // The runtime is ending, and nobody watches any more.
            return std::future::pending().await;
        };
        let now = now();
        let before = self.last.map(|(last, wait)| (now.saturating_duration_since(last), wait));
        self.last = Some((now, wait(before, self.apart)));
        if tally.slept != reported.slept {
            self.reported.slept = tally.slept;
            Disturbance::Woke { after: tally.slept.saturating_sub(reported.slept) }
        } else if tally.addresses != reported.addresses {
            self.reported.addresses = tally.addresses;
            Disturbance::Addresses
        } else {
            self.reported.routes = tally.routes;
            Disturbance::Routes
        }
    }
}

/// How long what follows has to wait. `before`: how long ago something was told, and the wait after that.
fn wait(before: Option<(Duration, Duration)>, apart: Duration) -> Duration {
    let wait = match before {
        Some((ago, wait)) if ago < apart.saturating_mul(2) => wait.saturating_mul(2),
        _ => FIRST_APART,
    };
    wait.min(apart)
}

/// The task of a [`Monitor`].
struct Watch<L> {
    source: Source,
    list: L,
    /// The addresses of the last look.
    addresses: Vec<IpAddr>,
    tick: Duration,
    /// The next tick.
    due: Instant,
    detector: SleepDetector,
    tally: watch::Sender<Tally>,
}

impl<L: Fn() -> Vec<IpAddr>> Watch<L> {
    /// What happens after this is noticed, even if it happens before the task runs for the first time.
    fn new(config: MonitorConfig, source: Source, list: L, tally: watch::Sender<Tally>) -> Watch<L> {
        let (monotonic, wall) = clocks();
        let mut watch = Watch {
            source,
            list,
            addresses: Vec::new(),
            tick: config.tick,
            due: now() + config.tick,
            detector: SleepDetector::new(config.sleep_threshold, monotonic, wall),
            tally,
        };
        // The source is open already, so that no change falls in between.
        watch.look();
        watch
    }

    /// Whether there are other addresses than at the last look.
    fn look(&mut self) -> bool {
        let mut found = (self.list)();
        found.sort_unstable();
        let changed = found != self.addresses;
        self.addresses = found;
        changed
    }

    async fn run(mut self) {
        loop {
            tokio::select! {
                changes = self.source.changed() => self.handle_changes(changes),
                () = tokio::time::sleep_until(self.due.into()) => self.handle_tick(),
            }
        }
    }

    fn handle_changes(&mut self, changes: Changes) {
        let moved = changes.addresses && self.look();
        if moved || changes.routes {
            self.tally.send_modify(|tally| {
                tally.addresses += u64::from(moved);
                tally.routes += u64::from(changes.routes);
            });
        }
    }

    fn handle_tick(&mut self) {
        let at = now();
        let (monotonic, wall) = clocks();
        if let Some(after) = self.detector.observe(at.saturating_duration_since(self.due), monotonic, wall) {
            self.tally.send_modify(|tally| tally.slept = tally.slept.saturating_add(after));
        }
        self.due = at + self.tick;
    }
}

/// The clocks that sleep tells apart. Both are the system's, even in a test that pauses tokio's: its clock runs ahead
/// of the date at will, which means nothing.
#[expect(clippy::disallowed_methods, reason = "the driver of the detector, which takes both as arguments")]
fn clocks() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}

/// Whether this machine still has a local address, so that connections from it can go on. Tries to bind a socket to
/// it; nothing is sent. If that fails for another reason than the address, the answer is yes.
#[must_use]
pub fn has_address(ip: IpAddr) -> bool {
    match UdpSocket::bind((ip, 0)) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::AddrNotAvailable,
    }
}
