//! The command line, and what the options mean for the library.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{ArgAction, Args, Parser, Subcommand, builder::FalseyValueParser};
use dilated::{DilateConfig, RelayHint, Wormhole, WormholeBuilder, WormholeError};
use serde_json::Value;

use crate::{bench, doctor, exit, exit::Failure, quote};

/// The application that `dilated pipe` is, unless told otherwise. A Python program at the far end passes the same
/// string to `wormhole.create`.
pub(crate) const APPID: &str = "dilated.dev/pipe";

/// Durable, end-to-end encrypted pipes between two machines whose people share a short code.
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
}

/// Options of every command that makes a wormhole.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Wormhole options (pipe, bench, doctor)")]
pub(crate) struct Global {
    /// Mailbox server to meet at, ws://host:port/v1 or wss://…; of several the later stand in for the first, so name
    /// the same in the same order on both sides [default: the public one]
    #[arg(
        long,
        global = true,
        env = "DILATED_MAILBOX",
        hide_env_values = true,
        value_name = "URL",
        value_delimiter = ','
    )]
    pub(crate) mailbox: Vec<String>,
    /// Relay for when no direct connection is possible, tcp:host:port, repeatable, or `none` [default: the public one]
    #[arg(
        long,
        global = true,
        env = "DILATED_RELAY",
        hide_env_values = true,
        value_name = "HINT",
        value_delimiter = ','
    )]
    pub(crate) relay: Vec<RelayOption>,
    /// Application identifier; only sides with the same meet
    #[arg(long, global = true, env = "DILATED_APPID", hide_env_values = true, value_name = "APPID", default_value = APPID)]
    pub(crate) appid: String,
    /// Do not listen for direct connections, and tell the other side no address of this machine
    #[arg(long, global = true, env = "DILATED_NO_LISTEN", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub(crate) no_listen: bool,
    /// Advertise loopback addresses too, for two sides on one machine
    #[arg(long, global = true, env = "DILATED_LOCAL", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub(crate) local: bool,
    /// Keep a second path ready, which takes over at once when the first one fails
    #[arg(long, global = true, env = "DILATED_STANDBY", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub(crate) standby: bool,
    /// Before data flows, show the verifier and ask on the terminal whether the other side sees the same
    #[arg(long, global = true, env = "DILATED_VERIFY", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub(crate) verify: bool,
}

/// How to find the other side.
#[derive(Debug, Clone, Args)]
pub(crate) struct JoinOptions {
    /// The code that the other side printed. In the environment other users of this machine cannot see it
    #[arg(env = "DILATED_CODE", hide_env_values = true)]
    pub(crate) code: Option<String>,
    /// Words in the code that is printed
    #[arg(long, env = "DILATED_CODE_LENGTH", hide_env_values = true, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) code_length: u8,
}

/// Options of `dilated pipe`.
#[derive(Debug, Clone, Args)]
pub(crate) struct PipeOptions {
    #[command(flatten)]
    pub(crate) join: JoinOptions,
    /// Name of the subprotocol, which both sides must agree on
    #[arg(
        long,
        env = "DILATED_SUBPROTOCOL",
        hide_env_values = true,
        value_name = "NAME",
        default_value = "pipe"
    )]
    pub(crate) subprotocol: String,
    /// Open the stream, for a far end that only listens [default: the side that joins opens]
    #[arg(long, env = "DILATED_OPEN", hide_env_values = true, value_parser = FalseyValueParser::new(), conflicts_with = "listen")]
    pub(crate) open: bool,
    /// Wait for the other side to open the stream
    #[arg(long, env = "DILATED_LISTEN", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub(crate) listen: bool,
}

/// Options of `dilated bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchOptions {
    #[command(flatten)]
    pub(crate) join: JoinOptions,
    /// How long to send in each direction, in seconds; of two sides the longer counts
    #[arg(long, env = "DILATED_BENCH_SECONDS", hide_env_values = true, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(1..=60))]
    pub(crate) seconds: u8,
    /// Measure this machine alone: both sides in this process, without internet
    #[arg(long, env = "DILATED_BENCH_LOOPBACK", hide_env_values = true, value_parser = FalseyValueParser::new(), conflicts_with = "code")]
    pub(crate) loopback: bool,
}

