//! In which dialect a link is made, and what two sides say of it while they make it.

/// The dialect of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkDialect {
    /// What the Python implementation speaks.
    #[default]
    Ged,
    /// What two of our own speak (`docs/protocol.md`).
    Dilated1 {
        /// Both sides have said that their processors have instructions for AES: records are sealed with AES-256-GCM
        /// instead of ChaCha20-Poly1305.
        aes: bool,
    },
}

/// What a side says of itself in a handshake of `dilated-1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offer {
    /// The sender's generation.
    pub generation: u64,
    /// The sender has a link of this generation, and offers another.
    pub linked: bool,
}

impl Offer {
    const LENGTH: usize = 9;

    pub(crate) fn encode(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..8].copy_from_slice(&self.generation.to_be_bytes());
        bytes[8] = u8::from(self.linked);
        bytes
    }

    /// None for other lengths: a handshake of `ged` has no offer.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Offer> {
        let (generation, linked) = bytes.split_first_chunk::<8>()?;
        let [linked] = *linked else { return None };
        Some(Offer { generation: u64::from_be_bytes(*generation), linked: linked != 0 })
    }
}

/// Whether this machine's processor has instructions for AES-256-GCM. Without them it would be slower than
/// ChaCha20-Poly1305, and its time could tell of the key.
#[must_use]
pub fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    {
        std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
    }
    #[cfg(target_arch = "aarch64")]
    {
        std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    {
        false
    }
}
