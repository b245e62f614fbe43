//! The keys of a transfer, all from one (specification "Transit Protocol").

use std::fmt;

use data_encoding::HEXLOWER;
use zeroize::{Zeroize, Zeroizing};

use crate::prologue::{RelayRequest, SideError, derive};

/// The two parts in a transfer. Which data goes where is for the application to say: both may send records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Chooses the connection.
    Sender,
    /// Uses the one that the Sender chose.
    Receiver,
}

impl Part {
    /// That of the other side.
    #[must_use]
    pub fn other(self) -> Part {
        match self {
            Part::Sender => Part::Receiver,
            Part::Receiver => Part::Sender,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Part::Sender => "sender",
            Part::Receiver => "receiver",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The transit key, which both sides derive from the wormhole's. Wiped from memory when dropped and never printed.
#[derive(Clone)]
pub struct TransitKey(Zeroizing<[u8; 32]>);

impl TransitKey {
    /// Takes the 32 bytes that the wormhole's key derives for the purpose `<appid>/transit-key`.
    #[must_use]
    pub fn new(mut bytes: [u8; 32]) -> TransitKey {
        let key = TransitKey(Zeroizing::new(bytes));
        // The parameter is a copy of its own on the stack.
        bytes.zeroize();
        key
    }

    /// The request that a relay gets from a side, 16 lower-case hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`SideError`] if `side` is something else.
    pub fn relay_request(&self, side: &str) -> Result<RelayRequest, SideError> {
        RelayRequest::with_token(&self.derive("transit_relay_token"), side)
    }

    /// The line that a side says on every connection.
    pub(super) fn greeting(&self, part: Part) -> Zeroizing<Vec<u8>> {
        let id = Zeroizing::new(HEXLOWER.encode(self.derive(&format!("transit_{part}")).as_ref()));
        Zeroizing::new(format!("transit {part} {} ready\n\n", id.as_str()).into_bytes())
    }

    /// Of the records that `from` sends.
    pub(super) fn record_key(&self, from: Part) -> Zeroizing<[u8; 32]> {
        self.derive(&format!("transit_record_{from}_key"))
    }

    fn derive(&self, info: &str) -> Zeroizing<[u8; 32]> {
        derive(&self.0, info)
    }
}

impl fmt::Debug for TransitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransitKey(..)")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::Value;

    use super::*;

    pub(in crate::v1) fn vectors() -> Value {
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors.json"));
        serde_json::from_str::<Value>(text).unwrap()["transit"].take()
    }

    pub(in crate::v1) fn hex(value: &Value) -> Vec<u8> {
        HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
    }

    pub(in crate::v1) fn key() -> TransitKey {
        TransitKey::new(hex(&vectors()["transit_key"]).try_into().unwrap())
    }

    #[test]
    fn vectors_of_keys_and_lines() {
        let (vectors, key) = (vectors(), key());
        let text = |name: &str| vectors[name].as_str().unwrap().as_bytes();
        assert_eq!(*key.greeting(Part::Sender), text("sender_handshake"));
        assert_eq!(*key.greeting(Part::Receiver), text("receiver_handshake"));
        let request = key.relay_request(vectors["relay_side"].as_str().unwrap()).unwrap();
        assert_eq!(request.as_bytes(), text("relay_handshake"));
        assert_eq!(*key.record_key(Part::Sender), *hex(&vectors["record_key_sender_to_receiver"]));
        assert_eq!(*key.record_key(Part::Receiver), *hex(&vectors["record_key_receiver_to_sender"]));
        assert_eq!(format!("{key:?}"), "TransitKey(..)");
    }
}
