//! A stranger at the other end of a fresh connection, or of a relay: it gets nowhere, and costs little.

#![no_main]

mod handshake;

use dilated_transit::{DilationKey, HandshakeLimits, LinkHandshake, RelayRequest};
use libfuzzer_sys::fuzz_target;

use handshake::{Stranger, ephemeral, hang_up};

/// The key of `tests/vectors.json`, so that the Leader's message recorded there gets as far as it can.
const KEY: [u8; 32] = [
    0x57, 0xb7, 0x9c, 0x9a, 0x53, 0x02, 0x10, 0x1b, 0x2e, 0xdf, 0xde, 0xb4, 0xed, 0x03, 0xea, 0xeb, 0xa0,
    0xa3, 0x2b, 0xa7, 0xbb, 0xe6, 0x26, 0x7a, 0xce, 0x12, 0x7a, 0x3e, 0xea, 0x61, 0x8e, 0xe0,
];

fuzz_target!(|data: &[u8]| {
    let Some(stranger) = Stranger::new(data) else { return };
    let key = DilationKey::new(KEY);
    let request = RelayRequest::new(&key, "0123456789abcdef").expect("a good side");
    let (relay, limits) = (stranger.relay(&request), HandshakeLimits::default());
    let mut handshake = LinkHandshake::new(stranger.role, key.clone(), ephemeral(), relay, limits);
    // Nobody but the other side of the wormhole can confirm the key.
    stranger.talk(&mut handshake, |_| {});
    hang_up(handshake);
});