/// Options of `dilated serve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeOptions {
    /// Address of the mailbox server; port 0 takes a free one
    #[arg(
        long,
        env = "DILATED_MAILBOX_LISTEN",
        hide_env_values = true,
        value_name = "ADDR",
        default_value = "0.0.0.0:4000"
    )]
    pub(crate) mailbox_listen: SocketAddr,
    /// Address of the relay; port 0 takes a free one
    #[arg(
        long,
        env = "DILATED_RELAY_LISTEN",
        hide_env_values = true,
        value_name = "ADDR",
        default_value = "0.0.0.0:4001"
    )]
    pub(crate) relay_listen: SocketAddr,
    /// Run only the relay
    #[arg(long, env = "DILATED_NO_MAILBOX", hide_env_values = true, value_parser = FalseyValueParser::new(), conflicts_with = "no_relay")]
    pub(crate) no_mailbox: bool,
    /// Run only the mailbox server
    #[arg(long, env = "DILATED_NO_RELAY", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub(crate) no_relay: bool,
    /// Keep the mailboxes in this SQLite file, so that a restart is invisible to clients [default: in memory]
    #[arg(long, env = "DILATED_DATABASE", hide_env_values = true, value_name = "FILE")]
    pub(crate) database: Option<PathBuf>,
    /// A message that clients show to their users
    #[arg(long, env = "DILATED_MOTD", hide_env_values = true, value_name = "TEXT")]
    pub(crate) motd: Option<String>,
    /// Do not tell clients which nameplates are in use; their completion is lost
    #[arg(long, env = "DILATED_NO_LIST", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub(crate) no_list: bool,
    /// Believe a reverse proxy's X-Real-IP. Without such a proxy anybody could claim any address
    #[arg(long, env = "DILATED_TRUST_REAL_IP", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub(crate) trust_real_ip: bool,
    /// Connections at a time, for each of the two servers
    #[arg(long, env = "DILATED_MAX_CONNECTIONS", hide_env_values = true, value_name = "N")]
    pub(crate) max_connections: Option<usize>,
    /// Connections of one address at a time, for each of the two servers
    #[arg(long, env = "DILATED_MAX_PER_ADDRESS", hide_env_values = true, value_name = "N")]
    pub(crate) max_per_address: Option<usize>,
}

/// Options of `dilated demo`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoOptions {
    /// The file to send [default: one is made up]
    pub(crate) file: Option<PathBuf>,
    /// Size of the file that is made up
    #[arg(
        long,
        env = "DILATED_DEMO_SIZE",
        hide_env_values = true,
        value_name = "SIZE",
        default_value = "256MiB",
        conflicts_with = "file"
    )]
    pub(crate) size: Size,
    /// Force the way through the relay, as between two machines that cannot reach each other
    #[arg(long, env = "DILATED_DEMO_RELAYED", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub(crate) relayed: bool,
    /// Keep the received file in this directory
    #[arg(long, env = "DILATED_DEMO_KEEP", hide_env_values = true, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

impl Global {
    /// Starts a wormhole with these options.
    pub(crate) fn wormhole(&self, about: Value) -> Result<Wormhole, WormholeError> {
        let builder = Wormhole::builder(&self.appid).app_versions(about);
        self.mailboxes().fold(builder, WormholeBuilder::mailbox).build()
    }

    /// The mailbox servers that were named; with none, the library uses the public ones.
    pub(crate) fn mailboxes(&self) -> impl Iterator<Item = &str> {
        self.mailbox.iter().map(|url| url.trim()).filter(|url| !url.is_empty())
    }

    /// How these options dilate.
    pub(crate) fn dilate_config(&self) -> Result<DilateConfig, Failure> {
        let mut config = DilateConfig::default();
        config.listen = !self.no_listen;
        config.loopback = self.local;
        config.standby = self.standby;
        if !self.relay.is_empty() {
            config.relays = self.relays()?;
        }
        Ok(config)
    }

