//! A long, slow or lossy cable between a host and the internet, from the test's side.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Host, Lab};
use crate::process::JsonProcess;

/// The end of the wire at the host, until it is moved there and called `eth0`.
const FAR_END: &str = "far";

/// What a wire does to packets, in either direction.
#[derive(Debug, Clone, PartialEq)]
pub struct WireConfig {
    /// How long a packet travels.
    pub delay: Duration,
    /// How much longer, at most, it may travel. Packets stay in order.
    pub jitter: Duration,
    /// The part of all packets that is lost: 0 none, 1 all.
    pub loss: f64,
    /// Bytes a second that pass. `None`: as many as come.
    pub rate: Option<u32>,
    /// Bytes that wait before a slow wire; what comes on top of that is lost.
    pub queue: u32,
    /// Of all that is random.
    pub seed: u64,
}

impl Default for WireConfig {
    /// A perfect wire.
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            rate: None,
            queue: 64 * 1024,
            seed: 0,
        }
    }
}

impl WireConfig {
    fn to_json(&self, near: &str) -> Value {
        json!({
            "mode": "wire", "near": near, "far": FAR_END,
            "delay": self.delay.as_secs_f64(), "jitter": self.jitter.as_secs_f64(),
            "loss": self.loss, "rate": self.rate, "queue": self.queue, "seed": self.seed,
        })
    }

    /// The other way round.
    #[cfg(target_os = "linux")]
    pub(super) fn from_json(options: &Value) -> Result<Self, String> {
        let seconds = |key: &str| {
            let value = options[key].as_f64().and_then(|value| Duration::try_from_secs_f64(value).ok());
            value.ok_or(format!("{key} is no time in seconds"))
        };
        let number = |value: &Value| value.as_u64().and_then(|value| u32::try_from(value).ok());
        Ok(Self {
            delay: seconds("delay")?,
            jitter: seconds("jitter")?,
            loss: options["loss"]
                .as_f64()
                .filter(|loss| (0.0..=1.0).contains(loss))
                .ok_or("loss is no part")?,
            rate: number(&options["rate"]).filter(|rate| *rate > 0),
            queue: number(&options["queue"]).ok_or("queue is no number of bytes")?,
            seed: options["seed"].as_u64().ok_or("seed is no number")?,
        })
    }
}

/// A wire in the lab. The host is unplugged when this is dropped.
pub struct Wire {
    process: JsonProcess,
}

impl Lab {
    /// Replaces the cable of `host` by a wire. For peers that are started later; the host must have its first address,
    /// and no router.
    pub async fn wire(&self, host: Host, config: &WireConfig) -> Wire {
        let space = self.space(host);
        space.ip("link del dev eth0");
        // Its devices belong to the internet, and the one that is moved to the host stays in its hands.
        let command = self.internet.command(&self.helper(&config.to_json(host.name())));
        let mut process = JsonProcess::start(format!("the wire of host {host:?}"), command);
        process.expect("ready").await;
        self.internet.ip(&format!("link set dev {} master net up", host.name()));
        self.internet.ip(&format!("link set dev {FAR_END} netns {} name eth0", space.name()));
        space.ip(&format!("addr add {}/16 dev eth0", host.address(1)));
        space.ip("link set dev eth0 up");
        Wire { process }
    }
}

impl Wire {
    /// From now on holds back what the host says on TCP connections with `to` that it begins now: their first packet
    /// passes, all others wait for [`Wire::release`].
    pub async fn hold(&mut self, to: Ipv4Addr) {
        self.process.send(json!({"cmd": "hold", "to": to.to_string()})).await;
        self.process.expect("holding").await;
    }

    /// Delivers what was held back, in order, and holds no more. Gives the number of packets.
    pub async fn release(&mut self) -> u64 {
        self.process.send(json!({"cmd": "release"})).await;
        self.process.expect("released").await["packets"].as_u64().expect("a number")
    }
}
