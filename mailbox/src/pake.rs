//! SPAKE2 in its symmetric form over Ed25519: both sides send one message and get the same key if, and only
//! if, they typed the same code.
//!
//! The arithmetic is the `spake2` crate's. It accepts any point that decompresses, so the peer's point is
//! checked here before it gets that far: canonical, in the prime-order subgroup, not the identity, not ours.

use std::fmt;

use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::traits::IsIdentity;
use rand::CryptoRng;
use rand_core_06 as rand_core;
use spake2::{Ed25519Group, Identity, Password, Spake2};
use unicode_normalization::UnicodeNormalization;

use crate::error::WormholeError;
use crate::{Code, Key};

/// The byte in front of the point that says "symmetric".
const SYMMETRIC: u8 = b'S';
/// Bytes of a SPAKE2 message.
pub const MESSAGE_LEN: usize = 33;

/// Our half of a key agreement that waits for the other half.
pub struct Pake {
    state: Spake2<Ed25519Group>,
    message: Vec<u8>,
}

impl Pake {
    /// Starts the agreement. The code is the password; the application id is the shared identity.
    pub fn start(code: &Code, appid: &str, rng: &mut impl CryptoRng) -> Self {
        let identity: String = appid.nfc().collect();
        let (state, message) = Spake2::start_symmetric_with_rng(
            &Password::new(code.as_str()),
            &Identity::new(identity.as_bytes()),
            OldRng(rng),
        );
        Self { state, message }
    }

    /// The message for the peer: `S` and a compressed point.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Computes the key from the peer's message.
    ///
    /// # Errors
    /// [`WormholeError::Reflection`] if it is our own message, [`WormholeError::BadPake`] if it is invalid.
    pub fn finish(self, peer: &[u8]) -> Result<Key, WormholeError> {
        if peer == self.message {
            return Err(WormholeError::Reflection);
        }
        check(peer).map_err(|reason| WormholeError::BadPake { reason })?;
        let key =
            self.state.finish(peer).map_err(|_| WormholeError::BadPake { reason: "it is malformed" })?;
        let key = key.try_into().expect("the key is a SHA-256 digest");
        Ok(Key::new(key))
    }
}

impl fmt::Debug for Pake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pake(..)")
    }
}

fn check(message: &[u8]) -> Result<(), &'static str> {
    let [SYMMETRIC, point @ ..] = message else { return Err("it is not a symmetric SPAKE2 message") };
    let compressed = CompressedEdwardsY::from_slice(point).map_err(|_| "its length is wrong")?;
    let point = compressed.decompress().ok_or("its point is not on the curve")?;
    if point.compress() != compressed {
        return Err("its point is not canonical");
    }
    if point.is_identity() {
        return Err("its point is zero");
    }
    if !point.is_torsion_free() {
        return Err("its point is outside the prime-order group");
    }
    Ok(())
}

/// The generator of today's `rand` behind the traits of the older one, which `spake2` wants.
struct OldRng<'a, R>(&'a mut R);

impl<R: CryptoRng> rand_core::RngCore for OldRng<'_, R> {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand_core::Error> {
        self.0.fill_bytes(out);
        Ok(())
    }
}

impl<R: CryptoRng> rand_core::CryptoRng for OldRng<'_, R> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{FixedRng, hex, unhex, vectors};

    fn start(case: &serde_json::Value, scalar: &str) -> Pake {
        let code: Code = case["code"].as_str().unwrap().parse().unwrap();
        assert_eq!(hex(code.as_str().as_bytes()), case["code_utf8_nfc"]);
        // A scalar below the group order followed by zeros is reduced to itself.
        let mut bytes = unhex(&case[scalar]);
        bytes.resize(64, 0);
        Pake::start(&code, case["appid"].as_str().unwrap(), &mut FixedRng::new(bytes))
    }

    #[test]
    fn vectors_agree() {
        let cases = vectors()["spake2"].as_array().unwrap();
        assert_eq!(cases.len(), 2);
        for case in cases {
            let (a, b) = (start(case, "scalar_a_le"), start(case, "scalar_b_le"));
            assert_eq!(hex(a.message()), case["msg_a"]);
            assert_eq!(hex(b.message()), case["msg_b"]);
            let (to_a, to_b) = (b.message().to_vec(), a.message().to_vec());
            assert_eq!(hex(a.finish(&to_a).unwrap().as_bytes()), case["shared_key"]);
            assert_eq!(hex(b.finish(&to_b).unwrap().as_bytes()), case["shared_key"]);
        }
    }

    #[test]
    fn reflection_is_named() {
        let pake = start(&vectors()["spake2"][0], "scalar_a_le");
        let own = pake.message().to_vec();
        assert_eq!(pake.finish(&own).unwrap_err(), WormholeError::Reflection);
    }

    #[test]
    fn bad_points_are_refused() {
        let good = unhex(&vectors()["spake2"][0]["msg_b"]);
        let mut cases = vec![vec![], good[..32].to_vec(), [&good[..], &[0]].concat(), vec![SYMMETRIC; 33]];
        let mut wrong_side = good.clone();
        wrong_side[0] = b'A';
        cases.push(wrong_side);
        let point = |bytes: [u8; 32]| [&[SYMMETRIC][..], &bytes].concat();
        let mut identity = [0; 32];
        identity[0] = 1;
        cases.push(point(identity));
        // y = p + 1, another encoding of the identity.
        let mut non_canonical = [0xff; 32];
        non_canonical[0] = 0xee;
        non_canonical[31] = 0x7f;
        cases.push(point(non_canonical));
        // Small order, and a good point moved out of the subgroup by one of small order.
        let torsion = curve25519_dalek::constants::EIGHT_TORSION;
        for small in &torsion[1..] {
            cases.push(point(small.compress().to_bytes()));
            let moved = CompressedEdwardsY::from_slice(&good[1..]).unwrap().decompress().unwrap() + small;
            cases.push(point(moved.compress().to_bytes()));
        }
        for case in cases {
            let pake = start(&vectors()["spake2"][0], "scalar_a_le");
            assert!(matches!(pake.finish(&case), Err(WormholeError::BadPake { .. })), "{case:02x?}");
        }
    }
}
