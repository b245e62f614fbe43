//! Is the link alive? What is owed an answer, how long that may take, and the verdict when it does not come.
//!
//! Specification `ged`, section "Keepalive", with differences that no peer can see: both roles ping (Python answers in
//! both), every byte from the peer counts as life, and the patience is measured instead of fixed. A saturated relay
//! with deep buffers is slow to answer a PING, but it never falls silent.

use std::time::{Duration, Instant};

use dilated_subchannel::PingId;

use crate::rtt::RoundTrip;

/// How a link is watched. `LivenessConfig::default()` suits most.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LivenessConfig {
    /// An idle link is probed with a PING after this long without a byte from the peer. At least 100 ms. Default 15 s.
    pub ping_interval: Duration,
    /// How long the answer to that PING may take, and at least [`round_trips`](Self::round_trips). Default 3 s.
    pub ping_timeout: Duration,
    /// With data in flight, silence of this length ends the link, and at least
    /// [`round_trips`](Self::round_trips). When a stream of records from the peer stops for as long, the link is
    /// probed, and has the same time to answer. Default 1 s.
    pub silence: Duration,
    /// The same on a link whose round trip under load is not known, because the peer has not acknowledged anything
    /// yet: a slow path may need that long for the first record. Default 4 s.
    pub first_silence: Duration,
    /// After a link that died young the next one begins with one record, and waits so long for the peer's first bytes
    /// before it sends more. Default 250 ms.
    pub first_answer: Duration,
    /// How many round trips, smoothed as in RFC 6298, an answer may take. Default 4.
    pub round_trips: u32,
    /// After a change of this machine's addresses or routes, or its sleep, the link has this long to show that it
    /// still works, and at least [`round_trips`](Self::round_trips). Default 500 ms.
    pub suspicion: Duration,
    /// While our own application does not read, the peer gets neither ACK nor PONG; a PING so often shows it that we
    /// are here. Must be well below the peer's [`silence`](Self::silence). Default 250 ms.
    pub paused_ping: Duration,
    /// An ACK that is missing while the peer is heard of is asked for after this long, by sending the last record again;
    /// the wait doubles each time up to [`nudge_max`](Self::nudge_max). A Python Follower loses the ACKs that it owes
    /// for what arrives together with the KCM, and would never repeat them by itself. Default 1 s.
    pub nudge: Duration,
    /// The longest such wait. Default 30 s.
    pub nudge_max: Duration,
    /// The first such wait of a close. Default 250 ms.
    pub nudge_draining: Duration,
    /// The longest patience of all. Each link that ends in silence before the peer has acknowledged anything doubles
    /// that of the next one up to this, so that a path that is merely slow is not given up for ever. Default 60 s.
    pub longest: Duration,
}

impl Default for LivenessConfig {
    fn default() -> Self {
        LivenessConfig {
            ping_interval: Duration::from_secs(15),
            ping_timeout: Duration::from_secs(3),
            silence: Duration::from_secs(1),
            first_silence: Duration::from_secs(4),
            first_answer: Duration::from_millis(250),
            round_trips: 4,
            suspicion: Duration::from_millis(500),
            paused_ping: Duration::from_millis(250),
            nudge: Duration::from_secs(1),
            nudge_max: Duration::from_secs(30),
            nudge_draining: Duration::from_millis(250),
            longest: Duration::from_secs(60),
        }
    }
}

/// What the driver must do about liveness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing until [`Liveness::deadline`].
    Quiet,
    /// Send a PING with this id.
    Ping(PingId),
    /// Nothing has been heard for too long: abort the link.
    Dead,
}

/// Something that the peer owes us.
#[derive(Debug, Clone, Copy)]
struct Debt {
    since: Instant,
    /// The peer was reminded with a PING.
    reminded: bool,
}

