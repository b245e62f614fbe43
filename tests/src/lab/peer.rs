//! A peer in the lab, ours or Python's, from the test's side.

use std::time::Duration;

use dilated::{Dialect, DilateConfig};
use serde_json::{Value, json};
use tokio::process::Command;

use super::tools::must;
use crate::data::Data;
use crate::process::{JsonProcess, matches};
use crate::python::{DEFAULT_PING_INTERVAL, PeerOptions, PeerRole, Python};

/// How long a recovery may take before it counts as a hang: longer than every timer of ours, and than the 90 s after
/// which a Python peer doubts its mailbox connection.
pub const RECOVERY: Duration = Duration::from_secs(180);

/// The subprotocol of the stream.
pub(super) const STREAM: &str = "lab";

/// The application of all peers.
const APPID: &str = "dilated.test/lab";

/// The id that a Python peer gives to the stream which it sends.
pub(super) const SOURCE: &str = "source";

/// Bytes a second that a source writes: the stream must still run when a test does something to it.
const RATE: u64 = 16 * 1024 * 1024;

/// Whose implementation a peer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Implementation {
    /// This one.
    Ours,
    /// The released Python package.
    Python,
}

/// How a peer is started.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// Whose program it is.
    pub implementation: Implementation,
    /// Whether it leads. Its peer has to be told the opposite.
    pub leader: bool,
    /// Whether it listens for direct connections.
    pub listen: bool,
    /// Whether it may meet its peer at the relay.
    pub relay: bool,
    /// Ours: see [`dilated::LivenessConfig::ping_interval`]. Python: between a Leader's pings, of which it misses two.
    pub ping_interval: Duration,
    /// Ours only: how long the peer may be silent, whatever is owed, for tests in which no link is to be given up although
    /// processes may have to wait for the processor. `None`: as in [`dilated::LivenessConfig`].
    pub patience: Option<Duration>,
    /// Ours only: see [`dilated::ManagerTiming::connect_timeout`].
    pub connect_timeout: Duration,
    /// Ours only: see [`dilated::DilateConfig::linger`].
    pub linger: Duration,
    /// Ours only: see [`dilated::WormholeBuilder::dialects`].
    pub dialects: Vec<Dialect>,
    /// Ours only: see [`dilated::DilateConfig::standby`].
    pub standby: bool,
    /// Ours only: the first and the longest wait before something better than the link is dialled again; see
    /// [`dilated::ConnectorLimits::better_first`].
    pub better: (Duration, Duration),
    /// At which of the mailbox host's addresses it looks for the server. Python takes the first only.
    pub mailboxes: Vec<u8>,
}

impl PeerConfig {
    /// A peer of ours that meets directly, with timers that are short enough for a test.
    pub fn new(leader: bool) -> Self {
        Self {
            implementation: Implementation::Ours,
            leader,
            listen: true,
            relay: false,
            ping_interval: Duration::from_millis(500),
            patience: None,
            connect_timeout: Duration::from_secs(5),
            linger: Duration::from_secs(10),
            dialects: Dialect::ALL.to_vec(),
            standby: false,
            better: (Duration::from_secs(1), Duration::from_secs(2)),
            mailboxes: vec![1],
        }
    }

    /// A Python peer, otherwise alike. Its own timers are [`crate::python::DEFAULT_PING_INTERVAL`].
    pub fn python(leader: bool) -> Self {
        Self {
            implementation: Implementation::Python,
            ping_interval: Duration::from_secs(1),
            ..Self::new(leader)
        }
    }

    /// A peer with the timers that its users get.
    pub fn released(implementation: Implementation, leader: bool) -> Self {
        let defaults = DilateConfig::default();
        Self {
            implementation,
            ping_interval: match implementation {
                Implementation::Ours => defaults.liveness.ping_interval,
                Implementation::Python => DEFAULT_PING_INTERVAL,
            },
            connect_timeout: defaults.timing.connect_timeout,
            linger: defaults.linger,
            better: (defaults.connector.better_first, defaults.connector.better_max),
            ..Self::new(leader)
        }
    }

    /// What starts it.
    ///
    /// # Panics
    ///
    /// If it is a Python peer and `DILATED_PYTHON` is not set; [`Python::named`] tells.
    pub(super) fn command(
        &self,
        helper: impl FnOnce(&Value) -> Command,
        mailboxes: &[String],
        relay: &str,
    ) -> Command {
        let relay = self.relay.then_some(relay);
        match self.implementation {
            Implementation::Ours => helper(&json!({
                "mode": "peer", "appid": APPID, "mailboxes": mailboxes, "relay": relay,
                "leader": self.leader, "listen": self.listen,
                "ping_interval": self.ping_interval.as_secs_f64(),
                "patience": self.patience.map(|patience| patience.as_secs_f64()),
                "connect_timeout": self.connect_timeout.as_secs_f64(),
                "linger": self.linger.as_secs_f64(),
                "dialects": Vec::from_iter(self.dialects.iter().map(|dialect| dialect.name())),
                "standby": self.standby,
                "better_first": self.better.0.as_secs_f64(),
                "better_max": self.better.1.as_secs_f64(),
            })),
            Implementation::Python => {
                let python = Python::named().expect("the test asked whether there is one");
                let role = if self.leader { PeerRole::Leader } else { PeerRole::Follower };
                python.peer_command(&PeerOptions {
                    appid: APPID,
                    relay,
                    listen: self.listen,
                    ping_interval: self.ping_interval.as_secs_f64(),
                    ..PeerOptions::new(&mailboxes[0], role)
                })
            }
        }
    }
}

