//! A host behind a NAT router, as at home.
//!
//! ```text
//!   A ──── 192.168.1.1 router 10.83.1.1 ──── internet
//! 192.168.1.2
//! ```

use std::net::Ipv4Addr;

use super::namespace::Namespace;
use super::{Host, Lab};

/// The router's address in the host's network.
const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

/// The address of a host behind a router.
pub const BEHIND: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);

impl Lab {
    /// Puts `host` behind a router, which takes over its addresses on the internet. The router lets nothing in that
    /// was not asked for from inside, and says nothing to what it refuses. For peers that are started later.
    ///
    /// # Panics
    ///
    /// If there is a router already.
    pub fn nat(&mut self, host: Host) {
        assert!(!self.routers.contains_key(&host), "host {host:?} is behind a router already");
        let router = Namespace::add(self.number, &format!("nat-{}", host.name()));
        let space = self.space(host);
        space.ip(&format!("link set dev eth0 netns {}", router.name()));
        router.ip(&format!("addr add {}/16 dev eth0", host.address(1)));
        router.ip("link set dev eth0 up");
        router.ip(&format!("link add name lan type veth peer name eth0 netns {}", space.name()));
        router.ip(&format!("addr add {INSIDE}/24 dev lan"));
        router.ip("link set dev lan up");
        space.ip(&format!("addr add {BEHIND}/24 dev eth0"));
        space.ip("link set dev eth0 up");
        router.nft("add table ip nat");
        for (name, kind, hook, priority) in [
            ("zone", "filter", "prerouting", "raw"),
            ("own", "filter", "input", "filter"),
            ("through", "filter", "forward", "filter"),
            ("source", "nat", "postrouting", "srcnat"),
        ] {
            router
                .nft(&format!("add chain ip nat {name} {{ type {kind} hook {hook} priority {priority}; }}"));
        }
        router.nft("add rule ip nat zone ct zone set 1");
        router.nft("add rule ip nat own iifname eth0 drop");
        router.nft("add rule ip nat through ct state invalid drop");
        router.nft("add rule ip nat through iifname eth0 ct state new drop");
        router.nft("add rule ip nat source oifname eth0 masquerade");
        // A connection that the router saw no beginning of is none to it.
        router.parameter("netfilter/nf_conntrack_tcp_loose", 0);
        router.parameter("ipv4/ip_forward", 1);
        self.routers.insert(host, router);
        self.add_default_route(host);
    }

    /// The host's router forgets all its connections, as one that restarts does.
    ///
    /// # Panics
    ///
    /// If there is no router.
    pub fn forget_connections(&self, host: Host) {
        // What is known about one zone says nothing about another.
        let zone = 2 + self.forgotten.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.routers[&host].nft(&format!("flush chain ip nat zone; add rule ip nat zone ct zone set {zone}"));
    }

    /// A host behind a router loses its way to everything but the router.
    pub fn remove_default_route(&self, host: Host) {
        self.space(host).ip(&format!("route del default via {INSIDE}"));
    }

    /// It has it again.
    pub fn add_default_route(&self, host: Host) {
        self.space(host).ip(&format!("route add default via {INSIDE}"));
    }
}
