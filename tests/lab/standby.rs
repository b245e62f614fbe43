//! A second link beside the first: it takes the other's place without a gap.

use std::time::Duration;

use dilated_tests::lab::{Direction, Host, PeerConfig, clock};

use crate::scenario::{Meeting, Pairing, Plan, STEADY, Scenario, Transfer, say, scenarios_of_dilated1};

/// As much as the machine can, for some seconds.
const LOAD: Transfer = Transfer { from: Host::A, length: 64 << 20, event_at: 4 << 20, hold: 64 << 20 };

fn plan(name: &str, pairing: Pairing) -> Plan {
    Plan { meeting: Meeting::Any, transfer: STEADY, ..Plan::new(name, pairing) }
}

async fn assert_never_lost(scenario: &mut Scenario) {
    scenario.a.assert_never_lost().await;
    scenario.b.assert_never_lost().await;
}

/// Two that could only meet at the relay can reach each other all of a sudden.
async fn relayed_first(plan: Plan) -> Option<Scenario> {
    let lab = plan.lab()?;
    lab.part(Host::A, Host::B);
    let mut scenario = plan.start_in(lab).await;
    assert!(scenario.path().contains("relay"), "met {}", scenario.path());
    Some(scenario)
}

/// Waits until both use another link. Gives the longest time in which nothing came since then, and before.
async fn switched(scenario: &mut Scenario, event: Duration, to_relay: bool) -> Duration {
    for peer in [&mut scenario.a, &mut scenario.b] {
        // The changes before are told, too.
        while peer.connected().await.path.contains("relay") != to_relay {}
    }
    let gap = scenario.longest_gap(event).await;
    assert_never_lost(scenario).await;
    gap
}

/// The direct way opens while a stream runs through the relay.
async fn direct_opens(pairing: Pairing) {
    let Some(mut scenario) = relayed_first(plan("the direct way opens", pairing)).await else { return };
    let start = clock();
    let before = scenario.longest_gap(start).await;
    let event = clock();
    scenario.lab.heal();
    let gap = switched(&mut scenario, event, false).await;
    say(&format!("the direct way opens, {pairing:?}: longest gap {gap:?}, before {before:?}"));
    // The link that was replaced is closed, and its end is no event.
    scenario.relay.take().expect("it runs").kill().await;
    scenario.longest_gap(event).await;
    assert_never_lost(&mut scenario).await;
}

/// The same beside as much as passes.
async fn direct_opens_under_load(pairing: Pairing) {
    let plan = Plan { transfer: LOAD, ..plan("the direct way opens under load", pairing) };
    let Some(mut scenario) = relayed_first(plan).await else { return };
    scenario.lab.heal();
    scenario.complete().await;
    assert!(!scenario.path().contains("relay"), "met {}", scenario.path());
    scenario.close().await;
}

/// A direct and a relayed link.
async fn hedged(plan: Plan) -> Option<Scenario> {
    hedged_by(plan, |config| config.standby = true).await
}

/// The same where those want it that this says.
async fn hedged_by(plan: Plan, adjust: fn(&mut PeerConfig)) -> Option<Scenario> {
    let plan = Plan { adjust, ..plan };
    let lab = plan.lab()?;
    let mut scenario = plan.start_in(lab).await;
    while scenario.path().contains("relay") {
        scenario.a.connected().await;
    }
    for peer in [&mut scenario.a, &mut scenario.b] {
        // A Follower may have had the direct link for a moment before that took the other's place.
        while !peer.standby().await.contains("relay") {}
    }
    Some(scenario)
}

/// It is enough if one side wants it.
async fn one_wants_it(pairing: Pairing, adjust: fn(&mut PeerConfig)) {
    let plan = plan("one side wants a second link", pairing);
    let Some(mut scenario) = hedged_by(plan, adjust).await else { return };
    assert_never_lost(&mut scenario).await;
}

