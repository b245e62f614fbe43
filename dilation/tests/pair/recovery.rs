//! How links come back: without the mailbox, through another relay, and never by a stale message.

use bytes::Bytes;
use dilated::{
    Dialect, Dilated, LinkStatus, RolePreference,
    server::{MailboxServer, Relay, RelayConfig, ServerConfig},
};
use futures::StreamExt;

use crate::common::{Servers, reserve, soon};
use crate::dialects::in_both_dialects;

/// Waits until the link of `dilated` is that of `generation`.
async fn connected_at(dilated: &Dilated, generation: u64) -> String {
    let mut changes = dilated.status_changes();
    let there = async {
        while let Some(status) = changes.next().await {
            if let LinkStatus::Connected { path, recovered } = &status.link
                && status.generation.get() >= generation
            {
                assert_eq!(status.generation.get(), generation, "every loss is one generation");
                assert!(recovered.as_ref().is_some_and(|recovery| !recovery.reason.is_empty()));
                return path.to_string();
            }
        }
        panic!("the status ended");
    };
    soon("a link", there).await
}

/// A message gets through from one to the other.
async fn speaks(from: &Dilated, to: &Dilated, name: &str) {
    let mut listener = to.listener_for(name).expect("free");
    let mut out = soon("an open", from.connector_for(name).expect("a name").connect()).await.expect("open");
    out.send(Bytes::from_static(b"hello")).await.expect("sent");
    let mut incoming = soon("an incoming one", listener.accept()).await.expect("open");
    assert_eq!(soon("a message", incoming.recv()).await.expect("open").as_deref(), Some(&b"hello"[..]));
}

/// The mailbox server dies, and then the link, several times: known addresses are enough, whoever notices. When the
/// server is back with what it knew, the messages that waited for it disturb nothing.
async fn without_the_mailbox(dialect: Dialect, leader_loses: bool) {
    let directory = tempfile::tempdir().expect("a directory");
    let config = || {
        let store = dilated::server::StoreKind::Sqlite(directory.path().join("mailbox.sqlite"));
        ServerConfig { store, ..ServerConfig::default() }
    };
    let (_port, address) = reserve();
    let server = MailboxServer::bind(address, config()).await.expect("bind");
    let url = server.url();
    let handle = server.handle();
    let running = tokio::spawn(server.run());
    let servers = Servers { mailbox: url, relay: String::new(), dialect };
    let (a, leader, b, follower) = servers.dilated().await;
    soon("a link", async { tokio::join!(leader.connected(), follower.connected()) }).await.0.expect("a link");
    speaks(&leader, &follower, "before").await;
    handle.shutdown();
    soon("the end of the server", running).await.expect("no panic").expect("an orderly end");
    for generation in 1..=3 {
        if leader_loses { &leader } else { &follower }.abandon_link();
        connected_at(&leader, generation).await;
        connected_at(&follower, generation).await;
        speaks(&leader, &follower, &format!("without {generation}")).await;
        speaks(&follower, &leader, &format!("back {generation}")).await;
    }
    let server = MailboxServer::bind(address, config()).await.expect("bind the port again");
    tokio::spawn(server.run());
    // Through the mailbox, behind everything that waited.
    a.send_message("the mailbox is back").expect("queued");
    assert_eq!(soon("a message", b.next_message()).await.expect("a message"), b"the mailbox is back");
    speaks(&leader, &follower, "after").await;
    assert_eq!(leader.status().generation.get(), 3, "late messages cost no link");
    let (x, y) = soon("close", async { tokio::join!(a.close(), b.close()) }).await;
    assert_eq!((x, y), (Ok(()), Ok(())));
}

async fn a_leader_that_loses_the_link_finds_it_again_without_the_mailbox(dialect: Dialect) {
    without_the_mailbox(dialect, true).await;
}

async fn a_follower_that_loses_the_link_finds_it_again_without_the_mailbox(dialect: Dialect) {
    without_the_mailbox(dialect, false).await;
}

async fn a_dead_relay_falls_over_to_the_next(dialect: Dialect) {
    let servers = Servers::start(dialect).await;
    let bind = || async {
        let relay = Relay::bind("127.0.0.1:0".parse().expect("an address"), RelayConfig::default()).await;
        let relay = relay.expect("bind");
        let (hint, handle) = (relay.hint(), relay.handle());
        (hint, handle, tokio::spawn(relay.run()))
    };
    // Nobody listens at the first, which all prefer; the one that carries the link dies on the way.
    let (_nobody, gone) = reserve();
    let mut relays = [bind().await, bind().await];
    let [second, third] = [0, 1].map(|index| relays[index].0.clone());
    let (a, b) = servers.pair().await;
    let config = |role| {
        let mut config = servers.config(role);
        config.listen = false;
        config.relays = vec![
            format!("tcp:{gone}:priority=2").parse().expect("a hint"),
            format!("{second}:priority=1").parse().expect("a hint"),
            third.parse().expect("a hint"),
        ];
        config.connector.race.relay_delay = std::time::Duration::from_millis(200);
        config
    };
    let leader = a.dilate(config(RolePreference::Leader)).expect("dilate");
    let follower = b.dilate(config(RolePreference::Follower)).expect("dilate");
    let path = soon("a link", leader.connected()).await.expect("connected").to_string();
    // The second has a start on the third and no more than that, so the third may have won.
    if path != format!("->relay:{second}") {
        relays.reverse();
    }
    let [(dies, handle, running), (stays, ..)] = relays;
    assert_eq!(path, format!("->relay:{dies}"));
    speaks(&leader, &follower, "before").await;
    handle.shutdown();
    soon("the end of the relay", running).await.expect("no panic").expect("an orderly end");
    assert_eq!(connected_at(&leader, 1).await, format!("->relay:{stays}"));
    speaks(&follower, &leader, "after").await;
}

in_both_dialects!(
    a_leader_that_loses_the_link_finds_it_again_without_the_mailbox,
    a_follower_that_loses_the_link_finds_it_again_without_the_mailbox,
    a_dead_relay_falls_over_to_the_next,
);
