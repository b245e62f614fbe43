//! Where messages end in a run of bytes.
//!
//! The units of a subchannel are its bytes and the ends of its messages. A run of bytes is cut into *segments*:
//! bytes of a stream, or one message. Each costs one or two bytes here, as a rule, so that no flood of tiny messages
//! costs much more memory than the credit that it needs.

use std::collections::VecDeque;

/// What a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes of a stream: no unit but the bytes.
    Stream,
    /// A message: its end is a unit, too.
    Message,
}

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) kind: Kind,
    /// Bytes in it, so far if it is not `closed`.
    pub(super) len: u64,
    /// Nothing will be added.
    pub(super) closed: bool,
    /// What it takes in the list, 0 if it is not `closed`.
    size: usize,
}

/// A place in the run: which segment, and how many bytes of it are behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    at: usize,
    pub(super) done: u64,
}

impl Place {
    /// Whether `n` bytes of the list are before it.
    pub(super) fn is_far(&self, n: usize) -> bool {
        self.at >= n
    }
}

/// The segments of a run. All but the last are closed, and kept as varints of `length · 2 + is a message`.
#[derive(Debug, Default)]
pub(super) struct Segments {
    closed: VecDeque<u8>,
    open: Option<(Kind, u64)>,
}

impl Segments {
    /// Adds bytes of a stream. Returns `false`, and does nothing, in a message that has not ended.
    #[must_use]
    pub(super) fn add_stream(&mut self, n: u64) -> bool {
        match &mut self.open {
            Some((Kind::Message, _)) => return false,
            Some((Kind::Stream, len)) => *len += n,
            None if n > 0 => self.open = Some((Kind::Stream, n)),
            None => {}
        }
        true
    }

    /// Adds bytes of a message, and its end if it `ends`.
    pub(super) fn add_message(&mut self, n: u64, ends: bool) {
        let before = match self.open.take() {
            Some((Kind::Message, len)) => len,
            Some((Kind::Stream, len)) => {
                self.close(Kind::Stream, len);
                0
            }
            None => 0,
        };
        if ends {
            self.close(Kind::Message, before + n);
        } else {
            self.open = Some((Kind::Message, before + n));
        }
    }

    /// Bytes that the list has, for tests.
    #[cfg(test)]
    pub(super) fn list_len(&self) -> usize {
        self.closed.len()
    }

    /// Whether a message has begun and not ended.
    pub(super) fn is_in_message(&self) -> bool {
        matches!(self.open, Some((Kind::Message, _)))
    }

    /// The segment at a place, if there is one. Closed segments of a stream that are behind are skipped.
    pub(super) fn at(&self, place: &mut Place) -> Option<Segment> {
        loop {
            let segment = self.decode(place.at)?;
            if !(segment.closed && segment.kind == Kind::Stream && place.done == segment.len) {
                return Some(segment);
            }
            *place = Place { at: place.at + segment.size, done: 0 };
        }
    }

    /// Goes on from a segment that is behind, as [`at`](Segments::at) gave it.
    pub(super) fn leave(place: &mut Place, segment: Segment) {
        *place = Place { at: place.at + segment.size, done: 0 };
    }

    /// Forgets what is before `front`. Returns how far other places have to be moved down.
    pub(super) fn forget(&mut self, front: &mut Place) -> usize {
        let gone = std::mem::take(&mut front.at);
        if gone > 0 {
            if gone == self.closed.len() {
                self.closed.clear();
            } else {
                self.closed.drain(..gone);
            }
        }
        if self.closed.is_empty()
            && let Some((kind, len)) = &mut self.open
            && *len == front.done
            && *kind == Kind::Stream
        {
            // All of it is behind; later bytes begin another.
            self.open = None;
            front.done = 0;
        }
        gone
    }

    /// The same place when `gone` was forgotten before it.
    pub(super) fn moved(place: Place, gone: usize) -> Place {
        Place { at: place.at.saturating_sub(gone), done: place.done }
    }

    /// Forgets everything, and gives back what was large.
    pub(super) fn clear(&mut self) {
        if self.closed.capacity() > 512 {
            self.closed = VecDeque::new();
        }
        self.closed.clear();
        self.open = None;
    }

    fn close(&mut self, kind: Kind, len: u64) {
        let value = len << 1 | u64::from(kind == Kind::Message);
        let bytes = value.to_be_bytes();
        match value {
            0..0x40 => self.closed.push_back(bytes[7]),
            0x40..0x4000 => self.closed.extend([bytes[6] | 0x40, bytes[7]]),
            0x4000..0x4000_0000 => self.closed.extend([bytes[4] | 0x80, bytes[5], bytes[6], bytes[7]]),
            _ => {
                self.closed.push_back(bytes[0] | 0xc0);
                self.closed.extend(&bytes[1..]);
            }
        }
    }

    fn decode(&self, at: usize) -> Option<Segment> {
        let Some(&first) = self.closed.get(at) else {
            return self.open.map(|(kind, len)| Segment { kind, len, closed: false, size: 0 });
        };
        let size = 1 << (first >> 6);
        let value =
            (1..size).fold(u64::from(first & 0x3f), |value, i| value << 8 | u64::from(self.closed[at + i]));
        let kind = if value & 1 == 1 { Kind::Message } else { Kind::Stream };
        Some(Segment { kind, len: value >> 1, closed: true, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(segments: &Segments) -> Vec<(Kind, u64, bool)> {
        let mut place = Place::default();
        let mut all = Vec::new();
        while let Some(segment) = segments.at(&mut place) {
            all.push((segment.kind, segment.len, segment.closed));
            if !segment.closed {
                break;
            }
            Segments::leave(&mut place, segment);
        }
        all
    }

    #[test]
    fn stream_bytes_join_and_messages_stay_apart() {
        let mut segments = Segments::default();
        assert!(segments.add_stream(3) && segments.add_stream(4));
        for len in [0, 31, 32, 8191, 8192, 1 << 29, 1 << 40] {
            segments.add_message(len, true);
        }
        segments.add_message(5, false);
        assert!(!segments.add_stream(1), "a message has to end first");
        segments.add_message(6, false);
        let message = |len| (Kind::Message, len, true);
        let mut expected = vec![(Kind::Stream, 7, true)];
        expected.extend([0, 31, 32, 8191, 8192, 1 << 29, 1 << 40].map(message));
        expected.push((Kind::Message, 11, false));
        assert_eq!(all(&segments), expected);
        segments.add_message(0, true);
        assert!(segments.add_stream(1));
        *expected.last_mut().unwrap() = message(11);
        expected.push((Kind::Stream, 1, false));
        assert_eq!(all(&segments), expected);
    }

    #[test]
    fn what_is_behind_is_forgotten() {
        let mut segments = Segments::default();
        assert!(segments.add_stream(2));
        segments.add_message(100, true);
        let mut front = Place { at: 0, done: 2 };
        let mut cursor = front;
        let message = segments.at(&mut front).unwrap();
        assert_eq!((message.kind, message.len), (Kind::Message, 100));
        segments.at(&mut cursor).unwrap();
        Segments::leave(&mut cursor, message);
        let gone = segments.forget(&mut front);
        assert_eq!((gone, front), (1, Place::default()));
        let cursor = Segments::moved(cursor, gone);
        assert_eq!(cursor, Place { at: 2, done: 0 });
        // The stream's rest is behind as soon as it is done.
        Segments::leave(&mut front, message);
        segments.forget(&mut front);
        assert!(segments.add_stream(9));
        front.done = 9;
        segments.forget(&mut front);
        assert_eq!((segments.at(&mut front), front.done), (None, 0));
    }
}
