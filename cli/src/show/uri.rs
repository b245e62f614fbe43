//! Codes as addresses, for QR codes and for programs that open them: the scheme `wormhole-transfer:` of the
//! specification.

use std::{fmt, str::FromStr};

use crate::{
    exit::Failure,
    options::{Global, TRANSFER_APPID},
    quote::printable,
};

/// What such an address begins with.
const SCHEME: &str = "wormhole-transfer:";

/// The version that is specified.
const VERSION: &str = "0";

/// The mailbox server that an address means when it names none.
const DEFAULT_RENDEZVOUS: &str = "ws://relay.magic-wormhole.io:4000";

/// The endpoint of the servers, which addresses leave out.
const ENDPOINT: &str = "/v1";

/// The part of the side that reads the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It sends.
    Leader,
    /// It receives.
    Follower,
}

/// A code, with the place to meet at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TransferUri {
    pub(crate) code: String,
    /// The mailbox server without its endpoint; nothing is the default one.
    rendezvous: Option<String>,
    role: Role,
}

impl TransferUri {
    /// The address of a code for the side that has the part `role`. There is none for an application of one's own.
    pub(crate) fn new(global: &Global, code: &str, role: Role) -> Option<TransferUri> {
        if global.appid(TRANSFER_APPID) != TRANSFER_APPID {
            return None;
        }
        let rendezvous = global.mailboxes().next().map(|url| url.strip_suffix(ENDPOINT).unwrap_or(url));
        // The public server is the default under each of its addresses.
        let public = |url: &str| {
            dilated::PUBLIC_MAILBOXES.iter().any(|known| known.strip_suffix(ENDPOINT) == Some(url))
        };
        let rendezvous = rendezvous.filter(|url| !public(url)).map(str::to_owned);
        Some(TransferUri { code: code.to_owned(), rendezvous, role })
    }

    /// Whether a text is meant to be such an address.
    pub(crate) fn is_one(text: &str) -> bool {
        text.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
    }

    /// Complains if this side, with the part `role`, is not the one that is wanted.
    pub(crate) fn expect(&self, role: Role) -> Result<(), Failure> {
        match (self.role, role) {
            (Role::Leader, Role::Follower) => {
                Err(Failure::usage("whoever opens this address is asked to send: use `dilated send --code`"))
            }
            (Role::Follower, Role::Leader) => {
                Err(Failure::usage("whoever opens this address is asked to receive: use `dilated receive`"))
            }
            _ => Ok(()),
        }
    }

    /// The mailbox server that it names.
    pub(crate) fn mailbox(&self) -> Option<String> {
        let url = self.rendezvous.as_deref()?.trim_end_matches('/');
        let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        Some(if has_path { url.to_owned() } else { format!("{url}{ENDPOINT}") })
    }
}

impl fmt::Display for TransferUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", encode(&self.code))?;
        let mut separator = '?';
        let mut add = |f: &mut fmt::Formatter<'_>, key: &str, value: &str| {
            write!(f, "{}{key}={}", std::mem::replace(&mut separator, '&'), encode(value))
        };
        if let Some(rendezvous) = &self.rendezvous {
            add(f, "rendezvous", rendezvous)?;
        }
        if self.role == Role::Leader {
            add(f, "role", "leader")?;
        }
        Ok(())
    }
}

impl FromStr for TransferUri {
    type Err = String;

    fn from_str(text: &str) -> Result<TransferUri, String> {
        let rest = text.get(SCHEME.len()..).filter(|_| TransferUri::is_one(text));
        let rest = rest.ok_or_else(|| format!("an address of a transfer begins with {SCHEME}"))?;
        let (code, query) = rest.split_once('?').unwrap_or((rest, ""));
        if code.starts_with("//") {
            return Err(format!("behind {SCHEME} comes the code at once, without slashes"));
        }
        let mut uri = TransferUri { code: decode(code)?, rendezvous: None, role: Role::Follower };
        if uri.code.is_empty() {
            return Err("the address has no code in it".to_owned());
        }
        let mut seen = Vec::new();
        for field in query.split('&').filter(|field| !field.is_empty()) {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            if seen.contains(&key) {
                return Err(format!("the address says `{}` twice", printable(key)));
            }
            seen.push(key);
            let value = decode(value)?;
            match (key, value.as_str()) {
                ("version", VERSION) => {}
                ("version", other) => {
                    return Err(format!("the address has version {}, which is not known", printable(other)));
                }
                ("rendezvous", url) => {
                    let url = url.trim_end_matches('/');
                    uri.rendezvous =
                        Some(url.to_owned()).filter(|url| !url.is_empty() && url != DEFAULT_RENDEZVOUS);
                }
                ("role", "leader") => uri.role = Role::Leader,
                ("role", "follower") => uri.role = Role::Follower,
                ("role", other) => return Err(format!("`{}` is no role of an address", printable(other))),
                // As the specification demands.
                (other, _) => {
                    return Err(format!("the address says `{}`, which is not known", printable(other)));
                }
            }
        }
        Ok(uri)
    }
}

