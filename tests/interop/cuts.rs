//! The link is cut at the socket while data flows, by either side, in either role; nothing is lost.

use dilated_tests::{
    data::Data,
    python::PeerRole::{self, Follower, Leader},
};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::{Meeting, Servers, World, read_checked, soon, write_stream};

const LENGTH: u64 = 48 * 1024 * 1024;
/// The link is cut whenever another quarter has arrived, and once more is to come.
const CUT_EVERY: u64 = LENGTH / 4;
const CUTS: u64 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cutter {
    Ours,
    Python,
}

/// Ours sends, with a cut whenever Python has counted another quarter.
async fn we_send(role: PeerRole, cutter: Cutter, meeting: Meeting) {
    let Some(world) = World::new(Servers::Ours).await else { return };
    let listen = json!([{"name": "sink", "mode": "sink", "progress": CUT_EVERY}]);
    let mut pair = world.dilate_with(role, listen, meeting).await;
    let mut out = pair.open("sink").await;
    let writer = tokio::spawn(async move {
        write_stream(&mut out, 3, LENGTH).await;
        out.shutdown().await.expect("closed");
        out
    });
    for _ in 0..CUTS {
        pair.python.expect("progress").await;
        match cutter {
            Cutter::Ours => pair.dilated.abandon_link(),
            Cutter::Python => pair.python.send(json!({"cmd": "cut-link"})).await,
        }
        pair.python.expect("lost").await;
        pair.python.expect("connected").await;
    }
    let closed = pair.python.expect_with("closed", json!({"name": "sink"})).await;
    assert_eq!(closed["bytes"], LENGTH);
    assert_eq!(closed["sha256"], Data::new(3).sha256(LENGTH));
    soon("the writer", writer).await.expect("no panic");
    assert_eq!(pair.dilated.status().generation.get(), CUTS);
    pair.finish().await;
}

/// Python sends, with a cut whenever we have counted another quarter.
async fn python_sends(role: PeerRole, cutter: Cutter, meeting: Meeting) {
    let Some(world) = World::new(Servers::Python).await else { return };
    let mut pair = world.dilate_with(role, json!([]), meeting).await;
    let mut listener = pair.dilated.listener_for("source").expect("free");
    pair.python
        .send(
            json!({"cmd": "open", "id": "s", "name": "source", "mode": "source", "size": LENGTH, "seed": 4}),
        )
        .await;
    let mut incoming = soon("an incoming one", listener.accept()).await.expect("open");
    let (cut, mut cuts) = tokio::sync::mpsc::unbounded_channel();
    let reader = tokio::spawn(async move {
        let mut check = Data::new(4).check();
        let mut next = (1..=CUTS).map(|n| n * CUT_EVERY).peekable();
        read_checked(&mut incoming, &mut check, |received| {
            while next.next_if(|at| *at <= received).is_some() {
                let _ = cut.send(());
            }
        })
        .await;
        check.received()
    });
    let mut made = 0;
    while soon("progress", cuts.recv()).await.is_some() {
        match cutter {
            Cutter::Ours => pair.dilated.abandon_link(),
            Cutter::Python => pair.python.send(json!({"cmd": "cut-link"})).await,
        }
        pair.python.expect("lost").await;
        pair.python.expect("connected").await;
        made += 1;
    }
    assert_eq!(made, CUTS);
    assert_eq!(soon("the reader", reader).await.expect("no panic"), LENGTH);
    pair.python.expect_with("closed", json!({"id": "s"})).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_leader_loses_what_we_cut() {
    we_send(Leader, Cutter::Ours, Meeting::Direct).await;
    python_sends(Leader, Cutter::Ours, Meeting::Direct).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_leader_cuts() {
    we_send(Leader, Cutter::Python, Meeting::Direct).await;
    python_sends(Leader, Cutter::Python, Meeting::Direct).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_follower_loses_what_we_cut() {
    we_send(Follower, Cutter::Ours, Meeting::Direct).await;
    python_sends(Follower, Cutter::Ours, Meeting::Direct).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_follower_cuts() {
    we_send(Follower, Cutter::Python, Meeting::Direct).await;
    python_sends(Follower, Cutter::Python, Meeting::Direct).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_through_a_relay() {
    we_send(Leader, Cutter::Ours, Meeting::Relay).await;
    python_sends(Follower, Cutter::Python, Meeting::Relay).await;
}
