//! The servers, and the proxies through which each side reaches them.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use dilated::server::{
    MailboxServer, Relay, RelayConfig, RelayHandle, ServerConfig, ServerHandle, StoreKind,
};
use dilated_tests::proxy::Proxy;
use tokio::task::JoinHandle;

/// How long a server may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server in its task.
struct Running<H> {
    handle: H,
    address: SocketAddr,
    task: JoinHandle<std::io::Result<()>>,
}

impl<H> Running<H> {
    async fn end(self) {
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended.expect("the server ends").expect("no panic").expect("an orderly end");
    }
}

/// Everything between the two sides.
pub(crate) struct World {
    mailbox: Option<Running<ServerHandle>>,
    relay: Option<Running<RelayHandle>>,
    store: tempfile::TempDir,
    /// To the mailbox server, one for each side.
    pub(crate) mailbox_proxies: [Proxy; 2],
    /// To the relay, one for each side.
    pub(crate) relay_proxies: [Proxy; 2],
}

impl World {
    pub(crate) async fn new() -> World {
        let store = tempfile::tempdir().expect("a directory for the store");
        let mailbox = start_mailbox(store.path().join("mailbox.sqlite")).await;
        let relay = start_relay().await;
        let mailbox_proxies = proxies(mailbox.address).await;
        let relay_proxies = proxies(relay.address).await;
        World { mailbox: Some(mailbox), relay: Some(relay), store, mailbox_proxies, relay_proxies }
    }

    /// Ends the mailbox server and starts another on the same store, as an upgrade would.
    pub(crate) async fn restart_mailbox(&mut self) {
        let old = self.mailbox.take().expect("it runs");
        old.handle.shutdown();
        old.end().await;
        let new = start_mailbox(self.store.path().join("mailbox.sqlite")).await;
        self.mailbox_proxies.iter().for_each(|proxy| proxy.retarget(new.address));
        self.mailbox = Some(new);
    }

    /// Ends the relay and starts another.
    pub(crate) async fn restart_relay(&mut self) {
        let old = self.relay.take().expect("it runs");
        old.handle.shutdown();
        old.end().await;
        let new = start_relay().await;
        self.relay_proxies.iter().for_each(|proxy| proxy.retarget(new.address));
        self.relay = Some(new);
    }

    /// Bytes that went through the proxies.
    pub(crate) fn passed(&self) -> u64 {
        self.mailbox_proxies.iter().chain(&self.relay_proxies).map(Proxy::passed).sum()
    }
}

async fn start_mailbox(store: PathBuf) -> Running<ServerHandle> {
    let config = ServerConfig { store: StoreKind::Sqlite(store), ..ServerConfig::default() };
    let server = MailboxServer::bind(loopback(), config).await.expect("bind the mailbox");
    let (handle, address) = (server.handle(), server.local_addr());
    Running { handle, address, task: tokio::spawn(server.run()) }
}

async fn start_relay() -> Running<RelayHandle> {
    let relay = Relay::bind(loopback(), RelayConfig::default()).await.expect("bind the relay");
    let (handle, address) = (relay.handle(), relay.local_addr());
    Running { handle, address, task: tokio::spawn(relay.run()) }
}

async fn proxies(target: SocketAddr) -> [Proxy; 2] {
    [Proxy::start(target).await.expect("a proxy"), Proxy::start(target).await.expect("a proxy")]
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}
