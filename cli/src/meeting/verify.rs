//! Two people compare the verifier, on the terminal, since standard input is data.

use crate::{
    exit::{Failure, Kind},
    show::Terminal,
    status::Report,
};

/// Opens the terminal before anything begins, because without it nobody can answer.
pub(super) fn open() -> Result<Terminal, Failure> {
    Terminal::open().map_err(|_| {
        Failure::usage(
            "--verify has to ask a question, and there is no terminal to ask it on; leave --verify away",
        )
    })
}

/// Shows the verifier and waits for an answer.
pub(super) async fn ask(terminal: Terminal, verifier: &[u8; 32], report: &Report) -> Result<(), Failure> {
    report.line(format_args!("the verifier is {}", show(verifier)));
    let _held = report.hold();
    match terminal.ask("Does the other side show the same verifier?".to_owned(), None).await? {
        true => Ok(()),
        false => Err(Failure::new(Kind::Code, "the verifier was not confirmed; nothing was sent")),
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
    fn the_verifier_is_grouped() {
        let shown = show(&[0xab; 32]);
        assert_eq!(shown.len(), 64 + 7);
        assert!(shown.starts_with("abababab abababab "));
    }
}
