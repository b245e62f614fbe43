//! What one subchannel has received and the application has not read.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    rope::Rope,
    segments::{Kind, Place, Segment, Segments},
};
use crate::frame::Mark;

/// Payload from this many bytes on stays where it was received; less is copied together, so that a small piece does
/// not keep a large buffer alive.
const SHARE_FROM: usize = 15 << 10;
/// The most bytes that are copied together.
const MAX_TAIL: usize = 16 << 10;
/// What is behind in the list of segments is forgotten from this many bytes on.
const FORGET_FROM: usize = 512;

/// The units from the first that the application has not consumed.
#[derive(Debug, Default)]
pub(super) struct ReceiveQueue {
    rope: Rope,
    segments: Segments,
    front: Place,
    /// The unit at the front.
    pub(super) consumed: u64,
    /// The beginning of a long message, taken from the front so that the peer may send the rest.
    assembly: BytesMut,
    /// Bytes of the message that has not ended.
    message_len: u64,
    /// Whoever calls `recv` waits for the end of a message.
    pub(super) waits_for_message: bool,
    /// It may use `assembly`: one of few that may.
    pub(super) assembles: bool,
    /// It stands in line for that.
    pub(super) waits_to_assemble: bool,
    /// What was charged for it.
    pub(super) charged: usize,
}

impl ReceiveQueue {
    /// Whether nothing has to be remembered, if everything is consumed.
    pub(super) fn is_idle(&self) -> bool {
        self.assembly.is_empty()
            && !self.segments.is_in_message()
            && !self.assembles
            && !self.waits_to_assemble
    }

    /// Bytes that the list of segments has, for tests.
    #[cfg(test)]
    pub(super) fn list_len(&self) -> usize {
        self.segments.list_len()
    }

    /// Memory in use when `unread` units are here.
    pub(super) fn cost(&self, unread: u64) -> usize {
        usize::try_from(unread).unwrap_or(usize::MAX).saturating_add(self.assembly.len())
    }

    /// Takes the payload of a DATA. Returns `false` if bytes of a stream follow a message that has not ended.
    #[must_use]
    pub(super) fn add(&mut self, data: Bytes, mark: Mark) -> bool {
        let n = data.len() as u64;
        match mark {
            Mark::Stream if !self.segments.add_stream(n) => return false,
            Mark::Stream => {}
            Mark::More | Mark::End => {
                self.segments.add_message(n, mark == Mark::End);
                self.message_len = if mark == Mark::More { self.message_len + n } else { 0 };
            }
        }
        if data.len() >= SHARE_FROM {
            self.rope.push(data);
        } else {
            self.rope.append(&data, MAX_TAIL);
        }
        true
    }

    /// Bytes of the message that has not ended, with `more`.
    pub(super) fn message_len(&self, more: usize) -> u64 {
        self.message_len + more as u64
    }

    pub(super) fn is_in_message(&self) -> bool {
        self.segments.is_in_message()
    }

    /// Whether the next thing to read is a message that has not ended.
    pub(super) fn is_front_incomplete(&mut self) -> bool {
        self.segments
            .at(&mut self.front)
            .is_some_and(|segment| segment.kind == Kind::Message && !segment.closed)
    }

    /// Copies bytes out; the ends of messages are passed over.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> usize {
        let mut total = 0;
        if !self.assembly.is_empty() {
            total = self.assembly.len().min(buf.len());
            self.assembly.copy_to_slice(&mut buf[..total]);
        }
        while let Some(segment) = self.segment() {
            let n = left(segment, self.front).min(buf.len() - total);
            if n == 0 {
                break;
            }
            total += self.rope.read(&mut buf[total..total + n]);
            self.consume(segment, n);
        }
        total
    }

    /// The next bytes in one piece.
    pub(super) fn read_chunk(&mut self) -> Option<Bytes> {
        if !self.assembly.is_empty() {
            return Some(self.assembly.split().freeze());
        }
        let segment = self.segment()?;
        let chunk = self.rope.take_chunk(left(segment, self.front));
        self.consume(segment, chunk.len());
        (!chunk.is_empty()).then_some(chunk)
    }

    /// The next message, if it has ended, or bytes of a stream.
    pub(super) fn recv(&mut self) -> Option<Bytes> {
        let segment = self.segments.at(&mut self.front)?;
        let left = left(segment, self.front);
        match (segment.kind, segment.closed) {
            (Kind::Stream, _) => self.read_chunk(),
            (Kind::Message, false) => {
                self.waits_for_message = true;
                None
            }
            (Kind::Message, true) => {
                let message = if self.assembly.is_empty() {
                    self.rope.take(left)
                } else {
                    self.rope.move_to(left, &mut self.assembly);
                    std::mem::take(&mut self.assembly).freeze()
                };
                self.consume(segment, left);
                (self.waits_for_message, self.waits_to_assemble) = (false, false);
                Some(message)
            }
        }
    }

    /// Moves what is here of the message at the front away from the peer's credit.
    pub(super) fn assemble(&mut self) {
        let Some(segment) = self.segments.at(&mut self.front) else { return };
        if segment.kind == Kind::Message && !segment.closed {
            let n = left(segment, self.front);
            self.rope.move_to(n, &mut self.assembly);
            self.consume(segment, n);
        }
    }

    /// Forgets everything; `consumed` is where it ends.
    pub(super) fn discard(&mut self, consumed: u64) {
        self.rope.clear();
        self.segments.clear();
        self.front = Place::default();
        self.assembly = BytesMut::new();
        self.message_len = 0;
        self.waits_for_message = false;
        self.consumed = consumed;
    }

    /// The segment at the front, after the ends of messages whose bytes are all consumed.
    fn segment(&mut self) -> Option<Segment> {
        loop {
            let segment = self.segments.at(&mut self.front)?;
            if segment.kind == Kind::Stream || !segment.closed || left(segment, self.front) > 0 {
                return Some(segment);
            }
            self.end_message(segment);
        }
    }

    /// Bytes of the segment at the front are gone, and with the last of a message its end.
    fn consume(&mut self, segment: Segment, n: usize) {
        self.front.done += n as u64;
        self.consumed += n as u64;
        if segment.kind == Kind::Message && segment.closed && self.front.done == segment.len {
            self.end_message(segment);
        } else {
            self.forget();
        }
    }

    fn end_message(&mut self, segment: Segment) {
        self.consumed += 1;
        Segments::leave(&mut self.front, segment);
        self.forget();
    }

    fn forget(&mut self) {
        if self.rope.is_empty() || self.front.is_far(FORGET_FROM) {
            self.segments.forget(&mut self.front);
        }
    }
}

fn left(segment: Segment, place: Place) -> usize {
    usize::try_from(segment.len - place.done).expect("bytes that are here")
}
