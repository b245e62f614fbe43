//! Before there is a link: hints, connections, handshakes.

use std::{net::SocketAddr, time::Duration};

use dilated::{DilationError, LinkStatus};
use dilated_subchannel::frame::Frame;
use dilated_transit::{Offer, Role};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    credit::open,
    wire::Wire,
    world::{World, soon, until},
};

/// Connections whose handshake is not finished.
const UNFINISHED: usize = 32;
/// Dials of one search.
const DIRECT: usize = 32;
const RELAYS: usize = 8;

/// Waits until the victim hangs up, with FIN or without.
async fn hung_up(stream: &mut TcpStream) {
    let mut buffer = [0; 1024];
    soon("the end of a connection", async {
        while matches!(stream.read(&mut buffer).await, Ok(read) if read > 0) {}
    })
    .await;
}

/// Whether the victim has hung up; takes what it has said.
fn is_open(stream: &TcpStream) -> bool {
    let mut buffer = [0; 1024];
    loop {
        match stream.try_read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

/// The victim still makes links.
async fn still_links(world: World) {
    let mut wire = world.hostile.link(0).await;
    wire.activate(1).await;
    world.until_linked(0).await;
    world.unharmed(wire).await;
}

/// The prologue and the first message of a hostile Leader.
async fn first_message(world: &World, generation: u64) -> Vec<u8> {
    let mut handshake = world.hostile.handshake(Offer { generation, linked: false });
    let mut stream = world.hostile.connect().await;
    let mut said = handshake.poll_output().expect("a prologue").to_vec();
    stream.write_all(&said).await.expect("the victim listens");
    let mut buffer = [0; 1024];
    loop {
        let read = soon("the prologue", stream.read(&mut buffer)).await.expect("the victim answers");
        assert!(read > 0, "the victim hung up");
        handshake.handle_input(&buffer[..read]).expect("the victim is honest");
        if let Some(bytes) = handshake.poll_output() {
            said.extend_from_slice(&bytes);
            return said;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_handshake() {
    let world = World::start(Role::Leader).await;
    let prologue = first_message(&world, 0).await;
    let prologue = &prologue[..prologue.len() - 61];
    let wrong: [Vec<u8>; 7] = [
        vec![b'x'; 100_000],
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        [prologue, &[0; 100_000]].concat(),
        [prologue, &[0, 0, 0, 56], &[0; 56]].concat(),
        [prologue, &[0, 0, 0, 58], &[0; 58]].concat(),
        [prologue, &[0xff; 4]].concat(),
        [prologue, &[0, 0, 0, 57], &[9; 57]].concat(),
    ];
    for bytes in wrong {
        let mut stream = world.hostile.connect().await;
        // Whether all of it can be written depends on when the victim hangs up.
        stream.write_all(&bytes).await.ok();
        hung_up(&mut stream).await;
    }
    still_links(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_take_too_long() {
    let world = World::with(Role::Leader, |config| {
        // An honest handshake has to be made in it, too.
        config.connector.handshake_timeout = Duration::from_secs(1);
    })
    .await;
    let said = first_message(&world, 0).await;
    for length in [0, 5, said.len() - 61, said.len() - 1] {
        let mut stream = world.hostile.connect().await;
        // Whether it can be written depends on when the victim hangs up.
        stream.write_all(&said[..length]).await.ok();
        hung_up(&mut stream).await;
    }
    // A byte now and then does not make it longer.
    let mut stream = world.hostile.connect().await;
    let (mut read, mut write) = stream.split();
    let drip = async {
        for byte in said.iter().take(said.len() - 1) {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the victim has waited for all of it");
    };
    let end = async {
        let mut buffer = [0; 1024];
        while matches!(read.read(&mut buffer).await, Ok(read) if read > 0) {}
    };
    soon("the end of a connection", async {
        tokio::select! {
            () = drip => {}
            () = end => {}
        }
    })
    .await;
    still_links(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing() {
    let world = World::start(Role::Leader).await;
    let mut silent = Vec::new();
    for _ in 0..2 * UNFINISHED {
        silent.push(world.hostile.connect().await);
    }
    until("the end of the oldest", || !silent[..UNFINISHED].iter().any(is_open)).await;
    Wire::pause().await;
    assert!(silent[UNFINISHED..].iter().all(is_open), "the newest may go on");
    still_links(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_message_that_is_repeated() {
    let (world, wire) = World::linked(Role::Leader).await;
    // Of a later generation, so that somebody who believed it would give the link up.
    let said = first_message(&world, 1 << 40).await;
    let mut repeated = Vec::new();
    for _ in 0..2 * UNFINISHED {
        let mut stream = world.hostile.connect().await;
        stream.write_all(&said).await.expect("the victim listens");
        // Its answer is the end of what it can do.
        let mut buffer = [0; 64];
        soon("an answer", stream.read(&mut buffer)).await.ok();
        repeated.push(stream);
    }
    until("the end of the oldest", || !repeated[..UNFINISHED].iter().any(is_open)).await;
    assert_eq!(world.dilated.status().generation.get(), 0);
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_confirmation_is_a_byte_of_padding() {
    for role in [Role::Leader, Role::Follower] {
        let (world, mut wire) = World::linked(role).await;
        for _ in 0..10 {
            wire.record(&[0]).await.expect("the victim listens");
        }
        world.unharmed(wire).await;
    }
}

/// Addresses of this machine at which somebody listens and never answers.
async fn silent_listeners(count: u8) -> Vec<TcpListener> {
    let mut listeners = Vec::new();
    for last in 1..=count {
        listeners.push(
            TcpListener::bind(SocketAddr::from(([127, 0, 1, last], 0)))
                .await
                .expect("loopback is all of 127/8"),
        );
    }
    listeners
}

fn direct(listener: &TcpListener) -> Value {
    let address = listener.local_addr().expect("it is bound");
    json!({"type": "direct-tcp-v1", "priority": 0.0,
           "hostname": address.ip().to_string(), "port": address.port()})
}

/// Waits until the victim has dialled `most` of the listeners, and a while longer. Returns how many it has dialled, however
/// often: a machine that stood still has its search begin anew.
async fn dialled(listeners: &[TcpListener], most: usize) -> usize {
    let mut connections: Vec<Vec<TcpStream>> = listeners.iter().map(|_| Vec::new()).collect();
    let mut count = || {
        for (listener, accepted) in listeners.iter().zip(&mut connections) {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            if let std::task::Poll::Ready(Ok((stream, _))) = listener.poll_accept(&mut cx) {
                accepted.push(stream);
            }
        }
        connections.iter().filter(|accepted| !accepted.is_empty()).count()
    };
    until("the dials", || count() >= most).await;
    for _ in 0..5 {
        Wire::pause().await;
        count();
    }
    count()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_hints() {
    let world = World::start(Role::Leader).await;
    let listeners = silent_listeners(60).await;
    let mut hints: Vec<Value> = listeners.iter().map(direct).collect();
    let somewhere = |n: u32| json!({"type": "direct-tcp-v1", "hostname": "127.0.2.1", "port": 1 + n % 1000});
    hints.extend((0..2000).map(somewhere));
    hints.extend((0..3000).map(|n| json!({"type": "teleport", "n": n})));
    // They come in messages, each of which is below the limit for one.
    for _ in 0..5 {
        for part in hints.chunks(1000) {
            world.hostile.say_hints(part, 0);
        }
    }
    let dialled = dialled(&listeners, 1).await;
    assert!(dialled <= DIRECT, "{dialled} were dialled");
    still_links(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_relays() {
    let world = World::start(Role::Leader).await;
    let listeners = silent_listeners(60).await;
    let relays: Vec<Value> =
        listeners.iter().map(|listener| json!({"type": "relay-v1", "hints": [direct(listener)]})).collect();
    for part in relays.chunks(10) {
        world.hostile.say_hints(part, 0);
    }
    // One relay with many endpoints.
    let all: Vec<Value> = listeners.iter().map(direct).collect();
    world.hostile.say_hints(&[json!({"type": "relay-v1", "hints": all})], 0);
    let dialled = dialled(&listeners, RELAYS).await;
    assert!(dialled <= RELAYS, "{dialled} were dialled");
    still_links(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_the_mailbox_without_sense() {
    let (world, wire) = World::linked(Role::Leader).await;
    for message in [
        json!({"type": "please", "side": "0000000000000001", "use-version": "ged"}),
        json!({"type": "reconnect"}),
        json!({"type": "reconnecting"}),
        json!({"type": "connection-hints", "hints": 5, "generation": -1}),
        json!({"type": "connection-hints", "hints": [[[[]]], {}, null], "generation": 1.5}),
        json!({"type": "connection-hints", "hints": [], "generation": "1"}),
        json!({"type": "connection-hints"}),
        json!({"type": 7}),
        json!(["please"]),
        json!(null),
        json!({"type": "reconnect", "padding": "x".repeat(300_000)}),
    ] {
        world.hostile.say(&message);
    }
    // A listener that is found shows that the messages before it were taken.
    let listeners = silent_listeners(1).await;
    world.hostile.say_hints(&[direct(&listeners[0])], 0);
    Wire::pause().await;
    assert_eq!(world.dilated.status().generation.get(), 0);
    world.unharmed(wire).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_says_closing_is_believed_when_its_link_is_gone() {
    let (world, mut wire) = World::linked(Role::Leader).await;
    world.hostile.say(&json!({"type": "closing"}));
    Wire::pause().await;
    wire.ping().await;
    wire.send(&[open(1, "nobody listens")]).await.expect("the victim listens");
    wire.hear("REFUSE", |frame| matches!(frame, Frame::Refuse { .. }).then_some(())).await;
    assert!(matches!(world.dilated.status().link, LinkStatus::Connected { .. }));
    drop(wire);
    assert_eq!(world.stopped().await, DilationError::PeerClosed);
    world.end().await;
}
