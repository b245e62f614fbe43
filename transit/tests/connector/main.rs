//! Connectors on loopback: against each other, through a relay, and against everybody else.
#![cfg(all(feature = "tokio", feature = "relay"))]

mod dilated1;
mod ged;

use std::{future::Future, net::Ipv4Addr, time::Duration};

use dilated_transit::{
    DilationKey, Hint, LinkDialect, RelayHint, Role, TcpHint,
    net::{Connector, ConnectorConfig, ConnectorEvent, ConnectorLimits, Link, LinkError},
    relay::{Relay, RelayConfig},
};

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .unwrap_or_else(|_| panic!("{what} did not happen"))
}

pub(crate) fn config(role: Role, dialect: LinkDialect) -> ConnectorConfig {
    ConnectorConfig {
        role,
        dialect,
        key: DilationKey::new([9; 32]),
        side: match role {
            Role::Leader => "ffffffffffffffff".to_owned(),
            Role::Follower => "0000000000000000".to_owned(),
        },
        listen: true,
        loopback: true,
        relays: Vec::new(),
        proxy: None,
        limits: ConnectorLimits::default(),
    }
}

/// The hints of a connector, which it tells first.
pub(crate) async fn hints(connector: &mut Connector) -> Vec<Hint> {
    match soon("hints", connector.next()).await {
        ConnectorEvent::LocalHints(hints) => hints,
        other => panic!("hints come first, not {other:?}"),
    }
}

/// The IPv4 loopback port among the hints.
pub(crate) fn port(hints: &[Hint]) -> u16 {
    let loopback = |hint: &Hint| match hint {
        Hint::Direct(hint) if hint.hostname() == "127.0.0.1" => Some(hint.port()),
        _ => None,
    };
    hints.iter().find_map(loopback).expect("loopback is advertised")
}

pub(crate) fn loopback(port: u16) -> Hint {
    Hint::Direct(TcpHint::from_addr(Ipv4Addr::LOCALHOST.into(), port))
}

pub(crate) async fn send(link: &mut Link, message: &[u8]) {
    link.writer.seal(&[message]).expect("short");
    flush(link).await;
}

pub(crate) async fn receive(link: &mut Link) -> Result<Vec<u8>, LinkError> {
    loop {
        if let Some(message) = link.reader.next_message()? {
            return Ok(message.to_vec());
        }
        soon("bytes", std::future::poll_fn(|cx| link.reader.poll_fill(cx))).await?;
    }
}

/// Writes what a Leader's writer begins with.
pub(crate) async fn flush(link: &mut Link) {
    soon("a flush", std::future::poll_fn(|cx| link.writer.poll_flush(cx))).await.expect("open");
}

/// Messages both ways.
pub(crate) async fn talk(leading: &mut Link, following: &mut Link) {
    send(leading, b"from the Leader").await;
    assert_eq!(receive(following).await.expect("open"), b"from the Leader");
    send(following, b"from the Follower").await;
    assert_eq!(receive(leading).await.expect("open"), b"from the Follower");
}

/// A relay of our own, for as long as the runtime lives.
pub(crate) async fn relay() -> RelayHint {
    let relay =
        Relay::bind("127.0.0.1:0".parse().expect("an address"), RelayConfig::default()).await.expect("bind");
    let hint = relay.hint().parse().expect("a hint");
    tokio::spawn(relay.run());
    hint
}
