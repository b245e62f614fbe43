//! The driver: listener, tasks, and the core's thread.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    thread,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    clock,
    config::{ServerConfig, StoreKind},
    connection::{self, Shared},
    core::Core,
    engine::{EVENTS, Engine, Event},
    http::Reply,
    memory::MemoryStore,
    outbox::Meter,
    store::{Store, StoreError},
    usage::Usage,
};

/// How long connections get to say goodbye at the end.
const GOODBYE: Duration = Duration::from_secs(3);

/// What a server is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStats {
    /// Open websockets.
    pub connections: usize,
    /// How sessions ended since the start.
    pub usage: Usage,
}

/// Stops a server, or asks how it is doing. Clones are handles of the same server; dropping one does nothing.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    stop: Arc<watch::Sender<bool>>,
    stats: Arc<Mutex<ServerStats>>,
}

impl ServerHandle {
    /// Makes [`MailboxServer::run`] close all connections and return.
    pub fn shutdown(&self) {
        self.stop.send_replace(true);
    }

    /// What the server is doing.
    #[must_use]
    pub fn stats(&self) -> ServerStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mailbox server that listens already. Nothing is served before [`run`](Self::run).
#[derive(Debug)]
pub struct MailboxServer {
    listener: TcpListener,
    address: SocketAddr,
    core: Core<Box<dyn Store>>,
    config: ServerConfig,
    handle: ServerHandle,
}

impl MailboxServer {
    /// Opens the store and listens. Port 0 lets the system choose.
    ///
    /// # Errors
    /// When the address cannot be used, or the store cannot be opened.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind but perhaps a new, empty store file.
    pub async fn bind(address: SocketAddr, config: ServerConfig) -> io::Result<Self> {
        let kind = config.store.clone();
        let store = tokio::task::spawn_blocking(move || open(&kind)).await?.map_err(io::Error::other)?;
        let listener = TcpListener::bind(address).await?;
        let core = Core::new(store, config.clone(), clock::unix_time()).map_err(io::Error::other)?;
        let handle = ServerHandle { stop: Arc::new(watch::Sender::new(false)), stats: Arc::default() };
        Ok(Self { address: listener.local_addr()?, listener, core, config, handle })
    }

    /// Where the server listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The URL for clients on this machine: `ws://host:port/v1`.
    #[must_use]
    pub fn url(&self) -> String {
        let host = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("ws://{}/v1", SocketAddr::new(host, self.address.port()))
    }

    /// A handle that can stop the server.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Serves until [`ServerHandle::shutdown`]. Failures of single connections, and of accepting them, are logged
    /// and survived. When it returns, all connections and the store are closed.
    ///
    /// # Errors
    /// When the core's thread cannot be started or ends by itself.
    ///
    /// # Cancel safety
    /// Dropping the future closes all connections without a goodbye. Whatever was answered is stored.
    pub async fn run(self) -> io::Result<()> {
        let Self { listener, core, config, handle, .. } = self;
        let (events, receiver) = mpsc::channel(EVENTS);
        let (ended, has_ended) = oneshot::channel::<()>();
        let engine = Engine::new(core, Arc::clone(&handle.stats));
        thread::Builder::new().name("mailbox-core".into()).spawn(move || {
            engine.run(receiver);
            // Dropped when the thread panics, too, so that nobody waits for ever.
            drop(ended);
        })?;
        let result = accept(listener, config, handle, events).await;
        // All senders of events are gone, so the thread finishes what is queued and closes the store.
        let _ = has_ended.await;
        result
    }
}

fn open(kind: &StoreKind) -> Result<Box<dyn Store>, StoreError> {
    Ok(match kind {
        StoreKind::Memory => Box::new(MemoryStore::new()),
        #[cfg(feature = "sqlite")]
        StoreKind::Sqlite(path) => Box::new(super::sqlite::SqliteStore::open(path)?),
    })
}

async fn accept(
    listener: TcpListener,
    config: ServerConfig,
    handle: ServerHandle,
    events: mpsc::Sender<Event>,
) -> io::Result<()> {
    let limits = &config.limits;
    let mut ticks = interval(tick_length(&config));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let room = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let shared = Arc::new(Shared {
        meter: Meter::new(limits.outgoing_queue, limits.outgoing_total),
        events: events.clone(),
        next_id: AtomicU64::new(0),
        per_address: Mutex::new(BTreeMap::new()),
        config,
    });
    let mut stop = handle.stop.subscribe();
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            () = events.closed() => return Err(io::Error::other("the thread of the mailbox core ended")),
            // A core that is too busy for a tick gets the next one.
            _ = ticks.tick() => drop(events.try_send(Event::Tick)),
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task failed");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                        // Best effort: there are too many tasks to spend one on politeness.
                        let _ = stream.try_write(Reply::FULL.render(false).as_bytes());
                        continue;
                    };
                    let (shared, stop) = (Arc::clone(&shared), handle.stop.subscribe());
                    tasks.spawn(async move {
                        connection::serve(stream, address, &shared, stop).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Usually no file descriptors are left, or the client is gone already. Neither is a reason to
                    // stop, and the first must not become a busy loop.
                    tracing::warn!(%error, "could not accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    let _ = timeout(GOODBYE, async { while tasks.join_next().await.is_some() {} }).await;
    tasks.shutdown().await;
    Ok(())
}

/// Often enough for every timeout that the core watches.
fn tick_length(config: &ServerConfig) -> Duration {
    let limits = &config.limits;
    let shortest =
        limits.bind_timeout.min(limits.idle_timeout).min(config.prune_interval).min(config.prune_idle);
    (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(5))
}

/// Ends when the handle says so. Cancel safe. Without a lock in its result, unlike `wait_for` itself.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that there is no handle any more, which cannot be: the caller holds one.
    let _ = stop.wait_for(|stop| *stop).await;
}
