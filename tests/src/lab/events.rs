//! What can happen to the network while peers use it.

use std::net::SocketAddrV4;

use super::{Host, Lab};

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

impl Lab {
    /// The host loses its address number `old` on the internet and gets number `new`. Behind a router it is the
    /// router's, and the host sees nothing of it.
    pub fn change_address(&self, host: Host, old: u8, new: u8) {
        self.uplink(host).ip(&format!("addr del {}/16 dev eth0", host.address(old)));
        self.uplink(host).ip(&format!("addr add {}/16 dev eth0", host.address(new)));
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
        if direction != Direction::To {
            self.drop_where(&format!("iifname {}", host.name()));
        }
        if direction != Direction::From {
            self.drop_where(&format!("oifname {}", host.name()));
        }
    }

    /// Swallows what two hosts send to each other, and nothing else, until [`Lab::heal`].
    pub fn part(&self, one: Host, other: Host) {
        for (from, to) in [(one, other), (other, one)] {
            self.drop_where(&format!("iifname {} oifname {}", from.name(), to.name()));
        }
    }

    /// Drops what a host sends beyond `rate` KiB/s, as a policer does, until [`Lab::heal`].
    pub fn limit_rate(&self, host: Host, rate: u32) {
        self.drop_where(&format!("iifname {} limit rate over {rate} kbytes/second", host.name()));
    }

    /// Ends all blackholes and limits.
    pub fn heal(&self) {
        self.internet.nft("flush chain bridge lab forward");
    }

    /// Swallows what begins new TCP connections between two hosts, until [`Lab::heal`].
    pub fn part_new(&self, one: Host, other: Host) {
        for (from, to) in [(one, other), (other, one)] {
            let (from, to) = (from.name(), to.name());
            self.drop_where(&format!("iifname {from} oifname {to} tcp flags & (syn | ack) == syn"));
        }
    }

    /// How many packets the blackholes and limits that are on have swallowed.
    pub fn dropped(&self) -> u64 {
        let rules = self.internet.run("nft", &["list", "chain", "bridge", "lab", "forward"]);
        // … counter packets 7 bytes 518 drop
        let after = rules.split("counter packets ").skip(1);
        after.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum()
    }

    fn drop_where(&self, packets: &str) {
        self.internet.nft(&format!("add rule bridge lab forward {packets} counter drop"));
    }

    /// Resets the host's TCP connections with the port `far`: both ends get a reset as soon as they say something.
    /// Later connections are not touched.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn reset(&self, host: Host, far: SocketAddrV4) {
        let space = self.space(host);
        let (address, port) = (far.ip(), far.port());
        for own in self.own_ports(host, far) {
            for (hook, packets) in [
                ("input", format!("ip saddr {address} tcp sport {port} tcp dport {own}")),
                ("output", format!("ip daddr {address} tcp dport {port} tcp sport {own}")),
            ] {
                // A reset itself has to pass, or the far end would never hear of it.
                space.nft(&format!(
                    "add rule inet lab {hook} {packets} tcp flags & rst == 0 reject with tcp reset"
                ));
            }
        }
    }

    /// Ends the host's TCP connections with the port `far` at once: the host's end fails, and the far end is sent a
    /// reset.
    ///
    /// # Panics
    ///
    /// If there is none, or if the kernel cannot (its option `INET_DIAG_DESTROY`).
    pub fn destroy(&self, host: Host, far: SocketAddrV4) {
        let found = ["-KHtn", "state", "established", "dst", &far.to_string()];
        // It lists those that it destroyed.
        let destroyed = self.space(host).run("ss", &found);
        assert!(!destroyed.trim().is_empty(), "no connection of host {host:?} with {far} was destroyed");
    }

    /// Swallows packets of the host's TCP connections with the port `far`, until [`Lab::heal`]. Later connections
    /// are not touched.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn blackhole_connection(&self, host: Host, far: SocketAddrV4, direction: Direction) {
        let (name, address, port) = (host.name(), far.ip(), far.port());
        for own in self.own_ports(host, far) {
            if direction != Direction::To {
                self.drop_where(&format!(
                    "iifname {name} ip daddr {address} tcp sport {own} tcp dport {port}"
                ));
            }
            if direction != Direction::From {
                self.drop_where(&format!(
                    "oifname {name} ip saddr {address} tcp sport {port} tcp dport {own}"
                ));
            }
        }
    }

    /// The host's ports in its TCP connections with the port `far`.
    fn own_ports(&self, host: Host, far: SocketAddrV4) -> Vec<u16> {
        let connections =
            self.space(host).run("ss", &["-Htn", "state", "established", "dst", &far.to_string()]);
        // Receive queue, send queue, own address, the other's.
        let own_port = |line: &str| line.split_whitespace().nth(2)?.rsplit(':').next()?.parse::<u16>().ok();
        let ports: Vec<u16> = connections.lines().filter_map(own_port).collect();
        assert!(!ports.is_empty(), "host {host:?} has no connection with {far}");
        ports
    }
}
