//! The driver: listener and tasks.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use super::{
    client::{self, FULL, Shared},
    config::RelayConfig,
};

/// What a relay is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayStats {
    /// Open connections.
    pub connections: usize,
    /// Those of them that wait for a partner.
    pub waiting: usize,
    /// Pairs of connections that are relayed.
    pub pairs: usize,
    /// Bytes relayed since the start, both directions of all pairs.
    pub relayed: u64,
}

/// Stops a relay, or asks how it is doing. Clones are handles of the same relay; dropping one does nothing.
#[derive(Clone)]
pub struct RelayHandle {
    stop: Arc<watch::Sender<bool>>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for RelayHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayHandle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl RelayHandle {
    /// Makes [`Relay::run`] close all connections and return.
    pub fn shutdown(&self) {
        self.stop.send_replace(true);
    }

    /// What the relay is doing.
    #[must_use]
    pub fn stats(&self) -> RelayStats {
        RelayStats {
            connections: self.shared.connections.load(Ordering::Relaxed),
            waiting: self.shared.waiting(),
            pairs: self.shared.pairs.load(Ordering::Relaxed),
            relayed: self.shared.relayed.load(Ordering::Relaxed),
        }
    }
}

/// A transit relay that listens already. Nothing is served before [`run`](Self::run).
#[derive(Debug)]
pub struct Relay {
    listener: TcpListener,
    address: SocketAddr,
    handle: RelayHandle,
}

impl Relay {
    /// Listens. Port 0 lets the system choose.
    ///
    /// # Errors
    /// When the address cannot be used.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn bind(address: SocketAddr, config: RelayConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let handle =
            RelayHandle { stop: Arc::new(watch::Sender::new(false)), shared: Arc::new(Shared::new(config)) };
        Ok(Self { address: listener.local_addr()?, listener, handle })
    }

    /// Where the relay listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The hint for clients on this machine: `tcp:host:port`.
    #[must_use]
    pub fn hint(&self) -> String {
        let host = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("tcp:{}", SocketAddr::new(host, self.address.port()))
    }

    /// A handle that can stop the relay.
    #[must_use]
    pub fn handle(&self) -> RelayHandle {
        self.handle.clone()
    }

    /// Serves until [`RelayHandle::shutdown`], then closes all connections at once. Failures of single
    /// connections, and of accepting them, are survived.
    ///
    /// # Errors
    /// None at present.
    ///
    /// # Cancel safety
    /// Dropping the future closes all connections.
    pub async fn run(self) -> io::Result<()> {
        let Self { listener, handle, .. } = self;
        let mut stop = handle.stop.subscribe();
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a connection's task failed");
                    }
                }
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        let Some(admission) = handle.shared.admit(address) else {
                            // Best effort: there are too many tasks to spend one on politeness.
                            let _ = stream.try_write(FULL);
                            continue;
                        };
                        prepare(&stream);
                        tasks.spawn(client::serve(stream, admission));
                    }
                    Err(error) => {
                        // Usually no file descriptors are left, or the client is gone already. Neither is a
                        // reason to stop, and the first must not become a busy loop.
                        tracing::warn!(%error, "could not accept a connection");
                        sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        drop(listener);
        tasks.shutdown().await;
        Ok(())
    }
}

/// Keepalives find the dead among those who wait for hours, and small messages must not wait for more.
fn prepare(stream: &TcpStream) {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(30));
    // A socket that refuses is about to fail anyway.
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
    let _ = stream.set_nodelay(true);
}

/// Ends when the handle says so. Cancel safe. Without a lock in its result, unlike `wait_for` itself.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that there is no handle any more, which cannot be: the caller holds one.
    let _ = stop.wait_for(|stop| *stop).await;
}
