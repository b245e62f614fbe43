//! Addresses change, connections are reset, packets vanish.

use std::time::Duration;

use dilated_tests::lab::{Direction, Host};

use crate::scenario::{Leads, Meeting, Scenario, both_roles};

/// The sender gets another address.
async fn sender_moves(leads: Leads) {
    let Some(mut scenario) = Scenario::new("the address of A changes", leads, Meeting::Direct).await else {
        return;
    };
    scenario.lab.change_address(Host::A, 1, 2);
    scenario.relinked().await;
    scenario.finish().await;
}

/// The receiver gets another address.
async fn receiver_moves(leads: Leads) {
    let Some(mut scenario) = Scenario::new("the address of B changes", leads, Meeting::Direct).await else {
        return;
    };
    scenario.lab.change_address(Host::B, 1, 2);
    scenario.relinked().await;
    scenario.finish().await;
}

/// Something on the way resets the connection.
async fn reset(leads: Leads) {
    let Some(mut scenario) = Scenario::new("a TCP reset", leads, Meeting::Direct).await else { return };
    scenario.reset_link();
    scenario.relinked().await;
    scenario.finish().await;
}

/// Packets vanish without a sign, for longer than the pings wait.
async fn blackhole(leads: Leads, direction: Direction) {
    let name = format!("a blackhole of 4 s, {direction:?} A");
    let Some(mut scenario) = Scenario::new(&name, leads, Meeting::Direct).await else { return };
    scenario.lab.blackhole(Host::A, direction);
    tokio::time::sleep(Duration::from_secs(4)).await;
    scenario.lab.heal();
    scenario.relinked().await;
    scenario.finish().await;
}

async fn blackhole_both(leads: Leads) {
    blackhole(leads, Direction::Both).await;
}

async fn blackhole_from(leads: Leads) {
    blackhole(leads, Direction::From).await;
}

async fn blackhole_to(leads: Leads) {
    blackhole(leads, Direction::To).await;
}

both_roles! {
    the_sender_moves => sender_moves;
    the_receiver_moves => receiver_moves;
    the_connection_is_reset => reset;
    packets_vanish => blackhole_both;
    packets_of_the_sender_vanish => blackhole_from;
    packets_to_the_sender_vanish => blackhole_to;
}
