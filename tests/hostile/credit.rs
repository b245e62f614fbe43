//! More than what was allowed: of bytes, of datagrams, and ends that are not where they were.

use bytes::Bytes;
use dilated::{ReadError, Subchannel};
use dilated_subchannel::{
    frame::{Code, Frame, Mark, Received, Violation},
    id::SubchannelId,
};
use dilated_transit::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    wire::Wire,
    world::{RECEIVE_TOTAL, World, soon, until},
};

/// The first subchannel of a hostile Leader.
const FIRST: SubchannelId = SubchannelId(1);

pub(crate) fn open(id: u32, name: &str) -> Frame {
    Frame::Open { id: SubchannelId(id), limit: 1 << 20, priority: 3, name: name.into() }
}

fn data(id: SubchannelId, offset: u64, length: usize) -> Frame {
    Frame::Data { id, offset, mark: Mark::Stream, fin: false, data: Bytes::from(vec![1; length]) }
}

fn last(id: SubchannelId, offset: u64, length: usize) -> Frame {
    Frame::Data { id, offset, mark: Mark::Stream, fin: true, data: Bytes::from(vec![1; length]) }
}

fn part(id: SubchannelId, offset: u64, length: usize, mark: Mark) -> Frame {
    Frame::Data { id, offset, mark, fin: false, data: Bytes::from(vec![1; length]) }
}

fn reset(id: SubchannelId, final_offset: u64) -> Frame {
    Frame::Reset { id, code: 0, final_offset }
}

/// A hostile Leader with a subchannel that the victim has accepted.
async fn accepted() -> (World, Wire, Subchannel) {
    let (mut world, mut wire) = World::linked(Role::Leader).await;
    let subchannel = accept(&mut world, &mut wire).await;
    (world, wire, subchannel)
}

async fn accept(world: &mut World, wire: &mut Wire) -> Subchannel {
    wire.send(&[open(FIRST.0, "stream")]).await.expect("the victim listens");
    soon("an incoming one", world.server.accept()).await.expect("listening")
}

