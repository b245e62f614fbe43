//! The encrypted pipe of a link: messages become frames and frames become messages, in place on whole buffers.
//!
//! ```text
//! frame   = BE4 length ‖ Noise message ‖ Noise message ...
//! message = up to 65,519 bytes of plaintext, ChaCha20-Poly1305 with an empty AD, 16 bytes of tag
//! nonce   = 4 zero bytes ‖ counter as 8 bytes, little-endian, from 0, one per direction
//! ```
//!
//! A plaintext longer than one Noise message is cut, and all pieces share one frame (specification `ged`, section
//! "L2 protocol").

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use thiserror::Error;

/// Most plaintext in one Noise message, in bytes.
pub const MAX_NOISE_PLAINTEXT: usize = 65_519;

/// Longest Noise message, in bytes.
pub const MAX_NOISE_MESSAGE: usize = MAX_NOISE_PLAINTEXT + TAG;

/// Default limit on the length of a received frame: the frame of a 16 MiB DATA record.
pub const DEFAULT_MAX_FRAME: usize = frame_length(16 * 1024 * 1024 + 9);

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

/// Why a message could not be sealed. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// The message is empty, which would make the other side drop the link.
    #[error("an empty message cannot be sent on a link")]
    Empty,
    /// The message does not fit a frame, whose length is a 32-bit number.
    #[error("a message of {0} bytes does not fit a frame; send less than 4 GiB at once")]
    TooLong(usize),
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

/// The counter of one direction. A value is used up when it is taken, before any I/O, so that no cancelled write
/// can use one twice.
#[derive(Debug)]
struct Counter(u64);

impl Counter {
    /// Whether `count` more nonces may be used. 2^64-1 is reserved by Noise.
    fn allows(&self, count: usize) -> bool {
        u64::try_from(count).is_ok_and(|count| count <= u64::MAX - self.0)
    }

    fn take(&mut self) -> Option<Nonce> {
        let next = self.0.checked_add(1)?;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.0.to_le_bytes());
        self.0 = next;
        Some(Nonce::assume_unique_for_key(nonce))
    }
}

fn aead(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes are a ChaCha20-Poly1305 key"))
}

/// Seals messages into frames.
#[derive(Debug)]
pub struct Sealer {
    key: LessSafeKey,
    counter: Counter,
}

impl Sealer {
    pub(crate) fn new(key: &[u8; 32]) -> Sealer {
        Sealer { key: aead(key), counter: Counter(0) }
    }

    /// Seals one message, given in parts, and appends its frame to `out`. The parts are copied once, straight to
    /// where they are encrypted.
    ///
    /// # Errors
    ///
    /// [`SealError`]; `out` is then unchanged.
    pub fn seal(&mut self, parts: &[&[u8]], out: &mut BytesMut) -> Result<(), SealError> {
        let total = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        if total == 0 {
            return Err(SealError::Empty);
        }
        let length = frame_length(total);
        let header = u32::try_from(length).map_err(|_| SealError::TooLong(total))?;
        if !self.counter.allows(total.div_ceil(MAX_NOISE_PLAINTEXT)) {
            return Err(SealError::Exhausted);
        }
        out.reserve(HEADER + length);
        out.put_u32(header);
        let mut rest = parts.iter().copied().filter(|part| !part.is_empty());
        let mut part = rest.next().unwrap_or_default();
        while !part.is_empty() {
            let start = out.len();
            while !part.is_empty() && out.len() - start < MAX_NOISE_PLAINTEXT {
                let room = MAX_NOISE_PLAINTEXT - (out.len() - start);
                let (now, later) = part.split_at(part.len().min(room));
                out.extend_from_slice(now);
                part = if later.is_empty() { rest.next().unwrap_or_default() } else { later };
            }
            let nonce = self.counter.take().expect("enough nonces were left before the first piece");
            let tag = self
                .key
                .seal_in_place_separate_tag(nonce, Aad::empty(), &mut out[start..])
                .expect("a piece is far below ChaCha20's limit of 256 GiB");
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
    key: LessSafeKey,
    counter: Counter,
    max_frame: usize,
    buffer: BytesMut,
    failed: Option<OpenError>,
}

impl Opener {
    pub(crate) fn new(key: &[u8; 32], max_frame: usize, buffer: BytesMut) -> Opener {
        Opener { key: aead(key), counter: Counter(0), max_frame, buffer, failed: None }
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
            let plaintext = open(&self.key, &mut self.counter, &mut self.buffer[HEADER..HEADER + length])?;
            let message = Bytes::copy_from_slice(&self.buffer[HEADER..HEADER + plaintext]);
            self.buffer.advance(HEADER + length);
            return Ok(Some(message));
        }
        let mut frame = self.buffer.split_to(HEADER + length);
        frame.advance(HEADER);
        let plaintext = open(&self.key, &mut self.counter, &mut frame)?;
        frame.truncate(plaintext);
        Ok(Some(frame.freeze()))
    }

    /// What the frame at the front announces as its length, once that has arrived.
    pub(crate) fn announced(&self) -> Option<usize> {
        let header = self.buffer.first_chunk::<HEADER>()?;
        Some(usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX - HEADER))
    }
}

/// Opens the Noise messages of a frame in place and moves the pieces together at its front. Returns the length of
/// the plaintext.
fn open(key: &LessSafeKey, counter: &mut Counter, frame: &mut [u8]) -> Result<usize, OpenError> {
    let (mut read, mut written) = (0, 0);
    while read < frame.len() {
        let end = frame.len().min(read + MAX_NOISE_MESSAGE);
        if end - read < TAG {
            return Err(OpenError::Undecryptable);
        }
        let nonce = counter.take().ok_or(OpenError::Exhausted)?;
        let piece = key
            .open_within(nonce, Aad::empty(), &mut frame[written..end], read - written..)
            .map_err(|_| OpenError::Undecryptable)?;
        written += piece.len();
        read = end;
    }
    Ok(written)
}

#[cfg(test)]
mod tests;
