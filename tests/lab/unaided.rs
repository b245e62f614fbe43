//! The mailbox server is gone for good, and links are lost all the same: as long as one side can be reached where it was,
//! or a relay answers, the two find each other.

use std::time::Duration;

use dilated_tests::lab::{Direction, Host, LabPeer};
use tokio::time::sleep;

use crate::scenario::{Meeting, Pairing, Plan, Scenario, scenarios_of_dilated1};

/// A transfer that runs, and nobody to ask.
async fn unaided(name: &str, pairing: Pairing, meeting: Meeting) -> Option<Scenario> {
    let plan = Plan { meeting, ..Plan::new(&format!("{name}, without the mailbox"), pairing) };
    let mut scenario = plan.start().await?;
    scenario.kill_mailbox().await;
    Some(scenario)
}

/// A host gets another address. The other one is where it was.
async fn moves(pairing: Pairing, host: Host) {
    let name = format!("the address of {host:?} changes");
    let Some(mut scenario) = unaided(&name, pairing, Meeting::Direct).await else { return };
    scenario.lab.change_address(host, 1, 2);
    scenario.relinked().await;
    scenario.finish().await;
}

/// The server does not even refuse: its packets vanish, and nobody has noticed when a host moves.
async fn moves_in_silence(pairing: Pairing) {
    let plan = Plan::new("packets of the mailbox vanish, and the address of A changes", pairing);
    let Some(mut scenario) = plan.start().await else { return };
    scenario.lab.blackhole(Host::Mailbox, Direction::Both);
    scenario.lab.change_address(Host::A, 1, 2);
    scenario.relinked().await;
    scenario.complete().await;
    scenario.lab.heal();
    scenario.close().await;
}

/// One host moves, again and again, before anything has settled.
async fn moves_ten_times(pairing: Pairing, host: Host) {
    let name = format!("the address of {host:?} changes ten times");
    let Some(mut scenario) = unaided(&name, pairing, Meeting::Direct).await else { return };
    for number in 1..=10 {
        scenario.lab.change_address(host, number, number + 1);
        sleep(Duration::from_millis(u64::from(number) * 97 % 500)).await;
    }
    scenario.relinked().await;
    scenario.finish().await;
}

/// Both move, at once and again, so that neither knows where the other is: there is only the relay.
async fn both_move(pairing: Pairing) {
    let name = "both addresses change five times";
    let Some(mut scenario) = unaided(name, pairing, Meeting::Either).await else { return };
    for number in 1..=5 {
        scenario.lab.change_address(Host::A, number, number + 1);
        scenario.lab.change_address(Host::B, number, number + 1);
        sleep(Duration::from_millis(u64::from(number) * 397 % 1000)).await;
    }
    scenario.relinked().await;
    scenario.finish().await;
}

/// Packets vanish without a sign, for longer than both wait.
async fn blackhole(pairing: Pairing, direction: Direction) {
    let name = format!("a blackhole of 4 s, {direction:?} A");
    let Some(mut scenario) = unaided(&name, pairing, Meeting::Direct).await else { return };
    scenario.lab.blackhole(Host::A, direction);
    sleep(Duration::from_secs(4)).await;
    scenario.lab.heal();
    scenario.relinked().await;
    scenario.finish().await;
}

async fn reset(pairing: Pairing) {
    let Some(mut scenario) = unaided("a TCP reset", pairing, Meeting::Direct).await else { return };
    scenario.reset_link();
    scenario.relinked().await;
    scenario.finish().await;
}

/// The relay that carries the link dies, and another takes its place.
async fn relay_restarts(pairing: Pairing) {
    let name = "the relay dies and comes back";
    let Some(mut scenario) = unaided(name, pairing, Meeting::Relay).await else { return };
    scenario.relay.take().expect("it runs").kill().await;
    sleep(Duration::from_secs(1)).await;
    scenario.relay = Some(scenario.lab.relay().await);
    scenario.relinked().await;
    scenario.finish().await;
}

