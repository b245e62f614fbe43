//! The network lab: hosts A and B, a mailbox host and a relay host, each a network namespace of its own, on a
//! bridge that plays the internet.
//!
//! ```text
//!   A ────┐   internet   ┌──── mailbox
//!  10.83.1.1  (bridge)  10.83.3.1
//!   B ────┘              └──── relay
//!  10.83.2.1            10.83.4.1
//! ```
//!
//! A host can be put behind a NAT router ([`Lab::nat`]), or on a long, slow or lossy cable ([`Lab::wire`]). Peers are
//! ours or Python's.
//!
//! A Python peer runs with the interpreter that `DILATED_PYTHON` names; [`Python::named`](crate::python::Python::named)
//! tells whether there is one.
//!
//! Everything is made inside the namespaces; none has a way out. It takes root on Linux with `ip` and `nft`;
//! elsewhere [`Lab::new`] says so and gives `None`. `DILATED_LAB=0` skips it everywhere, and `DILATED_LAB=1`, for a
//! set-up that is meant to run it, fails instead of skipping. A lab is torn down when it is dropped, with every process in
//! its namespaces, and what a killed run left behind is swept by the next one.

#[cfg(target_os = "linux")]
mod carrier;
mod events;
mod namespace;
mod nat;
mod peer;
mod timing;
mod tools;
mod wire;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU16;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

#[cfg(target_os = "linux")]
pub use self::carrier::carry;
pub use self::events::Direction;
use self::namespace::Namespace;
pub use self::nat::BEHIND;
pub use self::peer::{Implementation, LabLink, LabPeer, PeerConfig, RECOVERY};
pub use self::timing::{Gap, clock};
pub use self::wire::{Wire, WireConfig};
use crate::process::JsonProcess;

/// The port of the mailbox server and of the relay, each on its own host.
const PORT: u16 = 4000;

/// A host of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// The first peer's.
    A,
    /// The second peer's.
    B,
    /// The mailbox server's.
    Mailbox,
    /// The relay's.
    Relay,
}

impl Host {
    const ALL: [Host; 4] = [Host::A, Host::B, Host::Mailbox, Host::Relay];

    fn name(self) -> &'static str {
        match self {
            Host::A => "a",
            Host::B => "b",
            Host::Mailbox => "mailbox",
            Host::Relay => "relay",
        }
    }

    /// Its `n`-th address; the first is number 1.
    pub const fn address(self, n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 83, self as u8 + 1, n)
    }
}

/// A small internet. Dropping it ends it.
#[derive(Debug)]
pub struct Lab {
    helper: PathBuf,
    number: u32,
    internet: Namespace,
    hosts: BTreeMap<Host, Namespace>,
    /// Those that stand between a host and the internet.
    routers: BTreeMap<Host, Namespace>,
    /// How often a router forgot its connections.
    forgotten: AtomicU16,
    directory: tempfile::TempDir,
}

