//! In `ged`.

use std::{io, net::Ipv4Addr, time::Duration};

use bytes::BytesMut;
use dilated_transit::{
    DilationKey, Ephemeral, HandshakeLimits, Hint, LinkDialect, LinkHandshake, Path, RelayHint, Role,
    TcpHint,
    net::{Connector, ConnectorConfig, ConnectorEvent, ConnectorLimits, Link, LinkError, Search},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{flush, hints, loopback, port, receive, relay, soon, talk};

fn config(role: Role) -> ConnectorConfig {
    crate::config(role, LinkDialect::Ged)
}

/// A connector that searches.
pub(crate) fn start(config: ConnectorConfig) -> io::Result<Connector> {
    let mut connector = Connector::new(config)?;
    connector.search(Search::default());
    Ok(connector)
}

/// Runs a connector until it has a link; returns what failed on the way.
pub(crate) async fn selected(connector: &mut Connector) -> (Link, Vec<(Path, String)>) {
    let mut failures = Vec::new();
    loop {
        match soon("a link", connector.next()).await {
            ConnectorEvent::Selected(mut link) => {
                // A Leader's writer begins with the choice.
                flush(&mut link).await;
                return (*link, failures);
            }
            ConnectorEvent::Failed { path, reason } => failures.push((path, reason)),
            _ => {}
        }
    }
}

/// Both ends of a link, the Leader's first, and messages both ways.
async fn meet(leader: &mut Connector, follower: &mut Connector) -> (Link, Link) {
    let ((mut leading, _), (mut following, _)) = tokio::join!(selected(leader), selected(follower));
    talk(&mut leading, &mut following).await;
    (leading, following)
}

#[tokio::test]
async fn two_sides_meet_directly_and_one_link_wins() {
    let mut leader = start(config(Role::Leader)).expect("a listener");
    let mut follower = start(config(Role::Follower)).expect("a listener");
    // Each dials the other, over both families, so there are losers too.
    let (theirs, ours) = (hints(&mut follower).await, hints(&mut leader).await);
    leader.add_peer_hints(theirs, true);
    follower.add_peer_hints(ours.clone(), true);
    let (leading, following) = meet(&mut leader, &mut follower).await;
    assert!(leading.path.is_direct() && following.path.is_direct());
    assert_ne!(leading.path.is_inbound(), following.path.is_inbound());
    // The listener is closed with the choice; a late dial is refused.
    drop((leader, follower));
    tokio::task::yield_now().await;
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port(&ours))).await.is_err());
}

