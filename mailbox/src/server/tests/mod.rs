//! The core under test, with a virtual clock and a seeded generator.

mod hostile;
mod limits;
mod mailboxes;
mod nameplates;
mod protocol;
mod prune;

use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::*;

const APP: &str = "appid";

/// A server and everything that it said.
struct Harness {
    core: Core<Box<dyn Store>>,
    now: f64,
    rng: StdRng,
    next: u64,
    sent: Vec<(ConnectionId, Value)>,
    closed: Vec<(ConnectionId, u16)>,
}

/// One server per kind of store: the rules are the same.
fn all_stores() -> Vec<Box<dyn Store>> {
    vec![
        Box::new(MemoryStore::new()),
        #[cfg(feature = "sqlite")]
        Box::new(SqliteStore::open(":memory:").unwrap()),
    ]
}

fn on_all_stores(test: impl Fn(Harness)) {
    all_stores().into_iter().for_each(|store| test(Harness::with(store, ServerConfig::default())));
}

impl Harness {
    fn new(config: ServerConfig) -> Self {
        Self::with(Box::new(MemoryStore::new()), config)
    }

    fn limited(change: impl FnOnce(&mut ServerLimits)) -> Self {
        let mut config = ServerConfig::default();
        change(&mut config.limits);
        Self::new(config)
    }

    fn with(store: Box<dyn Store>, config: ServerConfig) -> Self {
        let now = 1_000_000.5;
        let core = Core::new(store, config, now).unwrap();
        Self { core, now, rng: StdRng::seed_from_u64(7), next: 0, sent: Vec::new(), closed: Vec::new() }
    }

    /// A connection that has had its welcome.
    fn connect(&mut self) -> ConnectionId {
        self.connect_from("127.0.0.1")
    }

    fn connect_from(&mut self, ip: &str) -> ConnectionId {
        let id = ConnectionId(self.next);
        self.next += 1;
        self.core.handle_connect(id, PeerAddress::new(ip.parse().unwrap(), Some(46588)), self.now);
        let welcome = self.take(id);
        assert_eq!(welcome.len(), 1, "{welcome:?}");
        assert_eq!(welcome[0]["type"], "welcome");
        id
    }

    /// A connection that is bound.
    fn side(&mut self, side: &str) -> ConnectionId {
        let id = self.connect();
        self.ask(id, json!({ "type": "bind", "appid": APP, "side": side }));
        id
    }

    fn raw(&mut self, id: ConnectionId, payload: &[u8]) {
        self.core.handle_message(id, payload, self.now, &mut self.rng);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Send { to, text } => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    assert!(message["server_tx"].is_f64(), "{message}");
                    self.sent.push((to, message));
                }
                Output::Close { to, code, .. } => self.closed.push((to, code)),
            }
        }
    }

    /// Sends a request and returns what came on this connection, without the ack.
    fn ask(&mut self, id: ConnectionId, request: Value) -> Vec<Value> {
        self.raw(id, request.to_string().as_bytes());
        self.take(id)
    }

    /// The error that a request gets, and nothing else.
    fn error(&mut self, id: ConnectionId, request: Value) -> String {
        let answer = self.ask(id, request.clone());
        assert_eq!(answer.len(), 1, "{answer:?}");
        assert_eq!(answer[0]["type"], "error", "{answer:?}");
        assert_eq!(answer[0]["orig"], request);
        answer[0]["error"].as_str().unwrap().to_owned()
    }

    /// What came on a connection since the last call, without acks.
    fn take(&mut self, id: ConnectionId) -> Vec<Value> {
        self.drain();
        let (mine, others) = std::mem::take(&mut self.sent).into_iter().partition(|(to, _)| *to == id);
        self.sent = others;
        let mine: Vec<(ConnectionId, Value)> = mine;
        mine.into_iter().map(|(_, message)| message).filter(|message| message["type"] != "ack").collect()
    }

    fn claim(&mut self, id: ConnectionId, nameplate: &str) -> String {
        let answer = self.ask(id, json!({ "type": "claim", "nameplate": nameplate }));
        assert_eq!(answer[0]["type"], "claimed", "{answer:?}");
        answer[0]["mailbox"].as_str().unwrap().to_owned()
    }

    fn open(&mut self, id: ConnectionId, mailbox: &str) -> Vec<Value> {
        let messages = self.ask(id, json!({ "type": "open", "mailbox": mailbox }));
        assert!(messages.iter().all(|message| message["type"] == "message"), "{messages:?}");
        messages
    }

    fn add(&mut self, id: ConnectionId, phase: &str, body: &str) {
        let echo = self.ask(id, json!({ "type": "add", "phase": phase, "body": body, "id": "1f2e" }));
        assert_eq!(echo.len(), 1, "{echo:?}");
        assert_eq!(echo[0]["type"], "message");
        assert_eq!(echo[0]["body"], body);
    }

    fn close(&mut self, id: ConnectionId, request: Value) {
        let answer = self.ask(id, request);
        assert_eq!(answer[0]["type"], "closed", "{answer:?}");
    }

    fn leave(&mut self, id: ConnectionId) {
        self.core.handle_disconnect(id);
    }

    fn list(&mut self, id: ConnectionId) -> Vec<String> {
        let answer = self.ask(id, json!({ "type": "list" }));
        assert_eq!(answer[0]["type"], "nameplates", "{answer:?}");
        let names = answer[0]["nameplates"].as_array().unwrap();
        names.iter().map(|name| name["id"].as_str().unwrap().to_owned()).collect()
    }

    fn nameplate(&self, name: &str) -> Option<NameplateRecord> {
        self.core.registry.store().nameplate(APP, name).unwrap()
    }

    fn mailbox(&self, id: &str) -> Option<MailboxRecord> {
        self.core.registry.store().mailbox(APP, id).unwrap()
    }

    fn claims(&self, name: &str) -> Vec<(String, bool)> {
        let nameplate = self.nameplate(name).unwrap();
        let mut claims: Vec<_> = nameplate.sides.into_iter().map(|row| (row.side, row.claimed)).collect();
        claims.sort();
        claims
    }

    /// Every counter agrees with the store, and nobody is crowded in.
    fn check(&self) {
        let totals = self.core.registry.store().totals().unwrap();
        assert_eq!(self.core.registry.counted(), totals);
    }
}