    fn relays(&self) -> Result<Vec<RelayHint>, Failure> {
        let hints: Vec<RelayHint> = self.relay.iter().filter_map(|option| option.0.clone()).collect();
        if hints.len() < self.relay.len() && self.relay.len() > 1 {
            return Err(Failure::usage(
                "--relay none means that there is no relay; leave the other --relay away",
            ));
        }
        Ok(hints)
    }

    /// The options that the other side needs as well, quoted for a shell.
    pub(crate) fn for_the_other_side(&self) -> String {
        let mut words = String::new();
        let mut add = |option: &str, value: &str| {
            words.push(' ');
            words.push_str(option);
            if !value.is_empty() {
                words.push(' ');
                words.push_str(&quote::shell(value));
            }
        };
        for url in &self.mailbox {
            add("--mailbox", url);
        }
        for relay in &self.relay {
            add("--relay", &relay.to_string());
        }
        if self.appid != APPID {
            add("--appid", &self.appid);
        }
        if self.local {
            add("--local", "");
        }
        if self.verify {
            add("--verify", "");
        }
        words
    }
}

impl JoinOptions {
    /// The code, if one was given; an empty variable in the environment is none.
    pub(crate) fn code(&self) -> Option<&str> {
        self.code.as_deref().map(str::trim).filter(|code| !code.is_empty())
    }
}

impl PipeOptions {
    /// The command that the other side types, given these options and the code.
    pub(crate) fn for_the_other_side(&self, global: &Global, code: &str) -> String {
        let mut command = format!("dilated{} pipe", global.for_the_other_side());
        if self.subprotocol != "pipe" {
            command.push_str(" --subprotocol ");
            command.push_str(&quote::shell(&self.subprotocol));
        }
        if self.open {
            command.push_str(" --listen");
        }
        format!("{command} {}", quote::shell(code))
    }
}

impl BenchOptions {
    /// The command that the other side types, given the code.
    pub(crate) fn for_the_other_side(global: &Global, code: &str) -> String {
        format!("dilated{} bench {}", global.for_the_other_side(), quote::shell(code))
    }
}

/// A relay, or the word that there is none.
#[derive(Debug, Clone)]
pub(crate) struct RelayOption(Option<RelayHint>);

impl FromStr for RelayOption {
    type Err = String;

    fn from_str(text: &str) -> Result<RelayOption, String> {
        match text.trim() {
            "none" => Ok(RelayOption(None)),
            hint => hint.parse().map(|hint| RelayOption(Some(hint))).map_err(|e| format!("{e}")),
        }
    }
}

impl std::fmt::Display for RelayOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            None => f.write_str("none"),
            Some(hint) => hint.fmt(f),
        }
    }
}

/// A number of bytes, written as `300`, `20MB` or `256MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: Option<u64> = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => Some(1),
            "k" | "kib" => Some(1 << 10),
            "m" | "mib" => Some(1 << 20),
            "g" | "gib" => Some(1 << 30),
            "kb" => Some(1_000),
            "mb" => Some(1_000_000),
            "gb" => Some(1_000_000_000),
            _ => None,
        };
        let size = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(factor));
        size.map(Size).ok_or_else(|| "write a size as 300, 20MB or 256MiB".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

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
            if !["help", "version", "file"].contains(&name) {
                assert!(argument.get_env().is_some(), "{name} has no environment variable");
            }
        }
    }

    #[test]
    fn sizes() {
        let size = |text: &str| text.parse::<Size>().map(|size| size.0);
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
    fn contradictions_are_refused() {
        assert!(parse(&["pipe", "--open", "--listen"]).is_err());
        assert!(parse(&["serve", "--no-mailbox", "--no-relay"]).is_err());
        assert!(parse(&["demo", "file", "--size", "1"]).is_err());
        assert!(parse(&["bench", "--loopback", "7-a-b"]).is_err());
        assert!(parse(&["bench", "--seconds", "0"]).is_err());
        assert!(parse(&[]).is_err());
    }
}