/// The watch over one link. No clock: every call says what time it is.
#[derive(Debug)]
pub struct Liveness {
    config: LivenessConfig,
    /// How often the patience is doubled.
    doublings: u32,
    round_trip: Option<RoundTrip>,
    /// An ACK was timed on this link, so the round trip includes what a record needs.
    loaded: bool,
    last_heard: Instant,
    next_ping: Instant,
    /// Records of the application came since the last PING.
    active: bool,
    /// Data is unacknowledged.
    data: Option<Debt>,
    /// A PING is unanswered; whether it was sent because a stream of records had stopped.
    ping: Option<(Debt, bool)>,
    /// The link is suspect.
    suspicion: Option<Debt>,
    /// The last PING: its PONG is a measurement.
    sent: Option<(PingId, Instant)>,
    counter: u32,
}

impl Liveness {
    /// A link that came up `now`, after so many fruitless ones that ended in silence.
    pub fn new(config: LivenessConfig, fruitless: u32, now: Instant) -> Liveness {
        Liveness {
            config,
            doublings: fruitless,
            round_trip: None,
            loaded: false,
            last_heard: now,
            // The first PING is a measurement, and shows a Leader that the Follower has the link.
            next_ping: now,
            active: false,
            data: None,
            ping: None,
            suspicion: None,
            sent: None,
            counter: 0,
        }
    }

    /// Bytes came from the peer.
    pub fn handle_bytes(&mut self, now: Instant) {
        self.last_heard = now;
        self.ping = None;
        if let Some(debt) = &mut self.data {
            *debt = Debt { since: now, reminded: false };
        }
        // What the machine had received before the suspicion proves nothing, but it is read at once.
        let patience = self.suspicion_patience();
        if self.suspicion.is_some_and(|debt| now >= debt.since + patience / 2) {
            self.suspicion = None;
        }
        if self.counter > 0 {
            let quiet = if self.active { self.config.silence } else { self.config.ping_interval };
            self.next_ping = now + quiet.min(self.config.ping_interval);
        }
    }

    /// Records of the application came, so silence will be news: the PING comes sooner.
    pub fn handle_data(&mut self) {
        self.active = true;
    }

    /// A PONG came.
    pub fn handle_pong(&mut self, id: PingId, now: Instant) {
        if let Some((sent, at)) = self.sent
            && sent == id
        {
            self.sent = None;
            self.measure(now.saturating_duration_since(at));
            if self.suspicion.is_some_and(|debt| at >= debt.since) {
                self.suspicion = None;
            }
        }
    }

    /// The peer acknowledged a record that was handed to the socket so long ago.
    pub fn handle_ack(&mut self, took: Duration) {
        self.loaded = true;
        self.doublings = 0;
        self.measure(took);
    }

    /// Whether data is on its way that the peer has not acknowledged.
    pub fn set_in_flight(&mut self, in_flight: bool, now: Instant) {
        match (in_flight, &self.data) {
            (true, None) => self.data = Some(Debt { since: now, reminded: false }),
            (false, Some(_)) => self.data = None,
            _ => {}
        }
    }

    /// Our own reading is paused because the application does not read: silence says nothing about the peer.
    pub fn handle_paused(&mut self, now: Instant) {
        self.last_heard = now;
        (self.ping, self.suspicion, self.sent) = (None, None, None);
        if let Some(debt) = &mut self.data {
            *debt = Debt { since: now, reminded: false };
        }
        self.next_ping = self.next_ping.min(now + self.config.paused_ping);
    }

    /// Something happened that may have broken the link: it has to show that it works.
    pub fn suspect(&mut self, now: Instant) {
        self.suspicion.get_or_insert(Debt { since: now, reminded: false });
    }

    /// Whether it has not shown that yet.
    pub fn is_suspect(&self) -> bool {
        self.suspicion.is_some()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn deadline(&self) -> Instant {
        let debts = self.debts().flat_map(|(debt, patience)| {
            let end = debt.since + patience;
            [Some(end), (!debt.reminded).then(|| reminder(debt, patience))]
        });
        let debts = debts.flatten().min();
        let suspect = self.suspicion.filter(|debt| !debt.reminded).map(|debt| debt.since);
        debts.into_iter().chain(suspect).fold(self.next_ping, Instant::min)
    }

    /// When the peer was last heard.
    pub fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// The round trip, once it was measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.map(|round_trip| round_trip.smoothed())
    }

