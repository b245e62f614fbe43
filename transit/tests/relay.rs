//! The relay over real sockets.
#![cfg(feature = "relay")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

use std::{io::Write as _, net::SocketAddr, time::Duration};

use dilated_transit::relay::{Relay, RelayConfig, RelayHandle, RelayStats};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Far longer than anything takes, so that only a hang ends it.
const LONG: Duration = Duration::from_secs(30);

struct Running {
    address: SocketAddr,
    handle: RelayHandle,
    task: JoinHandle<std::io::Result<()>>,
}

async fn start(config: RelayConfig) -> Running {
    let relay = Relay::bind("127.0.0.1:0".parse().unwrap(), config).await.unwrap();
    assert_eq!(relay.hint(), format!("tcp:127.0.0.1:{}", relay.local_addr().port()));
    Running { address: relay.local_addr(), handle: relay.handle(), task: tokio::spawn(relay.run()) }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ask(&self, text: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    async fn client(&self, token: char, side: Option<char>) -> TcpStream {
        self.ask(&line(token, side)).await
    }

    /// Waits until the relay is in a certain state.
    async fn until(&self, what: impl Fn(&RelayStats) -> bool) {
        let wait = async {
            while !what(&self.handle.stats()) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(LONG, wait).await.unwrap_or_else(|_| panic!("{:?}", self.handle.stats()));
    }

    async fn pair(&self) -> (TcpStream, TcpStream) {
        let mut one = self.client('a', Some('1')).await;
        self.until(|stats| stats.waiting == 1).await;
        let mut two = self.client('a', Some('2')).await;
        expect(&mut one, b"ok\n").await;
        expect(&mut two, b"ok\n").await;
        (one, two)
    }
}

fn line(token: char, side: Option<char>) -> String {
    let token = token.to_string().repeat(64);
    match side {
        Some(side) => format!("please relay {token} for side {}\n", side.to_string().repeat(16)),
        None => format!("please relay {token}\n"),
    }
}

async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut buffer = vec![0; bytes.len()];
    timeout(LONG, stream.read_exact(&mut buffer)).await.expect("in time").unwrap();
    assert_eq!(buffer, bytes);
}

/// Everything until the relay closes.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut buffer = Vec::new();
    timeout(LONG, stream.read_to_end(&mut buffer)).await.expect("in time").unwrap();
    buffer
}

#[tokio::test]
async fn every_combination_of_forms_meets() {
    let relay = start(RelayConfig::default()).await;
    for (first, second) in [(None, None), (Some('1'), None), (None, Some('1')), (Some('1'), Some('2'))] {
        let mut one = relay.client('t', first).await;
        relay.until(|stats| stats.waiting == 1).await;
        let mut two = relay.client('t', second).await;
        expect(&mut one, b"ok\n").await;
        expect(&mut two, b"ok\n").await;
        one.write_all(b"from one").await.unwrap();
        expect(&mut two, b"from one").await;
        two.write_all(b"from two").await.unwrap();
        expect(&mut one, b"from two").await;
        drop(one);
        assert!(rest(&mut two).await.is_empty());
        drop(two);
        relay.until(|stats| stats.connections == 0).await;
    }
    relay.until(|stats| stats.relayed == 4 * 16).await;
}

#[tokio::test]
async fn leftovers_of_the_token_are_closed_at_pairing() {
    let relay = start(RelayConfig::default()).await;
    let mut old = relay.client('t', Some('1')).await;
    relay.until(|stats| stats.waiting == 1).await;
    let mut new = relay.client('t', Some('1')).await;
    relay.until(|stats| stats.waiting == 2).await;
    let mut partner = relay.client('t', Some('2')).await;
    expect(&mut partner, b"ok\n").await;
    expect(&mut new, b"ok\n").await;
    assert!(rest(&mut old).await.is_empty());
    partner.write_all(b"x").await.unwrap();
    expect(&mut new, b"x").await;
}

#[tokio::test]
async fn who_left_while_waiting_is_forgotten() {
    let relay = start(RelayConfig::default()).await;
    drop(relay.client('t', Some('1')).await);
    relay.until(|stats| stats.connections == 0).await;
    let _second = relay.client('t', Some('2')).await;
    relay.until(|stats| stats.waiting == 1).await;
    assert_eq!(relay.handle.stats().pairs, 0);
}

