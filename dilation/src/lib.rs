//! Two programs whose people share a short code get a durable, end-to-end encrypted link.
//!
//! They meet at a mailbox server, agree on a key with SPAKE2, and *dilate*: they build a direct connection (or one
//! through a relay), and build it again whenever it breaks. On it run any number of subchannels, each a byte stream
//! in both directions, which outlive every connection underneath.
//!
//! ```text
//!   Wormhole ── mailbox server ── Wormhole      code, key, messages, where to connect
//!      │ dilate()                    │
//!   Dilated ═══ link (TCP, Noise) ═══ Dilated   generation 0, 1, 2, …
//!      ├─ control ───────────────────┤
//!      ├─ client ──► subchannels ──► server
//!      └─ server ◄── subchannels ◄── client
//! ```
//!
//! ```no_run
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let wormhole = dilated::Wormhole::builder("example.com/greeter").build()?;
//! println!("tell the other side: {}", wormhole.allocate_code(2).await?);
//!
//! let mut dilated = wormhole.dilate(dilated::DilateConfig::default())?;
//! let (_control, client, _server) = dilated.endpoints().ok_or("taken")?;
//!
//! let mut subchannel = client.connect().await?;
//! subchannel.write_all(b"hello").await?;
//! subchannel.shutdown().await?;
//! let mut answer = String::new();
//! subchannel.read_to_string(&mut answer).await?;
//! wormhole.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Two programs built with this crate speak `dilated-1`. With others the protocol is dilation version `ged`, as the
//! released Python `magic-wormhole` 0.24 speaks it; the far end may be a Python program. See `docs/` in the repository for
//! the protocols and the architecture.
//!
//! The classic file transfer's connection, which needs no dilation, is in [`transit`]. The logic of the protocol of
//! dilation, without sockets and clocks, is in [`protocol`].

#[cfg(feature = "tokio")]
mod clock;
#[cfg(feature = "tokio")]
mod config;
mod dialect;
#[cfg(feature = "tokio")]
mod driver;
#[cfg(feature = "tokio")]
mod endpoint;
mod error;
mod generation;
#[cfg(feature = "tokio")]
mod inbox;
#[cfg(feature = "tokio")]
mod link;
mod links;
mod liveness;
mod manager;
mod message;
mod role;
mod rtt;
mod status;
#[cfg(feature = "tokio")]
pub mod transit;
mod watch;
#[cfg(feature = "tokio")]
mod wormhole;

/// The state machines of dilation, for other drivers, simulators and fuzzers: no sockets, no clock, no randomness of
/// their own.
pub mod protocol {
    pub use crate::{
        dialect::{Agreement, Parameters, Terms},
        links::{LinkEvent, LinkId, Links, Streams},
        liveness::{Liveness, Verdict},
        manager::{Action, Choice, Manager, Selection, State},
        message::DilationMessage,
        role::DilationSide,
        rtt::RoundTrip,
        watch::{Due, Watch},
    };
}

pub use dialect::Dialect;
pub use dilated_mailbox::{
    Code, InputError, Key, WormholeError,
    client::{
        ClientConfig, ClientLimits, CodeStatus, ConnectionStatus, KeyStatus, MailboxStatus, PeerVersions,
    },
    message::Welcome,
};
pub use dilated_subchannel::{EndReason, MuxConfig, Usage};
pub use dilated_transit::{Path, RelayHint, Role};
pub use error::DilationError;
pub use generation::Generation;
pub use liveness::LivenessConfig;
pub use manager::ManagerTiming;
pub use role::RolePreference;
pub use status::{DilationStatus, LinkStatus, Recovery};
#[cfg(feature = "tokio")]
pub use {
    config::{ControlOpener, DilateConfig},
    dilated_mailbox::net::{CodeInput, Dialer, NetConfig},
    dilated_subchannel::{
        Connector, Listener, OpenOptions, ReadHalf, Subchannel, WriteHalf,
        frame::Code as SubchannelCode,
        io::{AcceptError, ConnectError},
        mux::{
            DatagramError, ListenError, NameError, OpenRefused, ReadError, UnacknowledgedError, WriteError,
        },
    },
    dilated_transit::net::{ConnectorLimits, MonitorConfig, Proxy, ProxyParseError, local_addresses},
    endpoint::{Client, Control, Dilated, Server},
    wormhole::{Event, Wormhole, WormholeBuilder},
};

/// The servers, to be embedded in a program or run on their own.
#[cfg(feature = "server")]
pub mod server {
    pub use dilated_mailbox::server::{
        MailboxServer, ServerConfig, ServerHandle, ServerLimits, ServerStats, ServerWelcome, StoreKind,
    };
    pub use dilated_transit::relay::{Relay, RelayConfig, RelayHandle, RelayStats};
}

/// The public mailbox server: with TLS, and as the released Python client reaches it.
pub const PUBLIC_MAILBOXES: [&str; 2] =
    ["wss://relay.magic-wormhole.io/v1", "ws://relay.magic-wormhole.io:4000/v1"];

/// The public transit relay.
pub const PUBLIC_RELAY: &str = "tcp:transit.magic-wormhole.io:4001";