/// A link, as one side sees it.
#[derive(Debug, Clone)]
pub struct LabLink {
    /// How it was reached, in Python's notation, which is ours too.
    pub path: String,
    /// Ours: its generation. Python: how many links there were before it.
    pub number: u64,
}

/// A peer that runs on a host of the lab. The commands and events of both implementations are those that
/// `tests/python/README.md` lists, but for those of the link.
pub struct LabPeer {
    pub(super) process: JsonProcess,
    pub(super) implementation: Implementation,
    pub(super) links: Vec<Value>,
    pub(super) seed: u64,
}

impl LabPeer {
    pub(super) async fn new(mut process: JsonProcess, implementation: Implementation) -> Self {
        process.expect("ready").await;
        Self { process, implementation, links: Vec::new(), seed: 0 }
    }

    /// Whose program it is.
    pub fn implementation(&self) -> Implementation {
        self.implementation
    }

    /// A new code, from the server.
    pub async fn allocate_code(&mut self) -> String {
        self.process.send(json!({"cmd": "allocate-code"})).await;
        self.process.expect("code").await["code"].as_str().expect("a code").to_owned()
    }

    /// Uses the code of the other peer.
    pub async fn set_code(&mut self, code: &str) {
        self.process.send(json!({"cmd": "set-code", "code": code})).await;
    }

    /// Dilates. Wait with [`LabPeer::connected`].
    pub async fn dilate(&mut self) {
        self.process.send(json!({"cmd": "dilate"})).await;
    }

    /// Dilates, ready to receive the stream of `seed` and to report [`LabPeer::progress`] in steps of so many bytes.
    pub async fn dilate_and_receive(&mut self, seed: u64, progress: u64) {
        self.seed = seed;
        let sink = json!({"name": STREAM, "mode": "sink", "seed": seed, "progress": progress});
        self.process.send(json!({"cmd": "dilate", "listen": [sink]})).await;
    }

    /// Waits for a link that was not waited for before.
    pub async fn connected(&mut self) -> LabLink {
        let (event, fields) = self.event_of_links();
        let seen = self.process.expect_within(event, fields, RECOVERY).await;
        self.links.push(seen.clone());
        self.read_link(&seen)
    }

    /// The latest link that was reported, waited for or not.
    ///
    /// # Panics
    ///
    /// If there was none.
    pub fn latest_link(&mut self) -> LabLink {
        let mut seen = self.links.clone();
        seen.extend(self.process.passed());
        let (event, fields) = self.event_of_links();
        let links = seen.iter().filter(|seen| matches(seen, event, &fields));
        let latest = links.max_by_key(|seen| seen["ms"].as_u64()).expect("there was a link");
        self.read_link(latest)
    }

    fn event_of_links(&self) -> (&'static str, Value) {
        match self.implementation {
            Implementation::Ours => ("link", json!({"state": "connected"})),
            Implementation::Python => ("connected", json!({})),
        }
    }

    fn read_link(&self, event: &Value) -> LabLink {
        let number = match self.implementation {
            Implementation::Ours => event["generation"].as_u64(),
            // It counts from 1.
            Implementation::Python => event["link"].as_u64().and_then(|number| number.checked_sub(1)),
        };
        let path = event["path"].as_str().expect("a path").to_owned();
        LabLink { path, number: number.expect("a number") }
    }

    /// Waits until a link is lost whose loss was not waited for before.
    pub async fn lost(&mut self) {
        let (event, fields) = match self.implementation {
            Implementation::Ours => ("link", json!({"state": "reconnecting"})),
            Implementation::Python => ("lost", json!({})),
        };
        let seen = self.process.expect_within(event, fields, RECOVERY).await;
        self.links.push(seen);
    }

    /// Waits until a link stands by, and gives its path.
    pub async fn standby(&mut self) -> String {
        let seen = self.process.expect_within("standby", json!({"there": true}), RECOVERY).await;
        seen["path"].as_str().expect("a path").to_owned()
    }

    /// Gives the link up, as if it were dead.
    pub async fn abandon_link(&mut self) {
        self.process.send(json!({"cmd": "abandon-link"})).await;
    }