#[tokio::test]
async fn bad_lines_are_answered() {
    let relay = start(RelayConfig::default()).await;
    let garbage = "x".repeat(5000);
    for text in ["please DELAY\n", "\n", "please relay short for side short\n", "\0\u{1}\u{e0}\n", &garbage] {
        assert_eq!(rest(&mut relay.ask(text).await).await, b"bad handshake\n", "{text:?}");
    }
    // In two pieces.
    let mut slow = relay.ask("please DELAY ").await;
    sleep(Duration::from_millis(20)).await;
    slow.write_all(b"whatever\n").await.unwrap();
    assert_eq!(rest(&mut slow).await, b"bad handshake\n");
    // Gone before saying anything, or enough.
    drop(relay.ask("short").await);
    drop(relay.connect().await);
    relay.until(|stats| stats.connections == 0).await;
}

#[tokio::test]
async fn impatience_is_answered() {
    let relay = start(RelayConfig::default()).await;
    for side in [None, Some('1')] {
        let mut quick = relay.ask(&(line('t', side) + "NOWNOWNOW")).await;
        assert_eq!(rest(&mut quick).await, b"impatient\n");
        let mut slow = relay.client('t', side).await;
        relay.until(|stats| stats.waiting == 1).await;
        slow.write_all(b"NOW").await.unwrap();
        assert_eq!(rest(&mut slow).await, b"impatient\n");
        relay.until(|stats| stats.waiting == 0).await;
    }
}

#[tokio::test]
async fn the_second_client_may_send_at_once() {
    let relay = start(RelayConfig::default()).await;
    let mut one = relay.client('t', Some('1')).await;
    relay.until(|stats| stats.waiting == 1).await;
    let mut two = relay.ask(&(line('t', Some('2')) + "early")).await;
    expect(&mut two, b"ok\n").await;
    expect(&mut one, b"ok\nearly").await;
}

#[tokio::test]
async fn http_gets_a_sentence() {
    let relay = start(RelayConfig::default()).await;
    let reply = rest(&mut relay.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await).await;
    let reply = String::from_utf8(reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"));
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head} {}", body.len());
    assert!(body.starts_with("This is a transit relay"));
}

#[tokio::test]
async fn the_last_bytes_arrive() {
    let relay = start(RelayConfig::default()).await;
    for chatty in [false, true] {
        let (mut one, mut two) = relay.pair().await;
        let data = vec![7; 3 << 20];
        let sent = data.clone();
        // The receiver talks, too, and nobody reads that: the relay must not reset because of it.
        let sender = tokio::spawn(async move {
            one.write_all(&sent).await.unwrap();
            one
        });
        if chatty {
            two.write_all(&[1; 10_000]).await.unwrap();
        }
        let mut received = vec![0; 1 << 20];
        two.read_exact(&mut received).await.unwrap();
        let reading = tokio::spawn(async move {
            let mut rest = Vec::new();
            two.read_to_end(&mut rest).await.map(|_| rest)
        });
        let mut one = sender.await.unwrap();
        one.shutdown().await.unwrap();
        let rest = timeout(LONG, reading).await.unwrap().unwrap().unwrap();
        assert_eq!(received.len() + rest.len(), data.len());
    }
}

#[tokio::test]
async fn a_slow_reader_stops_the_sender() {
    let relay = start(RelayConfig::default()).await;
    let (mut one, mut two) = relay.pair().await;
    let chunk = vec![9; 64 << 10];
    let mut written = 0;
    while let Ok(len) = timeout(Duration::from_millis(300), one.write(&chunk)).await {
        written += len.unwrap();
        assert!(written < 64 << 20, "the relay takes everything");
    }
    // The other direction still works.
    two.write_all(b"hello").await.unwrap();
    expect(&mut one, b"hello").await;
    let mut received = vec![0; written];
    timeout(LONG, two.read_exact(&mut received)).await.unwrap().unwrap();
    relay.until(|stats| stats.relayed == written as u64 + 5).await;
}

#[tokio::test]
async fn limits_of_connections() {
    let relay = start(RelayConfig { connections: 3, ..RelayConfig::default() }).await;
    let kept = [relay.connect().await, relay.connect().await, relay.connect().await];
    relay.until(|stats| stats.connections == 3).await;
    assert_eq!(rest(&mut relay.connect().await).await, b"relay full\n");
    drop(kept);
    relay.until(|stats| stats.connections == 0).await;
    relay.pair().await;

    let relay = start(RelayConfig { connections_per_address: 1, ..RelayConfig::default() }).await;
    let _kept = relay.connect().await;
    relay.until(|stats| stats.connections == 1).await;
    assert_eq!(rest(&mut relay.connect().await).await, b"relay full\n");
}

