//! The key agreement of a link: Noise NNpsk0 over X25519 and BLAKE2s with an empty Noise prologue and the dilation key
//! as pre-shared key (specification `ged`, section "L2 protocol"; `docs/protocol.md`, section "Links").
//!
//! ```text
//! LeaderStart   -- message 1 -->  FollowerStart
//! LeaderWait   <-- message 2 --   (both have TransportKeys and the other's payload)
//! ```
//!
//! Both payloads have the same length, which the dialect says: none in `ged`, an offer in `dilated-1`.
//!
//! `snow` runs the two handshake messages only. The transport phase is `pipe`, which works on whole buffers in
//! place, so the raw keys are taken out after the handshake.

use std::fmt;

use rand::CryptoRng;
use snow::{Builder, HandshakeState};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    pipe::Cipher,
    role::{DilationKey, Role},
};

/// Length of a handshake message with an empty payload: an X25519 public key and the tag, in bytes.
pub(crate) const HANDSHAKE_OVERHEAD: usize = 48;

/// Longest payload of a handshake message that is used, in bytes.
const MAX_PAYLOAD: usize = 9;

/// The secret half of an ephemeral X25519 key, for one handshake. Never printed, wiped when dropped, and not
/// `Clone`: using one twice would give two links the same keys.
pub struct Ephemeral(Zeroizing<[u8; 32]>);

impl Ephemeral {
    /// Draws a fresh key.
    #[must_use]
    pub fn generate(rng: &mut impl CryptoRng) -> Ephemeral {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(bytes.as_mut());
        Ephemeral(bytes)
    }

    #[cfg(test)]
    pub(crate) fn fixed(bytes: [u8; 32]) -> Ephemeral {
        Ephemeral(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for Ephemeral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ephemeral(..)")
    }
}

/// A handshake message that does not fit the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the other end has another key; it is not the other side of this wormhole")]
pub(crate) struct WrongKey;

/// The two keys of a link, and the hash that names the handshake they came from.
pub(crate) struct TransportKeys {
    pub(crate) send: Zeroizing<[u8; 32]>,
    pub(crate) receive: Zeroizing<[u8; 32]>,
    #[cfg(test)]
    pub(crate) handshake_hash: Vec<u8>,
}

/// The Leader before message 1.
pub(crate) struct LeaderStart(HandshakeState);
/// The Leader after message 1.
pub(crate) struct LeaderWait(HandshakeState);
/// The Follower, which waits for message 1.
pub(crate) struct FollowerStart(HandshakeState);

impl LeaderStart {
    pub(crate) fn new(key: &DilationKey, ephemeral: Ephemeral, cipher: Cipher) -> LeaderStart {
        LeaderStart(begin(key, ephemeral, cipher, Role::Leader))
    }

    /// Message 1 with this payload, and the state that takes message 2.
    pub(crate) fn start(mut self, payload: &[u8]) -> (Vec<u8>, LeaderWait) {
        (write(&mut self.0, payload), LeaderWait(self.0))
    }
}

impl LeaderWait {
    /// Takes message 2; `payload` becomes its payload, whose length has to be that of `payload`.
    pub(crate) fn finish(mut self, message: &[u8], payload: &mut [u8]) -> Result<TransportKeys, WrongKey> {
        read(&mut self.0, message, payload)?;
        Ok(split(self.0, Role::Leader))
    }
}

impl FollowerStart {
    pub(crate) fn new(key: &DilationKey, ephemeral: Ephemeral, cipher: Cipher) -> FollowerStart {
        FollowerStart(begin(key, ephemeral, cipher, Role::Follower))
    }

