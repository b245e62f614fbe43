//! Two people compare the verifier, on the terminal, since standard input is data.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
};

use tokio::sync::oneshot;

use crate::{
    exit::{Failure, Kind},
    status::Report,
};

/// The terminal that the process belongs to, whatever its standard streams are.
#[derive(Debug)]
pub(crate) struct Terminal(File);

impl Terminal {
    /// Opens it before anything begins, because without it nobody can answer.
    pub(crate) fn open() -> Result<Terminal, Failure> {
        OpenOptions::new().read(true).write(true).open("/dev/tty").map(Terminal).map_err(|_| {
            Failure::usage(
                "--verify has to ask a question, and there is no terminal to ask it on; leave --verify away",
            )
        })
    }

    /// Shows the verifier and waits for an answer.
    pub(crate) async fn ask(self, verifier: &[u8; 32], report: &Report) -> Result<(), Failure> {
        report.line(format_args!("the verifier is {}", show(verifier)));
        let (sender, answer) = oneshot::channel();
        // A thread that the process does not wait for: the question may be interrupted.
        let asked = std::thread::Builder::new().name("tty".to_owned()).spawn(move || {
            let _ = sender.send(self.question());
        });
        let answer = match asked {
            Ok(_) => answer.await.unwrap_or(Ok(false)),
            Err(error) => Err(error),
        };
        match answer {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::new(Kind::Code, "the verifier was not confirmed; nothing was sent")),
            Err(error) => Err(Failure::io("could not ask on the terminal", &error)),
        }
    }

    fn question(mut self) -> std::io::Result<bool> {
        loop {
            self.0.write_all(b"Does the other side show the same verifier? [yes/no] ")?;
            let mut line = String::new();
            if BufReader::new(&self.0).read_line(&mut line)? == 0 {
                return Ok(false);
            }
            if let Some(answer) = understand(&line) {
                return Ok(answer);
            }
        }
    }
}

fn understand(answer: &str) -> Option<bool> {
    match answer.trim().to_lowercase().as_str() {
        "yes" | "y" => Some(true),
        "no" | "n" => Some(false),
        _ => None,
    }
}

/// In groups, for people who read it to each other; the digits are those that other programs show.
fn show(verifier: &[u8; 32]) -> String {
    let groups: Vec<String> = verifier.chunks(4).map(|group| data_encoding::HEXLOWER.encode(group)).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clear_answers_count() {
        assert_eq!(understand("YES\n"), Some(true));
        assert_eq!(understand("n\r\n"), Some(false));
        assert_eq!(understand("\n"), None);
        assert_eq!(understand("yes?"), None);
    }

    #[test]
    fn the_verifier_is_grouped() {
        let shown = show(&[0xab; 32]);
        assert_eq!(shown.len(), 64 + 7);
        assert!(shown.starts_with("abababab abababab "));
    }
}
