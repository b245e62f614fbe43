//! What the two sides say: CBOR maps, one message of the control channel each, and those within a file's subchannel.

use std::fmt;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, DeserializeOwned, Visitor},
};

use super::state::Violation;

/// The protocol that this is.
pub(super) const VERSION: u64 = 1;

/// The longest message, in bytes.
pub(super) const MAX_MESSAGE: usize = 1 << 20;

/// The most items of one offer.
pub(super) const MAX_ITEMS: usize = 1000;

/// The longest text of one item, in bytes.
pub(super) const MAX_TEXT: usize = 256 << 10;

/// A message of the control channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum Message {
    Hello {
        version: u64,
    },
    Offer {
        offer: u64,
        items: Vec<Item>,
    },
    Answer {
        offer: u64,
        items: Vec<Answer>,
    },
    Directories {
        offer: u64,
        item: u64,
        directories: Vec<Directory>,
    },
    Finish {
        offer: u64,
        item: u64,
    },
    Finished {
        offer: u64,
        item: u64,
    },
    End,
    Error {
        code: Code,
        message: String,
    },
    /// Of a later version of the protocol.
    #[serde(other)]
    Unknown,
}

/// What is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A file of a known size.
    File,
    /// A directory and all that is in it.
    Directory,
    /// A file whose size nobody knows before its end.
    Stream,
    /// A text that is shown.
    Text,
    /// Of a later version of the protocol.
    #[serde(other)]
    Unknown,
}

/// One thing of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Item {
    pub(super) kind: Kind,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    /// Bytes of the file, or of all files of the directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u64>,
    /// Files and directories below the directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    /// The same for the same content, in another session, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<Hash>,
    /// The nine bits of permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mode: Option<u32>,
    /// When it was modified, in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mtime: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
}

impl Item {
    /// With nothing but a kind and a name.
    pub(super) fn new(kind: Kind, name: &str) -> Item {
        Item {
            kind,
            name: name.to_owned(),
            size: None,
            count: None,
            id: None,
            mode: None,
            mtime: None,
            text: None,
        }
    }
}

/// What becomes of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) accept: bool,
    /// Parts of it are here from an earlier session.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) resume: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Reason>,
}

/// Why an item is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reason {
    /// A person does not want it.
    Declined,
    /// Something of that name is there.
    Exists,
    /// There is no room for it.
    Space,
    /// The name cannot be used there.
    Name,
    /// The receiver does not take such things.
    Unsupported,
    /// Of a later version of the protocol.
    #[serde(other)]
    Unknown,
}

/// One directory of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Directory {
    pub(super) path: Vec<String>,
    /// The nine bits of permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mode: Option<u32>,
    /// When it was modified, in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mtime: Option<i64>,
}

/// Why a side gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Code {
    /// The other side broke the protocol.
    Protocol,
    /// What the sender offered it could not read, or it has changed.
    Source,
    /// The receiver could not store it.
    Target,
    /// What came is not what was sent.
    Hash,
    #[serde(other)]
    Unknown,
}

/// The first frame of a file's subchannel, from its sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) offer: u64,
    pub(super) item: u64,
    /// Where in the directory; not for a file that was offered itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) path: Vec<String>,
    /// Bytes of a file in a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u64>,
    /// The nine bits of permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mode: Option<u32>,
    /// When it was modified, in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mtime: Option<i64>,
}

/// What the receiver has of a file, if it said that it resumes the item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Have {
    /// Bytes from the beginning.
    pub(super) have: u64,
    /// By how many bytes each hash goes further than the one before. The last one ends where the bytes do.
    pub(super) chunk: u64,
    /// Each of all bytes from the beginning to the end of a chunk.
    pub(super) hashes: Vec<Hash>,
}

/// Where the sender goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) offset: u64,
}

/// What follows the data, and what the receiver answers when it has stored them: the hash of the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Whole {
    pub(super) hash: Hash,
}

/// A BLAKE3 hash: a byte string of 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hash(pub(crate) [u8; 32]);

