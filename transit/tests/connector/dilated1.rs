//! In `dilated-1`.

use std::{
    future::{Future, poll_fn},
    net::Ipv4Addr,
    task::Poll,
    time::Duration,
};

use bytes::BytesMut;
use dilated_transit::{
    Better, DilationKey, Ephemeral, HandshakeLimits, Hint, KCM, LinkDialect, LinkHandshake, Offer, Path,
    PathKind, RelayHint, Role, has_aes,
    net::{Candidate, Connector, ConnectorConfig, ConnectorEvent, Link, Search},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

use crate::{flush, hints, loopback, port, receive, relay, send, soon, talk};

const PROLOGUE: &[u8] = b"Magic-Wormhole Dilation Handshake v1 Leader\n\n";

fn config(role: Role) -> ConnectorConfig {
    crate::config(role, LinkDialect::Dilated1 { aes: false })
}

fn searching(generation: u64) -> Search {
    Search { generation, linked: false }
}

fn start(config: ConnectorConfig, generation: u64) -> Connector {
    let mut connector = Connector::new(config).expect("a listener, if one is asked for");
    connector.search(searching(generation));
    connector
}

async fn candidate(connector: &mut Connector) -> Box<Candidate> {
    loop {
        if let ConnectorEvent::Candidate(candidate) = soon("a candidate", connector.next()).await {
            return candidate;
        }
    }
}

/// Both ends of a link, the Leader's first; both searches are over.
async fn meet(leader: &mut Connector, follower: &mut Connector) -> (Link, Link) {
    let leading = async {
        let mut link = candidate(leader).await.select();
        flush(&mut link).await;
        leader.rest();
        link
    };
    let following = async {
        let link = candidate(follower).await.select();
        follower.rest();
        link
    };
    let (mut leading, mut following) = tokio::join!(leading, following);
    talk(&mut leading, &mut following).await;
    (leading, following)
}

/// Runs a connector until something else is done, which has limits of its own. What it says meanwhile is dropped.
async fn beside<T>(connector: &mut Connector, other: impl Future<Output = T>) -> T {
    tokio::pin!(other);
    loop {
        tokio::select! {
            done = &mut other => return done,
            _ = connector.next() => {}
        }
    }
}

/// One end of a connection, by hand.
struct ByHand {
    stream: TcpStream,
    handshake: LinkHandshake,
}

impl ByHand {
    async fn dial(port: u16, role: Role, generation: u64) -> ByHand {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("listening");
        ByHand::over(stream, role, generation)
    }

    fn over(stream: TcpStream, role: Role, generation: u64) -> ByHand {
        let (key, ephemeral) = (DilationKey::new([9; 32]), Ephemeral::generate(&mut rand::rng()));
        let (limits, offer) = (HandshakeLimits::default(), Offer { generation, linked: false });
        let handshake = LinkHandshake::dilated1(role, key, ephemeral, None, limits, false, offer);
        ByHand { stream, handshake }
    }

    /// As far as it comes without a choice.
    async fn shake(&mut self) {
        let mut input = BytesMut::new();
        loop {
            if let Some(output) = self.handshake.poll_output() {
                self.stream.write_all(&output).await.expect("open");
            }
            if self.handshake.is_confirmed() || self.handshake.awaits_choice() {
                return;
            }
            input.clear();
            let read = soon("bytes", self.stream.read_buf(&mut input)).await.expect("open");
            assert!(read > 0, "the connection was closed");
            self.handshake.handle_input(&input).expect("an honest peer");
        }
    }

    /// A Leader's choice.
    async fn choose(self) -> TcpStream {
        let mut stream = self.stream;
        let mut output = BytesMut::new();
        self.handshake.into_pipe().expect("confirmed").0.seal(&[KCM], &mut output).expect("short");
        stream.write_all(&output).await.expect("open");
        stream
    }
}

/// The connection ends, in order or not.
async fn closed(stream: &mut TcpStream) {
    let _ = soon("the end of a connection", stream.read_to_end(&mut Vec::new())).await;
}

/// Whether the connection still stands, as far as this end knows.
async fn is_open(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    let mut byte = tokio::io::ReadBuf::new(&mut byte);
    poll_fn(|cx| Poll::Ready(stream.poll_peek(cx, &mut byte).is_pending())).await
}

#[tokio::test]
async fn two_sides_meet_in_the_greater_generation() {
    for (ours, theirs) in [(0, 0), (3, 3), (3, 4), (4, 3)] {
        for aes in [false, has_aes()] {
            let config = |role| crate::config(role, LinkDialect::Dilated1 { aes });
            let mut leader = start(config(Role::Leader), ours);
            let mut follower = start(config(Role::Follower), theirs);
            let (at, here) = (hints(&mut follower).await, hints(&mut leader).await);
            leader.add_peer_hints(at, true);
            follower.add_peer_hints(here, true);
            let (leading, following) = meet(&mut leader, &mut follower).await;
            assert_eq!((leading.generation, following.generation), (ours.max(theirs), ours.max(theirs)));
            assert_ne!(leading.path.is_inbound(), following.path.is_inbound());
        }
    }
}

#[tokio::test]
async fn a_candidate_that_is_dropped_is_reset_and_dialled_again() {
    let mut leader = start(ConnectorConfig { listen: false, ..config(Role::Leader) }, 2);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    leader.add_peer_hints(vec![loopback(listener.local_addr().expect("bound").port())], true);
    for last in [false, false, true] {
        let accepted = async {
            let (stream, _) = soon("a dial", listener.accept()).await.expect("accepted");
            let mut follower = ByHand::over(stream, Role::Follower, 2);
            follower.shake().await;
            follower
        };
        let (found, mut follower) = tokio::join!(candidate(&mut leader), accepted);
        assert_eq!((found.generation(), found.peer_linked()), (2, false));
        assert!(found.path().is_direct() && !found.path().is_inbound() && found.local_address().is_some());
        if last {
            let mut link = found.select();
            flush(&mut link).await;
            while !follower.handshake.is_confirmed() {
                let mut input = BytesMut::new();
                soon("the choice", follower.stream.read_buf(&mut input)).await.expect("open");
                follower.handshake.handle_input(&input).expect("honest");
            }
        } else {
            drop(found);
            closed(&mut follower.stream).await;
        }
    }
}

#[tokio::test]
async fn a_leader_may_take_its_time_and_choose_the_second() {
    let mut leader = start(config(Role::Leader), 1);
    let port = port(&hints(&mut leader).await);
    let mut followers = Vec::new();
    let mut found = Vec::new();
    for _ in 0..3 {
        let shaking = async {
            let mut follower = ByHand::dial(port, Role::Follower, 1).await;
            follower.shake().await;
            follower
        };
        let (one, follower) = tokio::join!(candidate(&mut leader), shaking);
        found.push(one);
        followers.push(follower.stream);
    }
    let mut link = found.swap_remove(1).select();
    flush(&mut link).await;
    // What was handed out is not the connector's any more.
    leader.rest();
    assert!(is_open(&mut followers[0]).await && is_open(&mut followers[2]).await);
    drop(found);
    closed(&mut followers[0]).await;
    closed(&mut followers[2]).await;
    let mut choice = [0; 21];
    soon("the choice", followers[1].read_exact(&mut choice)).await.expect("open");
}

#[tokio::test]
async fn while_linked_a_search_brings_another_link() {
    let mut leader = start(config(Role::Leader), 6);
    let mut follower = start(config(Role::Follower), 6);
    let (at, here) = (hints(&mut follower).await, hints(&mut leader).await);
    leader.add_peer_hints(at, true);
    follower.add_peer_hints(here, true);
    let (mut first, mut second) = meet(&mut leader, &mut follower).await;
    for searcher in [Role::Follower, Role::Leader] {
        leader.set_offer(6, true);
        follower.set_offer(6, true);
        match searcher {
            Role::Leader => leader.search_better(6, Better::Direct),
            Role::Follower => follower.search_better(6, Better::Direct),
        }
        let leading = async {
            let found = candidate(&mut leader).await;
            assert_eq!((found.generation(), found.peer_linked()), (6, true));
            let mut link = found.select();
            flush(&mut link).await;
            link
        };
        let following = async {
            let found = candidate(&mut follower).await;
            assert_eq!((found.generation(), found.peer_linked()), (6, true));
            found.select()
        };
        let (mut another, mut at_follower) = tokio::join!(leading, following);
        leader.rest();
        follower.rest();
        talk(&mut another, &mut at_follower).await;
        assert_eq!(another.path.is_inbound(), searcher == Role::Follower);
    }
    talk(&mut first, &mut second).await;
}

#[tokio::test]
async fn a_follower_leaves_the_choice_to_the_leader() {
    let mut follower = start(config(Role::Follower), 3);
    let port = port(&hints(&mut follower).await);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    follower.add_peer_hints(vec![loopback(listener.local_addr().expect("bound").port())], true);
    let shaking = async {
        let (stream, _) = soon("a dial", listener.accept()).await.expect("accepted");
        let mut dialled = ByHand::over(stream, Role::Leader, 3);
        dialled.shake().await;
        let mut dialling = ByHand::dial(port, Role::Leader, 3).await;
        dialling.shake().await;
        // One that is not finished.
        let idle = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("listening");
        (dialled, dialling, idle)
    };
    let (dialled, dialling, mut idle) = beside(&mut follower, shaking).await;
    let mut said = vec![0; PROLOGUE.len() + 2];
    beside(&mut follower, async { soon("a prologue", idle.read_exact(&mut said)).await.expect("open") })
        .await;
    // It comes to rest, and searches again: what waits for the Leader's choice stands, the rest is closed.
    follower.rest();
    beside(&mut follower, closed(&mut idle)).await;
    follower.search(searching(4));
    let _one = dialled.choose().await;
    let found = candidate(&mut follower).await;
    assert_eq!((found.generation(), found.path().kind()), (3, PathKind::DirectOut));
    let mut other = dialling.choose().await;
    let late = candidate(&mut follower).await;
    // Both are of a generation that is over.
    assert_eq!((late.generation(), late.path().kind()), (3, PathKind::DirectIn));
    drop(late);
    closed(&mut other).await;
}

#[tokio::test]
async fn a_leader_at_rest_closes_what_it_did_not_choose() {
    let mut leader = start(ConnectorConfig { listen: false, ..config(Role::Leader) }, 0);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let at = |listener: &TcpListener| loopback(listener.local_addr().expect("bound").port());
    leader.add_peer_hints(vec![at(&silent), at(&listener)], true);
    let accepted = async {
        let (unfinished, _) = soon("a dial", silent.accept()).await.expect("accepted");
        let (stream, _) = soon("a dial", listener.accept()).await.expect("accepted");
        let mut follower = ByHand::over(stream, Role::Follower, 0);
        follower.shake().await;
        (unfinished, follower)
    };
    let (found, (mut unfinished, _follower)) = tokio::join!(candidate(&mut leader), accepted);
    let _link = found.select();
    leader.rest();
    closed(&mut unfinished).await;
}

#[tokio::test]
async fn a_connection_that_comes_late_says_its_generation() {
    let mut follower = start(config(Role::Follower), 3);
    let port = port(&hints(&mut follower).await);
    let mut old = beside(&mut follower, ByHand::dial(port, Role::Leader, 3)).await;
    beside(&mut follower, old.shake()).await;
    // The Follower finds another link, loses it and searches in the next generation.
    follower.search(searching(4));
    let mut stream = old.choose().await;
    let found = candidate(&mut follower).await;
    assert_eq!(found.generation(), 3, "it has to be refused");
    drop(found);
    closed(&mut stream).await;
    // Whoever has not made its part of the handshake says where it is by now.
    let mut slow = ByHand::dial(port, Role::Leader, 4).await;
    let mut said = vec![0; PROLOGUE.len() + 2];
    beside(&mut follower, soon("a prologue", slow.stream.read_exact(&mut said))).await.expect("open");
    slow.handshake.handle_input(&said).expect("a prologue");
    follower.set_offer(5, false);
    beside(&mut follower, slow.shake()).await;
    let _stream = slow.choose().await;
    assert_eq!(candidate(&mut follower).await.generation(), 5);
}

#[tokio::test]
async fn one_generation_apart_they_meet_at_a_relay() {
    let hint = relay().await;
    for (ours, theirs) in [(7, 7), (7, 8), (8, 7)] {
        let with_relay = |role| ConnectorConfig { listen: false, relays: vec![hint.clone()], ..config(role) };
        let mut leader = start(with_relay(Role::Leader), ours);
        let mut follower = start(with_relay(Role::Follower), theirs);
        let (leading, following) = meet(&mut leader, &mut follower).await;
        assert_eq!((leading.generation, following.generation), (ours.max(theirs), ours.max(theirs)));
        assert_eq!(leading.path.to_string(), format!("->relay:{hint}"));
    }
}

/// The lines that reach a relay, until so many have come.
async fn lines(listener: &TcpListener, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for _ in 0..count {
        let (mut stream, _) = soon("a dial", listener.accept()).await.expect("accepted");
        let mut line = vec![0; 104];
        soon("a line", stream.read_exact(&mut line)).await.expect("open");
        lines.push(String::from_utf8(line).expect("text"));
    }
    lines.sort();
    lines
}

#[tokio::test]
async fn who_is_linked_waits_under_one_token() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let hint: RelayHint = format!("tcp:{}", listener.local_addr().expect("bound")).parse().expect("a hint");
    let mut leader =
        Connector::new(ConnectorConfig { listen: false, relays: vec![hint], ..config(Role::Leader) })
            .expect("no listener is needed");
    let mut told = Vec::new();
    for search in [searching(4), searching(5), Search { generation: 5, linked: true }] {
        leader.search(search);
        let count = if search.linked { 1 } else { 2 };
        told.push(beside(&mut leader, lines(&listener, count)).await);
    }
    let [four, five, linked] = &told[..] else { panic!("three searches") };
    assert_ne!(four[0], four[1]);
    let common: Vec<&String> = four.iter().filter(|line| five.contains(line)).collect();
    assert_eq!(common.len(), 1, "the tokens of 4 and 5, then those of 5 and 6");
    assert_eq!(linked[0], *common[0], "that of 5");
}

