//! The messages of the classic file transfer, JSON objects that travel through the mailbox.
//!
//! ```text
//! Sender                          Receiver
//! transit (not for text)   ->
//! offer                    ->
//!                          <-     transit
//!                          <-     answer, or error
//! ```
//!
//! One message may have several members. Members and messages that are not known are ignored, so that programs may
//! add some.

use dilated::transit::{Hint, HintLimits, encode_abilities, encode_hints, parse_hints};
use serde_json::{Map, Value, json};

/// What a message says, as far as it is understood.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Message {
    /// Why the other side gives up.
    pub(super) error: Option<String>,
    /// Where it can be reached.
    pub(super) transit: Option<Vec<Hint>>,
    pub(super) offer: Option<Result<Offer, BadOffer>>,
    pub(super) answer: Option<Answer>,
}

/// What the Sender wants to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Offer {
    Text(String),
    File {
        name: String,
        /// In bytes.
        size: u64,
    },
    /// A directory, as a zip archive.
    Directory {
        name: String,
        /// Of the archive, in bytes.
        archive: u64,
        /// Of all files together, in bytes.
        bytes: u64,
        files: u64,
    },
}

/// Why an offer cannot be taken, as the other side is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadOffer {
    UnknownType,
    UnknownMode,
}

impl BadOffer {
    pub(super) fn reason(self) -> &'static str {
        match self {
            BadOffer::UnknownType => "unknown offer type",
            BadOffer::UnknownMode => "unknown mode",
        }
    }
}

/// The Receiver's answer to an offer that it does not refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// It has the text.
    pub(super) text: bool,
    /// It waits for the file or the archive.
    pub(super) file: bool,
    /// All of it, for when it is neither.
    pub(super) said: String,
}

/// The error that every program sends when its person says no.
pub(super) const REJECTED: &str = "transfer rejected";

impl Message {
    /// Reads a message; nothing if it is no JSON object.
    pub(super) fn parse(bytes: &[u8]) -> Option<Message> {
        let members: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
        let transit = members.get("transit").map(|transit| {
            parse_hints(transit.get("hints-v1").unwrap_or(&Value::Null), &HintLimits::default())
        });
        Some(Message {
            error: members.get("error").map(shown),
            transit,
            offer: members.get("offer").map(Offer::parse),
            answer: members.get("answer").map(Answer::parse),
        })
    }
}

impl Offer {
    fn parse(offer: &Value) -> Result<Offer, BadOffer> {
        let text = offer.get("message").and_then(Value::as_str);
        if let Some(text) = text {
            return Ok(Offer::Text(text.to_owned()));
        }
        let parsed = match (offer.get("file"), offer.get("directory")) {
            (Some(file), _) => Offer::file(file),
            (None, Some(directory)) => {
                let mode = directory.get("mode").and_then(Value::as_str).unwrap_or_default();
                if !mode.starts_with("zipfile") {
                    return Err(BadOffer::UnknownMode);
                }
                Offer::directory(directory)
            }
            (None, None) => None,
        };
        parsed.ok_or(BadOffer::UnknownType)
    }

    fn file(file: &Value) -> Option<Offer> {
        let name = file.get("filename")?.as_str()?.to_owned();
        Some(Offer::File { name, size: file.get("filesize")?.as_u64()? })
    }

    fn directory(directory: &Value) -> Option<Offer> {
        let number = |member: &str| directory.get(member)?.as_u64();
        Some(Offer::Directory {
            name: directory.get("dirname")?.as_str()?.to_owned(),
            archive: number("zipsize")?,
            bytes: number("numbytes")?,
            files: number("numfiles")?,
        })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let offer = match self {
            Offer::Text(text) => json!({ "message": text }),
            Offer::File { name, size } => json!({ "file": { "filename": name, "filesize": size } }),
            Offer::Directory { name, archive, bytes, files } => json!({ "directory": {
                "mode": "zipfile/deflated",
                "dirname": name,
                "zipsize": archive,
                "numbytes": bytes,
                "numfiles": files,
            } }),
        };
        json!({ "offer": offer }).to_string().into_bytes()
    }
}

impl Answer {
    fn parse(answer: &Value) -> Answer {
        let ok = |member: &str| answer.get(member).and_then(Value::as_str) == Some("ok");
        Answer { text: ok("message_ack"), file: ok("file_ack"), said: answer.to_string() }
    }
}

/// The message that tells where this side can be reached.
pub(super) fn transit(
    abilities: &std::collections::BTreeSet<dilated::transit::Ability>,
    hints: &[Hint],
) -> Vec<u8> {
    let transit = json!({ "abilities-v1": encode_abilities(abilities), "hints-v1": encode_hints(hints) });
    json!({ "transit": transit }).to_string().into_bytes()
}

/// The message that this side waits for the file.
pub(super) fn file_answer() -> Vec<u8> {
    json!({ "answer": { "file_ack": "ok" } }).to_string().into_bytes()
}

/// The message that this side has the text.
pub(super) fn text_answer() -> Vec<u8> {
    json!({ "answer": { "message_ack": "ok" } }).to_string().into_bytes()
}

/// The message that this side gives up.
pub(super) fn error(reason: &str) -> Vec<u8> {
    json!({ "error": reason }).to_string().into_bytes()
}

/// The record that follows the data: the Receiver has them.
pub(super) fn acknowledgement(sha256: &str) -> Vec<u8> {
    json!({ "ack": "ok", "sha256": sha256 }).to_string().into_bytes()
}

