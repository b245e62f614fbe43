//! Subchannels with Python in either role: bulk, many at once, both ways of closing, record boundaries, relays.

use bytes::Bytes;
use dilated_tests::{
    data::Data,
    python::PeerRole::{self, Follower, Leader},
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Meeting, Servers, World, hash_of, read_stream, soon, write_stream};

const BULK: u64 = 256 * 1024 * 1024;

async fn bulk_both_ways(python: PeerRole, servers: Servers) {
    let Some(world) = World::new(servers).await else { return };
    let mut pair = world.dilate(python, json!([{"name": "sink", "mode": "sink"}])).await;

    let mut out = pair.open("sink").await;
    write_stream(&mut out, 1, BULK).await;
    out.shutdown().await.expect("closed");
    let closed = pair.python.expect_with("closed", json!({"name": "sink"})).await;
    assert_eq!(closed["bytes"], BULK);
    assert_eq!(closed["sha256"], Data::new(1).sha256(BULK));
    let mut rest = Vec::new();
    soon("their close", out.read_to_end(&mut rest)).await.expect("clean");
    assert_eq!(rest, b"");

    let mut listener = pair.dilated.listener_for("source").expect("free");
    pair.python
        .send(json!({"cmd": "open", "id": "s", "name": "source", "mode": "source", "size": BULK, "seed": 2}))
        .await;
    let mut incoming = soon("an incoming one", listener.accept()).await.expect("open");
    assert_eq!(read_stream(&mut incoming, 2).await, BULK);
    drop(incoming);
    pair.python.expect_with("closed", json!({"id": "s"})).await;
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_with_a_python_leader() {
    bulk_both_ways(Leader, Servers::Ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_with_a_python_follower() {
    bulk_both_ways(Follower, Servers::Python).await;
}

async fn two_hundred_at_once(python: PeerRole, servers: Servers) {
    const LENGTH: u64 = 30_000;
    let Some(world) = World::new(servers).await else { return };
    let mut pair = world.dilate(python, json!([{"name": "echo", "mode": "echo", "half": true}])).await;
    let mut listener = pair.dilated.listener_for("back").expect("free");
    let tasks: Vec<_> = (0..200)
        .map(|seed| {
            let connector = pair.dilated.connector_for("echo").expect("a name");
            tokio::spawn(async move {
                let mut subchannel = connector.connect().await.expect("open");
                write_stream(&mut subchannel, seed, LENGTH).await;
                subchannel.shutdown().await.expect("closed");
                assert_eq!(read_stream(&mut subchannel, seed).await, LENGTH);
            })
        })
        .collect();
    for task in tasks {
        soon("an echo", task).await.expect("no panic");
    }

    pair.python
        .send(json!({"cmd": "open", "id": "s", "name": "back", "mode": "source",
            "count": 200, "size": LENGTH, "seed": 1000}))
        .await;
    let mut lengths = Vec::new();
    for _ in 0..200 {
        let mut subchannel = soon("an incoming one", listener.accept()).await.expect("open");
        let mut data = Vec::new();
        soon("the data", subchannel.read_to_end(&mut data)).await.expect("clean");
        lengths.push((hash_of(&data), data.len() as u64));
    }
    lengths.sort();
    let mut expected: Vec<_> = (1000..1200).map(|seed| (Data::new(seed).sha256(LENGTH), LENGTH)).collect();
    expected.sort();
    assert!(lengths == expected, "the 200 streams that came are not the 200 that were sent");
    for n in 0..200 {
        pair.python.expect_with("closed", json!({"id": format!("s.{n}")})).await;
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_with_a_python_leader() {
    two_hundred_at_once(Leader, Servers::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_with_a_python_follower() {
    two_hundred_at_once(Follower, Servers::Ours).await;
}

async fn both_ways_of_closing(python: PeerRole, servers: Servers) {
    let Some(world) = World::new(servers).await else { return };
    let listen = json!([
        {"name": "digest", "mode": "digest", "half": true},
        {"name": "full", "mode": "collect"},
    ]);
    let mut pair = world.dilate(python, listen).await;

    // Half-close: we end our direction and still hear the answer.
    let mut half = pair.open("digest").await;
    write_stream(&mut half, 5, 200_000).await;
    half.shutdown().await.expect("half-closed");
    let mut digest = Vec::new();
    soon("the digest", half.read_to_end(&mut digest)).await.expect("clean");
    assert_eq!(dilated_tests::data::hex(&digest), Data::new(5).sha256(200_000));
    pair.python.expect_with("closed", json!({"name": "digest"})).await;

    // Half-close from their side: we hear the end and still answer.
    let mut listener = pair.dilated.listener_for("ask").expect("free");
    pair.python.send(json!({"cmd": "open", "id": "q", "name": "ask", "half": true, "mode": "collect"})).await;
    let mut asked = soon("an incoming one", listener.accept()).await.expect("open");
    pair.python.send(json!({"cmd": "send", "id": "q", "hex": "0102"})).await;
    pair.python.send(json!({"cmd": "close", "id": "q"})).await;
    let mut question = Vec::new();
    soon("the question", asked.read_to_end(&mut question)).await.expect("clean");
    assert_eq!(question, [1, 2]);
    asked.write_all(&[3, 4]).await.expect("still open");
    asked.shutdown().await.expect("closed");
    assert_eq!(pair.python.expect_with("data", json!({"id": "q"})).await["hex"], "0304");
    pair.python.expect_with("closed", json!({"id": "q"})).await;

    // Full close, ours first: Python answers with its own at once.
    let mut ours_first = pair.open("full").await;
    ours_first.write_all(b"bye").await.expect("written");
    ours_first.shutdown().await.expect("closed");
    let mut rest = Vec::new();
    soon("their close", ours_first.read_to_end(&mut rest)).await.expect("clean");
    assert_eq!(pair.python.expect_with("closed", json!({"name": "full"})).await["bytes"], 3);

    // Full close, theirs first; and ours by dropping the subchannel with data on the way.
    pair.python.send(json!({"cmd": "open", "id": "f", "name": "ask", "mode": "collect"})).await;
    let mut theirs_first = soon("an incoming one", listener.accept()).await.expect("open");
    pair.python.send(json!({"cmd": "close", "id": "f"})).await;
    soon("their close", theirs_first.read_to_end(&mut rest)).await.expect("clean");
    theirs_first.write_all(b"too late, but no fault").await.expect("allowed");
    drop(theirs_first);
    pair.python.expect_with("closed", json!({"id": "f"})).await;

    // Both at the same moment.
    for n in 0..20 {
        let id = format!("both-{n}");
        pair.python.send(json!({"cmd": "open", "id": id, "name": "ask", "mode": "collect"})).await;
        let both = soon("an incoming one", listener.accept()).await.expect("open");
        pair.python.send(json!({"cmd": "close", "id": id})).await;
        drop(both);
        pair.python.expect_with("closed", json!({"id": id})).await;
    }
    assert_eq!(pair.dilated.status().generation.get(), 0, "nothing of this may cost the link");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_with_a_python_leader() {
    both_ways_of_closing(Leader, Servers::Ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_with_a_python_follower() {
    both_ways_of_closing(Follower, Servers::Ours).await;
}

async fn message_boundaries(python: PeerRole, servers: Servers) {
    // Around the limits of one Noise message (65,519 bytes of plaintext, 9 of them header) and of its ciphertext.
    let mut sizes: Vec<usize> = (65_509..=65_537).collect();
    sizes.extend([1, 0, 131_038, 131_039, 1 << 20]);
    let Some(world) = World::new(servers).await else { return };
    let mut pair = world.dilate(python, json!([{"name": "messages", "mode": "messages"}])).await;
    let mut out = pair.open("messages").await;
    for (seed, size) in sizes.iter().enumerate() {
        let message = Data::new(seed as u64).at(0, *size);
        soon("sending", out.send(message)).await.expect("sent");
    }
    for (seed, size) in sizes.iter().enumerate() {
        let message = pair.python.expect_with("message", json!({"name": "messages"})).await;
        assert_eq!(message["length"], *size);
        assert_eq!(message["sha256"], Data::new(seed as u64).sha256(*size as u64));
    }

    let mut listener = pair.dilated.listener_for("back").expect("free");
    pair.python.send(json!({"cmd": "open", "id": "m", "name": "back"})).await;
    let mut incoming = soon("an incoming one", listener.accept()).await.expect("open");
    pair.python.expect_with("opened", json!({"id": "m"})).await;
    let sizes: Vec<usize> = sizes.into_iter().filter(|size| *size > 0).collect();
    pair.python.send(json!({"cmd": "send", "id": "m", "sizes": sizes, "seed": 50})).await;
    for (n, size) in sizes.iter().enumerate() {
        let message: Bytes = soon("a message", incoming.recv()).await.expect("open").expect("not closed");
        assert_eq!(message.len(), *size);
        assert!(message == Data::new(50 + n as u64).at(0, *size), "message {n} of {size} bytes differs");
    }
    assert_eq!(pair.dilated.status().generation.get(), 0);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_with_a_python_leader() {
    message_boundaries(Leader, Servers::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_with_a_python_follower() {
    message_boundaries(Follower, Servers::Ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_relay_in_both_roles() {
    for servers in [Servers::Ours, Servers::Python] {
        for role in [Leader, Follower] {
            let Some(world) = World::new(servers).await else { return };
            let listen = json!([{"name": "digest", "mode": "digest", "half": true}]);
            let pair = world.dilate_with(role, listen, Meeting::Relay).await;
            let path = soon("a path", pair.dilated.connected()).await.expect("connected");
            assert!(!path.is_direct(), "{path}");
            let mut out = pair.open("digest").await;
            write_stream(&mut out, 8, 3_000_000).await;
            out.shutdown().await.expect("half-closed");
            let mut digest = Vec::new();
            soon("the digest", out.read_to_end(&mut digest)).await.expect("clean");
            assert_eq!(dilated_tests::data::hex(&digest), Data::new(8).sha256(3_000_000));
            pair.finish().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_program_is_the_far_end_of_the_triple() {
    for role in [Leader, Follower] {
        let Some(world) = World::new(Servers::Ours).await else { return };
        let listen = json!([{"name": "control", "mode": "echo"}, {"name": "stream", "mode": "echo"}]);
        let mut python = world.python_peer(role).await;
        let wormhole = world.wormhole();
        let code = soon("a code", wormhole.allocate_code(2)).await.expect("allocated");
        python.send(json!({"cmd": "set-code", "code": code.to_string()})).await;
        python.send(json!({"cmd": "dilate", "listen": listen})).await;
        let mut config = world.config(role);
        config.control_opener = dilated::ControlOpener::Open;
        let mut dilated = wormhole.dilate(config).expect("dilate");
        let (control, client, mut server) = dilated.endpoints().expect("first");

        let mut control = soon("control", control.connect()).await.expect("open");
        control.send(Bytes::from_static(b"ping")).await.expect("sent");
        assert_eq!(soon("an echo", control.recv()).await.expect("open").as_deref(), Some(&b"ping"[..]));
        let mut stream = soon("an open", client.connect()).await.expect("open");
        stream.send(Bytes::from_static(b"pong")).await.expect("sent");
        assert_eq!(soon("an echo", stream.recv()).await.expect("open").as_deref(), Some(&b"pong"[..]));

        python
            .send(json!({"cmd": "open", "id": "s", "name": "stream", "mode": "source", "size": 1000}))
            .await;
        let mut incoming = soon("an incoming one", server.accept()).await.expect("open");
        assert_eq!(read_stream(&mut incoming, 0).await, 1000);
        python.assert_quiet();
        soon("close", wormhole.close()).await.expect("happy");
        python.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_follower_that_speaks_out_of_turn_changes_nothing() {
    let Some(world) = World::new(Servers::Ours).await else { return };
    let mut pair = world.dilate(Follower, json!([{"name": "echo", "mode": "echo"}])).await;
    for message in [
        json!({"type": "reconnect"}),
        json!({"type": "reconnecting"}),
        json!({"type": "please", "side": "0000000000000000", "use-version": "ged"}),
        json!({"type": "connection-hints"}),
        json!({"type": "from-the-future", "x": [1, 2, 3]}),
    ] {
        pair.python.send(json!({"cmd": "send-dilate", "message": message})).await;
    }
    // A message of the application behind them says that they have arrived.
    pair.python.send(json!({"cmd": "send-message", "hex": "ff"})).await;
    assert_eq!(soon("a message", pair.wormhole.next_message()).await.expect("open"), [0xff]);
    let mut echo = pair.open("echo").await;
    echo.send(Bytes::from_static(b"still here")).await.expect("sent");
    assert_eq!(soon("an echo", echo.recv()).await.expect("open").as_deref(), Some(&b"still here"[..]));
    assert_eq!(pair.dilated.status().generation.get(), 0);
    // And the next loss is mended as ever.
    pair.dilated.abandon_link();
    pair.python.expect("lost").await;
    pair.python.expect("connected").await;
    echo.send(Bytes::from_static(b"and now")).await.expect("sent");
    assert_eq!(soon("an echo", echo.recv()).await.expect("open").as_deref(), Some(&b"and now"[..]));
    drop(echo);
    pair.finish().await;
}

/// A Python Follower loses the ACKs that it owes for records which arrive together with the KCM. What was written
/// before the link came up is just that, and nothing follows it.
#[tokio::test(flavor = "multi_thread")]
async fn acks_that_a_python_follower_loses_are_asked_for_again() {
    for _ in 0..5 {
        let Some(world) = World::new(Servers::Ours).await else { return };
        let mut python = world.python_peer(Follower).await;
        let wormhole = world.wormhole();
        let code = soon("a code", wormhole.allocate_code(2)).await.expect("allocated");
        let dilated = wormhole.dilate(world.config(Follower)).expect("dilate");
        let connector = dilated.connector_for("sink").expect("a name");
        let early = tokio::spawn(async move {
            let mut subchannel = connector.connect().await.expect("open");
            subchannel.send(Bytes::from_static(b"early")).await.expect("queued");
            subchannel.acknowledged().await.expect("acknowledged");
            subchannel
        });
        python.send(json!({"cmd": "set-code", "code": code.to_string()})).await;
        let listen = json!([{"name": "sink", "mode": "collect"}]);
        python.send(json!({"cmd": "dilate", "listen": listen})).await;
        assert_eq!(python.expect("data").await["hex"], "6561726c79");
        drop(soon("the ACK", early).await.expect("no panic"));
        python.expect_with("closed", json!({"name": "sink"})).await;
        soon("close", wormhole.close()).await.expect("happy");
        python.finish().await;
    }
}
