//! Links and generations: too many, too late, too far ahead.

use dilated::LinkStatus;
use dilated_subchannel::frame::{Frame, Violation};
use dilated_transit::{LinkHandshake, Offer, Role};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    credit::open,
    peer::drive,
    wire::Wire,
    world::{World, soon, until},
};

/// The greatest generation that a payload or a message can say.
const LAST: u64 = u64::MAX;

#[tokio::test(flavor = "multi_thread")]
async fn a_link_of_a_generation_far_ahead() {
    for generation in [2, 1 << 40, (1 << 62) - 1, LAST] {
        let (world, mut first) = World::linked(Role::Leader).await;
        let mut wire = world.hostile.link(generation).await;
        wire.activate(2).await;
        world.until_linked(generation).await;
        assert_eq!(first.ended().await, None, "the former link is aborted");
        world.unharmed(wire).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_of_a_generation_far_ahead() {
    for generation in [1, 1 << 40, LAST] {
        let (world, mut first) = World::linked(Role::Leader).await;
        world.hostile.say_hints(&[], generation);
        assert_eq!(first.ended().await, None, "the former link is aborted");
        let mut wire = world.hostile.link(generation).await;
        wire.activate(2).await;
        world.until_linked(generation).await;
        world.unharmed(wire).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_that_rise_with_each_message() {
    let (world, mut first) = World::linked(Role::Leader).await;
    let last = 500;
    for generation in 1..=last {
        world.hostile.say_hints(&[], generation);
    }
    assert_eq!(first.ended().await, None, "the former link is aborted");
    until("the last generation", || world.dilated.status().generation.get() == last).await;
    let mut wire = world.hostile.link(0).await;
    wire.activate(2).await;
    world.until_linked(last).await;
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_generation_there_is_no_other() {
    for role in [Role::Leader, Role::Follower] {
        let (world, first) = World::linked(role).await;
        drop(first);
        for epoch in 2..5 {
            let mut wire = world.hostile.link(LAST).await;
            wire.activate(epoch).await;
            world.until_linked(LAST).await;
            wire.ping().await;
        }
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_a_generation_that_is_over() {
    let (world, first) = World::linked(Role::Leader).await;
    drop(first);
    let mut wire = world.hostile.link(1).await;
    wire.activate(2).await;
    world.until_linked(1).await;
    // The generation of a link is the greater of both, so nobody can offer one that is over: it stands by.
    let mut late = world.hostile.link(0).await;
    late.ping().await;
    assert_eq!(world.dilated.status().generation.get(), 1);
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_selects_one_link_after_the_other() {
    let (world, wire) = World::linked(Role::Leader).await;
    let mut others = Vec::new();
    for _ in 0..40 {
        others.push(world.hostile.link(0).await);
    }
    // The oldest of those that are not active have to go.
    for other in others.iter_mut().take(35) {
        assert_eq!(other.ended().await, None);
    }
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_offers_one_link_after_the_other() {
    let (world, wire) = World::linked(Role::Follower).await;
    let mut offered = Vec::new();
    for _ in 0..40 {
        offered.push(candidate(&world).await);
    }
    for mut stream in offered {
        let read = soon("the end of what was not selected", stream.read(&mut [0; 64])).await;
        assert!(!matches!(read, Ok(1..)), "the Leader has said something");
    }
    world.unharmed(wire).await;
}

/// A connection on which a hostile Follower has confirmed its key.
async fn candidate(world: &World) -> TcpStream {
    let mut handshake = world.hostile.handshake(Offer { generation: 0, linked: true });
    let mut stream = world.hostile.connect().await;
    drive(&mut handshake, &mut stream, LinkHandshake::awaits_choice).await;
    let confirmation = handshake.poll_output().expect("its confirmation");
    stream.write_all(&confirmation).await.expect("the victim listens");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_before_the_first_activation() {
    // What concerns subchannels may come from any link at any time; only the victim's answer has to wait.
    let world = World::start(Role::Leader).await;
    let mut wire = world.hostile.link(0).await;
    wire.send(&[open(1, "nobody listens")]).await.expect("the victim listens");
    wire.activate(1).await;
    wire.hear("REFUSE", |frame| matches!(frame, Frame::Refuse { .. }).then_some(())).await;
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_before_the_first_activation_is_told_too() {
    let world = World::start(Role::Leader).await;
    let mut wire = world.hostile.link(0).await;
    wire.record(&[0xff]).await.expect("the victim listens");
    world.refused(wire, Violation::FRAME, "unknown type").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_on_a_link_that_stands_by_is_told_there_too() {
    let (world, mut active) = World::linked(Role::Leader).await;
    let mut standby = world.hostile.link(0).await;
    standby.ping().await;
    standby.record(&[0xff]).await.expect("the victim listens");
    let (code, _) = standby.goodbye().await;
    assert_eq!(code, Violation::FRAME);
    active.listen();
    world.refused(active, Violation::FRAME, "unknown type").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_die_at_once_again_and_again() {
    let (world, wire) = World::linked(Role::Leader).await;
    drop(wire);
    for generation in 1..30 {
        let mut wire = world.hostile.link(generation).await;
        wire.activate(generation + 1).await;
    }
    until("a pause", || !matches!(world.dilated.status().link, LinkStatus::Connected { .. })).await;
    let mut wire = world.hostile.link(40).await;
    wire.activate(40).await;
    world.until_linked(40).await;
    Wire::pause().await;
    world.unharmed(wire).await;
}
