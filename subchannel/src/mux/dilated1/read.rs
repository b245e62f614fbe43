//! Reading, and giving up the peer's direction.

use std::{task::Poll, time::Instant};

use bytes::Bytes;

use super::{
    Mux,
    credit::{IDLE_AFTER, SHORTEST_MEASURE, SMALL_WINDOW, USUAL_WINDOW, window_size},
    index, key,
    receive::ReceiveQueue,
    stream::{ReceiveState, flag},
};
use crate::{
    frame::Code,
    mux::{ReadError, StreamKey},
};

impl Mux {
    /// Copies received bytes out, as many as there are and fit; 0 (for a buffer that is not empty) is the end, which
    /// the peer has set and nothing else.
    ///
    /// `Pending` while there are none; then [`Event::Readable`](crate::mux::Event::Readable) follows.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: [`Reset`](ReadError::Reset) and [`Refused`](ReadError::Refused) at once when the peer said so,
    /// [`Ended`](ReadError::Ended) after all that was received.
    pub fn read(&mut self, key: StreamKey, buf: &mut [u8]) -> Poll<Result<usize, ReadError>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match self.take(key, |receive| Some(receive.read(buf)).filter(|n| *n > 0)) {
            Some(n) => Poll::Ready(Ok(n)),
            None => self.nothing_to_read(key).map_ok(|()| 0),
        }
    }

    /// The next received bytes as shared memory, `None` at the end. Never empty: messages without bytes are skipped.
    ///
    /// # Errors
    ///
    /// As [`read`](Mux::read).
    pub fn read_chunk(&mut self, key: StreamKey) -> Poll<Result<Option<Bytes>, ReadError>> {
        let chunk = self.take(key, ReceiveQueue::read_chunk);
        self.chunk_or_end(key, chunk)
    }

    /// The next message, whole, or what earlier reads left of it; `None` at the end. A message may be empty. Of what
    /// the peer wrote as a stream, it gives what is there.
    ///
    /// # Errors
    ///
    /// As [`read`](Mux::read), and [`ReadError::TooLong`] for a message above
    /// [`max_data`](crate::mux::MuxConfig::max_data).
    pub fn recv(&mut self, key: StreamKey) -> Poll<Result<Option<Bytes>, ReadError>> {
        let message = self.take(key, ReceiveQueue::recv);
        if message.is_none()
            && let Some(slot) = self.slot(key)
        {
            self.assemble(slot);
            self.settle(slot);
        }
        self.chunk_or_end(key, message)
    }

    fn chunk_or_end(&self, key: StreamKey, chunk: Option<Bytes>) -> Poll<Result<Option<Bytes>, ReadError>> {
        match chunk {
            Some(chunk) => Poll::Ready(Ok(Some(chunk))),
            None => self.nothing_to_read(key).map_ok(|()| None),
        }
    }

    /// Reads with `f` and settles the accounts.
    fn take<T>(&mut self, key: StreamKey, f: impl FnOnce(&mut ReceiveQueue) -> Option<T>) -> Option<T> {
        let stream = self.get_mut(key)?;
        let receive = &mut stream.active.as_mut()?.receive;
        let before = receive.consumed;
        let taken = f(receive);
        let (consumed, assembles) =
            (receive.consumed - before, receive.assembles && !receive.is_in_message());
        let slot = index(key);
        self.consumed(slot, consumed);
        if assembles {
            self.leave_assembly(slot);
        }
        self.settle(slot);
        taken
    }

    /// `Ok` is the end.
    pub(super) fn nothing_to_read(&self, key: StreamKey) -> Poll<Result<(), ReadError>> {
        let Some(stream) = self.get(key) else {
            return Poll::Ready(match &self.ended {
                Some(reason) => Err(ReadError::Ended(reason.clone())),
                None => Ok(()),
            });
        };
        if stream.flags.has(flag::REFUSED) {
            return Poll::Ready(Err(ReadError::Refused { code: stream.peer_reset() }));
        }
        if stream.flags.has(flag::TOO_LONG) {
            return Poll::Ready(Err(ReadError::TooLong { limit: self.config.max_data }));
        }
        match (stream.receive, &self.ended) {
            (ReceiveState::Finished, _) => Poll::Ready(Ok(())),
            (ReceiveState::Reset, _) if !stream.flags.has(flag::STOPPED_READING) => {
                Poll::Ready(Err(ReadError::Reset { code: stream.peer_reset() }))
            }
            (ReceiveState::Reset | ReceiveState::Stopping, _) => Poll::Ready(Err(ReadError::Stopped)),
            (_, Some(reason)) => Poll::Ready(Err(ReadError::Ended(reason.clone()))),
            (ReceiveState::Open, None) => Poll::Pending,
        }
    }

    /// Units of a subchannel were consumed: the peer may be given credit for them.
    pub(super) fn consumed(&mut self, slot: u32, units: u64) {
        if units == 0 {
            return;
        }
        let stream = &self.slots[slot];
        if !stream.is_control() {
            self.credit.consume(units);
        }
        let window = window_size(stream.window, self.config.max_window as u64);
        let due = stream.receive == ReceiveState::Open
            && !stream.flags.has(flag::CREDIT_DUE)
            && self.grant(stream) - stream.granted >= window / 4;
        if due {
            self.note_control(slot, flag::CREDIT_DUE);
        }
    }

    /// Lets the window of a subchannel grow if a whole one was consumed within two round trips.
    pub(super) fn measure_window(&mut self, slot: u32, now: Instant) {
        let epoch = *self.epoch.get_or_insert(now);
        let since = now.saturating_duration_since(epoch).as_micros();
        let (most, usual) = (self.config.max_window as u64, self.usual_window());
        let stream = &mut self.slots[slot];
        // Only the low bits are kept; that they come round once in an hour does no harm.
        let (at, consumed) = (low_bits(since), low_bits(u128::from(stream.consumed())));
        let took = at.wrapping_sub(stream.measured_at);
        let window = window_size(stream.window, most);
        if u64::from(consumed.wrapping_sub(stream.measured_from)) < window {
            return;
        }
        let first = stream.measured_at == 0 && stream.measured_from == 0;
        (stream.measured_at, stream.measured_from) = (at.max(1), consumed);
        let within = (2 * self.round_trip).max(SHORTEST_MEASURE);
        let fast = !first && u128::from(took) <= within.as_micros();
        let accepted = stream.window >= USUAL_WINDOW && !stream.flags.has(flag::WAITING);
        if fast && accepted && window < most {
            self.grow(slot, at);
        } else if fast && stream.window < USUAL_WINDOW && !stream.flags.has(flag::WAITING) {
            stream.window = usual;
        }
    }

    /// Half of the budget is for windows that have grown, so that those who stall leave the other half.
    fn grow(&mut self, slot: u32, at: u32) {
        let most = self.config.max_window as u64;
        let allowed = self.config.receive_total as u64 / 2;
        let window = self.slots[slot].window;
        let more = window_size(window + 1, most) - window_size(window, most);
        if self.credit.is_pressed() {
            return;
        }
        if self.grown_bytes + more > allowed {
            let idle = self.grown.iter().copied().find(|key| {
                self.get(*key).is_some_and(|stream| {
                    u128::from(at.wrapping_sub(stream.measured_at)) > IDLE_AFTER.as_micros()
                })
            });
            if let Some(idle) = idle {
                self.shrink(index(idle));
            }
        }
        if self.grown_bytes + more > allowed {
            return;
        }
        self.grown_bytes += more;
        let stream = &mut self.slots[slot];
        stream.window += 1;
        if stream.flags.raise(flag::GROWN) {
            self.grown.push(key(slot, stream));
        }
    }

    /// Gives a window that has grown back. What was granted stays granted.
    pub(super) fn shrink(&mut self, slot: u32) {
        let most = self.config.max_window as u64;
        let Some(stream) = self.slots.get_mut(slot) else { return };
        if stream.flags.take(flag::GROWN) {
            self.grown_bytes -= window_size(stream.window, most) - window_size(USUAL_WINDOW, most);
            stream.window = USUAL_WINDOW;
            let generation = stream.generation;
            self.grown.retain(|key| key.generation != generation);
        }
    }

    /// Takes what is here of a long message out of the way of its rest, if the application waits for it and the
    /// window would not hold it. Only a few may do so at a time, each for the longest message: so each of them comes
    /// to its end, in bounded memory.
    pub(super) fn assemble(&mut self, slot: u32) {
        let stream = &mut self.slots[slot];
        let window = window_size(stream.window, self.config.max_window as u64).max(SMALL_WINDOW);
        let unread = stream.data_received() - stream.consumed();
        let key = key(slot, stream);
        let open = stream.receive == ReceiveState::Open;
        let Some(active) = &mut stream.active else { return };
        let receive = &mut active.receive;
        if !open || !receive.waits_for_message || !receive.is_front_incomplete() {
            return;
        }
        if !receive.assembles {
            if unread < window / 4 {
                return;
            }
            if self.assemblers == 0 {
                if !std::mem::replace(&mut receive.waits_to_assemble, true) {
                    self.assembly_line.push_back(key);
                }
                return;
            }
            self.assemblers -= 1;
            receive.assembles = true;
        }
        let before = receive.consumed;
        receive.assemble();
        let consumed = receive.consumed - before;
        self.consumed(slot, consumed);
    }

    /// A subchannel has no long message any more: another may assemble one.
    pub(super) fn leave_assembly(&mut self, slot: u32) {
        let Some(active) = &mut self.slots[slot].active else { return };
        // Its place in the line is skipped when it is reached.
        active.receive.waits_to_assemble = false;
        if !std::mem::take(&mut active.receive.assembles) {
            return;
        }
        self.assemblers += 1;
        while self.assemblers > 0
            && let Some(next) = self.assembly_line.pop_front()
        {
            let Some(slot) = self.slot(next) else { continue };
            let Some(active) = &mut self.slots[slot].active else { continue };
            if std::mem::take(&mut active.receive.waits_to_assemble) {
                self.assemble(slot);
                self.settle(slot);
            }
        }
    }

    /// The peer's direction is given up, by the application or because it broke a limit: STOP follows.
    pub(super) fn give_up_reading(&mut self, slot: u32, code: Code) {
        if self.ended.is_some() {
            return;
        }
        let stream = &mut self.slots[slot];
        match stream.receive {
            ReceiveState::Open => {}
            ReceiveState::Finished if stream.consumed() < stream.data_received() => {
                // The peer has nothing to be told any more.
                stream.receive = ReceiveState::Reset;
                stream.flags.set(flag::STOPPED_READING);
                self.discard_received(slot);
                return self.note_readable(slot);
            }
            _ => return,
        }
        self.discard_received(slot);
        self.activate(slot).codes.stop = code.0;
        let stream = &mut self.slots[slot];
        stream.receive = ReceiveState::Stopping;
        stream.flags.set(flag::CODES | flag::STOPPED_READING);
        self.note_control(slot, flag::STOP_DUE);
        self.note_readable(slot);
    }

    /// Drops what is received and not read; it counts as consumed.
    pub(super) fn discard_received(&mut self, slot: u32) {
        let stream = &mut self.slots[slot];
        let received = stream.data_received();
        let Some(active) = &mut stream.active else { return };
        let consumed = received - active.receive.consumed;
        active.receive.discard(received);
        let datagrams = std::mem::take(&mut active.datagrams.received);
        self.datagram_bytes -= datagrams.iter().map(Bytes::len).sum::<usize>();
        self.consumed(slot, consumed);
        self.leave_assembly(slot);
    }
}

fn low_bits(value: u128) -> u32 {
    u32::try_from(value & u128::from(u32::MAX)).expect("these are 32 bits")
}
