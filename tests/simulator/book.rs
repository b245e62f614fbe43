//! What the applications did, so that each can check what it reads of the other.

use std::collections::BTreeMap;

use bytes::Bytes;
use dilated_subchannel::{frame::Code, id::SubchannelId};

/// How a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset(Code),
}

/// A run of what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Stream(u64),
    Message(u64),
}

/// What was done with one direction of a subchannel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Direction {
    pieces: Vec<Piece>,
    /// Bytes in all pieces.
    pub(crate) bytes: u64,
    pub(crate) end: Option<End>,
    /// Its reader gave it up with this code.
    pub(crate) stop: Option<Code>,
    pub(crate) datagrams: u64,
}

impl Direction {
    /// What it comes to in `dilated-1`: a unit for each byte and one for the end of each message.
    pub(crate) fn units(&self) -> u64 {
        self.bytes + self.pieces.iter().filter(|piece| matches!(piece, Piece::Message(_))).count() as u64
    }
}

/// By the subchannel and the side that writes.
#[derive(Debug, Default)]
pub(crate) struct Book(BTreeMap<(u32, usize), Direction>);

impl Book {
    /// The bytes from `offset` on of what `sender` (0 or 1) writes on a subchannel.
    pub(crate) fn content(id: SubchannelId, sender: usize, offset: u64, length: u64) -> Bytes {
        (offset..offset + length).map(|offset| byte(id, sender, offset)).collect()
    }

    pub(crate) fn direction(&self, id: SubchannelId, sender: usize) -> std::borrow::Cow<'_, Direction> {
        match self.0.get(&(id.0, sender)) {
            Some(direction) => std::borrow::Cow::Borrowed(direction),
            None => std::borrow::Cow::Owned(Direction::default()),
        }
    }

    /// Those of a side, with their subchannels.
    pub(crate) fn directions(&self, sender: usize) -> impl Iterator<Item = (SubchannelId, &Direction)> {
        self.0.iter().filter(move |((_, of), _)| *of == sender).map(|((id, _), d)| (SubchannelId(*id), d))
    }

    pub(crate) fn wrote(&mut self, id: SubchannelId, sender: usize, length: u64) {
        let direction = self.0.entry((id.0, sender)).or_default();
        direction.bytes += length;
        match direction.pieces.last_mut() {
            Some(Piece::Stream(n)) => *n += length,
            _ if length > 0 => direction.pieces.push(Piece::Stream(length)),
            _ => {}
        }
    }

    pub(crate) fn sent(&mut self, id: SubchannelId, sender: usize, length: u64) {
        let direction = self.0.entry((id.0, sender)).or_default();
        direction.bytes += length;
        direction.pieces.push(Piece::Message(length));
    }

    pub(crate) fn sent_datagram(&mut self, id: SubchannelId, sender: usize) {
        self.0.entry((id.0, sender)).or_default().datagrams += 1;
    }

    pub(crate) fn end(&mut self, id: SubchannelId, sender: usize, end: End) {
        self.0.entry((id.0, sender)).or_default().end.get_or_insert(end);
    }

    pub(crate) fn stop(&mut self, id: SubchannelId, sender: usize, code: Code) {
        self.0.entry((id.0, sender)).or_default().stop.get_or_insert(code);
    }
}

fn byte(id: SubchannelId, sender: usize, offset: u64) -> u8 {
    let mixed = (offset + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(id.0) << 8 | sender as u64);
    (mixed.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 56) as u8
}

/// How a subchannel is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As a stream: the ends of messages do not show.
    Bytes,
    /// Message by message: each has to come whole.
    Messages,
    /// Both: what a message has left after it was read from is not said exactly, so only bytes are compared.
    Mixed,
}

/// How far a subchannel was read.
#[derive(Debug)]
pub(crate) struct Cursor {
    mode: Mode,
    bytes: u64,
    /// The piece, and how many bytes of it; in [`Mode::Messages`].
    piece: usize,
    done: u64,
}

impl Cursor {
    pub(crate) fn new(mode: Mode) -> Cursor {
        Cursor { mode, bytes: 0, piece: 0, done: 0 }
    }

    /// Bytes that were read.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    /// Compares what was read, `whole` by asking for a message.
    pub(crate) fn take(
        &mut self,
        bytes: &Bytes,
        whole: bool,
        id: SubchannelId,
        sender: usize,
        written: &Direction,
    ) {
        for (n, got) in (self.bytes..).zip(bytes.iter()) {
            assert!(n < written.bytes, "more came on subchannel {id} than was written");
            assert_eq!(*got, byte(id, sender, n), "byte {n} of subchannel {id} is wrong");
        }
        self.bytes += bytes.len() as u64;
        if self.mode == Mode::Messages {
            self.take_piece(bytes.len() as u64, id, written);
        } else {
            assert!(whole || !bytes.is_empty(), "nothing was read, and it is not the end");
        }
    }

    fn take_piece(&mut self, length: u64, id: SubchannelId, written: &Direction) {
        loop {
            match written.pieces.get(self.piece) {
                Some(Piece::Stream(all)) if *all == self.done => {
                    (self.piece, self.done) = (self.piece + 1, 0);
                }
                Some(Piece::Stream(all)) => {
                    assert!(length > 0 && self.done + length <= *all, "{length} bytes of subchannel {id}");
                    self.done += length;
                    return;
                }
                Some(Piece::Message(all)) => {
                    assert_eq!(*all, length, "the length of message {} of subchannel {id}", self.piece);
                    self.piece += 1;
                    return;
                }
                None => panic!("a message came on subchannel {id} that was not sent"),
            }
        }
    }

    /// Everything has to be read when the end comes.
    pub(crate) fn check_end(&self, written: &Direction, id: SubchannelId) {
        assert_eq!(self.bytes, written.bytes, "subchannel {id} ended too early");
        if self.mode == Mode::Messages {
            let rest = written.pieces.get(self.piece..).unwrap_or_default();
            let all = matches!(rest, [] | [Piece::Stream(_)]);
            assert!(all, "of subchannel {id} messages are missing: {rest:?}");
        }
    }
}