    /// Whether the peer has acknowledged anything on this link.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Decides what to do `now`.
    pub fn handle_timeout(&mut self, now: Instant) -> Verdict {
        if now >= self.deadline() + self.config.suspicion {
            self.handle_late(now);
        }
        if self.debts().any(|(debt, patience)| debt.since + patience <= now) {
            return Verdict::Dead;
        }
        let mut remind = false;
        let data = self.data_patience();
        let ping = self.ping.map_or(data, |(_, active)| self.ping_patience(active));
        let ping_debt = self.ping.as_mut().map(|(debt, _)| debt);
        for (debt, patience) in [(self.data.as_mut(), data), (ping_debt, ping)] {
            if let Some(debt) = debt.filter(|debt| !debt.reminded && reminder(**debt, patience) <= now) {
                debt.reminded = true;
                remind = true;
            }
        }
        if let Some(debt) = self.suspicion.as_mut().filter(|debt| !debt.reminded) {
            debt.reminded = true;
            remind = true;
        }
        if self.next_ping <= now {
            // A Python Follower may lose its answer to the very first one, so nothing hangs on that.
            if self.counter > 0 {
                self.ping.get_or_insert((Debt { since: now, reminded: false }, self.active));
            }
            remind = true;
        }
        if !remind {
            return Verdict::Quiet;
        }
        self.active = false;
        self.next_ping = now + self.config.ping_interval;
        self.counter = self.counter.wrapping_add(1);
        let id = PingId::from(self.counter.to_be_bytes());
        self.sent = Some((id, now));
        Verdict::Ping(id)
    }

    /// It was us who did not look, asleep or without processor time. What the peer owed may be on its way: it gets its
    /// time again, but the link is suspect.
    fn handle_late(&mut self, now: Instant) {
        let fresh = Debt { since: now, reminded: false };
        self.data = self.data.map(|_| fresh);
        self.ping = self.ping.map(|(_, active)| (fresh, active));
        self.suspicion = Some(fresh);
    }

    fn debts(&self) -> impl Iterator<Item = (Debt, Duration)> {
        [
            self.data.map(|debt| (debt, self.data_patience())),
            self.ping.map(|(debt, active)| (debt, self.ping_patience(active))),
            self.suspicion.map(|debt| (debt, self.suspicion_patience())),
        ]
        .into_iter()
        .flatten()
    }

    fn measure(&mut self, took: Duration) {
        match &mut self.round_trip {
            Some(round_trip) => round_trip.update(took),
            None => self.round_trip = Some(RoundTrip::new(took)),
        }
    }

    fn data_patience(&self) -> Duration {
        self.patience(if self.loaded { self.config.silence } else { self.config.first_silence })
    }

    fn ping_patience(&self, active: bool) -> Duration {
        self.patience(if active { self.config.silence } else { self.config.ping_timeout })
    }

    fn suspicion_patience(&self) -> Duration {
        self.patience(self.config.suspicion)
    }

    fn patience(&self, least: Duration) -> Duration {
        let measured = self.round_trip.map_or(least, |rtt| rtt.patience(self.config.round_trips));
        let doubled = least.max(measured).saturating_mul(2u32.saturating_pow(self.doublings));
        doubled.min(self.config.longest.max(least))
    }
}

