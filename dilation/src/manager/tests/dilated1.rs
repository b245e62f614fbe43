//! The transitions of `dilated-1`, with both sides as one machine each.

use super::*;

const LOW: &str = "0000000000000000";
const HIGH: &str = "ffffffffffffffff";

/// A peer of our kind, of this side.
fn own(peer: &str, use_version: &str) -> Vec<u8> {
    let message = serde_json::json!({"type": "please", "side": peer, "use-version": use_version,
        "dilated-1": {"aes": true, "datagram": 7}});
    message.to_string().into_bytes()
}

fn offering(theirs: &[&str]) -> Bench {
    let mut bench = Bench::new();
    bench.dilate();
    let theirs: Vec<String> = theirs.iter().map(|&name| name.to_owned()).collect();
    bench.manager.handle_versions(&theirs, bench.now);
    bench
}

fn searching(role: Role) -> Bench {
    let mut bench = offering(&["dilated-1", "ged"]);
    bench.message(&own(if role == Role::Leader { LOW } else { HIGH }, "dilated-1"));
    bench.actions();
    bench
}

impl Bench {
    fn candidate(&mut self, generation: u64, peer_linked: bool) -> Choice {
        self.manager.handle_candidate(Generation::new(generation), peer_linked, self.now)
    }

    fn generation(&self) -> u64 {
        self.manager.generation().get()
    }

    fn hints(&mut self, generation: u64) {
        let hints =
            DilationMessage::Hints { hints: Vec::new(), generation: Some(Generation::new(generation)) };
        self.message(&hints.encode());
    }
}

fn told(generation: u64) -> Action {
    send(&DilationMessage::Hints { hints: Vec::new(), generation: Some(Generation::new(generation)) })
}

fn used() -> Action {
    Action::UseHints { hints: Vec::new(), first: true }
}

#[test]
fn the_leader_chooses_the_dialect() {
    // Ours leads: what we like best of what both offer.
    for (theirs, chosen) in [(vec!["ged", "dilated-1"], Dialect::Dilated1), (vec!["ged"], Dialect::Ged)] {
        let mut bench = offering(&theirs);
        assert_eq!(bench.actions(), [please(chosen)]);
        bench.message(&own(LOW, "ged"));
        let Action::Agreed(Role::Leader, agreement) = bench.actions()[0].clone() else {
            panic!("not agreed")
        };
        assert_eq!(matches!(agreement, Agreement::Ged), chosen == Dialect::Ged);
    }
    // The peer leads, and likes the other better.
    let mut bench = offering(&["ged", "dilated-1"]);
    bench.message(&own(HIGH, "ged"));
    assert_eq!(
        bench.actions()[1..],
        [Action::Agreed(Role::Follower, Agreement::Ged), start(Role::Follower, 0),]
    );
    let mut bench = offering(&["ged", "dilated-1"]);
    bench.message(&own(HIGH, "dilated-1"));
    let peer = dilated_subchannel::mux::Params { datagram: 7, ..Default::default() };
    let agreement = Agreement::Dilated1 { aes: false, standby: false, peer };
    assert_eq!(bench.actions()[1..], [Action::Agreed(Role::Follower, agreement), start(Role::Follower, 0)]);
}

#[test]
fn a_leader_that_chooses_what_was_not_offered_ends_the_dilation() {
    for chosen in ["dilated-1", "dilated-9"] {
        let mut bench = offering(&["ged"]);
        bench.message(&own(HIGH, chosen));
        assert!(matches!(bench.actions()[1..], [Action::Failed(DilationError::Protocol(_))]), "{chosen}");
    }
}

#[test]
fn either_side_searches_at_once_in_the_next_generation() {
    for role in [Role::Leader, Role::Follower] {
        let mut bench = searching(role);
        assert_eq!(bench.candidate(0, false), Choice::Use);
        bench.manager.handle_heard();
        bench.lost_after(60);
        assert_eq!((bench.actions(), bench.generation()), (vec![start(role, 1)], 1));
        // Nothing of the mailbox is waited for, and what `ged` says there means nothing.
        bench.message(RECONNECT);
        bench.message(RECONNECTING);
        assert_eq!(bench.actions(), []);
        assert_eq!(bench.candidate(1, false), Choice::Use);
    }
}

#[test]
fn a_generation_in_which_nobody_was_heard_is_not_left() {
    let mut bench = searching(Role::Leader);
    bench.candidate(0, false);
    bench.lost_after(1);
    assert_eq!((bench.actions(), bench.generation()), (vec![start(Role::Leader, 0)], 0));
}

