use proptest::prelude::*;

use super::*;

#[expect(clippy::disallowed_methods, reason = "an arbitrary origin of virtual time")]
fn start() -> Instant {
    Instant::now()
}

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn direct(port: u16) -> Hint {
    Hint::Direct(TcpHint::new("192.0.2.1", port).unwrap())
}

fn relay(port: u16, priority: f64) -> RelayHint {
    TcpHint::new("relay.example", port).unwrap().with_priority(priority).into()
}

fn listening(listen: bool) -> RaceConfig {
    RaceConfig { listen, ..RaceConfig::default() }
}

/// Runs virtual time for `seconds` and returns what was dialled and when; nothing ever answers.
fn dials(race: &mut Race, zero: Instant, seconds: f64) -> Vec<(f64, String)> {
    let mut now = zero;
    let mut seen = Vec::new();
    while now <= zero + secs(seconds) {
        while let Some(dial) = race.poll_dial(now) {
            seen.push(((now - zero).as_secs_f64(), dial.path().to_string()));
        }
        match race.poll_timeout() {
            Some(at) if at > now => now = at,
            _ => break,
        }
    }
    seen
}

fn expect(seen: &[(f64, String)], expected: &[(f64, &str)]) {
    let seen: Vec<(f64, &str)> = seen.iter().map(|(at, path)| (*at, path.as_str())).collect();
    assert_eq!(seen, expected);
}

#[test]
fn relays_wait_for_direct_paths_of_the_same_message() {
    let zero = start();
    let mut race = Race::new(listening(true), &[], zero);
    race.handle_hints(&[Hint::Relay(relay(1, 0.0)), direct(1), direct(2)], zero);
    let d = ["->tcp:192.0.2.1:1", "->tcp:192.0.2.1:2"];
    expect(&dials(&mut race, zero, 60.0), &[(0.0, d[0]), (0.0, d[1]), (2.0, "->relay:tcp:relay.example:1")]);
    // In a message of its own, as Python sends it, a relay is dialled at once.
    race.handle_hints(&[Hint::Relay(relay(2, 0.0))], zero);
    expect(&dials(&mut race, zero, 60.0), &[(0.0, "->relay:tcp:relay.example:2")]);
}

#[test]
fn without_a_listener_nothing_waits() {
    let zero = start();
    let mut race = Race::new(listening(false), &[relay(9, 0.0)], zero);
    race.handle_hints(&[Hint::Relay(relay(1, 0.0)), direct(1)], zero);
    let seen = dials(&mut race, zero, 60.0);
    assert!(seen.len() == 3 && seen.iter().all(|(at, _)| *at == 0.0), "{seen:?}");
}

#[test]
fn our_relay_waits_for_direct_hints_and_lower_priorities_for_higher_ones() {
    let zero = start();
    let own = [relay(1, -1.0), relay(2, 5.0), relay(3, 5.0), relay(4, 0.0)];
    let mut race = Race::new(listening(true), &own, zero);
    let seen = dials(&mut race, zero, 60.0);
    let at: Vec<(f64, &str)> = seen.iter().map(|(at, path)| (*at, &path[path.len() - 1..])).collect();
    assert_eq!(at, [(2.0, "2"), (2.0, "3"), (4.0, "4"), (6.0, "1")]);
}

#[test]
fn a_relay_that_both_name_is_dialled_once_and_at_the_earlier_time() {
    let zero = start();
    let mut race = Race::new(listening(true), &[relay(1, 0.0)], zero);
    race.handle_hints(&[Hint::Relay(relay(1, 0.0))], zero + secs(0.5));
    expect(&dials(&mut race, zero + secs(0.5), 60.0), &[(0.0, "->relay:tcp:relay.example:1")]);
}

#[test]
fn tor_hints_are_ignored() {
    let zero = start();
    let mut race = Race::new(listening(true), &[], zero);
    let tor = Hint::Tor(TcpHint::new("abc.onion", 80).unwrap());
    race.handle_hints(&[tor, Hint::Relay(relay(1, 0.0))], zero);
    expect(&dials(&mut race, zero, 60.0), &[(0.0, "->relay:tcp:relay.example:1")]);
}

#[test]
fn what_failed_is_dialled_again_with_growing_waits() {
    let zero = start();
    let mut race = Race::new(listening(true), &[], zero);
    race.handle_hints(&[direct(1)], zero);
    let mut now = zero;
    let (mut waits, mut patience) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        let dial = race.poll_dial(now).unwrap();
        patience.push(dial.patience.as_secs());
        race.handle_connected(dial.id);
        race.handle_failed(dial.id, Retry::Later, now);
        assert_eq!(race.poll_dial(now), None);
        let next = race.poll_timeout().unwrap();
        waits.push((next - now).as_secs_f64());
        now = next;
    }
    assert_eq!(waits[..8], [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]);
    assert_eq!(waits[39], 10.0);
    assert_eq!((&patience[..5], patience[39]), (&[2, 4, 8, 16, 20][..], 20));
    // Named again it is dialled sooner, for the peer may have come back; but not at once after a failure.
    let dial = race.poll_dial(now).unwrap();
    race.handle_failed(dial.id, Retry::Later, now);
    race.handle_hints(&[direct(1)], now);
    assert_eq!(race.poll_timeout(), Some(now + secs(0.25)));
    now += secs(3.0);
    let dial = race.poll_dial(now).unwrap();
    race.handle_failed(dial.id, Retry::Never, now);
    race.handle_hints(&[direct(1)], now);
    assert_eq!((race.poll_timeout(), race.poll_dial(now)), (None, None));
}

