//! Hints of a peer (JSON) and of a user (text): bounded, and what is written can be read again.

#![no_main]

use dilated_transit::{Hint, HintLimits, RelayHint, TcpHint, encode_hints, parse_hints};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(hint) = text.parse::<TcpHint>() {
        assert_eq!(hint.to_string().parse().as_ref(), Ok(&hint));
    }
    if let Ok(hint) = text.parse::<RelayHint>() {
        assert_eq!(hint.to_string().parse().as_ref(), Ok(&hint));
    }
    let Ok(value) = serde_json::from_str(text) else { return };
    let limits = HintLimits::default();
    let hints = parse_hints(&value, &limits);
    assert!(hints.len() <= limits.max_hints);
    for hint in &hints {
        if let Hint::Relay(relay) = hint {
            assert!(relay.hints().len() <= limits.max_relay_endpoints);
        }
    }
    assert_eq!(parse_hints(&encode_hints(&hints), &limits), hints);
});
