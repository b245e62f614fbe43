//! `dilated doctor`, with servers on loopback and with what is none.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod common;

use std::net::SocketAddr;

use common::{Serve, dilated, nobody, signal, soon};
use dilated::server::{MailboxServer, ServerConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    process::Command,
};

/// What it said, and how it ended.
struct Diagnosis {
    status: i32,
    lines: Vec<String>,
    failure: String,
}

impl Diagnosis {
    async fn of(mut command: Command, arguments: &[&str]) -> Diagnosis {
        let output = soon("the diagnosis", command.arg("doctor").args(arguments).output()).await.unwrap();
        let (said, failure) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(!said.contains('\x1b') && !failure.contains('\x1b'), "{said:?} {failure:?}");
        assert!(!failure.contains("panicked"), "{failure}");
        let lines = said.lines().map(str::to_owned).collect();
        Diagnosis { status: output.status.code().unwrap(), lines, failure }
    }

    /// The lines about something.
    fn about(&self, subject: &str) -> Vec<&str> {
        let named = |line: &&str| line.split_whitespace().nth(1) == Some(subject);
        self.lines.iter().map(String::as_str).filter(named).collect()
    }

    /// The only line about something, which must have this mark and say this.
    #[track_caller]
    fn says(&self, mark: &str, subject: &str, part: &str) {
        let lines = self.about(subject);
        let found = matches!(lines[..], [line] if line.starts_with(mark) && line.contains(part));
        assert!(
            found,
            "no single `{mark} {subject}` with {part:?} in\n{}\n{}",
            self.lines.join("\n"),
            self.failure
        );
    }
}

