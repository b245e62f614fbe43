//! The records of the dilation dialect `ged`, as they are inside the encrypted frames of a link.
//!
//! Dilation protocol, "L3 records" (numbers as in the released Python code, not as in the older text):
//!
//! ```text
//! 00 KCM                              04 DATA   id(4) seq(4) bytes
//! 01 PING  up to 4 bytes              05 CLOSE  id(4) seq(4)
//! 02 PONG  the same bytes             06 ACK    seq(4)
//! 03 OPEN  id(4) seq(4) name (UTF-8)            integers are big-endian
//! ```
//!
//! [`Record::decode`] takes a plaintext apart without copying the payload. To encode, seal
//! [`Record::header`] followed by [`Record::body`]: nothing has to be joined first.

use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

use bytes::{Buf, Bytes};

use crate::id::{SeqNum, SubchannelId};

/// The longest subprotocol name that [`Record::decode`] accepts, in bytes. Stops a peer from making
/// us keep megabytes per OPEN; [`MuxConfig::max_name`](crate::mux::MuxConfig::max_name) is the lower
/// limit of what is ever listened for.
pub const MAX_NAME_LEN: usize = 4096;

/// The most stream bytes in one DATA of a subchannel that others wait behind. A power of two, so that writes of the usual sizes leave no small remainder: that would
/// be a DATA of its own, with an ACK of its own. That the last few bytes of a full one need a second Noise message costs
/// less.
pub const MAX_CHUNK: usize = 64 * 1024;

/// The most stream bytes in one DATA of a subchannel that nobody waits behind. A Python peer decodes, dispatches and
/// acknowledges each, which takes as long for a short one; of those that are longer than this it copies more than that
/// saves.
pub const MAX_CHUNK_ALONE: usize = 2 * MAX_CHUNK;

const KCM: u8 = 0;
const PING: u8 = 1;
const PONG: u8 = 2;
const OPEN: u8 = 3;
const DATA: u8 = 4;
const CLOSE: u8 = 5;
const ACK: u8 = 6;

/// The name of a subprotocol: cheap to clone, ordered, a `str` in all but type.
///
/// A name of a peer is untrusted text: escape it before it reaches a terminal (`{:?}` does).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Name(name.into())
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a PING carries and its PONG returns: four bytes. A peer's shorter one is kept as it is, so
/// that it can be echoed; bytes past the fourth are dropped (as the Python peer does).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PingId {
    bytes: [u8; 4],
    len: u8,
}

impl PingId {
    /// A ping of ours.
    pub fn new(bytes: [u8; 4]) -> Self {
        PingId { bytes, len: 4 }
    }

    /// What goes on the wire, at most four bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn from_wire(body: &[u8]) -> Self {
        let mut id = PingId { bytes: [0; 4], len: 0 };
        for (to, from) in id.bytes.iter_mut().zip(body) {
            *to = *from;
            id.len += 1;
        }
        id
    }
}

impl From<[u8; 4]> for PingId {
    fn from(bytes: [u8; 4]) -> Self {
        PingId::new(bytes)
    }
}

impl fmt::Debug for PingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PingId(")?;
        for byte in self.as_bytes() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

/// One record. `Debug` shows the length of DATA, never its bytes.
#[derive(Clone, PartialEq, Eq)]
pub enum Record {
    /// Key confirmation, the first record of a link in each direction.
    Kcm,
    /// Asks for a PONG with the same bytes.
    Ping(PingId),
    /// The answer to a PING.
    Pong(PingId),
    /// A new subchannel. DATA may follow at once; there is no answer.
    Open {
        /// The identifier that the opener has chosen.
        id: SubchannelId,
        /// Its place in the direction's sequence.
        seq: SeqNum,
        /// What will be spoken.
        subprotocol: Name,
    },
    /// Bytes of a subchannel.
    Data {
        /// The subchannel.
        id: SubchannelId,
        /// Its place in the direction's sequence.
        seq: SeqNum,
        /// The payload, possibly empty.
        data: Bytes,
    },
    /// The end of one direction of a subchannel.
    Close {
        /// The subchannel.
        id: SubchannelId,
        /// Its place in the direction's sequence.
        seq: SeqNum,
    },
    /// Everything up to and including this number was accepted.
    Ack {
        /// The highest number accepted.
        seq: SeqNum,
    },
}

/// Why a plaintext is not a record. The link that carried it is broken or hostile: drop it. A peer
/// that resends the same bytes on the next link will fail again, so do not reconnect for ever.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// An empty plaintext.
    #[error("the peer sent an empty record; every record starts with a type byte")]
    Empty,
    /// A first byte above 6.
    #[error("the peer sent a record of unknown type {0}; it may speak a newer dialect")]
    UnknownType(u8),
    /// Fewer bytes than the type needs.
    #[error("the peer sent a truncated {kind} record of {len} bytes, {need} are needed")]
    Truncated {
        /// The name of the record's type.
        kind: &'static str,
        /// Bytes received, with the type byte.
        len: usize,
        /// Bytes of the shortest valid one.
        need: usize,
    },
    /// A subprotocol name that is not text.
    #[error("the peer opened a subchannel whose name is not UTF-8")]
    NameNotUtf8,
    /// A subprotocol name above [`MAX_NAME_LEN`].
    #[error("the peer opened a subchannel with a name of {len} bytes, the limit is {MAX_NAME_LEN}")]
    NameTooLong {
        /// Its length in bytes.
        len: usize,
    },
}

