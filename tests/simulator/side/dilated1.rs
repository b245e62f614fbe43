//! The links of `dilated-1`.

use std::time::Duration;

use dilated::{
    Generation, LivenessConfig, Role,
    protocol::{Choice, State},
};
use dilated_subchannel::mux::{MuxConfig, dilated1};
use dilated_transit::Path;
use rand::{RngExt, rngs::StdRng};

use super::{Brain, Side};
use crate::{app::Load, connector::Candidate, network::Network, trace::name, wires::Wires};

/// In which time candidates count as found together (specification `dilated-1`, section "Links").
const BUNCH: Duration = Duration::from_millis(500);

impl Side {
    /// Whether it is on a link that no relay is in.
    pub(crate) fn is_direct(&self) -> bool {
        self.wires.as_ref().and_then(|wires| wires.links().path()).is_some_and(Path::is_direct)
    }

    /// Whether another link stands by.
    pub(crate) fn has_standby(&self) -> bool {
        self.wires.as_ref().is_some_and(|wires| wires.has_standby())
    }

    /// The links of `dilated-1`, if there are any, and what is above them.
    pub(super) fn links(&mut self) -> Option<(&mut Wires, &mut dilated1::Mux)> {
        Some((self.wires.as_deref_mut().filter(|_| self.linked)?, self.mux.as_dilated1_mut()?))
    }

    /// Any of its links becomes the active one.
    pub(crate) fn switch_link(&mut self, network: &mut Network) {
        if let Some((wires, mux)) = self.links() {
            wires.switch(mux, network);
        }
        self.settle(network);
    }

    /// The active link is activated anew, after which both sides say all sums again.
    pub(crate) fn renew_link(&mut self, network: &mut Network) {
        if let Some((wires, mux)) = self.links() {
            wires.renew(mux, network.now);
        }
        self.settle(network);
    }

    /// As the product's `Driver::consider`, and what it calls.
    pub(super) fn consider(&mut self, candidate: Candidate, network: &mut Network) {
        self.tell_heard();
        let draining = self.is_draining();
        let Brain::Ours(manager) = &mut self.brain else { unreachable!("Python has no candidates") };
        let before = (manager.generation(), manager.state().clone());
        let generation = Generation::new(candidate.generation);
        let choice = manager.handle_candidate(generation, candidate.peer_linked, network.now);
        let wires = self.wires.as_deref_mut().expect("the dialect has them");
        let connector = self.connector.as_mut().expect("it found the candidate");
        let mux = self.mux.as_dilated1_mut().expect("the dialect");
        let (place, path) = (candidate.place, candidate.path.clone());
        let taken = match choice {
            Choice::Use => {
                if !wires.is_empty() {
                    self.replaced += 1;
                }
                wires.reset(mux, network);
                self.linked = true;
                if draining {
                    wires.drain();
                }
                if manager.short_links() > 0 || wires.links().is_barren() {
                    wires.be_cautious(LivenessConfig::default().first_answer, mux);
                }
                Some(self.role == Some(Role::Leader))
            }
            Choice::Another { needed } => wires.judge(&path, needed, self.standby, network.now),
            Choice::Refuse => None,
        };
        network.trace.note(|| {
            let (name, connection) = (name(self.number), place.connection);
            format!(
                "{name}: connection {connection} ({path}), generation {generation}: {choice:?}, {taken:?}"
            )
        });
        // The Follower has no link of this generation, and nothing shows that it has ours, nor that it could have it yet.
        let waited = |since| network.now.saturating_duration_since(since) >= BUNCH;
        let unheard = before.0 == generation
            && matches!(before.1, State::Linked { heard: false, since, .. } if waited(since));
        let needed = self.role == Some(Role::Leader) && unheard && !candidate.peer_linked;
        assert!(!needed || taken == Some(true), "the Leader stays on a link that the Follower may not have");
        let Some(activate) = taken else {
            self.refused += 1;
            connector.refuse(&candidate, network);
            return self.look_for_more(network);
        };
        self.links += 1;
        wires.add(connector.select(candidate), activate, generation.get(), mux, network);
        if choice == Choice::Use {
            connector.rest(network);
            connector.set_offer(generation.get(), true);
        } else {
            self.look_for_more(network);
        }
    }

    /// As the product's `Dilation::look_for_more`.
    pub(super) fn look_for_more(&mut self, network: &mut Network) {
        let (generation, standby) = (self.generation(), self.standby);
        let Some(wires) = self.wires.as_deref_mut().filter(|_| self.linked) else { return };
        let connector = self.connector.as_mut().expect("it found the links");
        match wires.poll_wanted(standby, network) {
            Some(Some(better)) => connector.search_better(generation, better, network),
            Some(None) => connector.rest(network),
            None => {}
        }
    }
}

/// Limits which the load meets, but which it can be done with.
pub(super) fn config(load: Load, rng: &mut StdRng) -> MuxConfig {
    let piece = usize::try_from(load.piece).expect("short");
    // Whoever waits for the rest of a message does not read meanwhile: all may do so at once.
    let unread = (2 * load.opens + 2) * piece;
    MuxConfig {
        outbox_limit: 8192,
        receive_total: unread + [0, 20_000, 1 << 20][rng.random_range(0..3)],
        stream_queue: [2048, 4 << 20][rng.random_range(0..2)],
        max_subchannels: [2, 4, 64][rng.random_range(0..3)],
        max_data: piece,
        ..MuxConfig::default()
    }
}
