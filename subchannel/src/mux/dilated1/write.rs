//! Writing, ending and giving up our direction; what the peer has of it.

use std::task::Poll;

use bytes::{Buf, Bytes};

use super::{
    Mux, index, key,
    send::COPY_UP_TO,
    stream::{SendState, flag},
};
use crate::{
    frame::{Code, MAX_PLAINTEXT},
    mux::{Event, StreamKey, UnacknowledgedError, WriteError},
};

impl Mux {
    /// Writes stream bytes; returns how many were taken, at most a record's worth. Small writes join.
    ///
    /// `Pending` while the outbox, or this subchannel's part of it, is full; then [`Event::Writable`] follows.
    ///
    /// # Errors
    ///
    /// [`WriteError::ShutDown`] after [`shutdown`](Mux::shutdown) or [`reset`](Mux::reset), [`WriteError::Stopped`]
    /// and [`WriteError::Refused`] when the peer said so, [`WriteError::Ended`] after the end.
    pub fn write(&mut self, key: StreamKey, data: &[u8]) -> Poll<Result<usize, WriteError>> {
        let slot = self.writable(key)?;
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Some(n) = self.room(slot, data.len().min(MAX_PLAINTEXT)) else { return Poll::Pending };
        self.activate(slot).send.write(&data[..n]);
        self.written_more(slot, n as u64);
        Poll::Ready(Ok(n))
    }

    /// Like [`write`](Mux::write), without copying what is long: takes what it can from the front of `data`.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Mux::write).
    pub fn write_bytes(&mut self, key: StreamKey, data: &mut Bytes) -> Poll<Result<usize, WriteError>> {
        let slot = self.writable(key)?;
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Some(n) = self.room(slot, data.len()) else { return Poll::Pending };
        let send = &mut self.activate(slot).send;
        if n <= COPY_UP_TO {
            send.write(&data[..n]);
            data.advance(n);
        } else {
            send.write_shared(data.split_to(n));
        }
        self.written_more(slot, n as u64);
        Poll::Ready(Ok(n))
    }

    /// Sends `data` as one message.
    ///
    /// `Pending` as for [`write`](Mux::write).
    ///
    /// # Errors
    ///
    /// Those of [`write`](Mux::write), and [`WriteError::TooLong`] above what the peer takes or
    /// [`max_data`](crate::mux::MuxConfig::max_data).
    pub fn send(&mut self, key: StreamKey, data: &Bytes) -> Poll<Result<(), WriteError>> {
        let slot = self.writable(key)?;
        let limit = usize::try_from(self.peer.message).unwrap_or(usize::MAX).min(self.config.max_data);
        let len = data.len();
        if len > limit {
            return Poll::Ready(Err(WriteError::TooLong { len, limit }));
        }
        let stream = &mut self.slots[slot];
        let unsent = stream.unsent();
        if unsent > 0 && unsent + len as u64 > self.config.stream_queue as u64 {
            stream.flags.set(flag::WAITS_FOR_QUEUE);
            self.pass_by(slot);
            return Poll::Pending;
        }
        if !self.outbox_admits(slot, len) {
            return Poll::Pending;
        }
        self.activate(slot).send.message(data);
        self.written_more(slot, len as u64 + 1);
        Poll::Ready(Ok(()))
    }

