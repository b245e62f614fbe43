//! A process stops, for a while or for good, at each step of a close.
//!
//! Whatever happens to the other side, a close ends with a result, and what was written before it arrives where the
//! peer lives. A closing Python peer forgets what it has not sent yet, so of a Python closer everything is received
//! first.

use std::time::Duration;

use dilated_tests::lab::{Host, Implementation, LabPeer};
use tokio::time::sleep;

use crate::scenario::{Pairing, Plan, Scenario, Transfer, scenarios};

/// Written before the close, at the last moment.
const TAIL: u64 = 256 * 1024;

/// How long after the request of a close something happens: in its first step, or in a later one.
const MOMENTS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(2), Duration::from_millis(50)];

/// Who closes, and sent everything. With two of ours, the pairings are enough of a difference.
fn closers(pairing: Pairing) -> Vec<Host> {
    if pairing.with_python() { vec![Host::A, Host::B] } else { vec![Host::A] }
}

/// A link over which all but the tail has been sent.
async fn almost_sent(name: &str, pairing: Pairing, closer: Host) -> Option<Scenario> {
    let length = 4 * 1024 * 1024;
    let transfer = Transfer { from: closer, length, event_at: length - TAIL, hold: length - TAIL };
    let mut plan = Plan { transfer, ..Plan::new(name, pairing) };
    plan.adjust = |config| config.linger = Duration::from_secs(3);
    plan.start().await
}

/// A link over which everything has been sent and received.
async fn all_received(name: &str, pairing: Pairing, closer: Host) -> Option<Scenario> {
    let mut scenario = almost_sent(name, pairing, closer).await?;
    scenario.complete().await;
    Some(scenario)
}

/// Closer and other.
fn sides(scenario: &mut Scenario) -> (&mut LabPeer, &mut LabPeer) {
    match scenario.transfer.from {
        Host::A => (&mut scenario.a, &mut scenario.b),
        _ => (&mut scenario.b, &mut scenario.a),
    }
}

/// Gives the rest to the link.
async fn send_tail(closer: &mut LabPeer) {
    closer.release().await;
    closer.sent().await;
}

async fn ask_to_close(peer: &mut LabPeer) {
    peer.close().await;
    peer.closing().await;
}

/// The other side sleeps when the last bytes are written and the close begins, and wakes up in time to take them.
async fn other_naps_before(pairing: Pairing) {
    // Python forgets, see above.
    let name = "a nap of the other side before the close";
    let Some(mut scenario) = almost_sent(name, pairing, Host::A).await else { return };
    let length = scenario.transfer.length;
    let (closer, other) = sides(&mut scenario);
    other.freeze();
    send_tail(closer).await;
    ask_to_close(closer).await;
    sleep(Duration::from_secs(1)).await;
    other.thaw();
    assert_eq!(other.received().await, length, "what was written before the close");
    assert_eq!(closer.closed().await, "happy");
    ask_to_close(other).await;
    assert_eq!(other.closed().await, "happy");
}

/// The other side sleeps for longer than a close takes.
async fn other_sleeps_through(pairing: Pairing) {
    for closer in closers(pairing) {
        let name = "the other side sleeps through the close";
        let Some(mut scenario) = almost_sent(name, pairing, closer).await else { return };
        let (closer, other) = sides(&mut scenario);
        other.freeze();
        send_tail(closer).await;
        ask_to_close(closer).await;
        assert_eq!(closer.closed().await, "happy");
        other.thaw();
        ask_to_close(other).await;
        assert_eq!(other.closed().await, "happy");
    }
}

/// The side that closes falls asleep in the middle of it; the other one closes, and is not held up.
async fn closer_sleeps(pairing: Pairing) {
    for closer in closers(pairing) {
        for moment in MOMENTS {
            let name = format!("the closing side falls asleep {moment:?} after it began");
            let Some(mut scenario) = all_received(&name, pairing, closer).await else { return };
            let (closer, other) = sides(&mut scenario);
            ask_to_close(closer).await;
            sleep(moment).await;
            closer.freeze();
            ask_to_close(other).await;
            assert_eq!(other.closed().await, "happy");
            closer.thaw();
            assert_eq!(closer.closed().await, "happy");
        }
    }
}

/// The other side falls asleep when the first has closed, and closes after it woke up.
async fn other_sleeps_after(pairing: Pairing) {
    for closer in closers(pairing) {
        let name = "the other side sleeps after the close";
        let Some(mut scenario) = all_received(name, pairing, closer).await else { return };
        let (closer, other) = sides(&mut scenario);
        ask_to_close(closer).await;
        assert_eq!(closer.closed().await, "happy");
        other.freeze();
        sleep(Duration::from_secs(2)).await;
        other.thaw();
        ask_to_close(other).await;
        assert_eq!(other.closed().await, "happy");
    }
}

/// The other side dies before the close, with bytes on their way to it.
async fn other_dies_before(pairing: Pairing) {
    for closer in closers(pairing) {
        let name = "the other side dies before the close";
        let Some(scenario) = almost_sent(name, pairing, closer).await else { return };
        let (mut closer, other) = match closer {
            Host::A => (scenario.a, scenario.b),
            _ => (scenario.b, scenario.a),
        };
        other.kill().await;
        if closer.implementation() == Implementation::Ours {
            // Python takes nothing while there is no link.
            send_tail(&mut closer).await;
        }
        ask_to_close(&mut closer).await;
        assert_eq!(closer.closed().await, "happy");
    }
}

/// One side dies in the middle of the close that either of them asked for.
async fn one_dies_within(pairing: Pairing, the_closer: bool) {
    for closer in closers(pairing) {
        for moment in MOMENTS {
            let who = if the_closer { "closing" } else { "other" };
            let name = format!("the {who} side dies {moment:?} after the close began");
            let Some(scenario) = all_received(&name, pairing, closer).await else { return };
            let (mut closer, other) = match closer {
                Host::A => (scenario.a, scenario.b),
                _ => (scenario.b, scenario.a),
            };
            ask_to_close(&mut closer).await;
            sleep(moment).await;
            let (dead, mut survivor) = if the_closer { (closer, other) } else { (other, closer) };
            dead.kill().await;
            if the_closer {
                ask_to_close(&mut survivor).await;
            }
            assert_eq!(survivor.closed().await, "happy");
        }
    }
}

scenarios! {
    the_other_side_naps_before => super::other_naps_before;
    the_other_side_sleeps_through => super::other_sleeps_through;
    the_other_side_sleeps_after => super::other_sleeps_after;
    the_other_side_dies_before => super::other_dies_before;
    the_other_side_dies_within => |pairing| super::one_dies_within(pairing, false);
    the_closing_side_sleeps => super::closer_sleeps;
    the_closing_side_dies_within => |pairing| super::one_dies_within(pairing, true);
}
