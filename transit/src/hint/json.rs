//! Hints and abilities as JSON.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Hint, HintLimits, RelayHint, TcpHint, normalize_host};

const DIRECT: &str = "direct-tcp-v1";
const RELAY: &str = "relay-v1";
const TOR: &str = "tor-tcp-v1";

/// A way of connecting that a side can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Ability {
    /// It dials or listens on TCP.
    DirectTcp,
    /// It can be met at a transit relay.
    Relay,
    /// It dials through Tor.
    Tor,
}

impl Ability {
    fn name(self) -> &'static str {
        match self {
            Ability::DirectTcp => DIRECT,
            Ability::Relay => RELAY,
            Ability::Tor => TOR,
        }
    }
}

/// The list that announces abilities, for example `[{"type":"direct-tcp-v1"},{"type":"relay-v1"}]`.
#[must_use]
pub fn encode_abilities(abilities: &BTreeSet<Ability>) -> Value {
    abilities.iter().map(|ability| json!({ "type": ability.name() })).collect()
}

/// Reads a list of abilities; what is unknown or malformed is skipped.
#[must_use]
pub fn parse_abilities(value: &Value) -> BTreeSet<Ability> {
    let known = [Ability::DirectTcp, Ability::Relay, Ability::Tor];
    let names = value.as_array().into_iter().flatten().filter_map(|entry| entry.get("type")?.as_str());
    names.filter_map(|name| known.into_iter().find(|ability| ability.name() == name)).collect()
}

/// Reads the `hints` list of a `connection-hints` message.
///
/// Tolerant, because Python sends odd things and newer peers will send more: an unknown type, a missing or
/// wrongly typed member or an unusable host skips that entry, nothing else. Duplicates are dropped, the first
/// stays. No more than `limits` allow is kept.
#[must_use]
pub fn parse_hints(value: &Value, limits: &HintLimits) -> Vec<Hint> {
    let mut seen = BTreeSet::new();
    let entries = value.as_array().into_iter().flatten();
    let fresh =
        entries.filter_map(|entry| parse_hint(entry, limits)).filter(|hint| seen.insert(identity(hint)));
    fresh.take(limits.max_hints).collect()
}

/// Encodes hints as the `hints` list of a `connection-hints` message.
///
/// `priority` is always a JSON number with a fraction: Python sorts by it and fails on anything else.
#[must_use]
pub fn encode_hints(hints: &[Hint]) -> Value {
    hints.iter().map(encode_hint).collect()
}

fn encode_hint(hint: &Hint) -> Value {
    match hint {
        Hint::Direct(tcp) => encode_tcp(DIRECT, tcp),
        Hint::Tor(tcp) => encode_tcp(TOR, tcp),
        Hint::Relay(relay) => {
            let inner: Vec<Value> = relay.hints.iter().map(|tcp| encode_tcp(DIRECT, tcp)).collect();
            json!({ "type": RELAY, "hints": inner })
        }
    }
}

fn encode_tcp(kind: &str, hint: &TcpHint) -> Value {
    json!({ "type": kind, "priority": hint.priority, "hostname": hint.hostname, "port": hint.port })
}

fn parse_hint(entry: &Value, limits: &HintLimits) -> Option<Hint> {
    match entry.get("type")?.as_str()? {
        DIRECT => parse_tcp(entry, limits).map(Hint::Direct),
        TOR => parse_tcp(entry, limits).map(Hint::Tor),
        RELAY => parse_relay(entry, limits).map(Hint::Relay),
        _ => None,
    }
}

fn parse_relay(entry: &Value, limits: &HintLimits) -> Option<RelayHint> {
    let mut seen = BTreeSet::new();
    let inner = entry.get("hints")?.as_array()?.iter();
    // Other clients put websocket and Tor endpoints here, too.
    let direct = inner.filter(|inner| inner.get("type").and_then(Value::as_str) == Some(DIRECT));
    let hints = direct
        .filter_map(|inner| parse_tcp(inner, limits))
        .filter(|hint| seen.insert(hint.endpoint()))
        .take(limits.max_relay_endpoints)
        .collect::<Vec<_>>();
    (!hints.is_empty()).then_some(RelayHint { hints })
}

