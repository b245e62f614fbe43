//! The frames of the dialect `dilated-1`, as they are inside the encrypted records of a link.
//!
//! The plaintext of a record is a run of frames. [`Frames`] takes it apart without copying payload;
//! [`Frame::encode`] is the inverse. Everything here is checked against `docs/protocol.md`, "Frames": the types, the
//! lengths, the numbers of subchannels, the names. Whether a frame makes sense is decided by
//! [`mux::dilated1`](crate::mux::dilated1).

mod codes;
mod decode;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;

pub use self::{
    codes::{Code, Violation},
    decode::Frames,
};
use crate::{id::SubchannelId, record::Name};

/// The most bytes of plaintext in a record: a Noise message without its tag.
pub const MAX_PLAINTEXT: usize = 65_519;

/// The longest reason of GOODBYE in bytes; a longer one is cut.
pub const MAX_REASON: usize = 1024;

/// The greatest number that a varint can say.
pub const MAX_VARINT: u64 = (1 << 62) - 1;

mod kind {
    pub(super) const PADDING: u8 = 0x00;
    pub(super) const PING: u8 = 0x01;
    pub(super) const PONG: u8 = 0x02;
    pub(super) const RESUME: u8 = 0x03;
    pub(super) const OPEN: u8 = 0x04;
    pub(super) const CREDIT: u8 = 0x05;
    pub(super) const LINK_CREDIT: u8 = 0x06;
    pub(super) const MAX_SUBCHANNELS: u8 = 0x07;
    pub(super) const RESET: u8 = 0x08;
    pub(super) const STOP: u8 = 0x09;
    pub(super) const REFUSE: u8 = 0x0a;
    pub(super) const DATAGRAM: u8 = 0x0b;
    pub(super) const GOODBYE: u8 = 0x0c;
    pub(super) const DATA: u8 = 0x10;
    pub(super) const DATA_LAST: u8 = 0x15;
}

/// What the bytes of a DATA frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Bytes of a stream.
    Stream,
    /// Part of a message that goes on.
    More,
    /// A message, or its last part.
    End,
}

impl Mark {
    fn bits(self) -> u8 {
        match self {
            Mark::Stream => 0,
            Mark::More => 1,
            Mark::End => 2,
        }
    }
}

/// How far a subchannel has been received, and up to where the peer may send: CREDIT, and an entry of RESUME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The subchannel; 0 is the control channel.
    pub id: SubchannelId,
    /// Units that the receiver has taken responsibility for.
    pub received: u64,
    /// The offset up to which the peer may send, in units.
    pub limit: u64,
}

/// One frame. `Debug` shows the length of payload, never its bytes.
#[derive(Clone, PartialEq, Eq)]
pub enum Frame {
    /// Nothing, one byte of it.
    Padding,
    /// Asks for a PONG with the same number.
    Ping(u64),
    /// The answer to a PING.
    Pong(u64),
    /// What has been received on each subchannel that lives: the first frame of an activation.
    Resume {
        /// The number of the activation.
        epoch: u64,
        /// The list goes on in another frame.
        more: bool,
        /// The list, or a part of it.
        entries: Vec<Received>,
    },
    /// Opens a subchannel.
    Open {
        /// Its number.
        id: SubchannelId,
        /// The units that the opener takes on it.
        limit: u64,
        /// 0 (first) to 7.
        priority: u8,
        /// The subprotocol.
        name: Name,
    },
    /// Acknowledges, and allows more.
    Credit(Received),
    /// The sum of units up to which the peer may send on all subchannels but the control channel.
    LinkCredit(u64),
    /// How many subchannels the peer may open in the life of the wormhole.
    MaxSubchannels(u64),
    /// The writer gives up.
    Reset {
        /// The subchannel.
        id: SubchannelId,
        /// Why.
        code: u64,
        /// The units that were ever sent, the end not counted.
        final_offset: u64,
    },
    /// The reader gives up.
    Stop {
        /// The subchannel.
        id: SubchannelId,
        /// Why.
        code: u64,
    },
    /// The answer to an OPEN that is not taken.
    Refuse {
        /// The subchannel.
        id: SubchannelId,
        /// Why.
        code: u64,
    },
    /// Arrives once or not at all.
    Datagram {
        /// The subchannel.
        id: SubchannelId,
        /// The payload.
        data: Bytes,
    },
    /// The sender ends the wormhole.
    Goodbye {
        /// Why: see [`Violation`].
        code: u64,
        /// A sentence for people, at most [`MAX_REASON`] bytes.
        reason: String,
    },
    /// A piece of a subchannel.
    Data {
        /// The subchannel.
        id: SubchannelId,
        /// The unit that it begins with.
        offset: u64,
        /// What the bytes are.
        mark: Mark,
        /// Nothing follows.
        fin: bool,
        /// The payload.
        data: Bytes,
    },
}

