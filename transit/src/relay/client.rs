//! One client's connection, from its first line to its pair.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};

use super::{
    config::RelayConfig,
    line::{FirstLine, LONGEST_LINE, Request, Token},
    pump,
    rendezvous::{ClientId, Decision, Rendezvous},
};
use crate::net::linger;

/// How long a client that is turned away may take to read why.
const GOODBYE: Duration = Duration::from_secs(2);
const BAD_HANDSHAKE: &[u8] = b"bad handshake\n";
const IMPATIENT: &[u8] = b"impatient\n";
pub(super) const FULL: &[u8] = b"relay full\n";
const HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 75\r\nConnection: close\r\n\r\n\
    This is a transit relay of magic wormholes. It does not speak HTTP, sorry.\n";

/// What all connections share.
pub(super) struct Shared {
    pub(super) config: RelayConfig,
    pub(super) meeting: Mutex<Meeting>,
    pub(super) per_address: Mutex<BTreeMap<IpAddr, usize>>,
    pub(super) next_id: AtomicU64,
    pub(super) connections: AtomicUsize,
    pub(super) pairs: AtomicUsize,
    pub(super) relayed: AtomicU64,
}

/// The table of who waits, and how to reach them. One lock for both, so that they always agree.
pub(super) struct Meeting {
    table: Rendezvous,
    verdicts: BTreeMap<ClientId, oneshot::Sender<Verdict>>,
}

/// What a waiting client is told.
enum Verdict {
    /// Hand your connection over.
    Paired(oneshot::Sender<Client>),
    /// Your connection is not needed any more.
    Redundant,
}

/// A connection, what it has sent beyond its first line, and its place in the limits.
struct Client {
    stream: TcpStream,
    early: Vec<u8>,
    admission: Admission,
}

/// Counts a connection for as long as it lives.
pub(super) struct Admission {
    shared: Arc<Shared>,
    key: IpAddr,
}

impl Shared {
    pub(super) fn new(config: RelayConfig) -> Self {
        let table = Rendezvous::new(config.waiting, config.waiting_per_token);
        Self {
            config,
            meeting: Mutex::new(Meeting { table, verdicts: BTreeMap::new() }),
            per_address: Mutex::default(),
            next_id: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            pairs: AtomicUsize::new(0),
            relayed: AtomicU64::new(0),
        }
    }

    fn meeting(&self) -> MutexGuard<'_, Meeting> {
        self.meeting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waiting(&self) -> usize {
        self.meeting().table.len()
    }

