//! The transit relay: two clients that cannot reach each other both connect here, and it copies bytes between
//! them.
//!
//! It speaks to the released Python `magic-wormhole` and to every other client of the protocol over TCP:
//!
//! ```text
//!    please relay TOKEN for side SIDE ──►      ◄── please relay TOKEN for side OTHER
//!                                 ok ◄──  relay  ──► ok
//!                    … bytes … ◄────────────────────────► … bytes …
//! ```
//!
//! The bytes are encrypted from end to end. Whoever runs a relay learns which addresses exchanged how much, and
//! no more. A client that sends anything before its `ok` is told `impatient`, one with a bad first line
//! `bad handshake`.
//!
//! [`FirstLine`] and [`Rendezvous`] are the protocol without sockets; [`Relay`] is the server.
//!
//! # Example
//!
//! ```no_run
//! use dilated_transit::relay::{Relay, RelayConfig};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let relay = Relay::bind("127.0.0.1:4001".parse()?, RelayConfig::default()).await?;
//! println!("clients need the hint {}", relay.hint());
//! relay.run().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Differences from the Python relay
//!
//! - Memory per pair is constant. There, a slow reader makes it buffer megabytes.
//! - Everything has a limit; see [`RelayConfig`].
//! - A line of more than 1024 bytes is answered, and so is HTTP.
//! - Of several waiting connections of one side, the newest gets the partner.

mod client;
mod config;
mod line;
mod net;
mod pump;
mod rendezvous;

pub use self::{
    config::RelayConfig,
    line::{FirstLine, LONGEST_LINE, Request, Side, Token},
    net::{Relay, RelayHandle, RelayStats},
    rendezvous::{ClientId, Decision, Rendezvous},
};
