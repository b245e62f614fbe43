//! The encrypted pipe of a link: messages become frames and frames become messages, in place on whole buffers.
//!
//! ```text
//! frame   = BE4 length ‖ Noise message ‖ Noise message ...
//! message = up to 65,519 bytes of plaintext, sealed with an empty AD, 16 bytes of tag
//! nonce   = 4 zero bytes ‖ counter as 8 bytes, from 0, one per direction;
//!           little-endian for ChaCha20-Poly1305, big-endian for AES-256-GCM (Noise specification, section 12)
//! ```
//!
//! In `ged` a plaintext longer than one Noise message is cut, and all pieces share one frame (specification `ged`,
//! section "L2 protocol"). In `dilated-1` a frame is one Noise message, and keys are renewed.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;
use zeroize::Zeroizing;

/// Most plaintext in one Noise message, in bytes.
pub const MAX_NOISE_PLAINTEXT: usize = 65_519;

/// Longest Noise message, in bytes.
pub const MAX_NOISE_MESSAGE: usize = MAX_NOISE_PLAINTEXT + TAG;

/// Default limit on the length of a received frame: the frame of a 16 MiB DATA record.
pub const DEFAULT_MAX_FRAME: usize = frame_length(16 * 1024 * 1024 + 9);

/// Records under one key of `dilated-1`, in each direction: with the longest, 1 TiB, up to which AES-256-GCM keeps the
/// margin that TLS asks for (RFC 8446, section 5.5).
pub(crate) const RECORDS_PER_KEY: u64 = 1 << 24;

const TAG: usize = 16;
const HEADER: usize = 4;

/// Messages up to this length are copied out of the read buffer. A short message that waits for a slow reader
/// would otherwise keep the whole buffer alive, and a hostile peer could keep thousands of buffers alive so.
const COPY_BELOW: usize = 4096;

/// The length that a frame announces for a plaintext of so many bytes; the four bytes of the length itself are not
/// counted.
#[must_use]
pub const fn frame_length(plaintext: usize) -> usize {
    plaintext.saturating_add(plaintext.div_ceil(MAX_NOISE_PLAINTEXT).saturating_mul(TAG))
}

/// The most plaintext that fits a frame of this length, both in bytes.
const fn longest_plaintext(frame: usize) -> usize {
    let whole = frame / MAX_NOISE_MESSAGE;
    whole * MAX_NOISE_PLAINTEXT + (frame % MAX_NOISE_MESSAGE).saturating_sub(TAG)
}

/// Why a message could not be sealed. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The message is empty, which would make the other side drop the link.
    #[error("an empty message cannot be sent on a link")]
    Empty,
    /// The message does not fit a frame.
    #[error("a message of {length} bytes does not fit a frame of this link, which takes {limit}")]
    TooLong {
        /// Of the message, in bytes.
        length: usize,
        /// The most that a frame takes, in bytes.
        limit: usize,
    },
    /// The link has used all its nonces.
    #[error("this link has sent all the messages its key allows; a new link is needed")]
    Exhausted,
}

/// Why a received frame could not be opened. The link is of no use any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The frame is longer than we accept.
    #[error("the other side announced a frame of {length} bytes; the limit is {limit}")]
    TooLong {
        /// What the frame announced, in bytes.
        length: usize,
        /// What the configuration allows, in bytes.
        limit: usize,
    },
    /// The frame has no plaintext.
    #[error("the other side sent an empty message, which the protocol forbids")]
    Empty,
    /// The frame was not made with the key of this link, or not with this nonce.
    #[error("a frame could not be decrypted: it was corrupted on the way, or somebody else made it")]
    Undecryptable,
    /// The link has used all its nonces.
    #[error("this link has received all the messages its key allows; a new link is needed")]
    Exhausted,
}

/// What the records of a link are sealed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cipher {
    /// ChaCha20-Poly1305, fast everywhere.
    ChaChaPoly,
    /// AES-256-GCM, about twice as fast where the processor has instructions for it.
    AesGcm,
}

