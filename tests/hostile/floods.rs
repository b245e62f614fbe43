//! Frames that cost their sender little. They must not cost the victim much.

use dilated_subchannel::{
    frame::{Frame, MAX_PLAINTEXT, Received},
    id::SubchannelId,
};
use dilated_transit::Role;

use crate::{credit::open, wire::Wire, world::World};

/// Records of a flood.
const RECORDS: usize = 150;

/// A record full of one frame.
fn full_of(frame: &Frame) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..MAX_PLAINTEXT / frame.encoded_len() {
        frame.encode(&mut out);
    }
    out
}

/// The victim takes the flood in and answers afterwards.
async fn flood(frame: &Frame) {
    let (world, mut wire) = World::linked(Role::Leader).await;
    wire.send(&[open(1, "stream")]).await.expect("the victim listens");
    assert_eq!(wire.flood(&full_of(frame), RECORDS).await, RECORDS);
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_padding() {
    flood(&Frame::Padding).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_pongs_that_nobody_asked_for() {
    flood(&Frame::Pong(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_credit() {
    flood(&Frame::Credit(Received { id: SubchannelId(1), received: 0, limit: 1 << 20 })).await;
    flood(&Frame::LinkCredit(1)).await;
    flood(&Frame::MaxSubchannels(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_resets() {
    flood(&Frame::Reset { id: SubchannelId(1), code: 3, final_offset: 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_stops() {
    let (world, mut wire) = World::linked(Role::Leader).await;
    let id = SubchannelId(1);
    let stop = Frame::Stop { id, code: 3 };
    wire.send(&[open(1, "stream"), stop.clone()]).await.expect("the victim listens");
    wire.hear("RESET", |frame| matches!(frame, Frame::Reset { .. }).then_some(())).await;
    // Whoever leaves its answer unanswered would lose the link.
    let acknowledged = Received { id, received: 1, limit: 0 };
    wire.send(&[Frame::Credit(acknowledged)]).await.expect("the victim listens");
    assert_eq!(wire.flood(&full_of(&stop), RECORDS).await, RECORDS);
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_pings_whose_answers_are_not_read() {
    let world = World::start(Role::Leader).await;
    let mut wire = world.hostile.deaf_link(0).await;
    wire.send(&[Frame::Resume { epoch: 1, more: false, entries: Vec::new() }])
        .await
        .expect("the victim listens");
    for n in 0..RECORDS as u64 {
        let pings: Vec<Frame> = (0..7000).map(|m| Frame::Ping((1 << 40) + 7000 * n + m)).collect();
        wire.send(&pings).await.expect("the victim listens");
    }
    // Those that could not be answered in time were forgotten, the latest was not.
    world.unharmed(wire).await;
}

/// A record for each byte: what costs the victim a decryption costs the peer as much.
#[tokio::test(flavor = "multi_thread")]
async fn of_tiny_records() {
    let (world, mut wire) = World::linked(Role::Leader).await;
    assert_eq!(wire.flood(&[0x00], 50_000).await, 50_000);
    Wire::pause().await;
    world.unharmed(wire).await;
}
