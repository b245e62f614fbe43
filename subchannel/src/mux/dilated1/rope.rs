//! A run of bytes in chunks: large pieces shared, small ones copied together.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// The first tail of a rope has room for at least this many bytes.
const FIRST_TAIL: usize = 256;
/// A tail up to this size is kept when the rope is emptied.
const KEEP_TAIL: usize = 16 << 10;

/// Bytes, appended at one end and taken from the other.
#[derive(Debug, Default)]
pub(super) struct Rope {
    chunks: VecDeque<Bytes>,
    /// What small pieces are copied into.
    tail: BytesMut,
    /// The room of the last tail.
    step: usize,
}

impl Rope {
    /// How many chunks there are, the tail not counted.
    pub(super) fn chunks(&self) -> usize {
        self.chunks.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty()
    }

    /// Copies `data` to the end. Tails double up to `most` bytes while they are filled.
    pub(super) fn append(&mut self, data: &[u8], most: usize) {
        if self.tail.capacity() - self.tail.len() < data.len() {
            self.freeze();
            self.step = (self.step * 2).clamp(FIRST_TAIL, most).max(data.len());
            self.tail.reserve(self.step);
        }
        self.tail.extend_from_slice(data);
    }

    /// Appends `data` without copying.
    pub(super) fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.freeze();
            self.chunks.push_back(data);
        }
    }

    /// Makes the tail a chunk. What is appended later goes on in the same memory.
    pub(super) fn freeze(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
    }

    /// A chunk by its index; the tail has to be frozen to be one.
    pub(super) fn chunk(&self, index: usize) -> Option<&Bytes> {
        self.chunks.get(index)
    }

    /// Drops `n` bytes, which have to be there, from the front. Returns how many chunks went whole, and how many bytes
    /// of the next.
    pub(super) fn advance(&mut self, mut n: usize) -> (usize, usize) {
        let mut gone = 0;
        while n > 0 {
            self.freeze_if_alone();
            let Some(front) = self.chunks.front_mut() else { break };
            if front.len() > n {
                front.advance(n);
                return (gone, n);
            }
            n -= front.len();
            self.chunks.pop_front();
            gone += 1;
        }
        (gone, 0)
    }

    /// Takes exactly `n` bytes, which have to be there; copies only if they are in several chunks.
    pub(super) fn take(&mut self, n: usize) -> Bytes {
        self.freeze_if_alone();
        match self.chunks.front_mut() {
            _ if n == 0 => Bytes::new(),
            Some(front) if front.len() > n => front.split_to(n),
            Some(front) if front.len() == n => self.chunks.pop_front().unwrap_or_default(),
            _ => {
                let mut joined = BytesMut::with_capacity(n);
                self.move_to(n, &mut joined);
                joined.freeze()
            }
        }
    }

    /// Takes at most `most` bytes, as many as there are in one piece.
    pub(super) fn take_chunk(&mut self, most: usize) -> Bytes {
        self.freeze_if_alone();
        let n = self.chunks.front().map_or(0, Bytes::len).min(most);
        self.take(n)
    }

    /// Moves `n` bytes, which have to be there, to the end of `to`.
    pub(super) fn move_to(&mut self, mut n: usize, to: &mut BytesMut) {
        while n > 0 {
            let chunk = self.take_chunk(n);
            if chunk.is_empty() {
                break;
            }
            n -= chunk.len();
            to.extend_from_slice(&chunk);
        }
    }

    /// Copies bytes from the front into `buf`, as many as fit.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> usize {
        let mut total = 0;
        while total < buf.len() {
            self.freeze_if_alone();
            let Some(front) = self.chunks.front_mut() else { break };
            let n = front.len().min(buf.len() - total);
            front.copy_to_slice(&mut buf[total..total + n]);
            total += n;
            if front.is_empty() {
                self.chunks.pop_front();
            }
        }
        total
    }

    /// Forgets everything, and gives back what was large.
    pub(super) fn clear(&mut self) {
        if self.chunks.capacity() > 64 {
            self.chunks = VecDeque::new();
        }
        self.chunks.clear();
        self.tail.clear();
        if self.tail.capacity() > KEEP_TAIL {
            self.tail = BytesMut::new();
        }
        self.step = 0;
    }

    fn freeze_if_alone(&mut self) {
        if self.chunks.is_empty() {
            self.freeze();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_in_which_they_came() {
        let mut rope = Rope::default();
        rope.append(b"abc", 1000);
        rope.push(Bytes::from_static(b"DEF"));
        rope.append(b"ghi", 1000);
        rope.append(b"jkl", 1000);
        assert_eq!(rope.take(2), "ab");
        assert_eq!(rope.take(5), "cDEFg");
        let mut buf = [0; 3];
        assert_eq!(rope.read(&mut buf), 3);
        assert_eq!(&buf, b"hij");
        rope.freeze();
        rope.append(b"mn", 1000);
        assert_eq!(rope.take_chunk(100), "kl", "no copy to join them");
        rope.freeze();
        assert_eq!(rope.advance(1), (0, 1));
        assert_eq!(rope.advance(1), (1, 0));
        assert!(rope.is_empty());
    }

    #[test]
    fn small_pieces_share_a_chunk_of_bounded_size() {
        let mut rope = Rope::default();
        for _ in 0..10_000 {
            rope.append(&[7; 100], 16 << 10);
        }
        rope.freeze();
        assert!(rope.chunks() < 80, "{}", rope.chunks());
        assert!((0..rope.chunks()).all(|index| rope.chunk(index).unwrap().len() <= 16 << 10));
        rope.clear();
        assert!(rope.is_empty() && rope.tail.capacity() <= KEEP_TAIL);
    }
}
