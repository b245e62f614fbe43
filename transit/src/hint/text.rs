//! Hints as people write them: `tcp:host:port`, `tcp:[2001:db8::1]:4001:priority=1.5`.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::{RelayHint, TcpHint, write_endpoint};

/// Why a hint that somebody wrote could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HintParseError {
    /// Not of the form `tcp:host:port` at all.
    #[error("`{0}` is not a hint; write it as tcp:host:port, for example tcp:relay.example.org:4001")]
    Form(String),
    /// Another transport than TCP.
    #[error("hints of type `{0}` are not supported; write it as tcp:host:port")]
    Type(String),
    /// The host is neither an address nor a name.
    #[error(
        "`{0}` is not an IP address or host name; put IPv6 addresses in brackets: tcp:[2001:db8::1]:4001"
    )]
    Host(String),
    /// The port is not a number from 1 to 65535.
    #[error("`{0}` is not a port; use a number from 1 to 65535")]
    Port(String),
    /// The priority is not a finite number.
    #[error("`{0}` is not a priority; write it as priority=1.5")]
    Priority(String),
    /// Something follows the port that is not a priority.
    #[error("`{0}` is not an option of a hint; only priority=NUMBER may follow the port")]
    Option(String),
}

impl FromStr for TcpHint {
    type Err = HintParseError;

    fn from_str(text: &str) -> Result<TcpHint, HintParseError> {
        let form = || HintParseError::Form(shorten(text));
        let (kind, rest) = text.split_once(':').ok_or_else(form)?;
        if kind != "tcp" {
            return Err(HintParseError::Type(shorten(kind)));
        }
        let (host, rest) = match rest.strip_prefix('[') {
            Some(inner) => {
                let (host, rest) = inner.split_once("]:").ok_or_else(form)?;
                if !host.contains(':') {
                    return Err(HintParseError::Host(shorten(host)));
                }
                (host, rest)
            }
            None => rest.split_once(':').ok_or_else(form)?,
        };
        let (port, options) = match rest.split_once(':') {
            Some((port, options)) => (port, Some(options)),
            None => (rest, None),
        };
        let bad_port = || HintParseError::Port(shorten(port));
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            // `u16::from_str` would let a plus sign pass.
            return Err(bad_port());
        }
        let hint = TcpHint::new(host, port.parse().map_err(|_| bad_port())?)?;
        match options {
            Some(options) => Ok(hint.with_priority(parse_priority(options)?)),
            None => Ok(hint),
        }
    }
}

fn parse_priority(option: &str) -> Result<f64, HintParseError> {
    let Some(number) = option.strip_prefix("priority=") else {
        return Err(HintParseError::Option(shorten(option)));
    };
    match number.parse::<f64>() {
        Ok(priority) if priority.is_finite() => Ok(priority),
        _ => Err(HintParseError::Priority(shorten(number))),
    }
}

impl fmt::Display for TcpHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_endpoint(f, &self.hostname, self.port)?;
        if self.priority != 0.0 { write!(f, ":priority={}", self.priority) } else { Ok(()) }
    }
}

/// A relay is written like its endpoint; several endpoints of one relay are joined with commas.
impl FromStr for RelayHint {
    type Err = HintParseError;

    fn from_str(text: &str) -> Result<RelayHint, HintParseError> {
        Ok(RelayHint { hints: text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for RelayHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, hint) in self.hints.iter().enumerate() {
            write!(f, "{}{hint}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Text for an error message: at most 80 characters, control and bidirectional characters escaped.
pub(super) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(80).flat_map(char::escape_default).collect();
    if text.chars().nth(80).is_some() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hints_as_people_write_them() {
        for (text, host, port, priority) in [
            ("tcp:relay.example:4001", "relay.example", 4001, 0.0),
            ("tcp:192.0.2.2:1", "192.0.2.2", 1, 0.0),
            ("tcp:[2001:db8::1]:65535", "2001:db8::1", 65535, 0.0),
            ("tcp:relay.example:4001:priority=1.5", "relay.example", 4001, 1.5),
            ("tcp:[::ffff:192.0.2.2]:7:priority=-2", "192.0.2.2", 7, -2.0),
        ] {
            let hint: TcpHint = text.parse().unwrap();
            assert_eq!((hint.hostname(), hint.port(), hint.priority()), (host, port, priority), "{text}");
            assert_eq!(hint.to_string().parse::<TcpHint>().unwrap(), hint);
        }
    }

    #[test]
    fn mistakes_are_explained() {
        use HintParseError as E;
        let parse = |text: &str| text.parse::<TcpHint>().unwrap_err();
        assert!(matches!(parse("relay.example"), E::Form(_)));
        assert!(matches!(parse("tcp:relay.example"), E::Form(_)));
        assert!(matches!(parse("tcp:[2001:db8::1]"), E::Form(_)));
        assert!(matches!(parse("udp:relay.example:1"), E::Type(_)));
        assert!(matches!(parse("tcp:2001:db8::1:4001"), E::Port(_) | E::Option(_)));
        assert!(matches!(parse("tcp:[zz:]:1"), E::Host(_)));
        assert!(matches!(parse("tcp:[192.0.2.2]:1"), E::Host(_)));
        assert!(matches!(parse("tcp:relay.example:http"), E::Port(_)));
        assert!(matches!(parse("tcp:relay.example:0"), E::Port(_)));
        assert!(matches!(parse("tcp:relay.example:+1"), E::Port(_)));
        assert!(matches!(parse("tcp:relay.example:65536"), E::Port(_)));
        assert!(matches!(parse("tcp:relay.example:1:priority=NaN"), E::Priority(_)));
        assert!(matches!(parse("tcp:relay.example:1:tls"), E::Option(_)));
        let long = parse(&"\u{202e}x".repeat(1000)).to_string();
        assert!(long.len() < 1000 && long.is_ascii(), "{long}");
    }

    #[test]
    fn a_relay_may_have_several_endpoints() {
        let relay: RelayHint = "tcp:a.example:1, tcp:[2001:db8::1]:2".parse().unwrap();
        assert_eq!(relay.hints().len(), 2);
        assert_eq!(relay.to_string(), "tcp:a.example:1,tcp:[2001:db8::1]:2");
        assert!("".parse::<RelayHint>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,60}", tail in "[:\\[\\]0-9a-f=.,]{0,30}") {
            let _ = text.parse::<RelayHint>();
            let _ = format!("tcp:{tail}").parse::<TcpHint>();
        }

        #[test]
        fn what_is_displayed_is_parsed_again(a in any::<std::net::IpAddr>(), port in 1u16.., priority in any::<f64>()) {
            let hint = TcpHint::from_addr(a, port).with_priority(priority);
            if !a.to_canonical().is_unspecified() && TcpHint::new(hint.hostname(), port).is_ok() {
                prop_assert_eq!(hint.to_string().parse::<TcpHint>().unwrap(), hint);
            }
        }
    }
}
