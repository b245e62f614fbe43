//! How a wormhole dilates.

use std::time::Duration;

use dilated_subchannel::MuxConfig;
use dilated_transit::{
    RelayHint,
    net::{ConnectorLimits, Proxy},
};

use crate::{error::DilationError, liveness::LivenessConfig, manager::ManagerTiming, role::RolePreference};

/// Who opens the control channel's subchannel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ControlOpener {
    /// The Leader opens and the Follower listens. Right between two of our own peers, which need not know who
    /// leads. Not with a Python program that opens the channel itself: when both open, each waits on its own.
    #[default]
    ByRole,
    /// This side opens. For a far end, in Python say, that only listens.
    Open,
    /// This side listens. For a far end that only opens.
    Listen,
}

/// Configuration of [`Wormhole::dilate`](crate::Wormhole::dilate). `DilateConfig::default()` suits most: it listens
/// on all addresses, uses the public relay, and leads when it may.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DilateConfig {
    /// Relays to meet at when no direct path opens; all are tried, and so are the peer's. Default: the
    /// [public relay](crate::PUBLIC_RELAY).
    pub relays: Vec<RelayHint>,
    /// Listen for direct connections and tell the peer our addresses. Without it only relays and the peer's
    /// listener are left. Default: yes.
    pub listen: bool,
    /// Make all connections to the peer and to relays through this proxy, and do not listen. The mailbox server
    /// has [a setting of its own](crate::WormholeBuilder::proxy). Default: none.
    pub proxy: Option<Proxy>,
    /// Advertise loopback addresses even when there are others, for two programs on one machine. Default: no.
    pub loopback: bool,
    /// Seal records with AES-256-GCM if the processors of both sides have instructions for it, instead of
    /// ChaCha20-Poly1305. Only in `dilated-1`. Default: yes.
    pub aes: bool,
    /// Keep a second link, over another path, that takes over at once when the first one fails. It costs a PING every
    /// [`ping_interval`](LivenessConfig::ping_interval), and perhaps a relay a connection. Only in `dilated-1`, and enough
    /// if one side wants it. Default: no.
    pub standby: bool,
    /// The wanted role. Default: Leader.
    pub role: RolePreference,
    /// How a link is watched.
    pub liveness: LivenessConfig,
    /// How long [`close`](crate::Wormhole::close) waits for the peer to acknowledge what was written. Default: 10 s.
    pub linger: Duration,
    /// How long the end of a wormhole waits for the last bytes of the link to leave. Default: 1 s.
    pub fin_timeout: Duration,
    /// The subprotocol behind the [control](crate::Control) endpoint. Default: `control`.
    pub control_name: String,
    /// The subprotocol behind the [client](crate::Client) and [server](crate::Server) endpoints. Default: `stream`.
    pub stream_name: String,
    /// Who opens the control channel.
    pub control_opener: ControlOpener,
    /// Subprotocols that the peer may open before [`listener_for`](crate::Dilated::listener_for) is called for
    /// them. Opens of any other name without a listener are closed at once. The triple's names are always
    /// expected.
    pub expected_subprotocols: Vec<String>,
    /// Limits of memory and of subchannels.
    pub mux: MuxConfig,
    /// Limits of hints, dials and handshakes.
    pub connector: ConnectorLimits,
    /// Timers of the search for a link.
    pub timing: ManagerTiming,
}

impl Default for DilateConfig {
    fn default() -> Self {
        DilateConfig {
            relays: vec![crate::PUBLIC_RELAY.parse().expect("the constant is a valid hint")],
            listen: true,
            proxy: None,
            loopback: false,
            aes: true,
            standby: false,
            role: RolePreference::default(),
            liveness: LivenessConfig::default(),
            linger: Duration::from_secs(10),
            fin_timeout: Duration::from_secs(1),
            control_name: "control".to_owned(),
            stream_name: "stream".to_owned(),
            control_opener: ControlOpener::default(),
            expected_subprotocols: Vec::new(),
            mux: MuxConfig::default(),
            connector: ConnectorLimits::default(),
            timing: ManagerTiming::default(),
        }
    }
}

impl DilateConfig {
    /// The defaults without any relay: direct connections only, nothing leaves for a third party.
    pub fn direct_only() -> DilateConfig {
        DilateConfig { relays: Vec::new(), ..DilateConfig::default() }
    }

    pub(crate) fn check(&self) -> Result<(), DilationError> {
        let refuse = |why: &str| Err(DilationError::Config(why.to_owned()));
        if self.control_name == self.stream_name {
            return refuse("control_name and stream_name are the same; give each endpoint a name of its own");
        }
        if self.liveness.ping_interval < Duration::from_millis(100) {
            return refuse("liveness.ping_interval is below 100 ms, which would take every hiccup for death");
        }
        Ok(())
    }
}
