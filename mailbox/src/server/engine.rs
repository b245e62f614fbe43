//! The thread that owns the core and its store.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Bytes;

use super::{
    address::PeerAddress,
    clock,
    core::{ConnectionId, Core, Output},
    net::ServerStats,
    outbox::{Outbox, Outgoing},
    store::Store,
};

/// What connections tell the core.
pub(super) enum Event {
    Connect { id: ConnectionId, peer: PeerAddress, outbox: Outbox },
    Message { id: ConnectionId, payload: Bytes },
    Oversized { id: ConnectionId },
    Malformed { id: ConnectionId },
    Disconnect { id: ConnectionId },
    Tick,
}

/// How many events may wait. Each connection has at most one in flight, so this bounds memory, not fairness.
pub(super) const EVENTS: usize = 32;

/// The core, and where its outputs go.
pub(super) struct Engine {
    core: Core<Box<dyn Store>>,
    outboxes: BTreeMap<ConnectionId, Outbox>,
    stats: Arc<Mutex<ServerStats>>,
}

impl Engine {
    pub(super) fn new(core: Core<Box<dyn Store>>, stats: Arc<Mutex<ServerStats>>) -> Self {
        Self { core, outboxes: BTreeMap::new(), stats }
    }

    /// Works until the last sender of events is gone. Blocks, so it wants a thread of its own.
    pub(super) fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let mut rng = rand::rng();
        while let Some(event) = events.blocking_recv() {
            self.handle(event, &mut rng);
            self.deliver();
            let stats = ServerStats { connections: self.core.connections(), usage: self.core.usage() };
            *self.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
        }
    }

    fn handle(&mut self, event: Event, rng: &mut impl rand::Rng) {
        let now = clock::unix_time();
        match event {
            Event::Connect { id, peer, outbox } => {
                self.outboxes.insert(id, outbox);
                self.core.handle_connect(id, peer, now);
            }
            Event::Message { id, payload } => self.core.handle_message(id, &payload, now, rng),
            Event::Oversized { id } => self.core.handle_oversized(id, now),
            Event::Malformed { id } => self.core.handle_malformed(id, now),
            Event::Disconnect { id } => {
                self.outboxes.remove(&id);
                self.core.handle_disconnect(id);
            }
            Event::Tick => self.core.handle_tick(now),
        }
    }

    fn deliver(&mut self) {
        while let Some(output) = self.core.poll_output() {
            let (to, outgoing, last) = match output {
                Output::Send { to, text } => (to, Outgoing::Text(text), false),
                Output::Close { to, code, reason } => (to, Outgoing::Close { code, reason }, true),
            };
            let Some(outbox) = self.outboxes.get(&to) else { continue };
            if !outbox.push(outgoing) {
                tracing::debug!(connection = to.0, "dropped a connection that is gone or reads too slowly");
                self.core.handle_disconnect(to);
                self.outboxes.remove(&to);
            } else if last {
                self.outboxes.remove(&to);
            }
        }
    }
}