    /// A place for one more connection, if there is one.
    pub(super) fn admit(self: &Arc<Self>, address: SocketAddr) -> Option<Admission> {
        let key = match address.ip().to_canonical() {
            // Anybody with IPv6 at home has 2^64 addresses.
            IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
            v4 => v4,
        };
        if self.connections.load(Ordering::Relaxed) >= self.config.connections {
            return None;
        }
        let mut counts = self.per_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key).or_default();
        if *count >= self.config.connections_per_address {
            return None;
        }
        *count += 1;
        self.connections.fetch_add(1, Ordering::Relaxed);
        Some(Admission { shared: Arc::clone(self), key })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        let mut counts = self.shared.per_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// Serves one TCP connection to its end, or until another client's task takes it over.
pub(super) async fn serve(mut stream: TcpStream, admission: Admission) {
    let shared = Arc::clone(&admission.shared);
    let mut buffer = Vec::with_capacity(256);
    let first = timeout(shared.config.handshake_timeout, first_line(&mut stream, &mut buffer)).await;
    let (request, len) = match first {
        Ok(Ok(FirstLine::Request(request, len))) => (request, len),
        Ok(Ok(FirstLine::Http)) => return turn_away(stream, HTTP).await,
        Ok(Ok(FirstLine::Bad | FirstLine::Incomplete)) | Err(_) => {
            return turn_away(stream, BAD_HANDSHAKE).await;
        }
        Ok(Err(_)) => return,
    };
    let client = Client { stream, early: buffer.split_off(len), admission };
    let id = ClientId(shared.next_id.fetch_add(1, Ordering::Relaxed));
    match meet(&shared, &request, id) {
        Place::Waiting(verdict) => wait(&shared, request.token, id, client, verdict).await,
        Place::Paired(partner) => match partner.await {
            Ok(partner) => run_pair(&shared, client, partner).await,
            // The partner's task was aborted, so everything is ending.
            Err(_) => drop(client),
        },
        Place::Full => turn_away(client.stream, FULL).await,
    }
}

async fn first_line(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<FirstLine> {
    loop {
        let mut chunk = [0; LONGEST_LINE + 1];
        let len = stream.read(&mut chunk).await?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.extend_from_slice(&chunk[..len]);
        match FirstLine::parse(buffer) {
            FirstLine::Incomplete => {}
            line => return Ok(line),
        }
    }
}

async fn turn_away(mut stream: TcpStream, why: &[u8]) {
    if let Ok(Ok(())) = timeout(GOODBYE, stream.write_all(why)).await {
        linger(&mut stream, GOODBYE).await;
    }
}

/// Where a client finds itself after its request.
enum Place {
    Waiting(oneshot::Receiver<Verdict>),
    Paired(oneshot::Receiver<Client>),
    Full,
}

fn meet(shared: &Shared, request: &Request, id: ClientId) -> Place {
    let mut meeting = shared.meeting();
    match meeting.table.register(request, id) {
        Decision::Full => Place::Full,
        Decision::Wait { replaced } => {
            let (sender, receiver) = oneshot::channel();
            meeting.verdicts.insert(id, sender);
            meeting.dismiss(replaced);
            Place::Waiting(receiver)
        }
        Decision::Pair { partner, redundant } => {
            let (sender, receiver) = oneshot::channel();
            if let Some(verdict) = meeting.verdicts.remove(&partner) {
                // Fails only for a task that was aborted; then `sender` is dropped, which the receiver sees.
                let _ = verdict.send(Verdict::Paired(sender));
            }
            meeting.dismiss(redundant);
            Place::Paired(receiver)
        }
    }
}

impl Meeting {
    fn dismiss(&mut self, clients: impl IntoIterator<Item = ClientId>) {
        for id in clients {
            if let Some(verdict) = self.verdicts.remove(&id) {
                let _ = verdict.send(Verdict::Redundant);
            }
        }
    }
}

/// Takes a client out of the table when its task ends in any way.
struct Waiting<'a> {
    shared: &'a Shared,
    token: Token,
    id: ClientId,
}

impl Waiting<'_> {
    /// False if the verdict has been spoken already.
    fn leave(&self) -> bool {
        let mut meeting = self.shared.meeting();
        meeting.verdicts.remove(&self.id);
        meeting.table.unregister(&self.token, self.id)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What ended a wait.
enum Woken {
    Verdict(Option<Verdict>),
    /// The client sent something, or (0) closed.
    Bytes(usize),
    Gone,
    TooLong,
}

async fn wait(
    shared: &Shared,
    token: Token,
    id: ClientId,
    mut client: Client,
    mut verdict: oneshot::Receiver<Verdict>,
) {
    let place = Waiting { shared, token, id };
    let mut chunk = [0; 256];
    let woken = if client.early.is_empty() {
        tokio::select! {
            biased;
            verdict = &mut verdict => Woken::Verdict(verdict.ok()),
            read = client.stream.read(&mut chunk) => read.map_or(Woken::Gone, Woken::Bytes),
            () = tokio::time::sleep(shared.config.waiting_timeout) => Woken::TooLong,
        }
    } else {
        Woken::Bytes(client.early.len())
    };
    let verdict = match woken {
        Woken::Verdict(verdict) => verdict,
        // The other ends of a wait count only if nobody has paired us in the meantime.
        Woken::Bytes(len) if len > 0 => {
            if place.leave() {
                return turn_away(client.stream, IMPATIENT).await;
            }
            if client.early.is_empty() {
                client.early.extend_from_slice(&chunk[..len]);
            }
            verdict.await.ok()
        }
        Woken::Bytes(_) | Woken::Gone | Woken::TooLong => {
            if place.leave() {
                return linger(&mut client.stream, GOODBYE).await;
            }
            verdict.await.ok()
        }
    };
    match verdict {
        // If the other task was aborted, the connection ends with it.
        Some(Verdict::Paired(partner)) => drop(partner.send(client)),
        Some(Verdict::Redundant) => linger(&mut client.stream, GOODBYE).await,
        None => {}
    }
}

/// Counts a pair for as long as it lives.
struct Pair<'a>(&'a AtomicUsize);

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn run_pair(shared: &Shared, mut one: Client, mut two: Client) {
    shared.pairs.fetch_add(1, Ordering::Relaxed);
    let _pair = Pair(&shared.pairs);
    // Whoever was impatient on either side of the pairing gets away with it, as in the Python relay.
    let start = async {
        one.stream.write_all(b"ok\n").await?;
        two.stream.write_all(b"ok\n").await?;
        two.stream.write_all(&one.early).await?;
        one.stream.write_all(&two.early).await
    };
    // A broken connection shows again in the pump, which knows what to do about the other one.
    let _ = timeout(shared.config.flush_timeout, start).await;
    shared.relayed.fetch_add((one.early.len() + two.early.len()) as u64, Ordering::Relaxed);
    pump::relay(one.stream, two.stream, &shared.config, &shared.relayed).await;
    drop((one.admission, two.admission));
}
