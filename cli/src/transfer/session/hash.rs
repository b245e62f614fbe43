//! How much of a file two sides have in common: hashes of its beginnings, each longer than the one before by a chunk. So
//! every byte is hashed once, on its way to the hash of the whole.

use std::ops::Range;

use blake3::Hasher;

use super::{
    message::{Hash, Have},
    state::Violation,
};

/// The shortest chunk, in bytes.
pub(super) const MIN_CHUNK: u64 = 1 << 20;

/// The most hashes of one file.
pub(super) const MAX_HASHES: u64 = 4096;

/// Bytes that are hashed at once with the widest instructions there are: a KiB for each of 16 lanes.
const BLOCK: usize = 16 << 10;

/// Bytes that are read at once.
const PIECE: usize = 128 << 10;

impl Have {
    /// Hashes the first `length` bytes of a file. `read` has to fill the buffer from an offset. Also returns what goes on
    /// behind them.
    pub(super) fn of<E>(
        length: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(Have, Hasher), E> {
        let mut have = Have { have: length, chunk: chunk_of(length), hashes: Vec::new() };
        let (mut hasher, mut begin) = (Hasher::new(), 0);
        while begin < length {
            let end = have.behind(begin);
            add(&mut hasher, begin..end, &mut read)?;
            have.hashes.push(hasher.finalize().into());
            begin = end;
        }
        Ok((have, hasher))
    }

    /// Fails if it cannot be of a file of `size` bytes.
    pub(super) fn check(&self, size: u64) -> Result<(), Violation> {
        if self.have > size {
            return Err(Violation::new("more of a file is there than it has"));
        }
        if !self.chunk.is_power_of_two() || self.chunk < MIN_CHUNK {
            return Err(Violation::new(format!("chunks of {} bytes", self.chunk)));
        }
        let hashes = self.have.div_ceil(self.chunk);
        if hashes > MAX_HASHES || hashes != self.hashes.len() as u64 {
            return Err(Violation::new(format!("{} hashes of {} bytes", self.hashes.len(), self.have)));
        }
        Ok(())
    }

    /// How many bytes of it are also the first ones of what `read` reads, as far as the hashes tell, and what goes on behind
    /// them. To be asked after [`Have::check`].
    pub(super) fn common<E>(
        &self,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(u64, Hasher), E> {
        let (mut common, mut hasher) = (0, Hasher::new());
        for hash in &self.hashes {
            let (mut longer, end) = (hasher.clone(), self.behind(common));
            add(&mut longer, common..end, &mut read)?;
            if Hash::from(longer.finalize()) != *hash {
                break;
            }
            (common, hasher) = (end, longer);
        }
        Ok((common, hasher))
    }

    /// Whether its sender can be asked to go on at `offset`.
    pub(super) fn allows(&self, offset: u64) -> bool {
        offset == self.have || (offset < self.have && offset.is_multiple_of(self.chunk))
    }

    /// Where the chunk ends that begins at `begin`.
    fn behind(&self, begin: u64) -> u64 {
        begin.saturating_add(self.chunk).min(self.have)
    }
}

/// The chunks of that many bytes.
fn chunk_of(length: u64) -> u64 {
    length.div_ceil(MAX_HASHES).next_power_of_two().max(MIN_CHUNK)
}

/// Hashes what comes in pieces of any length. The hash is fast in long pieces that begin at multiples of [`BLOCK`], so a bit
/// at their ends is copied.
#[derive(Debug, Clone)]
pub(super) struct PieceHasher {
    hasher: Hasher,
    /// What is not in it yet.
    rest: Vec<u8>,
}

impl PieceHasher {
    pub(super) fn new(hasher: Hasher) -> PieceHasher {
        PieceHasher { hasher, rest: Vec::with_capacity(BLOCK) }
    }

    pub(super) fn update(&mut self, mut data: &[u8]) {
        let before = usize::try_from(self.hasher.count() % BLOCK as u64).expect("it is less than a block");
        let missing = BLOCK - before - self.rest.len();
        if missing < BLOCK {
            let (now, later) = data.split_at(missing.min(data.len()));
            self.rest.extend_from_slice(now);
            if now.len() < missing {
                return;
            }
            self.hasher.update(&self.rest);
            self.rest.clear();
            data = later;
        }
        let (blocks, rest) = data.split_at(data.len() / BLOCK * BLOCK);
        self.hasher.update(blocks);
        self.rest.extend_from_slice(rest);
    }

    pub(super) fn finalize(mut self) -> Hash {
        self.hasher.update(&self.rest).finalize().into()
    }
}

/// Adds the bytes of `range` to `hasher`. `read` has to fill the buffer from an offset.
pub(super) fn add<E>(
    hasher: &mut Hasher,
    range: Range<u64>,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![0; usize::try_from(range.end - range.start).map_or(PIECE, |all| all.min(PIECE))];
    let mut at = range.start;
    while at < range.end {
        let piece = usize::try_from(range.end - at).map_or(PIECE, |left| left.min(PIECE));
        let piece = &mut buffer[..piece];
        read(at, piece)?;
        hasher.update(piece);
        at += piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// Chunks of this many bytes are what a short file has.
    const CHUNK: usize = 1 << 20;

    /// Reads from memory.
    fn from(data: &[u8]) -> impl FnMut(u64, &mut [u8]) -> Result<(), Infallible> {
        |at, piece| {
            let at = usize::try_from(at).unwrap();
            piece.copy_from_slice(&data[at..at + piece.len()]);
            Ok(())
        }
    }

    fn have(data: &[u8]) -> (Have, Hasher) {
        let Ok(found) = Have::of(data.len() as u64, from(data));
        found
    }

    fn data() -> Vec<u8> {
        let mut data = vec![0; 4 * CHUNK + 1];
        Hasher::new().finalize_xof().fill(&mut data);
        data
    }

    #[test]
    fn every_beginning_has_its_hash() {
        let data = data();
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, data.len()] {
            let (have, hasher) = have(&data[..length]);
            assert_eq!(have.chunk, CHUNK as u64);
            assert_eq!(have.check(length as u64), Ok(()));
            assert_eq!(hasher.finalize(), blake3::hash(&data[..length]));
            let ends = (1..).map(|chunks| length.min(chunks * CHUNK));
            for (hash, end) in have.hashes.iter().zip(ends) {
                assert_eq!(*hash, blake3::hash(&data[..end]).into(), "{end} of {length}");
            }
        }
    }

    proptest! {
        /// It does not matter how a file is cut, nor where it goes on.
        #[test]
        fn pieces_of_any_length_give_the_hash(
            begin in prop_oneof![Just(0), 0..40_000_usize],
            pieces in prop::collection::vec(prop_oneof![0..4_usize, 0..70_000_usize, Just(BLOCK)], 0..20),
        ) {
            let data = data();
            let mut hasher = Hasher::new();
            hasher.update(&data[..begin]);
            let (mut hasher, mut end) = (PieceHasher::new(hasher), begin);
            for length in pieces {
                hasher.update(&data[end..end + length]);
                end += length;
            }
            prop_assert_eq!(hasher.finalize(), blake3::hash(&data[..end]).into());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Whatever is damaged, and however long the other file is, what is in common ends before the first chunk that differs.
        #[test]
        fn the_first_chunk_that_differs_is_found(
            length in 0..=4 * CHUNK + 1,
            damaged in prop::option::of(0..=4 * CHUNK),
            more in 0..2 * CHUNK,
        ) {
            let mut other = data();
            let (have, _) = have(&other[..length]);
            let wrong = damaged.filter(|at| *at < length);
            if let Some(at) = wrong {
                other[at] ^= 1;
            }
            other.truncate(length + more);
            prop_assert_eq!(have.check(other.len() as u64), Ok(()));
            let Ok((common, hasher)) = have.common(from(&other));
            prop_assert_eq!(common, wrong.map_or(length, |at| at / CHUNK * CHUNK) as u64);
            prop_assert!(have.allows(common) && have.allows(0));
            let common = usize::try_from(common).unwrap();
            prop_assert_eq!(hasher.finalize(), blake3::hash(&other[..common]));
        }

        /// There are never too many hashes, and never fewer than needed.
        #[test]
        fn the_chunks_of_any_length_are_few(length in any::<u64>(), shift in 0..64_u32) {
            let length = length >> shift;
            let mut have = Have { have: length, chunk: chunk_of(length), hashes: Vec::new() };
            let (mut chunks, mut at) = (0, 0);
            while at < length {
                at = have.behind(at);
                chunks += 1;
            }
            prop_assert!(chunks <= MAX_HASHES && (have.chunk == MIN_CHUNK || chunks > MAX_HASHES / 2));
            have.hashes = vec![Hash([0; 32]); usize::try_from(chunks).unwrap()];
            prop_assert_eq!(have.check(length), Ok(()));
            have.hashes.push(Hash([0; 32]));
            prop_assert!(have.check(length).is_err());
        }

        /// What a stranger says is refused or can be used.
        #[test]
        fn a_strange_one_does_no_harm(
            length in prop_oneof![0..=3_u64, 0..=1_u64 << 24, any::<u64>()],
            chunk in prop_oneof![0..64_u32, Just(64)],
            off in 0..2_u64,
            hashes in 0..40_usize,
            size in any::<u64>(),
        ) {
            let chunk = 1_u64.checked_shl(chunk).unwrap_or(0).wrapping_add(off);
            let have = Have { have: length, chunk, hashes: vec![Hash([1; 32]); hashes] };
            let fits = off == 0 && chunk >= MIN_CHUNK && length <= size;
            let fits = fits && u128::from(length).div_ceil(u128::from(chunk)) == hashes as u128;
            prop_assert_eq!(have.check(size).is_ok(), fits);
        }
    }
}
