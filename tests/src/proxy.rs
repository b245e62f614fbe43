//! A TCP proxy on loopback that breaks what it carries, on command.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// Bytes taken from a socket at a time: small, so that a stall or a cut comes in the middle of things.
const BUFFER: usize = 16 * 1024;

/// What a proxy does to its connections, those that exist included. The default is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// New connections are reset, as by a server that is not there.
    pub refuse: bool,
    /// What the client sends vanishes from sight, the end of its connection included, until this is over.
    pub stall_out: bool,
    /// The same for what the target sends.
    pub stall_back: bool,
    /// The most bytes in a second, for each direction of each connection.
    pub rate: Option<u32>,
    /// Connections made while this is set are reset when so many bytes have passed, both directions together.
    pub cut_after: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    /// From the client to the target.
    Out,
    Back,
}

impl Faults {
    fn stalls(&self, direction: Direction) -> bool {
        match direction {
            Direction::Out => self.stall_out,
            Direction::Back => self.stall_back,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Orders {
    target: SocketAddr,
    faults: Faults,
    /// A connection ends when this is no longer what it was at its beginning.
    resets: u64,
}

/// A proxy that runs until it is dropped, which ends its connections, too.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    orders: watch::Sender<Orders>,
    meter: Arc<Meter>,
    acceptor: AbortHandle,
}

/// What has happened on all connections.
#[derive(Debug, Default)]
struct Meter {
    /// Bytes that have passed.
    passed: AtomicU64,
    /// Connections that were reset because so many bytes had passed as [`Faults::cut_after`] allows.
    cuts: AtomicU64,
}

impl Proxy {
    /// Listens on a free port of loopback and forwards to `target`. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// When nothing can listen there.
    pub async fn start(target: SocketAddr) -> io::Result<Proxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let orders = watch::Sender::new(Orders { target, faults: Faults::default(), resets: 0 });
        let meter = Arc::<Meter>::default();
        let acceptor = tokio::spawn(accept(listener, orders.subscribe(), Arc::clone(&meter))).abort_handle();
        Ok(Proxy { address, orders, meter, acceptor })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes forwarded so far.
    pub fn passed(&self) -> u64 {
        self.meter.passed.load(Ordering::Relaxed)
    }

    /// Connections that were reset for [`Faults::cut_after`] so far: each had bytes under way.
    pub fn cuts(&self) -> u64 {
        self.meter.cuts.load(Ordering::Relaxed)
    }

    /// Forwards new connections to another address.
    pub fn retarget(&self, target: SocketAddr) {
        self.orders.send_modify(|orders| orders.target = target);
    }

    /// Replaces the faults.
    pub fn set(&self, faults: Faults) {
        self.orders.send_modify(|orders| orders.faults = faults);
    }

    /// Resets all connections, towards both ends. New ones are not touched.
    pub fn reset_all(&self) {
        self.orders.send_modify(|orders| orders.resets += 1);
    }

    /// Resets all connections and refuses new ones, until [`set`](Self::set) says otherwise.
    pub fn shut(&self) {
        self.orders.send_modify(|orders| {
            orders.faults.refuse = true;
            orders.resets += 1;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn accept(listener: TcpListener, orders: watch::Receiver<Orders>, meter: Arc<Meter>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(carry(client, orders.clone(), Arc::clone(&meter)));
                }
                // No descriptors, or the client is gone already.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
}

/// One connection, to its end. Only an end that both sides wanted is passed on as one; every other is a reset.
async fn carry(mut client: TcpStream, mut orders: watch::Receiver<Orders>, meter: Arc<Meter>) {
    let Orders { target, faults, resets } = *orders.borrow_and_update();
    let server = if faults.refuse { None } else { TcpStream::connect(target).await.ok() };
    let Some(mut server) = server else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let budget = AtomicU64::new(faults.cut_after.unwrap_or(u64::MAX));
    let meters = Meters { budget: &budget, all: &meter };
    let orderly = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            tokio::try_join!(
                forward(from_client, to_server, Direction::Out, orders.clone(), meters),
                forward(from_server, to_client, Direction::Back, orders.clone(), meters),
            )
        };
        let mut resets_seen = orders.clone();
        tokio::select! {
            _ = resets_seen.wait_for(|orders| orders.resets != resets) => false,
            result = both => result.is_ok(),
        }
    };
    if !orderly {
        let _ = client.set_zero_linger();
        let _ = server.set_zero_linger();
    }
}

#[derive(Clone, Copy)]
struct Meters<'a> {
    /// Bytes that may still pass on this connection.
    budget: &'a AtomicU64,
    all: &'a Meter,
}

/// The connection is to be reset.
struct Cut;

impl From<io::Error> for Cut {
    fn from(_: io::Error) -> Cut {
        Cut
    }
}

impl From<watch::error::RecvError> for Cut {
    fn from(_: watch::error::RecvError) -> Cut {
        Cut
    }
}

async fn forward(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    mut orders: watch::Receiver<Orders>,
    meters: Meters<'_>,
) -> Result<(), Cut> {
    let mut buffer = vec![0; BUFFER];
    loop {
        orders.wait_for(|orders| !orders.faults.stalls(direction)).await?;
        let n = tokio::select! {
            n = from.read(&mut buffer) => n?,
            changed = orders.changed() => {
                changed?;
                continue;
            }
        };
        // A stall that began meanwhile holds this, too.
        orders.wait_for(|orders| !orders.faults.stalls(direction)).await?;
        if n == 0 {
            to.shutdown().await?;
            return Ok(());
        }
        let before = meters
            .budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(n as u64)))
            .unwrap_or_default();
        let allowed = usize::try_from(before).map_or(n, |left| left.min(n));
        to.write_all(&buffer[..allowed]).await?;
        meters.all.passed.fetch_add(allowed as u64, Ordering::Relaxed);
        if before <= n as u64 {
            // Its other direction may find the budget used up, too.
            if before > 0 {
                meters.all.cuts.fetch_add(1, Ordering::Relaxed);
            }
            return Err(Cut);
        }
        let rate = orders.borrow().faults.rate;
        if let Some(rate) = rate {
            tokio::time::sleep(Duration::from_secs(1) * u32::try_from(n).unwrap_or(u32::MAX) / rate.max(1))
                .await;
        }
    }
}
