//! What two `dilated pipe`s tell each other through the mailbox before the stream: who opens it. A far end that is
//! another program does not know it, and need not.

use serde_json::{Value, json};

use crate::{exit::Failure, meeting::Purpose};

/// The member of the `app_versions` that is ours.
const KEY: &str = Purpose::Pipe.key();

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
    fn it_survives_the_wire_and_strangers_are_tolerated() {
        assert_eq!(Part::from_json(&part(true, false).to_json()), Some(part(true, false)));
        for strange in [json!({}), json!({ KEY: 1 }), json!({ KEY: { "opens": "yes" } }), json!([])] {
            assert_eq!(Part::from_json(&strange), None);
        }
    }
}