/// What comes of frames on a subchannel that the victim has accepted, and does not read.
async fn said_to(frames: &[Frame], code: u64, why: &str) {
    let (world, mut wire, unread) = accepted().await;
    wire.send(frames).await.expect("the victim listens");
    world.refused(wire, code, why).await;
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_subchannel_may_carry() {
    // Nobody reads, so the window is never more than 256 KiB.
    let frames: Vec<Frame> = (0..6).map(|n| data(FIRST, n * 60_000, 60_000)).collect();
    said_to(&frames, Violation::FLOW_CONTROL, "more on subchannel 1 than it may").await;
    // All at once by a number.
    said_to(&[reset(FIRST, 1 << 40)], Violation::FLOW_CONTROL, "more on subchannel 1 than it may").await;
    said_to(&[reset(FIRST, (1 << 62) - 1)], Violation::FLOW_CONTROL, "more on subchannel 1 than it may")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_channel_has_a_limit_too() {
    let (world, mut wire) = World::linked(Role::Leader).await;
    let frames: Vec<Frame> = (0..6).map(|n| data(SubchannelId(0), n * 60_000, 60_000)).collect();
    wire.send(&frames).await.expect("the victim listens");
    world.refused(wire, Violation::FLOW_CONTROL, "more on subchannel 0 than it may").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_all_subchannels_may_carry() {
    let (world, mut wire) = World::linked(Role::Leader).await;
    // Each has the credit that it begins with.
    let each = 60_000;
    for n in 0..RECEIVE_TOTAL / each + 1 {
        let id = 2 * u32::try_from(n).expect("a few") + 1;
        wire.send(&[open(id, "stream"), data(SubchannelId(id), 0, each)]).await.expect("the victim listens");
    }
    world.refused(wire, Violation::FLOW_CONTROL, "all subchannels together").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_count_as_if_all_before_them_had_been_sent() {
    let (world, mut wire) = World::linked(Role::Leader).await;
    let each = 60_000;
    let mut credit = RECEIVE_TOTAL as u64;
    let mut id = 1;
    // What is given up counts as consumed, so the credit comes back, and nothing is ever held.
    while id < 512 {
        if credit < each {
            credit = wire
                .hear("LINK_CREDIT", |frame| match frame {
                    Frame::LinkCredit(limit) => Some(*limit),
                    _ => None,
                })
                .await
                .saturating_sub(u64::from(id / 2) * each);
            continue;
        }
        credit -= each;
        wire.send(&[open(id, "stream"), reset(SubchannelId(id), each)]).await.expect("the victim listens");
        id += 2;
    }
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_and_ends_that_move() {
    let why = "left units of a subchannel out";
    said_to(&[data(FIRST, 1, 1)], Violation::OFFSET, why).await;
    said_to(&[data(FIRST, 0, 10), data(FIRST, 11, 10)], Violation::OFFSET, why).await;
    said_to(&[data(FIRST, (1 << 62) - 1, 10)], Violation::OFFSET, why).await;

    let why = "behind the end";
    said_to(&[last(FIRST, 0, 10), data(FIRST, 11, 1)], Violation::OFFSET, why).await;
    said_to(&[last(FIRST, 0, 10), data(FIRST, 0, 20)], Violation::OFFSET, why).await;
    said_to(&[last(FIRST, 0, 10), last(FIRST, 0, 9)], Violation::OFFSET, why).await;
    said_to(&[data(FIRST, 0, 10), last(FIRST, 0, 9)], Violation::OFFSET, why).await;

    let why = "moved the end";
    said_to(&[last(FIRST, 0, 10), reset(FIRST, 11)], Violation::OFFSET, why).await;
    said_to(&[reset(FIRST, 10), reset(FIRST, 9)], Violation::OFFSET, why).await;
    let why = "gave a subchannel up before what it had sent";
    said_to(&[data(FIRST, 0, 10), reset(FIRST, 9)], Violation::OFFSET, why).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_sent_is_acknowledged() {
    let never_sent = |received| Received { id: FIRST, received, limit: 1 << 20 };
    let why = "acknowledged what was never sent";
    for received in [1, (1 << 62) - 1] {
        said_to(&[Frame::Credit(never_sent(received))], Violation::OFFSET, why).await;
        let resume = Frame::Resume { epoch: 2, more: false, entries: vec![never_sent(received)] };
        said_to(&[resume], Violation::OFFSET, why).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_long_is_stopped() {
    let (mut world, mut wire) = World::linked_with(Role::Leader, |config| config.mux.max_data = 40_000).await;
    let mut subchannel = accept(&mut world, &mut wire).await;
    wire.send(&[part(FIRST, 0, 30_000, Mark::More), part(FIRST, 30_000, 10_001, Mark::End)])
        .await
        .expect("the victim listens");
    let code = wire.hear("STOP", |frame| match frame {
        Frame::Stop { id: FIRST, code } => Some(Code(*code)),
        _ => None,
    });
    assert_eq!(code.await, Code::MESSAGE);
    let error = soon("the end", subchannel.recv()).await.expect_err("too long");
    assert!(matches!(error, ReadError::TooLong { limit: 40_000 }), "{error:?}");
    // What still comes is discarded, for as long as the peer likes: it gets no more credit.
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_end_is_stopped() {
    let (mut world, mut wire) =
        World::linked_with(Role::Leader, |config| config.mux.max_data = 100_000).await;
    let mut subchannel = accept(&mut world, &mut wire).await;
    let reading = tokio::spawn(async move { subchannel.recv().await });
    let mut offset = 0;
    let mut limit = 60_000;
    let code = loop {
        while offset + 1000 <= limit {
            wire.send(&[part(FIRST, offset, 1000, Mark::More)]).await.expect("the victim listens");
            offset += 1000;
        }
        let heard = wire
            .hear("CREDIT or STOP", |frame| match frame {
                Frame::Stop { id: FIRST, code } => Some(Err(Code(*code))),
                Frame::Credit(credit) if credit.id == FIRST && credit.limit > limit => Some(Ok(credit.limit)),
                _ => None,
            })
            .await;
        match heard {
            Ok(more) => limit = more,
            Err(code) => break code,
        }
    };
    assert_eq!(code, Code::MESSAGE);
    let error = soon("the end", reading).await.expect("no panic").expect_err("too long");
    assert!(matches!(error, ReadError::TooLong { .. }), "{error:?}");
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_between_the_parts_of_a_message() {
    let why = "did not end it before it went on";
    said_to(&[part(FIRST, 0, 10, Mark::More), data(FIRST, 10, 10)], Violation::FRAME, why).await;
    said_to(&[part(FIRST, 0, 10, Mark::More), last(FIRST, 10, 0)], Violation::FRAME, why).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datagram_that_is_too_long() {
    let datagram = |length| Frame::Datagram { id: FIRST, data: Bytes::from(vec![1; length]) };
    said_to(&[datagram(1200), datagram(1201)], Violation::DATAGRAM, "1201 bytes").await;
    said_to(&[datagram(60_000)], Violation::DATAGRAM, "60000 bytes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_datagrams_that_nobody_reads_the_newest_are_kept() {
    let (world, mut wire, mut subchannel) = accepted().await;
    for n in 0..10_000u32 {
        let data = Bytes::from([&n.to_be_bytes()[..], &[0; 1000]].concat());
        wire.send(&[Frame::Datagram { id: FIRST, data }]).await.expect("the victim listens");
    }
    wire.ping().await;
    for n in 10_000 - 64..10_000u32 {
        let came = soon("a datagram", subchannel.recv_datagram()).await.expect("open").expect("no end");
        assert_eq!(came[..4], n.to_be_bytes());
    }
    world.unharmed(wire).await;
}

/// Each subchannel keeps a few. All together have a limit, too, and those without bytes are no exception.
#[tokio::test(flavor = "multi_thread")]
async fn datagrams_on_many_subchannels() {
    for length in [0, 1200] {
        let (world, mut wire) = World::linked(Role::Leader).await;
        let data = Bytes::from(vec![1; length]);
        for n in 0..250 {
            let id = SubchannelId(2 * n + 1);
            let mut frames = vec![open(id.0, "stream")];
            frames.resize(200, Frame::Datagram { id, data: data.clone() });
            wire.send(&frames).await.expect("the victim listens");
        }
        world.unharmed(wire).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_shrink_take_nothing_back() {
    let (world, mut wire, mut subchannel) = accepted().await;
    let shrunk = |limit| Frame::Credit(Received { id: FIRST, received: 0, limit });
    wire.send(&[shrunk(0), shrunk(5), Frame::LinkCredit(0), Frame::MaxSubchannels(0)])
        .await
        .expect("the victim listens");
    wire.ping().await;
    // OPEN allowed a mebibyte.
    let length = 100_000;
    soon("a write", subchannel.write_all(&vec![3; length])).await.expect("written");
    let mut received = 0;
    while received < length as u64 {
        received = wire
            .hear("DATA", |frame| match frame {
                Frame::Data { id: FIRST, offset, data, .. } => Some(offset + data.len() as u64),
                _ => None,
            })
            .await;
    }
    // The victim may still open subchannels.
    let opened = soon("an open", world.client.connect()).await.expect("open");
    wire.hear("OPEN", |frame| matches!(frame, Frame::Open { .. }).then_some(())).await;
    drop(opened);
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_without_limit_do_not_make_the_victim_send_without_limit() {
    let (world, mut wire, mut subchannel) = accepted().await;
    let most = (1 << 62) - 1;
    wire.send(&[
        Frame::Credit(Received { id: FIRST, received: 0, limit: most }),
        Frame::LinkCredit(most),
        Frame::MaxSubchannels(most),
    ])
    .await
    .expect("the victim listens");
    wire.ping().await;
    let mut sent = 0;
    while sent < 200_000 {
        soon("a write", subchannel.write_all(&[3; 50_000])).await.expect("written");
        sent += 50_000;
    }
    wire.hear("DATA", |frame| matches!(frame, Frame::Data { .. }).then_some(())).await;
    world.unharmed(wire).await;
}

/// A byte at a time, for a reader that never reads: as many as its credit allows, and no more memory than a few bytes each.
#[tokio::test(flavor = "multi_thread")]
async fn tiny_frames_for_readers_that_never_read() {
    for mark in [Mark::Stream, Mark::End] {
        let (world, mut wire) = World::linked(Role::Leader).await;
        let units = if mark == Mark::End { 2 } else { 1 };
        for n in 0..30u32 {
            let id = SubchannelId(2 * n + 1);
            let mut frames = vec![open(id.0, "stream")];
            frames.extend((0..60_000 / units).map(|unit| part(id, unit * units, 1, mark)));
            wire.send(&frames).await.expect("the victim listens");
        }
        until("all of it", || world.dilated.usage().receive_bytes >= 30 * 60_000).await;
        world.unharmed(wire).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_received_before_the_end_can_still_be_read() {
    let (world, mut wire, mut subchannel) = accepted().await;
    wire.send(&[data(FIRST, 0, 1000), data(FIRST, 2000, 1)]).await.expect("the victim listens");
    world.refused(wire, Violation::OFFSET, "left units").await;
    let mut buffer = [0; 1000];
    soon("what came in order", subchannel.read_exact(&mut buffer)).await.expect("it was taken");
    soon("the end", subchannel.read(&mut buffer)).await.expect_err("and then the wormhole was over");
}
