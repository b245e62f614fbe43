//! The lab does what its scenarios rely on.

use std::net::Ipv4Addr;
use std::time::Duration;

use dilated_tests::lab::{BEHIND, Direction, Host, Lab, WireConfig};

fn lab() -> Option<Lab> {
    Lab::new(env!("CARGO_BIN_EXE_lab_peer"))
}

const A: Ipv4Addr = Host::A.address(1);
const B: Ipv4Addr = Host::B.address(1);
const RELAY: Ipv4Addr = Host::Relay.address(1);

#[tokio::test(flavor = "multi_thread")]
async fn hosts_reach_each_other_unless_told_otherwise() {
    let Some(lab) = lab() else { return };
    assert!(lab.reaches(Host::A, B).await && lab.reaches(Host::B, A).await);

    for direction in [Direction::From, Direction::To, Direction::Both] {
        lab.blackhole(Host::A, direction);
        assert!(!lab.reaches(Host::B, A).await, "{direction:?}");
        assert!(lab.reaches(Host::B, RELAY).await, "others are not touched");
        assert!(lab.dropped() > 0, "{direction:?}");
        lab.heal();
        assert!(lab.reaches(Host::B, A).await, "{direction:?} ended");
    }

    lab.part(Host::A, Host::B);
    assert!(!lab.reaches(Host::A, B).await && !lab.reaches(Host::B, A).await);
    assert!(lab.reaches(Host::A, RELAY).await && lab.reaches(Host::B, RELAY).await);
    lab.heal();

    lab.change_address(Host::A, 1, 2);
    assert!(!lab.reaches(Host::B, A).await);
    assert!(lab.reaches(Host::B, Host::A.address(2)).await);

    lab.unplug(Host::B);
    assert!(!lab.reaches(Host::A, B).await);
    lab.plug(Host::B);
    assert!(lab.reaches(Host::A, B).await);

    // No way out: not even to this machine's own addresses.
    assert!(!lab.reaches(Host::A, Ipv4Addr::new(192, 0, 2, 1)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exceeds_a_rate_is_lost() {
    let Some(lab) = lab() else { return };
    let count = 200;
    assert_eq!(lab.probe(Host::A, B, count).await.reached, count);
    lab.limit_rate(Host::A, 1);
    let reached = lab.probe(Host::A, B, count).await.reached;
    assert!(0 < reached && reached < count, "{reached} of {count}");
    assert!(lab.dropped() > 0);
    assert_eq!(lab.probe(Host::B, RELAY, count).await.reached, count, "others are not touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_lets_out_and_not_in() {
    let Some(mut lab) = lab() else { return };
    lab.nat(Host::A);
    let check = async |lab: &Lab, public: Ipv4Addr| {
        assert!(lab.reaches(Host::A, B).await);
        assert!(!lab.reaches(Host::B, BEHIND).await && !lab.reaches(Host::B, public).await);
    };
    check(&lab, A).await;
    lab.forget_connections(Host::A);
    check(&lab, A).await;
    lab.change_address(Host::A, 1, 2);
    check(&lab, Host::A.address(2)).await;
    // It has only the address that the router gives it now.
    lab.blackhole(Host::A, Direction::To);
    assert!(!lab.reaches(Host::A, B).await);
    lab.heal();
    lab.remove_default_route(Host::A);
    assert!(!lab.reaches(Host::A, B).await);
    lab.add_default_route(Host::A);
    check(&lab, Host::A.address(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wire_carries_delays_and_loses() {
    let Some(lab) = lab() else { return };
    let delay = Duration::from_millis(100);
    let wire = lab.wire(Host::A, &WireConfig { delay, ..WireConfig::default() }).await;
    for (from, to) in [(Host::A, B), (Host::B, A)] {
        let probed = lab.probe(from, to, 1).await;
        assert_eq!(probed.reached, 1);
        assert!(probed.time >= 2 * delay, "there and back in {:?}", probed.time);
    }
    lab.blackhole(Host::A, Direction::From);
    assert!(!lab.reaches(Host::B, A).await, "it is a cable like any other");
    lab.heal();
    lab.change_address(Host::A, 1, 2);
    assert!(lab.reaches(Host::B, Host::A.address(2)).await);
    lab.unplug(Host::A);
    assert!(!lab.reaches(Host::B, Host::A.address(2)).await);
    lab.plug(Host::A);
    assert!(lab.reaches(Host::B, Host::A.address(2)).await);
    drop(wire);

    let _wire = lab.wire(Host::B, &WireConfig { loss: 0.2, seed: 1, ..WireConfig::default() }).await;
    // Some reach it even so; from then on the hosts know each other's hardware.
    let mut tries = 0;
    while !lab.reaches(Host::Relay, B).await {
        tries += 1;
        assert!(tries < 30, "nothing passes");
    }
    let dropped_by_chance = 200 - lab.probe(Host::Relay, B, 200).await.reached;
    assert!(0 < dropped_by_chance && dropped_by_chance < 200, "{dropped_by_chance} of 200");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_lab() {
    let Some(mut lab) = lab() else { return };
    lab.nat(Host::A);
    let _wire = lab.wire(Host::B, &WireConfig::default()).await;
    let names = lab.namespaces();
    assert_eq!(names.len(), 6, "internet, hosts and router: {names:?}");
    let exists = |name: &String| std::path::Path::new("/run/netns").join(name).exists();
    assert!(names.iter().all(exists));
    drop(lab);
    assert!(!names.iter().any(exists));
}
