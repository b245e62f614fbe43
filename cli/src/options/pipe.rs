//! Options of `dilated pipe` and `dilated bench`.

use clap::{Args, builder::FalseyValueParser};

use super::Global;
use crate::quote;

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
