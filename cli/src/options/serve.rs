//! Options of `dilated serve` and `dilated demo`.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{Args, builder::FalseyValueParser};

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
