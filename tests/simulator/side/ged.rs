//! The one link of `ged`.

use std::time::Instant;

use dilated::{
    LivenessConfig,
    protocol::{Selection, State},
};
use dilated_subchannel::mux::{Mux, MuxConfig, ged};

use super::{Brain, Side};
use crate::{
    connector::Candidate,
    link::{Link, Ours, Watch},
    network::Network,
    python::Keepalive,
    trace::name,
};

/// Small limits in `ged`, so that every run meets them.
pub(super) const LIMITS: Limits = Limits { outbox: 8192, receive: 4096, total: 16_384 };

pub(super) struct Limits {
    pub(super) outbox: usize,
    receive: usize,
    pub(super) total: usize,
}

impl Side {
    pub(super) fn use_link(&mut self, candidate: Candidate, network: &mut Network) {
        let early = self.is_early();
        let mut selection = self.handle_selected(network.now);
        let replaced = selection == Selection::Replace;
        if replaced {
            self.replaced += 1;
            self.lose_link("the other side had lost it", network);
            self.perform(network);
            selection = self.handle_selected(network.now);
        }
        let Candidate { place, pipe, output, .. } = candidate;
        if selection != Selection::Use {
            self.refused += 1;
            network.trace.note(|| format!("{} refuses connection {}", name(self.number), place.connection));
            return network.abort(place);
        }
        if let Some(connector) = &mut self.connector {
            connector.rest(network);
        }
        network.trace.note(|| {
            format!(
                "{} takes connection {}, generation {}",
                name(self.number),
                place.connection,
                self.generation()
            )
        });
        let watch = match &self.brain {
            Brain::Ours(_) => Watch::Ours(Box::new(Ours::new(self.silent, network.now))),
            Brain::Python(_) => Watch::Python(Keepalive::new(self.role.expect("chosen before"), network.now)),
        };
        self.links += 1;
        self.early += u64::from(early || replaced);
        let mut link = Link::new(place, pipe, output, ged(&mut self.mux), watch);
        if self.is_draining() {
            link.drain();
        }
        if let Brain::Ours(manager) = &self.brain
            && manager.short_links() > 0
        {
            link.be_cautious(network.now + LivenessConfig::default().first_answer);
        }
        self.link = Some(link);
    }

    fn is_early(&self) -> bool {
        let Brain::Ours(manager) = &self.brain else { return false };
        matches!(manager.state(), State::Flushing { .. } | State::Lonely)
    }

    fn handle_selected(&mut self, now: Instant) -> Selection {
        self.tell_heard();
        match &mut self.brain {
            Brain::Ours(manager) => manager.handle_selected(now),
            Brain::Python(manager) => manager.handle_selected(),
        }
    }
}

pub(super) fn config() -> MuxConfig {
    MuxConfig {
        outbox_limit: LIMITS.outbox,
        receive_limit: LIMITS.receive,
        receive_total: LIMITS.total,
        ..MuxConfig::default()
    }
}

/// The engine of `ged`.
pub(super) fn ged(mux: &mut Mux) -> &mut ged::Mux {
    mux.as_ged_mut().expect("the dialect")
}
