//! One client's connection, from the first byte of HTTP to the last of the websocket.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{SinkExt as _, StreamExt as _};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::{mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior, interval_at, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Bytes, Error, Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::{
    address::{AddressKey, PeerAddress},
    clock,
    config::ServerConfig,
    core::ConnectionId,
    engine::Event,
    http::{self, Reply},
    outbox::{self, Inbox, Meter, Outgoing},
};

/// How long a client may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What all connections share.
pub(super) struct Shared {
    pub(super) config: ServerConfig,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) meter: Arc<Meter>,
    pub(super) next_id: AtomicU64,
    pub(super) per_address: Mutex<BTreeMap<AddressKey, usize>>,
}

/// Counts one connection of an address for as long as it lives.
struct AddressGuard<'a> {
    counts: &'a Mutex<BTreeMap<AddressKey, usize>>,
    key: AddressKey,
}

impl Shared {
    fn admit(&self, key: AddressKey) -> Option<AddressGuard<'_>> {
        let mut counts = self.per_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key).or_default();
        if *count >= self.config.limits.connections_per_address {
            return None;
        }
        *count += 1;
        Some(AddressGuard { counts: &self.per_address, key })
    }
}

impl Drop for AddressGuard<'_> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// Serves one TCP connection to its end.
pub(super) async fn serve(
    mut stream: TcpStream,
    address: SocketAddr,
    shared: &Shared,
    shutdown: watch::Receiver<bool>,
) {
    let mut peer = PeerAddress::from(address);
    // Behind a proxy all connections have the proxy's address until we have read the header.
    let mut guard = None;
    if !shared.config.trust_real_ip {
        guard = shared.admit(peer.key());
        if guard.is_none() {
            return http::reply(stream, Reply::TOO_MANY, false).await;
        }
    }
    let Ok(Ok(head)) = timeout(shared.config.limits.handshake_timeout, http::read_head(&mut stream)).await
    else {
        return;
    };
    let head = match head {
        Ok(head) => head,
        Err(reply) => return http::reply(stream, reply, false).await,
    };
    if shared.config.trust_real_ip {
        peer = http::real_address(&head.request).unwrap_or(peer);
        guard = shared.admit(peer.key());
        if guard.is_none() {
            return http::reply(stream, Reply::TOO_MANY, false).await;
        }
    }
    let response = match http::respond(&head.request) {
        Ok(response) => response,
        Err(reply) => return http::reply(stream, reply, head.head_only).await,
    };
    if stream.write_all(&response).await.is_err() {
        return;
    }
    // Answers are small and clients wait for them.
    let _ = stream.set_nodelay(true);
    let most = Some(shared.config.limits.websocket_message);
    // Small buffers, because there are many connections and few large messages.
    let config = WebSocketConfig::default()
        .read_buffer_size(4 << 10)
        .write_buffer_size(8 << 10)
        .max_message_size(most)
        .max_frame_size(most);
    let websocket = WebSocketStream::from_partially_read(stream, head.rest, Role::Server, Some(config)).await;
    converse(websocket, peer, shared, shutdown).await;
    drop(guard);
}

/// Registers the connection with the core, runs it, and deregisters it.
async fn converse(
    websocket: WebSocketStream<TcpStream>,
    peer: PeerAddress,
    shared: &Shared,
    mut shutdown: watch::Receiver<bool>,
) {
    let id = ConnectionId(shared.next_id.fetch_add(1, Ordering::Relaxed));
    let (outbox, inbox) = outbox::channel(&shared.meter);
    let overflow = inbox.overflow();
    if shared.events.send(Event::Connect { id, peer, outbox }).await.is_err() {
        return;
    }
    let deregister = Deregister { id, events: &shared.events };
    let mut ping = interval_at(clock::now() + shared.config.ping_interval, shared.config.ping_interval);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut session = Session { websocket, inbox, id, shared, ping, last_heard: clock::now(), reading: true };
    let end = tokio::select! {
        end = session.run() => end,
        // It reads too slowly to be told anything: drop the socket at once.
        () = overflow.notified() => End::Gone,
        // An error means that the server is gone, which is the same.
        _ = shutdown.wait_for(|stop| *stop) => End::Close(1001, "the server is shutting down"),
    };
    deregister.now().await;
    if let End::Close(code, reason) = end {
        let _ = timeout(CLOSE_TIMEOUT, session.close(code, reason)).await;
    }
}

/// Tells the core that a connection is gone, even when its task is aborted.
struct Deregister<'a> {
    id: ConnectionId,
    events: &'a mpsc::Sender<Event>,
}

