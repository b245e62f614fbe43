//! The BLAKE3 hash of a file, and on the way to it a hash of each of its chunks: nodes of the same tree, so that every
//! byte is hashed once.

use blake3::{
    Hasher,
    hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

use super::message::Hash;
use crate::files::CHUNK;

/// Hashes a file from its beginning.
#[derive(Debug, Clone)]
pub(super) struct FileHasher {
    /// Of the whole subtrees before the current chunk, the largest first.
    stack: Vec<ChainingValue>,
    /// How many chunks they are of.
    closed: u64,
    current: Chunk,
}

/// The chunk that more data would go into. It may be full: only with the next byte it is known not to be the last.
#[derive(Debug, Clone)]
enum Chunk {
    Open {
        hasher: Box<Hasher>,
        length: u64,
    },
    /// A full one that was hashed in an earlier session.
    Known(ChainingValue),
}

impl Chunk {
    fn begin(index: u64) -> Chunk {
        let mut hasher = Box::new(Hasher::new());
        hasher.set_input_offset(index * CHUNK);
        Chunk::Open { hasher, length: 0 }
    }
}

impl FileHasher {
    pub(super) fn new() -> FileHasher {
        FileHasher { stack: Vec::new(), closed: 0, current: Chunk::begin(0) }
    }

    /// Goes on behind full chunks that have these hashes. There must be two or more: the hash of a file of one chunk is
    /// not made of the chunk's.
    pub(super) fn after(chunks: &[[u8; 32]]) -> FileHasher {
        debug_assert!(chunks.len() > 1);
        let mut hasher = FileHasher::new();
        for (index, chunk) in chunks.iter().enumerate() {
            if index > 0 {
                hasher.close();
            }
            hasher.current = Chunk::Known(*chunk);
        }
        hasher
    }

    /// Adds `data`, and tells the number and hash of each chunk that it fills.
    pub(super) fn update<E>(
        &mut self,
        mut data: &[u8],
        mut full: impl FnMut(u64, [u8; 32]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !data.is_empty() {
            if matches!(self.current, Chunk::Known(_) | Chunk::Open { length: CHUNK, .. }) {
                self.close();
                self.current = Chunk::begin(self.closed);
            }
            let Chunk::Open { hasher, length } = &mut self.current else {
                unreachable!("it was begun above")
            };
            let room = usize::try_from(CHUNK - *length).unwrap_or(usize::MAX);
            let (now, later) = data.split_at(room.min(data.len()));
            hasher.update(now);
            *length += now.len() as u64;
            if *length == CHUNK {
                full(self.closed, hasher.finalize_non_root())?;
            }
            data = later;
        }
        Ok(())
    }

    /// The hash of all that was added.
    pub(super) fn finalize(&self) -> Hash {
        let current = match &self.current {
            Chunk::Open { hasher, .. } if self.stack.is_empty() => return hasher.finalize().into(),
            // Never empty here: a chunk is only begun for data.
            Chunk::Open { hasher, .. } => hasher.finalize_non_root(),
            Chunk::Known(hash) => *hash,
        };
        let (last, before) = self.stack.split_first().expect("a known chunk is not the only one");
        let right = before
            .iter()
            .rev()
            .fold(current, |right, left| merge_subtrees_non_root(left, &right, Mode::Hash));
        merge_subtrees_root(last, &right, Mode::Hash).into()
    }

    /// Puts the current chunk, which is full and not the last, into the tree.
    fn close(&mut self) {
        let mut node = match &self.current {
            Chunk::Open { hasher, .. } => hasher.finalize_non_root(),
            Chunk::Known(hash) => *hash,
        };
        self.closed += 1;
        let mut chunks = self.closed;
        while chunks.is_multiple_of(2) {
            let left = self.stack.pop().expect("an even number of chunks has a left half");
            node = merge_subtrees_non_root(&left, &node, Mode::Hash);
            chunks /= 2;
        }
        self.stack.push(node);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn add(hasher: &mut FileHasher, data: &[u8], chunks: &mut Vec<[u8; 32]>) {
        let Ok(()) = hasher.update(data, |index, hash| {
            assert_eq!(index, chunks.len() as u64);
            chunks.push(hash);
            Ok::<_, Infallible>(())
        });
    }

    #[test]
    fn it_is_the_hash_of_the_file_wherever_it_goes_on() {
        let chunk = usize::try_from(CHUNK).unwrap();
        let mut data = vec![0; 9 * chunk + 1];
        Hasher::new().finalize_xof().fill(&mut data);
        for length in [0, 1, 1024, 1025, chunk - 1, chunk, chunk + 1, 2 * chunk, 3 * chunk, 5 * chunk + 7]
            .into_iter()
            .chain([4 * chunk, 7 * chunk, 8 * chunk, 8 * chunk + 1, data.len()])
        {
            let (whole, mut chunks) = (&data[..length], Vec::new());
            let mut hasher = FileHasher::new();
            for piece in whole.chunks(700_001) {
                add(&mut hasher, piece, &mut chunks);
            }
            let expected = Hash::from(blake3::hash(whole));
            assert_eq!(hasher.finalize(), expected, "{length}");
            assert_eq!(chunks.len(), length / chunk);
            for known in 2..=chunks.len() {
                let mut hasher = FileHasher::after(&chunks[..known]);
                assert_eq!(hasher.finalize(), blake3::hash(&whole[..known * chunk]).into());
                let mut later = chunks[..known].to_vec();
                add(&mut hasher, &whole[known * chunk..], &mut later);
                assert_eq!((hasher.finalize(), &later), (expected, &chunks), "{length} after {known}");
            }
        }
    }
}
