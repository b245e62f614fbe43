//! The sans-IO state of one side of a wormhole's subchannels: [`Mux`].
//!
//! No socket, no clock, no randomness: whoever owns a link tells the mux what happened and asks what to
//! do. Each dialect has an engine of its own, with the same verbs for the application:
//!
//! * [`ged`]: one sequence of records for all subchannels;
//! * [`dilated1`]: offsets and credit for each.
//!
//! [`Mux`] is whichever of them the two sides have agreed on. What both need is beside them: the names that
//! something listens for, the gate that writers pass, limits, errors.

mod config;
pub mod dilated1;
mod error;
mod facade;
mod gate;
pub mod ged;
mod names;
#[cfg(test)]
mod tests;

pub use self::{
    config::{MuxConfig, RECORD_OVERHEAD, Usage},
    dilated1::{Batch, Params},
    error::{
        DatagramError, EndKind, EndReason, ListenError, NameError, OpenError, OpenRefused, ReadError,
        RecordError, UnacknowledgedError, WriteError,
    },
    facade::{Dialect, Mux},
    names::Names,
};
use crate::record::Name;

/// Names a subchannel of one [`Mux`], for as long as the application has not released both halves.
/// A key that outlives its subchannel reads as ended and writes as shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    slot: usize,
    generation: u32,
}

impl StreamKey {
    /// A small index, unique among the live subchannels of the mux: for tables beside it.
    pub fn slot(self) -> usize {
        self.slot
    }
}

/// What has become possible; see [`Mux::poll_event`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// There is something to read: data, the peer's end, or that of the wormhole.
    Readable(StreamKey),
    /// A write that was `Pending` is worth repeating.
    Writable(StreamKey),
    /// The peer acknowledged more of this subchannel.
    Acknowledged(StreamKey),
    /// A subchannel of this subprotocol waits to be accepted, or the wormhole ended.
    Incoming(Name),
    /// Opening that was `Pending` is worth repeating.
    Openable,
    /// [`Mux::ended`] has become `Some`.
    Ended,
}

/// How far what this side sends has come on the current link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The number of the next record or unit that goes onto the link.
    pub sent: u64,
    /// The number of the first that the peer has not acknowledged.
    pub acknowledged: u64,
}

impl Progress {
    /// Whether the link carries something that the peer has not acknowledged.
    pub fn is_in_flight(&self) -> bool {
        self.sent > self.acknowledged
    }
}