    /// Checks that the application never was without a link since the first one.
    ///
    /// # Panics
    ///
    /// If it was.
    pub async fn assert_never_lost(&mut self) {
        // Its answer comes behind what happened before.
        let number = self.link_number().await;
        let seen = self.links_seen();
        let lost = seen.iter().any(|event| event["state"] == "reconnecting" || event["recovered"] == true);
        assert!(!lost && number == 0, "the link was lost: {seen:#?}");
    }

    /// Starts to send the first `size` bytes of the stream of `seed`. It stops at `hold` bytes until
    /// [`LabPeer::release`].
    pub async fn send_stream(&mut self, seed: u64, size: u64, hold: u64) {
        let command = json!({
            "cmd": "open", "id": SOURCE, "name": STREAM, "mode": "source",
            "seed": seed, "size": size, "hold": hold, "rate": RATE,
        });
        self.process.send(command).await;
    }

    /// Lets the stream go on behind its hold.
    pub async fn release(&mut self) {
        self.process.send(json!({"cmd": "release", "id": SOURCE})).await;
    }

    /// Waits until one more step of the progress has been received, and gives the number of bytes so far, all right.
    pub async fn progress(&mut self) -> u64 {
        let progress = self.process.expect_within("progress", json!({}), RECOVERY).await;
        progress["bytes"].as_u64().expect("a number")
    }

    /// Waits for the end of the stream, and gives its length.
    ///
    /// # Panics
    ///
    /// If a byte is wrong.
    pub async fn received(&mut self) -> u64 {
        let closed = self.process.expect_within("closed", json!({"local": false}), RECOVERY).await;
        let bytes = closed["bytes"].as_u64().expect("a number");
        if self.implementation == Implementation::Python {
            // Ours compares every byte as it comes.
            assert_eq!(closed["sha256"], Data::new(self.seed).sha256(bytes), "of {bytes} bytes");
        }
        bytes
    }

    /// Waits until everything was given to the link and the stream is closed.
    pub async fn sent(&mut self) {
        self.process.expect_within("sent", json!({}), RECOVERY).await;
    }

    /// Waits until the connection to the mailbox server is, or is not, there.
    pub async fn mailbox(&mut self, connected: bool) {
        self.process.expect_within("mailbox", json!({"connected": connected}), RECOVERY).await;
    }

    /// The number of the link now, as in [`LabLink::number`].
    pub async fn link_number(&mut self) -> u64 {
        self.process.send(json!({"cmd": "status"})).await;
        let status = self.process.expect("status").await;
        match self.implementation {
            Implementation::Ours => status["generation"].as_u64().expect("a number"),
            Implementation::Python => status["links"].as_u64().expect("a number").saturating_sub(1),
        }
    }

    /// What happened to the link so far, one line each, with its milliseconds since the start of the peer.
    pub fn story(&mut self) -> Vec<String> {
        self.links_seen().iter().map(|event| format!("{} ms: {}", event["ms"], told(event))).collect()
    }

    /// What happened to the link so far.
    pub(super) fn links_seen(&mut self) -> Vec<Value> {
        let of_link = |event: &Value| {
            let name = event["event"].as_str().unwrap_or_default();
            ["link", "connected", "lost"].contains(&name) && event["state"] != "connecting"
        };
        let mut seen = self.links.clone();
        seen.extend(self.process.passed().into_iter().filter(of_link));
        seen.sort_by_key(|event| event["ms"].as_u64());
        seen
    }

    /// Stops the process where it is, as sleep does.
    pub fn freeze(&self) {
        must("kill", &["-STOP", &self.process.pid().to_string()]);
    }

    /// Wakes it up.
    pub fn thaw(&self) {
        must("kill", &["-CONT", &self.process.pid().to_string()]);
    }

    /// Ends the process at once, as a crash does, asleep or not.
    pub async fn kill(self) {
        self.process.kill().await;
    }

    /// Begins to close the wormhole. The request is on its way when this returns; [`LabPeer::closing`] knows more.
    pub async fn close(&mut self) {
        self.process.send(json!({"cmd": "wormhole-close"})).await;
    }

    /// Waits until the close was asked of the wormhole.
    pub async fn closing(&mut self) {
        self.process.expect("wormhole-closing").await;
    }

    /// Waits for the end of the close, and gives the result.
    pub async fn closed(&mut self) -> String {
        let closed = self.process.expect("wormhole-closed").await;
        closed["result"].as_str().expect("a sentence").to_owned()
    }

    /// Waits for the end of the process, which has nothing more to do.
    pub async fn finish(self) {
        self.process.finish().await;
    }
}

/// What an event says about the link, for people.
pub(super) fn told(event: &Value) -> String {
    let state = event["state"].as_str().or(event["event"].as_str()).unwrap_or_default();
    let what = event["reason"].as_str().or(event["path"].as_str()).unwrap_or_default();
    let (name, number) = match event.get("generation") {
        Some(generation) => ("generation", generation),
        None => ("link", &event["link"]),
    };
    format!("{state} ({name} {number}) {what}")
}
