//! What the application may do besides writing and reading: open, listen, accept, give up, let go.

use std::{collections::VecDeque, task::Poll};

use bytes::Bytes;

use super::{
    Mux, index,
    stream::{ReceiveState, SendState, flag},
};
use crate::{
    frame::{Code, DatagramHeader, MAX_PLAINTEXT},
    id::SubchannelId,
    mux::{DatagramError, ListenError, NameError, OpenError, OpenRefused, ReadError, StreamKey},
    record::Name,
};

/// Datagrams of a subchannel that wait, in each direction.
const MAX_DATAGRAMS: usize = 64;
/// Bytes of all datagrams that wait.
const MAX_DATAGRAM_BYTES: usize = 8 << 20;

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
    /// `Pending` while the peer does not allow more, or the outbox is full; then [`Event::Openable`](crate::mux::Event::Openable) follows.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when a limit is reached or the wormhole is over.
    pub fn open(&mut self, name: &Name) -> Poll<Result<StreamKey, OpenError>> {
        if let Some(reason) = &self.ended {
            return Poll::Ready(Err(OpenError::Ended(reason.clone())));
        }
        let limit = self.config.max_subchannels;
        if self.opened.own_live >= limit {
            return Poll::Ready(Err(OpenError::TooMany { limit }));
        }
        let Some(id) = self.next_own else { return Poll::Ready(Err(OpenError::IdsExhausted)) };
        if self.opened.own >= self.opened.own_limit {
            self.openers_wait = true;
            return Poll::Pending;
        }
        self.next_own = id.next();
        self.opened.own += 1;
        self.opened.own_live += 1;
        let key = self.insert(id, name.clone(), flag::MINE | flag::OPEN_DUE | flag::OUTSTANDING);
        self.outstanding += 1;
        let window = self.usual_window();
        let stream = &mut self.slots[index(key)];
        stream.send_limit = self.peer.subchannel_credit;
        stream.window = window;
        self.opens.push_back((id, index(key)));
        Poll::Ready(Ok(key))
    }

    /// The control channel, subchannel 0: once.
    pub fn control(&mut self) -> Option<StreamKey> {
        let key = self.control.take()?;
        let window = self.usual_window();
        let stream = self.get_mut(key)?;
        stream.window = window;
        self.note_control(index(key), flag::CREDIT_DUE);
        Some(key)
    }

    /// Whether the peer has answered OPEN. What the peer opened is answered. `Pending` until then;
    /// [`Event::Acknowledged`](crate::mux::Event::Acknowledged) follows.
    ///
    /// # Errors
    ///
    /// [`OpenRefused`] if the peer does not want it, or the wormhole ended first.
    pub fn poll_opened(&self, key: StreamKey) -> Poll<Result<(), OpenRefused>> {
        match (self.get(key), &self.ended) {
            (Some(stream), _) if stream.flags.has(flag::REFUSED) => {
                Poll::Ready(Err(OpenRefused::Refused { code: stream.peer_reset() }))
            }
            (Some(stream), _) if stream.flags.has(flag::ANSWERED) => Poll::Ready(Ok(())),
            (_, Some(reason)) => Poll::Ready(Err(OpenRefused::Ended(reason.clone()))),
            (Some(_), None) => Poll::Pending,
            (None, None) => Poll::Ready(Ok(())),
        }
    }

    /// Takes subchannels of this name from now on, those that waited because they were expected first.
    ///
    /// # Errors
    ///
    /// [`ListenError`] if something listens for the name already, or the wormhole is over.
    pub fn listen(&mut self, name: &Name) -> Result<(), ListenError> {
        if let Some(reason) = &self.ended {
            return Err(ListenError::Ended(reason.clone()));
        }
        self.names.listen(name)
    }

    /// Stops listening. What waits is given up in both directions, unless the name is expected.
    pub fn unlisten(&mut self, name: &Name) {
        for key in self.names.unlisten(name) {
            let Some(slot) = self.slot(key) else { continue };
            self.slots[slot].flags.clear(flag::WAITING);
            self.give_up_writing(slot, Code::UNEXPECTED);
            self.give_up_reading(slot, Code::UNEXPECTED);
            self.release(key);
        }
    }

    /// Lets subchannels of this name wait for a listener, up to
    /// [`pending_opens`](crate::mux::MuxConfig::pending_opens) of them, instead of refusing them.
    pub fn expect(&mut self, name: &Name) {
        if self.ended.is_none() {
            self.names.expect(name);
        }
    }

    /// The longest waiting subchannel of this name, if any.
    pub fn accept(&mut self, name: &Name) -> Option<StreamKey> {
        let key = self.names.accept(name)?;
        let window = self.usual_window();
        let slot = self.slot(key)?;
        let stream = &mut self.slots[slot];
        stream.flags.clear(flag::WAITING);
        stream.window = stream.window.max(window);
        if stream.receive == ReceiveState::Open {
            self.note_control(slot, flag::CREDIT_DUE);
        }
        Some(key)
    }

    /// The identifier and the name of a subchannel; `None` for an old key.
    pub fn describe(&self, key: StreamKey) -> Option<(SubchannelId, Name)> {
        self.get(key).map(|stream| (stream.id, stream.name.clone()))
    }

    /// How soon the link carries this subchannel's data: 0 (first) to 7, 3 if nothing is said. Greater values count as
    /// 7. The peer learns it if OPEN was not sent yet; it decides for itself.
    pub fn set_priority(&mut self, key: StreamKey, level: u8) {
        let Some(slot) = self.slot(key) else { return };
        let stream = &mut self.slots[slot];
        let from = stream.level();
        stream.priority = level.min(super::schedule::LAST_PRIORITY);
        let to = stream.level();
        if from != to && stream.flags.has(flag::READY) {
            self.schedule.relevel(slot, from, to);
        }
    }

    /// Gives our direction up: the peer's reader gets `code` instead of what it has not read.
    pub fn reset(&mut self, key: StreamKey, code: u32) {
        if let Some(slot) = self.slot(key) {
            self.give_up_writing(slot, code.into());
            self.settle(slot);
            self.reopen_outbox();
        }
    }

    /// Gives the peer's direction up: its writer gets `code`, and what comes is discarded.
    pub fn stop(&mut self, key: StreamKey, code: u32) {
        if let Some(slot) = self.slot(key) {
            self.give_up_reading(slot, code.into());
            self.settle(slot);
        }
    }

    /// The application will not read any more: what waits and what comes is discarded, and the peer is told unless it
    /// has ended its direction. The key stays valid for writing.
    pub fn release_read(&mut self, key: StreamKey) {
        let Some(slot) = self.slot(key) else { return };
        self.give_up_reading(slot, Code::CANCELLED);
        self.discard_received(slot);
        self.slots[slot].flags.set(flag::READ_RELEASED);
        self.settle(slot);
    }

    /// The application will not write any more: [`shutdown`](Mux::shutdown), if that was not done. The key stays
    /// valid for reading.
    pub fn release_write(&mut self, key: StreamKey) {
        // If the direction has ended otherwise, there is nothing to shut down.
        let _already: Result<(), _> = self.shutdown(key);
        let Some(slot) = self.slot(key) else { return };
        self.slots[slot].flags.set(flag::WRITE_RELEASED);
        self.settle(slot);
    }

    /// Lets go of a subchannel: what was written is still sent, then its end; what comes is discarded.
    pub fn release(&mut self, key: StreamKey) {
        self.release_read(key);
        self.release_write(key);
    }

    /// Sends `data` once: it arrives as it is, or not at all. When too many wait the oldest is dropped, as are all
    /// when the link is lost.
    ///
    /// # Errors
    ///
    /// [`DatagramError`] for one that is too long, and for a subchannel that is not open in both directions.
    pub fn send_datagram(&mut self, key: StreamKey, data: Bytes) -> Result<(), DatagramError> {
        if let Some(reason) = &self.ended {
            return Err(DatagramError::Ended(reason.clone()));
        }
        let (len, limit) = (data.len(), self.max_datagram());
        if self.peer.datagram == 0 {
            return Err(DatagramError::Unsupported);
        }
        if len > limit {
            return Err(DatagramError::TooLong { len, limit });
        }
        let slot = self.slot(key).ok_or(DatagramError::NotOpen)?;
        let stream = &self.slots[slot];
        if stream.send != SendState::Open || stream.receive != ReceiveState::Open {
            return Err(DatagramError::NotOpen);
        }
        let room = MAX_DATAGRAM_BYTES.saturating_sub(self.datagram_bytes);
        let queue = &mut self.activate(slot).datagrams.out;
        let (taken, dropped) = push_datagram(queue, data, room);
        self.datagram_bytes = self.datagram_bytes + taken - dropped;
        self.note_ready(slot);
        self.settle(slot);
        Ok(())
    }

    /// The next datagram of the peer; `None` when none will come.
    ///
    /// `Pending` while there is none; then [`Event::Readable`](crate::mux::Event::Readable) follows.
    ///
    /// # Errors
    ///
    /// As [`read`](Mux::read).
    pub fn recv_datagram(&mut self, key: StreamKey) -> Poll<Result<Option<Bytes>, ReadError>> {
        let next = self
            .get_mut(key)
            .and_then(|stream| stream.active.as_mut())
            .and_then(|active| active.datagrams.received.pop_front());
        if let Some(data) = next {
            self.datagram_bytes -= data.len();
            self.settle(index(key));
            return Poll::Ready(Ok(Some(data)));
        }
        match self.get(key) {
            Some(stream) if stream.receive == ReceiveState::Finished => Poll::Ready(Ok(None)),
            _ => self.nothing_to_read(key).map_ok(|()| None),
        }
    }

    /// The longest datagram that the peer takes, in bytes; 0 if it takes none.
    pub fn max_datagram(&self) -> usize {
        usize::try_from(self.peer.datagram).unwrap_or(usize::MAX).min(MAX_PLAINTEXT - DatagramHeader::MAX)
    }

    /// A datagram of the peer.
    pub(super) fn take_datagram(&mut self, slot: u32, data: &Bytes) {
        let stream = &self.slots[slot];
        if stream.receive != ReceiveState::Open || stream.flags.has(flag::READ_RELEASED) {
            return;
        }
        let room = MAX_DATAGRAM_BYTES.saturating_sub(self.datagram_bytes);
        let queue = &mut self.activate(slot).datagrams.received;
        // A copy: a small piece must not keep a large buffer alive.
        let (taken, dropped) = push_datagram(queue, Bytes::copy_from_slice(data), room);
        self.datagram_bytes = self.datagram_bytes + taken - dropped;
        self.note_readable(slot);
        self.settle(slot);
    }
}

/// Puts a datagram into its queue, of which the oldest make room for it; without room for its bytes it is dropped.
/// Returns how many bytes came and how many went.
fn push_datagram(queue: &mut VecDeque<Bytes>, data: Bytes, room: usize) -> (usize, usize) {
    let mut dropped = 0;
    while queue.len() >= MAX_DATAGRAMS || (data.len() > room + dropped && !queue.is_empty()) {
        dropped += queue.pop_front().map_or(0, |data| data.len());
    }
    let taken = data.len();
    if taken > room + dropped {
        return (0, dropped);
    }
    queue.push_back(data);
    (taken, dropped)
}
