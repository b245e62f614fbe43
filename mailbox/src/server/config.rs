//! What the operator of a server may choose.

use std::time::Duration;

use serde_json::{Map, Value};

use super::limits::ServerLimits;

/// What the server tells every client first. All optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerWelcome {
    /// A message that clients show to their user before they go on.
    pub motd: Option<String>,
    /// Clients show this and give up. For a server that is about to close.
    pub error: Option<String>,
    /// The newest version of the Python command-line tool; older ones suggest an update.
    pub current_cli_version: Option<String>,
}

impl ServerWelcome {
    pub(super) fn to_json(&self) -> Map<String, Value> {
        let keys = [
            ("motd", &self.motd),
            ("error", &self.error),
            ("current_cli_version", &self.current_cli_version),
        ];
        let set = keys.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        set.map(|(key, value)| (key.to_owned(), Value::from(value.as_str()))).collect()
    }
}

/// Where the server keeps nameplates, mailboxes and messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreKind {
    /// In memory. Clients of a server that restarts find their mailbox empty.
    #[default]
    Memory,
    /// In an SQLite file, which is created if it is missing. A restart is invisible to clients.
    #[cfg(feature = "sqlite")]
    Sqlite(std::path::PathBuf),
}

/// Everything about a server but its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// The store (memory).
    pub store: StoreKind,
    /// The welcome (empty).
    pub welcome: ServerWelcome,
    /// Tell clients the address that they come from, as `your-address` in the welcome (yes). Helps hole punching.
    pub your_address: bool,
    /// Believe the headers `X-Real-IP` and `X-Real-Port` (no). Only for a server that nobody reaches but through
    /// a reverse proxy that sets them: whoever can set them has as many addresses as they like.
    pub trust_real_ip: bool,
    /// Answer `list` with the nameplates in use (yes). If not, the answer is always empty, which stops strangers
    /// from watching who waits.
    pub allow_list: bool,
    /// Time between two prunings (5 min).
    pub prune_interval: Duration,
    /// How long a mailbox lives without subscriber and without activity (11 min).
    pub prune_idle: Duration,
    /// Time between two websocket pings of the server (60 s).
    pub ping_interval: Duration,
    /// How long a connection may be silent, without even a pong (600 s).
    pub ping_timeout: Duration,
    /// Defences.
    pub limits: ServerLimits,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            store: StoreKind::default(),
            welcome: ServerWelcome::default(),
            your_address: true,
            trust_real_ip: false,
            allow_list: true,
            prune_interval: Duration::from_secs(5 * 60),
            prune_idle: Duration::from_secs(11 * 60),
            ping_interval: Duration::from_secs(60),
            ping_timeout: Duration::from_secs(600),
            limits: ServerLimits::default(),
        }
    }
}
