//! A SOCKS5 proxy that makes our connections.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    time::Duration,
};

use thiserror::Error;
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;
use zeroize::Zeroizing;

use crate::hint::{HintParseError, TcpHint};

/// Where Tor listens unless told otherwise.
const TOR_PORT: u16 = 9050;
/// Where other SOCKS proxies listen unless told otherwise.
const SOCKS_PORT: u16 = 1080;

/// A SOCKS5 proxy through which a side makes all its connections.
///
/// Host names are not resolved here but by the proxy, `.onion` names among them. A side that has one does not listen, and
/// tells nobody its addresses.
///
/// Written as `[socks5://|tor://][user:password@]host[:port]`. Through [Tor](Self::is_tor) private addresses are not dialled:
/// nobody's exit could reach them, and which ones are asked for may tell who we are.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    credentials: Option<(String, Zeroizing<String>)>,
    tor: bool,
}

/// Why a text does not name a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProxyParseError {
    /// Another kind of proxy.
    #[error("only SOCKS5 proxies can be used: write socks5://host:port or tor://host:port")]
    Scheme,
    /// A host or a port that cannot be.
    #[error("the proxy is no host with a port: {0}")]
    Endpoint(#[from] HintParseError),
    /// A user without a password, or one of them is not 1 to 255 bytes long.
    #[error(
        "write the user and the password of the proxy as user:password@host:port, each of 1 to 255 bytes"
    )]
    Credentials,
}

impl Proxy {
    /// A proxy without a password.
    ///
    /// # Errors
    ///
    /// [`ProxyParseError::Endpoint`].
    pub fn socks5(host: &str, port: u16) -> Result<Proxy, ProxyParseError> {
        let endpoint = TcpHint::new(host, port)?;
        Ok(Proxy { host: endpoint.hostname().to_owned(), port, credentials: None, tor: false })
    }

    /// The SOCKS port of a Tor client.
    ///
    /// # Errors
    ///
    /// [`ProxyParseError::Endpoint`].
    pub fn tor(host: &str, port: u16) -> Result<Proxy, ProxyParseError> {
        Ok(Proxy { tor: true, ..Proxy::socks5(host, port)? })
    }

    /// The same as the SOCKS port of a Tor client.
    #[must_use]
    pub fn as_tor(self) -> Proxy {
        Proxy { tor: true, ..self }
    }

    /// The same with a user and a password, of 1 to 255 bytes each.
    ///
    /// # Errors
    ///
    /// [`ProxyParseError::Credentials`].
    pub fn with_credentials(self, user: &str, password: &str) -> Result<Proxy, ProxyParseError> {
        if [user, password].iter().any(|text| !(1..=255).contains(&text.len())) {
            return Err(ProxyParseError::Credentials);
        }
        let credentials = Some((user.to_owned(), Zeroizing::new(password.to_owned())));
        Ok(Proxy { credentials, ..self })
    }

    /// The host of the proxy.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port of the proxy.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is a Tor client.
    #[must_use]
    pub fn is_tor(&self) -> bool {
        self.tor
    }

    /// Has the proxy connect to an endpoint, over a fresh connection to it. Every wait is the caller's to bound.
    pub(super) async fn connect(&self, stream: TcpStream, to: &TcpHint) -> io::Result<TcpStream> {
        let target = (to.hostname(), to.port());
        let connected = match &self.credentials {
            None => Socks5Stream::connect_with_socket(stream, target).await,
            Some((user, password)) => {
                Socks5Stream::connect_with_password_and_socket(stream, target, user, password).await
            }
        };
        match connected {
            Ok(stream) => Ok(stream.into_inner()),
            Err(error) => Err(io::Error::other(format!("the proxy {self} did not connect: {error}"))),
        }
    }

    /// Whether an endpoint must not be asked for.
    pub(super) fn refuses(&self, to: &TcpHint) -> bool {
        self.tor && is_private(to)
    }

