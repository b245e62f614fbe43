//! Subchannels that should not be: too many, too fast, with wrong numbers.

use bytes::Bytes;
use dilated_subchannel::{
    frame::{Code, Frame, Mark, Received, Violation},
    id::SubchannelId,
};
use dilated_transit::Role;

use crate::{
    credit::open,
    wire::Wire,
    world::{World, soon, until},
};

/// What the victim says to frames.
async fn said_to(role: Role, frames: &[Frame], code: u64, why: &str) {
    let (world, mut wire) = World::linked(role).await;
    wire.send(frames).await.expect("the victim listens");
    world.refused(wire, code, why).await;
}

fn data(id: u32) -> Frame {
    Frame::Data { id: SubchannelId(id), offset: 0, mark: Mark::Stream, fin: false, data: Bytes::from("x") }
}

async fn refusal(wire: &Wire, wanted: u32) -> Code {
    wire.hear("REFUSE", |frame| match frame {
        Frame::Refuse { id, code } if id.0 == wanted => Some(Code(*code)),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_for_subchannels_that_were_never_opened() {
    let credit = |id| Frame::Credit(Received { id: SubchannelId(id), received: 0, limit: 1 });
    let reset = |id| Frame::Reset { id: SubchannelId(id), code: 0, final_offset: 0 };
    let datagram = |id| Frame::Datagram { id: SubchannelId(id), data: Bytes::from("x") };
    // Of the hostile Leader, of the victim, and the greatest there is.
    for id in [1, 2, u32::MAX] {
        for frame in [data(id), credit(id), reset(id), datagram(id)] {
            said_to(Role::Leader, &[frame], Violation::STATE, "never opened").await;
        }
    }
    let stop = Frame::Stop { id: SubchannelId(2), code: 0 };
    said_to(Role::Leader, &[stop], Violation::STATE, "never opened").await;
    let refuse = |id| Frame::Refuse { id: SubchannelId(id), code: 0 };
    said_to(Role::Leader, &[refuse(2)], Violation::STATE, "never opened").await;
    said_to(Role::Leader, &[open(1, "stream"), refuse(1)], Violation::STATE, "has opened itself").await;
    said_to(Role::Leader, &[refuse(0)], Violation::STATE, "has opened itself").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opens_with_wrong_numbers() {
    let not_its = "not its to open";
    said_to(Role::Leader, &[open(0, "stream")], Violation::STATE, not_its).await;
    said_to(Role::Leader, &[open(2, "stream")], Violation::STATE, not_its).await;
    said_to(Role::Follower, &[open(1, "stream")], Violation::STATE, not_its).await;
    let before = "before those with lower numbers";
    said_to(Role::Leader, &[open(3, "stream")], Violation::STATE, before).await;
    said_to(Role::Follower, &[open(2, "stream"), open(6, "stream")], Violation::STATE, before).await;
    said_to(Role::Leader, &[open(u32::MAX, "stream")], Violation::STATE, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_subchannels_than_allowed() {
    let (world, mut wire) = World::linked_with(Role::Leader, |config| config.mux.max_subchannels = 10).await;
    for n in 0..10 {
        wire.send(&[open(2 * n + 1, "stream")]).await.expect("the victim listens");
    }
    wire.ping().await;
    assert_eq!(world.dilated.usage().pending_opens, 10);
    wire.send(&[open(21, "stream")]).await.expect("the victim listens");
    world.refused(wire, Violation::SUBCHANNELS, "more subchannels than it may").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_subchannels_than_wait_to_be_accepted() {
    let (mut world, mut wire) = World::linked(Role::Leader).await;
    let opens: Vec<Frame> = (0..300).map(|n| open(2 * n + 1, "stream")).collect();
    wire.send(&opens).await.expect("the victim listens");
    for n in 256..300 {
        assert_eq!(refusal(&wire, 2 * n + 1).await, Code::BUSY);
    }
    assert_eq!(world.dilated.usage().pending_opens, 256);
    // For other names there is room.
    wire.send(&[open(601, "nobody listens")]).await.expect("the victim listens");
    assert_eq!(refusal(&wire, 601).await, Code::UNEXPECTED);
    // As there is again for this one, once some are accepted.
    let accepted = soon("an incoming one", world.server.accept()).await.expect("listening");
    assert_eq!(accepted.id().0, 1);
    wire.send(&[open(603, "stream")]).await.expect("the victim listens");
    wire.hear("CREDIT", |frame| match frame {
        Frame::Credit(credit) if credit.id.0 == 603 => Some(()),
        Frame::Refuse { id, .. } => panic!("{id} was refused"),
        _ => None,
    })
    .await;
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opens_that_are_refused_again_and_again() {
    let (world, mut wire) = World::linked(Role::Leader).await;
    let mut id = 1;
    for _ in 0..100 {
        let opens: Vec<Frame> = (0..600).map(|n| open(id + 2 * n, "nobody listens")).collect();
        id += 1200;
        if wire.send(&opens).await.is_err() {
            break;
        }
    }
    world.refused(wire, Violation::RATE, "faster than allowed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_that_is_repeated_again_and_again() {
    let (world, mut wire) = World::linked(Role::Leader).await;
    // Of a subchannel that lives it is answered, and no more.
    let living = [open(1, "stream"), open(1, "stream"), open(1, "another name")];
    for _ in 0..5000 {
        wire.send(&living).await.expect("the victim listens");
    }
    wire.ping().await;
    assert_eq!(world.dilated.usage().pending_opens, 1);
    // Of one that is gone it is refused.
    wire.send(&[open(3, "nobody listens")]).await.expect("the victim listens");
    assert_eq!(refusal(&wire, 3).await, Code::UNEXPECTED);
    wire.send(&[open(3, "nobody listens")]).await.expect("the victim listens");
    assert_eq!(refusal(&wire, 3).await, Code::GONE);
    let gone: Vec<Frame> = (0..600).map(|_| open(3, "stream")).collect();
    for _ in 0..100 {
        if wire.send(&gone).await.is_err() {
            break;
        }
    }
    world.refused(wire, Violation::RATE, "faster than allowed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subchannels_that_are_opened_and_given_up_before_they_are_accepted() {
    let (world, mut wire) = World::linked(Role::Leader).await;
    let reset = |id| Frame::Reset { id: SubchannelId(id), code: 0, final_offset: 0 };
    let mut id = 1;
    for _ in 0..100 {
        let frames: Vec<Frame> =
            (0..600).flat_map(|n| [open(id + 2 * n, "stream"), reset(id + 2 * n)]).collect();
        id += 1200;
        if wire.send(&frames).await.is_err() {
            break;
        }
    }
    world.refused(wire, Violation::RATE, "faster than allowed").await;
}

/// The same with an application that accepts, so that nothing ever waits: it is its own to bound.
#[tokio::test(flavor = "multi_thread")]
async fn subchannels_that_are_opened_and_given_up_while_the_application_accepts() {
    let (mut world, mut wire) =
        World::linked_with(Role::Leader, |config| config.mux.max_subchannels = 100).await;
    let wanted = 2000u32;
    let (mut opened, mut allowed) = (0, 100);
    while opened < wanted {
        if u64::from(opened) == allowed {
            allowed = wire
                .hear("MAX_SUBCHANNELS", |frame| match frame {
                    Frame::MaxSubchannels(count) if *count > allowed => Some(*count),
                    _ => None,
                })
                .await;
        }
        let id = SubchannelId(2 * opened + 1);
        let reset = Frame::Reset { id, code: 0, final_offset: 0 };
        wire.send(&[open(id.0, "stream"), reset]).await.expect("the victim listens");
        opened += 1;
        let accepted = soon("an incoming one", world.server.accept()).await.expect("listening");
        assert_eq!(accepted.id(), id);
        drop(accepted);
        // That the victim has ended it, too, has to be acknowledged, or it lives on.
        let credit = Received { id, received: 1, limit: 0 };
        wire.hear("the other end", |frame| {
            let ended = matches!(frame, Frame::Data { id: ended, fin: true, .. } if *ended == id);
            ended.then_some(())
        })
        .await;
        wire.send(&[Frame::Credit(credit)]).await.expect("the victim listens");
    }
    until("no subchannel", || world.dilated.usage().subchannels == 0).await;
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_for_subchannels_that_are_gone_are_ignored() {
    let (world, mut wire) = World::linked(Role::Leader).await;
    wire.send(&[open(1, "nobody listens")]).await.expect("the victim listens");
    assert_eq!(refusal(&wire, 1).await, Code::UNEXPECTED);
    let id = SubchannelId(1);
    let late = [
        data(1),
        Frame::Data { id, offset: 1 << 50, mark: Mark::End, fin: true, data: Bytes::from(vec![0; 60_000]) },
        Frame::Reset { id, code: 1, final_offset: 7 },
        Frame::Stop { id, code: 1 },
        Frame::Credit(Received { id, received: 1 << 60, limit: 0 }),
        Frame::Datagram { id, data: Bytes::from("x") },
    ];
    for _ in 0..200 {
        wire.send(&late).await.expect("the victim listens");
    }
    world.unharmed(wire).await;
}