impl Cipher {
    fn key(self, key: &[u8; 32]) -> LessSafeKey {
        let algorithm = match self {
            Cipher::ChaChaPoly => &CHACHA20_POLY1305,
            Cipher::AesGcm => &AES_256_GCM,
        };
        LessSafeKey::new(UnboundKey::new(algorithm, key).expect("both algorithms have keys of 32 bytes"))
    }

    fn nonce(self, counter: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&match self {
            Cipher::ChaChaPoly => counter.to_le_bytes(),
            Cipher::AesGcm => counter.to_be_bytes(),
        });
        Nonce::assume_unique_for_key(nonce)
    }
}

/// The key of one direction and its counter. A value of the counter is used up when it is taken, before any I/O, so that
/// no cancelled write can use one twice.
#[derive(Debug)]
struct Direction {
    key: LessSafeKey,
    cipher: Cipher,
    counter: u64,
    /// Messages after which the key is renewed; 0 for never.
    per_key: u64,
}

impl Direction {
    fn new(key: &[u8; 32], cipher: Cipher) -> Direction {
        Direction { key: cipher.key(key), cipher, counter: 0, per_key: 0 }
    }

    /// Whether `count` more nonces may be used. 2^64-1 is reserved by Noise.
    fn allows(&self, count: usize) -> bool {
        u64::try_from(count).is_ok_and(|count| count <= u64::MAX - self.counter)
    }

    fn take_nonce(&mut self) -> Option<Nonce> {
        let next = self.counter.checked_add(1)?;
        if self.counter > 0 && self.counter.checked_rem(self.per_key) == Some(0) {
            self.renew();
        }
        let nonce = self.cipher.nonce(self.counter);
        self.counter = next;
        Some(nonce)
    }

    /// The next key (Noise specification, sections 4.2 and 11.3).
    fn renew(&mut self) {
        let mut next = Zeroizing::new([0; 32]);
        let reserved = self.cipher.nonce(u64::MAX);
        let _tag = self
            .key
            .seal_in_place_separate_tag(reserved, Aad::empty(), next.as_mut())
            .expect("32 bytes are far below the limits of both ciphers");
        self.key = self.cipher.key(&next);
    }

    /// Opens the Noise messages of a frame in place and moves the pieces together at its front. Returns the length of the
    /// plaintext.
    fn open(&mut self, frame: &mut [u8]) -> Result<usize, OpenError> {
        let (mut read, mut written) = (0, 0);
        while read < frame.len() {
            let end = frame.len().min(read + MAX_NOISE_MESSAGE);
            if end - read < TAG {
                return Err(OpenError::Undecryptable);
            }
            let nonce = self.take_nonce().ok_or(OpenError::Exhausted)?;
            let piece = self
                .key
                .open_within(nonce, Aad::empty(), &mut frame[written..end], read - written..)
                .map_err(|_| OpenError::Undecryptable)?;
            written += piece.len();
            read = end;
        }
        Ok(written)
    }
}

/// Seals messages into frames.
#[derive(Debug)]
pub struct Sealer {
    direction: Direction,
    /// The longest message, in bytes.
    longest: usize,
}

impl Sealer {
    /// `max_frame` is the length of the longest frame that the other side takes, in bytes.
    pub(crate) fn new(key: &[u8; 32], cipher: Cipher, max_frame: usize) -> Sealer {
        Sealer { direction: Direction::new(key, cipher), longest: longest_plaintext(max_frame) }
    }

    /// Takes the next key after so many messages, as the other side does.
    pub(crate) fn renew_key_after(&mut self, messages: u64) {
        self.direction.per_key = messages;
    }

    /// Seals one message, given in parts, and appends its frame to `out`. The parts are copied once, straight to
    /// where they are encrypted.
    ///
    /// # Errors
    ///
    /// [`SealError`]; `out` is then unchanged.
    pub fn seal(&mut self, parts: &[&[u8]], out: &mut BytesMut) -> Result<(), SealError> {
        self.seal_parts(parts.iter().copied(), out)
    }

