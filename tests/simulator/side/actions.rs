//! What the manager says is done, and what follows from the loss of a link.

use dilated::{
    DilationError, Role,
    protocol::{Action, Agreement},
};
use dilated_subchannel::{id::Parity, mux::Dialect as MuxDialect};
use dilated_transit::{LinkDialect, RelayHint, TcpHint};

use super::{Brain, Side, Wish, ged::ged};
use crate::{
    connector::{Connector, Style},
    link::Link,
    network::{Network, RELAY, address, to_ip},
    relay,
    trace::name,
    wires::Wires,
};

impl Side {
    pub(super) fn perform(&mut self, network: &mut Network) {
        loop {
            let action = match &mut self.brain {
                Brain::Ours(manager) => manager.poll_action(),
                Brain::Python(manager) => manager.poll_action(),
            };
            let Some(action) = action else { return };
            match action {
                Action::Send(message) => {
                    network
                        .trace
                        .note(|| format!("{} says {}", name(self.number), String::from_utf8_lossy(&message)));
                    self.wishes.push(Wish::Send(message));
                }
                Action::Agreed(role, agreement) => self.agreed(role, agreement, network),
                Action::Search(_, generation) => {
                    network.trace.note(|| format!("{} searches, generation {generation}", name(self.number)));
                    if let Some(connector) = &mut self.connector {
                        connector.search(generation.get(), network);
                    }
                }
                Action::Rest => {
                    if let Some(connector) = &mut self.connector {
                        connector.rest(network);
                    }
                }
                Action::UseHints { hints, first } => {
                    if let Some(connector) = &mut self.connector {
                        connector.add_peer_hints(hints, first, network);
                    }
                }
                Action::AbortLink => {
                    self.abort_link("the other side started a new generation", network);
                }
                Action::Failed(DilationError::PeerClosed) => self.end_dilation(network),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn agreed(&mut self, role: Role, agreement: Agreement, network: &mut Network) {
        self.role = Some(role);
        let parity = match role {
            Role::Leader => Parity::Odd,
            Role::Follower => Parity::Even,
        };
        let dialect = match agreement {
            Agreement::Dilated1 { aes, peer, .. } => {
                self.mux.start(parity, MuxDialect::Dilated1 { peer });
                self.wires = Some(Box::new(Wires::new(self.number, role, peer)));
                LinkDialect::Dilated1 { aes }
            }
            _ => {
                self.mux.start(parity, MuxDialect::Ged);
                LinkDialect::Ged
            }
        };
        // The product makes it with the first search, which follows.
        let relay = self
            .relay
            .then(|| RelayHint::from(TcpHint::from_addr(to_ip(address(RELAY, 1)).into(), relay::PORT)));
        let style = if self.is_python() { Style::Python } else { Style::Ours };
        let side = self.side.as_str().to_owned();
        self.connector = Some(Connector::new(
            self.number,
            style,
            (role, dialect),
            self.key.clone(),
            (side, relay),
            network,
        ));
    }

    pub(super) fn lose_link(&mut self, why: &str, network: &mut Network) {
        self.tell_heard();
        let progressed = self.link.as_ref().is_some_and(Link::is_loaded)
            || self.wires.as_ref().is_some_and(|wires| wires.links().is_loaded());
        if !self.abort_link(why, network) {
            return;
        }
        match &mut self.brain {
            Brain::Ours(manager) => {
                self.wishes.push(Wish::Probe);
                manager.handle_link_lost(network.now, progressed);
                // A search says it, too, but that may have to pause.
                let generation = manager.generation().get();
                if let Some(connector) = &mut self.connector {
                    connector.set_offer(generation, false);
                }
            }
            Brain::Python(manager) => manager.handle_link_lost(),
        }
    }

    /// Returns whether there was a link.
    pub(super) fn abort_link(&mut self, why: &str, network: &mut Network) -> bool {
        if let Some((wires, mux)) = self.links() {
            wires.reset(mux, network);
            self.linked = false;
            network.trace.note(|| format!("{} loses its links: {why}", name(self.number)));
            return true;
        }
        let Some(link) = self.link.take() else { return false };
        network.trace.note(|| {
            let (progress, silent) = (self.mux.progress(), self.silent);
            let health = link.health(network.now);
            format!(
                "{} loses connection {}: {why} ({progress:?}, {health}, silent links {silent})",
                name(self.number),
                link.place.connection
            )
        });
        if link.is_loaded() {
            self.silent = 0;
        }
        ged(&mut self.mux).link_down();
        match &self.brain {
            Brain::Ours(_) => network.abort(link.place),
            Brain::Python(_) => network.finish(link.place),
        }
        true
    }
}
