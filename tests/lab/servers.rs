//! The servers die, and some come back.

use crate::scenario::{Leads, Meeting, Scenario, both_roles};

/// The relay that carries the link dies, and another takes its place.
async fn relay_restarts(leads: Leads) {
    let Some(mut scenario) = Scenario::new("the relay dies and comes back", leads, Meeting::Relay).await
    else {
        return;
    };
    scenario.relay.take().expect("it runs").kill().await;
    scenario.relay = Some(scenario.lab.relay().await);
    scenario.relinked().await;
    scenario.finish().await;
}

/// The mailbox server dies while the link is up: the transfer must not care.
async fn mailbox_dies(leads: Leads) {
    let Some(mut scenario) = Scenario::new("the mailbox dies", leads, Meeting::Direct).await else { return };
    scenario.mailbox.take().expect("it runs").kill().await;
    scenario.a.mailbox(false).await;
    scenario.b.mailbox(false).await;
    assert_eq!(scenario.a.generation().await, 0);
    assert_eq!(scenario.b.generation().await, 0);
    scenario.finish().await;
}

/// The mailbox server dies together with the link, and comes back with what it knew.
async fn mailbox_and_link_die(leads: Leads) {
    let Some(mut scenario) = Scenario::new("mailbox and link are cut", leads, Meeting::Direct).await else {
        return;
    };
    scenario.mailbox.take().expect("it runs").kill().await;
    scenario.reset_link();
    scenario.a.mailbox(false).await;
    scenario.b.mailbox(false).await;
    scenario.mailbox = Some(scenario.lab.mailbox().await);
    scenario.relinked().await;
    scenario.finish().await;
}

both_roles! {
    the_relay_dies_and_comes_back => relay_restarts;
    the_mailbox_dies_while_the_link_is_up => mailbox_dies;
    mailbox_and_link_are_cut_together => mailbox_and_link_die;
}
