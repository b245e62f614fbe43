//! The messages of the mailbox protocol v1: JSON objects, one in each websocket text message.
//!
//! Parsing is tolerant, as other implementations are: unknown keys and unknown types are ignored. It is also
//! bounded: a text is measured before it is parsed, and only what is known is ever allocated.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Nameplate;
use crate::client::ClientLimits;
use crate::error::WormholeError;

/// How a wormhole ended, told to the server for its statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mood {
    /// The two sides met, and closed.
    Happy,
    /// Nobody came.
    Lonely,
    /// A message could not be decrypted.
    Scary,
    /// Something failed.
    Errory,
    /// The server's greeting refused us.
    Unwelcome,
}

/// What a client says to the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum ClientMessage {
    /// The first message of each connection.
    Bind {
        /// Which application: only clients of the same one meet.
        appid: String,
        /// Who we are, 10 hexadecimal digits.
        side: String,
        /// Implementation and version.
        client_version: (String, String),
    },
    /// Asks for the nameplates in use.
    List,
    /// Asks for a free nameplate.
    Allocate,
    /// Takes part in a nameplate; the answer is the mailbox behind it.
    Claim {
        /// Its digits.
        nameplate: String,
    },
    /// Gives the nameplate back.
    Release {
        /// Its digits.
        nameplate: String,
    },
    /// Subscribes to a mailbox; what is stored in it follows.
    Open {
        /// Its name.
        mailbox: String,
    },
    /// Adds a message to the open mailbox.
    Add {
        /// What the message is.
        phase: Arc<str>,
        /// Hexadecimal.
        body: Arc<str>,
    },
    /// Leaves the mailbox.
    Close {
        /// Its name.
        mailbox: String,
        /// How it went.
        mood: Mood,
    },
    /// Asks for a pong, which comes after everything that the server has to say before.
    Ping {
        /// Comes back in the pong.
        ping: u64,
    },
}

impl ClientMessage {
    /// The JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and tuples of strings always serialise")
    }
}

/// The server's greeting.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Welcome {
    /// The message of the day. It is the server's text: strip control characters before you print it.
    pub motd: Option<String>,
    /// If present, the server refuses this client, and says why.
    pub error: Option<String>,
    /// The newest released version of the Python command line.
    pub current_cli_version: Option<String>,
    /// Our own address as the server sees it.
    pub your_address: Option<SocketAddr>,
    /// The whole greeting, unknown keys included.
    pub raw: Map<String, Value>,
}

impl Welcome {
    fn new(raw: Map<String, Value>) -> Self {
        let text = |key: &str| raw.get(key).and_then(Value::as_str).map(str::to_owned);
        let error =
            raw.get("error").map(|error| error.as_str().map_or_else(|| error.to_string(), str::to_owned));
        let (motd, current_cli_version) = (text("motd"), text("current_cli_version"));
        let your_address = raw.get("your-address").and_then(address);
        Self { motd, error, current_cli_version, your_address, raw }
    }
}

fn address(value: &Value) -> Option<SocketAddr> {
    let port = u16::try_from(value.get("port")?.as_u64()?).ok()?;
    let ip: IpAddr = ["ipv4", "ipv6"].iter().find_map(|key| value.get(*key)?.as_str()?.parse().ok())?;
    Some(SocketAddr::new(ip, port))
}

/// A message in the mailbox.
#[derive(Clone, PartialEq, Eq)]
pub struct MailboxMessage {
    /// Who added it.
    pub side: String,
    /// What it is.
    pub phase: String,
    /// Its bytes, encrypted unless the phase is `pake`.
    pub body: Vec<u8>,
}

impl fmt::Debug for MailboxMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MailboxMessage({} {}, {} bytes)", self.side, self.phase, self.body.len())
    }
}

/// What the server says to a client.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ServerMessage {
    /// The greeting.
    Welcome(Welcome),
    /// The nameplates in use. Those that are not numbers are left out.
    Nameplates(Vec<Nameplate>),
    /// The nameplate that was allocated.
    Allocated(Nameplate),
    /// The mailbox behind the claimed nameplate.
    Claimed(String),
    /// The nameplate was released.
    Released,
    /// The mailbox was closed.
    Closed,
    /// A message of either side.
    Message(MailboxMessage),
    /// The answer to a ping.
    Pong(u64),
    /// A complaint.
    Error(String),
    /// An acknowledgement, an answer to nothing we ask, or a type from the future.
    Ignored(String),
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct RawWelcome {
    welcome: Map<String, Value>,
}

#[derive(Deserialize)]
struct RawNameplates<'a> {
    #[serde(borrow)]
    nameplates: Vec<RawNameplate<'a>>,
}

#[derive(Deserialize)]
struct RawNameplate<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct RawAllocated<'a> {
    #[serde(borrow)]
    nameplate: Cow<'a, str>,
}

