//! Records that cannot be read.

use dilated::DilationError;
use dilated_subchannel::frame::{Frame, Violation};
use dilated_transit::Role;

use crate::{
    wire::{Wire, varint},
    world::{World, until},
};

/// What the victim says to a record.
async fn said_to(plaintext: &[u8], code: u64, why: &str) {
    let (world, mut wire) = World::linked(Role::Leader).await;
    wire.record(plaintext).await.expect("the victim listens");
    world.refused(wire, code, why).await;
}

fn open(name: &[u8]) -> Vec<u8> {
    [&[0x04, 1, 0, 0][..], &varint(name.len() as u64), name].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_types() {
    for kind in [0x0d, 0x0f, 0x16, 0x40, 0xff] {
        said_to(&[kind, 0, 0, 0], Violation::FRAME, "unknown type").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_their_record_cuts_off() {
    let cut: [&[u8]; 8] = [
        // PING without its number, and with half of it.
        &[0x01],
        &[0x01, 0xc0, 0, 0],
        // RESUME without its list, and with a count that no record could hold.
        &[0x03, 1, 0, 5, 0, 0, 0],
        &[0x03, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        // OPEN, DATAGRAM, GOODBYE and DATA that announce more than there is.
        &[0x04, 1, 0, 0, 60, b'a'],
        &[0x0b, 0, 60, 1],
        &[0x0c, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x10, 0, 0, 0xbf, 0xff, 0xff, 0xff, 1],
    ];
    for plaintext in cut {
        said_to(plaintext, Violation::FRAME, "cuts off").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_without_sense() {
    said_to(&[0x03, 1, 2, 0], Violation::FRAME, "neither ends nor goes on").await;
    said_to(&[0x10, 0, 0, 0], Violation::FRAME, "without any unit").await;
    said_to(&open(b"\xff\xfe"), Violation::FRAME, "not UTF-8").await;
    said_to(&[0x0c, 0, 1, 0xff], Violation::FRAME, "not UTF-8").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_empty_or_too_long() {
    said_to(&open(b""), Violation::NAME, "name of 0 bytes").await;
    said_to(&open(&[b'n'; 4097]), Violation::NAME, "name of 4097 bytes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_name_is_refused_like_any_that_nobody_listens_for() {
    let (world, mut wire) = World::linked(Role::Leader).await;
    wire.record(&open(&[b'n'; 4096])).await.expect("the victim listens");
    let refused = wire.hear("REFUSE", |frame| match frame {
        Frame::Refuse { id, .. } => Some(id.0),
        _ => None,
    });
    assert_eq!(refused.await, 1);
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_more_than_32_bits() {
    let number = varint(1 << 32);
    said_to(&[&[0x09][..], &number, &[0]].concat(), Violation::STATE, "number of a subchannel").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_in_their_longest_form_are_fine() {
    let (world, mut wire) = World::linked(Role::Leader).await;
    wire.record(&[0x01, 0xc0, 0, 0, 0, 0, 0, 0, 7]).await.expect("the victim listens");
    wire.hear("a PONG", |frame| (*frame == Frame::Pong(7)).then_some(())).await;
    world.unharmed(wire).await;
}

/// The link is closed, and nothing else: whoever is on the path can do that.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_wrong_length_or_a_wrong_key_cost_the_link() {
    let announced: [&[u8]; 5] = [
        &[0, 1, 0, 0],
        &[0xff; 4],
        &[0, 0, 0, 0],
        &[0, 0, 0, 15],
        &[[0, 0, 0, 40], [9; 4]].concat().repeat(6),
    ];
    for bytes in announced {
        let (world, mut wire) = World::linked(Role::Leader).await;
        wire.bytes(bytes).await.expect("the victim listens");
        assert_eq!(wire.ended().await, None, "{bytes:?}");
        // The next link is as good as any.
        let mut wire = world.hostile.link(1).await;
        wire.activate(2).await;
        world.until_linked(1).await;
        world.unharmed(wire).await;
    }
}

/// An empty record: its seal is right.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_plaintext_costs_the_link() {
    let (world, mut wire) = World::linked(Role::Leader).await;
    wire.bytes(&[&[0, 0, 0, 16][..], &[0; 16]].concat()).await.expect("the victim listens");
    assert_eq!(wire.ended().await, None);
    until("the loss", || world.dilated.status().generation.get() == 1).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_with_a_giant_reason_is_cut() {
    for role in [Role::Leader, Role::Follower] {
        let (world, mut wire) = World::linked(role).await;
        // Of two bytes each, so that the limit is inside of one if the cut is not made with care.
        let reason = format!("x{}", "é".repeat(30_000));
        let plaintext = [&[0x0c, 9][..], &varint(reason.len() as u64), reason.as_bytes()].concat();
        wire.record(&plaintext).await.expect("the victim listens");
        let error = world.stopped().await;
        let DilationError::Refused { code: 9, reason } = &error else { panic!("it ended with {error:?}") };
        assert_eq!(reason.len(), 1023);
        wire.ended().await;
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_goodbye_is_not_looked_at() {
    let (world, mut wire) = World::linked(Role::Leader).await;
    wire.record(&[0x0c, 0, 0, 0xff]).await.expect("the victim listens");
    assert_eq!(world.stopped().await, DilationError::PeerClosed);
    Wire::pause().await;
    assert_eq!(world.stopped().await, DilationError::PeerClosed);
    world.end().await;
}
