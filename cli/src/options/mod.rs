//! The command line, and what the options mean for the library.

mod code;
mod config;
mod global;
mod help;
mod pipe;
mod serve;
mod transfer;

use std::{ops::RangeInclusive, path::PathBuf};

use clap::{
    ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, parser::ValueSource,
};

pub(crate) use self::{
    code::CodeWish,
    config::ConfigFile,
    global::{APPID, Global, TRANSFER_APPID},
    help::{completions, man},
    pipe::{BenchOptions, JoinOptions, PipeOptions},
    serve::{DemoOptions, ServeOptions},
    transfer::{ReceiveOptions, SendOptions, TransferOptions},
};
use crate::{bench, doctor, exit, exit::Failure};

/// How many words a code may have.
const CODE_LENGTH: RangeInclusive<i64> = 1..=32;

/// Durable, end-to-end encrypted transfers and pipes between two machines whose people share a short code.
#[derive(Debug, Parser)]
#[command(name = "dilated", version, after_help = exit::HELP, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Log to standard error; twice for more
    #[arg(short, long, global = true, env = "DILATED_VERBOSE", hide_env_values = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send a text, files or directories: prints the code that the other side needs
    #[command(visible_alias = "tx", after_help = exit::HELP)]
    Send(SendOptions),
    /// Receive what the other side sends: with its code, or asking for it
    #[command(visible_alias = "rx", aliases = ["recv", "recieve"], after_help = exit::HELP)]
    Receive(ReceiveOptions),
    /// Standard input and output across a wormhole: alone it prints a code, with a code it joins
    #[command(after_help = exit::HELP)]
    Pipe(PipeOptions),
    /// Measure the link to another machine that runs the same: alone it prints a code, with a code it joins
    #[command(after_help = bench::HELP)]
    Bench(BenchOptions),
    /// Run the servers that two sides meet at
    Serve(ServeOptions),
    /// Show on this machine, without internet, what a dilated wormhole does
    Demo(DemoOptions),
    /// Check what a wormhole from this machine would meet, and give advice
    #[command(after_help = doctor::HELP)]
    Doctor,
    /// Print what makes a shell complete this command's options
    Completions(CompletionsOptions),
    /// Print the manual page, or write those of all commands into a directory
    Man(ManOptions),
}

/// Options of `dilated completions`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompletionsOptions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Options of `dilated man`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ManOptions {
    /// Where the pages are written, one file for each command [default: only the main one, to standard output]
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

impl Cli {
    /// The command line of this process, with what the environment and the configuration file add. Ends the process
    /// when it is not used right, or only help is wanted.
    pub(crate) fn load() -> Result<Cli, Failure> {
        let matches = Cli::command().get_matches();
        let mut cli = Cli::from_matches(&matches)?;
        if !matches!(cli.command, Command::Completions(_) | Command::Man(_)) {
            cli.global.config = ConfigFile::find()?;
            cli.global.config.clone().fill(&mut cli, &matches)?;
        }
        Ok(cli)
    }

    /// What the environment says is weaker than anything on the command line that contradicts it.
    fn from_matches(matches: &ArgMatches) -> Result<Cli, Failure> {
        let mut cli = Cli::from_arg_matches(matches).unwrap_or_else(|error| error.exit());
        let Some((_, matches)) = matches.subcommand() else { return Ok(cli) };
        let is_from = |id: &str, source| matches.value_source(id) == Some(source);
        let said = |id: &str| is_from(id, ValueSource::CommandLine);
        let weak = |id: &str| is_from(id, ValueSource::EnvVariable);
        match &mut cli.command {
            Command::Send(options) => {
                if weak("text") && said("what") {
                    options.text = None;
                }
                options.transfer.forget(weak("code") && said("code_fd"), weak("code_fd") && said("code"));
                options.check()?;
            }
            Command::Receive(options) => {
                let (typed, allocate) = (said("typed"), said("allocate"));
                if weak("allocate") && (typed || said("code") || said("code_fd")) {
                    options.allocate = false;
                }
                options.transfer.forget(
                    weak("code") && (typed || allocate || said("code_fd")),
                    weak("code_fd") && (typed || allocate || said("code")),
                );
            }
            _ => {}
        }
        Ok(cli)
    }
}

