//! Links, endpoints, subchannels, recovery and memory, ours against ours through the embedded servers.

use crate::common::{Servers, soon};
use crate::dialects::in_both_dialects;
use bytes::Bytes;
use dilated::{Dialect, DilationError, LinkStatus, ReadError, Role, RolePreference, Subchannel};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes that differ everywhere, so that a lost, doubled or moved piece shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64 / 8 + 1)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes())
        .take(length)
        .collect()
}

async fn read_all(mut subchannel: Subchannel) -> Vec<u8> {
    let mut bytes = Vec::new();
    subchannel.read_to_end(&mut bytes).await.expect("a clean end");
    bytes
}

async fn the_triple_carries_bytes_both_ways(dialect: Dialect) {
    let servers = Servers::start(dialect).await;
    let (a, mut leader, b, mut follower) = servers.dilated().await;
    let (control_a, client_a, mut server_a) = leader.endpoints().expect("first time");
    let (control_b, client_b, mut server_b) = follower.endpoints().expect("first time");
    assert!(leader.endpoints().is_none(), "single-use");

    let (ca, cb) = soon("control", async { tokio::join!(control_a.connect(), control_b.connect()) }).await;
    let (mut ca, mut cb) = (ca.expect("control"), cb.expect("control"));
    ca.send(Bytes::from_static(b"are you there?")).await.expect("sent");
    assert_eq!(soon("a message", cb.recv()).await.expect("open").as_deref(), Some(&b"are you there?"[..]));
    cb.send(Bytes::from_static(b"yes")).await.expect("sent");
    assert_eq!(soon("a message", ca.recv()).await.expect("open").as_deref(), Some(&b"yes"[..]));

    for (client, server) in [(&client_a, &mut server_b), (&client_b, &mut server_a)] {
        let data = pattern(3_000_000);
        let mut out = soon("an open", client.connect()).await.expect("open");
        let incoming = tokio::spawn({
            let sent = data.clone();
            async move {
                out.write_all(&sent).await.expect("written");
                out.shutdown().await.expect("half-closed");
                read_all(out).await
            }
        });
        let mut subchannel = soon("an incoming one", server.next()).await.expect("listening").expect("open");
        let mut received = Vec::new();
        soon("the data", subchannel.read_to_end(&mut received)).await.expect("a clean end");
        assert!(received == data, "what came is not what was sent");
        subchannel.write_all(b"thank you").await.expect("the other direction is still open");
        subchannel.shutdown().await.expect("closed");
        assert_eq!(soon("the answer", incoming).await.expect("no panic"), b"thank you");
    }
    assert_eq!(leader.status().role, Some(Role::Leader));
    assert_eq!(follower.status().role, Some(Role::Follower));
    let (x, y) = soon("close", async { tokio::join!(a.close(), b.close()) }).await;
    assert_eq!((x, y), (Ok(()), Ok(())));
    assert_eq!(leader.status().link, LinkStatus::Stopped { error: None });
}

async fn named_subprotocols_meet_and_unexpected_ones_are_closed(dialect: Dialect) {
    let servers = Servers::start(dialect).await;
    let (_a, leader, _b, follower) = servers.dilated().await;
    let mut listener = follower.listener_for("chess").expect("free");
    assert!(follower.listener_for("chess").is_err(), "one listener a name");
    let chess = leader.connector_for("chess").expect("a name");
    let mut white = soon("an open", chess.connect()).await.expect("open");
    let mut black = soon("an incoming one", listener.accept()).await.expect("open");
    assert_eq!(black.subprotocol(), "chess");
    white.write_all(b"e4").await.expect("written");
    let mut move_ = [0; 2];
    soon("a move", black.read_exact(&mut move_)).await.expect("read");
    assert_eq!(&move_, b"e4");

    let nobody = leader.connector_for("nobody listens").expect("a name");
    let mut refused = soon("an open", nobody.connect()).await.expect("open");
    let end = soon("a close", refused.recv()).await;
    match dialect {
        Dialect::Ged => assert_eq!(end, Ok(None)),
        _ => assert!(matches!(end, Err(ReadError::Refused { .. })), "{end:?}"),
    }
    assert!(leader.connector_for("").is_err());
}