impl Lab {
    /// Builds a lab, or prints why there can be none here. `helper` is the `lab_peer` program, which only an
    /// integration test can name: `env!("CARGO_BIN_EXE_lab_peer")`.
    ///
    /// # Panics
    ///
    /// If a step fails on a machine that should be able to, or if `DILATED_LAB=1` and this machine is not; what was built by then is torn down.
    pub fn new(helper: impl AsRef<Path>) -> Option<Self> {
        if let Err(why) = tools::available() {
            assert!(std::env::var_os("DILATED_LAB").is_none_or(|value| value != "1"), "{why}");
            crate::python::skipped(&why);
            return None;
        }
        Namespace::sweep();
        let number = Namespace::next_number();
        let internet = Namespace::add(number, "net");
        internet.ip("link add name net type bridge");
        internet.ip("link set dev net up");
        internet.nft("add table bridge lab");
        // Behind the bridge every packet is seen, and its sender never learns that it was dropped.
        internet.nft("add chain bridge lab forward { type filter hook forward priority 0; }");
        let mut hosts = BTreeMap::new();
        for host in Host::ALL {
            let (space, name) = (Namespace::add(number, host.name()), host.name());
            internet.ip(&format!("link add name {name} type veth peer name eth0 netns {}", space.name()));
            internet.ip(&format!("link set dev {name} master net up"));
            space.ip("link set dev lo up");
            space.ip("link set dev eth0 up");
            space.ip(&format!("addr add {}/16 dev eth0", host.address(1)));
            space.nft("add table inet lab");
            for hook in ["input", "output"] {
                space.nft(&format!("add chain inet lab {hook} {{ type filter hook {hook} priority 0; }}"));
            }
            hosts.insert(host, space);
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        Some(Self {
            helper: helper.as_ref().to_owned(),
            number,
            internet,
            hosts,
            routers: BTreeMap::new(),
            forgotten: AtomicU16::new(0),
            directory,
        })
    }

    /// Starts the mailbox server on the host's address number `n`; its state survives it in an SQLite file.
    pub async fn mailbox(&self, n: u8) -> JsonProcess {
        let database = self.directory.path().join("mailbox.sqlite");
        self.server(Host::Mailbox, n, json!({"mode": "mailbox", "database": database})).await
    }

    /// Starts the relay.
    pub async fn relay(&self) -> JsonProcess {
        self.server(Host::Relay, 1, json!({"mode": "relay"})).await
    }

    /// URL of the mailbox server on the host's address number `n`.
    pub fn mailbox_url(&self, n: u8) -> String {
        format!("ws://{}:{PORT}/v1", Host::Mailbox.address(n))
    }

    /// Hint of the relay.
    pub fn relay_hint(&self) -> String {
        format!("tcp:{}:{PORT}", Host::Relay.address(1))
    }

    /// Starts a peer on `host` and waits until it takes commands.
    ///
    /// # Panics
    ///
    /// If it is a Python peer, and `DILATED_PYTHON` names no interpreter: see [`crate::python::Python::named`].
    pub async fn peer(&self, host: Host, config: &PeerConfig) -> LabPeer {
        let mailboxes: Vec<String> = config.mailboxes.iter().map(|n| self.mailbox_url(*n)).collect();
        let command = config.command(|options| self.helper(options), &mailboxes, &self.relay_hint());
        let name = format!("the peer on host {host:?} ({:?})", config.implementation);
        let process = JsonProcess::start(name, self.space(host).command(&command));
        LabPeer::new(process, config.implementation).await
    }

    async fn server(&self, host: Host, n: u8, mut options: Value) -> JsonProcess {
        options["listen"] = json!(format!("{}:{PORT}", host.address(n)));
        let mut server = self.run(host, &options);
        server.expect("listening").await;
        server
    }

    fn run(&self, host: Host, options: &Value) -> JsonProcess {
        let command = self.space(host).command(&self.helper(options));
        JsonProcess::start(format!("{} on host {host:?}", options["mode"]), command)
    }

    fn helper(&self, options: &Value) -> Command {
        let mut command = Command::new(&self.helper);
        command.arg(options.to_string());
        command
    }

    /// The names of its namespaces.
    pub fn namespaces(&self) -> Vec<String> {
        let all = [&self.internet].into_iter().chain(self.hosts.values()).chain(self.routers.values());
        all.map(|space| space.name().to_owned()).collect()
    }

    fn space(&self, host: Host) -> &Namespace {
        &self.hosts[&host]
    }

    /// Where the host's address on the internet is: its own namespace, or that of its router.
    fn uplink(&self, host: Host) -> &Namespace {
        self.routers.get(&host).unwrap_or_else(|| self.space(host))
    }

    /// Whether a packet of `from` reaches `to`, and the answer comes back.
    pub async fn reaches(&self, from: Host, to: Ipv4Addr) -> bool {
        self.probe(from, to, 1).await.reached == 1
    }

    /// Sends `count` packets from `from` to `to`, all at once.
    pub async fn probe(&self, from: Host, to: Ipv4Addr, count: u64) -> Probed {
        let options = json!({"mode": "probe", "to": format!("{to}:9"), "count": count});
        let mut probe = self.run(from, &options);
        let probed = probe.expect("probed").await;
        probe.finish().await;
        let number = |key: &str| probed[key].as_u64().expect("a number");
        Probed { reached: number("reached"), time: Duration::from_millis(number("ms")) }
    }
}

/// What became of the packets of [`Lab::probe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// How many were answered.
    pub reached: u64,
    /// How long that took, to the millisecond below.
    pub time: Duration,
}