#[tokio::test(start_paused = true)]
async fn a_search_for_something_better_is_gentle_and_knows_what_it_wants() {
    // Nobody listens at these ports, and nobody else gets them.
    let sockets = [(); 3].map(|()| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("bind");
        socket
    });
    let ports = sockets.each_ref().map(|socket| socket.local_addr().expect("bound").port());
    let [old, new, own] = ports;
    let relay: RelayHint = format!("tcp:127.0.0.1:{own}").parse().expect("a hint");
    let config = ConnectorConfig { listen: false, relays: vec![relay.clone()], ..config(Role::Leader) };
    let mut leader = Connector::new(config).expect("no listener is needed");
    leader.add_peer_hints(vec![loopback(old), Hint::Relay(relay.clone())], true);
    leader.search_better(2, Better::Direct);
    let mut dialled = Vec::new();
    while dialled.len() < 4 {
        match soon("a dial", leader.next()).await {
            ConnectorEvent::Dialing(path) => dialled.push((path.kind(), path.port())),
            ConnectorEvent::Failed { .. } if dialled.len() == 3 => {
                // It would wait for minutes, but here is something new.
                leader.add_peer_hints(vec![loopback(new)], false);
            }
            ConnectorEvent::Failed { .. } => {}
            other => panic!("nothing is told to the peer, and nobody is found: {other:?}"),
        }
    }
    let direct = |port| (PathKind::DirectOut, port);
    assert_eq!(dialled, [direct(old), direct(old), direct(old), direct(new)]);

    // A link to stand by goes another way than the one there is.
    leader.search_better(2, Better::Other(Path::relay(&relay.hints()[0])));
    let kinds = |dialled: Vec<Path>| dialled.iter().map(Path::kind).collect::<Vec<_>>();
    assert_eq!(kinds(first_dials(&mut leader).await), [PathKind::DirectOut; 2]);
    let in_use = Path::inbound("127.0.0.1:9".parse().expect("an address"));
    leader.search_better(2, Better::Other(in_use));
    assert_eq!(kinds(first_dials(&mut leader).await), [PathKind::Relay]);
}

