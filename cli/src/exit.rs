//! How a command fails: a sentence for people and a status for scripts.

use std::{fmt, io};

use dilated::{DilationError, WormholeError};

/// The table of statuses that `--help` shows.
pub(crate) const HELP: &str = "\
Exit status:
    0  everything was delivered, in both directions
    1  something on this machine failed, such as writing the output
    2  the command was not used right, or the code is malformed
    3  the codes do not match, the verifier was refused, or somebody else took part
    4  the other side left before everything was delivered
    5  the mailbox server could not be reached or refused, or a server could not be started
    6  the other side's program cannot do this
    7  what was offered was declined
  130  interrupted (Ctrl-C)
  141  standard output was closed, as by `head`
  143  terminated (SIGTERM)";

/// The kinds of failure, with the status of the process as value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Local = 1,
    Usage = 2,
    Code = 3,
    PeerLeft = 4,
    Server = 5,
    PeerProgram = 6,
    Declined = 7,
    Interrupted = 130,
    OutputClosed = 141,
    Terminated = 143,
}

impl Kind {
    pub(crate) fn status(self) -> u8 {
        self as u8
    }
}

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
    /// Whether nobody could say more.
    explained: bool,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), explained: false }
    }

    /// The same, with a message that says all.
    pub(crate) fn explained(self) -> Failure {
        Failure { explained: true, ..self }
    }

    pub(crate) fn is_explained(&self) -> bool {
        self.explained
    }

    /// Whether the other side may still tell why it left.
    pub(crate) fn awaits_reason(&self) -> bool {
        self.kind == Kind::PeerLeft && !self.explained
    }

    pub(crate) fn io(doing: &str, error: &io::Error) -> Failure {
        Failure::new(Kind::Local, format!("{doing}: {error}"))
    }

    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Usage, message)
    }

    pub(crate) fn interrupted() -> Failure {
        Failure::new(Kind::Interrupted, "interrupted")
    }

    pub(crate) fn terminated() -> Failure {
        Failure::new(Kind::Terminated, "terminated")
    }

    /// The program that reads our output ended. As quiet as a program that dies of `SIGPIPE`.
    pub(crate) fn output_closed() -> Failure {
        Failure::new(Kind::OutputClosed, "")
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether there is nothing to say.
    pub(crate) fn is_quiet(&self) -> bool {
        self.message.is_empty()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<WormholeError> for Failure {
    fn from(error: WormholeError) -> Failure {
        let kind = match &error {
            WormholeError::WrongPassword
            | WormholeError::Crowded
            | WormholeError::Reflection
            | WormholeError::BadPake { .. } => Kind::Code,
            WormholeError::KeyFormat(_) | WormholeError::Config { .. } => Kind::Usage,
            WormholeError::Lonely => Kind::PeerLeft,
            WormholeError::PeerProtocol { .. } | WormholeError::CannotDilate => Kind::PeerProgram,
            WormholeError::Server { .. }
            | WormholeError::Welcome { .. }
            | WormholeError::Connection { .. }
            | WormholeError::Forgotten
            | WormholeError::ServerProtocol { .. } => Kind::Server,
            _ => Kind::Local,
        };
        let message = match &error {
            WormholeError::KeyFormat(_) => format!("{error} A code looks like 7-purple-sausages."),
            _ => error.to_string(),
        };
        Failure::new(kind, message)
    }
}

impl From<DilationError> for Failure {
    fn from(error: DilationError) -> Failure {
        let kind = match error {
            DilationError::Wormhole(error) => return error.into(),
            DilationError::PeerCannotDilate { .. }
            | DilationError::Protocol(_)
            | DilationError::Refused { .. } => Kind::PeerProgram,
            DilationError::Reflection => Kind::Code,
            DilationError::PeerClosed => Kind::PeerLeft,
            _ => Kind::Local,
        };
        Failure::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_those_of_the_help() {
        let kinds = [
            Kind::Local,
            Kind::Usage,
            Kind::Code,
            Kind::PeerLeft,
            Kind::Server,
            Kind::PeerProgram,
            Kind::Declined,
            Kind::Interrupted,
            Kind::OutputClosed,
            Kind::Terminated,
        ];
        for kind in kinds {
            assert!(HELP.contains(&format!("{:>5}  ", kind.status())), "{kind:?} is not in the help");
        }
    }

    #[test]
    fn errors_become_what_a_script_can_tell_apart() {
        let kind = |error: WormholeError| Failure::from(error).kind();
        assert_eq!(kind(WormholeError::WrongPassword), Kind::Code);
        assert_eq!(kind(WormholeError::Lonely), Kind::PeerLeft);
        assert_eq!(
            kind(WormholeError::Connection { url: "ws://x/v1".into(), reason: "refused".into() }),
            Kind::Server
        );
        let cannot = DilationError::PeerCannotDilate { theirs: "nothing".into(), ours: "ged".into() };
        assert_eq!(Failure::from(cannot).kind(), Kind::PeerProgram);
        assert_eq!(Failure::from(DilationError::Wormhole(WormholeError::Crowded)).kind(), Kind::Code);
        assert!(Failure::output_closed().is_quiet());
    }
}