impl From<blake3::Hash> for Hash {
    fn from(hash: blake3::Hash) -> Hash {
        Hash(hash.into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        struct Bytes32;
        impl Visitor<'_> for Bytes32 {
            type Value = Hash;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("32 bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Hash, E> {
                bytes.try_into().map(Hash).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_bytes(Bytes32)
    }
}

/// A message as it is sent.
pub(super) fn encode(message: &impl Serialize) -> Bytes {
    serde_cbor::to_vec(message).expect("our messages can be written to memory").into()
}

/// Reads a message. Its length is bounded here, its depth by the decoder.
pub(super) fn decode<T: DeserializeOwned>(message: &[u8]) -> Result<T, Violation> {
    if message.len() > MAX_MESSAGE {
        return Err(Violation::new(format!("a message of {} bytes", message.len())));
    }
    serde_cbor::from_slice(message).map_err(|e| Violation::new(format!("a malformed message ({e})")))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use serde::Serialize;

    use super::*;

    /// What `docs/transfer.md` shows, by name.
    fn examples() -> Vec<(&'static str, Bytes)> {
        let hash = Hash(*blake3::hash(b"").as_bytes());
        let file = Item {
            size: Some(5),
            id: Some(hash),
            mode: Some(0o644),
            mtime: Some(1_700_000_000_123_456_789),
            ..Item::new(Kind::File, "a.txt")
        };
        let directory = Item { size: Some(1 << 40), count: Some(3), ..Item::new(Kind::Directory, "photos") };
        let text = Item { text: Some("hello".to_owned()), ..Item::new(Kind::Text, "") };
        let path = vec!["2026".to_owned(), "ä".to_owned()];
        let inner = Directory { path: path.clone(), mode: Some(0o755), mtime: Some(-1) };
        let answer = |accept, resume, reason| Answer { accept, resume, reason };
        let header = Header { offer: 0, item: 0, path: Vec::new(), size: None, mode: None, mtime: None };
        let inside =
            Header { item: 1, path, size: Some(7), mode: Some(0o600), mtime: Some(0), ..header.clone() };
        let mut frame = Vec::new();
        super::super::frame::push(&mut frame, &header);
        frame.extend_from_slice(b"\0\0\0\x05hello\0\0\0\0");
        super::super::frame::push(&mut frame, &Whole { hash: blake3::hash(b"hello").into() });
        vec![
            ("hello", round(&Message::Hello { version: VERSION })),
            ("offer of a file", round(&Message::Offer { offer: 0, items: vec![file] })),
            (
                "offer of three",
                round(&Message::Offer {
                    offer: 1,
                    items: vec![directory, Item::new(Kind::Stream, "input"), text],
                }),
            ),
            (
                "answer",
                round(&Message::Answer {
                    offer: 1,
                    items: vec![
                        answer(true, true, None),
                        answer(false, false, Some(Reason::Exists)),
                        answer(true, false, None),
                    ],
                }),
            ),
            ("directories", round(&Message::Directories { offer: 1, item: 0, directories: vec![inner] })),
            ("finish", round(&Message::Finish { offer: 1, item: 0 })),
            ("finished", round(&Message::Finished { offer: 1, item: 0 })),
            ("end", round(&Message::End)),
            ("error", round(&Message::Error { code: Code::Target, message: "disk full".to_owned() })),
            ("header", round(&header)),
            ("header in a directory", round(&inside)),
            ("have", round(&Have { have: (1 << 20) + 5, chunk: 1 << 20, hashes: vec![hash; 2] })),
            ("start", round(&Start { offset: 1 << 20 })),
            ("whole, stored", round(&Whole { hash })),
            ("subchannel of `hello`", frame.into()),
        ]
    }

    /// Encodes, and checks that it decodes to the same.
    fn round<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(message: &T) -> Bytes {
        let encoded = encode(message);
        assert_eq!(decode::<T>(&encoded).as_ref(), Ok(message));
        encoded
    }

    #[test]
    fn the_examples_of_the_document_are_what_is_sent() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/transfer.md");
        let document = fs::read_to_string(document).unwrap();
        let (_, section) = document.split_once("## Examples").expect("there is a section of examples");
        let shown: BTreeSet<String> = section
            .lines()
            .filter_map(|line| {
                let (name, row) = line.strip_prefix("| ")?.strip_suffix("` |")?.split_once(" | ")?;
                let (_, hex) = row.rsplit_once(" | `")?;
                Some(format!("{name}: {hex}"))
            })
            .collect();
        let ours: Vec<String> = examples()
            .into_iter()
            .map(|(name, bytes)| format!("{name}: {}", HEXLOWER.encode(&bytes)))
            .collect();
        assert_eq!(shown, ours.iter().cloned().collect(), "there should be\n{}", ours.join("\n"));
    }

    #[test]
    fn what_is_not_known_is_ignored() {
        let unknown = b"\xa3\x64type\x63end\x61x\x83\x01\x02\x03\x61y\xf6";
        assert_eq!(decode(unknown), Ok(Message::End));
        assert_eq!(decode(b"\xa1\x64type\x65dance"), Ok(Message::Unknown));
        // An indefinite length, as other encoders may have it.
        assert_eq!(decode(b"\xbf\x64type\x63end\xff"), Ok(Message::End));
        assert_eq!(
            decode(b"\xa2\x66accept\xf4\x66reason\x64moon"),
            Ok(Answer { accept: false, resume: false, reason: Some(Reason::Unknown) })
        );
    }

    #[test]
    fn hashes_have_32_bytes() {
        let of = |length: u8| {
            let mut whole = b"\xa1\x64hash\x58".to_vec();
            whole.push(length);
            whole.resize(whole.len() + usize::from(length), 1);
            decode::<Whole>(&whole)
        };
        assert_eq!(of(32), Ok(Whole { hash: Hash([1; 32]) }));
        assert!(of(31).is_err() && of(33).is_err());
        assert!(decode::<Whole>(b"\xa1\x64hash\x61x").is_err());
    }
}