#[tokio::test]
async fn losers_are_closed_on_both_sides() {
    let mut leader = start(config(Role::Leader)).expect("a listener");
    let port = port(&hints(&mut leader).await);
    // A connection that never gets further than its prologue, accepted by the Leader.
    let mut idle = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("listening");
    let mut follower = start(config(Role::Follower)).expect("a listener");
    follower.add_peer_hints(vec![loopback(port)], true);
    let (_leading, _following) = meet(&mut leader, &mut follower).await;
    let mut rest = Vec::new();
    let end = soon("the end of the loser", idle.read_to_end(&mut rest)).await;
    assert!(end.is_ok() || end.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_relay_brings_those_together_who_cannot_listen() {
    let hint = relay().await;
    let with_relay = |role| ConnectorConfig { listen: false, relays: vec![hint.clone()], ..config(role) };
    let mut leader = start(with_relay(Role::Leader)).expect("no listener is needed");
    let mut follower = start(with_relay(Role::Follower)).expect("no listener is needed");
    assert_eq!(hints(&mut leader).await, [Hint::Relay(hint.clone())]);
    let (leading, _) = meet(&mut leader, &mut follower).await;
    assert_eq!(leading.path.to_string(), format!("->relay:{hint}"));
}

#[tokio::test]
async fn strangers_are_named_and_do_not_keep_the_peer_out() {
    // Somebody else listens where the peer's first hint points.
    let web = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let web_port = web.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = web.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.read(&mut [0; 100]).await;
        }
    });
    let mut leader = start(config(Role::Leader)).expect("a listener");
    let mut follower = start(config(Role::Follower)).expect("a listener");
    let own = port(&hints(&mut leader).await);
    let peer = port(&hints(&mut follower).await);
    // Strangers dial us: one with garbage, one that says nothing, one with the wrong key, and one that announces a
    // frame of 4 GiB.
    let mut garbage = TcpStream::connect((Ipv4Addr::LOCALHOST, own)).await.expect("listening");
    garbage.write_all(&[0xff; 3000]).await.expect("sent");
    let _silent = TcpStream::connect((Ipv4Addr::LOCALHOST, own)).await.expect("listening");
    let mut huge = TcpStream::connect((Ipv4Addr::LOCALHOST, own)).await.expect("listening");
    huge.write_all(b"Magic-Wormhole Dilation Handshake v1 Follower\n\n\xff\xff\xff\xff").await.expect("sent");
    let mut wrong =
        start(ConnectorConfig { key: DilationKey::new([8; 32]), listen: false, ..config(Role::Follower) })
            .expect("no listener is needed");
    wrong.add_peer_hints(vec![loopback(own)], true);
    let refused = async {
        loop {
            if let ConnectorEvent::Failed { reason, .. } = wrong.next().await {
                return reason;
            }
        }
    };
    // The Leader is driven meanwhile.
    let mut failures = Vec::new();
    let reason = {
        tokio::pin!(refused);
        loop {
            tokio::select! {
                reason = &mut refused => break reason,
                event = leader.next() => if let ConnectorEvent::Failed { reason, .. } = event { failures.push(reason) },
            }
        }
    };
    assert!(reason.contains("another key"), "{reason}");

    leader.add_peer_hints(vec![loopback(web_port), loopback(peer)], true);
    let ((link, more), _) = tokio::join!(selected(&mut leader), selected(&mut follower));
    assert_eq!(link.path, Path::direct(&TcpHint::from_addr(Ipv4Addr::LOCALHOST.into(), peer)));
    failures.extend(more.into_iter().map(|(_, reason)| reason));
    let said = failures.join("\n");
    assert!(said.contains("4294967295"), "{said}");
    assert!(said.contains("something else"), "{said}");
}

