//! The bytes of a file's subchannel: frames, each with its length before it.

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;

use super::{
    message::{self, MAX_MESSAGE},
    state::Violation,
};

/// Bytes of the length before each frame.
pub(super) const PREFIX: usize = 4;

/// The most bytes of one data frame.
pub(super) const MAX_DATA: usize = 1 << 20;

/// The frame that ends the data.
pub(super) const END_OF_DATA: [u8; PREFIX] = [0; PREFIX];

/// Appends `message` as a frame.
pub(super) fn push(frames: &mut Vec<u8>, message: &impl Serialize) {
    let message = message::encode(message);
    frames.extend_from_slice(&prefix(message.len()));
    frames.extend_from_slice(&message);
}

/// The length before a frame.
pub(super) fn prefix(length: usize) -> [u8; PREFIX] {
    u32::try_from(length).expect("frames are short").to_be_bytes()
}

/// A piece of the data.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Data(Bytes),
    End,
}

/// Takes a stream apart that comes in chunks of any length. What is asked for determines how the next frame is read.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// What has come and was not asked for.
    chunk: Bytes,
    /// The beginning of a prefix or message that has not come whole.
    part: BytesMut,
    /// Bytes of the current data frame that are still to come.
    left: usize,
}

impl Frames {
    /// Adds what has come next. Only when there was nothing to give.
    pub(super) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "a chunk is taken apart before the next one");
        self.chunk = chunk;
    }

    /// The next frame as a message, `None` while it is not whole.
    pub(super) fn message(&mut self) -> Result<Option<Bytes>, Violation> {
        let Some(length) = self.length(MAX_MESSAGE)? else { return Ok(None) };
        if !self.gather(PREFIX + length) {
            return Ok(None);
        }
        let mut frame = self.part.split().freeze();
        frame.advance(PREFIX);
        Ok(Some(frame))
    }

    /// The next piece of data, without a copy, `None` while there is none.
    pub(super) fn data(&mut self) -> Result<Option<Piece>, Violation> {
        if self.left == 0 {
            match self.length(MAX_DATA)? {
                None => return Ok(None),
                Some(0) => {
                    self.part.clear();
                    return Ok(Some(Piece::End));
                }
                Some(length) => {
                    self.part.clear();
                    self.left = length;
                }
            }
        }
        if self.chunk.is_empty() {
            return Ok(None);
        }
        let data = self.chunk.split_to(self.left.min(self.chunk.len()));
        self.left -= data.len();
        Ok(Some(Piece::Data(data)))
    }

    /// Whether everything that came was asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.chunk.is_empty() && self.part.is_empty() && self.left == 0
    }

    /// The length of the frame that begins here.
    fn length(&mut self, limit: usize) -> Result<Option<usize>, Violation> {
        if !self.gather(PREFIX) {
            return Ok(None);
        }
        let length = (&self.part[..PREFIX]).get_u32() as usize;
        if length > limit {
            return Err(Violation::new(format!("a frame of {length} bytes")));
        }
        Ok(Some(length))
    }

    /// Moves bytes to `part` until it has `wanted`.
    fn gather(&mut self, wanted: usize) -> bool {
        let missing = wanted.saturating_sub(self.part.len()).min(self.chunk.len());
        self.part.extend_from_slice(&self.chunk.split_to(missing));
        self.part.len() >= wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::session::message::{Start, decode};

    /// Reads a message, then data to their end, then a message, given chunks of `size` bytes.
    fn read(stream: &[u8], size: usize) -> Result<(Bytes, Vec<u8>, Bytes), Violation> {
        let (mut frames, mut chunks) = (Frames::default(), stream.chunks(size));
        let mut more = |frames: &mut Frames| {
            frames.push(Bytes::copy_from_slice(chunks.next().expect("it ends before the stream")));
        };
        let first = loop {
            match frames.message()? {
                Some(first) => break first,
                None => more(&mut frames),
            }
        };
        let mut data = Vec::new();
        loop {
            match frames.data()? {
                Some(Piece::Data(piece)) => data.extend_from_slice(&piece),
                Some(Piece::End) => break,
                None => more(&mut frames),
            }
        }
        let last = loop {
            match frames.message()? {
                Some(last) => break last,
                None => more(&mut frames),
            }
        };
        assert!(frames.is_empty());
        Ok((first, data, last))
    }

    #[test]
    fn frames_survive_any_chunks() {
        let mut stream = Vec::new();
        push(&mut stream, &Start { offset: 5 });
        for length in [1, 3, 2000] {
            stream.extend_from_slice(&prefix(length));
            stream.resize(stream.len() + length, 7);
        }
        stream.extend_from_slice(&END_OF_DATA);
        push(&mut stream, &Start { offset: 6 });
        for size in [1, 2, 3, 4, 5, 7, 64, 1999, stream.len()] {
            let (first, data, last) = read(&stream, size).unwrap();
            assert_eq!(decode::<Start>(&first).unwrap().offset, 5);
            assert_eq!(data, vec![7; 2004]);
            assert_eq!(decode::<Start>(&last).unwrap().offset, 6);
        }
    }

    #[test]
    fn long_frames_are_refused_before_they_come() {
        let mut frames = Frames::default();
        frames.push(Bytes::from(prefix(MAX_MESSAGE + 1).to_vec()));
        assert!(frames.message().is_err());
        let mut frames = Frames::default();
        frames.push(Bytes::from_static(&[0xff; 4]));
        assert!(frames.data().is_err());
    }
}