    /// Takes message 1, with a payload of the length of ours; gives message 2 and the keys. `payload` is ours before, and
    /// becomes the Leader's.
    pub(crate) fn finish(
        mut self,
        message: &[u8],
        payload: &mut [u8],
    ) -> Result<(Vec<u8>, TransportKeys), WrongKey> {
        let mut theirs = [0; MAX_PAYLOAD];
        let theirs = &mut theirs[..payload.len()];
        read(&mut self.0, message, theirs)?;
        let answer = write(&mut self.0, payload);
        payload.copy_from_slice(theirs);
        Ok((answer, split(self.0, Role::Follower)))
    }
}

fn begin(key: &DilationKey, ephemeral: Ephemeral, cipher: Cipher, role: Role) -> HandshakeState {
    let name = match cipher {
        Cipher::ChaChaPoly => "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s",
        Cipher::AesGcm => "Noise_NNpsk0_25519_AESGCM_BLAKE2s",
    };
    let name = name.parse().expect("the name is one that snow supports");
    // The ephemeral key is an argument because this crate's cores draw no randomness of their own. `Ephemeral`
    // cannot be cloned and is consumed here, which keeps what snow's name warns of from happening.
    let builder = Builder::new(name).fixed_ephemeral_key_for_testing_only(ephemeral.0.as_ref());
    let builder = builder.psk(0, key.as_bytes()).expect("slot 0 exists and is empty");
    match role {
        Role::Leader => builder.build_initiator(),
        Role::Follower => builder.build_responder(),
    }
    .expect("NN needs no static keys, and snow has all algorithms of the name")
}

fn write(state: &mut HandshakeState, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0; HANDSHAKE_OVERHEAD + payload.len()];
    let length = state.write_message(payload, &mut message).expect("it is our turn and the buffer fits");
    debug_assert_eq!(length, message.len());
    message
}

fn read(state: &mut HandshakeState, message: &[u8], payload: &mut [u8]) -> Result<(), WrongKey> {
    // snow wants room for the tag, too.
    let mut plaintext = [0; HANDSHAKE_OVERHEAD + MAX_PAYLOAD];
    match state.read_message(message, &mut plaintext) {
        Ok(length) if length == payload.len() => {
            payload.copy_from_slice(&plaintext[..length]);
            Ok(())
        }
        _ => Err(WrongKey),
    }
}

fn split(mut state: HandshakeState, role: Role) -> TransportKeys {
    // The first key is the initiator's, which is the Leader (Noise specification, section 5.2, `Split`).
    let (leader, follower) = state.dangerously_get_raw_split();
    let (leader, follower) = (Zeroizing::new(leader), Zeroizing::new(follower));
    let (send, receive) = match role {
        Role::Leader => (leader, follower),
        Role::Follower => (follower, leader),
    };
    TransportKeys {
        send,
        receive,
        #[cfg(test)]
        handshake_hash: state.get_handshake_hash().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn both_sides_agree_and_a_wrong_key_is_noticed() {
        let mut rng = StdRng::seed_from_u64(1);
        let (key, wrong) = (DilationKey::new([7; 32]), DilationKey::new([8; 32]));
        for cipher in [Cipher::ChaChaPoly, Cipher::AesGcm] {
            let leader = |rng: &mut StdRng| {
                LeaderStart::new(&key, Ephemeral::generate(rng), cipher).start(b"from lead")
            };
            let mut follower = |key: &DilationKey, message: &[u8], payload: &mut [u8]| {
                FollowerStart::new(key, Ephemeral::generate(&mut rng), cipher).finish(message, payload)
            };
            let (one, wait) = leader(&mut StdRng::seed_from_u64(2));
            let (mut at_follower, mut at_leader) = (*b"from foll", [0; 9]);
            let (two, theirs) = follower(&key, &one, &mut at_follower).unwrap();
            let ours = wait.finish(&two, &mut at_leader).unwrap();
            assert_eq!((&at_follower, &at_leader), (b"from lead", b"from foll"));
            assert_eq!(ours.send, theirs.receive);
            assert_eq!(ours.receive, theirs.send);
            assert_ne!(ours.send, ours.receive);

            let (one, wait) = leader(&mut StdRng::seed_from_u64(3));
            assert!(follower(&wrong, &one, &mut [0; 9]).is_err());
            assert!(wait.finish(&two, &mut [0; 9]).is_err(), "message 2 of another handshake");
            assert!(follower(&key, &one[..56], &mut [0; 9]).is_err());
            assert!(follower(&key, &one, &mut []).is_err(), "a payload of another length");
            assert!(follower(&key, &[], &mut [0; 9]).is_err());
        }
    }

    #[test]
    fn the_ciphers_do_not_understand_each_other() {
        let mut rng = StdRng::seed_from_u64(1);
        let key = DilationKey::new([7; 32]);
        let (one, _) =
            LeaderStart::new(&key, Ephemeral::generate(&mut rng), Cipher::AesGcm).start(b"123456789");
        let follower = FollowerStart::new(&key, Ephemeral::generate(&mut rng), Cipher::ChaChaPoly);
        assert!(follower.finish(&one, &mut [0; 9]).is_err());
    }
}
