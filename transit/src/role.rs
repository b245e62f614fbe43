//! Who leads, and the key that both sides of a dilated wormhole share.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// The two roles of a dilation (specification `ged`, section "Roles"): the side with the higher `side` string
/// leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Starts the Noise handshake and chooses the link that both sides use.
    Leader,
    /// Confirms its key on every candidate and uses the one that the Leader chose.
    Follower,
}

impl Role {
    /// The role of the other side.
    #[must_use]
    pub fn other(self) -> Role {
        match self {
            Role::Leader => Role::Follower,
            Role::Follower => Role::Leader,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Leader => "Leader",
            Role::Follower => "Follower",
        })
    }
}

/// The dilation key: the pre-shared key of every link and the source of the relay token. Wiped from memory when
/// dropped and never printed.
#[derive(Clone)]
pub struct DilationKey(Zeroizing<[u8; 32]>);

impl DilationKey {
    /// Takes the 32 bytes that the wormhole's key derives for the purpose `dilation-v1`.
    #[must_use]
    pub fn new(mut bytes: [u8; 32]) -> DilationKey {
        let key = DilationKey(Zeroizing::new(bytes));
        // The parameter is a copy of its own on the stack.
        bytes.zeroize();
        key
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for DilationKey {
    fn from(bytes: [u8; 32]) -> DilationKey {
        DilationKey::new(bytes)
    }
}

impl fmt::Debug for DilationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DilationKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_printed() {
        let text = format!("{:?}", DilationKey::new([0xab; 32]));
        assert_eq!(text, "DilationKey(..)");
    }

    #[test]
    fn roles_are_opposite() {
        assert_eq!(Role::Leader.other(), Role::Follower);
        assert_eq!(Role::Follower.other().to_string(), "Leader");
    }
}
