//! A model of the mailbox server and any number of clients, without a network or a clock.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::super::{Client, ClientConfig, Event};

/// What the server stores. It survives connections; a test may clear it to model a server that forgets.
#[derive(Default)]
pub(super) struct Server {
    /// Nameplate to mailbox and the sides that claimed it.
    pub(super) nameplates: BTreeMap<String, (String, Vec<String>)>,
    /// Mailbox to sides and messages.
    pub(super) mailboxes: BTreeMap<String, (Vec<String>, Vec<Value>)>,
    pub(super) moods: Vec<String>,
    created: usize,
}

#[derive(Default)]
struct Connection {
    up: bool,
    side: String,
    subscribed: Option<String>,
}

pub(super) struct World {
    pub(super) server: Server,
    pub(super) clients: Vec<Client>,
    connections: Vec<Connection>,
    /// What each client sent since the last look, shortened: `add pake`.
    pub(super) sent: Vec<Vec<String>>,
    pub(super) events: Vec<Vec<Event>>,
    /// Deliver each message this many times.
    pub(super) copies: usize,
}

pub(super) fn config() -> ClientConfig {
    ClientConfig::new("example.org/test")
}

impl World {
    pub(super) fn new(configs: Vec<ClientConfig>) -> Self {
        let count = configs.len();
        let client = |(n, config)| Client::new(config, StdRng::seed_from_u64(n));
        Self {
            server: Server::default(),
            clients: (1..).zip(configs).map(client).collect(),
            connections: (0..count).map(|_| Connection::default()).collect(),
            sent: vec![Vec::new(); count],
            events: vec![Vec::new(); count],
            copies: 1,
        }
    }

    pub(super) fn pair() -> Self {
        Self::new(vec![config(), config()])
    }

    pub(super) fn connect(&mut self, n: usize) {
        self.connections[n] = Connection { up: true, ..Connection::default() };
        self.clients[n].handle_open();
        self.tell(n, json!({"type": "welcome", "welcome": {"motd": "hello"}, "server_tx": 1.0}));
        self.run();
    }

    pub(super) fn lose(&mut self, n: usize) {
        self.connections[n].up = false;
        self.clients[n].handle_lost("cut");
        self.run();
    }

    pub(super) fn tell(&mut self, n: usize, message: Value) {
        if self.connections[n].up {
            self.clients[n].handle_text(&message.to_string());
        }
    }

    /// Carries messages until all is quiet.
    pub(super) fn run(&mut self) {
        let mut busy = true;
        while std::mem::take(&mut busy) {
            for n in 0..self.clients.len() {
                while let Some(event) = self.clients[n].poll_event() {
                    self.events[n].push(event);
                }
                while let Some(text) = self.clients[n].poll_transmit() {
                    busy = true;
                    self.serve(n, &serde_json::from_str(&text).unwrap());
                }
            }
        }
    }

    /// What client `n` sent since the last call.
    pub(super) fn sent(&mut self, n: usize) -> Vec<String> {
        std::mem::take(&mut self.sent[n])
    }

    /// The events of client `n` since the last call, by name, and those that matter in full.
    pub(super) fn events(&mut self, n: usize) -> Vec<Event> {
        std::mem::take(&mut self.events[n])
    }

    pub(super) fn messages(&self, n: usize) -> Vec<Vec<u8>> {
        let message = |event: &Event| match event {
            Event::Message(message) => Some(message.clone()),
            _ => None,
        };
        self.events[n].iter().filter_map(message).collect()
    }

    pub(super) fn closed(&self, n: usize) -> Option<Result<(), crate::WormholeError>> {
        self.events[n].iter().find_map(|event| match event {
            Event::Closed(result) => Some(result.clone()),
            _ => None,
        })
    }

    fn mailbox(&mut self) -> String {
        self.server.created += 1;
        format!("mailbox{}", self.server.created)
    }

    fn error(&mut self, n: usize, error: &str, orig: &Value) {
        self.tell(n, json!({"type": "error", "error": error, "orig": orig}));
    }

    fn serve(&mut self, n: usize, message: &Value) {
        let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
        let (kind, side) = (text("type"), self.connections[n].side.clone());
        let detail = if kind == "close" { text("mood") } else { text("phase") };
        self.sent[n].push(format!("{kind} {detail}").trim_end().to_owned());
        self.tell(n, json!({"type": "ack", "id": null}));
        match kind.as_str() {
            "bind" => self.connections[n].side = text("side"),
            "list" => {
                let listed: Vec<_> = self.server.nameplates.keys().map(|id| json!({"id": id})).collect();
                self.tell(n, json!({"type": "nameplates", "nameplates": listed}));
            }
            "allocate" => {
                let free = (1..).map(|n: u32| n.to_string());
                let nameplate = free.into_iter().find(|n| !self.server.nameplates.contains_key(n)).unwrap();
                let mailbox = self.mailbox();
                self.server.nameplates.insert(nameplate.clone(), (mailbox, vec![side]));
                self.tell(n, json!({"type": "allocated", "nameplate": nameplate}));
            }
            "claim" => {
                let fresh = self.mailbox();
                let (mailbox, sides) =
                    self.server.nameplates.entry(text("nameplate")).or_insert((fresh, Vec::new()));
                if !sides.contains(&side) {
                    sides.push(side);
                }
                let (mailbox, crowded) = (mailbox.clone(), sides.len() > 2);
                if crowded {
                    self.error(n, "crowded", message);
                } else {
                    self.tell(n, json!({"type": "claimed", "mailbox": mailbox}));
                }
            }
            "release" => {
                if let Some((_, sides)) = self.server.nameplates.get_mut(&text("nameplate")) {
                    sides.retain(|s| *s != side);
                    if sides.is_empty() {
                        self.server.nameplates.remove(&text("nameplate"));
                    }
                }
                self.tell(n, json!({"type": "released"}));
            }
            "open" => {
                let (sides, messages) = self.server.mailboxes.entry(text("mailbox")).or_default();
                sides.push(side);
                let replay = messages.clone();
                self.connections[n].subscribed = Some(text("mailbox"));
                replay.into_iter().for_each(|message| self.tell(n, message));
            }
            "add" => {
                let mailbox = self.connections[n].subscribed.clone().expect("clients open before they add");
                let stored =
                    json!({"type": "message", "side": side, "phase": text("phase"), "body": text("body")});
                self.server.mailboxes.get_mut(&mailbox).unwrap().1.push(stored.clone());
                for other in 0..self.clients.len() {
                    if self.connections[other].subscribed.as_ref() == Some(&mailbox) {
                        (0..self.copies).for_each(|_| self.tell(other, stored.clone()));
                    }
                }
            }
            "close" => {
                self.server.moods.push(text("mood"));
                self.connections[n].subscribed = None;
                self.tell(n, json!({"type": "closed"}));
            }
            "ping" => self.tell(n, json!({"type": "pong", "pong": message["ping"]})),
            other => panic!("unknown message {other}"),
        }
    }
}
