//! What two `dilated pipe`s tell each other beside the stream: who opens it, before; and how it ended, after. Both
//! go through the mailbox. A far end that is another program knows neither, and need not.

use serde_json::{Value, json};

use crate::exit::{Failure, Kind};

/// The member of the `app_versions`, and of the last word, that is ours.
const KEY: &str = "pipe";

/// One side's part in opening the stream, told in its `app_versions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Whether this side opens the stream or waits for it.
    pub(crate) opens: bool,
    /// Whether that is only the default, not what the user said.
    pub(crate) flexible: bool,
    pub(crate) subprotocol: String,
}

/// Who opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opener {
    Us,
    Them,
    /// The Leader, because both sides joined with a code that they had agreed on.
    Leader,
}

impl Part {
    pub(crate) fn to_json(&self) -> Value {
        json!({ KEY: { "opens": self.opens, "flexible": self.flexible, "subprotocol": self.subprotocol } })
    }

    /// What the other side said, if it is a `dilated pipe`.
    pub(crate) fn from_json(about: &Value) -> Option<Part> {
        let part = about.get(KEY)?;
        Some(Part {
            opens: part.get("opens")?.as_bool()?,
            flexible: part.get("flexible")?.as_bool()?,
            subprotocol: part.get("subprotocol")?.as_str()?.to_owned(),
        })
    }

    /// Decides who opens, the same on both sides.
    pub(crate) fn agree(&self, theirs: Option<&Part>) -> Result<Opener, Failure> {
        let as_we_said = if self.opens { Opener::Us } else { Opener::Them };
        let Some(theirs) = theirs else { return Ok(as_we_said) };
        if theirs.subprotocol != self.subprotocol {
            return Err(Failure::usage(format!(
                "the other side uses --subprotocol {}, this side {}; use the same on both",
                crate::quote::printable(&theirs.subprotocol),
                self.subprotocol
            )));
        }
        match (self.opens == theirs.opens, self.flexible, theirs.flexible) {
            (false, _, _) | (true, false, true) => Ok(as_we_said),
            (true, true, true) => Ok(Opener::Leader),
            (true, true, false) => Ok(if theirs.opens { Opener::Them } else { Opener::Us }),
            (true, false, false) if self.opens => {
                Err(Failure::usage("both sides were started with --open; start one of them with --listen"))
            }
            (true, false, false) => {
                Err(Failure::usage("both sides were started with --listen; start one of them with --open"))
            }
        }
    }
}

/// How one side ended, told to the other. `ged` has no goodbye: without this a pipe that was interrupted looks like
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
            Kind::Usage | Kind::PeerLeft | Kind::Server | Kind::PeerProgram => None,
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

    pub(crate) fn to_bytes(self) -> Vec<u8> {
        json!({ KEY: { "ended": self.name() } }).to_string().into_bytes()
    }

    /// Reads a message; those of other programs are not ours to judge.
    pub(crate) fn parse(message: &[u8]) -> Option<LastWord> {
        let message: Value = serde_json::from_slice(message).ok()?;
        let name = message.get(KEY)?.get("ended")?.as_str()?;
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
    pub(crate) fn failure(self) -> Option<Failure> {
        let left = |what: &str| {
            Some(Failure::new(Kind::PeerLeft, format!("{what} before the end; the transfer is incomplete")))
        };
        match self {
            LastWord::Complete => None,
            LastWord::Interrupted => left("the other side was interrupted"),
            LastWord::OutputClosed => left("the other side's output was closed"),
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

    fn part(opens: bool, flexible: bool) -> Part {
        Part { opens, flexible, subprotocol: "pipe".to_owned() }
    }

    #[test]
    fn every_pair_agrees_or_both_complain() {
        for ours in [(true, true), (true, false), (false, true), (false, false)] {
            for theirs in [(true, true), (true, false), (false, true), (false, false)] {
                let (a, b) = (part(ours.0, ours.1), part(theirs.0, theirs.1));
                let pair = (a.agree(Some(&b)), b.agree(Some(&a)));
                let good = matches!(
                    &pair,
                    (Ok(Opener::Us), Ok(Opener::Them))
                        | (Ok(Opener::Them), Ok(Opener::Us))
                        | (Ok(Opener::Leader), Ok(Opener::Leader))
                        | (Err(_), Err(_))
                );
                assert!(good, "{a:?} {b:?} {pair:?}");
                assert_eq!(pair.0.is_err(), a == b && !a.flexible, "only two that insist fail");
            }
        }
        assert_eq!(part(true, true).agree(None), Ok(Opener::Us));
        assert_eq!(part(false, true).agree(None), Ok(Opener::Them));
        let other = Part { subprotocol: "\u{1b}x".to_owned(), ..part(false, true) };
        let failure = part(true, true).agree(Some(&other)).unwrap_err();
        assert!(failure.to_string().contains("--subprotocol \\u{1b}x"), "{failure}");
    }

    #[test]
    fn both_survive_the_wire_and_strangers_are_tolerated() {
        assert_eq!(Part::from_json(&part(true, false).to_json()), Some(part(true, false)));
        for strange in [json!({}), json!({ KEY: 1 }), json!({ KEY: { "opens": "yes" } }), json!([])] {
            assert_eq!(Part::from_json(&strange), None);
        }
        for word in [LastWord::Complete, LastWord::Interrupted, LastWord::OutputClosed, LastWord::Refused] {
            assert_eq!(LastWord::parse(&word.to_bytes()), Some(word));
        }
        for strange in [&b"hello"[..], b"{}", b"{\"pipe\":{\"ended\":\"well\"}}", b"\xff"] {
            assert_eq!(LastWord::parse(strange), None);
        }
        assert_eq!(LastWord::Complete.failure(), None);
    }
}
