//! Any bytes for the readers of a session.

use std::fmt;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    frame::{self, END_OF_DATA, Frames, Piece},
    message::{self, Answer, Have, Header, Message, Start, Whole},
    state::{Action, Conversation, Violation},
};

/// Messages of the control channel, each with two bytes of length before it.
pub(in crate::transfer) fn messages(mut data: &[u8]) {
    let mut conversation = Conversation::default();
    while let Some((length, rest)) = data.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        data = rest;
        // An error ends the session.
        let Ok(message) = read::<Message>(bytes) else { return };
        match conversation.hear(message) {
            Ok(Some(Action::Decide { offer, items })) => {
                let answer = |(index, _)| Answer { accept: index % 4 != 3, resume: false, reason: None };
                let answers = items.iter().enumerate().map(answer).collect();
                if conversation.decide(offer, answers).is_err() {
                    return;
                }
            }
            Ok(Some(Action::Finish(id))) => drop(conversation.finished(id)),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// What there may be on a file's subchannel, in one direction.
#[derive(Debug, PartialEq)]
enum Read {
    Header(Header),
    Start(Start),
    Have(Have),
    Whole(Whole),
    Data(Vec<u8>),
}

/// One direction of a file's subchannel, of which `data` says how it arrives.
pub(in crate::transfer) fn frames(data: &[u8]) {
    let Some((flags, stream)) = data.split_first() else { return };
    let (resume, answers) = (flags & 1 == 1, flags & 2 == 2);
    let all = |stream, piece| {
        let mut reader = Reader::new(stream, piece);
        let result = reader.all(resume, answers);
        (reader.read, result)
    };
    let (read, result) = all(stream, usize::from(flags >> 2) + 1);
    let (whole, expected) = all(stream, usize::MAX);
    assert_eq!((&read, &result), (&whole, &expected), "the pieces matter");
    if result != Ok(true) {
        return;
    }
    let mut written = Vec::new();
    for part in &read {
        match part {
            Read::Header(message) => frame::push(&mut written, message),
            Read::Start(message) => frame::push(&mut written, message),
            Read::Have(message) => frame::push(&mut written, message),
            Read::Whole(message) => frame::push(&mut written, message),
            Read::Data(data) => {
                if !data.is_empty() {
                    written.extend_from_slice(&frame::prefix(data.len()));
                    written.extend_from_slice(data);
                }
                written.extend_from_slice(&END_OF_DATA);
            }
        }
    }
    assert_eq!(all(&written, 7), (read, Ok(true)));
}

/// Takes a stream that comes in pieces, as [`super::reading::FrameReader`] does.
struct Reader<'a> {
    frames: Frames,
    pieces: std::slice::Chunks<'a, u8>,
    read: Vec<Read>,
}

impl Reader<'_> {
    fn new(stream: &[u8], piece: usize) -> Reader<'_> {
        Reader { frames: Frames::default(), pieces: stream.chunks(piece), read: Vec::new() }
    }

    /// Reads what may come, in its order. Whether it came to its end, with nothing behind it.
    fn all(&mut self, resume: bool, answers: bool) -> Result<bool, Violation> {
        let came = if answers { self.answers(resume)? } else { self.file(resume)? };
        Ok(came.is_some() && self.frames.is_empty() && self.pieces.len() == 0)
    }

    /// What a sender gets back.
    fn answers(&mut self, resume: bool) -> Result<Option<()>, Violation> {
        if resume {
            let Some(have) = self.message()? else { return Ok(None) };
            self.read.push(Read::Have(have));
        }
        let Some(stored) = self.message()? else { return Ok(None) };
        self.read.push(Read::Whole(stored));
        Ok(Some(()))
    }

    fn file(&mut self, resume: bool) -> Result<Option<()>, Violation> {
        let Some(header) = self.message()? else { return Ok(None) };
        self.read.push(Read::Header(header));
        if resume {
            let Some(start) = self.message()? else { return Ok(None) };
            self.read.push(Read::Start(start));
        }
        let mut data = Vec::new();
        let ended = loop {
            match self.frames.data()? {
                Some(Piece::Data(piece)) => {
                    assert!(!piece.is_empty(), "a piece of nothing would read as progress");
                    data.extend_from_slice(&piece);
                }
                Some(Piece::End) => break true,
                None if self.more() => {}
                None => break false,
            }
        };
        self.read.push(Read::Data(data));
        if !ended {
            return Ok(None);
        }
        let Some(whole) = self.message()? else { return Ok(None) };
        self.read.push(Read::Whole(whole));
        Ok(Some(()))
    }

    fn message<T: DeserializeOwned + Serialize + PartialEq + fmt::Debug>(
        &mut self,
    ) -> Result<Option<T>, Violation> {
        loop {
            match self.frames.message()? {
                Some(message) => return read(&message).map(Some),
                None if self.more() => {}
                None => return Ok(None),
            }
        }
    }

    fn more(&mut self) -> bool {
        let piece = self.pieces.next();
        if let Some(piece) = piece {
            self.frames.push(Bytes::copy_from_slice(piece));
        }
        piece.is_some()
    }
}

/// Reads a message, and sees that it means the same when it is written and read again.
fn read<T: DeserializeOwned + Serialize + PartialEq + fmt::Debug>(bytes: &[u8]) -> Result<T, Violation> {
    let message = message::decode(bytes)?;
    assert_eq!(message::decode::<T>(&message::encode(&message)).as_ref(), Ok(&message));
    Ok(message)
}