/// The options that these arguments give to a command.
#[cfg(test)]
pub(crate) fn global_of(arguments: &[&str]) -> Global {
    let all = ["dilated"].iter().chain(arguments).chain(&["doctor"]);
    Cli::try_parse_from(all).unwrap_or_else(|e| panic!("{e}")).global
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What clap makes of a command line.
    pub(super) fn matches(arguments: &[&str]) -> ArgMatches {
        Cli::command().try_get_matches_from(["dilated"].iter().chain(arguments)).unwrap()
    }

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["dilated"].iter().chain(arguments))
    }

    fn pipe(arguments: &[&str]) -> (Global, PipeOptions) {
        let cli = parse(arguments).unwrap();
        let Command::Pipe(options) = cli.command else { panic!("not a pipe") };
        (cli.global, options)
    }

    #[test]
    fn the_command_line_is_consistent_and_every_option_has_a_variable() {
        let command = Cli::command();
        command.clone().debug_assert();
        let all = command.get_subcommands().flat_map(clap::Command::get_arguments);
        for argument in all.chain(command.get_arguments()) {
            let name = argument.get_id().as_str();
            if !["help", "version", "file", "what", "typed", "shell", "directory"].contains(&name) {
                assert!(argument.get_env().is_some(), "{name} has no environment variable");
            }
        }
    }

    #[test]
    fn sizes() {
        let size = |text: &str| text.parse::<serve::Size>().map(|size| size.0);
        assert_eq!(size("300"), Ok(300));
        assert_eq!(size("256MiB"), Ok(256 << 20));
        assert_eq!(size("20 MB"), Ok(20_000_000));
        assert_eq!(size("1g"), Ok(1 << 30));
        for bad in ["", "MiB", "-1", "1.5MB", "9 parsec", "99999999999999999999", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn relays() {
        let (global, _) = pipe(&["pipe", "--relay", "tcp:one:4001", "--relay", "tcp:two:4001"]);
        assert_eq!(global.dilate_config().unwrap().relays.len(), 2);
        let (global, _) = pipe(&["pipe", "--relay", "none"]);
        assert!(global.dilate_config().unwrap().relays.is_empty());
        let (global, _) = pipe(&["pipe", "--relay", "none,tcp:one:4001"]);
        assert!(global.dilate_config().is_err());
        let (global, _) = pipe(&["pipe"]);
        assert_eq!(global.dilate_config().unwrap().relays, [dilated::PUBLIC_RELAY.parse().unwrap()]);
        assert!(parse(&["pipe", "--relay", "one:4001"]).is_err());
    }

    #[test]
    fn the_other_side_gets_a_command_that_meets_ours() {
        let (global, options) = pipe(&["pipe"]);
        assert_eq!(options.for_the_other_side(&global, "7-a-b"), "dilated pipe 7-a-b");
        let (global, options) =
            pipe(&["--mailbox", "ws://h:1/v1", "--local", "pipe", "--open", "--subprotocol", "a b"]);
        assert_eq!(
            options.for_the_other_side(&global, "7-a-b"),
            "dilated --mailbox ws://h:1/v1 --local pipe --subprotocol 'a b' --listen 7-a-b"
        );
    }

    #[test]
    fn proxies() {
        let proxy = |arguments: &[&str]| {
            let config = global_of(arguments).dilate_config().unwrap();
            assert_eq!(config.listen, config.proxy.is_none(), "whoever listens can be found");
            config.proxy.map(|proxy| proxy.to_string())
        };
        assert_eq!(proxy(&[]), None);
        assert_eq!(proxy(&["--tor"]).as_deref(), Some("tor://127.0.0.1:9050"));
        assert_eq!(proxy(&["--proxy", "socks5://h:7"]).as_deref(), Some("socks5://h:7"));
        assert_eq!(proxy(&["--tor", "--proxy", "socks5://h:7"]).as_deref(), Some("tor://h:7"));
        assert!(parse(&["pipe", "--proxy", "http://h:1"]).is_err());
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(parse(&["pipe", "--open", "--listen"]).is_err());
        assert!(parse(&["serve", "--no-mailbox", "--no-relay"]).is_err());
        assert!(parse(&["demo", "file", "--size", "1"]).is_err());
        assert!(parse(&["bench", "--loopback", "7-a-b"]).is_err());
        assert!(parse(&["bench", "--seconds", "0"]).is_err());
        assert!(parse(&[]).is_err());
    }
}