/// The part of a record before [`Record::body`], at most nine bytes, on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    bytes: [u8; 9],
    len: u8,
}

impl RecordHeader {
    fn new(kind: u8) -> Self {
        let mut bytes = [0; 9];
        bytes[0] = kind;
        RecordHeader { bytes, len: 1 }
    }

    fn push(mut self, part: &[u8]) -> Self {
        for byte in part {
            self.bytes[usize::from(self.len)] = *byte;
            self.len += 1;
        }
        self
    }

    fn sequenced(kind: u8, id: SubchannelId, seq: SeqNum) -> Self {
        RecordHeader::new(kind).push(&id.0.to_be_bytes()).push(&seq.0.to_be_bytes())
    }
}

impl AsRef<[u8]> for RecordHeader {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Deref for RecordHeader {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.as_ref()
    }
}

impl Record {
    /// Takes a plaintext apart. DATA shares the memory of `plaintext`; a name is copied, so that a long
    /// lived subchannel does not hold on to a read buffer.
    ///
    /// As tolerant as the Python peer: bytes after KCM, CLOSE and ACK are ignored, a PING or PONG is cut
    /// to four bytes and may be shorter.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] says what is wrong; the link must be dropped. Never panics.
    pub fn decode(mut plaintext: Bytes) -> Result<Record, DecodeError> {
        let len = plaintext.len();
        let kind = *plaintext.first().ok_or(DecodeError::Empty)?;
        let (name, need) = match kind {
            KCM => return Ok(Record::Kcm),
            PING => return Ok(Record::Ping(PingId::from_wire(&plaintext[1..]))),
            PONG => return Ok(Record::Pong(PingId::from_wire(&plaintext[1..]))),
            OPEN => ("OPEN", 9),
            DATA => ("DATA", 9),
            CLOSE => ("CLOSE", 9),
            ACK => ("ACK", 5),
            other => return Err(DecodeError::UnknownType(other)),
        };
        if len < need {
            return Err(DecodeError::Truncated { kind: name, len, need });
        }
        plaintext.advance(1);
        let first = plaintext.get_u32();
        if kind == ACK {
            return Ok(Record::Ack { seq: SeqNum(first) });
        }
        let (id, seq) = (SubchannelId(first), SeqNum(plaintext.get_u32()));
        match kind {
            OPEN => Ok(Record::Open { id, seq, subprotocol: decode_name(&plaintext)? }),
            DATA => Ok(Record::Data { id, seq, data: plaintext }),
            _ => Ok(Record::Close { id, seq }),
        }
    }

    /// The first part of the plaintext.
    pub fn header(&self) -> RecordHeader {
        match self {
            Record::Kcm => RecordHeader::new(KCM),
            Record::Ping(ping) => RecordHeader::new(PING).push(ping.as_bytes()),
            Record::Pong(ping) => RecordHeader::new(PONG).push(ping.as_bytes()),
            Record::Open { id, seq, .. } => RecordHeader::sequenced(OPEN, *id, *seq),
            Record::Data { id, seq, .. } => RecordHeader::sequenced(DATA, *id, *seq),
            Record::Close { id, seq } => RecordHeader::sequenced(CLOSE, *id, *seq),
            Record::Ack { seq } => RecordHeader::new(ACK).push(&seq.0.to_be_bytes()),
        }
    }

