//! The records of Transit v1: NaCl secretboxes with a counter for a nonce.
//!
//! ```text
//! record = BE4 length ‖ nonce of 24 bytes, a big-endian counter from 0 ‖ tag of 16 bytes ‖ ciphertext
//! ```
//!
//! The specification calls the nonce little-endian; all implementations have it big-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dryoc::classic::crypto_secretbox::{
    Key, Nonce, crypto_secretbox_detached, crypto_secretbox_open_detached, crypto_secretbox_open_easy_inplace,
};
use thiserror::Error;
use zeroize::Zeroizing;

/// Most plaintext in one record that is sent or received, in bytes: 1 MiB. Python sends 16 KiB in each. A peer could make us
/// hold what it only announces.
pub const MAX_RECORD: usize = 1 << 20;

const HEADER: usize = 4;
const NONCE: usize = 24;
const TAG: usize = 16;
const OVERHEAD: usize = NONCE + TAG;

/// Bytes that a record has more than its plaintext.
pub const RECORD_OVERHEAD: usize = HEADER + OVERHEAD;

/// Why a record could not be opened, and no other will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It is longer than is accepted.
    #[error("the other side announced a record of {length} bytes; the limit is {limit}")]
    TooLong {
        /// What it announced, in bytes.
        length: usize,
        /// The most, in bytes.
        limit: usize,
    },
    /// It is too short to be one.
    #[error("the other side announced a record of {0} bytes, which is too short to be one")]
    TooShort(usize),
    /// It is not the next one: one was lost, repeated or comes out of order.
    #[error(
        "record {found} came where record {expected} was due: something between the two sides lost, repeated or moved it"
    )]
    OutOfOrder {
        /// Its number, or `u64::MAX` if that does not fit.
        found: u64,
        /// The number that was due.
        expected: u64,
    },
    /// It was not made with the key of this transfer.
    #[error("a record could not be decrypted: it was corrupted on the way, or somebody else made it")]
    Undecryptable,
}

/// The nonce of a record.
fn nonce(number: u64) -> Nonce {
    let mut nonce: Nonce = [0; NONCE];
    nonce[NONCE - 8..].copy_from_slice(&number.to_be_bytes());
    nonce
}

/// Makes records.
pub struct RecordSealer {
    key: Zeroizing<[u8; 32]>,
    next: u64,
}

impl RecordSealer {
    pub(super) fn new(key: Zeroizing<[u8; 32]>) -> RecordSealer {
        RecordSealer { key, next: 0 }
    }

    /// Appends the record of a plaintext to `out`. The number of the record is used up before anything is sent, so that no
    /// cancelled write can use one twice.
    ///
    /// # Panics
    ///
    /// If the plaintext is longer than [`MAX_RECORD`].
    pub fn seal(&mut self, plaintext: &[u8], out: &mut BytesMut) {
        assert!(plaintext.len() <= MAX_RECORD, "the caller cuts what it sends");
        let nonce = nonce(self.next);
        // 2⁶⁴ records cannot be sent in a lifetime.
        self.next += 1;
        out.reserve(RECORD_OVERHEAD + plaintext.len());
        out.put_u32(u32::try_from(OVERHEAD + plaintext.len()).expect("a record is far below 4 GiB"));
        out.put_slice(&nonce);
        let start = out.len();
        out.put_bytes(0, TAG + plaintext.len());
        let (tag, sealed) = out[start..].split_first_chunk_mut().expect("there is room for the tag");
        crypto_secretbox_detached(sealed, tag, plaintext, &nonce, &self.key)
            .expect("one is as long as the other");
    }
}

impl std::fmt::Debug for RecordSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordSealer").field("next", &self.next).finish_non_exhaustive()
    }
}

/// Opens records.
///
/// Append received bytes to [`buffer`](Self::buffer), then call [`next_record`](Self::next_record) until it returns `None`.
pub struct RecordOpener {
    key: Zeroizing<[u8; 32]>,
    next: u64,
    buffer: BytesMut,
    failed: Option<RecordError>,
}

impl RecordOpener {
    pub(super) fn new(key: Zeroizing<[u8; 32]>, buffer: BytesMut) -> RecordOpener {
        RecordOpener { key, next: 0, buffer, failed: None }
    }

