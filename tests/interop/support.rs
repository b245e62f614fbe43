//! A Python peer and one of ours, dilated through either kind of servers.

use std::{future::Future, time::Duration};

use dilated::{
    DilateConfig, Dilated, RolePreference, Subchannel, Wormhole,
    server::{MailboxServer, Relay, RelayConfig, ServerConfig},
};
use dilated_tests::{
    data::{Check, Data, sha256},
    process::JsonProcess,
    python::{PeerOptions, PeerRole, PyServer, Python},
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const APPID: &str = "dilated.test/interop";

/// Far longer than anything takes: only a hang ends it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Fails instead of hanging.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// Whose mailbox server and relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Servers {
    Ours,
    Python,
}

/// Ours, in this process, for as long as its runtime lives: the mailbox server's URL and the relay's hint.
pub(crate) async fn our_servers() -> (String, String) {
    let loopback = "127.0.0.1:0".parse().expect("an address");
    let mailbox = MailboxServer::bind(loopback, ServerConfig::default()).await.expect("bind");
    let relay = Relay::bind(loopback, RelayConfig::default()).await.expect("bind");
    let addresses = (mailbox.url(), relay.hint());
    tokio::spawn(mailbox.run());
    tokio::spawn(relay.run());
    addresses
}

/// Servers that run as long as this lives.
pub(crate) struct World {
    pub(crate) python: Python,
    pub(crate) mailbox: String,
    pub(crate) relay: String,
    _processes: Vec<PyServer>,
}

impl World {
    /// `None`, and a line that says why, where there is no Python.
    pub(crate) async fn new(servers: Servers) -> Option<World> {
        let python = Python::available()?;
        Some(match servers {
            Servers::Ours => {
                let (url, hint) = our_servers().await;
                World { python, mailbox: url, relay: hint, _processes: Vec::new() }
            }
            Servers::Python => {
                let (mailbox, relay) = (python.mailbox().await, python.relay().await);
                let (url, hint) = (mailbox.url(), relay.hint());
                World { python, mailbox: url, relay: hint, _processes: vec![mailbox, relay] }
            }
        })
    }

    pub(crate) fn wormhole(&self) -> Wormhole {
        Wormhole::builder(APPID)
            .mailbox(&self.mailbox)
            .app_versions(json!({"of": "rust"}))
            .build()
            .expect("a valid address")
    }

    pub(crate) async fn python_peer(&self, role: PeerRole) -> JsonProcess {
        let mut options = PeerOptions::new(&self.mailbox, role);
        options.versions = r#"{"of": "python"}"#;
        self.python.peer(&options).await
    }

    /// Ours, in the role that Python does not have.
    pub(crate) fn config(&self, python: PeerRole) -> DilateConfig {
        let mut config = DilateConfig::direct_only();
        config.role = match python {
            PeerRole::Leader => RolePreference::Follower,
            PeerRole::Follower => RolePreference::Leader,
            PeerRole::Any => RolePreference::Any,
        };
        config
    }

    /// A link between Python, in `role` and listening as `listen` says, and ours.
    pub(crate) async fn dilate(&self, role: PeerRole, listen: Value) -> Pair {
        self.dilate_with(role, listen, Meeting::Direct).await
    }

    pub(crate) async fn dilate_with(&self, role: PeerRole, listen: Value, meeting: Meeting) -> Pair {
        let mut options = PeerOptions::new(&self.mailbox, role);
        let mut config = self.config(role);
        if meeting == Meeting::Relay {
            options.listen = false;
            options.relay = Some(&self.relay);
            config.listen = false;
            config.relays = vec![self.relay.parse().expect("a hint")];
        }
        let mut python = self.python.peer(&options).await;
        let wormhole = self.wormhole();
        let code = soon("a code", wormhole.allocate_code(2)).await.expect("allocated");
        python.send(json!({"cmd": "set-code", "code": code.to_string()})).await;
        python.send(json!({"cmd": "dilate", "listen": listen})).await;
        let dilated = wormhole.dilate(config).expect("dilate");
        soon("a link", dilated.connected()).await.expect("connected");
        let theirs = python.expect("connected").await;
        let expected = if role == PeerRole::Leader { "leader" } else { "follower" };
        if role != PeerRole::Any {
            assert_eq!(theirs["role"], expected);
        }
        Pair { wormhole, dilated, python }
    }
}

/// How the two sides reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meeting {
    Direct,
    Relay,
}

/// A dilated pair.
pub(crate) struct Pair {
    pub(crate) wormhole: Wormhole,
    pub(crate) dilated: Dilated,
    pub(crate) python: JsonProcess,
}

impl Pair {
    pub(crate) async fn open(&self, name: &str) -> Subchannel {
        let connector = self.dilated.connector_for(name).expect("a name");
        soon("an open", connector.connect()).await.expect("open")
    }

    /// Ends both sides; Python must not have complained about anything.
    pub(crate) async fn finish(mut self) {
        self.python.assert_quiet();
        soon("close", self.wormhole.close()).await.expect("happy");
        self.python.send(json!({"cmd": "wormhole-close"})).await;
        assert_eq!(self.python.expect("wormhole-closed").await["result"], "happy");
        self.python.finish().await;
    }
}

/// Writes the first `length` bytes of `seed`'s stream.
pub(crate) async fn write_stream(subchannel: &mut (impl AsyncWriteExt + Unpin), seed: u64, length: u64) {
    for piece in Data::new(seed).chunks(length, 100_000) {
        soon("writing", subchannel.write_all(&piece)).await.expect("written");
    }
}

/// Reads to the end and compares every byte with `seed`'s stream.
pub(crate) async fn read_stream(subchannel: &mut (impl AsyncReadExt + Unpin), seed: u64) -> u64 {
    let mut check = Data::new(seed).check();
    read_checked(subchannel, &mut check, |_| {}).await;
    check.received()
}

/// Reads to the end, comparing; `progress` sees the number of bytes so far.
pub(crate) async fn read_checked(
    subchannel: &mut (impl AsyncReadExt + Unpin),
    check: &mut Check,
    mut progress: impl FnMut(u64),
) {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let n = soon("reading", subchannel.read(&mut buffer)).await.expect("read");
        if n == 0 {
            return;
        }
        check.push(&buffer[..n]);
        progress(check.received());
    }
}

pub(crate) fn hash_of(bytes: &[u8]) -> String {
    sha256(bytes)
}
