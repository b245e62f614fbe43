//! Addresses of mailbox servers.

use std::fmt;
use std::str::FromStr;

use tokio_tungstenite::tungstenite::http::Uri;

use crate::WormholeError;

/// The address of a mailbox server: `ws://` or `wss://` (TLS).
///
/// The default ports are 80 and 443; without a path it is `/v1`.
///
/// ```
/// use dilated_mailbox::net::MailboxUrl;
///
/// let url: MailboxUrl = "ws://localhost:4000".parse()?;
/// assert_eq!(url.to_string(), "ws://localhost:4000/v1");
/// # Ok::<(), dilated_mailbox::net::UrlError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxUrl {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

/// The text is not the address of a mailbox server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{url}' is not a mailbox server's address ({reason}); write it as ws://host:port/v1 or wss://host:port/v1"
)]
pub struct UrlError {
    url: String,
    reason: &'static str,
}

impl From<UrlError> for WormholeError {
    fn from(error: UrlError) -> Self {
        Self::Config { reason: error.to_string() }
    }
}

impl MailboxUrl {
    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host's name or address, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for MailboxUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason| UrlError { url: text.to_owned(), reason };
        let uri: Uri = text.trim().parse().map_err(|_| error("it is malformed"))?;
        let tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(error("it does not begin with ws:// or wss://")),
        };
        let authority = uri.authority().ok_or(error("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(error("it contains a user name"));
        }
        let host = authority.host().to_owned();
        if host.is_empty() {
            return Err(error("it names no host"));
        }
        // `Uri` ignores a port that does not fit.
        let named = authority.as_str()[host.len()..].strip_prefix(':');
        let port = match named {
            None | Some("") => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(port) => {
                port.parse().ok().filter(|port| *port != 0).ok_or(error("its port is not 1 to 65535"))?
            }
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path == "/" { "/v1".to_owned() } else { path.to_owned() };
        Ok(Self { tls, host, port, path })
    }
}

impl fmt::Display for MailboxUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default) = if self.tls { ("wss", 443) } else { ("ws", 80) };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port != default {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses() {
        for (text, shown, host, port) in [
            (
                "ws://relay.magic-wormhole.io:4000/v1",
                "ws://relay.magic-wormhole.io:4000/v1",
                "relay.magic-wormhole.io",
                4000,
            ),
            ("wss://example.org", "wss://example.org/v1", "example.org", 443),
            ("ws://example.org/", "ws://example.org/v1", "example.org", 80),
            ("ws://[::1]:81/x?y=1", "ws://[::1]:81/x?y=1", "::1", 81),
            ("wss://h:443/v1", "wss://h/v1", "h", 443),
        ] {
            let url: MailboxUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.host(), url.port()), (shown, host, port));
            assert_eq!(url.is_tls(), text.starts_with("wss"));
            assert_eq!(url.to_string().parse::<MailboxUrl>().unwrap(), url);
        }
    }

    #[test]
    fn refuses() {
        for text in
            ["", "x", "http://h", "ws://", "ws:///v1", "ws://u@h/", "ws://h:0/", "ws://h:70000/", "ws://a b/"]
        {
            assert!(text.parse::<MailboxUrl>().is_err(), "{text}");
        }
    }
}