    /// The bytes received and not yet opened. Append to it.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// How many bytes are missing of the record at the front; 0 if it is complete, or unreadable, or its length has not
    /// arrived yet. For sizing the next read.
    #[must_use]
    pub fn missing(&self) -> usize {
        match self.announced() {
            Ok(Some(length)) => (HEADER + length).saturating_sub(self.buffer.len()),
            _ => 0,
        }
    }

    /// The plaintext of the next record, or `None` if it is not complete.
    ///
    /// # Errors
    ///
    /// [`RecordError`], which is final: every later call returns it again.
    pub fn next_record(&mut self) -> Result<Option<Bytes>, RecordError> {
        self.open_next(|mut sealed, nonce, key| {
            crypto_secretbox_open_easy_inplace(&mut sealed, nonce, key).ok()?;
            sealed.truncate(sealed.len() - TAG);
            Some(sealed.freeze())
        })
    }

    /// Like [`next_record`](Self::next_record), but appends the plaintext to `out`, and returns how long it is. For many records:
    /// the [`buffer`](Self::buffer) is free for the next at once.
    ///
    /// # Errors
    ///
    /// As those of [`next_record`](Self::next_record). Nothing is appended then.
    pub fn next_record_into(&mut self, out: &mut Vec<u8>) -> Result<Option<usize>, RecordError> {
        self.open_next(|sealed, nonce, key| {
            let (tag, sealed) = sealed.split_first_chunk()?;
            let start = out.len();
            out.resize(start + sealed.len(), 0);
            let opened = crypto_secretbox_open_detached(&mut out[start..], sealed, tag, nonce, key);
            if opened.is_err() {
                out.truncate(start);
            }
            opened.ok().map(|()| sealed.len())
        })
    }

    /// Hands tag and ciphertext of the next record to `open`, if it is complete.
    fn open_next<T>(
        &mut self,
        open: impl FnOnce(BytesMut, &Nonce, &Key) -> Option<T>,
    ) -> Result<Option<T>, RecordError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let opened = self.take_next().and_then(|taken| match taken {
            None => Ok(None),
            Some((sealed, nonce)) => match open(sealed, &nonce, &self.key) {
                None => Err(RecordError::Undecryptable),
                opened => Ok(opened),
            },
        });
        opened.inspect_err(|error| {
            self.failed = Some(*error);
            self.buffer = BytesMut::new();
        })
    }

    /// Tag and ciphertext of the next record, with its nonce, if it is complete.
    fn take_next(&mut self) -> Result<Option<(BytesMut, Nonce)>, RecordError> {
        let Some(length) = self.announced()? else { return Ok(None) };
        if self.buffer.len() < HEADER + length {
            return Ok(None);
        }
        let mut record = self.buffer.split_to(HEADER + length);
        record.advance(HEADER);
        let expected = nonce(self.next);
        let found = record.split_to(NONCE);
        if *found != expected {
            let found = match found.split_last_chunk() {
                Some((high, number)) if high.iter().all(|byte| *byte == 0) => u64::from_be_bytes(*number),
                _ => u64::MAX,
            };
            return Err(RecordError::OutOfOrder { found, expected: self.next });
        }
        self.next += 1;
        Ok(Some((record, expected)))
    }

    /// What the record at the front announces as its length, once that has arrived.
    fn announced(&self) -> Result<Option<usize>, RecordError> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        let limit = MAX_RECORD + OVERHEAD;
        match length {
            _ if length > limit => Err(RecordError::TooLong { length, limit }),
            _ if length < OVERHEAD => Err(RecordError::TooShort(length)),
            _ => Ok(Some(length)),
        }
    }
}