async fn without_listeners_the_relay_carries_the_link(dialect: Dialect) {
    let servers = Servers::start(dialect).await;
    let (a, b) = servers.pair().await;
    let config = |role| {
        let mut config = servers.config(role);
        config.listen = false;
        config.relays = vec![servers.relay.parse().expect("a hint")];
        config
    };
    let mut x = a.dilate(config(RolePreference::Leader)).expect("dilate");
    let mut y = b.dilate(config(RolePreference::Follower)).expect("dilate");
    let path = soon("a link", x.connected()).await.expect("connected");
    assert!(!path.is_direct(), "{path}");
    assert_eq!(path.to_string(), format!("->relay:{}", servers.relay));
    let (_, client, _) = x.endpoints().expect("first");
    let (_, _, mut server) = y.endpoints().expect("first");
    let mut out = soon("an open", client.connect()).await.expect("open");
    out.write_all(&pattern(500_000)).await.expect("written");
    drop(out);
    let incoming = soon("an incoming one", server.accept()).await.expect("open");
    assert!(soon("the data", read_all(incoming)).await == pattern(500_000));
}

/// Cuts the link again and again while both sides stream, from either side.
async fn survives_cuts(dialect: Dialect, cutter_leads: bool) {
    let servers = Servers::start(dialect).await;
    let (a, mut leader, b, mut follower) = servers.dilated().await;
    let (_, client, _) = leader.endpoints().expect("first");
    let (_, _, mut server) = follower.endpoints().expect("first");
    let data = pattern(24_000_000);
    let sender = tokio::spawn({
        let data = data.clone();
        async move {
            let (mut read, mut write) = client.connect().await.expect("open").into_split();
            let writer = tokio::spawn(async move {
                write.write_all(&data).await.expect("written");
                write.shutdown().await.expect("closed");
            });
            let mut echoed = Vec::new();
            read.read_to_end(&mut echoed).await.expect("a clean end");
            writer.await.expect("no panic");
            echoed
        }
    });
    let subchannel = soon("an incoming one", server.accept()).await.expect("open");
    let (mut read, mut write) = subchannel.into_split();
    let mut total = 0;
    let mut next_cut = 2_000_000;
    let mut buffer = vec![0; 65_536];
    loop {
        let n = soon("data", read.read(&mut buffer)).await.expect("the link is durable");
        if n == 0 {
            break;
        }
        soon("echo", write.write_all(&buffer[..n])).await.expect("the link is durable");
        total += n;
        if total >= next_cut {
            next_cut += 5_000_000;
            if cutter_leads { leader.abandon_link() } else { follower.abandon_link() }
        }
    }
    write.shutdown().await.expect("closed");
    let echoed = soon("the echo", sender).await.expect("no panic");
    assert!(echoed == data, "the echo of {} bytes differs from the {} sent", echoed.len(), data.len());
    assert!(leader.status().generation.get() >= 3, "{:?}", leader.status());
    let (x, y) = soon("close", async { tokio::join!(a.close(), b.close()) }).await;
    assert_eq!((x, y), (Ok(()), Ok(())));
}

async fn nothing_is_lost_when_the_leader_cuts_the_link(dialect: Dialect) {
    survives_cuts(dialect, true).await;
}

async fn nothing_is_lost_when_the_follower_cuts_the_link(dialect: Dialect) {
    survives_cuts(dialect, false).await;
}

async fn two_hundred_subchannels_at_once(dialect: Dialect) {
    let servers = Servers::start(dialect).await;
    let (_a, mut leader, _b, mut follower) = servers.dilated().await;
    let (_, client, _) = leader.endpoints().expect("first");
    let (_, _, mut server) = follower.endpoints().expect("first");
    tokio::spawn(async move {
        while let Ok(mut subchannel) = server.accept().await {
            tokio::spawn(async move {
                let mut data = Vec::new();
                subchannel.read_to_end(&mut data).await.expect("a clean end");
                data.reverse();
                subchannel.write_all(&data).await.expect("written");
            });
        }
    });
    let tasks: Vec<_> = (0..200_usize)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut data = pattern(10_000 + n);
                let mut subchannel = client.connect().await.expect("open");
                subchannel.write_all(&data).await.expect("written");
                subchannel.shutdown().await.expect("closed");
                data.reverse();
                assert!(read_all(subchannel).await == data);
            })
        })
        .collect();
    for task in tasks {
        soon("a subchannel", task).await.expect("no panic");
    }
}

