//! The servers die, come back, move.

use dilated_tests::lab::Host;

use crate::scenario::{Meeting, Pairing, Plan, scenarios, scenarios_of_ours};

/// The relay that carries the link dies, and another takes its place.
async fn relay_restarts(pairing: Pairing) {
    let plan = Plan { meeting: Meeting::Relay, ..Plan::new("the relay dies and comes back", pairing) };
    let Some(mut scenario) = plan.start().await else { return };
    scenario.relay.take().expect("it runs").kill().await;
    scenario.relay = Some(scenario.lab.relay().await);
    scenario.relinked().await;
    scenario.finish().await;
}

/// The mailbox server dies while the link is up: the transfer must not care.
async fn mailbox_dies(pairing: Pairing) {
    let plan = Plan::new("the mailbox dies", pairing).python_may_send().patient();
    let Some(mut scenario) = plan.start().await else { return };
    scenario.kill_mailbox().await;
    scenario.complete_on_the_first_link().await;
    scenario.close().await;
}

/// The mailbox server restarts with what it knew, and is needed only then.
async fn mailbox_restarts(pairing: Pairing) {
    let Some(mut scenario) = Plan::new("the mailbox restarts", pairing).python_may_send().start().await
    else {
        return;
    };
    scenario.kill_mailbox().await;
    scenario.mailbox = Some(scenario.lab.mailbox(1).await);
    scenario.a.mailbox(true).await;
    scenario.b.mailbox(true).await;
    scenario.reset_link();
    scenario.relinked().await;
    scenario.finish().await;
}

/// The mailbox server dies together with the link, and comes back with what it knew.
async fn mailbox_and_link_die(pairing: Pairing) {
    let Some(mut scenario) = Plan::new("mailbox and link are cut", pairing).python_may_send().start().await
    else {
        return;
    };
    scenario.mailbox.take().expect("it runs").kill().await;
    scenario.reset_link();
    scenario.a.mailbox(false).await;
    scenario.b.mailbox(false).await;
    scenario.mailbox = Some(scenario.lab.mailbox(1).await);
    scenario.relinked().await;
    scenario.finish().await;
}

/// The mailbox server goes to another address, which both sides know, and takes along what it knew.
async fn mailbox_moves(pairing: Pairing) {
    let mut plan = Plan::new("the mailbox moves", pairing);
    plan.adjust = |config| config.mailboxes = vec![1, 2];
    let Some(mut scenario) = plan.start().await else { return };
    scenario.mailbox.take().expect("it runs").kill().await;
    scenario.lab.change_address(Host::Mailbox, 1, 2);
    scenario.mailbox = Some(scenario.lab.mailbox(2).await);
    scenario.reset_link();
    scenario.relinked().await;
    scenario.finish().await;
}

scenarios! {
    the_mailbox_dies_while_the_link_is_up => super::mailbox_dies;
    the_mailbox_restarts_before_it_is_needed => super::mailbox_restarts;
    mailbox_and_link_are_cut_together => super::mailbox_and_link_die;
    // Python asks a relay once for each message with hints: ours are told again.
    the_relay_dies_and_comes_back => super::relay_restarts;
}

scenarios_of_ours! {
    // A Python peer takes one mailbox server only.
    the_mailbox_moves_away => super::mailbox_moves;
}