#[derive(Deserialize)]
struct RawClaimed<'a> {
    #[serde(borrow)]
    mailbox: Cow<'a, str>,
}

#[derive(Deserialize)]
struct RawError<'a> {
    #[serde(borrow)]
    error: Cow<'a, str>,
}

#[derive(Deserialize)]
struct RawPong {
    pong: u64,
}

#[derive(Deserialize)]
struct RawMessage<'a> {
    #[serde(borrow)]
    side: Cow<'a, str>,
    #[serde(borrow)]
    phase: Cow<'a, str>,
    #[serde(borrow)]
    body: Cow<'a, str>,
}

impl ServerMessage {
    /// Parses one text message.
    ///
    /// # Errors
    /// [`WormholeError::ServerProtocol`] if it is not an object of the protocol, [`WormholeError::Limit`] if it
    /// exceeds one of `limits`.
    pub fn parse(text: &str, limits: &ClientLimits) -> Result<Self, WormholeError> {
        within("bytes in a message of the server", text.len(), limits.message_bytes)?;
        let kind = part::<Head<'_>>(text, "message")?.kind;
        Ok(match &*kind {
            "welcome" => {
                within("bytes in the server's welcome", text.len(), limits.welcome_bytes)?;
                Self::Welcome(Welcome::new(part::<RawWelcome>(text, "welcome")?.welcome))
            }
            "nameplates" => Self::Nameplates(nameplates(text, limits)?),
            "allocated" => {
                let nameplate = part::<RawAllocated<'_>>(text, "allocated")?.nameplate;
                Self::Allocated(nameplate.parse().map_err(|_| WormholeError::ServerProtocol {
                    reason: "it allocated a nameplate that is not a number".to_owned(),
                })?)
            }
            "claimed" => {
                let mailbox = part::<RawClaimed<'_>>(text, "claimed")?.mailbox;
                within("bytes in a mailbox name", mailbox.len(), limits.name_bytes)?;
                Self::Claimed(mailbox.into_owned())
            }
            "released" => Self::Released,
            "closed" => Self::Closed,
            "message" => Self::Message(message(text, limits)?),
            "pong" => Self::Pong(part::<RawPong>(text, "pong")?.pong),
            "error" => Self::Error(part::<RawError<'_>>(text, "error")?.error.into_owned()),
            other => Self::Ignored(other.chars().take(limits.name_bytes).collect()),
        })
    }
}

fn part<'a, T: Deserialize<'a>>(text: &'a str, kind: &str) -> Result<T, WormholeError> {
    serde_json::from_str(text).map_err(|error| WormholeError::ServerProtocol {
        reason: crate::error::printable(&format!("a malformed {kind}: {error}")),
    })
}

fn within(what: &'static str, is: usize, limit: usize) -> Result<(), WormholeError> {
    if is > limit { Err(WormholeError::limit(what, limit)) } else { Ok(()) }
}

fn nameplates(text: &str, limits: &ClientLimits) -> Result<Vec<Nameplate>, WormholeError> {
    let listed = part::<RawNameplates<'_>>(text, "list of nameplates")?.nameplates;
    within("nameplates in the server's list", listed.len(), limits.nameplates)?;
    Ok(listed.iter().filter_map(|entry| entry.id.parse().ok()).collect())
}

fn message(text: &str, limits: &ClientLimits) -> Result<MailboxMessage, WormholeError> {
    let raw = part::<RawMessage<'_>>(text, "message of the peer")?;
    within("bytes in a side's name", raw.side.len(), limits.name_bytes)?;
    within("bytes in a phase's name", raw.phase.len(), limits.name_bytes)?;
    let body = data_encoding::HEXLOWER_PERMISSIVE.decode(raw.body.as_bytes());
    let body = body.map_err(|_| WormholeError::ServerProtocol {
        reason: "the body of a message is not hexadecimal".to_owned(),
    })?;
    Ok(MailboxMessage { side: raw.side.into_owned(), phase: raw.phase.into_owned(), body })
}

/// What a message in the mailbox is, by the name of its phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    Pake,
    Version,
    /// The application's messages, `0`, `1`, …
    Numeric(u64),
    /// Dilation's messages, `dilate-0`, `dilate-1`, …
    Dilate(u64),
    Unknown,
}

impl Phase {
    pub(crate) fn parse(name: &str) -> Self {
        match name {
            "pake" => Self::Pake,
            "version" => Self::Version,
            _ => match name.strip_prefix("dilate-") {
                Some(number) => canonical(number).map_or(Self::Unknown, Self::Dilate),
                None => canonical(name).map_or(Self::Unknown, Self::Numeric),
            },
        }
    }
}

