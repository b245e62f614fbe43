//! What the owner of the link calls. One task should do all of it: each `poll_*` keeps one waker.

use std::task::{Context, Poll};

use super::Multiplexer;
use crate::{
    id::Parity,
    mux::{EndReason, Progress, RecordError},
    record::{PingId, Record},
};

impl Multiplexer {
    /// The roles are decided: those who wait to connect go on. Only the first call counts.
    pub fn start(&self, parity: Parity) {
        self.shared.with(|inner| inner.mux.start(parity));
    }

    /// A link was chosen. [`poll_transmit`](Multiplexer::poll_transmit) starts with an ACK and what is
    /// unacknowledged.
    pub fn link_up(&self) {
        self.shared.with(|inner| inner.mux.link_up());
    }

    /// The link is lost. Nothing is transmitted and received records are ignored until the next.
    pub fn link_down(&self) {
        self.shared.with(|inner| inner.mux.link_down());
    }

    /// The wormhole is over. Readers get what was received and then `reason`, everyone else gets `reason`
    /// now and later. Only the first call counts.
    pub fn fail(&self, reason: EndReason) {
        self.shared.with(|inner| inner.mux.fail(reason));
    }

    /// Appends records for the link to `out` until their plaintexts reach `max_bytes` (at least one
    /// record, which may be larger). `Pending` if there is nothing: `cx` is woken when there is.
    pub fn poll_transmit(&self, cx: &mut Context<'_>, max_bytes: usize, out: &mut Vec<Record>) -> Poll<()> {
        self.shared.with(|inner| {
            let before = out.len();
            let mut bytes = 0;
            while let Some(record) = inner.mux.poll_transmit() {
                bytes += record.encoded_len();
                out.push(record);
                if bytes >= max_bytes {
                    break;
                }
            }
            if out.len() > before {
                return Poll::Ready(());
            }
            inner.park(cx, |inner| &mut inner.driver.transmit);
            Poll::Pending
        })
    }

    /// Takes in a batch of records of the link under one lock, and wakes readers after it. Returns the
    /// contents of the PONGs among them. Decrypt and decode before: the iterator runs under the lock.
    ///
    /// # Errors
    ///
    /// [`RecordError`] for the first record that is wrong. Those before it count, those after it do not;
    /// drop the link, and unless [`RecordError::is_fatal`] make another.
    pub fn handle(&self, records: impl IntoIterator<Item = Record>) -> Result<Vec<PingId>, RecordError> {
        self.shared.with(|inner| {
            let mut pongs = Vec::new();
            for record in records {
                pongs.extend(inner.mux.handle_record(record)?);
            }
            Ok(pongs)
        })
    }

    /// `Pending` while a receive limit is reached: leave the link's bytes in the socket. PONGs wait there
    /// with everything else, so do not take their absence for a dead link meanwhile.
    pub fn poll_read_allowed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.with(|inner| {
            if !inner.mux.read_paused() || inner.mux.ended().is_some() {
                return Poll::Ready(());
            }
            inner.park(cx, |inner| &mut inner.driver.read_allowed);
            Poll::Pending
        })
    }

    /// How far the records have come on the current link; see [`Mux::progress`](crate::mux::Mux::progress).
    pub fn progress(&self) -> Progress {
        self.shared.with(|inner| inner.mux.progress())
    }

    /// Asks for the last ACK once more; see [`Mux::nudge`](crate::mux::Mux::nudge). Poll
    /// [`poll_transmit`](Multiplexer::poll_transmit) afterwards.
    pub fn nudge(&self) {
        self.shared.with(|inner| inner.mux.nudge());
    }

    /// `Ready` when the peer has acknowledged everything that was opened, written and closed; also after
    /// the end.
    pub fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.with(|inner| {
            if inner.mux.is_drained() {
                return Poll::Ready(());
            }
            inner.park(cx, |inner| &mut inner.driver.drained);
            Poll::Pending
        })
    }

    /// `Ready` when the wormhole is over: by [`fail`](Multiplexer::fail), or because the sequence numbers
    /// ran out, which only this tells the driver.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<EndReason> {
        self.shared.with(|inner| {
            if let Some(reason) = inner.mux.ended() {
                return Poll::Ready(reason.clone());
            }
            inner.park(cx, |inner| &mut inner.driver.ended);
            Poll::Pending
        })
    }
}
