//! What the owner of the link calls. One task should do all of it: each `poll_*` keeps one waker.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::Multiplexer;
use crate::{
    frame::{Frame, Received, Violation},
    id::Parity,
    mux::{Batch, Dialect, EndReason, Progress, RecordError, dilated1},
    record::{PingId, Record},
};

/// What both dialects need.
impl Multiplexer {
    /// Roles and dialect are decided: those who wait to connect go on. Only the first call counts.
    pub fn start(&self, parity: Parity, dialect: Dialect) {
        self.shared.with(|inner| inner.mux.start(parity, dialect));
    }

    /// A link was chosen. In `ged`, [`poll_transmit`](Multiplexer::poll_transmit) starts with an ACK and what is
    /// unacknowledged. In `dilated-1` this is for the first link of the wormhole only: nothing was sent before, so there
    /// is no need to wait for the peer's RESUME. [`handle_resume`](Multiplexer::handle_resume) is for all others.
    pub fn link_up(&self) {
        self.shared.with(|inner| inner.mux.link_up());
    }

    /// The link is lost. Nothing is transmitted until the next; in `ged`, received records are ignored until then,
    /// too.
    pub fn link_down(&self) {
        self.shared.with(|inner| inner.mux.link_down());
    }

    /// The wormhole is over. Readers get what was received and then `reason`, everyone else gets `reason`
    /// now and later. Only the first call counts.
    pub fn fail(&self, reason: EndReason) {
        self.shared.with(|inner| inner.mux.fail(reason));
    }

    /// Fills `out` with records for the link, ready to be sealed, until their plaintexts reach `most` bytes (at least
    /// one record, which may be larger). `Pending` if there is nothing, `Ready(false)` if that was all: `cx` is woken when
    /// there is more, and when [`next_timeout`](Multiplexer::next_timeout) has moved forward. After `Ready(true)` call it
    /// again.
    ///
    /// With `most` 0 no data goes, in `dilated-1` only what is not. The caller has a reason to come back then, and is not
    /// woken: data that waits would do it at once.
    pub fn poll_transmit(
        &self,
        cx: &mut Context<'_>,
        now: Instant,
        most: usize,
        out: &mut Batch,
    ) -> Poll<bool> {
        self.shared.with(|inner| {
            let given = inner.mux.poll_transmit(now, most, out);
            let more = given && (most == 0 || inner.mux.wants_transmit());
            if !more && most > 0 {
                inner.driver.timeout = inner.mux.poll_timeout();
                inner.park(cx, |inner| &mut inner.driver.transmit);
            }
            if given { Poll::Ready(more) } else { Poll::Pending }
        })
    }

    /// When to call [`poll_transmit`](Multiplexer::poll_transmit) though nothing has happened; ask after each time
    /// that it had no more. `None` in `ged`.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.shared.lock().mux.poll_timeout()
    }

    /// How far what we send has come on the current link; see [`Mux::progress`](crate::mux::Mux::progress).
    pub fn progress(&self) -> Progress {
        self.shared.lock().mux.progress()
    }

    /// The round trip of the link, measured. `ged` has no use for it.
    pub fn set_round_trip(&self, round_trip: Duration) {
        self.shared.with(|inner| inner.mux.set_round_trip(round_trip));
    }

    /// Whether the peer has acknowledged everything that was opened, written and closed; also after the end.
    pub fn is_drained(&self) -> bool {
        self.shared.lock().mux.is_drained()
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

/// What `ged` needs. In another dialect these change nothing.
impl Multiplexer {
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
            let Some(mux) = inner.mux.as_ged_mut() else { return Ok(pongs) };
            for record in records {
                pongs.extend(mux.handle_record(record)?);
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

    /// Asks for the last ACK once more; see [`Mux::nudge`](crate::mux::ged::Mux::nudge). Poll
    /// [`poll_transmit`](Multiplexer::poll_transmit) afterwards.
    pub fn nudge(&self) {
        self.shared.with(|inner| {
            if let Some(mux) = inner.mux.as_ged_mut() {
                mux.nudge();
            }
        });
    }
}

/// What `dilated-1` needs. In another dialect these change nothing.
impl Multiplexer {
    /// Takes in a batch of frames that concern subchannels under one lock, and wakes readers after it. Empties
    /// `frames`. Poll [`poll_transmit`](Multiplexer::poll_transmit) afterwards: what there is to say to them does not
    /// wake its caller, who is the same task.
    ///
    /// # Errors
    ///
    /// [`Violation`] for the first frame that is wrong. Those before it count, those after it do not: end the
    /// wormhole.
    pub fn handle_frames(&self, frames: &mut Vec<Frame>, now: Instant) -> Result<(), Violation> {
        self.shared.with(|inner| {
            let Some(mux) = inner.mux.as_dilated1_mut() else {
                frames.clear();
                return Ok(());
            };
            let handled = frames.drain(..).try_for_each(|frame| mux.handle_frame(frame, now));
            let waker = inner.driver.transmit.take();
            inner.retired.extend(waker);
            handled
        })
    }

    /// What a RESUME of ours says: how far everything was received. Holds back all else until
    /// [`handle_resume`](Multiplexer::handle_resume), or [`link_up`](Multiplexer::link_up) for the first link.
    pub fn resume(&self) -> Vec<Received> {
        self.shared.with(|inner| inner.mux.as_dilated1_mut().map(dilated1::Mux::resume).unwrap_or_default())
    }

    /// The whole list of the peer's RESUME: what is not in it is sent again, and from now on there may be
    /// transmitted.
    ///
    /// # Errors
    ///
    /// [`Violation`] for a list that cannot be: end the wormhole.
    pub fn handle_resume(&self, entries: Vec<Received>, now: Instant) -> Result<(), Violation> {
        self.shared
            .with(|inner| inner.mux.as_dilated1_mut().map_or(Ok(()), |mux| mux.handle_resume(entries, now)))
    }
}
