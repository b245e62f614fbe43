//! Long, slow and lossy ways.

use std::time::Duration;

use dilated_tests::lab::{Host, Implementation, PeerConfig, WireConfig};
use dilated_tests::python::DEFAULT_PING_INTERVAL;

use crate::scenario::{Meeting, Pairing, Plan, Scenario, Transfer, scenarios};

const KIB: u64 = 1024;

/// A transfer that a slow way can carry in a test.
fn plan(name: &str, pairing: Pairing, length: u64) -> Plan {
    let transfer = Transfer { from: Host::A, length, event_at: length / 8, hold: length / 2 };
    Plan { transfer, ..Plan::new(name, pairing) }
}

/// The short interval of the other scenarios would have a Python Leader take slowness for death.
fn patient(config: &mut PeerConfig) {
    if config.implementation == Implementation::Python {
        config.ping_interval = DEFAULT_PING_INTERVAL;
    }
}

/// Round trips of 100 ms, one packet of fifty lost, and then another address.
async fn moves_far_away(pairing: Pairing) {
    let plan = plan("the address of A changes, 100 ms away with loss", pairing, 1536 * KIB);
    let Some(lab) = plan.lab() else { return };
    let (delay, jitter) = (Duration::from_millis(45), Duration::from_millis(10));
    let config = WireConfig { delay, jitter, loss: 0.02, ..WireConfig::default() };
    let _wire = lab.wire(Host::A, &config).await;
    let mut scenario = plan.start_in(lab).await;
    scenario.lab.change_address(Host::A, 1, 2);
    scenario.relinked().await;
    scenario.finish().await;
}

/// A slow wire with a deep buffer, which the transfer fills: an answer takes seconds, and the link lives.
async fn saturated(pairing: Pairing) {
    let plan = Plan { adjust: patient, ..plan("a saturated wire", pairing, 6 * 1024 * KIB) };
    let Some(lab) = plan.lab() else { return };
    let config = WireConfig { rate: Some(500 * 1024), queue: 4 * 1024 * 1024, ..WireConfig::default() };
    let _wire = lab.wire(Host::A, &config).await;
    let mut scenario = plan.start_in(lab).await;
    scenario.complete_on_the_first_link().await;
    scenario.close().await;
}

/// A relay that sends no faster than 200 KiB/s, and drops what exceeds it.
async fn slow_relay(pairing: Pairing) {
    let plan = plan("a slow relay", pairing, 2 * 1024 * KIB);
    let plan = Plan { meeting: Meeting::Relay, adjust: patient, ..plan };
    let Some(lab) = plan.lab() else { return };
    lab.limit_rate(Host::Relay, 200);
    let mut scenario = plan.start_in(lab).await;
    scenario.complete_on_the_first_link().await;
    assert!(scenario.lab.dropped() > 0, "the limit was reached");
    scenario.close().await;
}

/// What A said on connections that lost the race of their generation arrives two generations later.
async fn late_delivery(pairing: Pairing) {
    let plan = Plan::new("connections of old generations are delivered late", pairing);
    let Some(lab) = plan.lab() else { return };
    let mut wire = lab.wire(Host::A, &WireConfig::default()).await;
    let mut scenario = plan.start_in(lab).await;
    // A does not dial if B is there before A knows that the link is lost.
    let mut late = None;
    for _ in 0..10 {
        wire.hold(Host::B.address(1)).await;
        for _ in 0..2 {
            scenario.reset_link();
            scenario.relinked().await;
        }
        let before = numbers(&mut scenario).await;
        if wire.release().await > 0 {
            late = Some(before);
            break;
        }
    }
    let before = late.expect("A never dialled");
    scenario.complete().await;
    assert_eq!(numbers(&mut scenario).await, before, "the link is still the same");
    scenario.close().await;
}

async fn numbers(scenario: &mut Scenario) -> (u64, u64) {
    (scenario.a.link_number().await, scenario.b.link_number().await)
}

scenarios! {
    an_address_changes_far_away => super::moves_far_away;
    a_saturated_wire_is_no_dead_one => super::saturated;
    a_slow_relay_is_no_dead_one => super::slow_relay;
    connections_of_old_generations_arrive_late => super::late_delivery;
}