/// When the peer is asked for what it owes: half of the patience is left for the answer.
fn reminder(debt: Debt, patience: Duration) -> Instant {
    debt.since + patience / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link on a virtual clock, with the default timers.
    struct Bench {
        liveness: Liveness,
        start: Instant,
        now: Instant,
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    impl Bench {
        #[expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]
        fn after(fruitless: u32) -> Bench {
            let now = Instant::now();
            Bench { liveness: Liveness::new(LivenessConfig::default(), fruitless, now), start: now, now }
        }

        /// A link on which the round trip was measured, at idle.
        fn measured(round_trip: u64) -> Bench {
            let mut bench = Bench::after(0);
            let Verdict::Ping(id) = bench.liveness.handle_timeout(bench.now) else { panic!("no first PING") };
            bench.now += ms(round_trip);
            bench.liveness.handle_bytes(bench.now);
            bench.liveness.handle_pong(id, bench.now);
            bench.start = bench.now;
            bench
        }

        /// The same with data in flight, acknowledged in that time before.
        fn loaded(round_trip: u64) -> Bench {
            let mut bench = Bench::measured(round_trip);
            bench.liveness.handle_ack(ms(round_trip));
            bench.liveness.set_in_flight(true, bench.now);
            bench
        }

        /// What the timers do until the link is dead or `end` (since the start) comes, with their times.
        fn silence(&mut self, end: u64) -> Vec<(u64, &'static str)> {
            let mut story = Vec::new();
            while self.liveness.deadline() <= self.start + ms(end) {
                assert!(story.len() < 1000, "{story:?}");
                self.now = self.liveness.deadline().max(self.now);
                let at = u64::try_from((self.now - self.start).as_millis()).unwrap();
                match self.liveness.handle_timeout(self.now) {
                    Verdict::Ping(_) => story.push((at, "ping")),
                    Verdict::Dead => {
                        story.push((at, "dead"));
                        break;
                    }
                    Verdict::Quiet => panic!("woken for nothing at {at}"),
                }
            }
            story
        }
    }

    #[test]
    fn an_idle_link_is_probed_and_dies_when_the_answer_does_not_come() {
        let story = Bench::measured(20).silence(60_000);
        assert_eq!(story, [(15_000, "ping"), (16_500, "ping"), (18_000, "dead")]);
    }

    #[test]
    fn an_answered_probe_begins_a_new_interval() {
        let mut bench = Bench::measured(20);
        assert_eq!(bench.silence(15_000), [(15_000, "ping")]);
        bench.liveness.handle_bytes(bench.start + ms(15_020));
        assert_eq!(bench.silence(40_000)[0], (30_020, "ping"));
    }

    #[test]
    fn silence_after_activity_is_probed_soon() {
        let mut bench = Bench::measured(20);
        bench.liveness.handle_bytes(bench.now);
        bench.liveness.handle_data();
        bench.liveness.handle_bytes(bench.now);
        assert_eq!(bench.silence(1000), [(1000, "ping")]);
        bench.liveness.handle_bytes(bench.start + ms(1020));
        assert_eq!(bench.silence(20_000)[0], (16_020, "ping"), "its answer is no activity");

        let mut bench = Bench::measured(20);
        bench.liveness.handle_data();
        bench.liveness.handle_bytes(bench.now);
        assert_eq!(bench.silence(20_000), [(1000, "ping"), (1500, "ping"), (2000, "dead")]);
    }

    #[test]
    fn only_the_ping_at_the_beginning_is_free() {
        // The peer was faster than our first look at the timer.
        let mut bench = Bench::after(0);
        bench.liveness.handle_data();
        bench.liveness.handle_bytes(bench.now);
        assert_eq!(bench.silence(0), [(0, "ping")], "the measurement is made all the same");
        bench.liveness.handle_data();
        bench.liveness.handle_bytes(bench.now);
        assert_eq!(bench.silence(60_000), [(1000, "ping"), (1500, "ping"), (2000, "dead")]);
    }

    #[test]
    fn with_data_in_flight_a_second_of_silence_is_death() {
        assert_eq!(Bench::loaded(20).silence(10_000), [(500, "ping"), (1000, "dead")]);
        // And four round trips, where those are longer.
        assert_eq!(Bench::loaded(600).silence(10_000), [(1200, "ping"), (2400, "dead")]);
    }

    #[test]
    fn the_first_record_may_take_longer() {
        let mut bench = Bench::measured(20);
        bench.liveness.set_in_flight(true, bench.now);
        assert_eq!(bench.silence(10_000), [(2000, "ping"), (4000, "dead")]);
    }

    #[test]
    fn deep_buffers_are_not_death() {
        // Records trickle through a full queue: an ACK every 3 s, each for what was written a minute before.
        let mut bench = Bench::measured(20);
        bench.liveness.set_in_flight(true, bench.now);
        for n in 1..100 {
            bench.silence(n * 3000);
            bench.now = bench.start + ms(n * 3000);
            assert_ne!(bench.liveness.handle_timeout(bench.now), Verdict::Dead, "after {n} ACKs");
            bench.liveness.handle_bytes(bench.now);
            bench.liveness.handle_ack(ms(3000 * n.min(20)));
            bench.liveness.set_in_flight(true, bench.now);
        }
    }

    #[test]
    fn links_that_were_silent_from_the_start_make_it_patient() {
        let deaths: Vec<u64> = (0..8)
            .map(|fruitless| {
                let mut bench = Bench::after(fruitless);
                bench.liveness.set_in_flight(true, bench.now);
                bench.silence(1_000_000).last().unwrap().0
            })
            .collect();
        assert_eq!(deaths, [4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000, 60_000]);
    }

    #[test]
    fn a_suspect_link_has_to_answer_at_once() {
        let mut bench = Bench::measured(20);
        bench.liveness.suspect(bench.now);
        assert_eq!(bench.silence(10_000), [(0, "ping"), (500, "dead")]);

        let mut bench = Bench::measured(20);
        bench.liveness.suspect(bench.now);
        let Verdict::Ping(id) = bench.liveness.handle_timeout(bench.now) else { panic!("no PING") };
        // What had been received before proves nothing.
        bench.liveness.handle_bytes(bench.now + ms(1));
        assert_eq!(bench.liveness.deadline(), bench.now + ms(500));
        bench.liveness.handle_pong(id, bench.now + ms(20));
        assert_eq!(bench.silence(10_000), [], "cleared");

        let mut bench = Bench::measured(20);
        bench.liveness.suspect(bench.now);
        bench.silence(0);
        bench.liveness.handle_bytes(bench.now + ms(260));
        assert_eq!(bench.silence(10_000), [], "bytes that keep coming clear it, too");
    }

    #[test]
    fn our_own_slow_reader_is_not_the_peers_death() {
        let mut bench = Bench::loaded(20);
        let mut pings = 0;
        for n in 1..100 {
            bench.now = bench.start + ms(250 * n);
            bench.liveness.handle_paused(bench.now);
            match bench.liveness.handle_timeout(bench.now) {
                Verdict::Ping(_) => pings += 1,
                Verdict::Quiet => {}
                Verdict::Dead => panic!("dead after {n}"),
            }
        }
        assert!(pings >= 49, "the peer must hear that we live: {pings} PINGs in 25 s");
    }

    #[test]
    fn who_slept_does_not_blame_the_peer() {
        let mut bench = Bench::loaded(20);
        bench.now = bench.start + ms(8000);
        let Verdict::Ping(id) = bench.liveness.handle_timeout(bench.now) else {
            panic!("it is asked at once")
        };
        assert_eq!(bench.liveness.deadline(), bench.now + ms(500), "and has to answer soon");
        bench.liveness.handle_bytes(bench.now + ms(100));
        bench.liveness.handle_pong(id, bench.now + ms(100));
        bench.liveness.set_in_flight(false, bench.now + ms(100));
        assert!(!bench.liveness.is_suspect());

        let mut bench = Bench::loaded(20);
        bench.now = bench.start + ms(8000);
        assert_eq!(bench.silence(20_000), [(8000, "ping"), (8500, "dead")]);
    }

    #[test]
    fn any_byte_is_life() {
        let mut bench = Bench::loaded(20);
        for n in 1..50 {
            bench.now = bench.start + ms(900 * n);
            assert_ne!(bench.liveness.handle_timeout(bench.now), Verdict::Dead);
            bench.liveness.handle_bytes(bench.now);
        }
        assert_eq!(bench.liveness.last_heard(), bench.now);
    }
}
