//! How a link was reached, in words that a status line can show.

use std::{fmt, net::SocketAddr};

use crate::hint::{TcpHint, write_endpoint};

/// What lies between the two ends of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum PathKind {
    /// We dialled one of the peer's addresses.
    DirectOut,
    /// The peer dialled one of ours.
    DirectIn,
    /// Both of us dialled a transit relay.
    Relay,
}

/// The way a link goes.
///
/// Displayed like the Python implementation's descriptions: `->tcp:host:port`, `->relay:tcp:host:port`,
/// `<-tcp:host:port`; IPv6 addresses in brackets. It holds addresses: log it at debug level only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    kind: PathKind,
    host: String,
    port: u16,
}

impl Path {
    /// The path of a dial to one of the peer's own addresses.
    #[must_use]
    pub fn direct(to: &TcpHint) -> Path {
        Path { kind: PathKind::DirectOut, host: to.hostname().to_owned(), port: to.port() }
    }

    /// The path of a dial through a relay.
    #[must_use]
    pub fn relay(relay: &TcpHint) -> Path {
        Path { kind: PathKind::Relay, host: relay.hostname().to_owned(), port: relay.port() }
    }

    /// The path of a connection that the peer made to us.
    #[must_use]
    pub fn inbound(from: SocketAddr) -> Path {
        Path { kind: PathKind::DirectIn, host: from.ip().to_canonical().to_string(), port: from.port() }
    }

    /// What lies between the two ends.
    #[must_use]
    pub fn kind(&self) -> PathKind {
        self.kind
    }

    /// The host name or address dialled, or the address that dialled us.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port that goes with [`host`](Self::host).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether no relay carries the bytes.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.kind != PathKind::Relay
    }

    /// Whether the peer dialled us.
    #[must_use]
    pub fn is_inbound(&self) -> bool {
        self.kind == PathKind::DirectIn
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            PathKind::DirectOut => "->",
            PathKind::DirectIn => "<-",
            PathKind::Relay => "->relay:",
        })?;
        write_endpoint(f, &self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_like_python_descriptions() {
        let relay: TcpHint = "tcp:relay.example:4001".parse().unwrap();
        let v6: TcpHint = "tcp:[2001:db8::1]:4001".parse().unwrap();
        assert_eq!(Path::relay(&relay).to_string(), "->relay:tcp:relay.example:4001");
        assert_eq!(Path::direct(&v6).to_string(), "->tcp:[2001:db8::1]:4001");
        let inbound = Path::inbound("[::ffff:192.0.2.2]:9".parse().unwrap());
        assert_eq!(inbound.to_string(), "<-tcp:192.0.2.2:9");
        assert!(inbound.is_direct() && inbound.is_inbound() && !Path::relay(&relay).is_direct());
    }
}