/// A server that answers the first bytes of each connection with `answer`, and ends the connection if there is one.
async fn something_else(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                if answer.is_empty() {
                    // Until the other end leaves.
                    while matches!(stream.read(&mut request).await, Ok(1..)) {}
                }
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn all_is_well() {
    let serve = Serve::start().await;
    let diagnosis = Diagnosis::of(serve.dilated(), &[]).await;
    assert_eq!(diagnosis.status, 0, "{}", diagnosis.failure);
    assert_eq!(diagnosis.failure, "");
    diagnosis.says("ok", "mailbox", &format!("{}: welcome after ", serve.mailbox));
    diagnosis.says("ok", "relay", &format!("{}: two sides met there", serve.relay));
    diagnosis.says("skip", "nat", "sees us as 127.0.0.1, so it is on this machine");
    diagnosis.says("skip", "clock", "no server here tells the time");
    diagnosis.says("ok", "hints", "tcp:127.0.0.1:PORT");
    diagnosis.says("ok", "hints", &format!("relay {}", serve.relay));
    diagnosis.says("ok", "summary", "the relay");
    for subject in ["addresses", "listener"] {
        assert_eq!(diagnosis.about(subject).len(), 1, "{subject}");
    }
    assert!(diagnosis.about("motd").is_empty());
}

#[tokio::test]
async fn the_servers_words_are_shown_escaped() {
    let serve =
        Serve::with(&["--no-relay", "--mailbox-listen", "127.0.0.1:0", "--motd", "tea\x1b[2J\nfail"]).await;
    let diagnosis = Diagnosis::of(serve.dilated(), &[]).await;
    assert_eq!(diagnosis.status, 0, "{}", diagnosis.failure);
    diagnosis.says("ok", "motd", "says: tea\\u{1b}[2J\\u{a}fail");
    // This one runs no relay.
    diagnosis.says("skip", "relay", "--relay none");
    diagnosis.says("warn", "summary", "no relay can be used");
}

#[tokio::test]
async fn a_server_that_refuses_is_a_failure() {
    let mut config = ServerConfig::default();
    config.welcome.error = Some("closed for \x1b[31mrepairs".to_owned());
    let server = MailboxServer::bind("127.0.0.1:0".parse::<SocketAddr>().unwrap(), config).await.unwrap();
    let url = server.url();
    tokio::spawn(server.run());
    let diagnosis = Diagnosis::of(dilated(), &["--relay", "none", "--mailbox", &url]).await;
    assert_eq!(diagnosis.status, 5);
    diagnosis.says("fail", "mailbox", "refuses this client: closed for");
}

#[tokio::test]
async fn a_dead_mailbox_is_a_failure_unless_there_is_another() {
    let serve = Serve::start().await;
    let (_nobody, dead) = nobody();
    let dead = format!("ws://{dead}/v1");
    let diagnosis = Diagnosis::of(serve.dilated(), &["--mailbox", &dead]).await;
    assert_eq!(diagnosis.status, 5);
    diagnosis.says("fail", "mailbox", "nothing listens there; check the address and the port");
    diagnosis.says("skip", "nat", "no mailbox server told us");
    diagnosis.says("ok", "relay", "two sides met there");
    assert!(diagnosis.failure.contains("no mailbox server can be used"), "{}", diagnosis.failure);
    assert_eq!(diagnosis.failure.lines().count(), 1, "{}", diagnosis.failure);

    let both = format!("{dead},{}", serve.mailbox);
    let diagnosis = Diagnosis::of(serve.dilated(), &["--mailbox", &both]).await;
    assert_eq!(diagnosis.status, 0, "{}", diagnosis.failure);
    let lines = diagnosis.about("mailbox");
    assert!(lines[0].starts_with("warn") && lines[1].starts_with("ok"), "{lines:?}");
}

#[tokio::test]
async fn what_is_no_mailbox_server_is_told() {
    let serve = Serve::start().await;
    let plain = serve.mailbox.replace("ws://", "wss://");
    let diagnosis = Diagnosis::of(serve.dilated(), &["--mailbox", &plain]).await;
    assert_eq!(diagnosis.status, 5);
    diagnosis.says("fail", "mailbox", "TLS failed");
    diagnosis.says("fail", "mailbox", "without TLS the address begins with ws://");

    let web = something_else("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    let diagnosis = Diagnosis::of(serve.dilated(), &["--mailbox", &format!("ws://{web}/v1")]).await;
    assert_eq!(diagnosis.status, 5);
    diagnosis.says("fail", "mailbox", "it is not a websocket server");

    let diagnosis = Diagnosis::of(serve.dilated(), &["--mailbox", "http://example.org"]).await;
    assert_eq!(diagnosis.status, 2, "{}", diagnosis.failure);
    assert!(diagnosis.lines.is_empty(), "{:?}", diagnosis.lines);
}

#[tokio::test]
async fn what_is_no_relay_is_a_warning() {
    let serve = Serve::start().await;
    let web = something_else("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let stranger = something_else("bad handshake\n").await;
    let silent = something_else("").await;
    let (_nobody, dead) = nobody();
    let expected = [
        (dead, "nothing listens there"),
        (web, "a web server answers there (HTTP/1.1 400 Bad Request)"),
        (stranger, "(bad handshake)"),
        (silent, "did not bring two sides together within"),
    ];
    let relays: Vec<String> = expected.iter().map(|(address, _)| format!("tcp:{address}")).collect();
    let diagnosis = Diagnosis::of(serve.dilated(), &["--relay", &relays.join(",")]).await;
    assert_eq!(diagnosis.status, 0, "{}", diagnosis.failure);
    let lines = diagnosis.about("relay");
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, (_, reason)) in lines.iter().zip(expected) {
        assert!(line.starts_with("warn") && line.contains(reason), "{reason:?} is not in {line}");
    }
    diagnosis.says("warn", "summary", "no relay can be used");
}

#[tokio::test]
async fn without_a_listener_and_a_relay_nothing_is_advertised() {
    let serve = Serve::start().await;
    let diagnosis = Diagnosis::of(serve.dilated(), &["--no-listen", "--relay", "none"]).await;
    assert_eq!(diagnosis.status, 0, "{}", diagnosis.failure);
    diagnosis.says("skip", "listener", "--no-listen");
    diagnosis.says("warn", "hints", "would be told nothing");
    diagnosis.says("warn", "summary", "nobody can connect to this side");
}

#[tokio::test]
async fn it_can_be_interrupted_while_a_server_is_silent() {
    let silent = something_else("").await;
    let mut command = dilated();
    command.args(["doctor", "--relay", "none", "--mailbox", &format!("ws://{silent}/v1")]);
    let mut child = command.spawn().unwrap();
    let mut first = [0; 4];
    let stdout = child.stdout.as_mut().unwrap();
    soon("the first line", stdout.read_exact(&mut first)).await.unwrap();
    signal(&child, "INT").await;
    assert_eq!(soon("the end", child.wait()).await.unwrap().code(), Some(130));
}