/// Percent-encodes all that is not unreserved: more than the specification asks for, so that every reader agrees.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn decode(text: &str) -> Result<String, String> {
    let broken = || format!("`{}` is not percent-encoded correctly", printable(text));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit =
            |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(match byte {
            b'%' => match (digit(rest.next()), digit(rest.next())) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(broken()),
            },
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::exit::Kind;

    fn uri(code: &str, rendezvous: Option<&str>, role: Role) -> TransferUri {
        TransferUri { code: code.to_owned(), rendezvous: rendezvous.map(str::to_owned), role }
    }

    fn parse(text: &str) -> TransferUri {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn the_examples_of_the_specification() {
        let plain = uri("4-hurricane-equipment", None, Role::Follower);
        assert_eq!(parse("wormhole-transfer:4-hurricane-equipment"), plain);
        assert_eq!(plain.to_string(), "wormhole-transfer:4-hurricane-equipment");
        let expanded = "wormhole-transfer:4-hurricane-equipment?version=0&\
                        rendezvous=ws%3A%2F%2Frelay.magic-wormhole.io%3A4000&role=follower";
        assert_eq!(parse(expanded), plain);
        let leader = uri("4-hurricane-equipment", None, Role::Leader);
        assert_eq!(parse("wormhole-transfer:4-hurricane-equipment?role=leader"), leader);
        assert_eq!(leader.to_string(), "wormhole-transfer:4-hurricane-equipment?role=leader");
    }

    #[test]
    fn those_of_other_programs() {
        // As wormhole-rs writes it.
        let theirs = "wormhole-transfer:8-%F0%9F%99%88-%F0%9F%99%89?rendezvous=ws%3A%2F%2Flocalhost%3A4000%2F&role=leader";
        assert_eq!(parse(theirs), uri("8-🙈-🙉", Some("ws://localhost:4000"), Role::Leader));
        assert_eq!(parse(theirs).mailbox().as_deref(), Some("ws://localhost:4000/v1"));
        assert_eq!(parse("WORMHOLE-TRANSFER:4-a"), uri("4-a", None, Role::Follower));
        // Of more than the specification, but clear.
        let whole = parse("wormhole-transfer:4-a?rendezvous=wss://m.example/v1");
        assert_eq!(whole.mailbox().as_deref(), Some("wss://m.example/v1"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (text, part) in [
            ("wormhole-transfer:", "no code"),
            ("wormhole-transfer:?role=leader", "no code"),
            ("wormhole-transfer://4-a", "without slashes"),
            ("wormhole-transfer:4-a?version=1", "version 1"),
            ("wormhole-transfer:4-a?role=boss", "`boss` is no role"),
            ("wormhole-transfer:4-a?relay=x", "`relay`, which is not known"),
            ("wormhole-transfer:4-a?role=leader&role=leader", "twice"),
            ("wormhole-transfer:4-%a", "percent"),
            ("wormhole-transfer:4-%ff", "percent"),
            ("wormhole-transfer:4-a?\u{1b}=x", "`\\u{1b}`"),
            ("http://example.org", "begins with wormhole-transfer:"),
            ("wörmhole-transfer:4-a", "begins with wormhole-transfer:"),
        ] {
            let complaint = text.parse::<TransferUri>().unwrap_err();
            assert!(complaint.contains(part), "{text}: {complaint}");
        }
    }

    #[test]
    fn ours_names_the_server_that_is_not_the_public_one() {
        let made = |arguments: &[&str], role| {
            let global = crate::options::global_of(arguments);
            TransferUri::new(&global, "7-a-b", role).map(|uri| uri.to_string())
        };
        assert_eq!(made(&[], Role::Follower).unwrap(), "wormhole-transfer:7-a-b");
        for public in dilated::PUBLIC_MAILBOXES {
            assert_eq!(made(&["--mailbox", public], Role::Follower).unwrap(), "wormhole-transfer:7-a-b");
        }
        let own = made(&["--mailbox", "ws://h:4000/v1", "--mailbox", "ws://other/v1"], Role::Leader).unwrap();
        assert_eq!(own, "wormhole-transfer:7-a-b?rendezvous=ws%3A%2F%2Fh%3A4000&role=leader");
        assert_eq!(parse(&own).mailbox().as_deref(), Some("ws://h:4000/v1"));
        assert_eq!(made(&["--appid", "example.org/own"], Role::Follower), None);
        assert!(made(&["--appid", TRANSFER_APPID], Role::Follower).is_some());
    }

    #[test]
    fn the_wrong_side_is_told_what_to_do() {
        let failure = uri("4-a", None, Role::Leader).expect(Role::Follower).unwrap_err();
        assert!(
            failure.kind() == Kind::Usage && failure.to_string().contains("dilated send --code"),
            "{failure}"
        );
        let failure = uri("4-a", None, Role::Follower).expect(Role::Leader).unwrap_err();
        assert!(failure.to_string().contains("dilated receive"), "{failure}");
        assert_eq!(uri("4-a", None, Role::Leader).expect(Role::Leader), Ok(()));
    }

    proptest! {
        #[test]
        fn every_code_survives(code in "\\PC{1,40}", server in proptest::option::of("wss?://[a-z.]{1,9}:[1-9][0-9]{0,3}"),
                               leads: bool) {
            let role = if leads { Role::Leader } else { Role::Follower };
            let made = uri(&code, server.as_deref(), role);
            let text = made.to_string();
            prop_assert!(text.is_ascii() && TransferUri::is_one(&text));
            prop_assert_eq!(text.parse::<TransferUri>(), Ok(made));
        }

        #[test]
        fn no_text_is_too_strange(text in "(wormhole-transfer:)?\\PC*") {
            let _ = text.parse::<TransferUri>();
        }
    }
}
