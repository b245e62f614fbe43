//! Addresses change, connections are reset, packets vanish.

use std::time::Duration;

use dilated_tests::lab::{Direction, Host};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::sleep;

use crate::scenario::{Meeting, Pairing, Plan, say, scenarios};

/// Hosts get another address. A is ours; B, theirs.
async fn move_hosts(pairing: Pairing, hosts: &[Host]) {
    let name = format!("the address of {hosts:?} changes");
    let Some(mut scenario) = Plan::new(&name, pairing).start().await else { return };
    for host in hosts {
        scenario.lab.change_address(*host, 1, 2);
    }
    scenario.relinked().await;
    scenario.finish().await;
}

async fn ours_moves(pairing: Pairing) {
    move_hosts(pairing, &[Host::A]).await;
}

async fn theirs_moves(pairing: Pairing) {
    move_hosts(pairing, &[Host::B]).await;
}

async fn both_move(pairing: Pairing) {
    move_hosts(pairing, &[Host::A, Host::B]).await;
}

/// One host or the other moves, again and again, before anything has settled. `DILATED_LAB_SEED` repeats one run of it,
/// as far as the network is concerned.
async fn ten_moves(pairing: Pairing) {
    let wanted = std::env::var("DILATED_LAB_SEED").ok();
    let seed = wanted.map_or_else(rand::random, |seed| seed.parse().expect("DILATED_LAB_SEED is a number"));
    say(&format!("ten changes, {pairing:?}: seed {seed}"));
    let mut rng = StdRng::seed_from_u64(seed);
    let Some(mut scenario) = Plan::new("ten changes in a row", pairing).start().await else { return };
    let mut addresses = [(Host::A, 1), (Host::B, 1)];
    for _ in 0..10 {
        let (host, number) = &mut addresses[usize::from(rng.random_bool(0.5))];
        scenario.lab.change_address(*host, *number, *number + 1);
        *number += 1;
        sleep(Duration::from_millis(rng.random_range(0..1500))).await;
    }
    scenario.relinked().await;
    scenario.finish().await;
}

/// The peers cannot reach each other any more, and while they look for a way one of them moves.
async fn moves_while_connecting(pairing: Pairing) {
    let plan = Plan::new("the address of A changes while connecting", pairing);
    let Some(mut scenario) = plan.start().await else { return };
    scenario.lab.part(Host::A, Host::B);
    scenario.a.lost().await;
    scenario.b.lost().await;
    sleep(Duration::from_millis(500)).await;
    scenario.lab.change_address(Host::A, 1, 2);
    sleep(Duration::from_millis(500)).await;
    scenario.lab.heal();
    scenario.relinked().await;
    scenario.finish().await;
}

/// The peers met directly, and then only the relay is left.
async fn direct_is_lost(pairing: Pairing) {
    let plan = Plan { meeting: Meeting::Either, ..Plan::new("the direct way is lost", pairing) };
    let Some(mut scenario) = plan.start().await else { return };
    assert!(!scenario.path().contains("relay"), "met {}", scenario.path());
    scenario.lab.part(Host::A, Host::B);
    scenario.relinked().await;
    assert!(scenario.path().contains("relay"), "met {}", scenario.path());
    scenario.finish().await;
}

/// Something on the way resets the connection.
async fn reset(pairing: Pairing) {
    let Some(mut scenario) = Plan::new("a TCP reset", pairing).python_may_send().start().await else {
        return;
    };
    scenario.reset_link();
    scenario.relinked().await;
    scenario.finish().await;
}

/// Packets vanish without a sign, for longer than the pings wait.
async fn blackhole(pairing: Pairing, direction: Direction) {
    let name = format!("a blackhole of 4 s, {direction:?} A");
    let Some(mut scenario) = Plan::new(&name, pairing).start().await else { return };
    scenario.lab.blackhole(Host::A, direction);
    sleep(Duration::from_secs(4)).await;
    scenario.lab.heal();
    scenario.relinked().await;
    scenario.finish().await;
}

scenarios! {
    our_address_changes => super::ours_moves;
    their_address_changes => super::theirs_moves;
    both_addresses_change => super::both_move;
    addresses_change_ten_times => super::ten_moves;
    an_address_changes_while_connecting => super::moves_while_connecting;
    the_relay_takes_over => super::direct_is_lost;
    the_connection_is_reset => super::reset;
    packets_vanish => |pairing| super::blackhole(pairing, super::Direction::Both);
    packets_of_one_side_vanish => |pairing| super::blackhole(pairing, super::Direction::From);
    packets_to_one_side_vanish => |pairing| super::blackhole(pairing, super::Direction::To);
}