/// Checks the record of the Receiver against the hash of what was sent; a Receiver may leave its hash away.
pub(super) fn check_acknowledgement(record: &[u8], sha256: &str) -> Result<(), String> {
    let said: Value = serde_json::from_slice(record).map_err(|_| "it is no JSON".to_owned())?;
    if said.get("ack").and_then(Value::as_str) != Some("ok") {
        return Err(format!("it said {said}"));
    }
    match said.get("sha256") {
        None => Ok(()),
        Some(theirs) if theirs.as_str().is_some_and(|theirs| theirs.eq_ignore_ascii_case(sha256)) => Ok(()),
        Some(_) => Err("it received something else than was sent".to_owned()),
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(value: &Value) -> Message {
        Message::parse(value.to_string().as_bytes()).unwrap()
    }

    fn offer(value: &Value) -> Result<Offer, BadOffer> {
        parse(&json!({ "offer": value })).offer.unwrap()
    }

    #[test]
    fn messages_of_the_released_program_are_understood() {
        let transit = json!({ "transit": {
            "abilities-v1": [{"type": "direct-tcp-v1"}, {"type": "relay-v1"}],
            "hints-v1": [{"type": "direct-tcp-v1", "priority": 0.0, "hostname": "192.0.2.2", "port": 33129}],
        } });
        let hint = Hint::Direct("tcp:192.0.2.2:33129".parse().unwrap());
        assert_eq!(parse(&transit), Message { transit: Some(vec![hint]), ..Message::default() });
        let file = json!({ "file": { "filename": "f", "filesize": 100_000 } });
        assert_eq!(offer(&file), Ok(Offer::File { name: "f".to_owned(), size: 100_000 }));
        let directory = json!({ "directory": {
            "mode": "zipfile/deflated", "dirname": "d", "zipsize": 240, "numbytes": 6, "numfiles": 2,
        } });
        let expected = Offer::Directory { name: "d".to_owned(), archive: 240, bytes: 6, files: 2 };
        assert_eq!(offer(&directory), Ok(expected));
        assert_eq!(offer(&json!({ "message": "hi" })), Ok(Offer::Text("hi".to_owned())));
        let answer = parse(&json!({ "answer": { "file_ack": "ok", "more": [1] } })).answer.unwrap();
        assert!(answer.file && !answer.text);
        assert_eq!(parse(&json!({ "error": "transfer rejected" })).error.as_deref(), Some(REJECTED));
    }

    #[test]
    fn what_is_sent_is_understood_by_the_other_side() {
        for offered in [
            Offer::Text("grüße\n\u{1b}".to_owned()),
            Offer::File { name: "a b".to_owned(), size: 1 << 60 },
            Offer::Directory { name: "d".to_owned(), archive: 22, bytes: 0, files: 0 },
        ] {
            let message = Message::parse(&offered.to_bytes()).unwrap();
            assert_eq!(message, Message { offer: Some(Ok(offered)), ..Message::default() });
        }
        let [text, file] =
            [text_answer(), file_answer()].map(|m| Message::parse(&m).unwrap().answer.unwrap());
        assert!(text.text && !text.file && file.file && !file.text);
        assert_eq!(Message::parse(&error("no")).unwrap().error.as_deref(), Some("no"));
    }

    #[test]
    fn several_members_and_unknown_ones() {
        let both = parse(&json!({ "transit": {}, "offer": { "message": "x", "colour": 1 }, "new": {} }));
        assert_eq!(both.transit, Some(vec![]));
        assert_eq!(both.offer, Some(Ok(Offer::Text("x".to_owned()))));
        assert_eq!(parse(&json!({ "new": 1 })), Message::default());
        assert_eq!(Message::parse(b"[]"), None);
        assert_eq!(Message::parse(b"\xff"), None);
        assert_eq!(parse(&json!({ "error": { "code": 1 } })).error.as_deref(), Some("{\"code\":1}"));
    }

    #[test]
    fn offers_that_make_no_sense_are_refused() {
        let directory = |mode: &str, size: Value| json!({ "directory": { "mode": mode, "dirname": "d", "zipsize": size, "numbytes": 1, "numfiles": 1 } });
        assert_eq!(offer(&directory("tarball", json!(1))), Err(BadOffer::UnknownMode));
        for strange in [
            json!({}),
            json!([]),
            json!({ "message": 1 }),
            json!({ "blob": {} }),
            json!({ "file": { "filename": "f" } }),
            json!({ "file": { "filename": 1, "filesize": 1 } }),
            json!({ "file": { "filename": "f", "filesize": -1 } }),
            json!({ "file": { "filename": "f", "filesize": 1.5 } }),
            directory("zipfile", json!(-1)),
            directory("zipfile", json!("1")),
        ] {
            assert_eq!(offer(&strange), Err(BadOffer::UnknownType), "{strange}");
        }
    }

    #[test]
    fn the_acknowledgement_is_checked() {
        let hash = "ab".repeat(32);
        assert_eq!(check_acknowledgement(&acknowledgement(&hash), &hash), Ok(()));
        assert_eq!(check_acknowledgement(br#"{"ack":"ok","more":1}"#, &hash), Ok(()));
        for bad in [
            &b"x"[..],
            b"{}",
            br#"{"ack":"no"}"#,
            br#"{"ack":"ok","sha256":"00"}"#,
            br#"{"ack":"ok","sha256":1}"#,
        ] {
            assert!(check_acknowledgement(bad, &hash).is_err());
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), json in ".{0,80}") {
            let _ = Message::parse(&bytes);
            let _ = Message::parse(format!("{{\"offer\":{json}}}").as_bytes());
        }
    }
}