    /// Where the proxy itself is.
    pub(super) fn endpoint(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
}

/// A circuit through Tor takes its time, and the connection behind it, too.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Whether an endpoint means something on our own network only.
fn is_private(to: &TcpHint) -> bool {
    match to.address() {
        Some(IpAddr::V4(v4)) => is_private_v4(v4),
        Some(IpAddr::V6(v6)) => {
            let [first, ..] = v6.segments();
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6 == Ipv6Addr::UNSPECIFIED
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                // The former site-local addresses.
                || first & 0xffc0 == 0xfec0
                || v6.to_ipv4_mapped().is_some_and(is_private_v4)
        }
        None => {
            let name = to.hostname().trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost") || name.ends_with(".local")
        }
    }
}

fn is_private_v4(v4: Ipv4Addr) -> bool {
    let [first, second, ..] = v4.octets();
    v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_broadcast()
        || v4.is_multicast()
        || first == 0
        // Of the network of a provider (RFC 6598).
        || (first == 100 && second & 0xc0 == 64)
}

impl FromStr for Proxy {
    type Err = ProxyParseError;

    fn from_str(text: &str) -> Result<Proxy, ProxyParseError> {
        let (tor, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("socks5" | "socks5h", rest)) => (false, rest),
            Some(("tor", rest)) => (true, rest),
            Some(_) => return Err(ProxyParseError::Scheme),
        };
        let (credentials, endpoint) = match rest.trim_end_matches('/').rsplit_once('@') {
            None => (None, rest.trim_end_matches('/')),
            Some((credentials, endpoint)) => {
                (Some(credentials.split_once(':').ok_or(ProxyParseError::Credentials)?), endpoint)
            }
        };
        let has_port = !endpoint.ends_with(']') && endpoint.rsplit_once(':').is_some();
        let port = if tor { TOR_PORT } else { SOCKS_PORT };
        let hint = if has_port { format!("tcp:{endpoint}") } else { format!("tcp:{endpoint}:{port}") };
        let hint: TcpHint = hint.parse()?;
        let proxy = Proxy { tor, ..Proxy::socks5(hint.hostname(), hint.port())? };
        match credentials {
            None => Ok(proxy),
            Some((user, password)) => proxy.with_credentials(user, password),
        }
    }
}

/// Without its password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tor { "tor://" } else { "socks5://" })?;
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_as_people_write_them() {
        for (text, shown) in [
            ("127.0.0.1:1081", "socks5://127.0.0.1:1081"),
            ("proxy.example", "socks5://proxy.example:1080"),
            ("socks5://proxy.example:7/", "socks5://proxy.example:7"),
            ("socks5h://[2001:db8::1]:7", "socks5://[2001:db8::1]:7"),
            ("socks5://[2001:db8::1]", "socks5://[2001:db8::1]:1080"),
            ("tor://localhost", "tor://localhost:9050"),
            ("socks5://me:p@ss:word@proxy.example:7", "socks5://proxy.example:7"),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!((proxy.to_string().as_str(), proxy.is_tor()), (shown, text.starts_with("tor")));
            assert!(!format!("{proxy:?}").contains("word"));
            assert_eq!(proxy.credentials.is_some(), text.contains('@'));
        }
        let parse = |text: &str| text.parse::<Proxy>().unwrap_err();
        assert_eq!(parse("http://proxy.example:8080"), ProxyParseError::Scheme);
        assert_eq!(parse("me@proxy.example:1"), ProxyParseError::Credentials);
        assert_eq!(parse("me:@proxy.example:1"), ProxyParseError::Credentials);
        for text in ["", "a b:1", "proxy.example:0", "proxy.example:x", "proxy.example:1:priority=2:3"] {
            assert!(matches!(parse(text), ProxyParseError::Endpoint(_)), "{text}");
        }
    }

    #[test]
    fn what_tor_is_not_asked_for() {
        let tor: Proxy = "tor://localhost".parse().unwrap();
        let plain: Proxy = "localhost:1080".parse().unwrap();
        for (host, refused) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("192.168.1.1", true),
            ("169.254.0.1", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("::1", true),
            ("fe80::1", true),
            ("fd00::1", true),
            ("::ffff:10.0.0.1", true),
            ("2001:db8::1", false),
            ("192.0.2.1", false),
            ("localhost", true),
            ("LocalHost.", true),
            ("printer.local", true),
            ("abc.onion", false),
        ] {
            let hint = TcpHint::new(host, 1).unwrap();
            assert_eq!((tor.refuses(&hint), plain.refuses(&hint)), (refused, false), "{host}");
        }
    }
}
