//! The server without its sockets: what clients say goes in, what they are told comes out.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use rand::Rng;
use serde_json::{Map, Value, json};

use super::{
    address::{AddressKey, PeerAddress},
    config::ServerConfig,
    registry::{MailboxKey, Quota, Refusal, Registry},
    request::{Fault, parse},
    store::{Message, Store, StoreError},
    usage::Usage,
};

/// Names a connection. The driver chooses it and never uses it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this text message.
    Send {
        /// On this connection.
        to: ConnectionId,
        /// One JSON object. Shared, since a message goes to every subscriber.
        text: Arc<str>,
    },
    /// Send what is queued, then close with a websocket status. The core has forgotten the connection.
    Close {
        /// This connection.
        to: ConnectionId,
        /// The status of the websocket's close frame.
        code: u16,
        /// A few words for humans.
        reason: &'static str,
    },
}

/// Which application a connection speaks for, and as whom.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    pub(super) app: String,
    pub(super) side: String,
}

/// What one connection has done so far. Several requests are allowed once per connection only.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) address: AddressKey,
    pub(super) connected: f64,
    pub(super) last_message: f64,
    pub(super) binding: Option<Binding>,
    pub(super) allocated: bool,
    pub(super) claimed: Option<String>,
    pub(super) released: bool,
    /// The last mailbox that it named in `open`.
    pub(super) mailbox: Option<String>,
    pub(super) subscribed: bool,
    pub(super) closed: bool,
}

/// One subscription, remembered with its side so that [`ServerLimits`](super::ServerLimits) can count per side.
#[derive(Debug)]
struct Subscriber {
    side: String,
    id: ConnectionId,
}

/// The mailbox server as a state machine.
///
/// Call [`handle_connect`](Self::handle_connect), [`handle_message`](Self::handle_message),
/// [`handle_disconnect`](Self::handle_disconnect) and, every few seconds, [`handle_tick`](Self::handle_tick).
/// After each, drain [`poll_output`](Self::poll_output) until it returns `None`. `now` is always in seconds since
/// 1970, because it goes to clients as `server_tx`.
pub struct Core<S> {
    pub(super) config: ServerConfig,
    pub(super) registry: Registry<S>,
    connections: BTreeMap<ConnectionId, Connection>,
    /// In the order of subscription.
    subscribers: BTreeMap<MailboxKey, Vec<Subscriber>>,
    quotas: BTreeMap<AddressKey, Quota>,
    quotas_until: f64,
    next_prune: f64,
    outputs: VecDeque<Output>,
}