    /// Ends our direction: the end follows what was written. Repeated calls change nothing.
    ///
    /// # Errors
    ///
    /// [`WriteError::Ended`], [`WriteError::Stopped`] and [`WriteError::Refused`] when the end cannot be sent any
    /// more.
    pub fn shutdown(&mut self, key: StreamKey) -> Result<(), WriteError> {
        match self.writable(key) {
            Ok(slot) => {
                // The end is remembered here until the peer has it.
                self.activate(slot);
                self.slots[slot].send = SendState::Ending;
                self.note_ready(slot);
                self.settle(slot);
                Ok(())
            }
            Err(WriteError::ShutDown) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// How far the subchannel was written: a mark for [`poll_acknowledged`](Mux::poll_acknowledged).
    pub fn written(&self, key: StreamKey) -> u64 {
        self.get(key).map_or(0, |stream| {
            // One for the opening, one for the end.
            1 + stream.written + u64::from(stream.send != SendState::Open)
        })
    }

    /// Payload bytes of this subchannel that the peer has acknowledged.
    pub fn bytes_acknowledged(&self, key: StreamKey) -> u64 {
        self.get(key).map_or(0, |stream| stream.bytes_acked)
    }

    /// `Ready` when the peer has acknowledged everything up to `mark`, which [`written`](Mux::written) gave. That
    /// says that the peer's wormhole has the bytes, not that its application has read them.
    ///
    /// `Pending` until then; [`Event::Acknowledged`] follows each step.
    ///
    /// # Errors
    ///
    /// [`UnacknowledgedError`] when that will not happen.
    pub fn poll_acknowledged(&self, key: StreamKey, mark: u64) -> Poll<Result<(), UnacknowledgedError>> {
        let Some(stream) = self.get(key) else {
            return Poll::Ready(match &self.ended {
                Some(reason) => Err(UnacknowledgedError::Ended(reason.clone())),
                None => Ok(()),
            });
        };
        let has = if stream.flags.has(flag::ANSWERED) { 1 + stream.acked } else { 0 };
        if has >= mark {
            return Poll::Ready(Ok(()));
        }
        let error = if stream.flags.has(flag::REFUSED) {
            UnacknowledgedError::Stopped { code: stream.peer_reset() }
        } else if stream.flags.has(flag::STOPPED) {
            UnacknowledgedError::Stopped { code: stream.peer_stop() }
        } else if stream.flags.has(flag::GAVE_UP) {
            UnacknowledgedError::Reset
        } else if let Some(reason) = &self.ended {
            UnacknowledgedError::Ended(reason.clone())
        } else {
            return Poll::Pending;
        };
        Poll::Ready(Err(error))
    }

    /// The slot, if its direction is open.
    fn writable(&self, key: StreamKey) -> Result<u32, WriteError> {
        if let Some(reason) = &self.ended {
            return Err(WriteError::Ended(reason.clone()));
        }
        match self.get(key) {
            Some(stream) if stream.send == SendState::Open => Ok(index(key)),
            Some(stream) if stream.flags.has(flag::REFUSED) => {
                Err(WriteError::Refused { code: stream.peer_reset() })
            }
            Some(stream) if stream.flags.has(flag::STOPPED) => {
                Err(WriteError::Stopped { code: stream.peer_stop() })
            }
            _ => Err(WriteError::ShutDown),
        }
    }

    /// How many of `wanted` stream bytes may be written, `None` (and an event later) if none.
    fn room(&mut self, slot: u32, wanted: usize) -> Option<usize> {
        let stream = &mut self.slots[slot];
        let own = (self.config.stream_queue as u64).saturating_sub(stream.unsent());
        if own == 0 {
            stream.flags.set(flag::WAITS_FOR_QUEUE);
            self.pass_by(slot);
            return None;
        }
        let wanted = wanted.min(usize::try_from(own).unwrap_or(usize::MAX));
        self.outbox_room(slot, wanted)
    }

    fn written_more(&mut self, slot: u32, units: u64) {
        let stream = &mut self.slots[slot];
        stream.written += units;
        if stream.flags.raise(flag::OUTSTANDING) {
            self.outstanding += 1;
        }
        self.recharge(slot);
        self.note_ready(slot);
        self.reopen_outbox();
    }

    /// Our direction is given up, by the application or because the peer stopped it: RESET follows.
    pub(super) fn give_up_writing(&mut self, slot: u32, code: Code) {
        let stream = &self.slots[slot];
        if self.ended.is_some() || !matches!(stream.send, SendState::Open | SendState::Ending) {
            return;
        }
        let before = stream.cursor() - stream.acked;
        let active = self.activate(slot);
        active.codes.reset = code.0;
        active.send.discard();
        let (sent_max, datagrams) = (active.send.sent_max, std::mem::take(&mut active.datagrams.out));
        self.datagram_bytes -= datagrams.iter().map(Bytes::len).sum::<usize>();
        let stream = &mut self.slots[slot];
        stream.written = stream.written.min(sent_max);
        stream.send = SendState::Resetting;
        stream.flags.set(flag::GAVE_UP | flag::CODES);
        if let Some(active) = &mut stream.active {
            active.send.unit = stream.acked;
        }
        self.in_flight -= before;
        self.note_control(slot, flag::RESET_DUE);
        let key = key(slot, &self.slots[slot]);
        self.events.push_back(Event::Writable(key));
        self.note_acknowledged(slot);
    }

    /// What is sent and not acknowledged of a subchannel is not in flight any more.
    pub(super) fn unfly(&mut self, slot: u32) {
        let stream = &mut self.slots[slot];
        self.in_flight -= stream.cursor() - stream.acked;
        if let Some(active) = &mut stream.active {
            active.send.rewind(stream.acked);
        }
    }
}
