//! What the application may do. Verbs return `Poll::Pending` when they did nothing and an
//! [`Event`](crate::mux::Event) will say when to repeat them.

use std::task::Poll;

use bytes::{Buf, Bytes};

use super::{
    Mux, Phase,
    outbox::Payload,
    stream::{ReceiveSide, SendState},
};
use crate::{
    id::SubchannelId,
    mux::{
        ListenError, NameError, OpenError, RECORD_OVERHEAD, ReadError, StreamKey, UnacknowledgedError,
        WriteError,
    },
    record::{MAX_CHUNK, MAX_CHUNK_ALONE, Name},
};

/// Shared memory up to this many bytes is copied, so that small pieces coalesce into one record.
const COPY_UP_TO: usize = 2048;

impl Mux {
    /// Checks a subprotocol's name against the limits.
    ///
    /// # Errors
    ///
    /// [`NameError`] for an empty or a long one.
    pub fn check_name(&self, name: &str) -> Result<Name, NameError> {
        self.config.check_name(name)
    }

    /// Opens a subchannel. OPEN goes out in its turn; data may be written at once.
    ///
    /// `Pending` while the outbox is full; then [`Event::Openable`](crate::mux::Event::Openable) follows.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when a limit is reached or the wormhole is over.
    pub fn open(&mut self, name: &Name) -> Poll<Result<StreamKey, OpenError>> {
        let next_id = match &self.phase {
            Phase::Running { next_id } => *next_id,
            Phase::Ended(reason) => return Poll::Ready(Err(OpenError::Ended(reason.clone()))),
        };
        if self.is_full() {
            return Poll::Ready(Err(OpenError::TooMany { limit: self.config.max_subchannels }));
        }
        let Some(id) = self.free_id(next_id) else {
            return Poll::Ready(Err(OpenError::IdsExhausted));
        };
        let cost = Payload::Open(name.clone()).cost();
        if !self.outbox.admits(cost) {
            self.openers_wait = true;
            return Poll::Pending;
        }
        self.phase = Phase::Running { next_id: id.next() };
        self.outbox.charge(cost);
        let key = self.insert(id, name.clone());
        let send = &mut self.streams[key.slot].send;
        send.open_due = true;
        send.written = 1;
        self.note_ready(key);
        Poll::Ready(Ok(key))
    }

    /// The first of our identifiers that a peer with the wrong parity has not taken.
    fn free_id(&self, mut next: Option<SubchannelId>) -> Option<SubchannelId> {
        while next.is_some_and(|id| self.routes.contains_key(&id)) {
            next = next.and_then(SubchannelId::next);
        }
        next
    }

    /// Takes subchannels of this name from now on, those that waited because they were expected first.
    ///
    /// # Errors
    ///
    /// [`ListenError`] if something listens for the name already, or the wormhole is over.
    pub fn listen(&mut self, name: &Name) -> Result<(), ListenError> {
        if let Phase::Ended(reason) = &self.phase {
            return Err(ListenError::Ended(reason.clone()));
        }
        self.names.listen(name)
    }

    /// Stops listening. What waits is closed, unless the name is expected.
    pub fn unlisten(&mut self, name: &Name) {
        for key in self.names.unlisten(name) {
            self.release(key);
        }
    }

    /// Lets subchannels of this name wait for a listener, up to
    /// [`pending_opens`](crate::mux::MuxConfig::pending_opens) of them, instead of refusing them.
    pub fn expect(&mut self, name: &Name) {
        if !self.is_ended() {
            self.names.expect(name);
        }
    }

    /// The longest waiting subchannel of this name, if any.
    pub fn accept(&mut self, name: &Name) -> Option<StreamKey> {
        self.names.accept(name)
    }

    /// The identifier and the name of a subchannel; `None` for an old key.
    pub fn describe(&self, key: StreamKey) -> Option<(SubchannelId, Name)> {
        self.get(key).map(|stream| (stream.id, stream.name.clone()))
    }

    /// Writes stream bytes; returns how many were taken, at most one record's worth. Small writes join
    /// into one record until it is sent.
    ///
    /// `Pending` while the outbox, or this subchannel's part of it, is full; then [`Event::Writable`]
    /// follows.
    ///
    /// [`Event::Writable`]: crate::mux::Event::Writable
    ///
    /// # Errors
    ///
    /// [`WriteError::ShutDown`] after [`shutdown`](Mux::shutdown), [`WriteError::Ended`] after the end.
    pub fn write(&mut self, key: StreamKey, data: &[u8]) -> Poll<Result<usize, WriteError>> {
        self.check_writable(key)?;
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let Some(room) = self.room(key) else { return Poll::Pending };
        let n = data.len().min(room).min(MAX_CHUNK);
        let overhead = self.streams[key.slot].send.append(&data[..n]);
        self.outbox.charge(n + overhead);
        self.note_ready(key);
        Poll::Ready(Ok(n))
    }

