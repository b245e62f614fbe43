//! The orderly end, as the product's `Driver` makes it: what was written is delivered first, if that goes in time.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use dilated::protocol::State;
use dilated_subchannel::EndReason;

use super::{Brain, Side, Wish};
use crate::{
    network::{Network, Place},
    trace::name,
};

/// As in `DilateConfig::default()`.
pub(crate) const LINGER: Duration = Duration::from_secs(10);
/// How long a connection is read on after the last byte was written, and how long the last bytes may take.
const FIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How a wormhole ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// This side closed it.
    Closed,
    /// The other side said that it had closed it.
    PeerClosed,
}

/// How far the close of this side has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Open,
    /// What was written is being delivered, until then at most.
    Draining(Instant),
    /// The mailbox is being left.
    Leaving,
    Gone,
}

#[derive(Debug, Default)]
pub(crate) struct Farewell {
    phase: Phase,
    /// When the application closed.
    asked: Option<Instant>,
    /// The peer has acknowledged everything that was written before.
    delivered: bool,
    /// The peer was told through the mailbox. One whose `please` has not come yet is not: it may not understand it.
    said: bool,
    end: Option<End>,
    /// Connections that are closed in order, with what is still to be written, and until when.
    last: Vec<(Place, BytesMut)>,
    until: Option<Instant>,
}

impl Side {
    /// When the application closed, if it did.
    pub(crate) fn closed_at(&self) -> Option<Instant> {
        self.farewell.asked
    }

    /// Whether nothing is left of the wormhole.
    pub(crate) fn is_gone(&self) -> bool {
        self.farewell.phase == Phase::Gone
    }

    /// How it ended.
    pub(crate) fn end(&self) -> Option<End> {
        self.farewell.end
    }

    /// Whether the peer has acknowledged everything that was written before the close.
    pub(crate) fn has_delivered(&self) -> bool {
        self.farewell.delivered
    }

    /// Whether the peer was told through the mailbox, if that got there.
    pub(crate) fn has_said_closing(&self) -> bool {
        self.farewell.said
    }

    /// The application closes its wormhole; it goes on reading until that is done, or drops everything.
    pub(crate) fn close(&mut self, drops: bool, network: &mut Network) {
        if self.farewell.phase != Phase::Open {
            return;
        }
        network.trace.note(|| format!("{} closes", name(self.number)));
        self.farewell.asked = Some(network.now);
        self.app.close(drops, &mut self.mux);
        let Brain::Ours(manager) = &self.brain else { unreachable!("Python closes in no plan") };
        if matches!(manager.state(), State::Waiting { .. } | State::Stopped(_)) {
            self.leave(network);
        } else {
            self.farewell.phase = Phase::Draining(network.now + LINGER);
            if let Some(link) = &mut self.link {
                link.drain();
            } else if let Some((wires, _)) = self.links() {
                wires.drain();
            }
        }
        self.settle(network);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.farewell.phase != Phase::Open
    }

    /// Everything was acknowledged.
    pub(super) fn handle_drained(&mut self, network: &mut Network) {
        if matches!(self.farewell.phase, Phase::Draining(_)) {
            self.farewell.delivered = self.farewell.end.is_none();
            self.leave(network);
        }
    }

    /// Nothing is outstanding and there is no link: there is nothing to wait for. Returns whether that is so.
    pub(super) fn leave_if_delivered(&mut self, network: &mut Network) -> bool {
        let linked = self.link.is_some() || self.linked;
        let delivered = !linked && self.mux.is_drained();
        let leaves = delivered && matches!(self.farewell.phase, Phase::Draining(_));
        if leaves {
            self.handle_drained(network);
        }
        leaves
    }

    fn leave(&mut self, network: &mut Network) {
        network.trace.note(|| format!("{} leaves, delivered {}", name(self.number), self.farewell.delivered));
        self.farewell.phase = Phase::Leaving;
        if let Brain::Ours(manager) = &mut self.brain {
            manager.say_closing();
        }
        self.farewell.said = self.role.is_some();
        self.perform(network);
        self.wishes.push(Wish::Leave);
    }

    /// The mailbox is left, or its patience was over.
    pub(crate) fn handle_left(&mut self, network: &mut Network) {
        network.trace.note(|| format!("{} is gone", name(self.number)));
        self.farewell.phase = Phase::Gone;
        self.finish(End::Closed, EndReason::closed("the wormhole was closed"), network);
        self.settle(network);
    }

    /// The peer has closed its wormhole. Ours stays, without links.
    pub(super) fn end_dilation(&mut self, network: &mut Network) {
        network.trace.note(|| format!("{} knows that the other side has closed", name(self.number)));
        assert_ne!(self.farewell.phase, Phase::Gone, "it has ended before");
        self.finish(End::PeerClosed, EndReason::failed("the other side closed its wormhole"), network);
    }

    fn finish(&mut self, end: End, reason: EndReason, network: &mut Network) {
        if let Brain::Ours(manager) = &mut self.brain {
            manager.stop();
        }
        if let Some(connector) = self.connector.take() {
            connector.shut(network);
        }
        self.linked = false;
        let mut last = Vec::new();
        if let (Some(wires), Some(mux)) = (&mut self.wires, self.mux.as_dilated1_mut()) {
            last = wires.close(mux, network);
        }
        if let Some(link) = self.link.take() {
            super::ged(&mut self.mux).link_down();
            last.push(link.close());
        }
        self.mux.fail(reason);
        self.app.end(&mut self.mux);
        self.farewell.end.get_or_insert(end);
        self.farewell.last.extend(last);
        self.farewell.until = Some(network.now + FIN_TIMEOUT);
        self.flush_last(network);
    }

    pub(super) fn farewell_deadline(&self) -> Option<Instant> {
        let draining = match self.farewell.phase {
            Phase::Draining(until) => Some(until),
            _ => None,
        };
        draining.into_iter().chain(self.farewell.until).min()
    }

    /// Timers of the close may be due.
    pub(super) fn handle_farewell(&mut self, network: &mut Network) {
        if matches!(self.farewell.phase, Phase::Draining(until) if until <= network.now) {
            self.leave(network);
        }
        if self.farewell.until.is_some_and(|until| until <= network.now) {
            self.farewell.until = None;
            for (place, _) in std::mem::take(&mut self.farewell.last) {
                network.finish(place);
            }
        }
    }

    /// Whether this connection is one that is being closed; writes what is left.
    pub(super) fn closes(&mut self, place: Place, network: &mut Network) -> bool {
        let closes = self.farewell.last.iter().any(|(last, _)| *last == place);
        if closes {
            self.flush_last(network);
        }
        closes
    }

    /// Bytes that nobody reads would turn the end into a reset, so the connections are read until the other side ends
    /// them, too.
    fn flush_last(&mut self, network: &mut Network) {
        self.farewell.last.retain_mut(|(place, output)| {
            let open = network.write(*place, output).is_ok() && network.read(*place).is_ok();
            if !open {
                network.finish(*place);
            }
            open
        });
    }
}
