//! The master key of a wormhole and what is derived from it.
//!
//! Everything is HKDF-SHA256 without salt, the purpose as `info`; message bodies are NaCl secret boxes
//! (XSalsa20-Poly1305) with a random nonce in front.

use std::fmt;

use crypto_secretbox::aead::AeadInPlace;
use crypto_secretbox::{KeyInit, Nonce, XSalsa20Poly1305};
use hkdf::Hkdf;
use rand::CryptoRng;
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

const NONCE: usize = XSalsa20Poly1305::NONCE_SIZE;
const TAG: usize = XSalsa20Poly1305::TAG_SIZE;

/// A 32-byte secret: the key that both sides agreed on, or one derived from it.
///
/// Its memory is wiped on drop and `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Zeroizing<[u8; 32]>);

impl Key {
    /// The longest output of [`derive`](Self::derive), in bytes.
    pub const MAX_DERIVED: usize = 255 * 32;

    /// Wraps 32 secret bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The secret itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Derives `len` bytes for a purpose, such as `dilation-v1`. The purpose is brought to normal form C.
    ///
    /// # Panics
    /// If `len` is larger than [`MAX_DERIVED`](Self::MAX_DERIVED): HKDF has no more to give.
    #[must_use]
    pub fn derive(&self, purpose: &str, len: usize) -> Vec<u8> {
        assert!(len <= Self::MAX_DERIVED, "HKDF-SHA256 gives at most {} bytes", Self::MAX_DERIVED);
        let purpose: String = purpose.nfc().collect();
        let mut out = vec![0; len];
        self.expand(purpose.as_bytes(), &mut out);
        out
    }

    /// The key of the messages that `side` sends in `phase`.
    #[must_use]
    pub fn phase_key(&self, side: &str, phase: &str) -> Self {
        let mut info = b"wormhole:phase:".to_vec();
        info.extend_from_slice(&Sha256::digest(side));
        info.extend_from_slice(&Sha256::digest(phase));
        let mut out = Zeroizing::new([0; 32]);
        self.expand(&info, &mut *out);
        Self(out)
    }

    /// What two people may compare, over another channel, to be sure that nobody sits between them.
    #[must_use]
    pub fn verifier(&self) -> [u8; 32] {
        let mut out = [0; 32];
        self.expand(b"wormhole:verifier", &mut out);
        out
    }

    /// Encrypts a message body with this phase key: a fresh nonce, then the secret box.
    #[must_use]
    pub fn seal(&self, plaintext: &[u8], rng: &mut impl CryptoRng) -> Vec<u8> {
        let mut nonce = [0; NONCE];
        rng.fill_bytes(&mut nonce);
        let mut body = Vec::with_capacity(NONCE + TAG + plaintext.len());
        body.extend_from_slice(&nonce);
        body.extend_from_slice(&[0; TAG]);
        body.extend_from_slice(plaintext);
        let tag = self
            .cipher()
            .encrypt_in_place_detached(&Nonce::from(nonce), b"", &mut body[NONCE + TAG..])
            .expect("secret boxes refuse only associated data, and there is none");
        body[NONCE..NONCE + TAG].copy_from_slice(&tag);
        body
    }

    /// Decrypts a message body, or `None` if it was not sealed with this phase key.
    #[must_use]
    pub fn open(&self, body: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = body.split_first_chunk::<NONCE>()?;
        let (tag, sealed) = rest.split_first_chunk::<TAG>()?;
        let mut plaintext = sealed.to_vec();
        self.cipher()
            .decrypt_in_place_detached(&Nonce::from(*nonce), b"", &mut plaintext, &(*tag).into())
            .ok()?;
        Some(plaintext)
    }

    fn cipher(&self) -> XSalsa20Poly1305 {
        XSalsa20Poly1305::new(self.as_bytes().into())
    }

    fn expand(&self, info: &[u8], out: &mut [u8]) {
        Hkdf::<Sha256>::new(None, self.as_bytes())
            .expand(info, out)
            .expect("the caller asks for at most MAX_DERIVED bytes");
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{FixedRng, hex, unhex, vectors};

    fn master() -> Key {
        let key = unhex(&vectors()["master"]["key"]);
        Key::new(key.try_into().unwrap())
    }

    #[test]
    fn master_vectors_agree() {
        let (v, key) = (&vectors()["master"], master());
        assert_eq!(hex(&key.verifier()), v["verifier"]);
        let transit = key.derive("lothar.com/wormhole/text-or-file-xfer/transit-key", 32);
        assert_eq!(hex(&transit), v["transit_key"]);
        assert_eq!(hex(&key.derive("dilation-v1", 32)), v["dilation_key"]);
        for entry in v["phase_keys"].as_array().unwrap() {
            let key = key.phase_key(entry["side"].as_str().unwrap(), entry["phase"].as_str().unwrap());
            assert_eq!(hex(key.as_bytes()), entry["key"]);
        }
        assert_eq!(v["phase_keys"].as_array().unwrap().len(), 12);
    }

    #[test]
    fn example_purpose_vector_agrees() {
        let expected = vectors()["master"]["derive_key_purpose_example_len16"].clone();
        assert_eq!(hex(&master().derive("example/purpose", 16)), expected);
    }

    #[test]
    fn body_vectors_agree() {
        for entry in vectors()["mailbox_bodies"].as_array().unwrap() {
            let key = master().phase_key(entry["side"].as_str().unwrap(), entry["phase"].as_str().unwrap());
            let plaintext = entry["plaintext"].as_str().unwrap().as_bytes();
            let body = key.seal(plaintext, &mut FixedRng::new(unhex(&entry["nonce"])));
            assert_eq!(hex(&body), entry["body_hex"]);
            assert_eq!(key.open(&body).unwrap(), plaintext);
        }
    }

    #[test]
    fn forgeries_do_not_open() {
        let key = master().phase_key("a", "0");
        let body = key.seal(b"hello", &mut FixedRng::new(vec![7; 24]));
        assert_eq!(body.len(), 24 + 16 + 5);
        for at in 0..body.len() {
            let mut forged = body.clone();
            forged[at] ^= 1;
            assert!(key.open(&forged).is_none());
            assert!(key.open(&body[..at]).is_none());
        }
        assert!(master().phase_key("a", "1").open(&body).is_none());
        assert_eq!(format!("{key:?}"), "Key(..)");
    }
}