#[tokio::test]
async fn limits_of_waiting() {
    let config = RelayConfig { waiting: 2, waiting_per_token: 1, ..RelayConfig::default() };
    let relay = start(config).await;
    let mut first = relay.client('a', Some('1')).await;
    relay.until(|stats| stats.waiting == 1).await;
    let _newer = relay.client('a', Some('1')).await;
    assert!(rest(&mut first).await.is_empty(), "the oldest of its token goes");
    let _other = relay.client('b', Some('1')).await;
    relay.until(|stats| stats.waiting == 2).await;
    assert_eq!(rest(&mut relay.client('c', Some('1')).await).await, b"relay full\n");
    let mut partner = relay.client('b', Some('2')).await;
    expect(&mut partner, b"ok\n").await;
}

#[tokio::test]
async fn timeouts() {
    let short = Duration::from_millis(60);
    let config = RelayConfig { handshake_timeout: short, ..RelayConfig::default() };
    let relay = start(config).await;
    assert_eq!(rest(&mut relay.connect().await).await, b"bad handshake\n");
    // It is all there before the relay, on the same thread, sees the connection and starts its clock.
    let mut early = std::net::TcpStream::connect(relay.address).unwrap();
    early.write_all(b"please re").unwrap();
    early.set_nonblocking(true).unwrap();
    assert_eq!(rest(&mut TcpStream::from_std(early).unwrap()).await, b"bad handshake\n");

    let relay = start(RelayConfig { waiting_timeout: short, ..RelayConfig::default() }).await;
    assert!(rest(&mut relay.client('t', None).await).await.is_empty());
    relay.until(|stats| stats.waiting == 0).await;

    let relay = start(RelayConfig { pair_idle: Duration::from_millis(800), ..RelayConfig::default() }).await;
    let (mut one, mut two) = relay.pair().await;
    for _ in 0..15 {
        sleep(Duration::from_millis(100)).await;
        one.write_all(b"x").await.unwrap();
        expect(&mut two, b"x").await;
    }
    assert!(rest(&mut one).await.is_empty());
    assert!(rest(&mut two).await.is_empty());
    drop((one, two));
    relay.until(|stats| stats.connections == 0).await;
}

/// The relay is stopped, or gets no processor time, for longer than a pair may be idle.
#[tokio::test]
async fn time_in_which_the_relay_did_not_look_is_not_held_against_a_pair() {
    let relay = start(RelayConfig::default()).await;
    let (mut one, mut two) = relay.pair().await;
    for _ in 0..3 {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(24 * 3600)).await;
        tokio::time::resume();
        one.write_all(b"x").await.unwrap();
        expect(&mut two, b"x").await;
    }
}

#[tokio::test]
async fn shutdown_closes_everything() {
    let relay = start(RelayConfig::default()).await;
    let (mut one, _two) = relay.pair().await;
    let mut waiting = relay.client('b', None).await;
    relay.until(|stats| stats.waiting == 1).await;
    relay.handle.shutdown();
    timeout(LONG, relay.task).await.unwrap().unwrap().unwrap();
    for stream in [&mut one, &mut waiting] {
        let mut buffer = Vec::new();
        let _ = timeout(LONG, stream.read_to_end(&mut buffer)).await.expect("in time");
        assert!(buffer.is_empty());
    }
    assert_eq!(relay.handle.stats().connections, 0);
    assert!(TcpStream::connect(relay.address).await.is_err());
}

#[tokio::test]
async fn many_pairs_at_once() {
    let relay = start(RelayConfig::default()).await;
    let tokens: Vec<char> = ('a'..='z').collect();
    let mut tasks = Vec::new();
    for token in tokens {
        for side in ['1', '2'] {
            let mut stream = relay.client(token, Some(side)).await;
            tasks.push(tokio::spawn(async move {
                expect(&mut stream, b"ok\n").await;
                let text = format!("{token}{side}").repeat(1000);
                stream.write_all(text.as_bytes()).await.unwrap();
                let other = if side == '1' { '2' } else { '1' };
                expect(&mut stream, format!("{token}{other}").repeat(1000).as_bytes()).await;
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    relay.until(|stats| stats.connections == 0).await;
}
