//! Everything through a SOCKS5 proxy.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod common;

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use common::{Pipe, Serve, dilated, nobody, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

/// A SOCKS5 server (RFC 1928) that knows names which nobody else does.
#[derive(Clone, Default)]
struct Socks {
    names: BTreeMap<String, SocketAddr>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Socks {
    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socks = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let socks = socks.clone();
                // An error is the end of that client.
                tokio::spawn(async move { drop(socks.serve(client).await) });
            }
        });
        address
    }

    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        assert_eq!(client.read_u8().await?, 5);
        let mut methods = vec![0; client.read_u8().await?.into()];
        client.read_exact(&mut methods).await?;
        assert!(methods.contains(&0));
        client.write_all(&[5, 0]).await?;
        let mut request = [0; 4];
        client.read_exact(&mut request).await?;
        assert_eq!(request[..3], [5, 1, 0], "CONNECT");
        let host = match request[3] {
            1 => Ipv4Addr::from(client.read_u32().await?).to_string(),
            3 => {
                let mut name = vec![0; client.read_u8().await?.into()];
                client.read_exact(&mut name).await?;
                String::from_utf8(name).unwrap()
            }
            other => panic!("address type {other}"),
        };
        let asked = format!("{host}:{}", client.read_u16().await?);
        self.asked.lock().unwrap().push(asked.clone());
        let Some(server) = self.names.get(&asked) else {
            return client.write_all(&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0]).await;
        };
        let mut server = TcpStream::connect(server).await?;
        client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        copy_bidirectional(&mut client, &mut server).await.map(drop)
    }

    fn asked(&self, name: &str) -> bool {
        self.asked.lock().unwrap().iter().any(|asked| asked == name)
    }
}

const MAILBOX: &str = "mailbox.invalid:4000";
const RELAY: &str = "relay.invalid:4001";

/// Servers that are reached through the proxy only: nobody else knows their names.
async fn hidden(serve: &Serve) -> (Socks, SocketAddr) {
    let mailbox = serve.mailbox.strip_prefix("ws://").unwrap().strip_suffix("/v1").unwrap();
    let relay = serve.relay.strip_prefix("tcp:").unwrap();
    let names =
        [(MAILBOX, mailbox), (RELAY, relay)].map(|(name, at)| (name.to_owned(), at.parse().unwrap())).into();
    let socks = Socks { names, ..Socks::default() };
    let address = socks.start().await;
    (socks, address)
}

fn run(proxy: SocketAddr, arguments: &[&str]) -> Pipe {
    let mut command = dilated();
    let (mailbox, relay) = (format!("ws://{MAILBOX}/v1"), format!("tcp:{RELAY}"));
    command.args(["--mailbox", &mailbox, "--relay", &relay, "--proxy", &format!("socks5://{proxy}")]);
    command.args(arguments);
    Pipe::spawn(command)
}

#[tokio::test]
async fn two_sides_meet_where_only_the_proxy_leads() {
    let serve = Serve::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (sent, received) = (file("sent"), file("received"));
    std::fs::write(&sent, "hidden").unwrap();
    // Whether there is more than the mailbox server to connect to.
    for (begin, join, link) in [
        (&["pipe"][..], &["pipe"][..], true),
        (&["send", "--text", "hidden"], &["receive"], false),
        (&["send", "--classic", &sent], &["receive", "--yes", "--output", &received], true),
    ] {
        let (socks, proxy) = hidden(&serve).await;
        let mut a = run(proxy, begin);
        let mut b = run(proxy, &[join, &[&a.code().await]].concat());
        a.feed("hidden");
        b.feed("");
        let (output, _) = tokio::join!(b.read(), a.read());
        tokio::join!(a.succeed(), b.succeed());
        if join.contains(&received.as_str()) {
            assert_eq!(std::fs::read(&received).unwrap(), b"hidden");
        } else {
            assert_eq!(String::from_utf8_lossy(&output).trim(), "hidden", "{}", b.lines.all());
        }
        assert!(socks.asked(MAILBOX) && (!link || socks.asked(RELAY)), "{:?}", socks.asked.lock().unwrap());
    }
}

#[tokio::test]
async fn doctor_asks_through_the_proxy() {
    let serve = Serve::start().await;
    let (socks, proxy) = hidden(&serve).await;
    let mut doctor = run(proxy, &["doctor"]);
    let said = String::from_utf8(doctor.read().await).unwrap();
    assert_eq!(doctor.status().await, 0, "{said}{}", doctor.lines.all());
    assert!(socks.asked(MAILBOX) && socks.asked(RELAY), "{said}");
    for part in ["ok    relay", "skip  listener", "behind the proxy"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
}

#[tokio::test]
async fn without_the_proxy_nothing_is_tried() {
    let serve = Serve::start().await;
    let (_nobody, proxy) = nobody();
    let mut command = serve.dilated();
    command.args(["--proxy", &format!("socks5://{proxy}"), "send", "--text", "x"]);
    // The servers can be reached directly, and are not.
    Pipe::spawn(command).fail(5, "the proxy socks5://127.0.0.1").await;
    let mut command = serve.dilated();
    command.args(["--tor", "--proxy", &format!("socks5://{proxy}"), "send", "--text", "x"]);
    let mut refused = Pipe::spawn(command);
    soon("the refusal", refused.fail(5, "not dialled through Tor")).await;
}