impl Frame {
    /// How many bytes [`encode`](Frame::encode) appends.
    pub fn encoded_len(&self) -> usize {
        1 + match self {
            Frame::Padding => 0,
            Frame::Ping(n) | Frame::Pong(n) | Frame::LinkCredit(n) | Frame::MaxSubchannels(n) => {
                varint_len(*n)
            }
            Frame::Resume { epoch, entries, .. } => {
                varint_len(*epoch)
                    + 1
                    + varint_len(entries.len() as u64)
                    + entries.iter().map(Received::encoded_len).sum::<usize>()
            }
            Frame::Open { id, limit, priority, name } => {
                id_len(*id) + varint_len(*limit) + varint_len((*priority).into()) + text_len(name)
            }
            Frame::Credit(credit) => credit.encoded_len(),
            Frame::Reset { id, code, final_offset } => {
                id_len(*id) + varint_len(*code) + varint_len(*final_offset)
            }
            Frame::Stop { id, code } | Frame::Refuse { id, code } => id_len(*id) + varint_len(*code),
            Frame::Datagram { id, data } => id_len(*id) + varint_len(data.len() as u64) + data.len(),
            Frame::Goodbye { code, reason } => varint_len(*code) + text_len(cut(reason)),
            Frame::Data { id, offset, data, .. } => {
                id_len(*id) + varint_len(*offset) + varint_len(data.len() as u64) + data.len()
            }
        }
    }

    /// Appends the frame. Numbers above [`MAX_VARINT`] cannot be said: they become that.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Padding => out.push(kind::PADDING),
            Frame::Ping(id) => put_number(out, kind::PING, *id),
            Frame::Pong(id) => put_number(out, kind::PONG, *id),
            Frame::Resume { epoch, more, entries } => {
                put_number(out, kind::RESUME, *epoch);
                out.push(u8::from(*more));
                put_varint(out, entries.len() as u64);
                for entry in entries {
                    entry.put(out);
                }
            }
            Frame::Open { id, limit, priority, name } => {
                put_number(out, kind::OPEN, id.0.into());
                put_varint(out, *limit);
                put_varint(out, (*priority).into());
                put_text(out, name);
            }
            Frame::Credit(credit) => credit.encode(out),
            Frame::LinkCredit(limit) => put_number(out, kind::LINK_CREDIT, *limit),
            Frame::MaxSubchannels(count) => put_number(out, kind::MAX_SUBCHANNELS, *count),
            Frame::Reset { id, code, final_offset } => {
                put_number(out, kind::RESET, id.0.into());
                put_varint(out, *code);
                put_varint(out, *final_offset);
            }
            Frame::Stop { id, code } => {
                put_number(out, kind::STOP, id.0.into());
                put_varint(out, *code);
            }
            Frame::Refuse { id, code } => {
                put_number(out, kind::REFUSE, id.0.into());
                put_varint(out, *code);
            }
            Frame::Datagram { id, data } => {
                DatagramHeader { id: *id, len: data.len() }.encode(out);
                out.extend_from_slice(data);
            }
            Frame::Goodbye { code, reason } => {
                put_number(out, kind::GOODBYE, *code);
                put_text(out, cut(reason));
            }
            Frame::Data { id, offset, mark, fin, data } => {
                DataHeader { id: *id, offset: *offset, mark: *mark, fin: *fin, len: data.len() }.encode(out);
                out.extend_from_slice(data);
            }
        }
    }

    /// RESUME with any number of entries, cut so that each frame fits into a record of its own.
    pub fn resume(epoch: u64, entries: &[Received]) -> Vec<Frame> {
        // The fields before the entries at their longest.
        const ROOM: usize = MAX_PLAINTEXT - 1 - 8 - 1 - 8;
        let mut frames = Vec::new();
        let mut part = Vec::new();
        let mut len = 0;
        for entry in entries {
            len += entry.encoded_len();
            if len > ROOM {
                frames.push(Frame::Resume { epoch, more: true, entries: std::mem::take(&mut part) });
                len = entry.encoded_len();
            }
            part.push(*entry);
        }
        frames.push(Frame::Resume { epoch, more: false, entries: part });
        frames
    }
}

