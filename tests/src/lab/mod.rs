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
//! Everything is made inside the namespaces; none has a way out. It takes root on Linux with `ip` and `nft`;
//! elsewhere [`Lab::new`] says so and gives `None`. `DILATED_LAB=0` skips it everywhere, and `DILATED_LAB=1`, for a
//! set-up that is meant to run it, fails instead of skipping. A lab is torn down when it is dropped, with every process in
//! its namespaces, and what a killed run left behind is swept by the next one.

mod namespace;
mod peer;
mod tools;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use self::namespace::Namespace;
pub use self::peer::{LabPeer, PeerConfig};
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
    pub fn address(self, n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 83, self as u8 + 1, n)
    }
}

/// Which packets of a host a blackhole swallows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Those that it sends.
    From,
    /// Those that are sent to it.
    To,
    /// All.
    Both,
}

/// A small internet. Dropping it ends it.
#[derive(Debug)]
pub struct Lab {
    helper: PathBuf,
    internet: Namespace,
    hosts: BTreeMap<Host, Namespace>,
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
        Some(Self { helper: helper.as_ref().to_owned(), internet, hosts, directory })
    }

    /// The host loses its address number `old` and gets number `new`.
    pub fn change_address(&self, host: Host, old: u8, new: u8) {
        self.space(host).ip(&format!("addr del {}/16 dev eth0", host.address(old)));
        self.space(host).ip(&format!("addr add {}/16 dev eth0", host.address(new)));
    }

    /// Pulls the host's cable out. The host sees it.
    pub fn unplug(&self, host: Host) {
        self.internet.ip(&format!("link set dev {} down", host.name()));
    }

    /// Plugs it in again.
    pub fn plug(&self, host: Host) {
        self.internet.ip(&format!("link set dev {} up", host.name()));
    }

    /// Swallows packets of a host on their way through the internet, until [`Lab::heal`].
    pub fn blackhole(&self, host: Host, direction: Direction) {
        let rule = |side: &str, port: &str| {
            self.internet.nft(&format!("add rule bridge lab forward {side} {port} drop"));
        };
        if direction != Direction::To {
            rule("iifname", host.name());
        }
        if direction != Direction::From {
            rule("oifname", host.name());
        }
    }

    /// Drops what a host sends beyond `rate` KiB/s, as a policer does, until [`Lab::heal`].
    pub fn limit_rate(&self, host: Host, rate: u32) {
        let name = host.name();
        self.internet.nft(&format!(
            "add rule bridge lab forward iifname {name} limit rate over {rate} kbytes/second drop"
        ));
    }

    /// Ends all blackholes and limits.
    pub fn heal(&self) {
        self.internet.nft("flush chain bridge lab forward");
    }

    /// Answers every packet of the TCP connections of a host that have `port` at either end with a reset, until the
    /// lab ends: both ends get one as soon as they say something.
    pub fn reset(&self, host: Host, port: u16) {
        let space = self.space(host);
        for (hook, end) in [("input", "sport"), ("input", "dport"), ("output", "sport"), ("output", "dport")]
        {
            // A reset itself has to pass, or the far end would never hear of it.
            space.nft(&format!(
                "add rule inet lab {hook} tcp {end} {port} tcp flags & rst == 0 reject with tcp reset"
            ));
        }
    }

    /// Starts the mailbox server; its state survives it in an SQLite file.
    pub async fn mailbox(&self) -> JsonProcess {
        let database = self.directory.path().join("mailbox.sqlite");
        self.server(Host::Mailbox, json!({"mode": "mailbox", "database": database})).await
    }

    /// Starts the relay.
    pub async fn relay(&self) -> JsonProcess {
        self.server(Host::Relay, json!({"mode": "relay"})).await
    }

    /// URL of the mailbox server.
    pub fn mailbox_url(&self) -> String {
        format!("ws://{}:{PORT}/v1", Host::Mailbox.address(1))
    }

    /// Hint of the relay.
    pub fn relay_hint(&self) -> String {
        format!("tcp:{}:{PORT}", Host::Relay.address(1))
    }

    /// Starts a peer on `host` and waits until it takes commands.
    pub async fn peer(&self, host: Host, config: &PeerConfig) -> LabPeer {
        let options = config.to_json(&self.mailbox_url(), &self.relay_hint());
        LabPeer::new(self.run(host, &options)).await
    }

    async fn server(&self, host: Host, mut options: Value) -> JsonProcess {
        options["listen"] = json!(format!("{}:{PORT}", host.address(1)));
        let mut server = self.run(host, &options);
        server.expect("listening").await;
        server
    }

    fn run(&self, host: Host, options: &Value) -> JsonProcess {
        let command = self.space(host).command(&self.helper, &[&options.to_string()]);
        JsonProcess::start(format!("{} on host {host:?}", options["mode"]), command)
    }

    fn space(&self, host: Host) -> &Namespace {
        &self.hosts[&host]
    }

    /// Whether a packet of `from` reaches `to`, and the answer comes back.
    pub async fn reaches(&self, from: Host, to: Ipv4Addr) -> bool {
        let mut probe = self.run(from, &json!({"mode": "probe", "to": format!("{to}:9")}));
        let reached = probe.expect("probed").await["reached"] == true;
        probe.finish().await;
        reached
    }
}
