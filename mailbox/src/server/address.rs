//! Who connects, and who counts as one.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its address; never an IPv4 address in IPv6 clothes.
    pub ip: IpAddr,
    /// Its port. A reverse proxy may not tell.
    pub port: Option<u16>,
}

impl PeerAddress {
    /// An address, with mapped IPv4 addresses made plain.
    #[must_use]
    pub fn new(ip: IpAddr, port: Option<u16>) -> Self {
        Self { ip: ip.to_canonical(), port }
    }

    /// Whose limits apply.
    #[must_use]
    pub fn key(&self) -> AddressKey {
        match self.ip {
            IpAddr::V4(_) => AddressKey(self.ip),
            // Anybody with IPv6 at home has 2^64 addresses.
            IpAddr::V6(ip) => AddressKey(Ipv6Addr::from(u128::from(ip) >> 64 << 64).into()),
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::new(address.ip(), Some(address.port()))
    }
}

/// What limits per address count by: an IPv4 address, or the /64 of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressKey(IpAddr);
