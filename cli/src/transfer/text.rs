//! Texts, in and out.

use std::io::{self, IsTerminal, Read};

use crate::{
    exit::Failure,
    quote::is_printable,
    show::{Event, Show, Side},
};

/// The longest text that is read from standard input, in bytes.
const LONGEST: u64 = 256 * 1024;

/// Shows a text of the other side on standard output: to a program as it is, on a terminal so that it drives nothing.
pub(super) fn show(show: &Show, text: &str) -> Result<(), Failure> {
    show.event(&Event::Message { from: Side::Them, text: text.to_owned() });
    if show.is_json() {
        return Ok(());
    }
    if io::stdout().is_terminal() { show.report().output(readable(text)) } else { show.report().output(text) }
}

/// All that standard input has. Blocks.
pub(super) fn read_all() -> Result<String, Failure> {
    read(io::stdin().lock())
}

fn read(input: impl Read) -> Result<String, Failure> {
    let mut text = Vec::new();
    input.take(LONGEST + 1).read_to_end(&mut text).map_err(|error| unreadable(&error))?;
    if text.len() as u64 > LONGEST {
        return Err(Failure::usage("the text is too long; send it as a file (`-` without --text)"));
    }
    String::from_utf8(text)
        .map_err(|_| Failure::usage("standard input is not UTF-8; send it as a file (`-` without --text)"))
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::io("could not read standard input", error)
}

/// Escapes all that could drive or deceive a terminal, but keeps the lines.
fn readable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\n' | '\t') || is_printable(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_unicode());
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_keeps_its_lines_and_drives_nothing() {
        assert_eq!(readable("one\n\ttwo\r\u{1b}[2J\u{202e}"), "one\n\ttwo\\u{d}\\u{1b}[2J\\u{202e}");
        let long = "x".repeat(10_000);
        assert_eq!(readable(&long), long);
    }

    #[test]
    fn input_that_is_no_text_is_refused() {
        assert_eq!(read(&b"grue\xc3\x9fe\n"[..]).unwrap(), "grueße\n");
        assert!(read(&b"\xff"[..]).is_err());
        assert!(read(io::repeat(b'x')).is_err());
    }
}
