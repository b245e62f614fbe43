//! How far a handshake has come, and why it came no further.

use thiserror::Error;

use crate::prologue::{PrologueError, RelayError};

/// Why a connection did not become a link.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The relay did not join us with the other side.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The other end does not speak our protocol.
    #[error(transparent)]
    Prologue(#[from] PrologueError),
    /// A frame of another length than the handshake has.
    #[error("the other end sent a frame of {length} bytes where the handshake has one of {expected}")]
    FrameLength {
        /// What the frame announced, in bytes.
        length: u32,
        /// The only length allowed here, in bytes.
        expected: usize,
    },
    /// The other end does not know the key.
    #[error("the other end has another key; it is not the other side of this wormhole")]
    WrongKey,
    /// The other end knows the key, but did not confirm it as the protocol demands.
    #[error("the other end sent something else instead of its key confirmation")]
    NoConfirmation,
    /// More bytes than a handshake needs.
    #[error("the other end sent more than {limit} bytes before the handshake was complete")]
    TooManyBytes {
        /// [`HandshakeLimits::max_bytes`](crate::HandshakeLimits::max_bytes).
        limit: usize,
    },
    /// The connection ended while the handshake was in this stage.
    #[error("the connection was closed while {0}")]
    Closed(Stage),
}

/// How far a handshake has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Stage {
    /// The relay waits for the other side to come, too. Not to be hurried: that may take long.
    Relay,
    /// Waiting for the other side's prologue.
    Prologue,
    /// Waiting for the other side's Noise message.
    Noise,
    /// Waiting for the other side's key confirmation. A Follower waits here until the Leader has chosen.
    Confirmation,
    /// The other side has confirmed its key: a candidate for the Leader, the chosen link for the Follower.
    Confirmed,
    /// The handshake has failed.
    Failed,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stage::Relay => "the relay waited for the other side",
            Stage::Prologue => "the other side's greeting was awaited",
            Stage::Noise => "keys were agreed on",
            Stage::Confirmation => "the other side's key confirmation was awaited",
            Stage::Confirmed => "the link was ready",
            Stage::Failed => "nothing was expected any more",
        })
    }
}