impl Received {
    fn encoded_len(&self) -> usize {
        id_len(self.id) + varint_len(self.received) + varint_len(self.limit)
    }

    /// Appends it as CREDIT.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(kind::CREDIT);
        self.put(out);
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.id.0.into());
        put_varint(out, self.received);
        put_varint(out, self.limit);
    }
}

/// DATA without its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DataHeader {
    pub(crate) id: SubchannelId,
    pub(crate) offset: u64,
    pub(crate) mark: Mark,
    pub(crate) fin: bool,
    pub(crate) len: usize,
}

impl DataHeader {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, kind::DATA + self.mark.bits() * 2 + u8::from(self.fin), self.id.0.into());
        put_varint(out, self.offset);
        put_varint(out, self.len as u64);
    }

    /// The bytes before the length.
    pub(crate) fn fixed_len(id: SubchannelId, offset: u64) -> usize {
        1 + id_len(id) + varint_len(offset)
    }
}

/// DATAGRAM without its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DatagramHeader {
    pub(crate) id: SubchannelId,
    pub(crate) len: usize,
}

impl DatagramHeader {
    /// The bytes of the longest one.
    pub(crate) const MAX: usize = 1 + 8 + 4;

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, kind::DATAGRAM, self.id.0.into());
        put_varint(out, self.len as u64);
    }
}

/// The most payload that fits, with the varint of its length, into `room` bytes.
pub(crate) fn payload_room(room: usize) -> usize {
    match room {
        0 => 0,
        1..=64 => room - 1,
        65..=16_385 => (room - 2).min(16_383),
        _ => room - 4,
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Frame::Padding => f.write_str("Padding"),
            Frame::Ping(id) => write!(f, "Ping({id})"),
            Frame::Pong(id) => write!(f, "Pong({id})"),
            Frame::Resume { epoch, more, entries } => {
                write!(f, "Resume {{ epoch: {epoch}, more: {more}, entries: {entries:?} }}")
            }
            Frame::Open { id, limit, priority, name } => {
                write!(f, "Open {{ id: {id}, limit: {limit}, priority: {priority}, name: {name:?} }}")
            }
            Frame::Credit(Received { id, received, limit }) => {
                write!(f, "Credit {{ id: {id}, received: {received}, limit: {limit} }}")
            }
            Frame::LinkCredit(limit) => write!(f, "LinkCredit({limit})"),
            Frame::MaxSubchannels(count) => write!(f, "MaxSubchannels({count})"),
            Frame::Reset { id, code, final_offset } => {
                write!(f, "Reset {{ id: {id}, code: {code}, final_offset: {final_offset} }}")
            }
            Frame::Stop { id, code } => write!(f, "Stop {{ id: {id}, code: {code} }}"),
            Frame::Refuse { id, code } => write!(f, "Refuse {{ id: {id}, code: {code} }}"),
            Frame::Datagram { id, data } => write!(f, "Datagram {{ id: {id}, len: {} }}", data.len()),
            Frame::Goodbye { code, reason } => write!(f, "Goodbye {{ code: {code}, reason: {reason:?} }}"),
            Frame::Data { id, offset, mark, fin, data } => write!(
                f,
                "Data {{ id: {id}, offset: {offset}, mark: {mark:?}, fin: {fin}, len: {} }}",
                data.len()
            ),
        }
    }
}

/// The part of a reason that may be sent.
fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(MAX_REASON)]
}

fn id_len(id: SubchannelId) -> usize {
    varint_len(id.0.into())
}

fn text_len(text: &str) -> usize {
    varint_len(text.len() as u64) + text.len()
}

fn varint_len(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

fn put_varint(out: &mut Vec<u8>, value: u64) {
    let value = value.min(MAX_VARINT);
    let bytes = value.to_be_bytes();
    match varint_len(value) {
        1 => out.push(bytes[7]),
        2 => out.extend_from_slice(&[bytes[6] | 0x40, bytes[7]]),
        4 => out.extend_from_slice(&[bytes[4] | 0x80, bytes[5], bytes[6], bytes[7]]),
        _ => {
            let at = out.len();
            out.extend_from_slice(&bytes);
            out[at] |= 0xc0;
        }
    }
}

fn put_number(out: &mut Vec<u8>, kind: u8, value: u64) {
    out.push(kind);
    put_varint(out, value);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}