async fn a_reader_that_does_not_read_stops_the_writer_and_memory_stays_bounded(dialect: Dialect) {
    let servers = Servers::start(dialect).await;
    let (a, b) = servers.pair().await;
    let small = |role| {
        let mut config = servers.config(role);
        config.mux.outbox_limit = 1 << 20;
        config.mux.receive_limit = 1 << 20;
        config
    };
    let mut leader = a.dilate(small(RolePreference::Leader)).expect("dilate");
    let mut follower = b.dilate(small(RolePreference::Follower)).expect("dilate");
    let (_, client, _) = leader.endpoints().expect("first");
    let (_, _, mut server) = follower.endpoints().expect("first");
    let data = pattern(32 << 20);
    let mut out = soon("an open", client.connect()).await.expect("open");
    let writer = tokio::spawn({
        let data = data.clone();
        async move {
            out.write_all(&data).await.expect("written");
            out.shutdown().await.expect("closed");
        }
    });
    let incoming = soon("an incoming one", server.accept()).await.expect("open");
    // Until the sockets' own buffers are full too, there is nothing to wait for but the writer standing still.
    let mut before = usize::MAX;
    while before != leader.usage().outbox_bytes || before == 0 {
        before = leader.usage().outbox_bytes;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    assert!(!writer.is_finished());
    assert!(leader.usage().outbox_bytes <= (1 << 20) + 128 * 1024, "{:?}", leader.usage());
    assert!(follower.usage().receive_bytes <= (2 << 20), "{:?}", follower.usage());
    assert!(soon("all of it", read_all(incoming)).await == data);
    soon("the writer", writer).await.expect("no panic");
}

async fn dropping_everything_leaves_no_task_behind(dialect: Dialect) {
    let servers = Servers::start(dialect).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..3 {
        let (a, mut leader, b, mut follower) = servers.dilated().await;
        let (_, client, _) = leader.endpoints().expect("first");
        let (_, _, mut server) = follower.endpoints().expect("first");
        let mut kept = soon("an open", client.connect()).await.expect("open");
        kept.write_all(b"x").await.expect("written");
        let mut peer = soon("an incoming one", server.accept()).await.expect("open");
        soon("a byte", peer.read_u8()).await.expect("read");
        drop((a, leader, client, b, follower, server));
        let error = soon("the end", peer.read_u8()).await.expect_err("the wormhole is gone");
        assert_ne!(error.kind(), std::io::ErrorKind::UnexpectedEof, "an end without CLOSE is no clean end");
        soon("the end", kept.write_all(&pattern(1 << 20))).await.expect_err("the wormhole is gone");
    }
    let settle = async {
        while tasks() > before {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    soon("the end of all tasks", settle).await;
}

async fn close_delivers_what_was_written_before(dialect: Dialect) {
    let servers = Servers::start(dialect).await;
    let (a, mut leader, b, mut follower) = servers.dilated().await;
    let (_, client, _) = leader.endpoints().expect("first");
    let (_, _, mut server) = follower.endpoints().expect("first");
    let mut out = soon("an open", client.connect()).await.expect("open");
    out.write_all(&pattern(4_000_000)).await.expect("written");
    out.shutdown().await.expect("closed");
    let close = tokio::spawn(async move { a.close().await });
    let incoming = soon("an incoming one", server.accept()).await.expect("open");
    assert!(soon("all of it", read_all(incoming)).await == pattern(4_000_000));
    assert_eq!(soon("close", close).await.expect("no panic"), Ok(()));
    assert_eq!(soon("close", b.close()).await, Ok(()));
}

async fn tells_its_story(dialect: Dialect) {
    let servers = Servers::start(dialect).await;
    let (a, b) = servers.pair().await;
    let leader = a.dilate(servers.config(RolePreference::Leader)).expect("dilate");
    let mut changes = leader.status_changes();
    let follower = b.dilate(servers.config(RolePreference::Follower)).expect("dilate");
    soon("a link", follower.connected()).await.expect("connected");
    let mut story = Vec::new();
    let mut given_up = None;
    let mut tell = |link: &LinkStatus| {
        let word = match link {
            LinkStatus::Waiting => "waiting",
            LinkStatus::Connecting => "connecting",
            LinkStatus::Connected { .. } => "connected",
            LinkStatus::Reconnecting { reason } => {
                // In `dilated-1` two links may be found at the same moment: we give one up, the other side the other.
                let right = reason == "given up by this program" || dialect == Dialect::Dilated1;
                assert!(right, "{dialect:?}: {reason}");
                "reconnecting"
            }
            LinkStatus::Stopped { error: None } => "stopped",
            other => panic!("{other:?}"),
        };
        if story.last() != Some(&word) {
            story.push(word);
        }
    };
    let mut closing = None;
    while let Some(status) = soon("a change", changes.next()).await {
        tell(&status.link);
        match status.link {
            LinkStatus::Connected { path, .. }
                if status.generation.get() == 0 && given_up.as_ref() != Some(&path) =>
            {
                given_up = Some(path);
                leader.abandon_link();
            }
            LinkStatus::Connected { .. } if status.generation.get() == 1 && closing.is_none() => {
                closing = Some(tokio::spawn({
                    let (a, b) = (a.clone(), b.clone());
                    // One after the other, or the other's end of the link may be gone before ours.
                    async move { (a.close().await, b.close().await) }
                }));
            }
            LinkStatus::Stopped { .. } => break,
            _ => {}
        }
    }
    // Early states may be over before the first look.
    assert!(story.ends_with(&["connected", "reconnecting", "connected", "stopped"]), "{story:?}");
}

// On one thread, so that no state is over before it was seen.
#[tokio::test]
async fn the_status_tells_the_story() {
    for dialect in Dialect::ALL {
        tells_its_story(dialect).await;
    }
}

#[tokio::test]
async fn a_record_above_the_limit_ends_the_dilation_with_advice_and_not_in_a_loop() {
    let servers = Servers::start(Dialect::Ged).await;
    let (a, b) = servers.pair().await;
    let leader = a.dilate(servers.config(RolePreference::Leader)).expect("dilate");
    let mut strict = servers.config(RolePreference::Follower);
    strict.mux.max_data = 100_000;
    let follower = b.dilate(strict).expect("dilate");
    let mut listener = follower.listener_for("large").expect("free");
    let mut out =
        soon("an open", leader.connector_for("large").expect("a name").connect()).await.expect("open");
    out.send(Bytes::from(pattern(100_000))).await.expect("sent");
    let mut incoming = soon("an incoming one", listener.accept()).await.expect("open");
    let message = soon("a message", incoming.recv()).await.expect("open").expect("not closed");
    assert!(message == pattern(100_000), "the largest that is allowed");
    out.send(Bytes::from(pattern(100_001))).await.expect("sent");
    let error = soon("the end", incoming.recv()).await.expect_err("refused");
    assert!(error.to_string().contains("100001 bytes") || error.to_string().contains("max_data"), "{error}");
    assert!(
        matches!(follower.status().link, LinkStatus::Stopped { error: Some(_) }),
        "{:?}",
        follower.status()
    );
}

#[tokio::test]
async fn the_end_of_the_sequence_numbers_is_an_error_and_never_a_wrap() {
    let servers = Servers::start(Dialect::Ged).await;
    let (a, b) = servers.pair().await;
    let near_the_end = |role| {
        let mut config = servers.config(role);
        config.mux.first_seq = u32::MAX - 20;
        config
    };
    let leader = a.dilate(near_the_end(RolePreference::Leader)).expect("dilate");
    let follower = b.dilate(near_the_end(RolePreference::Follower)).expect("dilate");
    let mut listener = follower.listener_for("many").expect("free");
    let mut out =
        soon("an open", leader.connector_for("many").expect("a name").connect()).await.expect("open");
    let sender = tokio::spawn(async move {
        for n in 0_u8..=255 {
            out.send(Bytes::copy_from_slice(&[n])).await?;
            tokio::task::yield_now().await;
        }
        out.acknowledged().await.map_err(std::io::Error::from)
    });
    let mut incoming = soon("an incoming one", listener.accept()).await.expect("open");
    // OPEN took one of the 21 numbers.
    for n in 0..20 {
        let message = soon("a message", incoming.recv()).await.expect("open").expect("not closed");
        assert_eq!(message[..], [n]);
    }
    let error = soon("the sender", sender).await.expect("no panic").expect_err("the numbers are used up");
    assert!(error.to_string().contains("start a new wormhole"), "{error}");
    let status = leader.status().link;
    assert!(
        matches!(&status, LinkStatus::Stopped { error: Some(DilationError::Exhausted(_)) }),
        "{status:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stands_still_for_long_does_not_cost_the_link() {
    /// Of this length it ends a link: seconds, so that a machine without processor time for one does not.
    const SILENCE: std::time::Duration = std::time::Duration::from_secs(4);
    let servers = Servers::start(Dialect::Ged).await;
    let (a, b) = servers.pair().await;
    let impatient = |role| {
        let mut config = servers.config(role);
        config.liveness.ping_interval = std::time::Duration::from_millis(100);
        (config.liveness.silence, config.liveness.first_silence) = (SILENCE, SILENCE);
        config.mux.receive_limit = 1 << 20;
        config
    };
    let leader = a.dilate(impatient(RolePreference::Leader)).expect("dilate");
    let follower = b.dilate(impatient(RolePreference::Follower)).expect("dilate");
    let mut listener = follower.listener_for("slow").expect("free");
    let mut out =
        soon("an open", leader.connector_for("slow").expect("a name").connect()).await.expect("open");
    let data = pattern(16 << 20);
    let writer = tokio::spawn({
        let data = data.clone();
        async move {
            out.write_all(&data).await.expect("written");
            out.shutdown().await.expect("closed");
        }
    });
    let incoming = soon("an incoming one", listener.accept()).await.expect("open");
    let paused = async {
        while !follower.usage().read_paused {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    soon("the pause", paused).await;
    tokio::time::sleep(SILENCE * 3 / 2).await;
    assert!(soon("all of it", read_all(incoming)).await == data);
    soon("the writer", writer).await.expect("no panic");
    assert_eq!((leader.status().generation.get(), follower.status().generation.get()), (0, 0));
}

async fn the_peer_is_told_of_a_close_and_waits_no_more(dialect: Dialect) {
    for leader_closes in [true, false] {
        let servers = Servers::start(dialect).await;
        let (a, leader, b, follower) = servers.dilated().await;
        let (closes, from, stays, to) =
            if leader_closes { (a, leader, b, follower) } else { (b, follower, a, leader) };
        let mut listener = to.listener_for("last words").expect("free");
        let mut out =
            soon("an open", from.connector_for("last words").expect("a name").connect()).await.expect("open");
        out.write_all(&pattern(1_000_000)).await.expect("written");
        let mut incoming = soon("an incoming one", listener.accept()).await.expect("open");
        let mut read = vec![0; 1_000_000];
        let (closed, delivered) =
            soon("close", async { tokio::join!(closes.close(), incoming.read_exact(&mut read)) }).await;
        assert_eq!((closed, delivered.expect("delivered")), (Ok(()), 1_000_000));
        assert!(read == pattern(1_000_000));
        let error = soon("the end", incoming.read(&mut read)).await.expect_err("no clean end was sent");
        assert!(error.to_string().contains("the other side closed its wormhole"), "{error}");
        assert_eq!(to.status().link, LinkStatus::Stopped { error: Some(DilationError::PeerClosed) });
        assert_eq!(soon("close", stays.close()).await, Ok(()));
    }
}

in_both_dialects!(
    the_triple_carries_bytes_both_ways,
    named_subprotocols_meet_and_unexpected_ones_are_closed,
    without_listeners_the_relay_carries_the_link,
    nothing_is_lost_when_the_leader_cuts_the_link,
    nothing_is_lost_when_the_follower_cuts_the_link,
    two_hundred_subchannels_at_once,
    a_reader_that_does_not_read_stops_the_writer_and_memory_stays_bounded,
    dropping_everything_leaves_no_task_behind,
    close_delivers_what_was_written_before,
    the_peer_is_told_of_a_close_and_waits_no_more,
);
