//! The lab does what its scenarios rely on.

use dilated_tests::lab::{Direction, Host, Lab};

#[tokio::test(flavor = "multi_thread")]
async fn hosts_reach_each_other_unless_told_otherwise() {
    let Some(lab) = Lab::new(env!("CARGO_BIN_EXE_lab_peer")) else { return };
    let (a, b) = (Host::A.address(1), Host::B.address(1));
    assert!(lab.reaches(Host::A, b).await && lab.reaches(Host::B, a).await);

    for direction in [Direction::From, Direction::To, Direction::Both] {
        lab.blackhole(Host::A, direction);
        assert!(!lab.reaches(Host::B, a).await, "{direction:?}");
        assert!(lab.reaches(Host::B, Host::Relay.address(1)).await, "others are not touched");
        lab.heal();
        assert!(lab.reaches(Host::B, a).await, "{direction:?} ended");
    }

    lab.change_address(Host::A, 1, 2);
    assert!(!lab.reaches(Host::B, a).await);
    assert!(lab.reaches(Host::B, Host::A.address(2)).await);

    lab.unplug(Host::B);
    assert!(!lab.reaches(Host::A, b).await);
    lab.plug(Host::B);
    assert!(lab.reaches(Host::A, b).await);

    // No way out: not even to this machine's own addresses.
    assert!(!lab.reaches(Host::A, std::net::Ipv4Addr::new(192, 0, 2, 1)).await);
}
