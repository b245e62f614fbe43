//! Hints: where a side may be reached, and the ways of connecting it can use.
//!
//! A hint travels as JSON inside a `connection-hints` message (specification `ged`, section "Connection hints");
//! a person writes one as `tcp:host:port`. Both are parsed here. What the peer sends is parsed tolerantly: an
//! entry that makes no sense is skipped, the rest is used, and [`HintLimits`] bounds how much of it.

mod json;
mod text;

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

pub use json::{Ability, encode_abilities, encode_hints, parse_abilities, parse_hints};
pub use text::HintParseError;

/// One way of reaching the other side.
#[derive(Debug, Clone, PartialEq)]
pub enum Hint {
    /// `direct-tcp-v1`: dial this and the other side answers.
    Direct(TcpHint),
    /// `relay-v1`: dial this relay and ask to be joined with the other side.
    Relay(RelayHint),
    /// `tor-tcp-v1`: dial this through Tor. Dialled by those who have a [proxy](crate::net::Proxy) only.
    Tor(TcpHint),
}

/// A TCP endpoint.
///
/// The host is an IP address or an ASCII host name; an IPv4 address that was written as IPv6
/// (`::ffff:192.0.2.2`) is kept as IPv4, so that equal endpoints are equal. Equality includes the priority.
#[derive(Debug, Clone, PartialEq)]
pub struct TcpHint {
    hostname: String,
    port: u16,
    priority: f64,
}

/// A relay and the endpoints at which it can be reached; one of them is enough.
#[derive(Debug, Clone, PartialEq)]
pub struct RelayHint {
    hints: Vec<TcpHint>,
}

/// Bounds on the hints of one message.
///
/// A hostile peer could send thousands of hints and have us dial them all, at whom it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HintLimits {
    /// Most hints used of one message; the rest is dropped. Default 50.
    pub max_hints: usize,
    /// Longest host name, in bytes. Default 255, the most that DNS allows.
    pub max_hostname: usize,
    /// Most endpoints used of one relay. Default 3.
    pub max_relay_endpoints: usize,
}

impl Default for HintLimits {
    fn default() -> HintLimits {
        HintLimits { max_hints: 50, max_hostname: 255, max_relay_endpoints: 3 }
    }
}

impl TcpHint {
    /// An endpoint of priority 0.
    ///
    /// # Errors
    ///
    /// [`HintParseError`] if the host is no IP address and no host name, or the port is 0.
    pub fn new(hostname: &str, port: u16) -> Result<TcpHint, HintParseError> {
        let max = HintLimits::default().max_hostname;
        let hostname =
            normalize_host(hostname, max).ok_or_else(|| HintParseError::Host(text::shorten(hostname)))?;
        if port == 0 {
            return Err(HintParseError::Port("0".to_owned()));
        }
        Ok(TcpHint { hostname, port, priority: 0.0 })
    }

    /// An endpoint of priority 0 at an address. Unlike [`new`](Self::new) it cannot fail.
    #[must_use]
    pub fn from_addr(address: IpAddr, port: u16) -> TcpHint {
        TcpHint { hostname: address.to_canonical().to_string(), port, priority: 0.0 }
    }

    /// The same endpoint with another priority; higher is dialled earlier. A priority that is not a finite number
    /// counts as 0, for no JSON could carry it.
    #[must_use]
    pub fn with_priority(self, priority: f64) -> TcpHint {
        TcpHint { priority: if priority.is_finite() { priority } else { 0.0 }, ..self }
    }

    /// The IP address (IPv6 without brackets) or host name.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// The TCP port, never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The priority, a finite number; higher is dialled earlier.
    #[must_use]
    pub fn priority(&self) -> f64 {
        self.priority
    }

    /// The host as an address, if it is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.hostname.parse().ok()
    }

    /// What makes two hints lead to the same place: everything but the priority.
    pub(crate) fn endpoint(&self) -> (String, u16) {
        (self.hostname.clone(), self.port)
    }
}

impl RelayHint {
    /// A relay with these endpoints.
    #[must_use]
    pub fn new(hints: Vec<TcpHint>) -> RelayHint {
        RelayHint { hints }
    }

    /// The endpoints of the relay.
    #[must_use]
    pub fn hints(&self) -> &[TcpHint] {
        &self.hints
    }
}

impl From<TcpHint> for RelayHint {
    fn from(hint: TcpHint) -> RelayHint {
        RelayHint { hints: vec![hint] }
    }
}

/// Writes `tcp:host:port`, with brackets around an IPv6 address.
pub(crate) fn write_endpoint(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') { write!(f, "tcp:[{host}]:{port}") } else { write!(f, "tcp:{host}:{port}") }
}

/// Checks a host and brings it into one form: addresses canonical, names in lower case.
///
/// Addresses at which nobody can be reached (unspecified, multicast, broadcast) are refused: some systems dial
/// themselves for `0.0.0.0`.
fn normalize_host(host: &str, max: usize) -> Option<String> {
    if host.is_empty() || host.len() > max {
        return None;
    }
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let address = match inner {
        Some(inner) => Some(inner.parse::<Ipv6Addr>().map(IpAddr::V6).ok()?),
        None => host.parse::<IpAddr>().ok(),
    };
    if let Some(address) = address.map(|a| a.to_canonical()) {
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        let reachable = !address.is_unspecified() && !address.is_multicast() && !broadcast;
        return reachable.then(|| address.to_string());
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    host.bytes().all(plain).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_brought_into_one_form() {
        for (given, kept) in [
            ("192.0.2.2", Some("192.0.2.2")),
            ("::ffff:192.0.2.2", Some("192.0.2.2")),
            ("[2001:DB8:0::1]", Some("2001:db8::1")),
            ("Relay.Example", Some("relay.example")),
            ("a_b-c.d", Some("a_b-c.d")),
            ("", None),
            ("0.0.0.0", None),
            ("::", None),
            ("224.0.0.1", None),
            ("255.255.255.255", None),
            ("ff02::1", None),
            ("fe80::1%eth0", None),
            ("[192.0.2.2]", None),
            ("a b", None),
            ("a\nb", None),
            ("b\u{fc}cher.example", None),
        ] {
            assert_eq!(normalize_host(given, 255).as_deref(), kept, "{given}");
        }
        assert_eq!(normalize_host(&"a".repeat(256), 255), None);
    }

    #[test]
    fn a_priority_is_always_finite() {
        let hint = TcpHint::new("relay.example", 1).unwrap();
        assert_eq!(hint.clone().with_priority(f64::NAN).priority(), 0.0);
        assert_eq!(hint.with_priority(-1.5).priority(), -1.5);
    }
}