impl<S: Store> Core<S> {
    /// A server with the content of `store`. Nothing is pruned before one whole interval has passed, so that
    /// clients have time to come back after a restart.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn new(store: S, config: ServerConfig, now: f64) -> Result<Self, StoreError> {
        Ok(Self {
            registry: Registry::new(store, config.limits.clone())?,
            connections: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            quotas: BTreeMap::new(),
            quotas_until: now + config.prune_idle.as_secs_f64(),
            next_prune: now + config.prune_interval.as_secs_f64(),
            outputs: VecDeque::new(),
            config,
        })
    }

    /// A client's websocket is open: it gets the welcome.
    pub fn handle_connect(&mut self, id: ConnectionId, peer: PeerAddress, now: f64) {
        let mut welcome = self.config.welcome.to_json();
        if self.config.your_address {
            welcome.insert("your-address".into(), your_address(&peer));
        }
        let connection = Connection {
            id,
            address: peer.key(),
            connected: now,
            last_message: now,
            binding: None,
            allocated: false,
            claimed: None,
            released: false,
            mailbox: None,
            subscribed: false,
            closed: false,
        };
        self.connections.insert(id, connection);
        self.send(id, now, "welcome", json!({ "welcome": welcome }));
    }

    /// A websocket message arrived, text or binary. Unknown connections are ignored: they were just closed.
    pub fn handle_message(&mut self, id: ConnectionId, payload: &[u8], now: f64, rng: &mut impl Rng) {
        // Out of the map while it is handled, so that the handlers may change both.
        let Some(mut connection) = self.connections.remove(&id) else { return };
        connection.last_message = now;
        let (fault, orig) = match parse(payload) {
            Ok(request) => (self.request(&mut connection, &request, now, rng).err(), Some(request)),
            Err(fault) => (Some(fault), None),
        };
        let close = fault.and_then(|fault| {
            let orig = orig.map_or_else(|| json!({}), |orig| shortened(orig, payload.len()));
            self.send(id, now, "error", json!({ "error": fault.text, "orig": orig }));
            fault.close
        });
        self.connections.insert(id, connection);
        if let Some((code, reason)) = close {
            self.close(id, code, reason);
        }
    }

    /// A websocket message was too large for the driver to take.
    pub fn handle_oversized(&mut self, id: ConnectionId, now: f64) {
        let most = self.config.limits.websocket_message;
        self.fail(id, now, &format!("a message may have at most {most} bytes"), 1009, "message too large");
    }

    /// A websocket message broke the websocket protocol, for instance with text that is not UTF-8.
    pub fn handle_malformed(&mut self, id: ConnectionId, now: f64) {
        self.fail(id, now, "messages must be websocket frames of UTF-8 text", 1007, "malformed message");
    }

    /// The client is gone. Its claims and its mailbox stay.
    pub fn handle_disconnect(&mut self, id: ConnectionId) {
        if let Some(mut connection) = self.connections.remove(&id) {
            self.unsubscribe(&mut connection);
        }
    }

    /// Time has passed: closes connections that take too long, and prunes when it is due.
    pub fn handle_tick(&mut self, now: f64) {
        let bind_timeout = self.config.limits.bind_timeout.as_secs_f64();
        let idle_timeout = self.config.limits.idle_timeout.as_secs_f64();
        let late = |connection: &&Connection| match &connection.binding {
            None => now - connection.connected >= bind_timeout,
            Some(_) => !connection.subscribed && now - connection.last_message >= idle_timeout,
        };
        let late: Vec<(ConnectionId, bool)> =
            self.connections.values().filter(late).map(|c| (c.id, c.binding.is_some())).collect();
        for (id, bound) in late {
            if bound {
                self.close(id, 1001, "idle for too long");
            } else {
                self.fail(id, now, "bind must come sooner after the welcome", 1008, "no bind");
            }
        }
        if now >= self.quotas_until {
            self.quotas.clear();
            self.quotas_until = now + self.config.prune_idle.as_secs_f64();
        }
        if now >= self.next_prune {
            self.next_prune = now + self.config.prune_interval.as_secs_f64();
            self.prune(now);
        }
    }

    /// The next thing to do, if any.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How sessions ended since the start.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.registry.usage()
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Deletes mailboxes that nobody uses any more.
    fn prune(&mut self, now: f64) {
        let before = now - self.config.prune_idle.as_secs_f64();
        if let Err(refusal) = self.registry.prune(self.subscribers.keys(), before, now) {
            tracing::error!(?refusal, "pruning failed; the next pruning tries again");
        }
    }

    pub(super) fn quota(&mut self, address: AddressKey) -> &mut Quota {
        // A bound for this map itself: forgetting is better than growing.
        if self.quotas.len() >= self.config.limits.mailboxes && !self.quotas.contains_key(&address) {
            self.quotas.clear();
        }
        self.quotas.entry(address).or_insert(self.config.limits.mailboxes_per_address)
    }

    /// The registry and the quota of an address, borrowed together.
    pub(super) fn registry_and_quota(&mut self, address: AddressKey) -> (&mut Registry<S>, &mut Quota) {
        self.quota(address);
        let quota = self.quotas.get_mut(&address).expect("`quota` has just inserted it");
        (&mut self.registry, quota)
    }

    pub(super) fn subscribe(&mut self, connection: &mut Connection, binding: &Binding, mailbox: &str) {
        connection.subscribed = true;
        let key = (binding.app.clone(), mailbox.to_owned());
        let subscribers = self.subscribers.entry(key).or_default();
        let mine = |subscriber: &Subscriber| subscriber.side == binding.side;
        let count = subscribers.iter().filter(|subscriber| mine(subscriber)).count();
        let oldest =
            subscribers.iter().position(mine).filter(|_| count >= self.config.limits.subscriptions_per_side);
        let replaced = oldest.map(|index| subscribers.remove(index));
        subscribers.push(Subscriber { side: binding.side.clone(), id: connection.id });
        if let Some(replaced) = replaced {
            self.connections.remove(&replaced.id);
            self.push_close(replaced.id, 1000, "replaced by a newer connection");
        }
    }

    pub(super) fn unsubscribe(&mut self, connection: &mut Connection) {
        let (true, Some(binding), Some(mailbox)) =
            (connection.subscribed, connection.binding.as_ref(), connection.mailbox.as_ref())
        else {
            return;
        };
        let key = (binding.app.clone(), mailbox.clone());
        if let Some(subscribers) = self.subscribers.get_mut(&key) {
            subscribers.retain(|subscriber| subscriber.id != connection.id);
            if subscribers.is_empty() {
                self.subscribers.remove(&key);
            }
        }
        connection.subscribed = false;
    }

    /// A mailbox was deleted: whoever still listens has nothing to listen to.
    pub(super) fn drop_subscribers(&mut self, binding: &Binding, mailbox: &str) {
        let key = (binding.app.clone(), mailbox.to_owned());
        for subscriber in self.subscribers.remove(&key).unwrap_or_default() {
            if let Some(connection) = self.connections.get_mut(&subscriber.id) {
                connection.subscribed = false;
            }
        }
    }

    pub(super) fn broadcast(&mut self, binding: &Binding, mailbox: &str, message: &Message, now: f64) {
        let key = (binding.app.clone(), mailbox.to_owned());
        let text = render(now, "message", message_json(message));
        for subscriber in self.subscribers.get(&key).into_iter().flatten() {
            self.outputs.push_back(Output::Send { to: subscriber.id, text: Arc::clone(&text) });
        }
    }

    pub(super) fn send(&mut self, to: ConnectionId, now: f64, kind: &str, body: Value) {
        self.outputs.push_back(Output::Send { to, text: render(now, kind, body) });
    }

    fn fail(&mut self, id: ConnectionId, now: f64, error: &str, code: u16, reason: &'static str) {
        if self.connections.contains_key(&id) {
            self.send(id, now, "error", json!({ "error": error, "orig": {} }));
            self.close(id, code, reason);
        }
    }

    fn close(&mut self, id: ConnectionId, code: u16, reason: &'static str) {
        self.handle_disconnect(id);
        self.push_close(id, code, reason);
    }

    fn push_close(&mut self, to: ConnectionId, code: u16, reason: &'static str) {
        self.outputs.push_back(Output::Close { to, code, reason });
    }
}