/// What is dialled until the first dial has failed.
async fn first_dials(connector: &mut Connector) -> Vec<Path> {
    let mut dialled = Vec::new();
    loop {
        match soon("a failure", connector.next()).await {
            ConnectorEvent::Dialing(path) => dialled.push(path),
            ConnectorEvent::Failed { .. } => return dialled,
            other => panic!("nobody is there: {other:?}"),
        }
    }
}

/// The reason of the next failure.
async fn failure(connector: &mut Connector) -> String {
    loop {
        match soon("a failure", connector.next()).await {
            ConnectorEvent::Failed { reason, .. } => return reason,
            ConnectorEvent::Candidate(_) => panic!("nobody honest is there"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn the_hostile_and_the_silent_get_nowhere() {
    for role in [Role::Leader, Role::Follower] {
        let mut victim = start(config(role), 0);
        let port = port(&hints(&mut victim).await);
        let theirs = match role {
            Role::Leader => &b"Magic-Wormhole Dilation Handshake v1 Follower\n\n"[..],
            Role::Follower => PROLOGUE,
        };
        let cases: [(&[u8], &str); 3] = [
            (&[0, 0, 0, 48], "a frame of 48 bytes"),
            (&[0xff; 4], "a frame of 4294967295 bytes"),
            (&[&[0, 0, 0, 57][..], &[9; 57]].concat(), "another key"),
        ];
        for (bytes, expected) in cases {
            let mut hostile = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("listening");
            hostile.write_all(&[theirs, bytes].concat()).await.expect("open");
            let reason = failure(&mut victim).await;
            assert!(reason.contains(expected), "{reason}");
            closed(&mut hostile).await;
        }
        let mut silent = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("listening");
        let mut said = vec![0; theirs.len()];
        beside(&mut victim, soon("a prologue", silent.read(&mut said))).await.expect("open");
        tokio::time::pause();
        let reason = failure(&mut victim).await;
        tokio::time::resume();
        assert!(reason.contains("no progress within 10 s"), "{reason}");
        closed(&mut silent).await;
    }
}

#[tokio::test]
async fn a_follower_waits_long_for_the_choice_but_takes_no_flood() {
    let mut follower = start(config(Role::Follower), 0);
    let port = port(&hints(&mut follower).await);
    let mut patient = beside(&mut follower, ByHand::dial(port, Role::Leader, 0)).await;
    beside(&mut follower, patient.shake()).await;
    tokio::time::pause();
    beside(&mut follower, tokio::time::sleep(Duration::from_secs(24 * 3600))).await;
    tokio::time::resume();
    let mut flood = beside(&mut follower, ByHand::dial(port, Role::Leader, 0)).await;
    beside(&mut follower, flood.shake()).await;
    flood.stream.write_all(&[0, 0, 0, 17]).await.expect("open");
    flood.stream.write_all(&[0; 1500]).await.expect("open");
    let reason = failure(&mut follower).await;
    assert!(reason.contains("another key"), "{reason}");
    let _stream = patient.choose().await;
    assert_eq!(candidate(&mut follower).await.generation(), 0);
}

#[tokio::test]
async fn those_who_wait_for_a_choice_are_bounded() {
    let mut config = config(Role::Follower);
    config.limits.inbound = 4;
    let mut follower = start(config, 0);
    let port = port(&hints(&mut follower).await);
    let mut waiting = Vec::new();
    for _ in 0..10 {
        let mut leader = beside(&mut follower, ByHand::dial(port, Role::Leader, 0)).await;
        beside(&mut follower, leader.shake()).await;
        waiting.push(leader);
        follower.rest();
        follower.search(searching(0));
    }
    for old in &mut waiting[..6] {
        beside(&mut follower, closed(&mut old.stream)).await;
    }
    let link = async {
        let mut link = candidate(&mut follower).await.select();
        assert_eq!(receive(&mut link).await.expect("open"), b"first");
        link
    };
    let newest = waiting.pop().expect("ten");
    let mut output = BytesMut::new();
    let (mut sealer, _) = newest.handshake.into_pipe().expect("confirmed");
    sealer.seal(&[KCM], &mut output).expect("short");
    sealer.seal(&[b"first"], &mut output).expect("short");
    let mut stream = newest.stream;
    stream.write_all(&output).await.expect("open");
    let mut link = link.await;
    send(&mut link, b"answer").await;
    let mut answer = [0; 4 + 16 + 6];
    soon("an answer", stream.read_exact(&mut answer)).await.expect("open");
}
