//! How the two sides find one connection, seen from the other end of the sockets.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::BytesMut;
use tokio::task::JoinSet;

use super::*;
use crate::{
    contact::Contact,
    net::now,
    v1::{TransitHandshake, TransitStage},
};

/// A connection of ours to one that listens, whose handshake this test runs.
struct Hand {
    stream: TcpStream,
    handshake: TransitHandshake,
}

impl Hand {
    async fn dial(part: Part, address: SocketAddr) -> Hand {
        let stream = TcpStream::connect(address).await.unwrap();
        let handshake = TransitHandshake::new(part, TransitKey::new([1; 32]), Contact::Dialled);
        Hand { stream, handshake }
    }

    async fn say(&mut self) {
        let output = self.handshake.poll_output().unwrap();
        self.stream.write_all(&output).await.unwrap();
    }

    /// Reads until the handshake has come to this stage.
    async fn reach(&mut self, stage: TransitStage) {
        let mut input = [0; 1];
        while self.handshake.stage() != stage {
            assert_ne!(soon("byte", self.stream.read(&mut input)).await.unwrap(), 0, "closed");
            self.handshake.handle_input(&input).unwrap();
        }
    }

    /// Takes the Sender's line.
    async fn greeted(&mut self) -> io::Result<()> {
        let mut line = [0; 87];
        self.stream.read_exact(&mut line).await?;
        self.handshake.handle_input(&line).unwrap();
        Ok(())
    }

    /// Everything that comes until the end, whichever way it ends.
    async fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = soon("end", self.stream.read_to_end(&mut rest)).await;
        rest
    }
}

fn listening<S: Side>(side: &Transit<S>) -> SocketAddr {
    let find = |hint: &Hint| match hint {
        Hint::Direct(hint) if hint.hostname() == "127.0.0.1" => {
            Some((Ipv4Addr::LOCALHOST, hint.port()).into())
        }
        _ => None,
    };
    side.hints().iter().find_map(find).unwrap()
}

#[tokio::test]
async fn one_connection_wins_and_the_others_are_told() {
    let sender = TransitSender::new(config(1)).unwrap();
    let address = listening(&sender);
    let connecting = tokio::spawn(async move { sender.connect(&[]).await.unwrap() });
    let mut hands = Vec::new();
    for _ in 0..4 {
        hands.push(Hand::dial(Part::Receiver, address).await);
    }
    // All become ready in the same moment, as far as the machine can.
    for hand in &mut hands {
        hand.say().await;
    }
    let mut pipe = soon("connection", connecting).await.unwrap();
    let mut ends = JoinSet::new();
    for mut hand in hands {
        ends.spawn(async move {
            let mut choice = vec![0; 3];
            let read = async {
                hand.greeted().await?;
                hand.stream.read_exact(&mut choice).await
            };
            match soon("choice", read).await {
                Ok(_) if choice == b"go\n" => {
                    hand.handshake.handle_input(&choice).unwrap();
                    Some(hand)
                }
                // Whoever was not ready when another was chosen only sees the end.
                Ok(_) => {
                    choice.extend(hand.rest().await);
                    assert_eq!(choice, b"nevermind\n");
                    None
                }
                Err(_) => None,
            }
        });
    }
    let mut winners: Vec<Hand> = ends.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    // It is the one that the pipe uses, and nobody else can come any more.
    let hand = winners.pop().unwrap();
    let (_, mut opener) = hand.handshake.into_pipe(&mut BytesMut::new()).unwrap();
    pipe.writer.send_record(b"for the winner").await.unwrap();
    let mut stream = hand.stream;
    let record = loop {
        if let Some(record) = opener.next_record().unwrap() {
            break record;
        }
        assert_ne!(soon("bytes", stream.read_buf(opener.buffer())).await.unwrap(), 0);
    };
    assert_eq!(record, "for the winner");
    assert!(TcpStream::connect(address).await.is_err(), "it listens no more");
}

#[tokio::test]
async fn who_comes_too_late_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut late = Hand::dial(Part::Receiver, listener.local_addr().unwrap()).await;
    let greeting = late.handshake.poll_output().unwrap();
    let start = || TransitHandshake::new(Part::Sender, TransitKey::new([1; 32]), Contact::Dialled);
    for (ready, expected) in [(true, &b"nevermind\n"[..]), (false, b"")] {
        let (stream, _) = listener.accept().await.unwrap();
        let mut handshake = start();
        if ready {
            handshake.handle_input(&greeting).unwrap();
        }
        drop(search::Ready(Some((stream, handshake))));
        let next = Hand::dial(Part::Receiver, listener.local_addr().unwrap()).await;
        assert_eq!(std::mem::replace(&mut late, next).rest().await, expected);
    }
}

#[tokio::test]
async fn a_receiver_waits_for_the_choice_and_takes_another_connection() {
    let receiver = TransitReceiver::new(config(1)).unwrap();
    let address = listening(&receiver);
    let connecting = tokio::spawn(async move { receiver.connect(&[]).await.unwrap() });
    let mut hands = Vec::new();
    for _ in 0..3 {
        let mut hand = Hand::dial(Part::Sender, address).await;
        hand.say().await;
        hand.reach(TransitStage::Ready).await;
        hands.push(hand);
    }
    // The first is refused, the second says nonsense; both are over for the Receiver, and it goes on.
    hands[0].stream.write_all(b"nevermind\n").await.unwrap();
    hands[1].stream.write_all(b"go away\n").await.unwrap();
    for hand in hands.drain(..2) {
        assert_eq!(hand.rest().await, b"");
    }
    assert!(!connecting.is_finished());
    let mut hand = hands.pop().unwrap();
    // The choice may come in pieces, and with the first record.
    hand.stream.write_all(b"g").await.unwrap();
    let mut wire = BytesMut::new();
    let (mut sealer, _) = hand.handshake.into_pipe(&mut wire).unwrap();
    sealer.seal(b"first", &mut wire);
    hand.stream.write_all(&wire[1..]).await.unwrap();
    let mut pipe = soon("connection", connecting).await.unwrap();
    assert_eq!(pipe.reader.next_record().await.unwrap().unwrap(), "first");
}

