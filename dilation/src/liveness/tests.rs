//! The watch on a virtual clock.

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
                Verdict::Hedge => story.push((at, "hedge")),
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
    // How long the path is was not measured.
    assert_eq!(bench.silence(60_000), [(1000, "ping"), (3000, "ping"), (5000, "dead")]);
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
            Verdict::Dead | Verdict::Hedge => panic!("dead after {n}"),
        }
    }
    assert!(pings >= 49, "the peer must hear that we live: {pings} PINGs in 25 s");
}

#[test]
fn another_link_takes_over_long_before_this_one_is_dead() {
    let mut bench = Bench::loaded(20);
    bench.liveness.set_hedged(true, bench.start);
    assert_eq!(bench.silence(10_000), [(100, "hedge"), (500, "ping"), (1000, "dead")], "said once");
    // A path that is slow by itself gets its round trips.
    let mut bench = Bench::loaded(60);
    bench.liveness.set_hedged(true, bench.start);
    assert_eq!(bench.silence(400)[0], (240, "hedge"));
    bench.liveness.handle_bytes(bench.start + ms(300));
    assert_eq!(bench.silence(560)[0], (540, "hedge"), "and again after it was heard");
    let mut idle = Bench::measured(20);
    idle.liveness.set_hedged(true, idle.start);
    assert_eq!(idle.silence(10_000), [], "nothing is owed");
}

#[test]
fn a_link_that_was_left_has_to_show_that_it_lives() {
    let mut bench = Bench::loaded(20);
    bench.liveness.stand_by(bench.start + ms(100));
    let story = bench.silence(10_000);
    assert_eq!((story[0], story.last()), ((100, "ping"), Some(&(1000, "dead"))));

    let mut bench = Bench::loaded(20);
    bench.liveness.stand_by(bench.start + ms(100));
    bench.liveness.handle_bytes(bench.start + ms(120));
    assert_ne!(bench.silence(10_000).last().map(|(_, what)| *what), Some("dead"), "that is enough");
    // It may be used again, and owe again.
    bench.liveness.set_in_flight(true, bench.now);
    bench.liveness.handle_bytes(bench.now);
    let dead = bench.now - bench.start + ms(1000);
    assert_eq!(bench.silence(60_000).last(), Some(&(u64::try_from(dead.as_millis()).unwrap(), "dead")));
}

#[test]
fn a_busy_link_is_measured_only_if_that_is_wanted() {
    for (probing, expected) in [(false, 0), (true, 9)] {
        let mut bench = Bench::measured(20);
        if probing {
            bench.liveness.set_probing();
        }
        let mut pings = 0;
        for n in 1..100 {
            bench.now = bench.start + ms(100 * n);
            bench.liveness.handle_data();
            bench.liveness.handle_bytes(bench.now);
            pings += usize::from(matches!(bench.liveness.handle_timeout(bench.now), Verdict::Ping(_)));
        }
        assert_eq!(pings, expected);
    }
}

#[test]
fn who_slept_does_not_blame_the_peer() {
    let mut bench = Bench::loaded(20);
    bench.now = bench.start + ms(8000);
    let Verdict::Ping(id) = bench.liveness.handle_timeout(bench.now) else { panic!("it is asked at once") };
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