fn parse_tcp(entry: &Value, limits: &HintLimits) -> Option<TcpHint> {
    let hostname = normalize_host(entry.get("hostname")?.as_str()?, limits.max_hostname)?;
    let port = u16::try_from(entry.get("port")?.as_u64()?).ok().filter(|port| *port != 0)?;
    // magic-wormhole.rs leaves the priority out.
    let priority = entry.get("priority").and_then(Value::as_f64).unwrap_or(0.0);
    Some(TcpHint { hostname, port, priority: 0.0 }.with_priority(priority))
}

/// Where a hint leads; two hints with the same identity are duplicates.
fn identity(hint: &Hint) -> (u8, Vec<(String, u16)>) {
    match hint {
        Hint::Direct(tcp) => (0, vec![tcp.endpoint()]),
        Hint::Tor(tcp) => (1, vec![tcp.endpoint()]),
        Hint::Relay(relay) => (2, relay.hints.iter().map(TcpHint::endpoint).collect()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(value: &Value) -> Vec<Hint> {
        parse_hints(value, &HintLimits::default())
    }

    fn tcp(text: &str) -> TcpHint {
        text.parse().unwrap()
    }

    #[test]
    fn hints_are_encoded_as_python_writes_them() {
        let hints = [
            Hint::Direct(tcp("tcp:192.0.2.2:33129")),
            Hint::Relay(tcp("tcp:relay.example:4001:priority=2").into()),
            Hint::Tor(tcp("tcp:abc.onion:80")),
        ];
        let text = encode_hints(&hints).to_string();
        let expected = [
            r#"{"hostname":"192.0.2.2","port":33129,"priority":0.0,"type":"direct-tcp-v1"}"#,
            r#"{"hints":[{"hostname":"relay.example","port":4001,"priority":2.0,"type":"direct-tcp-v1"}],"type":"relay-v1"}"#,
            r#"{"hostname":"abc.onion","port":80,"priority":0.0,"type":"tor-tcp-v1"}"#,
        ];
        let expected: Vec<Value> = expected.iter().map(|e| serde_json::from_str(e).unwrap()).collect();
        assert_eq!(text, Value::Array(expected).to_string());
        assert_eq!(parse(&serde_json::from_str(&text).unwrap()), hints);
    }

    #[test]
    fn a_priority_is_passed_on_as_it_was_read() {
        let text = r#"[{"type":"tor-tcp-v1","hostname":"x","port":1,"priority":0.00000000000000000000000000001000}]"#;
        let hints = parse(&serde_json::from_str(text).unwrap());
        assert_eq!(parse(&serde_json::from_str(&encode_hints(&hints).to_string()).unwrap()), hints);
        assert!(matches!(&hints[..], [Hint::Tor(hint)] if hint.priority() == 1e-29), "{hints:?}");
    }

    #[test]
    fn senseless_entries_are_skipped() {
        let value = json!([
            null, 7, "x", [], {},
            { "type": 3 },
            { "type": "quic-v9", "hostname": "192.0.2.1", "port": 1 },
            { "type": "direct-tcp-v1", "port": 1 },
            { "type": "direct-tcp-v1", "hostname": 5, "port": 1 },
            { "type": "direct-tcp-v1", "hostname": "192.0.2.1", "port": "1" },
            { "type": "direct-tcp-v1", "hostname": "192.0.2.1", "port": 65536 },
            { "type": "direct-tcp-v1", "hostname": "192.0.2.1", "port": -1 },
            { "type": "direct-tcp-v1", "hostname": "192.0.2.1", "port": 1.5 },
            { "type": "direct-tcp-v1", "hostname": "192.0.2.1", "port": 0 },
            { "type": "direct-tcp-v1", "hostname": "a b", "port": 1 },
            { "type": "relay-v1" },
            { "type": "relay-v1", "hints": {} },
            { "type": "relay-v1", "hints": [{ "type": "websocket", "url": "ws://x" }] },
            { "type": "direct-tcp-v1", "hostname": "192.0.2.1", "port": 1, "priority": null, "name": null },
            { "type": "relay-v1", "name": null, "hints": [{ "type": "direct-tcp-v1", "hostname": "r", "port": 2 }] },
        ]);
        let kept = [Hint::Direct(tcp("tcp:192.0.2.1:1")), Hint::Relay(tcp("tcp:r:2").into())];
        assert_eq!(parse(&value), kept);
        assert!(parse(&json!({ "hints": [] })).is_empty());
    }

    #[test]
    fn five_thousand_hints_are_not_five_thousand_dials() {
        let many: Vec<Value> = (1..=5000u32)
            .map(|port| json!({ "type": DIRECT, "hostname": "192.0.2.1", "port": port, "priority": 0.0 }))
            .collect();
        assert_eq!(parse(&Value::Array(many.clone())).len(), 50);
        let relay = json!([{ "type": RELAY, "hints": many }]);
        assert!(matches!(&parse(&relay)[..], [Hint::Relay(relay)] if relay.hints().len() == 3));
        let same: Vec<Value> = vec![many[0].clone(); 5000];
        assert_eq!(parse(&Value::Array(same)).len(), 1);
    }

    #[test]
    fn mapped_addresses_are_duplicates() {
        let value = json!([
            { "type": DIRECT, "hostname": "192.0.2.1", "port": 1, "priority": 0.0 },
            { "type": DIRECT, "hostname": "::ffff:192.0.2.1", "port": 1, "priority": 1.0 },
        ]);
        assert_eq!(parse(&value).len(), 1);
    }

    #[test]
    fn abilities() {
        let ours = BTreeSet::from([Ability::DirectTcp, Ability::Relay]);
        let value = encode_abilities(&ours);
        assert_eq!(value.to_string(), r#"[{"type":"direct-tcp-v1"},{"type":"relay-v1"}]"#);
        assert_eq!(parse_abilities(&value), ours);
        assert!(parse_abilities(&json!([1, {}, { "type": "noise-crypto-v1" }, { "type": [] }])).is_empty());
        assert!(parse_abilities(&json!("relay-v1")).is_empty());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let word = prop_oneof![
            Just("type".to_owned()),
            Just("hostname".to_owned()),
            Just("port".to_owned()),
            Just("priority".to_owned()),
            Just("hints".to_owned()),
            Just(DIRECT.to_owned()),
            Just(RELAY.to_owned()),
            Just("192.0.2.1".to_owned()),
            "\\PC{0,8}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            word.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map(word.clone(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_is_parsed_within_limits(value in any_json(), max in 0usize..4) {
            let limits = HintLimits { max_hints: max, ..HintLimits::default() };
            let hints = parse_hints(&value, &limits);
            prop_assert!(hints.len() <= max);
            prop_assert_eq!(parse_hints(&encode_hints(&hints), &limits), hints);
            prop_assert!(parse_abilities(&value).len() <= 3);
        }

        #[test]
        fn hints_survive_the_journey(
            ports in prop::collection::btree_set(1u16.., 0..20), quarters in any::<i32>(), relay in any::<bool>()
        ) {
            let priority = f64::from(quarters) / 4.0;
            let hints: Vec<Hint> = ports.into_iter().map(|port| {
                let hint = TcpHint::new("host.example", port).unwrap().with_priority(priority);
                if relay { Hint::Relay(hint.into()) } else { Hint::Direct(hint) }
            }).collect();
            let text = encode_hints(&hints).to_string();
            prop_assert_eq!(parse(&serde_json::from_str(&text).unwrap()), hints);
        }
    }
}
