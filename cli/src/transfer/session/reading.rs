//! Frames from a file's subchannel.

use std::io;

use bytes::Bytes;
use dilated::ReadHalf;
use futures::FutureExt;
use serde::de::DeserializeOwned;

use super::{
    frame::{Frames, Piece},
    message,
    state::Violation,
};

/// Why there is no frame.
#[derive(Debug)]
pub(super) enum ReadFault {
    /// The other side gave it up, or the wormhole ended.
    Lost(io::Error),
    /// The other side ended it too early: perhaps because it gives the session up.
    Cut,
    Wrong(Violation),
}

impl From<Violation> for ReadFault {
    fn from(violation: Violation) -> ReadFault {
        ReadFault::Wrong(violation)
    }
}

/// One direction of a file's subchannel.
#[derive(Debug)]
pub(super) struct FrameReader {
    read: ReadHalf,
    frames: Frames,
    /// The data have ended.
    ended: bool,
}

impl FrameReader {
    pub(super) fn new(read: ReadHalf) -> FrameReader {
        FrameReader { read, frames: Frames::default(), ended: false }
    }

    /// The next frame, which is a message.
    pub(super) async fn message<T: DeserializeOwned>(&mut self) -> Result<T, ReadFault> {
        loop {
            if let Some(message) = self.frames.message()? {
                return Ok(message::decode(&message)?);
            }
            self.more().await?;
        }
    }

    /// What is there of the data, at least one piece, and its length; `None` at their end. No more than `most` bytes and a
    /// piece.
    pub(super) async fn data(&mut self, most: u64) -> Result<Option<(Vec<Bytes>, u64)>, ReadFault> {
        let (mut batch, mut length) = (Vec::new(), 0);
        while !self.ended && length < most {
            match self.frames.data()? {
                Some(Piece::Data(data)) => {
                    length += data.len() as u64;
                    batch.push(data);
                }
                Some(Piece::End) => self.ended = true,
                None if batch.is_empty() => self.more().await?,
                None => match self.more().now_or_never() {
                    Some(Ok(())) => {}
                    // What is wrong will be so again, when there is nothing to give before it.
                    Some(Err(_)) | None => break,
                },
            }
        }
        Ok((!batch.is_empty()).then_some((batch, length)))
    }

    /// Reads the end of the direction, behind which nothing may come.
    pub(super) async fn end(mut self) -> Result<(), ReadFault> {
        let next = self.read.read_chunk().await.map_err(|e| ReadFault::Lost(e.into()))?;
        if next.is_some() || !self.frames.is_empty() {
            return Err(Violation::new("a subchannel goes on after its last frame").into());
        }
        Ok(())
    }

    async fn more(&mut self) -> Result<(), ReadFault> {
        match self.read.read_chunk().await {
            Ok(Some(chunk)) => {
                self.frames.push(chunk);
                Ok(())
            }
            Ok(None) => Err(ReadFault::Cut),
            Err(error) => Err(ReadFault::Lost(error.into())),
        }
    }
}
