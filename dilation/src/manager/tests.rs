//! Every transition of both roles.

use rand::{SeedableRng, rngs::StdRng};

use super::*;
use crate::role::RolePreference;

const PLEASE_LOW: &[u8] = br#"{"type": "please", "side": "0000000000000000", "use-version": "ged"}"#;
const PLEASE_HIGH: &[u8] = br#"{"type": "please", "side": "ffffffffffffffff", "use-version": "ged"}"#;
const RECONNECT: &[u8] = br#"{"type": "reconnect"}"#;
const RECONNECTING: &[u8] = br#"{"type": "reconnecting"}"#;
const HINTS: &[u8] = br#"{"type": "connection-hints", "hints": [
    {"type": "direct-tcp-v1", "priority": 0.0, "hostname": "192.0.2.2", "port": 33129}]}"#;

/// A manager on a virtual clock.
struct Bench {
    manager: Manager,
    now: Instant,
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]
    fn new() -> Bench {
        let manager = Manager::new(HintLimits::default(), ManagerTiming::default());
        Bench { manager, now: Instant::now() }
    }

    fn dilate(&mut self) {
        self.manager.dilate(side(), self.now);
    }

    fn connecting(please: &[u8]) -> Bench {
        let mut bench = Bench::new();
        bench.dilate();
        bench.manager.handle_versions(&["ged".to_owned()], bench.now);
        bench.message(please);
        bench.actions();
        bench
    }

    fn connected(please: &[u8]) -> Bench {
        let mut bench = Bench::connecting(please);
        assert!(bench.manager.handle_selected(bench.now));
        assert_eq!(bench.actions(), []);
        bench
    }

    fn message(&mut self, bytes: &[u8]) {
        self.manager.handle_message(bytes.to_vec(), self.now);
    }

    fn lost_after(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.manager.handle_link_lost(self.now);
    }

    fn elapse_to_timer(&mut self) -> Duration {
        let at = self.manager.poll_timeout().expect("a timer is armed");
        let waited = at - self.now;
        self.now = at;
        self.manager.handle_timeout(at);
        waited
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.manager.poll_action()).collect()
    }
}

fn side() -> DilationSide {
    DilationSide::random(RolePreference::Any, &mut StdRng::seed_from_u64(3))
}

fn send(message: &DilationMessage) -> Action {
    Action::Send(message.encode())
}

fn start(role: Role, generation: u64) -> Action {
    let mut number = Generation::default();
    for _ in 0..generation {
        number = number.next();
    }
    Action::StartConnector(role, number)
}

#[test]
fn please_waits_for_both_dilate_and_versions() {
    let please = || send(&DilationMessage::Please { side: side().as_str().to_owned() });
    let mut bench = Bench::new();
    bench.dilate();
    assert_eq!(bench.actions(), []);
    bench.manager.handle_versions(&["future".to_owned(), "ged".to_owned()], bench.now);
    assert_eq!(bench.actions(), [please()]);

    let mut bench = Bench::new();
    bench.manager.handle_versions(&["ged".to_owned()], bench.now);
    bench.message(PLEASE_LOW);
    bench.message(HINTS);
    assert_eq!(bench.actions(), []);
    bench.dilate();
    let actions = bench.actions();
    assert_eq!(actions[..3], [please(), Action::RoleChosen(Role::Leader), start(Role::Leader, 0)]);
    assert!(matches!(actions[3], Action::UseHints(_)), "early messages are replayed in order");
}

#[test]
fn a_peer_without_our_version_is_a_clear_error() {
    for (theirs, shown) in
        [(vec![], "no dilation at all"), (vec!["other\u{202e}".to_owned()], "\"other\\u{202e}\"")]
    {
        let mut bench = Bench::new();
        bench.dilate();
        bench.manager.handle_versions(&theirs, bench.now);
        let error = DilationError::PeerCannotDilate { theirs: shown.to_owned() };
        assert_eq!(bench.actions(), [Action::Failed(error)]);
    }
}

#[test]
fn our_own_side_coming_back_ends_the_dilation() {
    let mut bench = Bench::new();
    bench.dilate();
    bench.manager.handle_versions(&["ged".to_owned()], bench.now);
    let Some(Action::Send(please)) = bench.manager.poll_action() else { panic!("no please") };
    bench.message(&please);
    assert_eq!(bench.actions(), [Action::Failed(DilationError::Reflection)]);
    bench.message(PLEASE_LOW);
    assert_eq!(bench.actions(), []);
}

#[test]
fn a_flood_before_dilate_is_refused() {
    let mut bench = Bench::new();
    for _ in 0..=MAX_EARLY_MESSAGES {
        bench.message(HINTS);
    }
    assert!(matches!(bench.actions()[..], [Action::Failed(DilationError::Protocol(_))]));
    bench.dilate();
    assert!(
        matches!(bench.actions()[..], [Action::Failed(DilationError::Protocol(_))]),
        "told to a late caller, too"
    );
}

#[test]
fn hints_count_only_while_connecting() {
    let mut bench = Bench::new();
    bench.dilate();
    bench.manager.handle_versions(&["ged".to_owned()], bench.now);
    bench.actions();
    bench.message(HINTS);
    assert_eq!(bench.actions(), [], "Wanting: too early");
    bench.message(PLEASE_LOW);
    bench.actions();
    bench.message(HINTS);
    assert!(matches!(bench.actions()[..], [Action::UseHints(_)]));
    assert!(bench.manager.handle_selected(bench.now));
    bench.message(HINTS);
    assert_eq!(bench.actions(), [], "Connected: too late");
    bench.lost_after(100);
    bench.actions();
    bench.message(HINTS);
    assert_eq!(bench.actions(), [], "Flushing: stale");
}