impl Deregister<'_> {
    async fn now(self) {
        let _ = self.events.send(Event::Disconnect { id: self.id }).await;
        std::mem::forget(self);
    }
}

impl Drop for Deregister<'_> {
    fn drop(&mut self) {
        // Only when the task is aborted, which happens when the whole server ends; then it may fail.
        let _ = self.events.try_send(Event::Disconnect { id: self.id });
    }
}

/// How a session ends.
enum End {
    /// There is nobody to tell.
    Gone,
    /// With this close frame.
    Close(u16, &'static str),
}

struct Session<'a> {
    websocket: WebSocketStream<TcpStream>,
    inbox: Inbox,
    id: ConnectionId,
    shared: &'a Shared,
    ping: Interval,
    last_heard: Instant,
    /// False after a message that could not be read: only the core's last words are still to be sent.
    reading: bool,
}

impl Session<'_> {
    async fn run(&mut self) -> End {
        loop {
            let step = tokio::select! {
                message = self.websocket.next(), if self.reading => self.received(message).await,
                outgoing = self.inbox.recv() => self.send(outgoing).await,
                due = self.ping.tick() => self.check_life(due).await,
            };
            if let ControlFlow::Break(end) = step {
                return end;
            }
        }
    }

    async fn received(&mut self, message: Option<Result<Message, Error>>) -> ControlFlow<End> {
        self.last_heard = clock::now();
        let id = self.id;
        let event = match message {
            Some(Ok(Message::Text(text))) => Event::Message { id, payload: Bytes::from(text) },
            Some(Ok(Message::Binary(payload))) => Event::Message { id, payload },
            // The library answers pings and closes by itself; after a close it returns `None`.
            Some(Ok(_)) => return ControlFlow::Continue(()),
            Some(Err(Error::Capacity(_))) => {
                self.reading = false;
                Event::Oversized { id }
            }
            Some(Err(Error::Utf8(_))) => {
                self.reading = false;
                Event::Malformed { id }
            }
            Some(Err(Error::Protocol(_))) => {
                self.reading = false;
                return ControlFlow::Break(End::Close(1002, "websocket protocol error"));
            }
            Some(Err(_)) | None => return ControlFlow::Break(End::Gone),
        };
        // Waiting here stops reading, which is the back-pressure on clients that send faster than the core works.
        match self.shared.events.send(event).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(End::Close(1011, "the server failed")),
        }
    }

    /// Sends all that is queued with as few system calls as possible.
    async fn send(&mut self, first: Option<Outgoing>) -> ControlFlow<End> {
        let mut next = first;
        if next.is_none() {
            return ControlFlow::Break(End::Close(1011, "the server failed"));
        }
        let mut end = ControlFlow::Continue(());
        let all = async {
            while let Some(outgoing) = next.take() {
                match outgoing {
                    Outgoing::Text(text) => self.websocket.feed(Message::text(&*text)).await?,
                    Outgoing::Close { code, reason } => {
                        end = ControlFlow::Break(End::Close(code, reason));
                        break;
                    }
                }
                next = self.inbox.try_recv();
            }
            self.websocket.flush().await
        };
        // A client that takes nothing for so long is gone, whatever TCP thinks.
        match timeout(self.shared.config.ping_timeout, all).await {
            Ok(Ok(())) => end,
            Ok(Err(_)) | Err(_) => ControlFlow::Break(End::Gone),
        }
    }

    /// Pings a client, or gives it up. This was to happen when it was `due`.
    async fn check_life(&mut self, due: Instant) -> ControlFlow<End> {
        let timeout_after = self.shared.config.ping_timeout;
        let now = clock::now();
        if now - due > timeout_after / 4 {
            // It was us who did not look, asleep or without processor time: the client gets its time again.
            self.last_heard = now;
        }
        if now - self.last_heard > timeout_after {
            return ControlFlow::Break(End::Gone);
        }
        match timeout(timeout_after, self.websocket.send(Message::Ping(Bytes::new()))).await {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) | Err(_) => ControlFlow::Break(End::Gone),
        }
    }

    /// The closing handshake: our frame, theirs, and then we close TCP, as the protocol wants it of a server.
    async fn close(mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        if self.websocket.close(Some(frame)).await.is_err() {
            return;
        }
        if self.reading {
            while let Some(Ok(_)) = self.websocket.next().await {}
        } else {
            http::linger(self.websocket.into_inner()).await;
        }
    }
}
