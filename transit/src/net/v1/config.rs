//! What a side of a transfer needs to know.

use std::time::Duration;

use crate::{hint::RelayHint, net::Proxy, race::RaceConfig, v1::TransitKey};

/// What the other side and the network may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransitLimits {
    /// Of the dials, and their rhythm. `listen` and `tor` are overwritten.
    pub race: RaceConfig,
    /// How long a handshake may take once the two ends are in contact. Waiting for the other side at a relay does not count, nor
    /// does a Receiver's wait for the choice. Default 60 s, as Python's.
    pub handshake_timeout: Duration,
    /// How long to look for the other side. Default 120 s, as Python's.
    pub timeout: Duration,
    /// Connections of others whose handshake is not finished; the oldest is dropped for a newer one. Default 32.
    pub inbound: usize,
}

impl Default for TransitLimits {
    fn default() -> TransitLimits {
        TransitLimits {
            race: RaceConfig::default(),
            handshake_timeout: Duration::from_secs(60),
            timeout: Duration::from_secs(120),
            inbound: 32,
        }
    }
}

/// What a [`Transit`](super::Transit) needs to know.
#[derive(Debug, Clone)]
pub struct TransitConfig {
    /// The key of the transfer, which the other side must prove to have.
    pub key: TransitKey,
    /// Listen for the other side and tell it our addresses. Not with a [`proxy`](Self::proxy). Default true.
    pub listen: bool,
    /// Tell the other side loopback addresses even when there are others. Default false.
    pub loopback: bool,
    /// Our relays. Default none.
    pub relays: Vec<RelayHint>,
    /// Make all connections through this. Default none.
    pub proxy: Option<Proxy>,
    /// Bounds.
    pub limits: TransitLimits,
}

impl TransitConfig {
    /// The defaults.
    #[must_use]
    pub fn new(key: TransitKey) -> TransitConfig {
        TransitConfig {
            key,
            listen: true,
            loopback: false,
            relays: Vec::new(),
            proxy: None,
            limits: TransitLimits::default(),
        }
    }
}