    /// Like [`write`](Mux::write), without copying: takes what it can from the front of `data`, in
    /// pieces of one record.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Mux::write).
    pub fn write_bytes(&mut self, key: StreamKey, data: &mut Bytes) -> Poll<Result<usize, WriteError>> {
        self.check_writable(key)?;
        let mut total = 0;
        while !data.is_empty() {
            let Some(room) = self.room(key) else { break };
            let n = data.len().min(room).min(MAX_CHUNK_ALONE);
            let send = &mut self.streams[key.slot].send;
            let overhead = if n <= COPY_UP_TO {
                let overhead = send.append(&data[..n]);
                data.advance(n);
                overhead
            } else {
                send.share(data.split_to(n))
            };
            self.outbox.charge(n + overhead);
            total += n;
        }
        self.note_ready(key);
        if total == 0 && !data.is_empty() { Poll::Pending } else { Poll::Ready(Ok(total)) }
    }

    /// Sends `data` as exactly one DATA record, which a `dilated` or Python peer receives as one message.
    ///
    /// `Pending` as for [`write`](Mux::write).
    ///
    /// # Errors
    ///
    /// Those of [`write`](Mux::write), and [`WriteError::TooLong`] above
    /// [`max_data`](crate::mux::MuxConfig::max_data).
    pub fn send(&mut self, key: StreamKey, data: &Bytes) -> Poll<Result<(), WriteError>> {
        self.check_writable(key)?;
        let (len, limit) = (data.len(), self.config.max_data);
        if len > limit {
            return Poll::Ready(Err(WriteError::TooLong { len, limit }));
        }
        let send = &mut self.streams[key.slot].send;
        if send.queued > 0 && send.queued + len > self.config.stream_queue {
            send.waits_for_queue = true;
            return Poll::Pending;
        }
        if !self.outbox.admits(len + RECORD_OVERHEAD) {
            self.wait_for_outbox(key);
            return Poll::Pending;
        }
        let overhead = self.streams[key.slot].send.push(data.clone());
        self.outbox.charge(len + overhead);
        self.note_ready(key);
        Poll::Ready(Ok(()))
    }

    /// Ends our direction: CLOSE follows what was written. Repeated calls change nothing.
    ///
    /// # Errors
    ///
    /// [`WriteError::Ended`] when the wormhole is over, for then CLOSE cannot be sent.
    pub fn shutdown(&mut self, key: StreamKey) -> Result<(), WriteError> {
        if let Phase::Ended(reason) = &self.phase {
            return Err(WriteError::Ended(reason.clone()));
        }
        let Some(stream) = self.get_mut(key) else { return Ok(()) };
        if stream.send.state == SendState::Open {
            stream.send.state = SendState::CloseDue;
            stream.send.written += 1;
            self.outbox.charge(RECORD_OVERHEAD);
            self.note_ready(key);
        }
        Ok(())
    }

