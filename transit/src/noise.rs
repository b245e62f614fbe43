//! The key agreement of a link: `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s` with an empty Noise prologue and the
//! dilation key as pre-shared key (specification `ged`, section "L2 protocol").
//!
//! ```text
//! LeaderStart   -- message 1 (48 bytes) -->  FollowerStart
//! LeaderWait   <-- message 2 (48 bytes) --   (both have TransportKeys)
//! ```
//!
//! `snow` runs the two handshake messages only. The transport phase is `pipe`, which works on whole buffers in
//! place, so the raw keys are taken out after the handshake.

use std::fmt;

use rand::CryptoRng;
use snow::{Builder, HandshakeState};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::role::{DilationKey, Role};

const NOISE_NAME: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

/// Length of both handshake messages: an X25519 public key and the tag of an empty payload, in bytes.
pub(crate) const HANDSHAKE_MESSAGE: usize = 48;

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
    pub(crate) fn new(key: &DilationKey, ephemeral: Ephemeral) -> LeaderStart {
        LeaderStart(begin(key, ephemeral, Role::Leader))
    }

    /// Message 1, and the state that takes message 2.
    pub(crate) fn start(mut self) -> ([u8; HANDSHAKE_MESSAGE], LeaderWait) {
        (write(&mut self.0), LeaderWait(self.0))
    }
}

impl LeaderWait {
    pub(crate) fn finish(mut self, message: &[u8]) -> Result<TransportKeys, WrongKey> {
        read(&mut self.0, message)?;
        Ok(split(self.0, Role::Leader))
    }
}

impl FollowerStart {
    pub(crate) fn new(key: &DilationKey, ephemeral: Ephemeral) -> FollowerStart {
        FollowerStart(begin(key, ephemeral, Role::Follower))
    }

    /// Takes message 1; gives message 2 and the keys.
    pub(crate) fn finish(
        mut self,
        message: &[u8],
    ) -> Result<([u8; HANDSHAKE_MESSAGE], TransportKeys), WrongKey> {
        read(&mut self.0, message)?;
        Ok((write(&mut self.0), split(self.0, Role::Follower)))
    }
}

fn begin(key: &DilationKey, ephemeral: Ephemeral, role: Role) -> HandshakeState {
    let name = NOISE_NAME.parse().expect("the name is one that snow supports");
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

fn write(state: &mut HandshakeState) -> [u8; HANDSHAKE_MESSAGE] {
    let mut message = [0; HANDSHAKE_MESSAGE];
    let length = state.write_message(&[], &mut message).expect("it is our turn and the buffer fits");
    debug_assert_eq!(length, HANDSHAKE_MESSAGE);
    message
}

fn read(state: &mut HandshakeState, message: &[u8]) -> Result<(), WrongKey> {
    // Both messages carry an empty payload; a longer message is refused before it comes here.
    match state.read_message(message, &mut [0; HANDSHAKE_MESSAGE]) {
        Ok(0) => Ok(()),
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
        let leader = |rng: &mut StdRng| LeaderStart::new(&key, Ephemeral::generate(rng)).start();
        let (one, wait) = leader(&mut rng);
        let (two, theirs) = FollowerStart::new(&key, Ephemeral::generate(&mut rng)).finish(&one).unwrap();
        let ours = wait.finish(&two).unwrap();
        assert_eq!(ours.send, theirs.receive);
        assert_eq!(ours.receive, theirs.send);
        assert_ne!(ours.send, ours.receive);

        let (one, wait) = leader(&mut rng);
        assert!(FollowerStart::new(&wrong, Ephemeral::generate(&mut rng)).finish(&one).is_err());
        assert!(wait.finish(&two).is_err(), "message 2 of another handshake");
        assert!(FollowerStart::new(&key, Ephemeral::generate(&mut rng)).finish(&one[..47]).is_err());
        assert!(FollowerStart::new(&key, Ephemeral::generate(&mut rng)).finish(&[]).is_err());
    }
}
