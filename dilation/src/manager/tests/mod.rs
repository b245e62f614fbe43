//! Every transition of both roles; this file has those of `ged`.

mod dilated1;

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
        self.manager.dilate(side(), terms(), self.now);
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
        bench.select();
        assert_eq!(bench.actions(), []);
        bench.manager.handle_heard();
        bench
    }

    fn select(&mut self) {
        assert_eq!(self.manager.handle_selected(self.now), Selection::Use);
    }

    fn message(&mut self, bytes: &[u8]) {
        self.manager.handle_message(bytes.to_vec(), self.now);
    }

    fn lost_after(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.manager.handle_link_lost(self.now, false);
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

fn terms() -> Terms {
    Terms { dialects: Dialect::ALL.to_vec(), parameters: Parameters::default() }
}

fn please(use_version: Dialect) -> Action {
    send(&DilationMessage::Please {
        side: side().as_str().to_owned(),
        use_version: Some(use_version),
        parameters: (use_version == Dialect::Dilated1).then(Parameters::default),
        hears_closing: true,
    })
}

fn send(message: &DilationMessage) -> Action {
    Action::Send(message.encode())
}

fn start(role: Role, generation: u64) -> Action {
    Action::Search(role, Generation::new(generation))
}

#[test]
fn please_waits_for_both_dilate_and_versions() {
    let mut bench = Bench::new();
    bench.dilate();
    assert_eq!(bench.actions(), []);
    bench.manager.handle_versions(&["future".to_owned(), "ged".to_owned()], bench.now);
    assert_eq!(bench.actions(), [please(Dialect::Ged)]);

    let mut bench = Bench::new();
    bench.manager.handle_versions(&["ged".to_owned()], bench.now);
    bench.message(PLEASE_LOW);
    bench.message(HINTS);
    assert_eq!(bench.actions(), []);
    bench.dilate();
    let actions = bench.actions();
    assert_eq!(
        actions[..3],
        [please(Dialect::Ged), Action::Agreed(Role::Leader, Agreement::Ged), start(Role::Leader, 0)]
    );
    assert!(matches!(actions[3], Action::UseHints { .. }), "early messages are replayed in order");
}

#[test]
fn a_peer_without_our_version_is_a_clear_error() {
    for (theirs, shown) in
        [(vec![], "no dilation at all"), (vec!["other\u{202e}".to_owned()], "\"other\\u{202e}\"")]
    {
        let mut bench = Bench::new();
        bench.dilate();
        bench.manager.handle_versions(&theirs, bench.now);
        let error =
            DilationError::PeerCannotDilate { theirs: shown.to_owned(), ours: "dilated-1 or ged".to_owned() };
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
fn hints_take_the_place_of_those_of_former_generations() {
    let mut bench = Bench::new();
    bench.dilate();
    bench.manager.handle_versions(&["ged".to_owned()], bench.now);
    bench.actions();
    bench.message(HINTS);
    assert_eq!(bench.actions(), [], "Wanting: too early");
    bench.message(PLEASE_LOW);
    bench.actions();
    // Python sends direct hints and its relay in two messages of one generation.
    for first in [true, false, false] {
        bench.message(HINTS);
        assert!(matches!(bench.actions()[..], [Action::UseHints { first: f, .. }] if f == first));
    }
    bench.select();
    bench.message(HINTS);
    assert!(matches!(bench.actions()[..], [Action::UseHints { first: true, .. }]), "the peer has moved");
    bench.lost_after(100);
    bench.message(RECONNECTING);
    bench.actions();
    bench.message(HINTS);
    assert!(matches!(bench.actions()[..], [Action::UseHints { first: true, .. }]), "a new generation");
}

#[test]
fn local_hints_wait_until_the_peer_would_take_them() {
    let hints = || vec![Hint::Direct(dilated_transit::TcpHint::new("192.0.2.7", 7).unwrap())];
    let sent = || send(&DilationMessage::Hints { hints: hints(), generation: None });
    let mut leader = Bench::connecting(PLEASE_LOW);
    let mut follower = Bench::connecting(PLEASE_HIGH);
    for (bench, answer) in [(&mut leader, RECONNECTING), (&mut follower, RECONNECT)] {
        bench.manager.handle_local_hints(hints());
        assert_eq!(bench.actions(), [sent()]);
        bench.select();
        bench.manager.handle_heard();
        bench.manager.handle_local_hints(hints());
        assert_eq!(bench.actions(), [sent()], "our own kind remembers them");
        bench.lost_after(100);
        bench.actions();
        bench.manager.handle_local_hints(Vec::new());
        bench.manager.handle_local_hints(hints());
        assert_eq!(bench.actions(), [], "Python would drop them");
        bench.message(answer);
        assert_eq!(bench.actions().last(), Some(&sent()), "the latest, after `reconnecting`");
    }
}

#[test]
fn hints_that_an_early_link_did_not_need_are_told_for_the_next() {
    for please in [PLEASE_LOW, PLEASE_HIGH] {
        let mut bench = Bench::connected(please);
        bench.lost_after(100);
        bench.manager.handle_local_hints(Vec::new());
        bench.actions();
        bench.select();
        assert_eq!(bench.actions(), [send(&DilationMessage::Hints { hints: Vec::new(), generation: None })]);
    }
}

#[test]
fn a_leader_that_loses_its_link_asks_and_searches_at_once() {
    let mut bench = Bench::connected(PLEASE_LOW);
    bench.lost_after(100);
    assert_eq!(bench.actions(), [send(&DilationMessage::Reconnect), start(Role::Leader, 1)]);
    bench.message(RECONNECTING);
    assert_eq!(bench.actions(), [], "the search goes on");
    bench.select();
}

#[test]
fn a_leader_links_early_only_with_a_follower_that_had_the_last_link() {
    let mut bench = Bench::connecting(PLEASE_LOW);
    bench.select();
    // Whether the Follower heard of the choice is not known.
    bench.lost_after(100);
    assert_eq!(bench.actions(), [send(&DilationMessage::Reconnect)]);
    assert_eq!(bench.manager.handle_selected(bench.now), Selection::Refuse);
    bench.message(RECONNECTING);
    assert_eq!(bench.actions(), [start(Role::Leader, 1)]);
    bench.select();
    bench.manager.handle_heard();
    bench.lost_after(100);
    assert_eq!(bench.actions(), [send(&DilationMessage::Reconnect), start(Role::Leader, 2)]);
    bench.select();
    // The early link is lost, unheard, before the first `reconnect` was answered: two answers are owed.
    bench.lost_after(100);
    assert_eq!(bench.actions(), [send(&DilationMessage::Reconnect)]);
    bench.message(RECONNECTING);
    assert_eq!(bench.actions(), []);
    assert_eq!(bench.manager.handle_selected(bench.now), Selection::Refuse);
    bench.message(RECONNECTING);
    assert_eq!(bench.actions(), [start(Role::Leader, 3)]);
}

#[test]
fn a_follower_answers_but_does_not_obey_what_an_early_link_has_outdated() {
    let mut bench = Bench::connected(PLEASE_HIGH);
    for _ in 0..2 {
        bench.lost_after(100);
        bench.actions();
        bench.select();
    }
    for _ in 0..2 {
        bench.message(RECONNECT);
        assert_eq!(bench.actions(), [send(&DilationMessage::Reconnecting)]);
    }
    assert_eq!(bench.manager.generation().get(), 2);
    bench.message(RECONNECT);
    assert_eq!(bench.actions()[..2], [Action::AbortLink, send(&DilationMessage::Reconnecting)]);
    assert_eq!(bench.manager.generation().get(), 3);
}

#[test]
fn a_link_that_the_peer_brings_replaces_the_one_in_use() {
    let mut follower = Bench::connected(PLEASE_HIGH);
    assert_eq!(follower.manager.handle_selected(follower.now), Selection::Replace, "the Leader's choice");

    let mut leader = Bench::connecting(PLEASE_LOW);
    leader.select();
    leader.now += Duration::from_secs(3);
    assert_eq!(leader.manager.handle_selected(leader.now), Selection::Refuse, "not heard yet");
    leader.manager.handle_heard();
    assert_eq!(leader.manager.handle_selected(leader.now), Selection::Replace, "the Follower looks for one");
    leader.manager.handle_link_lost(leader.now, true);
    leader.select();
    leader.manager.handle_heard();
    assert_eq!(leader.manager.handle_selected(leader.now), Selection::Refuse, "may have lost the race");
}

#[test]
fn a_leader_without_mailbox_tries_the_addresses_that_it_knows() {
    let mut bench = Bench::connecting(PLEASE_LOW);
    bench.manager.handle_mailbox(false);
    for _ in 0..3 {
        assert_eq!(bench.elapse_to_timer().as_secs(), 10);
        assert_eq!(bench.actions(), [start(Role::Leader, 0)]);
    }
    bench.manager.handle_mailbox(true);
    bench.elapse_to_timer();
    assert_eq!(bench.actions(), [Action::Rest, send(&DilationMessage::Reconnect)]);
}

#[test]
fn a_close_is_said_only_to_a_peer_that_hears_it() {
    let mut bench = Bench::connected(PLEASE_LOW);
    bench.manager.say_closing();
    assert_eq!(bench.actions(), [], "Python would log an error");
    let mut hears: serde_json::Value = serde_json::from_slice(PLEASE_LOW).unwrap();
    hears["hears-closing"] = true.into();
    let mut bench = Bench::connected(hears.to_string().as_bytes());
    bench.manager.say_closing();
    assert_eq!(bench.actions(), [send(&DilationMessage::Closing)]);
}

#[test]
fn a_peer_that_closed_is_not_looked_for() {
    let closed = || vec![Action::Rest, Action::Failed(DilationError::PeerClosed)];
    let mut bench = Bench::connecting(PLEASE_LOW);
    bench.message(&DilationMessage::Closing.encode());
    assert_eq!(bench.actions(), closed());

    let mut bench = Bench::connected(PLEASE_HIGH);
    bench.message(&DilationMessage::Closing.encode());
    assert_eq!(bench.actions(), [], "what it wrote may still come");
    bench.lost_after(1);
    assert_eq!(bench.actions(), [Action::Failed(DilationError::PeerClosed)]);

    // What it said when it lost the link comes late.
    let mut bench = Bench::connected(PLEASE_HIGH);
    bench.message(&DilationMessage::Closing.encode());
    bench.message(RECONNECT);
    assert_eq!(bench.actions(), [Action::Failed(DilationError::PeerClosed)]);
}

#[test]
fn a_follower_that_finds_no_link_tells_its_hints_again() {
    let mut bench = Bench::connecting(PLEASE_HIGH);
    let mut waits = Vec::new();
    for _ in 0..6 {
        waits.push(bench.elapse_to_timer().as_secs());
        assert_eq!(bench.actions(), [start(Role::Follower, 0)], "a new search tells the hints");
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 320]);
}

#[test]
fn a_follower_tells_its_hints_often_again_when_the_leader_tells_its_own() {
    let mut bench = Bench::connecting(PLEASE_HIGH);
    for _ in 0..2 {
        for wait in [10, 20, 40] {
            assert_eq!(bench.elapse_to_timer().as_secs(), wait);
        }
        bench.message(HINTS);
        bench.actions();
    }
    assert_eq!(bench.elapse_to_timer().as_secs(), 10);
    assert_eq!(bench.actions(), [start(Role::Follower, 0)]);
}

#[test]
fn a_change_of_network_gives_the_search_its_full_time_again() {
    let mut bench = Bench::connecting(PLEASE_LOW);
    bench.now += Duration::from_secs(9);
    bench.manager.handle_network_change(bench.now);
    assert_eq!(bench.elapse_to_timer().as_secs(), 10);
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
    assert!(
        matches!(bench.manager.state(), State::Connecting { role: Role::Leader }),
        "as if nothing had been"
    );
}

#[test]
fn a_leader_starts_over_when_connecting_takes_too_long_and_waits_longer_each_time() {
    let mut bench = Bench::connecting(PLEASE_LOW);
    let mut waits = Vec::new();
    for generation in 1..=6 {
        waits.push(bench.elapse_to_timer().as_secs());
        assert_eq!(bench.actions(), [Action::Rest, send(&DilationMessage::Reconnect)]);
        bench.message(RECONNECTING);
        assert_eq!(bench.actions(), [start(Role::Leader, generation)]);
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 320]);
    bench.select();
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
        assert_eq!(bench.actions()[0], send(&DilationMessage::Reconnect));
        bench.message(RECONNECTING);
        bench.actions();
        bench.select();
        bench.manager.handle_heard();
    }
    assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
    bench.lost_after(100);
    assert_eq!(bench.actions()[0], send(&DilationMessage::Reconnect), "one that lived resets the pause");

    let mut bench = Bench::connected(PLEASE_LOW);
    for n in 0..12 {
        bench.manager.handle_link_lost(bench.now, true);
        if n >= 2 {
            assert_eq!(
                bench.elapse_to_timer().as_millis(),
                250,
                "links that bring something do not make it grow"
            );
        }
        bench.message(RECONNECTING);
        bench.actions();
        bench.select();
        bench.manager.handle_heard();
    }
}