    /// Copies received bytes out, as many as there are and fit; 0 (for a buffer that is not empty) is the
    /// end of the stream, which is the peer's CLOSE and nothing else.
    ///
    /// `Pending` while there are none; then [`Event::Readable`](crate::mux::Event::Readable) follows.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when the wormhole ended before the peer's CLOSE, after all that was received.
    pub fn read(&mut self, key: StreamKey, buf: &mut [u8]) -> Poll<Result<usize, ReadError>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match self.take(key, |receive| receive.read(buf)) {
            Some(0) | None => self.nothing_to_read(key).map_ok(|()| 0),
            Some(n) => Poll::Ready(Ok(n)),
        }
    }

    /// The next received chunk as shared memory, `None` at the end of the stream. Never empty: messages
    /// without bytes are skipped.
    ///
    /// # Errors
    ///
    /// As [`read`](Mux::read).
    pub fn read_chunk(&mut self, key: StreamKey) -> Poll<Result<Option<Bytes>, ReadError>> {
        let chunk =
            self.take(key, |receive| std::iter::from_fn(|| receive.recv()).find(|chunk| !chunk.is_empty()));
        self.chunk_or_end(key, chunk.flatten())
    }

    /// The next message, that is one DATA of the peer, or what earlier reads left of it; `None` at the
    /// end of the stream. A message may be empty.
    ///
    /// # Errors
    ///
    /// As [`read`](Mux::read).
    pub fn recv(&mut self, key: StreamKey) -> Poll<Result<Option<Bytes>, ReadError>> {
        let chunk = self.take(key, ReceiveSide::recv);
        self.chunk_or_end(key, chunk.flatten())
    }

    fn chunk_or_end(&self, key: StreamKey, chunk: Option<Bytes>) -> Poll<Result<Option<Bytes>, ReadError>> {
        match chunk {
            Some(chunk) => Poll::Ready(Ok(Some(chunk))),
            None => self.nothing_to_read(key).map_ok(|()| None),
        }
    }

    /// Reads with `f` and settles the account.
    fn take<T>(&mut self, key: StreamKey, f: impl FnOnce(&mut ReceiveSide) -> T) -> Option<T> {
        let receive = &mut self.get_mut(key)?.receive;
        let before = receive.charge;
        let taken = f(receive);
        self.budget.settled(&mut self.streams[key.slot].receive, before);
        Some(taken)
    }

    /// `Ok` is the end of the stream.
    fn nothing_to_read(&self, key: StreamKey) -> Poll<Result<(), ReadError>> {
        match (self.get(key), &self.phase) {
            (Some(stream), _) if stream.receive.discards => Poll::Ready(Err(ReadError::Stopped)),
            (Some(stream), _) if stream.receive.closed => Poll::Ready(Ok(())),
            (_, Phase::Ended(reason)) => Poll::Ready(Err(ReadError::Ended(reason.clone()))),
            (Some(_), _) => Poll::Pending,
            (None, _) => Poll::Ready(Ok(())),
        }
    }

    /// How far the subchannel was written: a mark for [`poll_acknowledged`](Mux::poll_acknowledged).
    pub fn written(&self, key: StreamKey) -> u64 {
        self.get(key).map_or(0, |stream| stream.send.written)
    }

    /// Payload bytes of this subchannel that the peer has acknowledged.
    pub fn bytes_acknowledged(&self, key: StreamKey) -> u64 {
        self.get(key).map_or(0, |stream| stream.send.bytes_acknowledged)
    }

    /// `Ready` when the peer has acknowledged everything up to `mark`, which [`written`](Mux::written)
    /// gave. An ACK says that the peer's wormhole has the bytes, not that its application has read them.
    ///
    /// `Pending` until then; [`Event::Acknowledged`](crate::mux::Event::Acknowledged) follows each step.
    ///
    /// # Errors
    ///
    /// [`UnacknowledgedError`] when the wormhole ended first.
    pub fn poll_acknowledged(&self, key: StreamKey, mark: u64) -> Poll<Result<(), UnacknowledgedError>> {
        match (self.get(key), &self.phase) {
            (Some(stream), _) if stream.send.acknowledged >= mark => Poll::Ready(Ok(())),
            (_, Phase::Ended(reason)) => Poll::Ready(Err(UnacknowledgedError::Ended(reason.clone()))),
            (Some(_), _) => Poll::Pending,
            (None, _) => Poll::Ready(Ok(())),
        }
    }

    /// Discards what waits and what comes; reading is an error from now on. The peer is not told, for the dialect
    /// cannot.
    pub fn discard(&mut self, key: StreamKey) {
        self.take(key, ReceiveSide::clear);
        if let Some(stream) = self.get_mut(key) {
            stream.receive.discards = true;
        }
        self.note_readable(key);
    }

    /// The application will not read any more: what waits and what comes is discarded until the peer's
    /// CLOSE. The key stays valid for writing.
    pub fn release_read(&mut self, key: StreamKey) {
        if let Some(stream) = self.get_mut(key) {
            stream.receive.released = true;
        }
        self.discard(key);
        self.reap(key);
    }

    /// The application will not write any more: [`shutdown`](Mux::shutdown), if that was not done. The
    /// key stays valid for reading.
    pub fn release_write(&mut self, key: StreamKey) {
        // After the end there is nothing to shut down, only the slot to free.
        let _: Result<(), WriteError> = self.shutdown(key);
        let Some(stream) = self.get_mut(key) else { return };
        stream.send.released = true;
        self.reap(key);
    }

    /// Lets go of a subchannel: what was written is still sent, then CLOSE; what comes is discarded.
    pub fn release(&mut self, key: StreamKey) {
        self.release_read(key);
        self.release_write(key);
    }

    fn check_writable(&self, key: StreamKey) -> Result<(), WriteError> {
        if let Phase::Ended(reason) = &self.phase {
            return Err(WriteError::Ended(reason.clone()));
        }
        match self.get(key) {
            Some(stream) if stream.send.state == SendState::Open => Ok(()),
            _ => Err(WriteError::ShutDown),
        }
    }

    /// How many stream bytes may be written, `None` (and an event later) if none.
    fn room(&mut self, key: StreamKey) -> Option<usize> {
        let limit = self.config.stream_queue;
        let send = &mut self.get_mut(key)?.send;
        let own = limit.saturating_sub(send.queued);
        if own == 0 {
            send.waits_for_queue = true;
            return None;
        }
        let room = self.outbox.room();
        if room == 0 {
            self.wait_for_outbox(key);
            return None;
        }
        Some(room.min(own))
    }

    fn wait_for_outbox(&mut self, key: StreamKey) {
        let send = &mut self.streams[key.slot].send;
        if !std::mem::replace(&mut send.waits_for_outbox, true) {
            self.blocked.push_back(key);
        }
    }

    /// Whether the identifier is in use, for tests.
    #[cfg(test)]
    pub(super) fn is_routed(&self, id: u32) -> bool {
        self.routes.contains_key(&SubchannelId(id))
    }
}