#[test]
fn a_relay_is_dialled_for_each_token_and_each_is_tried_again_by_itself() {
    let zero = start();
    let config = RaceConfig { relays_ahead: 1, max_relays: 1, ..listening(false) };
    let mut race = Race::new(config, &[relay(1, 0.0)], zero);
    race.handle_hints(&[direct(1), Hint::Relay(relay(2, 0.0)), Hint::Relay(relay(3, 0.0))], zero);
    let mut seen: Vec<Dial> = std::iter::from_fn(|| race.poll_dial(zero)).collect();
    seen.sort_by_key(|dial| (dial.route, dial.endpoint.port(), dial.ahead));
    let ahead: Vec<(Route, u16, u8)> =
        seen.iter().map(|dial| (dial.route, dial.endpoint.port(), dial.ahead)).collect();
    let relays = [(1, 0), (1, 1), (2, 0), (2, 1)].map(|(port, ahead)| (Route::Relay, port, ahead));
    assert_eq!(ahead, [vec![(Route::Direct, 1, 0)], relays.to_vec()].concat(), "the third is over the limit");
    race.handle_connected(seen[1].id);
    race.handle_failed(seen[1].id, Retry::Later, zero);
    let again = race.poll_dial(zero + secs(0.25)).unwrap();
    assert_eq!((again.endpoint.port(), again.ahead), (1, 0));
    assert_eq!(race.poll_dial(zero + secs(60.0)), None);
}

#[test]
fn a_gentle_race_dials_at_once_what_is_named_again() {
    let zero = start();
    let config = RaceConfig { retry_first: secs(10.0), retry_max: secs(300.0), ..listening(true) };
    let mut race = Race::new(config, &[], zero);
    race.handle_hints(&[direct(1)], zero);
    let (mut now, mut waits) = (zero, Vec::new());
    for _ in 0..7 {
        let dial = race.poll_dial(now).unwrap();
        race.handle_failed(dial.id, Retry::Later, now);
        let next = race.poll_timeout().unwrap();
        waits.push((next - now).as_secs());
        now = next;
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
    let dial = race.poll_dial(now).unwrap();
    race.handle_failed(dial.id, Retry::Later, now);
    race.handle_hints(&[direct(1)], now);
    assert_eq!(race.poll_timeout(), Some(now + secs(0.25)));
}

proptest! {
    /// Whatever hints come and whatever happens to the dials: limits hold, no endpoint is dialled twice at once,
    /// and there is always a next step while something waits.
    #[test]
    fn limits_hold(
        steps in prop::collection::vec((0u16..80, any::<bool>(), 0u8..5, -3i8..4), 1..200), listen in any::<bool>()
    ) {
        let config = RaceConfig { max_direct: 5, max_relays: 3, max_concurrent: 4, ..listening(listen) };
        let mut now = start();
        let mut race = Race::new(config, &[relay(1000, 0.0)], now);
        let mut open: Vec<Dial> = Vec::new();
        for (number, is_relay, action, priority) in steps {
            match action {
                0 if is_relay => {
                    let hint = relay(number + 1, f64::from(priority));
                    race.handle_hints(&[Hint::Relay(hint)], now);
                }
                0 | 1 => race.handle_hints(&[direct(number + 1)], now),
                2 if !open.is_empty() => {
                    let dial = open.swap_remove(usize::from(number) % open.len());
                    race.handle_failed(dial.id, if is_relay { Retry::Later } else { Retry::Never }, now);
                }
                3 if !open.is_empty() => race.handle_connected(open[usize::from(number) % open.len()].id),
                _ => now += Duration::from_millis(u64::from(number) * 50),
            }
            while let Some(dial) = race.poll_dial(now) {
                prop_assert!(open.iter().all(|other| other.id != dial.id));
                open.push(dial);
            }
            let dialing = race.targets.iter().filter(|t| matches!(t.state, State::Dialing { .. })).count();
            let peers = |route| {
                race.targets.iter().filter(|t| t.route == route && t.origin == Origin::Peer).count()
            };
            prop_assert!(dialing <= 4 && peers(Route::Direct) <= 5 && peers(Route::Relay) <= 3);
            let waiting = race.targets.iter().any(|t| matches!(t.state, State::Waiting { .. }));
            prop_assert_eq!(race.poll_timeout().is_some(), waiting && dialing < 4);
            prop_assert!(race.poll_timeout().is_none_or(|at| at > now));
        }
    }
}
