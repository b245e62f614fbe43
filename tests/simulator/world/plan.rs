//! What happens in a run, and what that came to.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

use crate::{
    app::Load,
    schedule::{self, Schedule},
};

/// What happens in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Links are cut anywhere, several times.
    Cuts(Cast),
    /// One cut, when both sides together have opened this many records.
    CutAfterRecord(Cast, u64),
    /// A random schedule of disturbances.
    Disturbances(Cast),
    /// As random, but the mailbox server is gone for good as soon as there is a link, and only one side moves.
    WithoutMailbox,
    /// At first only the relay leads from one to the other, later they reach each other.
    Upgrade,
    /// A second link stands by, and the one in use falls silent or is reset, several times.
    Failover,
    /// No connection carries more than a few thousand bytes, for minutes.
    Young(Cast),
    /// One side closes its wormhole, or both do, among random disturbances, or when the other is cut off for ever.
    Close(Cast),
}

impl Plan {
    pub(super) fn cast(self) -> Cast {
        match self {
            Plan::Cuts(cast) | Plan::CutAfterRecord(cast, _) | Plan::Disturbances(cast) => cast,
            Plan::Young(cast) | Plan::Close(cast) => cast,
            Plan::WithoutMailbox | Plan::Upgrade | Plan::Failover => Cast::Dilated1,
        }
    }

    /// Whether it goes on for minutes, with pauses.
    pub(super) fn is_long(self) -> bool {
        !matches!(self, Plan::Cuts(_) | Plan::CutAfterRecord(..) | Plan::Young(_)) && !self.closes()
    }

    /// Whether a side closes its wormhole.
    pub(super) fn closes(self) -> bool {
        matches!(self, Plan::Close(_))
    }

    pub(super) fn schedule(self, rng: &mut StdRng) -> Schedule {
        match self {
            Plan::Cuts(_) => schedule::cuts(rng),
            Plan::CutAfterRecord(..) => Schedule::new(),
            Plan::Disturbances(_) => schedule::random(rng),
            Plan::WithoutMailbox => schedule::without_mailbox(rng),
            Plan::Upgrade => schedule::upgrade(rng),
            Plan::Failover => schedule::failover(rng),
            Plan::Young(_) => schedule::young(rng),
            Plan::Close(_) => schedule::close(rng),
        }
    }

    /// Whether the sides have a relay.
    pub(super) fn has_relay(self, rng: &mut StdRng) -> bool {
        match self {
            Plan::Upgrade | Plan::Failover => true,
            Plan::Disturbances(_) | Plan::WithoutMailbox | Plan::Close(_) => rng.random_bool(0.5),
            Plan::Cuts(_) | Plan::CutAfterRecord(..) | Plan::Young(_) => false,
        }
    }
}

/// Who plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cast {
    /// Both are ours, and speak `ged`.
    Ours,
    /// Both are ours, and speak `dilated-1`.
    Dilated1,
    /// We lead a Python Follower.
    PythonFollows,
    /// We follow a Python Leader.
    PythonLeads,
}

/// What happened in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Summary {
    pub(crate) cuts: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Links that were taken into service, on both sides.
    pub(crate) links: u64,
    /// From the last disturbance until both sides were on one connection for good.
    pub(crate) converged: Duration,
    /// Links that were taken into service after the last disturbance.
    pub(crate) calm_links: u64,
    /// Times without a common link, and how long they took together.
    pub(crate) outages: u32,
    pub(crate) without_link: Duration,
    /// Events in the busiest second.
    pub(crate) busiest: u64,
    pub(crate) events: u64,
    /// Events while there was nothing to do.
    pub(crate) at_rest: u64,
    /// Links that did not wait for the mailbox.
    pub(crate) early: u64,
    pub(crate) refused: u64,
    pub(crate) replaced: u64,
    /// In `dilated-1`: activations of links, and the last generation.
    pub(crate) activations: u64,
    pub(crate) generation: u64,
    /// Closes that delivered everything, and others; sides that learnt that the other one had closed.
    pub(crate) delivered: u64,
    pub(crate) gave_up: u64,
    pub(crate) told: u64,
}

impl Summary {
    /// Takes the figures of another run into these.
    pub(crate) fn add(&mut self, other: &Summary) {
        self.links += other.links;
        self.bytes += other.bytes;
        self.events += other.events;
        self.outages += other.outages;
        self.without_link += other.without_link;
        self.early += other.early;
        self.refused += other.refused;
        self.replaced += other.replaced;
        self.activations += other.activations;
        self.generation += other.generation;
        self.delivered += other.delivered;
        self.gave_up += other.gave_up;
        self.told += other.told;
        self.cuts += other.cuts;
        self.at_rest = self.at_rest.max(other.at_rest);
        self.busiest = self.busiest.max(other.busiest);
        self.calm_links = self.calm_links.max(other.calm_links);
    }
}

/// What the applications do in a run.
pub(super) fn load(plan: Plan, rng: &mut StdRng) -> Load {
    let tame = Load { opens: 3, longest: 6000, piece: 1500, wild: false };
    match (plan.cast(), plan) {
        (Cast::Dilated1, Plan::CutAfterRecord(..)) => tame,
        (Cast::Dilated1, _) => {
            let (longest, piece) = match rng.random_range(0..20) {
                0 => (150_000, 30_000),
                // Many times what may be on its way.
                1..=4 => (24_000, 800),
                _ => (6000, 1500),
            };
            Load { opens: rng.random_range(1..6), longest, piece, wild: true }
        }
        _ => tame,
    }
}