impl std::fmt::Debug for RecordOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordOpener").field("next", &self.next).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::v1::{
        Part,
        keys::tests::{hex, key, vectors},
    };

    fn opener(bytes: &[u8]) -> RecordOpener {
        RecordOpener::new(Zeroizing::new([9; 32]), bytes.into())
    }

    fn pair() -> (RecordSealer, RecordOpener) {
        (RecordSealer::new(Zeroizing::new([9; 32])), opener(b""))
    }

    #[test]
    fn vectors_of_records() {
        let vectors = vectors();
        let mut sealer = RecordSealer::new(key().record_key(Part::Sender));
        let mut opener = RecordOpener::new(key().record_key(Part::Sender), BytesMut::new());
        let records = vectors["records_sender"].as_array().unwrap();
        assert_eq!(records.len(), 3);
        for record in records {
            let (number, plaintext) = (record["n"].as_u64().unwrap(), record["plaintext"].as_str().unwrap());
            (sealer.next, opener.next) = (number, number);
            sealer.seal(plaintext.as_bytes(), opener.buffer());
            assert_eq!(*opener.buffer(), hex(&record["wire"]));
            assert_eq!(opener.next_record().unwrap().unwrap(), plaintext);
        }
        let ack = &vectors["record_receiver_ack"];
        let wire = BytesMut::from(&hex(&ack["wire"])[..]);
        let mut opener = RecordOpener::new(key().record_key(Part::Receiver), wire);
        assert_eq!(opener.next_record().unwrap().unwrap(), ack["plaintext"].as_str().unwrap());
    }

    #[test]
    fn every_damage_is_final_and_named() {
        let mut wire = BytesMut::new();
        let (mut sealer, _) = pair();
        sealer.seal(b"one", &mut wire);
        let first = wire.len();
        sealer.seal(b"two", &mut wire);
        let open = |bytes: &[u8]| {
            let mut opener = opener(bytes);
            let mut result = opener.next_record();
            while let Ok(Some(_)) = result {
                result = opener.next_record();
            }
            if result.is_err() {
                assert_eq!(opener.next_record(), result, "it stays so");
            }
            result
        };
        assert_eq!(open(&wire), Ok(None));
        assert_eq!(open(&wire[first..]), Err(RecordError::OutOfOrder { found: 1, expected: 0 }));
        assert_eq!(
            open(&[&wire[..first], &wire[..first]].concat()),
            Err(RecordError::OutOfOrder { found: 0, expected: 1 })
        );
        let mut damaged = wire.clone();
        damaged[first + HEADER] ^= 1;
        assert_eq!(open(&damaged), Err(RecordError::OutOfOrder { found: u64::MAX, expected: 1 }));
        for at in [HEADER + NONCE, first - 1] {
            let mut damaged = wire.clone();
            damaged[at] ^= 1;
            assert_eq!(open(&damaged), Err(RecordError::Undecryptable));
            let mut out = b"before".to_vec();
            assert_eq!(opener(&damaged).next_record_into(&mut out), Err(RecordError::Undecryptable));
            assert_eq!(out, b"before");
        }
        assert_eq!(open(&[0, 0, 0, 39]), Err(RecordError::TooShort(39)));
        assert!(matches!(open(b"HTTP/1.1 400"), Err(RecordError::TooLong { .. })));
        assert_eq!(open(&[0, 0, 0, 40]), Ok(None));
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened_however_it_is_cut(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 1..6), cut in 1usize..500,
        ) {
            let (mut sealer, mut opener) = pair();
            let mut wire = BytesMut::new();
            records.iter().for_each(|record| sealer.seal(record, &mut wire));
            let mut opened = Vec::new();
            let (mut other, mut appended) = (self::opener(b""), Vec::new());
            for chunk in wire.chunks(cut) {
                other.buffer().extend_from_slice(chunk);
                while other.next_record_into(&mut appended).unwrap().is_some() {}
                opener.buffer().extend_from_slice(chunk);
                while let Some(record) = opener.next_record().unwrap() {
                    opened.push(record.to_vec());
                }
                prop_assert!(opener.buffer().is_empty() || opener.buffer().len() < HEADER || opener.missing() > 0);
            }
            prop_assert_eq!(&opened, &records);
            prop_assert_eq!(appended, records.concat());
        }

        /// The kernels differ with the length and the processor; another implementation has none of them.
        #[test]
        fn records_are_those_of_another_implementation(length in 0usize..3000, number in any::<u32>(), seed in any::<u8>()) {
            use crypto_secretbox::{KeyInit, XSalsa20Poly1305, aead::Aead};

            let number = u64::from(number);
            let plaintext: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap() ^ seed).collect();
            let (mut sealer, mut opener) = pair();
            (sealer.next, opener.next) = (number, number);
            let mut wire = BytesMut::new();
            sealer.seal(&plaintext, &mut wire);
            let other = XSalsa20Poly1305::new(&[9; 32].into());
            let sealed = other.encrypt(&nonce(number).into(), &plaintext[..]).unwrap();
            prop_assert_eq!(&wire[HEADER + NONCE..], &sealed[..]);
            opener.buffer().extend_from_slice(&wire);
            prop_assert_eq!(opener.next_record().unwrap().unwrap(), plaintext);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let (_, mut opener) = pair();
            opener.buffer().extend_from_slice(&bytes);
            prop_assert!(!matches!(opener.next_record(), Ok(Some(_))));
        }
    }
}
