//! A stranger at the other end of a fresh connection of `dilated-1`, or of a relay, who may have heard the handshakes of
//! others: it gets nowhere, costs little, and nothing that it says of a generation is believed.

#![no_main]

mod handshake;

use dilated_transit::{DilationKey, HandshakeLimits, LinkHandshake, Offer, RelayRequest};
use libfuzzer_sys::fuzz_target;

use handshake::{Stranger, ephemeral, hang_up};

/// The key with which the Leader's first message in `seeds` was made.
const KEY: [u8; 32] = [7; 32];

fuzz_target!(|data: &[u8]| {
    let Some(stranger) = Stranger::new(data) else { return };
    let key = DilationKey::new(KEY);
    let request = RelayRequest::of_generation(&key, "0123456789abcdef", 3).expect("a good side");
    let relay = stranger.relay(&request);
    let (limits, offer) = (HandshakeLimits::default(), Offer { generation: 3, linked: false });
    let mut handshake =
        LinkHandshake::dilated1(stranger.role, key.clone(), ephemeral(), relay, limits, true, offer);
    // Nobody but the other side of the wormhole can confirm the key, though a first message can be repeated.
    stranger.talk(&mut handshake, |handshake| {
        handshake.set_offer(Offer { generation: 4, linked: true });
    });
    assert_eq!((handshake.peer_offer(), handshake.generation()), (None, None));
    hang_up(handshake);
});
