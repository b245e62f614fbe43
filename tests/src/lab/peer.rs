//! One of our peers in the lab, from the test's side.

use std::time::Duration;

use serde_json::{Value, json};

use super::tools::must;
use crate::process::JsonProcess;

/// How long a recovery may take before it counts as a hang: longer than every timer of the product.
const RECOVERY: Duration = Duration::from_secs(180);

/// How a peer is started.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// Whether it leads. Its peer has to be told the opposite.
    pub leader: bool,
    /// Whether it listens for direct connections; if not, it meets its peer at the relay.
    pub direct: bool,
    /// See [`dilated::DilateConfig::ping_interval`].
    pub ping_interval: Duration,
    /// See [`dilated::ManagerTiming::connect_timeout`].
    pub connect_timeout: Duration,
}

impl PeerConfig {
    /// A peer with timers that are short enough for a test.
    pub fn new(leader: bool) -> Self {
        Self {
            leader,
            direct: true,
            ping_interval: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(5),
        }
    }

    pub(super) fn to_json(&self, mailbox: &str, relay: &str) -> Value {
        json!({
            "mode": "peer", "mailbox": mailbox, "relay": (!self.direct).then_some(relay),
            "leader": self.leader, "listen": self.direct,
            "ping_interval": self.ping_interval.as_secs_f64(),
            "connect_timeout": self.connect_timeout.as_secs_f64(),
        })
    }
}

/// A peer that runs on a host of the lab.
pub struct LabPeer {
    process: JsonProcess,
    pid: u64,
    links: Vec<Value>,
}

impl LabPeer {
    pub(super) async fn new(mut process: JsonProcess) -> Self {
        let ready = process.expect("ready").await;
        Self { process, pid: ready["pid"].as_u64().expect("a process id"), links: Vec::new() }
    }

    /// A new code, from the server.
    pub async fn allocate_code(&mut self) -> String {
        self.process.send(json!({"cmd": "allocate"})).await;
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
        self.process.send(json!({"cmd": "dilate", "sink": {"seed": seed, "progress": progress}})).await;
    }

    /// Waits for a link that was not waited for before. Gives its path and its generation.
    pub async fn connected(&mut self) -> (String, u64) {
        let link = self.process.expect_within("link", json!({"state": "connected"}), RECOVERY).await;
        let path = link["path"].as_str().expect("a path").to_owned();
        let generation = link["generation"].as_u64().expect("a number");
        self.links.push(link);
        (path, generation)
    }

    /// Starts to send the first `size` bytes of the stream of `seed`. It stops at `hold` bytes until
    /// [`LabPeer::release`].
    pub async fn send_stream(&mut self, seed: u64, size: u64, hold: u64) {
        self.process.send(json!({"cmd": "source", "seed": seed, "size": size, "hold": hold})).await;
    }

    /// Lets the stream go on behind its hold.
    pub async fn release(&mut self) {
        self.process.send(json!({"cmd": "release"})).await;
    }

    /// Waits until one more step of the progress has been received, and gives the number of bytes so far, all right.
    pub async fn progress(&mut self) -> u64 {
        let progress = self.process.expect_within("progress", json!({}), RECOVERY).await;
        progress["bytes"].as_u64().expect("a number")
    }

    /// Waits for the end of the stream, and gives its length.
    pub async fn received(&mut self) -> u64 {
        let received = self.process.expect_within("received", json!({}), RECOVERY).await;
        received["bytes"].as_u64().expect("a number")
    }

    /// Waits until everything was given to the link and the stream is closed.
    pub async fn sent(&mut self) {
        self.process.expect_within("sent", json!({}), RECOVERY).await;
    }

    /// Waits until the connection to the mailbox server is, or is not, there.
    pub async fn mailbox(&mut self, connected: bool) {
        self.process.expect_within("mailbox", json!({"connected": connected}), RECOVERY).await;
    }

    /// The generation of the dilation now.
    pub async fn generation(&mut self) -> u64 {
        self.process.send(json!({"cmd": "status"})).await;
        self.process.expect("status").await["generation"].as_u64().expect("a number")
    }

    /// What happened to the link so far, each with its milliseconds since the start.
    pub fn story(&mut self) -> Vec<Value> {
        let mut story = self.links.clone();
        story.extend(self.process.passed().into_iter().filter(|event| event["event"] == "link"));
        story.sort_by_key(|event| event["ms"].as_u64());
        story
    }

    /// Stops the process where it is, as sleep does.
    pub fn freeze(&self) {
        must("kill", &["-STOP", &self.pid.to_string()]);
    }

    /// Wakes it up.
    pub fn thaw(&self) {
        must("kill", &["-CONT", &self.pid.to_string()]);
    }

    /// Begins to close the wormhole.
    pub async fn close(&mut self) {
        self.process.send(json!({"cmd": "close"})).await;
    }

    /// Waits for the end of the close and of the process, and gives the result.
    pub async fn closed(mut self) -> String {
        let closed = self.process.expect("closed").await;
        self.process.finish().await;
        closed["result"].as_str().expect("a sentence").to_owned()
    }
}
