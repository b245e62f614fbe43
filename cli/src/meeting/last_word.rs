//! What a side says last, through the mailbox. A far end that is another program does not know it, and need not.

use serde_json::{Value, json};

use super::Purpose;
use crate::exit::{Failure, Kind};

/// How one side ended, told to the other. `ged` has no goodbye: without this a side that was interrupted looks like
/// a network that is down, and one must never look like an orderly end of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastWord {
    /// Both directions ended, and everything is written to the output.
    Complete,
    Interrupted,
    OutputClosed,
    Refused,
    Failed,
}

impl LastWord {
    /// What to tell about a failure of this side; nothing when the other side knows already.
    pub(crate) fn about(failure: &Failure) -> Option<LastWord> {
        match failure.kind() {
            Kind::Interrupted | Kind::Terminated => Some(LastWord::Interrupted),
            Kind::OutputClosed => Some(LastWord::OutputClosed),
            Kind::Local => Some(LastWord::Failed),
            Kind::Code => Some(LastWord::Refused),
            Kind::Usage | Kind::PeerLeft | Kind::Server | Kind::PeerProgram | Kind::Declined => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            LastWord::Complete => "complete",
            LastWord::Interrupted => "interrupted",
            LastWord::OutputClosed => "output-closed",
            LastWord::Refused => "refused",
            LastWord::Failed => "failed",
        }
    }

    pub(crate) fn to_bytes(self, purpose: Purpose) -> Vec<u8> {
        json!({ purpose.key(): { "ended": self.name() } }).to_string().into_bytes()
    }

    /// Reads a message; those of other programs are not ours to judge.
    pub(crate) fn parse(message: &[u8], purpose: Purpose) -> Option<LastWord> {
        let message: Value = serde_json::from_slice(message).ok()?;
        let name = message.get(purpose.key())?.get("ended")?.as_str()?;
        let all = [
            LastWord::Complete,
            LastWord::Interrupted,
            LastWord::OutputClosed,
            LastWord::Refused,
            LastWord::Failed,
        ];
        all.into_iter().find(|word| word.name() == name)
    }

    /// What it means for this side; nothing after a good end.
    pub(crate) fn failure(self, purpose: Purpose) -> Option<Failure> {
        let left = |what: &str| {
            let work = purpose.work();
            Some(Failure::new(Kind::PeerLeft, format!("{what} before the end; the {work} is incomplete")))
        };
        match self {
            LastWord::Complete => None,
            LastWord::Interrupted => left("the other side was interrupted").map(Failure::explained),
            LastWord::OutputClosed => left("the other side's output was closed").map(Failure::explained),
            // What failed may be told on the link.
            LastWord::Failed => left("the other side failed"),
            LastWord::Refused => Some(Failure::new(
                Kind::Code,
                "the other side's user did not confirm the verifier; somebody may be in between, so start again \
                 with a new code",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_survives_the_wire_and_strangers_are_tolerated() {
        for purpose in [Purpose::Pipe, Purpose::Bench] {
            for word in [LastWord::Complete, LastWord::Interrupted, LastWord::OutputClosed, LastWord::Refused]
            {
                assert_eq!(LastWord::parse(&word.to_bytes(purpose), purpose), Some(word));
            }
        }
        let foreign = LastWord::Complete.to_bytes(Purpose::Bench);
        for strange in [&b"hello"[..], b"{}", b"{\"pipe\":{\"ended\":\"well\"}}", b"\xff", &foreign] {
            assert_eq!(LastWord::parse(strange, Purpose::Pipe), None);
        }
        assert_eq!(LastWord::Complete.failure(Purpose::Pipe), None);
    }
}
