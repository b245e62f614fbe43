//! The monitor on tokio's paused clock, where nothing but the clock happens.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A machine whose addresses a test decides on.
#[derive(Clone, Default)]
struct Machine(Arc<Mutex<(Vec<IpAddr>, u32)>>);

impl Machine {
    /// A monitor of it that nobody tells of changes.
    fn monitor(&self) -> Monitor {
        let (config, machine) = (MonitorConfig::default(), self.clone());
        let source = Source::polling(config.poll);
        Monitor::watch(config, source, move || {
            let mut state = machine.0.lock().unwrap();
            state.1 += 1;
            state.0.clone()
        })
    }

    fn set(&self, last_bytes: &[u8]) {
        let addresses = last_bytes.iter().map(|last| Ipv4Addr::new(192, 0, 2, *last).into());
        self.0.lock().unwrap().0 = addresses.collect();
    }

    fn times_listed(&self) -> u32 {
        self.0.lock().unwrap().1
    }
}

/// What the monitor tells within an hour, which the paused clock makes short.
async fn within_an_hour(monitor: &mut Monitor) -> Option<Disturbance> {
    tokio::time::timeout(HOUR, monitor.next()).await.ok()
}

#[tokio::test(start_paused = true)]
async fn polling_tells_of_other_addresses_once() {
    let machine = Machine::default();
    machine.set(&[1, 2]);
    let mut monitor = machine.monitor();
    assert_eq!(within_an_hour(&mut monitor).await, None);
    assert!(machine.times_listed() > 1000, "listed {} times", machine.times_listed());
    for other in [&[1, 3][..], &[1], &[], &[1, 2]] {
        machine.set(other);
        assert_eq!(within_an_hour(&mut monitor).await, Some(Disturbance::Addresses), "{other:?}");
        assert_eq!(within_an_hour(&mut monitor).await, None, "{other:?}");
    }
    // The order is the system's affair.
    machine.set(&[2, 1]);
    assert_eq!(within_an_hour(&mut monitor).await, None);
}

#[tokio::test(start_paused = true)]
async fn what_happens_while_nobody_asks_is_told_once() {
    let machine = Machine::default();
    let mut monitor = machine.monitor();
    for last in 1..5 {
        machine.set(&[last]);
        tokio::time::sleep(HOUR).await;
    }
    assert_eq!(monitor.next().await, Disturbance::Addresses);
    assert_eq!(within_an_hour(&mut monitor).await, None);
}

#[tokio::test(start_paused = true)]
async fn the_first_change_is_told_at_once_and_the_next_apart_from_it() {
    let machine = Machine::default();
    let mut monitor = machine.monitor();
    machine.set(&[1]);
    assert_eq!(monitor.next().await, Disturbance::Addresses);
    let first = now();
    for last in 2..5 {
        machine.set(&[last]);
    }
    assert_eq!(monitor.next().await, Disturbance::Addresses);
    assert!(now() >= first + FIRST_APART);
    assert_eq!(within_an_hour(&mut monitor).await, None, "and all of them as one");
}

#[test]
fn what_flaps_is_told_ever_less_often_until_it_rests() {
    let apart = MonitorConfig::default().apart;
    let mut waits = vec![wait(None, apart)];
    while waits.len() < 6 {
        let last = waits[waits.len() - 1];
        waits.push(wait(Some((last, last)), apart));
    }
    assert_eq!(waits.iter().map(Duration::as_millis).collect::<Vec<_>>(), [20, 40, 80, 160, 200, 200]);
    assert_eq!(wait(Some((2 * apart, apart)), apart), FIRST_APART);
    assert_eq!(wait(None, Duration::ZERO), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_is_sleep_and_one_that_runs_fast_is_not() {
    let mut monitor = Machine::default().monitor();
    // Before its task runs for the first time.
    tokio::time::advance(Duration::from_secs(5)).await;
    assert!(matches!(within_an_hour(&mut monitor).await, Some(Disturbance::Woke { .. })));
    // The paused clock passes this hour at once, but every timer on time.
    assert_eq!(within_an_hour(&mut monitor).await, None);
    for slept in [60, 5] {
        let slept = Duration::from_secs(slept);
        tokio::time::advance(slept).await;
        let Some(Disturbance::Woke { after }) = within_an_hour(&mut monitor).await else {
            panic!("sleep was not noticed");
        };
        // Up to one tick of it was still to be waited for.
        assert!(after <= slept && after + MonitorConfig::default().tick >= slept, "{after:?}");
        assert_eq!(within_an_hour(&mut monitor).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_monitor_ends_its_task() {
    let machine = Machine::default();
    drop(machine.monitor());
    tokio::time::sleep(HOUR).await;
    assert_eq!(machine.times_listed(), 1);
    assert_eq!(Arc::strong_count(&machine.0), 1);
}

#[test]
fn no_interval_is_too_short() {
    let zero = MonitorConfig {
        tick: Duration::ZERO,
        sleep_threshold: Duration::ZERO,
        poll: Duration::ZERO,
        apart: Duration::ZERO,
    };
    let bounded = zero.bounded();
    assert!(bounded.tick >= SHORTEST && bounded.poll >= SHORTEST, "{bounded:?}");
    assert_eq!(MonitorConfig::default().bounded(), MonitorConfig::default());
}

#[test]
fn disturbances_are_clauses() {
    let woke = Disturbance::Woke { after: Duration::from_millis(63_250) };
    for (disturbance, clause) in [
        (Disturbance::Addresses, "the addresses of this machine changed"),
        (Disturbance::Routes, "the routes of this machine changed"),
        (woke, "this machine, or only this program, stood still for 63.2 s"),
    ] {
        assert_eq!(disturbance.to_string(), clause);
    }
}

#[test]
fn addresses_that_the_machine_has() {
    assert!(has_address(Ipv4Addr::LOCALHOST.into()));
    // Set aside for documentation, so nobody has it.
    assert!(!has_address(Ipv4Addr::new(192, 0, 2, 1).into()));
    // Linux does not bind an IPv6 link-local address without its scope, which is no sign that it is gone.
    #[cfg(target_os = "linux")]
    assert!(has_address("fe80::1".parse().unwrap()));
}