/// A server that accepts and says nothing; what it heard until the end.
async fn mute() -> (Hint, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        heard
    });
    (Hint::Direct(TcpHint::from_addr(address.ip(), address.port())), heard)
}

#[tokio::test]
async fn dropping_the_search_closes_every_socket() {
    let receiver = TransitReceiver::new(config(1)).unwrap();
    let address = listening(&receiver);
    let (hint, heard) = mute().await;
    let mut connecting = Box::pin(async move { receiver.connect(&[hint]).await.is_ok() });
    let mut hand = Hand::dial(Part::Sender, address).await;
    hand.say().await;
    tokio::select! {
        _ = &mut connecting => panic!("nobody chooses"),
        () = hand.reach(TransitStage::Ready) => {}
    }
    drop(connecting);
    assert_eq!(hand.rest().await, b"");
    let heard = soon("end of the dial", heard).await.unwrap();
    assert!(heard.is_empty() || heard.starts_with(b"transit receiver "), "{}", heard.escape_ascii());
    assert!(TcpStream::connect(address).await.is_err(), "it listens no more");
}

#[tokio::test(start_paused = true)]
async fn a_search_ends_when_its_time_is_over_and_says_what_was_tried() {
    // It never accepts; the system does.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap();
    let hint = Hint::Direct(TcpHint::from_addr(address.ip(), address.port()));
    let begin = now();
    let error = TransitSender::new(deaf(1)).unwrap().connect(&[hint]).await.unwrap_err();
    assert!(now() - begin >= Duration::from_secs(120), "{error}");
    let ConnectError::Timeout { timeout, failures } = &error else { panic!("{error}") };
    assert_eq!((*timeout, failures.len()), (Duration::from_secs(120), 1));
    // The first handshake was given up after a minute.
    assert!(
        error.to_string().contains("within 120 s") && error.to_string().contains("within 60 s"),
        "{error}"
    );
}

#[tokio::test]
async fn a_search_ends_when_nothing_is_left() {
    let web = server(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    // The timeout is two minutes away.
    let error = soon("end", TransitSender::new(deaf(1)).unwrap().connect(&[web])).await.unwrap_err();
    assert!(matches!(&error, ConnectError::NothingLeft { failures } if failures.len() == 1), "{error}");
    // Who listens waits on.
    let web = server(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let sender = TransitSender::new(config(1)).unwrap();
    let (hints, receiver) = (sender.hints(), TransitReceiver::new(deaf(1)).unwrap());
    let connecting = tokio::spawn(async move { sender.connect(&[web]).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!connecting.is_finished());
    soon("connection", receiver.connect(&hints)).await.unwrap();
    soon("connection", connecting).await.unwrap().unwrap();
}

/// Relays which only note who is dialled when; they are dialled in this order.
async fn dialled(
    sender: TransitConfig,
    servers: Vec<TcpListener>,
    hints: Vec<Hint>,
) -> Vec<(usize, Duration)> {
    let (begin, count) = (now(), servers.len());
    let mut accepts = JoinSet::new();
    for (index, server) in servers.into_iter().enumerate() {
        accepts.spawn(async move {
            let (stream, _) = server.accept().await.unwrap();
            (index, now() - begin, stream)
        });
    }
    let connecting = tokio::spawn(async move { TransitSender::new(sender).unwrap().connect(&hints).await });
    let mut dialled = Vec::new();
    let mut open = Vec::new();
    for _ in 0..count {
        let (index, when, stream) = accepts.join_next().await.unwrap().unwrap();
        dialled.push((index, when));
        open.push(stream);
    }
    connecting.abort();
    dialled
}

#[tokio::test(start_paused = true)]
async fn relays_wait_for_direct_paths_and_for_better_relays() {
    let mut servers = Vec::new();
    let mut endpoints = Vec::new();
    for _ in 0..4 {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        endpoints.push(TcpHint::from_addr(address.ip(), address.port()));
        servers.push(server);
    }
    let relay =
        |index: usize, priority: f64| RelayHint::new(vec![endpoints[index].clone().with_priority(priority)]);
    // One relay is ours.
    let with = |relays| TransitConfig { relays, ..deaf(1) };
    let direct = Hint::Direct(endpoints[0].clone());
    let peer = [Hint::Relay(RelayHint::new(vec![
        endpoints[2].clone().with_priority(1.0),
        endpoints[1].clone().with_priority(2.0),
    ]))];
    let hints = [vec![direct], peer.to_vec()].concat();
    let when = dialled(with(vec![relay(3, 0.0)]), servers, hints).await;
    let of = |index| when.iter().find(|(i, _)| *i == index).unwrap().1;
    let secs = Duration::from_secs;
    assert!(of(0) < secs(2), "{when:?}");
    assert!(of(1) >= secs(2) && of(1) < secs(4), "{when:?}");
    assert!(of(2) >= secs(4), "{when:?}");
    // Ours has a tier of its own among ours only.
    assert!(of(3) >= secs(2), "{when:?}");
    // Without a direct hint there is nothing to wait for.
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let alone = RelayHint::new(vec![TcpHint::from_addr(address.ip(), address.port())]);
    let when = dialled(deaf(1), vec![server], vec![Hint::Relay(alone)]).await;
    assert!(when[0].1 < secs(2), "{when:?}");
}