/// The direct way dies without a sign; later it is there again.
async fn direct_dies(pairing: Pairing) {
    let Some(mut scenario) = hedged(plan("the direct link dies beside another", pairing)).await else {
        return;
    };
    let event = clock();
    scenario.lab.part(Host::A, Host::B);
    let gap = switched(&mut scenario, event, true).await;
    say(&format!("the direct link dies beside another, {pairing:?}: silence {gap:?}"));
    let event = clock();
    scenario.lab.heal();
    let gap = switched(&mut scenario, event, false).await;
    say(&format!("it comes back, {pairing:?}: silence {gap:?}"));
    for peer in [&mut scenario.a, &mut scenario.b] {
        peer.standby().await;
    }
    assert_never_lost(&mut scenario).await;
}

/// It dies in one direction or both, or is reset, and nobody can be asked. Another direct one may be there at once.
async fn direct_link_dies(pairing: Pairing, direction: Option<Direction>) {
    let name = format!("the direct link alone dies beside another, {direction:?}");
    let Some(mut scenario) = hedged(plan(&name, pairing)).await else { return };
    scenario.kill_mailbox().await;
    let (event, far) = (clock(), scenario.far());
    match direction {
        Some(direction) => scenario.lab.blackhole_connection(Host::A, far, direction),
        None => scenario.lab.destroy(Host::A, far),
    }
    let gap = scenario.longest_gap(event).await;
    say(&format!("{name}, {pairing:?}: silence {gap:?}"));
    assert_never_lost(&mut scenario).await;
}

/// The direct way dies beside as much as passes. A machine that has enough to do with that may take the other link for
/// dead, too.
async fn direct_dies_under_load(pairing: Pairing) {
    let name = "the direct link dies beside another under load";
    let Some(mut scenario) = hedged(Plan { transfer: LOAD, ..plan(name, pairing) }).await else { return };
    scenario.lab.part(Host::A, Host::B);
    scenario.complete().await;
    assert!(scenario.path().contains("relay"), "met {}", scenario.path());
    scenario.close().await;
}

/// The link that stands by dies, and another takes its place when the relay is back. The stream does not notice.
async fn relay_dies(pairing: Pairing) {
    let Some(mut scenario) = hedged(plan("the relay that stands by dies", pairing)).await else { return };
    let event = clock();
    scenario.relay.take().expect("it runs").kill().await;
    scenario.relay = Some(scenario.lab.relay().await);
    for peer in [&mut scenario.a, &mut scenario.b] {
        peer.standby().await;
    }
    let gap = scenario.longest_gap(event).await;
    say(&format!("the relay that stands by dies, {pairing:?}: silence {gap:?}"));
    assert_never_lost(&mut scenario).await;
    // It is good for something.
    scenario.lab.part(Host::A, Host::B);
    switched(&mut scenario, event, true).await;
}

scenarios_of_dilated1! {
    the_direct_way_opens => super::direct_opens;
    the_direct_way_opens_under_load => super::direct_opens_under_load;
    the_leader_wants_it => |pairing| super::one_wants_it(pairing, |config| config.standby = config.leader);
    the_follower_wants_it => |pairing| super::one_wants_it(pairing, |config| config.standby = !config.leader);
    the_direct_link_dies => super::direct_dies;
    the_direct_link_dies_under_load => super::direct_dies_under_load;
    packets_of_the_direct_link_vanish => |pairing| {
        super::direct_link_dies(pairing, Some(super::Direction::Both))
    };
    data_of_the_direct_link_vanish => |pairing| {
        super::direct_link_dies(pairing, Some(super::Direction::From))
    };
    answers_of_the_direct_link_vanish => |pairing| {
        super::direct_link_dies(pairing, Some(super::Direction::To))
    };
    the_direct_link_is_reset => |pairing| super::direct_link_dies(pairing, None);
    the_relay_dies => super::relay_dies;
}
