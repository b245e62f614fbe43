//! Peers sleep.

use std::time::Duration;

use dilated_tests::lab::{Host, LabPeer};

use crate::scenario::{Pairing, Plan, scenarios};

/// Processes stand still for longer than the timers of the link and of the search, of which the longest is 5 s here. The
/// mailbox connection, which is doubted after 60 s of silence, outlives it.
async fn sleep_of(pairing: Pairing, hosts: &[Host]) {
    let plan = Plan::new(&format!("{hosts:?} sleep for 7 s"), pairing);
    let Some(scenario) = plan.start().await else { return };
    let peers = |host: &Host| if *host == Host::A { &scenario.a } else { &scenario.b };
    hosts.iter().map(peers).for_each(LabPeer::freeze);
    tokio::time::sleep(Duration::from_secs(7)).await;
    hosts.iter().map(peers).for_each(LabPeer::thaw);
    // Whether the old link lives on or a new one is made is theirs to decide.
    scenario.finish().await;
}

async fn both(pairing: Pairing) {
    sleep_of(pairing, &[Host::A, Host::B]).await;
}

async fn ours(pairing: Pairing) {
    sleep_of(pairing, &[Host::A]).await;
}

async fn theirs(pairing: Pairing) {
    sleep_of(pairing, &[Host::B]).await;
}

scenarios! {
    both_peers_sleep => super::both;
    our_peer_sleeps => super::ours;
    their_peer_sleeps => super::theirs;
}
