//! Options of every command that makes a wormhole, and what they mean for the library.

use std::{fmt, str::FromStr};

use clap::{Args, builder::FalseyValueParser};
use dilated::{DilateConfig, Proxy, RelayHint, Wormhole, WormholeBuilder, WormholeError};
use serde_json::Value;

use super::ConfigFile;
use crate::{exit::Failure, quote};

/// The application that `dilated pipe` is, unless told otherwise. A Python program at the far end passes the same
/// string to `wormhole.create`.
pub(crate) const APPID: &str = "dilated.dev/pipe";

/// The application that `dilated send` and `dilated receive` are, which is that of every wormhole that sends files.
pub(crate) const TRANSFER_APPID: &str = "lothar.com/wormhole/text-or-file-xfer";

/// Where Tor is, unless told otherwise.
const TOR: &str = "tor://127.0.0.1";

/// Options of every command that makes a wormhole.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Wormhole options (send, receive, pipe, bench, doctor)")]
pub(crate) struct Global {
    /// Mailbox server to meet at, ws://host:port/v1 or wss://…; of several the later stand in for the first, so name
    /// the same in the same order on both sides [default: the public one]
    #[arg(
        long,
        global = true,
        env = "DILATED_MAILBOX",
        hide_env_values = true,
        value_name = "URL",
        value_delimiter = ',',
        visible_alias = "relay-url",
        alias = "rendezvous-server"
    )]
    pub(crate) mailbox: Vec<String>,
    /// Relay for when no direct connection is possible, tcp:host:port, repeatable, or `none` [default: the public one]
    #[arg(
        long,
        global = true,
        env = "DILATED_RELAY",
        hide_env_values = true,
        value_name = "HINT",
        value_delimiter = ',',
        visible_alias = "transit-helper",
        alias = "relay-server"
    )]
    pub(crate) relay: Vec<RelayOption>,
    /// Application identifier; only sides with the same meet [default: one for send and receive, another for pipe and
    /// bench]
    #[arg(long, global = true, env = "DILATED_APPID", hide_env_values = true, value_name = "APPID")]
    pub(crate) appid: Option<String>,
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
    /// SOCKS5 proxy for every connection, socks5://host:port; then nothing listens, and no address is told
    #[arg(long, global = true, env = "DILATED_PROXY", hide_env_values = true, value_name = "URL")]
    pub(crate) proxy: Option<Proxy>,
    /// Connect through the Tor that runs on this machine, at port 9050 unless --proxy says otherwise
    #[arg(long, global = true, env = "DILATED_TOR", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub(crate) tor: bool,
    /// Where some of it may come from.
    #[arg(skip)]
    pub(crate) config: ConfigFile,
}

impl Global {
    /// Starts a wormhole with these options, of the application `default` unless they name another.
    pub(crate) fn wormhole(&self, default: &str, about: Value) -> Result<Wormhole, WormholeError> {
        let builder = self.builder(default).app_versions(about);
        self.mailboxes().fold(builder, WormholeBuilder::mailbox).build()
    }

    /// What every wormhole begins with: the application, and the proxy.
    pub(crate) fn builder(&self, default: &str) -> WormholeBuilder {
        let builder = Wormhole::builder(self.appid(default));
        match self.proxy() {
            Some(proxy) => builder.proxy(proxy),
            None => builder,
        }
    }

    /// The application, `default` unless the options name another.
    pub(crate) fn appid<'a>(&'a self, default: &'a str) -> &'a str {
        self.appid.as_deref().filter(|appid| !appid.is_empty()).unwrap_or(default)
    }

    /// The proxy that every connection goes through, if any.
    pub(crate) fn proxy(&self) -> Option<Proxy> {
        let local = || TOR.parse().expect("the constant is a valid proxy");
        match (&self.proxy, self.tor) {
            (proxy, false) => proxy.clone(),
            (proxy, true) => Some(proxy.clone().map_or_else(local, Proxy::as_tor)),
        }
    }

    /// The mailbox servers that were named; with none, the library uses the public ones.
    pub(crate) fn mailboxes(&self) -> impl Iterator<Item = &str> {
        self.mailbox.iter().map(|url| url.trim()).filter(|url| !url.is_empty())
    }

    /// How these options dilate.
    pub(crate) fn dilate_config(&self) -> Result<DilateConfig, Failure> {
        let mut config = DilateConfig::default();
        config.proxy = self.proxy();
        // Whoever listens can be found.
        config.listen = !self.no_listen && config.proxy.is_none();
        config.loopback = self.local;
        config.standby = self.standby;
        if !self.relay.is_empty() {
            config.relays = self.relays()?;
        }
        Ok(config)
    }

    /// The relays that were named; nothing of them means that there shall be none.
    pub(crate) fn relays(&self) -> Result<Vec<RelayHint>, Failure> {
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
        if let Some(appid) = &self.appid {
            add("--appid", appid);
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

/// A relay, or the word that there is none.
#[derive(Debug, Clone, PartialEq)]
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

impl fmt::Display for RelayOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("none"),
            Some(hint) => hint.fmt(f),
        }
    }
}
