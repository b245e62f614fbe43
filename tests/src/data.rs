//! Deterministic test data, the same as `tests/python/data.py` makes: a seed names an endless stream.
//!
//! The stream is made of 64 KiB blocks. A seed's template is the concatenation of
//! `SHA-256(seed BE8 || i BE8)` for `i` in `0..2048`; block `n` is the template with its first eight bytes
//! exclusive-or'd with `n` BE8. Making data is a copy, so it does not disturb measurements, and a block that
//! is lost, doubled or moved changes the hash.

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// Bytes of a block.
pub const BLOCK: usize = 65_536;

/// The stream of one seed.
#[derive(Clone)]
pub struct Data {
    template: Vec<u8>,
}

impl Data {
    /// The stream that `seed` names.
    pub fn new(seed: u64) -> Self {
        let mut template = Vec::with_capacity(BLOCK);
        for index in 0..(BLOCK / 32) as u64 {
            let mut hash = Sha256::new();
            hash.update(seed.to_be_bytes());
            hash.update(index.to_be_bytes());
            template.extend_from_slice(&hash.finalize());
        }
        Self { template }
    }

    /// Fills `out` with the bytes of the stream that begin at `offset`.
    pub fn fill(&self, mut offset: u64, mut out: &mut [u8]) {
        while !out.is_empty() {
            let number = offset / BLOCK as u64;
            let skip = usize::try_from(offset % BLOCK as u64).expect("less than a block");
            let length = out.len().min(BLOCK - skip);
            let (piece, rest) = out.split_at_mut(length);
            piece.copy_from_slice(&self.template[skip..skip + length]);
            for (byte, mask) in piece.iter_mut().zip(number.to_be_bytes().into_iter().skip(skip)) {
                *byte ^= mask;
            }
            offset += length as u64;
            out = rest;
        }
    }

    /// The bytes `offset .. offset + length`.
    pub fn at(&self, offset: u64, length: usize) -> Bytes {
        let mut out = vec![0; length];
        self.fill(offset, &mut out);
        out.into()
    }

    /// The first `length` bytes in pieces of `chunk`, the last one shorter.
    ///
    /// # Panics
    ///
    /// If `chunk` is zero.
    pub fn chunks(&self, length: u64, chunk: usize) -> impl Iterator<Item = Bytes> + '_ {
        (0..length).step_by(chunk).map(move |offset| {
            let size = usize::try_from(length - offset).map_or(chunk, |left| left.min(chunk));
            self.at(offset, size)
        })
    }

    /// SHA-256 of the first `length` bytes, in hexadecimal.
    pub fn sha256(&self, length: u64) -> String {
        let mut hash = Sha256::new();
        for piece in self.chunks(length, BLOCK) {
            hash.update(&piece);
        }
        hex(&hash.finalize())
    }

    /// Compares what arrives with this stream, from its beginning.
    pub fn check(&self) -> Check {
        Check { data: self.clone(), offset: 0 }
    }
}

/// Follows one receiver of [`Data`] and stops the test at the first wrong byte.
pub struct Check {
    data: Data,
    offset: u64,
}

impl Check {
    /// Compares the next bytes that arrived.
    ///
    /// # Panics
    ///
    /// If they are not the next bytes of the stream; the message names the offset of the first wrong one.
    pub fn push(&mut self, piece: &[u8]) {
        let expected = self.data.at(self.offset, piece.len());
        if let Some(at) = piece.iter().zip(&expected).position(|(got, want)| got != want) {
            panic!("byte {} of the stream is wrong", self.offset + at as u64);
        }
        self.offset += piece.len() as u64;
    }

    /// Bytes seen so far, all of them right.
    pub fn received(&self) -> u64 {
        self.offset
    }
}

/// SHA-256 of `bytes`, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lowercase hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_python() {
        // From `data.py`: sha256(data(7, 0, 200000)) and data(7, 131070, 12).
        let data = Data::new(7);
        assert_eq!(data.sha256(200_000), "0ff5cacd3754b58f4b9765fec34bc69d303b9a1f0fd842583d5a39119a19e8a8");
        assert_eq!(hex(&data.at(131_070, 12)), "4559e8dd943d366caae5beb7");
    }

    #[test]
    fn any_offset_reads_the_same_stream() {
        let data = Data::new(1);
        let whole = data.at(0, 3 * BLOCK);
        for offset in [0, 1, 7, 8, 9, BLOCK - 1, BLOCK, BLOCK + 3, 2 * BLOCK - 4] {
            assert_eq!(data.at(offset as u64, 20), whole[offset..offset + 20], "at {offset}");
        }
        let joined: Vec<u8> = data.chunks(150_000, 1000).flatten().collect();
        assert_eq!(joined, whole[..150_000]);
    }

    #[test]
    #[should_panic(expected = "byte 65540 of the stream is wrong")]
    fn a_check_names_the_first_wrong_byte() {
        let data = Data::new(2);
        let mut bytes = data.at(0, 2 * BLOCK).to_vec();
        bytes[65_540] ^= 1;
        let mut check = data.check();
        check.push(&bytes[..1000]);
        check.push(&bytes[1000..]);
    }
}