#[test]
fn a_link_of_a_generation_that_is_over_is_refused() {
    for role in [Role::Leader, Role::Follower] {
        let mut bench = searching(role);
        bench.candidate(3, false);
        bench.manager.handle_heard();
        assert_eq!(bench.candidate(2, false), Choice::Refuse, "while linked");
        bench.lost_after(60);
        assert_eq!(bench.candidate(3, true), Choice::Refuse, "while searching in 4");
        assert_eq!(bench.candidate(4, false), Choice::Use);
    }
}

#[test]
fn a_later_generation_takes_over_wherever_it_shows() {
    let mut bench = searching(Role::Follower);
    bench.candidate(0, false);
    assert_eq!((bench.candidate(1, false), bench.generation()), (Choice::Use, 1));
    bench.actions();
    // Hints of the generation in which we are change nothing.
    bench.hints(1);
    assert_eq!(bench.actions(), [used()]);
    bench.hints(2);
    assert_eq!(bench.actions(), [Action::AbortLink, start(Role::Follower, 2), used()]);
    bench.hints(5);
    assert_eq!(bench.actions(), [start(Role::Follower, 5), used()], "there was no link to abort");
    bench.hints(4);
    assert_eq!((bench.actions(), bench.generation()), (vec![used()], 5));
}

#[test]
fn another_link_is_needed_only_if_the_peer_may_not_have_the_first() {
    let mut leader = searching(Role::Leader);
    leader.candidate(0, false);
    let bunch = "found in the same moment as the first";
    assert_eq!(leader.candidate(0, false), Choice::Another { needed: false }, "{bunch}");
    leader.now += Duration::from_millis(500);
    assert_eq!(leader.candidate(0, false), Choice::Another { needed: true });
    assert_eq!(leader.candidate(0, true), Choice::Another { needed: false });
    leader.manager.handle_heard();
    assert_eq!(leader.candidate(0, false), Choice::Another { needed: false }, "it was on its way before");
    let mut follower = searching(Role::Follower);
    follower.candidate(0, false);
    assert_eq!(follower.candidate(0, false), Choice::Another { needed: false });
}

#[test]
fn hints_are_told_with_the_generation_and_again_when_nothing_is_found() {
    let mut bench = searching(Role::Follower);
    bench.manager.handle_local_hints(Vec::new());
    assert_eq!(bench.actions(), [told(0)]);
    assert_eq!(bench.elapse_to_timer(), Duration::from_secs(10));
    assert_eq!(bench.actions(), [start(Role::Follower, 0)]);
    assert_eq!(bench.elapse_to_timer(), Duration::from_secs(20));
    bench.actions();
    bench.candidate(7, false);
    assert_eq!(bench.manager.poll_timeout(), None);
    bench.manager.handle_local_hints(Vec::new());
    assert_eq!(bench.actions(), [told(7)]);
}

#[test]
fn links_that_die_young_are_paused_and_the_peer_may_still_come() {
    let mut bench = searching(Role::Follower);
    for generation in 0..3 {
        bench.candidate(generation, false);
        bench.manager.handle_heard();
        bench.lost_after(1);
    }
    assert_eq!(bench.actions(), [start(Role::Follower, 1), start(Role::Follower, 2)]);
    assert_eq!(bench.elapse_to_timer(), Duration::from_millis(250));
    assert_eq!(bench.actions(), [start(Role::Follower, 3)]);
    bench.candidate(3, false);
    bench.manager.handle_heard();
    bench.lost_after(1);
    assert_eq!((bench.actions(), bench.candidate(4, false)), (vec![], Choice::Use));
}

#[test]
fn a_close_is_said_to_our_own_kind_before_it_has_said_please() {
    for (theirs, hears) in [(vec!["ged", "dilated-1"], true), (vec!["ged"], false)] {
        let mut bench = offering(&theirs);
        bench.actions();
        bench.manager.say_closing();
        let said = if hears { vec![send(&DilationMessage::Closing)] } else { Vec::new() };
        assert_eq!(bench.actions(), said);
    }
}

#[test]
fn a_peer_that_closes_is_waited_for_only_while_there_is_a_link() {
    let mut bench = searching(Role::Leader);
    bench.candidate(0, false);
    bench.message(&DilationMessage::Closing.encode());
    assert_eq!(bench.actions(), []);
    bench.lost_after(1);
    assert_eq!(bench.actions(), [Action::Rest, Action::Failed(DilationError::PeerClosed)]);

    // It has lost the link before we have.
    let mut bench = searching(Role::Leader);
    bench.candidate(0, false);
    bench.message(&DilationMessage::Closing.encode());
    bench.hints(1);
    assert_eq!(bench.actions(), [Action::Rest, Action::Failed(DilationError::PeerClosed)]);
}
