//! What a connector needs to know, and what it may be asked for.

use std::time::Duration;

use super::proxy::Proxy;
use crate::{
    dialect::LinkDialect,
    handshake::HandshakeLimits,
    hint::{HintLimits, RelayHint},
    race::RaceConfig,
    role::{DilationKey, Role},
};

/// What a peer and the network may cost a [`Connector`](super::Connector).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectorLimits {
    /// Of the hints in one message.
    pub hints: HintLimits,
    /// Of the dials, and their rhythm. `listen` and `tor` are overwritten by [`ConnectorConfig`].
    pub race: RaceConfig,
    /// Of the handshakes.
    pub handshake: HandshakeLimits,
    /// How long a handshake may take once the two ends are in contact, until the keys are agreed on. Waiting for the
    /// peer at a relay does not count, nor does a Follower's wait for the Leader's choice. Default 10 s. Stops peers
    /// that connect and say nothing, and relays that paired us with a connection whose other end is gone.
    pub handshake_timeout: Duration,
    /// Connections of others whose handshake is not finished; the oldest is dropped for a newer one. Default 32.
    /// Stops floods of connections from filling memory, without letting them keep the peer out. In `dilated-1` the same
    /// holds for dials that outlive their search because a Follower waits for the Leader's choice: whoever repeats a
    /// Leader's first message can make it wait.
    pub inbound: usize,
    /// The wait before a search for something better dials an endpoint again; it doubles each time. Default 10 s.
    pub better_first: Duration,
    /// The longest such wait. Default 5 min.
    pub better_max: Duration,
}

impl Default for ConnectorLimits {
    fn default() -> ConnectorLimits {
        ConnectorLimits {
            hints: HintLimits::default(),
            race: RaceConfig::default(),
            handshake: HandshakeLimits::default(),
            handshake_timeout: Duration::from_secs(10),
            inbound: 32,
            better_first: Duration::from_secs(10),
            better_max: Duration::from_secs(300),
        }
    }
}

/// What a [`Connector`](super::Connector) needs to know.
#[derive(Debug, Clone)]
pub struct ConnectorConfig {
    /// Ours.
    pub role: Role,
    /// That of the wormhole.
    pub dialect: LinkDialect,
    /// The key that the peer must prove to have.
    pub key: DilationKey,
    /// Our dilation side, 16 hexadecimal digits; shown to relays.
    pub side: String,
    /// Listen for the peer and tell it our addresses. Not with a [`proxy`](Self::proxy).
    pub listen: bool,
    /// Tell the peer loopback addresses even when there are others.
    pub loopback: bool,
    /// Our relays.
    pub relays: Vec<RelayHint>,
    /// Make all connections through this.
    pub proxy: Option<Proxy>,
    /// Bounds.
    pub limits: ConnectorLimits,
}

/// What is searched for. `ged` ignores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Search {
    /// Ours: what is found is of this generation or a greater one. At relays the peer is waited for under the token of
    /// this generation.
    pub generation: u64,
    /// We have a link of this generation. If not, the peer may be one generation ahead, and is waited for under the token
    /// of the next, too.
    pub linked: bool,
}
