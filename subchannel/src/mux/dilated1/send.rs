//! What one subchannel has written and the peer has not received.

use bytes::Bytes;

use super::{
    batch::{Batch, SHARE_ABOVE},
    rope::Rope,
    segments::{Kind, Place, Segment, Segments},
};
use crate::frame::Mark;

/// What is written in pieces up to this many bytes is copied together.
pub(super) const COPY_UP_TO: usize = 1024;
/// The most bytes that are copied together.
const MAX_TAIL: usize = 64 << 10;
/// What a chunk costs besides its bytes.
const CHUNK_COST: usize = 64;

/// The bytes from the first that is not acknowledged, with a cursor at the first that is not sent on this link.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    rope: Rope,
    segments: Segments,
    front: Place,
    cursor: Place,
    /// Where the cursor is in the rope: a chunk, and a byte of it.
    chunk: usize,
    chunk_at: usize,
    /// The unit at the cursor, the end of the direction counted when it was sent.
    pub(super) unit: u64,
    /// The greatest `unit` of all links.
    pub(super) sent_max: u64,
    /// What is left of the turn in the round robin.
    pub(super) deficit: i64,
    /// What was charged for it to the outbox.
    pub(super) charged: usize,
}

/// The payload of the next DATA.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) len: usize,
    pub(super) mark: Mark,
    /// Units that it covers.
    pub(super) units: u64,
    /// Bytes of the message, or of the stream, from here on.
    pub(super) whole: u64,
    segment: Option<Segment>,
}

impl Piece {
    /// No payload, for a DATA that only says the end.
    pub(super) const NOTHING: Piece = Piece { len: 0, mark: Mark::Stream, units: 0, whole: 0, segment: None };
}

impl SendQueue {
    /// Begins at a unit, before which everything was sent and acknowledged.
    pub(super) fn begin(&mut self, unit: u64) {
        self.unit = unit;
        self.sent_max = unit;
    }

    /// Memory in use when `unacknowledged` units are here.
    pub(super) fn cost(&self, unacknowledged: u64) -> usize {
        usize::try_from(unacknowledged).unwrap_or(usize::MAX).saturating_add(self.rope.chunks() * CHUNK_COST)
    }

    pub(super) fn write(&mut self, data: &[u8]) {
        let added = self.segments.add_stream(data.len() as u64);
        debug_assert!(added, "messages are written whole");
        self.rope.append(data, MAX_TAIL);
    }

    pub(super) fn write_shared(&mut self, data: Bytes) {
        let added = self.segments.add_stream(data.len() as u64);
        debug_assert!(added, "messages are written whole");
        self.rope.push(data);
    }

    pub(super) fn message(&mut self, data: &Bytes) {
        self.segments.add_message(data.len() as u64, true);
        if data.len() <= COPY_UP_TO {
            self.rope.append(data, MAX_TAIL);
        } else {
            self.rope.push(data.clone());
        }
    }

    /// What comes next, at most `room` bytes and `allowance` units.
    pub(super) fn plan(&mut self, room: usize, allowance: u64) -> Option<Piece> {
        let segment = self.segments.at(&mut self.cursor)?;
        let left = segment.len - self.cursor.done;
        let n = left.min(room as u64).min(allowance);
        let len = usize::try_from(n).expect("not above `room`");
        let (mark, units) = match segment.kind {
            Kind::Stream => (Mark::Stream, n),
            Kind::Message if n == left && n < allowance => (Mark::End, n + 1),
            Kind::Message => (Mark::More, n),
        };
        (units > 0).then_some(Piece { len, mark, units, whole: left, segment: Some(segment) })
    }

    /// Whether a piece is the rest of what was written.
    pub(super) fn is_last(&self, piece: &Piece, written: u64) -> bool {
        self.unit + piece.units == written
    }

    /// Puts the payload of a piece into the record and moves on.
    pub(super) fn emit(&mut self, piece: &Piece, out: &mut Batch) {
        let mut n = piece.len;
        while n > 0 {
            if self.chunk == self.rope.chunks() {
                self.rope.freeze();
            }
            let chunk = self.rope.chunk(self.chunk).expect("what was planned is there");
            let range = self.chunk_at..chunk.len().min(self.chunk_at + n);
            n -= range.len();
            self.chunk_at = range.end;
            if range.len() <= SHARE_ABOVE {
                out.put(&chunk[range]);
            } else {
                out.put_payload(chunk.slice(range));
            }
            if self.chunk_at == chunk.len() {
                self.chunk += 1;
                self.chunk_at = 0;
            }
        }
        self.cursor.done += piece.len as u64;
        if let Some(segment) = piece.segment
            && piece.mark == Mark::End
        {
            Segments::leave(&mut self.cursor, segment);
        }
        self.sent(piece.units);
    }

    /// Units were sent that are not payload.
    pub(super) fn sent(&mut self, units: u64) {
        self.unit += units;
        self.sent_max = self.sent_max.max(self.unit);
    }

    /// The peer has everything up to `upto`; it had everything up to `from`. Returns how many bytes that were.
    pub(super) fn acknowledge(&mut self, from: u64, upto: u64) -> u64 {
        let mut units = upto - from;
        let mut bytes = 0;
        while units > 0 {
            let Some(segment) = self.segments.at(&mut self.front) else { break };
            let n = (segment.len - self.front.done).min(units);
            self.front.done += n;
            bytes += n;
            units -= n;
            if segment.kind == Kind::Message && self.front.done == segment.len && units > 0 {
                units -= 1;
                Segments::leave(&mut self.front, segment);
            } else if n == 0 {
                break;
            }
        }
        let (chunks, rest) = self.rope.advance(usize::try_from(bytes).expect("bytes that are here"));
        let gone = self.segments.forget(&mut self.front);
        if upto >= self.unit {
            self.rewind(upto);
        } else {
            self.cursor = Segments::moved(self.cursor, gone);
            self.chunk -= chunks;
            if self.chunk == 0 {
                self.chunk_at -= rest;
            }
        }
        bytes
    }

    /// Another link: everything from `acknowledged` on goes again.
    pub(super) fn rewind(&mut self, acknowledged: u64) {
        self.cursor = self.front;
        self.chunk = 0;
        self.chunk_at = 0;
        self.unit = acknowledged;
    }

    /// Forgets what was written, but not what was sent.
    pub(super) fn discard(&mut self) {
        self.rope.clear();
        self.segments.clear();
        (self.front, self.cursor) = (Place::default(), Place::default());
        (self.chunk, self.chunk_at) = (0, 0);
        self.deficit = 0;
    }
}
