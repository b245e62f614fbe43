//! The mailbox server: where two sides meet before they know each other.
//!
//! It speaks to the released Python `magic-wormhole` and to every other client of the protocol. It stores
//! encrypted messages for a short time and understands nothing of them. Whoever runs one learns which addresses
//! met when, and no more.
//!
//! ```text
//!   TcpListener ── one task per connection ──► events ──► one thread: Core ── Store
//!   (HTTP head, websocket, pings, limits)   ◄── bounded queue of outputs ◄──┘   (memory or SQLite)
//! ```
//!
//! [`Core`] is the whole protocol without sockets, clock or randomness. The driver gives it one thread, because a
//! store may block: a slow disk delays requests, but never the runtime. Each request is one transaction.
//!
//! # Example
//!
//! ```no_run
//! use dilated_mailbox::server::{MailboxServer, ServerConfig};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let server = MailboxServer::bind("127.0.0.1:4000".parse()?, ServerConfig::default()).await?;
//! let handle = server.handle();
//! let running = tokio::spawn(server.run());
//! // … and when it is enough:
//! handle.shutdown();
//! running.await??;
//! # Ok(())
//! # }
//! ```
//!
//! # Differences from the Python server
//!
//! - A third side that is told `crowded` leaves nothing behind. There, it makes the two legitimate sides crowded
//!   too, from their next connection on.
//! - Requests that it answers by aborting the connection get an `error` message and a websocket close.
//! - Every quantity has a limit; see [`ServerLimits`].
//! - Messages replay in the order of arrival, even when the clock went backwards.

mod address;
mod clock;
mod config;
mod connection;
mod core;
mod engine;
mod http;
mod limits;
mod memory;
mod net;
mod outbox;
mod registry;
mod request;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
mod usage;

#[cfg(test)]
mod tests;

#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteStore;
pub use self::{
    address::{AddressKey, PeerAddress},
    config::{ServerConfig, ServerWelcome, StoreKind},
    core::{ConnectionId, Core, Output},
    limits::ServerLimits,
    memory::MemoryStore,
    net::{MailboxServer, ServerHandle, ServerStats},
    store::{
        Change, MailboxRecord, MailboxSide, Message, Mood, NameplateRecord, NameplateSide, Store, StoreError,
        Totals,
    },
    usage::{Outcome, Outcomes, Usage},
};
