//! The mailbox server over real sockets.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests, too")]

use std::{io::Write as _, net::SocketAddr, time::Duration};

use dilated_mailbox::server::{MailboxServer, ServerConfig, ServerHandle};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

const LONG: Duration = Duration::from_secs(30);

struct Running {
    url: String,
    address: SocketAddr,
    handle: ServerHandle,
    task: JoinHandle<std::io::Result<()>>,
}

async fn start(config: ServerConfig) -> Running {
    let server = MailboxServer::bind("127.0.0.1:0".parse().unwrap(), config).await.unwrap();
    let (url, address, handle) = (server.url(), server.local_addr(), server.handle());
    assert_eq!(url, format!("ws://{address}/v1"));
    Running { url, address, handle, task: tokio::spawn(server.run()) }
}

async fn start_with(change: impl FnOnce(&mut ServerConfig)) -> Running {
    let mut config = ServerConfig::default();
    change(&mut config);
    start(config).await
}

impl Running {
    async fn open(&self, headers: &[(&'static str, &str)]) -> Result<Client, Error> {
        let mut request = self.url.as_str().into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        Ok(Client(client_async(request, stream).await?.0))
    }

    async fn connect(&self) -> Client {
        let mut client = self.open(&[]).await.unwrap();
        assert_eq!(client.next().await["type"], "welcome");
        client
    }

    async fn side(&self, side: &str) -> Client {
        let mut client = self.connect().await;
        client.send(json!({ "type": "bind", "appid": "app", "side": side })).await;
        client
    }

    async fn http(&self, text: &str) -> String {
        // All of it is there before the server, on the same thread, sees the connection and starts its clock.
        let mut stream = std::net::TcpStream::connect(self.address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream).unwrap();
        let mut reply = String::new();
        timeout(LONG, stream.read_to_string(&mut reply)).await.unwrap().unwrap();
        reply
    }

    /// A client that has opened a mailbox, or `None` if the server did not wait for that.
    async fn opened(&self) -> Option<Client> {
        let mut client = self.open(&[]).await.ok()?;
        let bind = json!({ "type": "bind", "appid": "app", "side": "s" });
        for request in
            [bind, json!({ "type": "open", "mailbox": "mb" }), json!({ "type": "ping", "ping": 1 })]
        {
            client.0.send(Message::text(request.to_string())).await.ok()?;
        }
        loop {
            match client.frame().await?.ok()? {
                Message::Text(text) if text.contains("\"pong\"") => return Some(client),
                Message::Text(_) | Message::Ping(_) => {}
                _ => return None,
            }
        }
    }

    async fn until_connections(&self, count: usize) {
        let wait = async {
            while self.handle.stats().connections != count {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(LONG, wait).await.unwrap_or_else(|_| panic!("{:?}", self.handle.stats()));
    }

    async fn stop(self) {
        self.handle.shutdown();
        timeout(LONG, self.task).await.unwrap().unwrap().unwrap();
    }
}

struct Client(WebSocketStream<TcpStream>);

impl Client {
    async fn send(&mut self, request: Value) {
        self.0.send(Message::text(request.to_string())).await.unwrap();
    }

    async fn frame(&mut self) -> Option<Result<Message, Error>> {
        timeout(LONG, self.0.next()).await.expect("an answer in time")
    }

    /// The next message that is no ack.
    async fn next(&mut self) -> Value {
        loop {
            match self.frame().await.unwrap().unwrap() {
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if message["type"] != "ack" {
                        return message;
                    }
                }
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn ask(&mut self, request: Value) -> Value {
        self.send(request).await;
        self.next().await
    }

    /// The close frame's code, and then the end.
    async fn closed(&mut self) -> u16 {
        loop {
            match self.frame().await.unwrap().unwrap() {
                Message::Close(frame) => {
                    assert!(self.frame().await.is_none());
                    return frame.unwrap().code.into();
                }
                Message::Ping(_) => {}
                Message::Text(text) if text.contains("\"ack\"") => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn error_and_close(&mut self, words: &str) -> u16 {
        let answer = self.next().await;
        assert_eq!(answer["type"], "error", "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(words), "{answer}");
        self.closed().await
    }
}

#[tokio::test]
async fn a_whole_session() {
    let server = start(ServerConfig::default()).await;
    let mut a = server.side("a").await;
    let name = a.ask(json!({ "type": "allocate" })).await["nameplate"].as_str().unwrap().to_owned();
    let mailbox = a.ask(json!({ "type": "claim", "nameplate": name })).await["mailbox"].clone();
    a.send(json!({ "type": "open", "mailbox": mailbox })).await;
    assert_eq!(a.ask(json!({ "type": "add", "phase": "pake", "body": "aa", "id": "1" })).await["body"], "aa");

    let mut b = server.side("b").await;
    assert_eq!(b.ask(json!({ "type": "list" })).await["nameplates"], json!([{ "id": name }]));
    assert_eq!(b.ask(json!({ "type": "claim", "nameplate": name })).await["mailbox"], mailbox);
    let replay = b.ask(json!({ "type": "open", "mailbox": mailbox })).await;
    assert_eq!(
        (&replay["side"], &replay["phase"], &replay["id"]),
        (&json!("a"), &json!("pake"), &json!("1"))
    );
    assert!(replay["server_rx"].is_f64() && replay["server_tx"].is_f64());
    b.ask(json!({ "type": "add", "phase": "pake", "body": "bb" })).await;
    assert_eq!(a.next().await["body"], "bb");
    for client in [&mut a, &mut b] {
        assert_eq!(client.ask(json!({ "type": "release" })).await["type"], "released");
        assert_eq!(client.ask(json!({ "type": "close", "mood": "happy" })).await["type"], "closed");
    }
    // The statistics are published behind the answers.
    let counted = async {
        while server.handle.stats().usage.mailboxes.happy != 1 {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(LONG, counted).await.unwrap_or_else(|_| panic!("{:?}", server.handle.stats()));
    a.0.close(None).await.unwrap();
    drop(b);
    server.until_connections(0).await;
    server.stop().await;
}

#[tokio::test]
async fn binary_input_is_text_too() {
    let server = start(ServerConfig::default()).await;
    let mut client = server.connect().await;
    client.0.send(Message::binary(br#"{"type":"ping","ping":"\u00e9"}"#.to_vec())).await.unwrap();
    assert_eq!(client.next().await["pong"], "é");
    client.0.send(Message::binary(vec![0xff, 0xfe])).await.unwrap();
    assert_eq!(client.error_and_close("JSON").await, 1007);
}

#[tokio::test]
async fn plain_http() {
    let server = start(ServerConfig::default()).await;
    let root = server.http("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(root.starts_with("HTTP/1.1 200 OK\r\n") && root.ends_with("\r\n\r\nWormhole Relay\n"), "{root}");
    assert!(server.http("HEAD / HTTP/1.1\r\n\r\n").await.ends_with("\r\n\r\n"));
    assert!(server.http("POST / HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 405"));
    assert!(server.http("GET /v1 HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 426"));
    assert!(server.http("GET /v2 HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 404"));
    assert!(server.http("please relay\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let large = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(20_000));
    assert!(server.http(&large).await.starts_with("HTTP/1.1 431"));
    server.until_connections(0).await;
}

#[tokio::test]
async fn messages_that_are_too_large() {
    let server = start_with(|config| config.limits.websocket_message = 1000).await;
    let mut client = server.connect().await;
    client.send(json!({ "type": "ping", "ping": "x".repeat(900) })).await;
    assert_eq!(client.next().await["type"], "pong");
    // Much larger, so that most of it is unread when the server gives up.
    client.send(json!({ "type": "ping", "ping": "x".repeat(300_000) })).await;
    let answer = client.next().await;
    assert_eq!(answer["error"], "a message may have at most 1000 bytes");
    assert_eq!(client.closed().await, 1009);
    server.until_connections(0).await;
}

#[tokio::test]
async fn requests_that_make_no_sense() {
    let server = start(ServerConfig::default()).await;
    let mut client = server.connect().await;
    client.0.send(Message::text("nonsense")).await.unwrap();
    assert_eq!(client.error_and_close("JSON").await, 1007);
    let mut client = server.side("s").await;
    client.send(json!({ "type": "claim", "nameplate": "four" })).await;
    assert_eq!(client.error_and_close("digits").await, 1008);
    // Text that is not UTF-8: nothing but raw bytes can send that.
    let mut client = server.connect().await;
    client.0.get_mut().write_all(&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xff]).await.unwrap();
    assert_eq!(client.error_and_close("UTF-8").await, 1007);
    // A frame without its mask.
    let mut client = server.connect().await;
    client.0.get_mut().write_all(&[0x81, 0x02, b'{', b'}']).await.unwrap();
    assert_eq!(client.closed().await, 1002);
    server.until_connections(0).await;
}

#[tokio::test]
async fn a_slow_reader_is_closed_and_harms_nobody() {
    let server = start_with(|config| {
        config.limits.outgoing_queue = 1 << 20;
        config.limits.mailbox_bytes = 1 << 30;
        config.limits.store_bytes = 1 << 30;
    })
    .await;
    let mut slow = server.side("slow").await;
    slow.send(json!({ "type": "open", "mailbox": "mb" })).await;
    slow.ask(json!({ "type": "ping", "ping": 1 })).await;
    let mut quick = server.side("quick").await;
    quick.send(json!({ "type": "open", "mailbox": "mb" })).await;
    server.until_connections(2).await;
    let body = "0".repeat(512 << 10);
    let mut sent = 0;
    while server.handle.stats().connections == 2 {
        let echo = quick.ask(json!({ "type": "add", "phase": sent.to_string(), "body": body })).await;
        assert_eq!(echo["type"], "message");
        sent += 1;
        assert!(sent < 200, "the slow reader collects everything");
    }
    assert_eq!(quick.ask(json!({ "type": "ping", "ping": 1 })).await["type"], "pong");
    while let Some(Ok(_)) = slow.frame().await {}
}

#[tokio::test]
async fn too_many_connections() {
    let status = |result: Result<Client, Error>| match result {
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
        Ok(_) => 101,
    };
    let server = start_with(|config| config.limits.connections_per_address = 2).await;
    let kept = [server.connect().await, server.connect().await];
    assert_eq!(status(server.open(&[]).await), 429);
    drop(kept);
    server.until_connections(0).await;
    server.connect().await;

    let server = start_with(|config| config.limits.connections = 1).await;
    let _kept = server.connect().await;
    let mut refused = TcpStream::connect(server.address).await.unwrap();
    let mut reply = String::new();
    timeout(LONG, refused.read_to_string(&mut reply)).await.unwrap().unwrap();
    assert!(reply.starts_with("HTTP/1.1 503"), "{reply}");
}

#[tokio::test]
async fn addresses_behind_a_proxy() {
    let headers = [("x-real-ip", "2001:db8::7"), ("x-real-port", "4711")];
    let honest = start(ServerConfig::default()).await;
    let mut client = honest.open(&headers).await.unwrap();
    assert_eq!(
        client.next().await["welcome"]["your-address"]["ipv4"],
        "127.0.0.1",
        "anybody can send headers"
    );

    let behind = start_with(|config| {
        config.trust_real_ip = true;
        config.limits.connections_per_address = 1;
    })
    .await;
    let mut client = behind.open(&headers).await.unwrap();
    let expected = json!({ "ipv6": "2001:db8::7", "port": 4711 });
    assert_eq!(client.next().await["welcome"]["your-address"], expected);
    assert!(behind.open(&[("x-real-ip", "2001:db8::8")]).await.is_err(), "the same /64");
    behind.open(&[("x-real-ip", "192.0.2.1")]).await.unwrap();
}

/// Whoever speaks TLS to it gets an answer, not silence: a client then says that the address is one without TLS.
#[tokio::test]
async fn what_is_no_text_is_answered_at_once() {
    let server = start_with(|config| config.limits.handshake_timeout = 2 * LONG).await;
    // The beginning of a hello that is longer.
    let reply = server.http("\u{16}\u{3}\u{1}\u{2}\0\u{1}").await;
    assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
}

#[tokio::test]
async fn silent_connections() {
    let short = Duration::from_millis(100);
    let server = start_with(|config| config.limits.handshake_timeout = short).await;
    assert_eq!(server.http("GET / HT").await, "");
    let server = start_with(|config| config.limits.bind_timeout = short).await;
    assert_eq!(server.connect().await.error_and_close("bind").await, 1008);
    let server = start_with(|config| config.limits.idle_timeout = Duration::from_millis(600)).await;
    assert_eq!(server.side("s").await.closed().await, 1001);
    // On a machine that is too slow to open the mailbox in time, again.
    let opening = async {
        loop {
            if let Some(client) = server.opened().await {
                return client;
            }
        }
    };
    let mut open = timeout(LONG, opening).await.unwrap();
    sleep(Duration::from_millis(900)).await;
    assert_eq!(open.ask(json!({ "type": "ping", "ping": 1 })).await["type"], "pong");
}

#[tokio::test]
async fn pings_find_the_dead() {
    let server = start_with(|config| {
        config.ping_interval = Duration::from_millis(50);
        config.ping_timeout = Duration::from_secs(1);
    })
    .await;
    let mut alive = server.side("alive").await;
    let _dead = server.side("dead").await;
    server.until_connections(2).await;
    // Reading is what answers pings.
    let reading = async {
        loop {
            assert!(matches!(alive.frame().await, Some(Ok(Message::Ping(_) | Message::Text(_)))));
        }
    };
    tokio::select! {
        () = reading => {}
        () = server.until_connections(1) => {}
    }
    assert_eq!(alive.ask(json!({ "type": "ping", "ping": 1 })).await["type"], "pong");
}

/// The server is stopped, or gets no processor time, for longer than it waits for a sign of life.
#[tokio::test]
async fn time_in_which_the_server_did_not_look_is_not_held_against_clients() {
    let server = start(ServerConfig::default()).await;
    let mut client = server.side("s").await;
    client.ask(json!({ "type": "ping", "ping": 1 })).await;
    for round in 0..5 {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(3600)).await;
        tokio::time::resume();
        assert_eq!(client.ask(json!({ "type": "ping", "ping": round })).await["pong"], round);
    }
}

#[tokio::test]
async fn shutdown_says_goodbye() {
    let server = start(ServerConfig::default()).await;
    let mut client = server.connect().await;
    let address = server.address;
    let (code, ()) = tokio::join!(client.closed(), server.stop());
    assert_eq!(code, 1001);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let server = start(ServerConfig::default()).await;
    assert!(MailboxServer::bind(server.address, ServerConfig::default()).await.is_err());
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use dilated_mailbox::server::StoreKind;

    use super::*;

    #[tokio::test]
    async fn clients_do_not_notice_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = StoreKind::Sqlite(dir.path().join("mailbox.sqlite"));
        let server = start_with(|config| config.store = store.clone()).await;
        let (mut a, mut b, mut c) = (server.side("a").await, server.side("b").await, server.side("c").await);
        let claim = json!({ "type": "claim", "nameplate": "4" });
        let mailbox = a.ask(claim.clone()).await["mailbox"].clone();
        assert_eq!(b.ask(claim.clone()).await["mailbox"], mailbox);
        assert_eq!(c.ask(claim.clone()).await["error"], "crowded");
        a.send(json!({ "type": "open", "mailbox": mailbox })).await;
        a.ask(json!({ "type": "add", "phase": "pake", "body": "aa" })).await;
        server.stop().await;

        let server = start_with(|config| config.store = store.clone()).await;
        for side in ["a", "b"] {
            let mut client = server.side(side).await;
            assert_eq!(client.ask(claim.clone()).await["mailbox"], mailbox, "no ghost of the third side");
            assert_eq!(client.ask(json!({ "type": "open", "mailbox": mailbox })).await["body"], "aa");
        }
        assert_eq!(server.side("c").await.ask(claim).await["error"], "crowded");
        server.stop().await;
    }

    #[tokio::test]
    async fn what_was_answered_is_stored_even_if_the_server_is_torn_down() {
        let dir = tempfile::tempdir().unwrap();
        let store = StoreKind::Sqlite(dir.path().join("mailbox.sqlite"));
        let server = start_with(|config| config.store = store.clone()).await;
        let mut a = server.side("a").await;
        a.send(json!({ "type": "open", "mailbox": "mb" })).await;
        a.ask(json!({ "type": "add", "phase": "0", "body": "aa" })).await;
        server.task.abort();
        let server = start_with(|config| config.store = store.clone()).await;
        let mut b = server.side("b").await;
        assert_eq!(b.ask(json!({ "type": "open", "mailbox": "mb" })).await["body"], "aa");
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_opened_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let config = ServerConfig { store: StoreKind::Sqlite(dir.path().into()), ..ServerConfig::default() };
        let error = MailboxServer::bind("127.0.0.1:0".parse().unwrap(), config).await.unwrap_err();
        assert!(error.to_string().contains("store"), "{error}");
    }
}
