//! A stranger at the other end of a fresh connection, or of a relay: it gets nowhere, and costs little.
//!
//! First byte of the input: bit 0 makes us the Leader, bit 1 puts a relay between, the upper six bits are the
//! size of the pieces that arrive. The rest is what the stranger sends.

#![no_main]

use dilated_transit::{DilationKey, Ephemeral, HandshakeLimits, LinkHandshake, RelayRequest, Role, Stage};
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// The key of `tests/vectors.json`, so that the Leader's message recorded there gets as far as it can.
const KEY: [u8; 32] = [
    0x57, 0xb7, 0x9c, 0x9a, 0x53, 0x02, 0x10, 0x1b, 0x2e, 0xdf, 0xde, 0xb4, 0xed, 0x03, 0xea, 0xeb, 0xa0,
    0xa3, 0x2b, 0xa7, 0xbb, 0xe6, 0x26, 0x7a, 0xce, 0x12, 0x7a, 0x3e, 0xea, 0x61, 0x8e, 0xe0,
];

fuzz_target!(|data: &[u8]| {
    let Some((flags, sent)) = data.split_first() else { return };
    let role = if flags & 1 == 1 { Role::Leader } else { Role::Follower };
    let key = DilationKey::new(KEY);
    let relay = RelayRequest::new(&key, "0123456789abcdef").expect("a good side");
    let relay = (flags & 2 == 2).then_some(&relay);
    let ephemeral = Ephemeral::generate(&mut StdRng::seed_from_u64(1));
    let limits = HandshakeLimits::default();
    let mut handshake = LinkHandshake::new(role, key.clone(), ephemeral, relay, limits);

    let (mut taken, mut answered) = (0, 0);
    for piece in sent.chunks(usize::from(flags >> 2) + 1) {
        let result = handshake.handle_input(piece);
        while let Some(output) = handshake.poll_output() {
            answered += output.len();
        }
        if let Err(error) = result {
            assert_eq!(handshake.stage(), Stage::Failed);
            assert_eq!(handshake.handle_input(b"more"), Err(error));
            break;
        }
        taken += piece.len();
    }
    assert!(taken <= limits.max_bytes, "{taken} bytes taken");
    assert!(answered <= 512, "{answered} bytes answered");
    // Nobody but the other side of the wormhole can confirm the key.
    assert!(!handshake.is_confirmed());
    handshake.handle_eof();
    assert!(handshake.into_pipe().is_none());
});
