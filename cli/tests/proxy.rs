//! Everything through a SOCKS5 proxy.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod common;
#[path = "../../tests/src/socks.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is the proxy of all tests, which use more of it")]
mod socks;

use std::net::SocketAddr;

use common::{Pipe, Serve, dilated, nobody, soon};
use socks::Socks;

const MAILBOX: &str = "mailbox.invalid:4000";
const RELAY: &str = "relay.invalid:4001";

/// Servers that are reached through the proxy only: nobody else knows their names.
async fn hidden(serve: &Serve) -> (Socks, SocketAddr) {
    let mailbox = serve.mailbox.strip_prefix("ws://").unwrap().strip_suffix("/v1").unwrap();
    let relay = serve.relay.strip_prefix("tcp:").unwrap();
    let socks = Socks::default();
    for (name, at) in [(MAILBOX, mailbox), (RELAY, relay)] {
        socks.name(name, at.parse().unwrap());
    }
    let address = socks.start().await.unwrap();
    (socks, address)
}

fn has(asked: &[String], name: &str) -> bool {
    asked.iter().any(|asked| asked == name)
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
        let asked = socks.asked();
        assert!(has(&asked, MAILBOX) && (!link || has(&asked, RELAY)), "{asked:?}");
    }
}

#[tokio::test]
async fn doctor_asks_through_the_proxy() {
    let serve = Serve::start().await;
    let (socks, proxy) = hidden(&serve).await;
    let mut doctor = run(proxy, &["doctor"]);
    let said = String::from_utf8(doctor.read().await).unwrap();
    assert_eq!(doctor.status().await, 0, "{said}{}", doctor.lines.all());
    let asked = socks.asked();
    assert!(has(&asked, MAILBOX) && has(&asked, RELAY), "{asked:?}\n{said}");
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
