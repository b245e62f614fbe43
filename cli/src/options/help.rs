//! What is made of the description of the command line: completions for shells, and manual pages.

use std::{io, path::Path};

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;
use crate::{exit::Failure, status::Report};

/// Prints the script that makes `shell` complete this command.
pub(crate) fn completions(shell: Shell, report: &Report) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "dilated", &mut script);
    print(&script, report)
}

/// Prints the main manual page, or writes all pages into a directory, which is made if it is missing.
pub(crate) fn man(directory: Option<&Path>, report: &Report) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::io("could not write the manual pages", &e);
    let command = Cli::command();
    match directory {
        None => {
            let mut page = Vec::new();
            Man::new(command).render(&mut page).map_err(failed)?;
            print(&page, report)
        }
        Some(directory) => {
            std::fs::create_dir_all(directory).map_err(failed)?;
            clap_mangen::generate_to(command, directory).map_err(failed)
        }
    }
}

fn print(text: &[u8], report: &Report) -> Result<(), Failure> {
    report.output(String::from_utf8_lossy(text).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../../docs/cli.md");

    /// Whether the document has `word` in code, alone or with what belongs to it.
    fn documented(word: &str) -> bool {
        DOCUMENT.contains(&format!("`{word}`")) || DOCUMENT.contains(&format!("`{word} "))
    }

    #[test]
    fn the_document_has_every_command_option_and_variable() {
        let root = Cli::command();
        let all = std::iter::once(&root).chain(root.get_subcommands());
        for command in all {
            let name = command.get_name();
            assert!(name == "dilated" || documented(&format!("dilated {name}")), "{name}");
            for alias in command.get_visible_aliases() {
                assert!(documented(alias), "{alias} of {name}");
            }
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                let long = argument.get_long_and_visible_aliases().unwrap_or_default();
                let long = long.into_iter().map(|long| format!("--{long}"));
                let short = argument.get_short().map(|short| format!("-{short}"));
                let variable = argument.get_env().map(|name| name.to_str().unwrap().to_owned());
                for word in long.chain(short).chain(variable) {
                    assert!(documented(&word), "{word} of {name}");
                }
            }
        }
        assert!(documented(super::super::config::VARIABLE));
    }

    #[test]
    fn the_document_has_no_option_and_variable_that_is_unknown() {
        let mut known: Vec<String> = vec![super::super::config::VARIABLE.to_owned()];
        let root = Cli::command();
        for argument in
            root.get_arguments().chain(root.get_subcommands().flat_map(clap::Command::get_arguments))
        {
            let long = argument.get_long_and_visible_aliases().unwrap_or_default();
            known.extend(long.into_iter().map(|long| format!("--{long}")));
            known.extend(argument.get_env().map(|name| name.to_str().unwrap().to_owned()));
        }
        let (ours, _differences) = DOCUMENT.split_once("Differences:").unwrap();
        let rows = ours.split('`').skip(1).step_by(2).filter_map(|code| code.split(' ').next());
        for word in rows.filter(|word| word.starts_with("--") || word.starts_with("DILATED_")) {
            let built_in = ["--help", "--version"].contains(&word);
            assert!(built_in || known.iter().any(|known| known == word), "{word}");
        }
    }

    #[test]
    fn the_document_has_every_exit_status() {
        for line in crate::exit::HELP.lines().skip(1) {
            let (status, meaning) = line.trim().split_once("  ").unwrap();
            assert!(DOCUMENT.contains(&format!("| {status} | {meaning} |")), "{line}");
        }
    }

    #[test]
    fn completions_and_pages_are_of_this_command() {
        for shell in <Shell as clap::ValueEnum>::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "dilated", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("ignore-unsendable-files"), "{shell}");
            assert!(documented(&shell.to_string()), "{shell}");
        }
        let folder = tempfile::tempdir().unwrap();
        let pages = folder.path().join("new");
        man(Some(&pages), &Report::new()).unwrap();
        for command in Cli::command().get_subcommands() {
            let page =
                std::fs::read_to_string(pages.join(format!("dilated-{}.1", command.get_name()))).unwrap();
            assert!(page.contains(".TH"), "{}", command.get_name());
        }
        assert!(pages.join("dilated.1").exists());
    }
}
