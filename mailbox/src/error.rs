//! Why a wormhole ended, and what a caller may have done wrong.

use crate::code::KeyFormatError;
use crate::message::Mood;

/// Why an operation on a wormhole failed, or why the wormhole ended.
///
/// Every message is a sentence that a person can act on. Text that came from the server has its control
/// characters replaced, so that it may be printed on a terminal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WormholeError {
    /// The wormhole was closed before the other side proved that it knows the code.
    #[error(
        "the wormhole was closed before the other side joined; keep this side running until they enter the code"
    )]
    Lonely,
    /// A message of the other side could not be decrypted: the two codes differ.
    #[error(
        "the codes do not match: one side mistyped it, or somebody guessed and failed; start again with a new code"
    )]
    WrongPassword,
    /// The mailbox server answered with an error.
    #[error("the mailbox server reported an error: {message}")]
    Server {
        /// The server's words, made printable.
        message: String,
    },
    /// The mailbox server's greeting refuses us.
    #[error("the mailbox server refuses this client: {message}")]
    Welcome {
        /// The server's words, made printable.
        message: String,
    },
    /// Two others already use this code.
    #[error("two others are already using this code; start again with a new one")]
    Crowded,
    /// The mailbox server forgot the code before the other side used it.
    #[error(
        "the mailbox server has forgotten this code, as it does when nobody was connected for a while or it was \
         restarted; start again with a new one"
    )]
    Forgotten,
    /// The first connection to the mailbox server failed.
    #[error("could not connect to the mailbox server {url}: {reason}; check the address and your network")]
    Connection {
        /// The address that was tried last.
        url: String,
        /// What went wrong with it.
        reason: String,
    },
    /// The addresses of the mailbox server are wrong or missing.
    #[error("{reason}")]
    Config {
        /// A sentence that says what to change.
        reason: String,
    },
    /// The code is malformed. It may be set again.
    #[error(transparent)]
    KeyFormat(#[from] KeyFormatError),
    /// A code was already set, allocated or is being typed.
    #[error("this wormhole already has a code; create another wormhole for another code")]
    OnlyOneCode,
    /// A key was asked for before the two sides agreed on one.
    #[error("no key has been agreed with the other side yet; wait for the key or the verifier first")]
    NoKey,
    /// Our own key-agreement message came back as the peer's.
    #[error(
        "our own key-agreement message was reflected to us: somebody is interfering; start again with a new code"
    )]
    Reflection,
    /// The peer sent an invalid key-agreement message.
    #[error("the other side sent an invalid key-agreement message ({reason}); start again with a new code")]
    BadPake {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The peer authenticated, and then sent something that is not the protocol.
    #[error("the other side sent something unexpected ({reason}); its program is incompatible or faulty")]
    PeerProtocol {
        /// What is wrong with it.
        reason: String,
    },
    /// The server sent something that is not the protocol.
    #[error(
        "the mailbox server sent something unexpected ({reason}); check that the address is a mailbox server's"
    )]
    ServerProtocol {
        /// What is wrong with it.
        reason: String,
    },
    /// A limit of [`ClientLimits`](crate::client::ClientLimits) was exceeded.
    #[error("the limit on {what} ({limit}) was exceeded")]
    Limit {
        /// What there was too much of.
        what: &'static str,
        /// The limit, in the unit that `what` names.
        limit: u64,
    },
    /// The other side has no dilation version in common with us, or it is not known yet.
    #[error("the other side cannot dilate: it must run a program that supports dilation, and have joined")]
    CannotDilate,
    /// The wormhole is closed or closing.
    #[error("the wormhole is closed; create another one")]
    Closed,
}

impl WormholeError {
    /// The mood that the server is told when a wormhole ends for this reason.
    #[must_use]
    pub fn mood(&self) -> Mood {
        match self {
            Self::Lonely => Mood::Lonely,
            Self::WrongPassword | Self::Reflection | Self::BadPake { .. } => Mood::Scary,
            Self::Welcome { .. } => Mood::Unwelcome,
            _ => Mood::Errory,
        }
    }

    pub(crate) fn server(message: &str) -> Self {
        if message == "crowded" { Self::Crowded } else { Self::Server { message: printable(message) } }
    }

    pub(crate) fn limit(what: &'static str, limit: usize) -> Self {
        Self::Limit { what, limit: u64::try_from(limit).unwrap_or(u64::MAX) }
    }
}

/// Misuse of the helper that types a code step by step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// Words were completed or chosen before the nameplate.
    #[error("choose the nameplate before completing or choosing words")]
    MustChooseNameplateFirst,
    /// The nameplate was already chosen: it is claimed and can be neither changed nor completed.
    #[error("the nameplate is already chosen and cannot be changed")]
    AlreadyChoseNameplate,
    /// The words were already chosen.
    #[error("the words are already chosen and cannot be changed")]
    AlreadyChoseWords,
    /// The typed line begins with another nameplate than the one that was committed.
    #[error("nameplate {committed} is already claimed: go back to it, or start again")]
    AlreadyInputNameplate {
        /// The nameplate that was claimed when its hyphen was typed.
        committed: String,
    },
    /// The line ended before there was a hyphen.
    #[error("incomplete wormhole code: type the number, a hyphen and the words")]
    Incomplete,
    /// The nameplate or the words are malformed. They may be chosen again.
    #[error(transparent)]
    KeyFormat(#[from] KeyFormatError),
    /// The wormhole is closed or closing.
    #[error("the wormhole is closed; create another one")]
    Closed,
}

/// The longest text of a server or peer that an error repeats, in characters.
const PRINTABLE_MAX: usize = 1000;

/// Replaces what could drive a terminal, control and text-direction characters, and cuts what is too long.
pub(crate) fn printable(text: &str) -> String {
    let clean = |c: char| match c {
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {
            '\u{fffd}'
        }
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().take(PRINTABLE_MAX).map(clean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_text_cannot_drive_a_terminal() {
        let error = WormholeError::server("a\x1b[2J\u{202e}b");
        assert_eq!(error.to_string(), "the mailbox server reported an error: a\u{fffd}[2J\u{fffd}b");
        assert_eq!(printable(&"x".repeat(5000)).len(), PRINTABLE_MAX);
        assert_eq!(WormholeError::server("crowded"), WormholeError::Crowded);
    }
}