/// A number in the one way that senders write it: without it, `0` and `00` would be one message twice.
fn canonical(number: &str) -> Option<u64> {
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    let plain = number == "0" || !number.starts_with('0');
    if digits && plain { number.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<ServerMessage, WormholeError> {
        ServerMessage::parse(text, &ClientLimits::default())
    }

    #[test]
    fn client_messages_are_pythons() {
        let bind = ClientMessage::Bind {
            appid: "a".into(),
            side: "s".into(),
            client_version: ("dilated".into(), "1".into()),
        };
        let json = r#"{"type":"bind","appid":"a","side":"s","client_version":["dilated","1"]}"#;
        assert_eq!(bind.to_json(), json);
        assert_eq!(ClientMessage::List.to_json(), r#"{"type":"list"}"#);
        let close = ClientMessage::Close { mailbox: "m".into(), mood: Mood::Unwelcome };
        assert_eq!(close.to_json(), r#"{"type":"close","mailbox":"m","mood":"unwelcome"}"#);
        let add = ClientMessage::Add { phase: "pake".into(), body: "00".into() };
        assert_eq!(add.to_json(), r#"{"type":"add","phase":"pake","body":"00"}"#);
    }

    #[test]
    fn welcome_is_tolerant() {
        let text = r#"{"type":"welcome","server_tx":1.5,"welcome":{"motd":"hi","x":[1],
            "current_cli_version":7,"your-address":{"port":46588,"ipv4":"127.0.0.1"}}}"#;
        let Ok(ServerMessage::Welcome(welcome)) = parse(text) else { panic!("not a welcome") };
        assert_eq!(welcome.motd.as_deref(), Some("hi"));
        assert_eq!(welcome.current_cli_version, None);
        assert_eq!(welcome.your_address, Some("127.0.0.1:46588".parse().unwrap()));
        assert_eq!(welcome.raw["x"], serde_json::json!([1]));
        let v6 = r#"{"type":"welcome","welcome":{"your-address":{"port":1,"ipv6":"::1"}}}"#;
        let Ok(ServerMessage::Welcome(welcome)) = parse(v6) else { panic!("not a welcome") };
        assert_eq!(welcome.your_address, Some("[::1]:1".parse().unwrap()));
    }

    #[test]
    fn bad_messages_are_named() {
        let protocol = |text: &str| matches!(parse(text), Err(WormholeError::ServerProtocol { .. }));
        for text in [
            "",
            "[]",
            "{}",
            r#"{"type":1}"#,
            r#"{"type":"claimed"}"#,
            r#"{"type":"message","side":"a","phase":1,"body":""}"#,
            r#"{"type":"message","side":"a","phase":"1","body":"xy"}"#,
            r#"{"type":"allocated","nameplate":"x"}"#,
        ] {
            assert!(protocol(text), "{text}");
        }
        assert_eq!(parse(r#"{"type":"new"}"#), Ok(ServerMessage::Ignored("new".into())));
        let listed = parse(r#"{"type":"nameplates","nameplates":[{"id":"4","x":1},{"id":"\u001b"}]}"#);
        assert_eq!(listed, Ok(ServerMessage::Nameplates(vec!["4".parse().unwrap()])));
    }

    #[test]
    fn limits_hold() {
        let limits = ClientLimits {
            name_bytes: 4,
            nameplates: 1,
            welcome_bytes: 40,
            message_bytes: 200,
            ..Default::default()
        };
        let limited =
            |text: &str| matches!(ServerMessage::parse(text, &limits), Err(WormholeError::Limit { .. }));
        assert!(limited(r#"{"type":"claimed","mailbox":"12345"}"#));
        assert!(limited(r#"{"type":"nameplates","nameplates":[{"id":"4"},{"id":"5"}]}"#));
        assert!(limited(r#"{"type":"welcome","welcome":{"motd":"a long message"}}"#));
        assert!(limited(r#"{"type":"message","side":"12345","phase":"","body":""}"#));
        assert!(limited(&" ".repeat(201)));
    }

    #[test]
    fn phases() {
        assert_eq!(Phase::parse("0"), Phase::Numeric(0));
        assert_eq!(Phase::parse("dilate-12"), Phase::Dilate(12));
        for name in ["", "00", "01", "dilate-", "dilate-01", "-1", "+1", "x", "99999999999999999999999"] {
            assert_eq!(Phase::parse(name), Phase::Unknown, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn any_object_is_survived(
            kind in "(welcome|nameplates|allocated|claimed|message|error|ack|released|closed|x)",
            key in "(welcome|nameplates|nameplate|mailbox|side|phase|body|error)",
            value in "(1|null|\"\"|\"00\"|\\[\\]|\\{\\}|\\[\\{\"id\":\"1\"\\}\\]|\\[1\\])",
        ) {
            let _ = parse(&format!(r#"{{"type":"{kind}","{key}":{value},"side":"s"}}"#));
        }
    }
}