    /// The second part of the plaintext: the bytes of DATA, the name of OPEN, else nothing.
    pub fn body(&self) -> &[u8] {
        match self {
            Record::Open { subprotocol, .. } => subprotocol.as_bytes(),
            Record::Data { data, .. } => data,
            _ => &[],
        }
    }

    /// The length of the plaintext in bytes.
    pub fn encoded_len(&self) -> usize {
        self.header().len() + self.body().len()
    }

    /// The plaintext in one piece. For tests and tools; a link seals header and body directly.
    pub fn to_vec(&self) -> Vec<u8> {
        [self.header().as_ref(), self.body()].concat()
    }

    /// The sequence number of OPEN, DATA and CLOSE.
    pub fn seq(&self) -> Option<SeqNum> {
        match self {
            Record::Open { seq, .. } | Record::Data { seq, .. } | Record::Close { seq, .. } => Some(*seq),
            _ => None,
        }
    }
}

fn decode_name(bytes: &[u8]) -> Result<Name, DecodeError> {
    if bytes.len() > MAX_NAME_LEN {
        return Err(DecodeError::NameTooLong { len: bytes.len() });
    }
    std::str::from_utf8(bytes).map(Name::from).map_err(|_| DecodeError::NameNotUtf8)
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Kcm => f.write_str("Kcm"),
            Record::Ping(ping) => write!(f, "Ping({ping:?})"),
            Record::Pong(ping) => write!(f, "Pong({ping:?})"),
            Record::Open { id, seq, subprotocol } => {
                write!(f, "Open {{ id: {id}, seq: {seq}, {subprotocol:?} }}")
            }
            Record::Data { id, seq, data } => {
                write!(f, "Data {{ id: {id}, seq: {seq}, {} bytes }}", data.len())
            }
            Record::Close { id, seq } => write!(f, "Close {{ id: {id}, seq: {seq} }}"),
            Record::Ack { seq } => write!(f, "Ack {{ seq: {seq} }}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    fn decode(text: &str) -> Result<Record, DecodeError> {
        Record::decode(Bytes::from(hex(text)))
    }

    fn open(id: u32, seq: u32, name: &str) -> Record {
        Record::Open { id: SubchannelId(id), seq: SeqNum(seq), subprotocol: name.into() }
    }

    fn data(id: u32, seq: u32, data: &'static [u8]) -> Record {
        Record::Data { id: SubchannelId(id), seq: SeqNum(seq), data: Bytes::from_static(data) }
    }

    /// What each vector that was made with the released Python package must mean.
    fn meaning(what: &str) -> Record {
        match what {
            "KCM" => Record::Kcm,
            "PING" => Record::Ping(PingId::new([0xde, 0xad, 0xbe, 0xef])),
            "PONG" => Record::Pong(PingId::new([0xde, 0xad, 0xbe, 0xef])),
            "OPEN scid=1 seq=0 'proto'" => open(1, 0, "proto"),
            "OPEN scid=2 seq=7 'fowl'" => open(2, 7, "fowl"),
            "OPEN non-ascii" => open(1, 0, "caf\u{e9}"),
            "DATA scid=1 seq=1 'hello'" => data(1, 1, b"hello"),
            "DATA empty" => data(1, 2, b""),
            "CLOSE scid=1 seq=2" => Record::Close { id: SubchannelId(1), seq: SeqNum(2) },
            "ACK 1" => Record::Ack { seq: SeqNum(1) },
            "ACK max" => Record::Ack { seq: SeqNum(u32::MAX) },
            "DATA scid=65537 seq=4294967295" => data(65537, u32::MAX, b"\0"),
            other => panic!("a vector that this test does not know: {other}"),
        }
    }

    #[test]
    fn every_vector_of_the_python_package_decodes_and_encodes() {
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors.json"));
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let records = vectors["dilation"]["record_plaintexts"].as_array().unwrap();
        assert!(records.len() >= 12);
        for vector in records {
            let (what, wire) = (vector["what"].as_str().unwrap(), vector["plaintext"].as_str().unwrap());
            let expected = meaning(what);
            assert_eq!(decode(wire), Ok(expected.clone()), "{what}");
            assert_eq!(expected.to_vec(), hex(wire), "{what}");
            assert_eq!(expected.encoded_len(), wire.len() / 2, "{what}");
        }
    }

    #[test]
    fn tolerates_what_the_python_peer_tolerates() {
        assert_eq!(decode("05000000010000000299"), Ok(Record::Close { id: SubchannelId(1), seq: SeqNum(2) }));
        assert_eq!(decode("0600000001ffff"), Ok(Record::Ack { seq: SeqNum(1) }));
        assert_eq!(decode("0012"), Ok(Record::Kcm));
        assert_eq!(decode("010102030405"), Ok(Record::Ping(PingId::new([1, 2, 3, 4]))));
        let short = decode("010102").unwrap();
        assert_eq!(short.to_vec(), hex("010102"));
        let Record::Ping(id) = short else { panic!("not a ping") };
        assert_eq!(Record::Pong(id).to_vec(), hex("020102"));
        assert_eq!(decode("01").unwrap().to_vec(), hex("01"));
        assert_ne!(decode("0100"), decode("01"));
    }

    #[test]
    fn errors_name_the_fault() {
        assert_eq!(decode(""), Err(DecodeError::Empty));
        assert_eq!(decode("07"), Err(DecodeError::UnknownType(7)));
        assert_eq!(decode("ff00"), Err(DecodeError::UnknownType(255)));
        for (wire, kind, need) in [
            ("03", "OPEN", 9),
            ("0300000001000000", "OPEN", 9),
            ("0400000001000000", "DATA", 9),
            ("0500000001000000", "CLOSE", 9),
            ("06000000", "ACK", 5),
        ] {
            assert_eq!(decode(wire), Err(DecodeError::Truncated { kind, len: wire.len() / 2, need }));
        }
        assert_eq!(decode("030000000100000000ff"), Err(DecodeError::NameNotUtf8));
        let mut long = hex("030000000100000000");
        long.resize(9 + MAX_NAME_LEN, b'x');
        assert!(Record::decode(long.clone().into()).is_ok());
        long.push(b'x');
        assert_eq!(Record::decode(long.into()), Err(DecodeError::NameTooLong { len: MAX_NAME_LEN + 1 }));
    }

    #[test]
    fn data_is_not_copied() {
        let wire = Bytes::from(hex("04000000010000000168656c6c6f"));
        let Ok(Record::Data { data, .. }) = Record::decode(wire.clone()) else { panic!("not data") };
        assert_eq!(data.as_ptr(), wire[9..].as_ptr());
    }

    #[test]
    fn debug_does_not_show_payload() {
        assert_eq!(format!("{:?}", data(1, 2, b"secret")), "Data { id: 1, seq: 2, 6 bytes }");
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let numbers = (any::<u32>().prop_map(SubchannelId), any::<u32>().prop_map(SeqNum));
        prop_oneof![
            Just(Record::Kcm),
            any::<[u8; 4]>().prop_map(|id| Record::Ping(id.into())),
            any::<[u8; 4]>().prop_map(|id| Record::Pong(id.into())),
            (numbers.clone(), ".{0,40}").prop_map(|((id, seq), name)| Record::Open {
                id,
                seq,
                subprotocol: name.as_str().into()
            }),
            (numbers.clone(), proptest::collection::vec(any::<u8>(), 0..200))
                .prop_map(|((id, seq), data)| Record::Data { id, seq, data: data.into() }),
            numbers.clone().prop_map(|(id, seq)| Record::Close { id, seq }),
            numbers.prop_map(|(_, seq)| Record::Ack { seq }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(record in any_record()) {
            prop_assert!(record.header().len() <= 9);
            let wire = record.to_vec();
            prop_assert_eq!(wire.len(), record.encoded_len());
            prop_assert_eq!(Record::decode(wire.into()), Ok(record));
        }

        #[test]
        fn arbitrary_bytes_never_panic(kind in 0u8..9, rest in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut wire = vec![kind];
            wire.extend(rest);
            if let Ok(record) = Record::decode(wire.clone().into()) {
                // Only ignored trailing bytes may differ.
                let again = record.to_vec();
                prop_assert_eq!(&wire[..again.len()], &again[..]);
            }
        }
    }
}