impl<S> std::fmt::Debug for Core<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}

/// What a refusal of the registry means to the client.
impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Crowded => Self::error("crowded"),
            Refusal::Reclaimed => Self::error("reclaimed"),
            Refusal::NotOpen => Self::error("must open mailbox before adding"),
            Refusal::Limit(text) => Self::error(text),
            Refusal::Store(error) => {
                tracing::error!(%error, "a request failed");
                Self::fatal("the server's storage failed; try again later", 1011, "storage failed")
            }
        }
    }
}

pub(super) fn message_json(message: &Message) -> Value {
    json!({
        "side": message.side, "phase": message.phase, "body": message.body,
        "server_rx": message.server_rx, "id": message.id,
    })
}

fn render(now: f64, kind: &str, mut body: Value) -> Arc<str> {
    body["type"] = kind.into();
    body["server_tx"] = now.into();
    body.to_string().into()
}

fn your_address(peer: &PeerAddress) -> Value {
    let mut you = Map::new();
    if let Some(port) = peer.port {
        you.insert("port".into(), port.into());
    }
    let key = match peer.ip {
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(_) => "ipv6",
    };
    you.insert(key.into(), peer.ip.to_string().into());
    Value::Object(you)
}

/// The offending request as `orig`. A large one is cut down to what identifies it, so that nobody makes the
/// server send back megabytes.
fn shortened(mut request: Map<String, Value>, len: usize) -> Value {
    const LARGEST_ECHO: usize = 16 << 10;
    if len > LARGEST_ECHO {
        request.retain(|key, value| {
            matches!(key.as_str(), "type" | "id" | "phase")
                && value.as_str().is_none_or(|text| text.len() <= 128)
                && !value.is_array()
                && !value.is_object()
        });
    }
    Value::Object(request)
}
