//! One of the peers is behind a router, as at home. A is ours.

use dilated_tests::lab::Host;

use crate::scenario::{Pairing, Plan, Scenario, scenarios};

async fn behind_router(plan: Plan) -> Option<Scenario> {
    let mut lab = plan.lab()?;
    lab.nat(Host::A);
    let mut scenario = plan.start_in(lab).await;
    let path = scenario.path();
    assert!(path.starts_with("->"), "only A can have dialled: {path}");
    Some(scenario)
}

/// A peer behind a router reaches one that is not.
async fn meets(pairing: Pairing) {
    let Some(mut scenario) = behind_router(Plan::new("a router", pairing).patient()).await else { return };
    scenario.complete_on_the_first_link().await;
    scenario.close().await;
}

/// The router restarts, and knows nothing of the connections it carried.
async fn restarts(pairing: Pairing) {
    let Some(mut scenario) = behind_router(Plan::new("the router restarts", pairing)).await else { return };
    scenario.lab.forget_connections(Host::A);
    scenario.relinked().await;
    scenario.finish().await;
}

/// The router gets another public address, as providers do at night.
async fn moves(pairing: Pairing) {
    let Some(mut scenario) = behind_router(Plan::new("the router's address changes", pairing)).await else {
        return;
    };
    scenario.lab.change_address(Host::A, 1, 2);
    scenario.relinked().await;
    scenario.finish().await;
}

/// The host loses its default route, until its side has given up the link.
async fn loses_route(pairing: Pairing) {
    let Some(mut scenario) = behind_router(Plan::new("the default route is lost", pairing)).await else {
        return;
    };
    scenario.lab.remove_default_route(Host::A);
    scenario.a.lost().await;
    scenario.lab.add_default_route(Host::A);
    scenario.relinked().await;
    scenario.finish().await;
}

scenarios! {
    peers_meet_through_a_router => super::meets;
    the_router_restarts => super::restarts;
    the_public_address_changes => super::moves;
    the_default_route_is_lost => super::loses_route;
}