#[test]
fn a_follower_never_asks() {
    let mut bench = Bench::connected(PLEASE_HIGH);
    bench.lost_after(100);
    assert_eq!(bench.actions(), [start(Role::Follower, 1)]);
    assert_eq!(bench.manager.poll_timeout(), None);
    bench.message(RECONNECTING);
    assert_eq!(bench.actions(), []);
    bench.message(RECONNECT);
    assert_eq!(bench.actions(), [send(&DilationMessage::Reconnecting)], "the search goes on");
    bench.message(RECONNECT);
    assert_eq!(
        bench.actions(),
        [send(&DilationMessage::Reconnecting), start(Role::Follower, 2)],
        "begins anew"
    );
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
    assert_eq!(bench.actions(), [send(&DilationMessage::Reconnecting), start(Role::Follower, 2)]);
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
        let searching = matches!(
            bench.manager.state(),
            State::Connecting { .. } | State::Flushing { early: true } | State::Lonely
        );
        bench.manager.stop();
        assert_eq!(bench.actions(), if searching { vec![Action::Rest] } else { vec![] });
        bench.message(PLEASE_LOW);
        bench.message(RECONNECT);
        bench.message(RECONNECTING);
        bench.dilate();
        bench.manager.handle_versions(&["ged".to_owned()], bench.now);
        bench.lost_after(1);
        assert_eq!(bench.manager.handle_selected(bench.now), Selection::Refuse);
        assert_eq!(bench.actions(), []);
        assert_eq!(bench.manager.poll_timeout(), None);
        assert_eq!(bench.manager.state(), &State::Stopped(None));
    }
}
