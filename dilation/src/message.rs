//! The messages of the control conversation: JSON in the mailbox phases `dilate-0`, `dilate-1`, …
//! (specification `ged`, section "Messages").

use dilated_transit::{Hint, HintLimits, encode_hints, parse_hints};
use serde_json::{Value, json};

/// Longest message that is parsed. The mailbox client caps messages too; this holds when it is used alone.
const MAX_MESSAGE: usize = 256 * 1024;

/// What one side says to the other about the link.
#[derive(Debug, Clone, PartialEq)]
pub enum DilationMessage {
    /// "I want to dilate, and this is my side."
    Please {
        /// Compared with ours to find the Leader.
        side: String,
        /// Whether the sender understands [`DilationMessage::Closing`].
        hears_closing: bool,
    },
    /// Where the sender can be reached in this generation.
    Hints(Vec<Hint>),
    /// The Leader asks for a new generation.
    Reconnect,
    /// The Follower has begun the generation that the Leader asked for.
    Reconnecting,
    /// The sender closes its wormhole and will not come back. Only for a peer that hears it: Python logs an error.
    Closing,
}

impl DilationMessage {
    /// Parses a message. `None` for what is to be ignored: types of a later protocol, and messages that are broken;
    /// the reason is traced. Python dies of broken ones, which leaves its user with nothing.
    pub fn parse(bytes: &[u8], limits: &HintLimits) -> Option<DilationMessage> {
        if bytes.len() > MAX_MESSAGE {
            tracing::warn!(length = bytes.len(), "ignored a dilation message that is too long");
            return None;
        }
        let value: Value = match serde_json::from_slice(bytes) {
            Ok(value) => value,
            Err(error) => {
                tracing::warn!(%error, "ignored a dilation message that is not JSON");
                return None;
            }
        };
        let message = match value.get("type").and_then(Value::as_str) {
            Some("please") => value
                .get("side")
                .and_then(Value::as_str)
                .filter(|side| !side.is_empty() && side.len() <= 128)
                .map(|side| DilationMessage::Please {
                    side: side.to_owned(),
                    hears_closing: value.get("hears-closing") == Some(&Value::Bool(true)),
                }),
            Some("connection-hints") => {
                value.get("hints").map(|hints| DilationMessage::Hints(parse_hints(hints, limits)))
            }
            Some("reconnect") => Some(DilationMessage::Reconnect),
            Some("reconnecting") => Some(DilationMessage::Reconnecting),
            Some("closing") => Some(DilationMessage::Closing),
            _ => None,
        };
        if message.is_none() {
            tracing::debug!("ignored a dilation message of an unknown or incomplete kind");
        }
        message
    }

    /// The bytes for the mailbox. Key order and types are those that the Python peers send.
    pub fn encode(&self) -> Vec<u8> {
        let value = match self {
            DilationMessage::Please { side, hears_closing } => {
                let mut please = json!({"type": "please", "side": side, "use-version": crate::GED});
                if *hears_closing {
                    // Python ignores keys that it does not know.
                    please["hears-closing"] = Value::Bool(true);
                }
                please
            }
            DilationMessage::Hints(hints) => {
                json!({"type": "connection-hints", "hints": encode_hints(hints)})
            }
            DilationMessage::Reconnect => json!({"type": "reconnect"}),
            DilationMessage::Reconnecting => json!({"type": "reconnecting"}),
            DilationMessage::Closing => json!({"type": "closing"}),
        };
        value.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Option<DilationMessage> {
        DilationMessage::parse(text.as_bytes(), &HintLimits::default())
    }

    #[test]
    fn reads_what_python_sends() {
        assert_eq!(
            parse(r#"{"type": "please", "side": "0123456789abcdef", "use-version": "ged"}"#),
            Some(DilationMessage::Please { side: "0123456789abcdef".to_owned(), hears_closing: false })
        );
        assert_eq!(parse(r#"{"type": "reconnect"}"#), Some(DilationMessage::Reconnect));
        assert_eq!(parse(r#"{"type": "reconnecting"}"#), Some(DilationMessage::Reconnecting));
        let hints = parse(
            r#"{"type": "connection-hints", "hints": [
                {"type": "direct-tcp-v1", "priority": 0.0, "hostname": "192.0.2.2", "port": 33129},
                {"type": "teleport-v9"}, 17]}"#,
        );
        let Some(DilationMessage::Hints(hints)) = hints else { panic!("not hints: {hints:?}") };
        assert_eq!(hints.len(), 1);
    }

    #[test]
    fn ignores_what_it_must_ignore() {
        for text in [
            "",
            "[]",
            "{}",
            "not json",
            r#"{"type": 5}"#,
            r#"{"type": "please"}"#,
            r#"{"type": "please", "side": 4}"#,
            r#"{"type": "please", "side": ""}"#,
            r#"{"type": "connection-hints"}"#,
            r#"{"type": "wave"}"#,
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        let long = format!(r#"{{"type": "reconnect", "x": "{}"}}"#, "x".repeat(MAX_MESSAGE));
        assert_eq!(parse(&long), None);
    }

    #[test]
    fn survives_its_own_encoding() {
        for message in [
            DilationMessage::Please { side: "ffff000000000000".to_owned(), hears_closing: false },
            DilationMessage::Please { side: "ffff000000000000".to_owned(), hears_closing: true },
            DilationMessage::Closing,
            DilationMessage::Hints(Vec::new()),
            DilationMessage::Reconnect,
            DilationMessage::Reconnecting,
        ] {
            assert_eq!(DilationMessage::parse(&message.encode(), &HintLimits::default()), Some(message));
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = DilationMessage::parse(&bytes, &HintLimits::default());
        }
    }
}