#[test]
fn local_hints_go_out_only_while_connecting() {
    let mut bench = Bench::connecting(PLEASE_HIGH);
    bench.manager.handle_local_hints(Vec::new());
    assert_eq!(bench.actions(), [send(&DilationMessage::Hints(Vec::new()))]);
    assert!(bench.manager.handle_selected(bench.now));
    bench.manager.handle_local_hints(Vec::new());
    assert_eq!(bench.actions(), []);
}

#[test]
fn a_leader_that_loses_its_link_asks_and_waits_for_the_answer() {
    let mut bench = Bench::connected(PLEASE_LOW);
    bench.lost_after(100);
    assert_eq!(bench.actions(), [send(&DilationMessage::Reconnect)]);
    assert!(!bench.manager.handle_selected(bench.now), "a link of the old generation comes too late");
    bench.message(RECONNECTING);
    assert_eq!(bench.actions(), [start(Role::Leader, 1)]);
    assert!(bench.manager.handle_selected(bench.now));
}

#[test]
fn a_leader_ignores_what_only_a_follower_may_hear() {
    for mut bench in [Bench::connecting(PLEASE_LOW), Bench::connected(PLEASE_LOW)] {
        bench.message(RECONNECT);
        bench.message(RECONNECTING);
        bench.message(PLEASE_LOW);
        assert_eq!(bench.actions(), []);
    }
    let mut bench = Bench::connected(PLEASE_LOW);
    bench.lost_after(100);
    bench.actions();
    bench.message(RECONNECT);
    assert_eq!(bench.actions(), []);
    bench.message(RECONNECTING);
    assert_eq!(bench.actions(), [start(Role::Leader, 1)], "and goes on as if nothing had been");
}

#[test]
fn a_leader_starts_over_when_connecting_takes_too_long_and_waits_longer_each_time() {
    let mut bench = Bench::connecting(PLEASE_LOW);
    let mut waits = Vec::new();
    for generation in 1..=6 {
        waits.push(bench.elapse_to_timer().as_secs());
        assert_eq!(bench.actions(), [Action::StopConnector, send(&DilationMessage::Reconnect)]);
        bench.message(RECONNECTING);
        assert_eq!(bench.actions(), [start(Role::Leader, generation)]);
    }
    assert_eq!(waits, [60, 120, 240, 480, 600, 600]);
    assert!(bench.manager.handle_selected(bench.now));
    assert_eq!(bench.manager.poll_timeout(), None);
}

#[test]
fn links_that_die_young_slow_the_leader_down() {
    let mut bench = Bench::connected(PLEASE_LOW);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        bench.lost_after(0);
        if bench.manager.poll_timeout().is_some() {
            assert_eq!(bench.actions(), []);
            pauses.push(bench.elapse_to_timer().as_millis());
        }
        assert_eq!(bench.actions(), [send(&DilationMessage::Reconnect)]);
        bench.message(RECONNECTING);
        bench.actions();
        assert!(bench.manager.handle_selected(bench.now));
    }
    assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
    bench.lost_after(100);
    assert_eq!(bench.actions(), [send(&DilationMessage::Reconnect)], "one that lived resets the pause");
}

#[test]
fn a_follower_never_asks() {
    let mut bench = Bench::connected(PLEASE_HIGH);
    bench.lost_after(100);
    assert_eq!(bench.actions(), []);
    assert_eq!(bench.manager.poll_timeout(), None);
    bench.message(RECONNECTING);
    bench.message(HINTS);
    assert_eq!(bench.actions(), []);
    bench.message(RECONNECT);
    assert_eq!(bench.actions(), [send(&DilationMessage::Reconnecting), start(Role::Follower, 1)]);
}

#[test]
fn a_follower_obeys_reconnect_while_connected_and_while_connecting() {
    let mut bench = Bench::connected(PLEASE_HIGH);
    bench.message(RECONNECT);
    assert_eq!(
        bench.actions(),
        [Action::AbortLink, send(&DilationMessage::Reconnecting), start(Role::Follower, 1)]
    );
    bench.message(RECONNECT);
    assert_eq!(
        bench.actions(),
        [Action::StopConnector, send(&DilationMessage::Reconnecting), start(Role::Follower, 2)]
    );
    assert_eq!(bench.manager.generation().get(), 2);
}

#[test]
fn stop_ends_every_state_and_silences_it() {
    let mut lonely = Bench::connected(PLEASE_HIGH);
    lonely.lost_after(100);
    let mut flushing = Bench::connected(PLEASE_LOW);
    flushing.lost_after(100);
    let mut pausing = Bench::connected(PLEASE_LOW);
    pausing.manager.short_links = 10;
    pausing.lost_after(0);
    for mut bench in [
        Bench::new(),
        Bench::connecting(PLEASE_LOW),
        Bench::connected(PLEASE_HIGH),
        lonely,
        flushing,
        pausing,
    ] {
        bench.actions();
        let connecting = matches!(bench.manager.state(), State::Connecting { .. });
        bench.manager.stop();
        assert_eq!(bench.actions(), if connecting { vec![Action::StopConnector] } else { vec![] });
        bench.message(PLEASE_LOW);
        bench.message(RECONNECT);
        bench.message(RECONNECTING);
        bench.dilate();
        bench.manager.handle_versions(&["ged".to_owned()], bench.now);
        bench.lost_after(1);
        assert!(!bench.manager.handle_selected(bench.now));
        assert_eq!(bench.actions(), []);
        assert_eq!(bench.manager.poll_timeout(), None);
        assert_eq!(bench.manager.state(), &State::Stopped(None));
    }
}
