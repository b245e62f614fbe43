//! What a client reports, and its status.

use std::collections::VecDeque;
use std::fmt;

use serde_json::Value;

use super::ClientLimits;
use crate::error::WormholeError;
use crate::message::Welcome;
use crate::{Code, Key};

/// Something that happened to a wormhole.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A connection to the server is being tried.
    Connecting {
        /// To which address.
        url: String,
    },
    /// The connection to the server is up.
    Connected,
    /// It was lost, or an attempt failed; another will be made.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// The server greeted us. Once for each connection.
    Welcome(Welcome),
    /// The code is known: it was set, allocated, or typed to its end.
    Code(Code),
    /// A key was computed. Until [`Verifier`](Self::Verifier), nobody knows whether the peer has the same.
    UnverifiedKey(Key),
    /// A message of the peer could be decrypted, so the keys are the same. People may compare these bytes.
    Verifier([u8; 32]),
    /// The peer's version message.
    Versions(PeerVersions),
    /// A message of the application, in order, exactly once.
    Message(Vec<u8>),
    /// A message of dilation, in order, exactly once, and never before [`Versions`](Self::Versions).
    Dilate(Vec<u8>),
    /// The wormhole ended; nothing follows. `Ok` means that the two sides had met.
    Closed(Result<(), WormholeError>),
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting { url } => write!(f, "Connecting({url})"),
            Self::Connected => f.write_str("Connected"),
            Self::Disconnected { reason } => write!(f, "Disconnected({reason})"),
            Self::Welcome(_) => f.write_str("Welcome(..)"),
            Self::Code(code) => code.fmt(f),
            Self::UnverifiedKey(_) => f.write_str("UnverifiedKey(..)"),
            Self::Verifier(_) => f.write_str("Verifier(..)"),
            Self::Versions(versions) => write!(f, "Versions(can_dilate {:?})", versions.can_dilate),
            Self::Message(message) => write!(f, "Message({} bytes)", message.len()),
            Self::Dilate(message) => write!(f, "Dilate({} bytes)", message.len()),
            Self::Closed(result) => write!(f, "Closed({result:?})"),
        }
    }
}

/// What the peer said about itself.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct PeerVersions {
    /// The application's part; `{}` if there is none.
    pub app_versions: Value,
    /// The dilation versions that the peer speaks, best first.
    pub can_dilate: Vec<String>,
}

impl PeerVersions {
    /// Reads the plaintext of a version message. Missing and mistyped keys are tolerated.
    pub(super) fn parse(plaintext: &[u8]) -> Result<Self, WormholeError> {
        /// Far more versions than will ever exist; a longer list is cut.
        const MOST: usize = 64;
        let Ok(Value::Object(mut object)) = serde_json::from_slice(plaintext) else {
            return Err(WormholeError::PeerProtocol {
                reason: "its version message is not an object".to_owned(),
            });
        };
        let app_versions = object.remove("app_versions").unwrap_or_else(|| Value::Object(Default::default()));
        let listed = object.get("can-dilate").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let can_dilate = listed.iter().filter_map(Value::as_str).take(MOST).map(str::to_owned).collect();
        Ok(Self { app_versions, can_dilate })
    }
}

/// Where the connection to the server stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ConnectionStatus {
    /// There is none.
    #[default]
    Disconnected,
    /// One is being tried.
    Connecting {
        /// To which address.
        url: String,
    },
    /// It is up.
    Connected,
    /// The wormhole ended, and the connection with it.
    Closed,
}

/// Where the key agreement stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KeyStatus {
    /// The other side has not been heard of.
    #[default]
    NoKey,
    /// There is a key, which the other side has not proved yet.
    AllegedSharedKey,
    /// The other side has proved that it knows the key.
    ConfirmedKey,
}

/// Where the code stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CodeStatus {
    /// There is none.
    #[default]
    NoCode,
    /// Its nameplate is known, and the code can be used.
    AllocatedCode,
    /// It was used: its nameplate is released and may be another's at any time.
    ConsumedCode,
}

/// The status of a wormhole's mailbox, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MailboxStatus {
    /// The connection to the server.
    pub connection: ConnectionStatus,
    /// Why there is none: the reason of the last loss or of the last failed attempt, printable. It stays while the next
    /// attempt is made, and until one succeeds. After the end it says what was wrong then, if anything was.
    pub last_failure: Option<String>,
    /// The key agreement.
    pub key: KeyStatus,
    /// The code.
    pub code: CodeStatus,
}

/// Events that wait for the application, with the bound on messages that nobody reads.
#[derive(Default)]
pub(super) struct Events {
    queue: VecDeque<Event>,
    messages: usize,
    bytes: usize,
}

impl Events {
    pub(super) fn push(&mut self, event: Event) {
        let (messages, bytes) = weight(&event);
        self.messages += messages;
        self.bytes += bytes;
        self.queue.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        let event = self.queue.pop_front()?;
        let (messages, bytes) = weight(&event);
        self.messages -= messages;
        self.bytes -= bytes;
        Some(event)
    }

    pub(super) fn check(&self, limits: &ClientLimits) -> Result<(), WormholeError> {
        if self.messages > limits.queued_messages {
            return Err(WormholeError::limit(
                "messages that the application has not read",
                limits.queued_messages,
            ));
        }
        if self.bytes > limits.queued_bytes {
            return Err(WormholeError::limit("bytes that the application has not read", limits.queued_bytes));
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

fn weight(event: &Event) -> (usize, usize) {
    match event {
        Event::Message(message) | Event::Dilate(message) => (1, message.len()),
        _ => (0, 0),
    }
}
