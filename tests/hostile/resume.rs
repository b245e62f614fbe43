//! Activations that lie, and floods of them.

use dilated_subchannel::{
    frame::{Frame, Received, Violation},
    id::SubchannelId,
};
use dilated_transit::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    credit::open,
    world::{World, soon},
};

/// The greatest number of an activation.
const LAST_EPOCH: u64 = (1 << 62) - 1;

fn resume(epoch: u64, more: bool, entries: Vec<Received>) -> Frame {
    Frame::Resume { epoch, more, entries }
}

fn entry(id: u32) -> Received {
    Received { id: SubchannelId(id), received: 0, limit: 1 << 30 }
}

fn encoded(frames: impl IntoIterator<Item = Frame>) -> Vec<u8> {
    let mut out = Vec::new();
    frames.into_iter().for_each(|frame| frame.encode(&mut out));
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_with_subchannels_that_were_never_opened() {
    // One of the victim's: it would have to send what it never had.
    let (world, mut wire) = World::linked(Role::Leader).await;
    wire.send(&[resume(2, false, vec![entry(2)])]).await.expect("the victim listens");
    world.refused(wire, Violation::STATE, "never opened").await;
    // Of the peer's own the OPEN may follow.
    let (world, mut wire) = World::linked(Role::Leader).await;
    wire.send(&[resume(2, false, vec![entry(1), entry(u32::MAX)])]).await.expect("the victim listens");
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_never_ends() {
    for entries in [vec![entry(0); 5000], vec![]] {
        let (world, mut wire) = World::linked(Role::Leader).await;
        let part = encoded([resume(2, true, entries.clone())]);
        let sent = wire.flood(&part, 4000).await;
        if entries.is_empty() {
            // It costs nothing, so nobody has to mind.
            assert_eq!(sent, 4000);
            world.unharmed(wire).await;
        } else {
            world.refused(wire, Violation::FRAME, "more subchannels than there can be").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_are_repeated_again_and_again() {
    let (world, mut wire) = World::linked(Role::Leader).await;
    let opens: Vec<Frame> = (0..200).map(|n| open(2 * n + 1, "stream")).collect();
    wire.send(&opens).await.expect("the victim listens");
    // Late ones, of the epoch that is.
    let list = encoded([resume(1, false, vec![entry(1); 5000])]);
    assert_eq!(wire.flood(&list, 500).await, 500);
    world.unharmed(wire).await;
}

/// A record of activations, of a few bytes each, from this epoch on.
fn activations(from: u64, count: u64) -> Vec<u8> {
    encoded((from..from + count).map(|epoch| resume(epoch, false, Vec::new())))
}

/// Each activation is answered with a list of all subchannels. Whoever does not read the answers must not make them pile
/// up.
#[tokio::test(flavor = "multi_thread")]
async fn activations_whose_answers_nobody_reads() {
    let world = World::start(Role::Leader).await;
    let mut wire = world.hostile.deaf_link(0).await;
    wire.send(&[resume(1, false, Vec::new())]).await.expect("the victim listens");
    let opens: Vec<Frame> = (0..250).map(|n| open(2 * n + 1, "stream")).collect();
    wire.send(&opens).await.expect("the victim listens");
    wire.record(&activations(2, 900)).await.expect("the victim listens");
    world.unharmed(wire).await;
}

/// And each costs a look at all subchannels.
#[tokio::test(flavor = "multi_thread")]
async fn activations_without_end() {
    let (world, mut wire) = World::linked(Role::Leader).await;
    let opens: Vec<Frame> = (0..250).map(|n| open(2 * n + 1, "stream")).collect();
    wire.send(&opens).await.expect("the victim listens");
    for n in 0..20 {
        if wire.record(&activations(2 + 3000 * n, 3000)).await.is_err() {
            break;
        }
    }
    world.refused(wire, Violation::RATE, "activates links faster than allowed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_epoch() {
    // With a Leader that jumps there: the victim follows, and goes on.
    let (mut world, mut wire) = World::linked(Role::Leader).await;
    wire.activate(LAST_EPOCH).await;
    wire.send(&[open(1, "stream")]).await.expect("the victim listens");
    let mut subchannel = soon("an incoming one", world.server.accept()).await.expect("listening");
    subchannel.write_all(b"still here").await.expect("written");
    wire.hear("DATA", |frame| matches!(frame, Frame::Data { .. }).then_some(())).await;
    world.unharmed(wire).await;

    // With a Follower: the victim itself has to activate the next link, and cannot count on.
    let (world, mut wire) = World::linked(Role::Follower).await;
    wire.activate(LAST_EPOCH).await;
    drop(wire);
    let wire = world.hostile.link(1).await;
    let epoch = wire
        .hear("the victim's RESUME", |frame| match frame {
            Frame::Resume { epoch, .. } => Some(*epoch),
            _ => None,
        })
        .await;
    assert_eq!(epoch, LAST_EPOCH, "no other number can be said");
    world.unharmed(wire).await;
}

/// A Follower that has received something, says at the next link that it has nothing, and gets it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_has_less_than_was_received() {
    let (world, mut wire) = World::linked(Role::Follower).await;
    let mut subchannel = soon("an open", world.client.connect()).await.expect("open");
    subchannel.write_all(&[7; 1000]).await.expect("written");
    let first = |frame: &Frame| match frame {
        Frame::Data { offset, data, .. } => Some((*offset, data.len())),
        _ => None,
    };
    assert_eq!(wire.hear("DATA", first).await, (0, 1000));
    wire.send(&[Frame::Credit(entry(1))]).await.expect("the victim listens");
    wire.ping().await;
    drop(wire);
    let mut wire = world.hostile.link(1).await;
    let epoch = wire
        .hear("the victim's RESUME", |frame| match frame {
            Frame::Resume { epoch, .. } => Some(*epoch),
            Frame::Data { .. } | Frame::Open { .. } => panic!("RESUME is the first"),
            _ => None,
        })
        .await;
    assert_eq!(epoch, 2);
    wire.send(&[resume(epoch, false, vec![entry(1)])]).await.expect("the victim listens");
    assert_eq!(wire.hear("DATA", first).await, (0, 1000));
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_claims_all_was_finished() {
    // The hostile side has not answered, or has not acknowledged, what its empty list does not have.
    let (mut world, mut wire) = World::linked(Role::Leader).await;
    wire.send(&[open(1, "stream")]).await.expect("the victim listens");
    let mut subchannel = soon("an incoming one", world.server.accept()).await.expect("listening");
    subchannel.write_all(&[7; 1000]).await.expect("written");
    for epoch in 2..50 {
        wire.activate(epoch).await;
    }
    // Nobody believes that the peer has what it never acknowledged on a subchannel that is open.
    let data = wire.hear("DATA", |frame| match frame {
        Frame::Data { offset, data, .. } => Some((*offset, data.len())),
        _ => None,
    });
    assert_eq!(data.await, (0, 1000));
    let mut buffer = [0; 1];
    let waits =
        tokio::time::timeout(std::time::Duration::from_millis(50), subchannel.read(&mut buffer)).await;
    assert!(waits.is_err(), "the peer has not ended it: {waits:?}");
    world.unharmed(wire).await;
}