/// The peers met directly, and then only the relay is left.
async fn direct_is_lost(pairing: Pairing) {
    let name = "the direct way is lost";
    let Some(mut scenario) = unaided(name, pairing, Meeting::Either).await else { return };
    assert!(!scenario.path().contains("relay"), "met {}", scenario.path());
    scenario.lab.part(Host::A, Host::B);
    scenario.relinked().await;
    assert!(scenario.path().contains("relay"), "met {}", scenario.path());
    scenario.finish().await;
}

/// Processes stand still for longer than the timers of the link and of the search.
async fn sleeps(pairing: Pairing, hosts: &[Host]) {
    let name = format!("{hosts:?} sleep for 7 s");
    let Some(scenario) = unaided(&name, pairing, Meeting::Direct).await else { return };
    let peers = |host: &Host| if *host == Host::A { &scenario.a } else { &scenario.b };
    hosts.iter().map(peers).for_each(LabPeer::freeze);
    sleep(Duration::from_secs(7)).await;
    hosts.iter().map(peers).for_each(LabPeer::thaw);
    // Whether the old link lives on or a new one is made is theirs to decide.
    scenario.finish().await;
}

/// One side has lost the link through the relay and looks for the peer in the next generation, while the other one
/// still believes in it.
async fn diverged(pairing: Pairing, believer: Host) {
    let name = format!("{believer:?} believes in a link that is lost");
    let Some(mut scenario) = unaided(&name, pairing, Meeting::Relay).await else { return };
    let relay = scenario.lab.relay_hint();
    let relay = relay.strip_prefix("tcp:").and_then(|far| far.parse().ok()).expect("an address");
    scenario.lab.blackhole_connection(believer, relay, Direction::Both);
    let other = if believer == Host::A { Host::B } else { Host::A };
    scenario.lab.destroy(other, relay);
    let (ahead, behind) = match believer {
        Host::A => (&mut scenario.b, &mut scenario.a),
        _ => (&mut scenario.a, &mut scenario.b),
    };
    ahead.lost().await;
    assert_eq!(behind.link_number().await, 0, "it knows of nothing yet");
    scenario.relinked().await;
    assert!(scenario.path().contains("relay"), "met {}", scenario.path());
    scenario.finish().await;
}

/// Both sides declare the link dead at the same time, again and again.
async fn both_give_up(pairing: Pairing) {
    let name = "both give the link up at once, five times";
    let Some(mut scenario) = unaided(name, pairing, Meeting::Direct).await else { return };
    for _ in 0..5 {
        scenario.a.abandon_link().await;
        scenario.b.abandon_link().await;
        scenario.relinked().await;
    }
    scenario.complete().await;
    let (a, b) = (scenario.a.link_number().await, scenario.b.link_number().await);
    assert_eq!(a, b, "both are in the same generation");
    scenario.close().await;
}

scenarios_of_dilated1! {
    our_address_changes => |pairing| super::moves(pairing, super::Host::A);
    their_address_changes => |pairing| super::moves(pairing, super::Host::B);
    our_address_changes_unnoticed => super::moves_in_silence;
    our_address_changes_ten_times => |pairing| super::moves_ten_times(pairing, super::Host::A);
    their_address_changes_ten_times => |pairing| super::moves_ten_times(pairing, super::Host::B);
    both_addresses_change_beside_a_relay => super::both_move;
    packets_vanish => |pairing| super::blackhole(pairing, super::Direction::Both);
    packets_of_one_side_vanish => |pairing| super::blackhole(pairing, super::Direction::From);
    packets_to_one_side_vanish => |pairing| super::blackhole(pairing, super::Direction::To);
    the_connection_is_reset => super::reset;
    the_relay_dies_and_comes_back => super::relay_restarts;
    the_relay_takes_over => super::direct_is_lost;
    both_peers_sleep => |pairing| super::sleeps(pairing, &[super::Host::A, super::Host::B]);
    our_peer_sleeps => |pairing| super::sleeps(pairing, &[super::Host::A]);
    their_peer_sleeps => |pairing| super::sleeps(pairing, &[super::Host::B]);
    we_believe_in_a_lost_link => |pairing| super::diverged(pairing, super::Host::A);
    they_believe_in_a_lost_link => |pairing| super::diverged(pairing, super::Host::B);
    both_give_up_at_once => super::both_give_up;
}
