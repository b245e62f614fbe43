//! Limits, and how much of them is in use.

use super::NameError;
use crate::record::{MAX_NAME_LEN, Name};

/// What one queued record or received chunk costs besides its payload, in bytes: the entry in our
/// queues, the allocation's rounding and header. Charged to the limits below, so that a flood of tiny
/// records is bounded like a flood of large ones.
pub const RECORD_OVERHEAD: usize = 128;

/// Limits of a [`Mux`](super::Mux). Every queue that a peer or a slow network can fill has one here.
#[derive(Clone, Debug)]
pub struct MuxConfig {
    /// Bytes written but not yet acknowledged by the peer, for the whole wormhole, overhead included
    /// (default 16 MiB, at least 4 KiB). Writers wait when it is full, and are woken at half. It is what
    /// an outage costs in memory: writing for an hour without a link only waits. While there is one in `dilated-1`,
    /// bytes for which the peer has given no credit get three eighths of it, so that they cannot stop those that can be
    /// sent.
    ///
    /// A single message larger than this is still sent, when less than half is in use.
    pub outbox_limit: usize,
    /// How far the window of one subchannel may grow in the dialect `dilated-1`, in bytes (default 16 MiB, at least
    /// 256 KiB): what a reader that stalls costs at most.
    pub max_window: usize,
    /// The longest datagram that is taken, in bytes (default 1,200; 0 for none; `dilated-1` only).
    pub max_datagram: usize,
    /// The part of `outbox_limit` that one subchannel may have *unsent* (default 4 MiB), so that one
    /// eager writer leaves room for the others.
    pub stream_queue: usize,
    /// Bytes received but not yet read, per subchannel, overhead included (default 4 MiB). Above it the
    /// driver stops reading the link until the reader has caught up to half: the dialect `ged` has no
    /// flow control of its own, so nothing else keeps a fast peer from filling our memory. See
    /// [`Mux::read_paused`](super::Mux::read_paused) for the exception.
    pub receive_limit: usize,
    /// The same for all subchannels together (default 64 MiB): stops a peer from spreading its flood
    /// over many subchannels. Reading stops at half of it; the other half is used only while a writer
    /// waits for the outbox, when to stop reading could be to dead-lock. Make it at least twice the sum of
    /// `receive_limit` and the peer's `outbox_limit`.
    pub receive_total: usize,
    /// Subchannels at a time, those half-closed included (default 65,536). Stops floods of OPEN: what
    /// the peer opens beyond is refused with CLOSE, what we open beyond is an error.
    pub max_subchannels: usize,
    /// Subchannels of one subprotocol that wait to be accepted (default 256). More are refused with CLOSE.
    pub pending_opens: usize,
    /// The longest subprotocol name in bytes (default 255, at most 4,096). A longer one is refused with
    /// CLOSE.
    pub max_name: usize,
    /// The largest single DATA, sent or received, in bytes (default 16 MiB). A larger one from the peer
    /// is an error that ends the wormhole, because the peer would resend it for ever.
    pub max_data: usize,
    /// For tests: the first sequence number in both directions.
    #[doc(hidden)]
    pub first_seq: u32,
    /// For tests: identifiers of our own that count as used.
    #[doc(hidden)]
    pub ids_used: u32,
}

impl Default for MuxConfig {
    fn default() -> Self {
        MuxConfig {
            outbox_limit: 16 << 20,
            max_window: 16 << 20,
            max_datagram: 1200,
            stream_queue: 4 << 20,
            receive_limit: 4 << 20,
            receive_total: 64 << 20,
            max_subchannels: 65_536,
            pending_opens: 256,
            max_name: 255,
            max_data: 16 << 20,
            first_seq: 0,
            ids_used: 0,
        }
    }
}

impl MuxConfig {
    /// Checks a subprotocol's name against the limits.
    pub(super) fn check_name(&self, name: &str) -> Result<Name, NameError> {
        match name.len() {
            0 => Err(NameError::Empty),
            len if len > self.max_name => Err(NameError::TooLong { len, limit: self.max_name }),
            _ => Ok(Name::from(name)),
        }
    }

    /// Limits below which nothing could ever be sent are raised to it.
    pub(super) fn clamped(mut self) -> Self {
        self.outbox_limit = self.outbox_limit.max(4096);
        self.max_window = self.max_window.max(256 << 10);
        self.stream_queue = self.stream_queue.max(1);
        self.max_data = self.max_data.clamp(1, u32::MAX as usize / 2);
        self.max_name = self.max_name.min(MAX_NAME_LEN);
        self
    }
}

/// How much of the limits is in use now; see [`MuxConfig`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes written and not acknowledged, overhead included.
    pub outbox_bytes: usize,
    /// Records that were sent at least once and are not acknowledged.
    pub unacknowledged_records: usize,
    /// Bytes received and not read, overhead included.
    pub receive_bytes: usize,
    /// Subchannels that take a place: open, half-closed, or closed and not yet dropped.
    pub subchannels: usize,
    /// Subchannels of the peer that wait to be accepted.
    pub pending_opens: usize,
    /// Whether the link is not being read because a receive limit is reached.
    pub read_paused: bool,
    /// Whether someone waits for the outbox. Together with `read_paused` for long, the two sides may have
    /// dead-locked each other by writing and not reading; a new link brings the ACK first and may help.
    pub writers_wait: bool,
}
