//! A stranger at the other end of a fresh connection of `dilated-1`, or of a relay, who may have heard the handshakes of
//! others: it gets nowhere, costs little, and nothing that it says of a generation is believed.
//!
//! First byte of the input: bit 0 makes us the Leader, bit 1 puts a relay between, the upper six bits are the size of the
//! pieces that arrive. The rest is what the stranger sends.

#![no_main]

use dilated_transit::{
    DilationKey, Ephemeral, HandshakeLimits, LinkHandshake, Offer, RelayRequest, Role, Stage,
};
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// The key with which the Leader's first message in `seeds` was made.
const KEY: [u8; 32] = [7; 32];

fuzz_target!(|data: &[u8]| {
    let Some((flags, sent)) = data.split_first() else { return };
    let role = if flags & 1 == 1 { Role::Leader } else { Role::Follower };
    let key = DilationKey::new(KEY);
    let relay = RelayRequest::of_generation(&key, "0123456789abcdef", 3).expect("a good side");
    let relay = (flags & 2 == 2).then_some(&relay);
    let ephemeral = Ephemeral::generate(&mut StdRng::seed_from_u64(1));
    let limits = HandshakeLimits::default();
    let offer = Offer { generation: 3, linked: false };
    let mut handshake = LinkHandshake::dilated1(role, key.clone(), ephemeral, relay, limits, true, offer);

    let (mut taken, mut answered) = (0, 0);
    for piece in sent.chunks(usize::from(flags >> 2) + 1) {
        handshake.set_offer(Offer { generation: 4, linked: true });
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
    // Nobody but the other side of the wormhole can confirm the key, though a first message can be repeated.
    assert!(!handshake.is_confirmed());
    assert_eq!((handshake.peer_offer(), handshake.generation()), (None, None));
    handshake.handle_eof();
    assert!(handshake.into_pipe().is_none());
});
