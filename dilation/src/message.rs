//! The messages of the control conversation: JSON in the mailbox phases `dilate-0`, `dilate-1`, …
//! (specification `ged`, section "Messages"; specification `dilated-1`, section "Messages of the mailbox").

use dilated_transit::{Hint, HintLimits, encode_hints, parse_hints};
use serde_json::{Value, json};

use crate::{
    dialect::{Dialect, Parameters},
    generation::Generation,
};

/// Longest message that is parsed. The mailbox client caps messages too; this holds when it is used alone.
const MAX_MESSAGE: usize = 256 * 1024;

/// What one side says to the other about the link.
#[derive(Debug, Clone, PartialEq)]
pub enum DilationMessage {
    /// "I want to dilate, and this is my side."
    Please {
        /// Compared with ours to find the Leader.
        side: String,
        /// The dialect that the sender would choose; `None` for one that we do not know.
        use_version: Option<Dialect>,
        /// What the sender says of itself for `dilated-1`. Only for a peer that offers that.
        parameters: Option<Parameters>,
        /// Whether the sender understands [`DilationMessage::Closing`].
        hears_closing: bool,
    },
    /// Where the sender can be reached.
    Hints {
        /// Its addresses and relays.
        hints: Vec<Hint>,
        /// Its generation; only in `dilated-1`.
        generation: Option<Generation>,
    },
    /// The Leader asks for a new generation; only in `ged`.
    Reconnect,
    /// The Follower has begun the generation that the Leader asked for; only in `ged`.
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
                    use_version: value
                        .get("use-version")
                        .and_then(Value::as_str)
                        .and_then(Dialect::from_name),
                    parameters: value
                        .get(Dialect::Dilated1.name())
                        .map(|parameters| Parameters::parse(Some(parameters))),
                    hears_closing: value.get("hears-closing") == Some(&Value::Bool(true)),
                }),
            Some("connection-hints") => value.get("hints").map(|hints| DilationMessage::Hints {
                hints: parse_hints(hints, limits),
                generation: value.get("generation").and_then(Value::as_u64).map(Generation::new),
            }),
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
            DilationMessage::Please { side, use_version, parameters, hears_closing } => {
                let mut please = json!({"type": "please", "side": side});
                if let Some(dialect) = use_version {
                    please["use-version"] = Value::from(dialect.name());
                }
                if let Some(parameters) = parameters {
                    please[Dialect::Dilated1.name()] = parameters.encode();
                }
                if *hears_closing {
                    // Python ignores keys that it does not know.
                    please["hears-closing"] = Value::Bool(true);
                }
                please
            }
            DilationMessage::Hints { hints, generation } => {
                let mut message = json!({"type": "connection-hints", "hints": encode_hints(hints)});
                if let Some(generation) = generation {
                    message["generation"] = Value::from(generation.get());
                }
                message
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

    fn please(side: &str) -> DilationMessage {
        DilationMessage::Please {
            side: side.to_owned(),
            use_version: Some(Dialect::Ged),
            parameters: None,
            hears_closing: false,
        }
    }

    fn parse(text: &str) -> Option<DilationMessage> {
        DilationMessage::parse(text.as_bytes(), &HintLimits::default())
    }

    #[test]
    fn reads_what_python_sends() {
        assert_eq!(
            parse(r#"{"type": "please", "side": "0123456789abcdef", "use-version": "ged"}"#),
            Some(please("0123456789abcdef"))
        );
        assert_eq!(parse(r#"{"type": "reconnect"}"#), Some(DilationMessage::Reconnect));
        assert_eq!(parse(r#"{"type": "reconnecting"}"#), Some(DilationMessage::Reconnecting));
        let hints = parse(
            r#"{"type": "connection-hints", "hints": [
                {"type": "direct-tcp-v1", "priority": 0.0, "hostname": "192.0.2.2", "port": 33129},
                {"type": "teleport-v9"}, 17]}"#,
        );
        let Some(DilationMessage::Hints { hints, generation: None }) = hints else {
            panic!("not hints: {hints:?}")
        };
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
            please("ffff000000000000"),
            DilationMessage::Please {
                side: "ffff000000000000".to_owned(),
                use_version: Some(Dialect::Dilated1),
                parameters: Some(Parameters { aes: true, ..Parameters::default() }),
                hears_closing: true,
            },
            DilationMessage::Closing,
            DilationMessage::Hints { hints: Vec::new(), generation: None },
            DilationMessage::Hints { hints: Vec::new(), generation: Some(Generation::new(7)) },
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
