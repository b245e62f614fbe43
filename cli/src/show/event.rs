//! What `--json` tells programs: one object per line on standard output. docs/cli.md is its reference.

use serde::Serialize;

use crate::quote;

/// One thing that happened. Readers ignore events and members that they do not know; what is here keeps its meaning.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event {
    /// There is a code, and the other side needs it.
    Code { code: String, command: String, uri: Option<String> },
    /// The other side is here, and has the same code.
    Peer { protocol: Protocol },
    /// What the two people compare, in hexadecimal digits.
    Verifier { verifier: String },
    /// There is a path between the two sides, or another one.
    Connected { path: String },
    /// The path is lost, and another is looked for.
    Lost { reason: String },
    /// Something is offered. A number that is not known beforehand is null.
    Offer { from: Side, kind: Offered, name: Option<String>, files: Option<u64>, bytes: Option<u64> },
    /// How far something is, in bytes that have arrived; `rate` is in bytes per second.
    Progress { name: String, done: u64, total: Option<u64>, rate: u64 },
    /// A file is complete on the receiving side.
    File {
        from: Side,
        /// As the sender named it or as it is put here, with `/` between the parts.
        name: String,
        /// Where this side put it, seen from the directory that it receives into.
        path: Option<String>,
        /// Whether that is not quite the name that the other side gave, which was not safe here.
        altered: bool,
        bytes: u64,
        hash: Option<Hash>,
    },
    /// A text.
    Message { from: Side, text: String },
    /// All is delivered.
    Done { sent: Total, received: Total },
    /// The command failed, with this exit status.
    Failed { status: u8, message: String },
}

/// What the two sides speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// That of the original, on a Transit connection.
    Classic,
    /// Ours, on a dilated wormhole.
    Dilated,
}

/// Which side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Side {
    Us,
    Them,
}

/// What is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Offered {
    Text,
    File,
    Directory,
    /// Several things at once.
    Several,
    /// Data whose length nobody knows yet.
    Stream,
}

/// What a file's content hashes to, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Hash {
    Blake3(String),
    Sha256(String),
}

/// What went in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Total {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl Event {
    /// The line, without its end. Characters that could drive a terminal are escaped, so it may be shown as it is.
    pub(super) fn to_line(&self) -> String {
        let json = serde_json::to_string(self).expect("text, numbers and maps with text keys");
        let mut line = String::with_capacity(json.len());
        for c in json.chars() {
            if quote::is_printable(c) {
                line.push(c);
            } else {
                // Such characters occur in strings only.
                let mut units = [0; 2];
                line.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    const DOCUMENT: &str = include_str!("../../../docs/cli.md");

    /// One of each, with all that it may have.
    fn all() -> Vec<Event> {
        let text = || "x".to_owned();
        vec![
            Event::Code { code: text(), command: text(), uri: Some(text()) },
            Event::Peer { protocol: Protocol::Dilated },
            Event::Verifier { verifier: text() },
            Event::Connected { path: text() },
            Event::Lost { reason: text() },
            Event::Offer {
                from: Side::Them,
                kind: Offered::Directory,
                name: Some(text()),
                files: Some(1),
                bytes: Some(1),
            },
            Event::Progress { name: text(), done: 1, total: Some(2), rate: 1 },
            Event::File {
                from: Side::Us,
                name: text(),
                path: Some(text()),
                altered: false,
                bytes: 1,
                hash: Some(Hash::Blake3(text())),
            },
            Event::Message { from: Side::Them, text: text() },
            Event::Done { sent: Total::default(), received: Total::default() },
            Event::Failed { status: 1, message: text() },
        ]
    }

    /// The members of an object, and of the objects in it.
    fn members(value: &Value, path: &str, into: &mut BTreeSet<String>) {
        if let Value::Object(object) = value {
            for (key, value) in object {
                let path = format!("{path}.{key}");
                members(value, &path, into);
                into.insert(path);
            }
        }
    }

    fn shape(value: &Value) -> (String, BTreeSet<String>) {
        let mut all = BTreeSet::new();
        members(value, "", &mut all);
        (value["event"].as_str().unwrap().to_owned(), all)
    }

    #[test]
    fn the_document_has_an_example_of_each() {
        let examples: Vec<(String, BTreeSet<String>)> = DOCUMENT
            .lines()
            .filter(|line| line.starts_with("{\"event\""))
            .map(|line| shape(&serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))))
            .collect();
        let ours: Vec<_> = all().iter().map(|event| shape(&serde_json::to_value(event).unwrap())).collect();
        for (event, members) in &ours {
            assert!(
                examples.contains(&(event.clone(), members.clone())),
                "no example of {event} with {members:?}"
            );
        }
        for (event, _) in &examples {
            assert!(ours.iter().any(|(known, _)| known == event), "{event} is documented and unknown");
        }
    }

    #[test]
    fn the_document_names_every_word() {
        let words = [
            serde_json::to_value([Protocol::Classic, Protocol::Dilated]),
            serde_json::to_value([Side::Us, Side::Them]),
            serde_json::to_value([
                Offered::Text,
                Offered::File,
                Offered::Directory,
                Offered::Several,
                Offered::Stream,
            ]),
        ];
        for words in words {
            for word in words.unwrap().as_array().unwrap() {
                assert!(DOCUMENT.contains(&format!("`{word}`")), "{word} is not in the document");
            }
        }
        for hash in [Hash::Blake3(String::new()), Hash::Sha256(String::new())] {
            let name =
                serde_json::to_value(hash).unwrap().as_object().unwrap().keys().next().unwrap().clone();
            assert!(DOCUMENT.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn a_line_cannot_drive_a_terminal_and_means_the_same() {
        let text = "a\x1b[2J\u{9b}\u{202e}\n\u{e0041}\u{7f}ü🙈";
        let line = Event::Message { from: Side::Them, text: text.to_owned() }.to_line();
        assert!(line.chars().all(quote::is_printable), "{line:?}");
        assert!(line.contains("ü🙈"), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["text"], text);
    }
}