#[tokio::test]
async fn a_web_server_at_a_hint_is_named() {
    let web = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = web.local_addr().expect("bound").port();
    let answer = async move {
        let (mut stream, _) = web.accept().await.expect("accepted");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("sent");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    let server = tokio::spawn(answer);
    let mut leader = start(ConnectorConfig { listen: false, ..config(Role::Leader) }).expect("no listener");
    leader.add_peer_hints(vec![loopback(port)], true);
    let reason = loop {
        if let ConnectorEvent::Failed { reason, .. } = soon("a failure", leader.next()).await {
            break reason;
        }
    };
    assert!(reason.contains("a web server") && reason.contains("HTTP/1.1 400"), "{reason}");
    drop(leader);
    soon("the web server", server).await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stands_still_is_given_up() {
    let slow = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = slow.local_addr().expect("bound").port();
    let mut leader = start(ConnectorConfig { listen: false, ..config(Role::Leader) }).expect("no listener");
    leader.add_peer_hints(vec![loopback(port)], true);
    let accepted = tokio::spawn(async move { slow.accept().await.expect("accepted") });
    let reason = loop {
        if let ConnectorEvent::Failed { reason, .. } = leader.next().await {
            break reason;
        }
    };
    assert!(reason.contains("no progress within 10 s"), "{reason}");
    let (mut stream, _) = accepted.await.expect("no panic");
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    assert_eq!(said, b"Magic-Wormhole Dilation Handshake v1 Leader\n\n");
}

#[tokio::test]
async fn a_flood_of_connections_neither_grows_nor_keeps_the_peer_out() {
    let mut limits = ConnectorLimits::default();
    limits.inbound = 4;
    let mut leader = start(ConnectorConfig { limits, ..config(Role::Leader) }).expect("a listener");
    let port = port(&hints(&mut leader).await);
    let mut flood = Vec::new();
    for _ in 0..50 {
        flood.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("listening"));
    }
    let driven = tokio::spawn(async move { selected(&mut leader).await });
    for stream in flood.iter_mut().take(46) {
        let mut rest = Vec::new();
        let _ = soon("the oldest to be dropped", stream.read_to_end(&mut rest)).await;
    }
    let mut follower =
        start(ConnectorConfig { listen: false, ..config(Role::Follower) }).expect("no listener");
    follower.add_peer_hints(vec![loopback(port)], true);
    let (link, _) = selected(&mut follower).await;
    assert!(link.path.is_direct());
    soon("the Leader's side", driven).await.expect("no panic");
}

#[tokio::test]
async fn an_abort_is_a_reset_and_a_close_delivers() {
    for abort in [true, false] {
        let mut leader = start(config(Role::Leader)).expect("a listener");
        let mut follower = start(config(Role::Follower)).expect("a listener");
        let theirs = hints(&mut follower).await;
        leader.add_peer_hints(theirs, true);
        let (mut leading, mut following) = meet(&mut leader, &mut follower).await;
        leading.writer.seal(&[&[7; 100_000]]).expect("short");
        if abort {
            leading.abort();
            let error = loop {
                match receive(&mut following).await {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert!(
                matches!(&error, LinkError::Io(e) if e.kind() == io::ErrorKind::ConnectionReset),
                "{error:?}"
            );
        } else {
            let close = tokio::spawn(leading.close());
            assert_eq!(receive(&mut following).await.expect("open"), [7; 100_000]);
            assert!(matches!(receive(&mut following).await, Err(LinkError::Closed)));
            drop(following);
            soon("the close", close).await.expect("no panic");
        }
    }
}

#[tokio::test]
async fn records_bundled_with_the_choice_are_not_lost() {
    let mut follower = start(config(Role::Follower)).expect("a listener");
    let port = port(&hints(&mut follower).await);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("listening");
    let key = DilationKey::new([9; 32]);
    let ephemeral = Ephemeral::generate(&mut rand::rng());
    let mut handshake = LinkHandshake::new(Role::Leader, key, ephemeral, None, HandshakeLimits::default());
    let driven = tokio::spawn(async move { selected(&mut follower).await });
    let mut input = BytesMut::new();
    while !handshake.is_confirmed() {
        if let Some(output) = handshake.poll_output() {
            stream.write_all(&output).await.expect("sent");
        }
        input.clear();
        soon("bytes", stream.read_buf(&mut input)).await.expect("open");
        handshake.handle_input(&input).expect("an honest Follower");
    }
    let (mut sealer, _) = handshake.into_pipe().expect("confirmed");
    let mut output = BytesMut::new();
    sealer.seal(&[dilated_transit::KCM], &mut output).expect("short");
    for n in 0..3 {
        sealer.seal(&[&[n; 40_000]], &mut output).expect("short");
    }
    stream.write_all(&output).await.expect("sent");
    let (mut link, _) = soon("the choice", driven).await.expect("no panic");
    for n in 0..3 {
        assert_eq!(receive(&mut link).await.expect("open"), [n; 40_000]);
    }
}

#[tokio::test]
async fn a_relay_that_fails_for_a_moment_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let hint: RelayHint = format!("tcp:{}", listener.local_addr().expect("bound")).parse().expect("a hint");
    let mut limits = ConnectorLimits::default();
    limits.race.retry_first = Duration::from_millis(10);
    let config = ConnectorConfig { listen: false, relays: vec![hint], limits, ..config(Role::Leader) };
    let mut leader = start(config).expect("no listener is needed");
    let driven = tokio::spawn(async move {
        loop {
            leader.next().await;
        }
    });
    for _ in 0..3 {
        let (mut stream, _) = soon("a dial", listener.accept()).await.expect("accepted");
        stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await.expect("sent");
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    driven.abort();
}

#[tokio::test]
async fn a_peer_that_lost_its_link_finds_us_at_the_port_that_it_knows() {
    for who_searches in [Role::Leader, Role::Follower] {
        let mut leader = start(config(Role::Leader)).expect("a listener");
        let mut follower = start(config(Role::Follower)).expect("a listener");
        let (theirs, ours) = (hints(&mut follower).await, hints(&mut leader).await);
        leader.add_peer_hints(theirs, true);
        follower.add_peer_hints(ours.clone(), true);
        let _first = meet(&mut leader, &mut follower).await;
        // The other one does not search: it only listens.
        let searcher = if who_searches == Role::Leader { &mut leader } else { &mut follower };
        searcher.search(Search::default());
        if who_searches == Role::Leader {
            assert_eq!(port(&hints(&mut leader).await), port(&ours), "the port is kept");
        }
        let (leading, following) = meet(&mut leader, &mut follower).await;
        assert_eq!(leading.path.is_inbound(), who_searches == Role::Follower);
        assert_eq!(following.path.is_inbound(), who_searches == Role::Leader);
    }
}

#[tokio::test]
async fn hints_of_former_generations_are_forgotten() {
    let (old, new) = (TcpListener::bind("127.0.0.1:0").await, TcpListener::bind("127.0.0.1:0").await);
    let (old, new) = (old.expect("bind"), new.expect("bind"));
    let at = |listener: &TcpListener| vec![loopback(listener.local_addr().expect("bound").port())];
    let mut leader =
        Connector::new(ConnectorConfig { listen: false, ..config(Role::Leader) }).expect("no listener");
    leader.add_peer_hints(at(&old), true);
    leader.add_peer_hints(at(&new), true);
    leader.search(Search::default());
    let dialled = async {
        loop {
            if let ConnectorEvent::Dialing(path) = leader.next().await {
                return path.port();
            }
        }
    };
    assert_eq!(soon("a dial", dialled).await, new.local_addr().expect("bound").port());
    tokio::select! {
        _ = leader.next() => panic!("one dial, and nobody answers"),
        accepted = new.accept() => drop(accepted.expect("accepted")),
    }
}

#[tokio::test]
async fn a_change_of_network_gives_up_dials_and_tells_hints_again() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let mut leader = start(config(Role::Leader)).expect("a listener");
    let first = hints(&mut leader).await;
    leader.add_peer_hints(vec![loopback(silent.local_addr().expect("bound").port())], true);
    let (events, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (change, mut changes) = tokio::sync::mpsc::channel(1);
    let driven = tokio::spawn(async move {
        loop {
            tokio::select! {
                event = leader.next() => if let ConnectorEvent::LocalHints(hints) = event {
                    let _ = events.send(hints);
                },
                Some(()) = changes.recv() => leader.handle_network_change(),
            }
        }
    });
    let (mut stuck, _) = soon("a dial", silent.accept()).await.expect("accepted");
    change.send(()).await.expect("it is driven");
    assert_eq!(soon("hints", told.recv()).await.expect("it is driven"), first);
    soon("the end of the old dial", stuck.read_to_end(&mut Vec::new())).await.expect("closed");
    let _again = soon("another dial", silent.accept()).await.expect("accepted");
    driven.abort();
}

#[tokio::test]
async fn a_leader_who_dials_before_we_search_may_go_on() {
    let mut follower = Connector::new(config(Role::Follower)).expect("a listener");
    follower.handle_network_change();
    let port = port(&hints(&mut follower).await);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("listening");
    let ephemeral = Ephemeral::generate(&mut rand::rng());
    let key = DilationKey::new([9; 32]);
    let mut handshake = LinkHandshake::new(Role::Leader, key, ephemeral, None, HandshakeLimits::default());
    let (mut input, mut searches) = (BytesMut::new(), false);
    while !handshake.is_confirmed() {
        if let Some(output) = handshake.poll_output() {
            stream.write_all(&output).await.expect("sent");
        }
        input.clear();
        let reading = async {
            tokio::select! {
                read = stream.read_buf(&mut input) => read.expect("open"),
                () = async { loop { follower.next().await; } } => 0,
            }
        };
        assert!(soon("bytes", reading).await > 0, "the connection was closed");
        handshake.handle_input(&input).expect("an honest Follower");
        // It hears of the new generation in the middle of the handshake.
        if !std::mem::replace(&mut searches, true) {
            follower.search(Search::default());
        }
    }
    let (mut sealer, _) = handshake.into_pipe().expect("confirmed");
    let mut output = BytesMut::new();
    sealer.seal(&[dilated_transit::KCM], &mut output).expect("short");
    stream.write_all(&output).await.expect("sent");
    let (link, _) = selected(&mut follower).await;
    assert!(link.path.is_inbound());
}