    /// [`seal`](Self::seal) for parts that are not in a slice.
    ///
    /// # Errors
    ///
    /// [`SealError`]; `out` is then unchanged.
    pub fn seal_parts<'a>(
        &mut self,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
        out: &mut BytesMut,
    ) -> Result<(), SealError> {
        let total = parts.clone().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        if total == 0 {
            return Err(SealError::Empty);
        }
        let too_long = SealError::TooLong { length: total, limit: self.longest };
        let length = frame_length(total);
        let header = u32::try_from(length).ok().filter(|_| total <= self.longest).ok_or(too_long)?;
        if !self.direction.allows(total.div_ceil(MAX_NOISE_PLAINTEXT)) {
            return Err(SealError::Exhausted);
        }
        out.reserve(HEADER + length);
        out.put_u32(header);
        let mut rest = parts.filter(|part| !part.is_empty());
        let mut part = rest.next().unwrap_or_default();
        while !part.is_empty() {
            let start = out.len();
            while !part.is_empty() && out.len() - start < MAX_NOISE_PLAINTEXT {
                let room = MAX_NOISE_PLAINTEXT - (out.len() - start);
                let (now, later) = part.split_at(part.len().min(room));
                out.extend_from_slice(now);
                part = if later.is_empty() { rest.next().unwrap_or_default() } else { later };
            }
            let nonce = self.direction.take_nonce().expect("enough nonces were left before the first piece");
            let tag = self
                .direction
                .key
                .seal_in_place_separate_tag(nonce, Aad::empty(), &mut out[start..])
                .expect("a piece is far below the limits of both ciphers, 64 GiB and more");
            out.extend_from_slice(tag.as_ref());
        }
        Ok(())
    }
}

/// Opens frames.
///
/// Append received bytes to [`buffer`](Self::buffer), then call [`next_message`](Self::next_message) until it
/// returns `None`.
#[derive(Debug)]
pub struct Opener {
    direction: Direction,
    max_frame: usize,
    buffer: BytesMut,
    failed: Option<OpenError>,
}

impl Opener {
    pub(crate) fn new(key: &[u8; 32], cipher: Cipher, max_frame: usize, buffer: BytesMut) -> Opener {
        Opener { direction: Direction::new(key, cipher), max_frame, buffer, failed: None }
    }

    /// Takes the next key after so many messages, as the other side does.
    pub(crate) fn renew_key_after(&mut self, messages: u64) {
        self.direction.per_key = messages;
    }

    /// The bytes received and not yet opened. Append to it.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// How many bytes are missing of the frame at the front; 0 if that frame is complete, or too long, or its
    /// length has not arrived yet. For sizing the next read.
    #[must_use]
    pub fn missing(&self) -> usize {
        match self.announced() {
            Some(length) if length <= self.max_frame => (HEADER + length).saturating_sub(self.buffer.len()),
            _ => 0,
        }
    }

    /// The next message, or `None` if its frame is not complete. Long messages share the buffer's memory.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which is final: every later call returns it again, and nothing is opened any more.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, OpenError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.open_next().inspect_err(|error| {
            self.failed = Some(*error);
            self.buffer = BytesMut::new();
        })
    }

    fn open_next(&mut self) -> Result<Option<Bytes>, OpenError> {
        let Some(length) = self.announced() else { return Ok(None) };
        if length > self.max_frame {
            return Err(OpenError::TooLong { length, limit: self.max_frame });
        }
        if length <= TAG {
            return Err(if length == TAG { OpenError::Empty } else { OpenError::Undecryptable });
        }
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        if length <= COPY_BELOW {
            let plaintext = self.direction.open(&mut self.buffer[HEADER..HEADER + length])?;
            let message = Bytes::copy_from_slice(&self.buffer[HEADER..HEADER + plaintext]);
            self.buffer.advance(HEADER + length);
            return Ok(Some(message));
        }
        let mut frame = self.buffer.split_to(HEADER + length);
        frame.advance(HEADER);
        let plaintext = self.direction.open(&mut frame)?;
        frame.truncate(plaintext);
        Ok(Some(frame.freeze()))
    }

    /// What the frame at the front announces as its length, once that has arrived.
    pub(crate) fn announced(&self) -> Option<usize> {
        let header = self.buffer.first_chunk::<HEADER>()?;
        Some(usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX - HEADER))
    }
}

#[cfg(test)]
mod tests;
