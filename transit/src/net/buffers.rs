//! Where a link reads into.

use std::collections::VecDeque;

use bytes::BytesMut;

/// Records asked of the socket at once: whole ones, so that a stream of full ones leaves no remainder that has to be moved to the
/// next buffer.
const RECORDS: usize = 4;

/// Bytes that a buffer keeps for the next batch. One that a long message made larger is given back.
pub(super) const KEPT: usize = 1024 * 1024;

/// Buffers that are remembered while somebody holds messages in them.
const SPENT: usize = 16;

/// Bytes between two times that the socket had nothing, below which the link is at rest: pings, but hardly ever the end of a
/// burst, which may be followed by the next at once.
const REST: usize = 4096;

/// Makes room to read, and takes buffers up again when all messages in them are gone: a new one costs a page fault for every
/// 4 KiB.
#[derive(Debug)]
pub(super) struct Buffers {
    /// Bytes of a full record.
    record: usize,
    /// Read full, the oldest first. As long as somebody holds a message in one it cannot be reclaimed.
    spent: VecDeque<BytesMut>,
    /// The most that the present buffer had to hold since it was new.
    peak: usize,
    /// Bytes that came since the socket had none.
    burst: usize,
}

impl Buffers {
    /// For records of so many bytes, with their length, when they are full.
    pub(super) fn new(record: usize) -> Buffers {
        Buffers { record, spent: VecDeque::new(), peak: 0, burst: 0 }
    }

    /// Makes room in `buffer` for the next read. `missing`: bytes of the frame at its front that are not here yet, as far
    /// as that is known.
    pub(super) fn make_room(&mut self, buffer: &mut BytesMut, missing: usize) {
        let (held, read) = (buffer.len(), RECORDS * self.record);
        if held + missing > read {
            // A long frame gets its room as it arrives: its length is not authenticated before it is complete.
            buffer.reserve(missing.min(held).max(read));
            self.peak = self.peak.max(buffer.capacity());
            return;
        }
        if self.peak > KEPT {
            *buffer = BytesMut::from(&buffer[..]);
        }
        self.peak = 0;
        let wanted = if missing > 0 { missing } else { self.record };
        if buffer.capacity() - held >= wanted || buffer.try_reclaim(read - held) {
            return;
        }
        let reclaimed = self.spent.iter_mut().position(|spent| spent.try_reclaim(read));
        let mut next = reclaimed
            .and_then(|index| self.spent.remove(index))
            .unwrap_or_else(|| BytesMut::with_capacity(read));
        next.extend_from_slice(buffer);
        let mut spent = std::mem::replace(buffer, next);
        spent.clear();
        if self.spent.len() >= SPENT {
            self.spent.pop_front();
        }
        self.spent.push_back(spent);
    }

    /// So much was read.
    pub(super) fn handle_read(&mut self, bytes: usize) {
        self.burst = self.burst.saturating_add(bytes);
    }

    /// The socket has nothing. After little traffic the link is at rest, and gives back what it kept for more. After none
    /// nobody knows: whoever has it polled may have come for something else.
    pub(super) fn handle_pending(&mut self) {
        if (1..REST).contains(&std::mem::take(&mut self.burst)) {
            self.spent = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const RECORD: usize = 65_539;
    const READ: usize = RECORDS * RECORD;

    /// Fills `buffer` to its end, and takes it out in frames of this length; what remains stays.
    fn fill(buffer: &mut BytesMut, frame: usize) -> Vec<Bytes> {
        let room = buffer.capacity() - buffer.len();
        buffer.extend_from_slice(&vec![1; room]);
        let mut frames = Vec::new();
        while buffer.len() >= frame {
            frames.push(buffer.split_to(frame).freeze());
        }
        frames
    }

    #[test]
    fn buffers_are_taken_up_again_when_their_messages_are_gone() {
        let (mut buffers, mut buffer) = (Buffers::new(RECORD), BytesMut::new());
        let mut held: VecDeque<Vec<Bytes>> = VecDeque::new();
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..100 {
            buffers.make_room(&mut buffer, 0);
            places.insert(buffer.as_ptr());
            held.push_back(fill(&mut buffer, RECORD));
            assert_eq!((held[0].len(), buffer.len()), (4, 0), "whole records");
            if held.len() > 3 {
                held.pop_front();
            }
        }
        assert!(places.len() <= 5, "{}", places.len());
    }

    #[test]
    fn messages_that_nobody_lets_go_of_do_not_fill_the_memory_of_the_link() {
        let (mut buffers, mut buffer) = (Buffers::new(RECORD), BytesMut::new());
        let mut held = Vec::new();
        for _ in 0..40 {
            buffers.make_room(&mut buffer, 0);
            held.push(fill(&mut buffer, RECORD));
        }
        assert_eq!(buffers.spent.len(), SPENT);
        drop(held);
        buffers.handle_read(100);
        buffers.handle_pending();
        assert!(buffers.spent.is_empty());
    }

    #[test]
    fn between_two_bursts_they_are_kept() {
        let (mut buffers, mut buffer) = (Buffers::new(RECORD), BytesMut::new());
        let mut held = Vec::new();
        for _ in 0..4 {
            buffers.make_room(&mut buffer, 0);
            held.push(fill(&mut buffer, RECORD));
        }
        drop(held);
        let spent = buffers.spent.len();
        assert!(spent >= 3, "{spent}");
        for burst in [RECORD, RECORD / 4, RECORD / 4, READ] {
            buffers.handle_read(burst);
            buffers.handle_pending();
            buffers.handle_pending();
        }
        assert_eq!(buffers.spent.len(), spent);
    }

    #[test]
    fn a_frame_that_began_stays_where_it_is_while_it_fits() {
        let (mut buffers, mut buffer) = (Buffers::new(RECORD), BytesMut::new());
        buffers.make_room(&mut buffer, 0);
        let frames = fill(&mut buffer, 60_000);
        let (rest, place) = (buffer.len(), buffer.as_ptr());
        assert_eq!((frames.len(), rest), (4, READ - 240_000));
        buffers.make_room(&mut buffer, 60_000 - rest);
        assert_ne!(buffer.as_ptr(), place, "it does not fit, so it moves");
        assert_eq!((buffer.len(), buffer.capacity()), (rest, READ));
        let place = buffer.as_ptr();
        buffers.make_room(&mut buffer, 60_000 - rest);
        assert_eq!(buffer.as_ptr(), place);
    }
}
