//! How bytes get from one side of a dilated wormhole to the other: hints, dialling, relays, and encrypted links.
//!
//! ```text
//!   peer's hints ──► Race ──► dial ──┐
//!                                    ├──► LinkHandshake ──► Sealer, Opener ──► Link
//!                  listener ─────────┘    relay, prologue,   frames of
//!                                         Noise, KCM         Noise messages
//! ```
//!
//! The machines need neither sockets nor clocks: [`LinkHandshake`] takes a connection from its first byte to its
//! keys, [`Sealer`] and [`Opener`] turn messages into bytes and back, `Race` decides what to dial when. With the
//! feature `tokio`, `net::Connector` drives them over TCP: start one for each generation, tell the peer its hints, give
//! it the peer's, and wait for the link that it selects. With the feature `relay` there is the relay server, too.
//!
//! ```
//! use bytes::BytesMut;
//! use dilated_transit::{DilationKey, Ephemeral, HandshakeLimits, KCM, LinkHandshake, Role};
//!
//! let start = |role| {
//!     let key = DilationKey::new([7; 32]);
//!     LinkHandshake::new(role, key, Ephemeral::generate(&mut rand::rng()), None, HandshakeLimits::default())
//! };
//! let (mut leader, mut follower) = (start(Role::Leader), start(Role::Follower));
//! // What one sends, the other gets; the Follower ends with its key confirmation.
//! for _ in 0..2 {
//!     if let Some(bytes) = leader.poll_output() {
//!         follower.handle_input(&bytes)?;
//!     }
//!     if let Some(bytes) = follower.poll_output() {
//!         leader.handle_input(&bytes)?;
//!     }
//! }
//! // The Leader chooses this connection, and says so with its own.
//! let (mut sealer, _) = leader.into_pipe().ok_or("not confirmed")?;
//! let mut wire = BytesMut::new();
//! sealer.seal(&[KCM], &mut wire)?;
//! sealer.seal(&[b"hello, ", b"Follower"], &mut wire)?;
//! follower.handle_input(&wire)?;
//! let (_, mut opener) = follower.into_pipe().ok_or("not chosen")?;
//! assert_eq!(opener.next_message()?.as_deref(), Some(&b"hello, Follower"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Both dialects are spoken: `ged`, as the Python implementation has it, and `dilated-1` (`docs/protocol.md`), whose
//! handshakes agree on a generation ([`LinkHandshake::dilated1`]).

mod better;
mod contact;
mod dialect;
mod handshake;
mod hint;
#[cfg(feature = "tokio")]
pub mod net;
mod noise;
mod path;
mod pipe;
mod prologue;
pub mod race;
#[cfg(feature = "relay")]
pub mod relay;
mod role;
pub mod v1;

pub use better::Better;
pub use contact::Contact;
pub use dialect::{LinkDialect, Offer, has_aes};
pub use handshake::{HandshakeError, HandshakeLimits, KCM, LinkHandshake, Stage};
pub use hint::{
    Ability, Hint, HintLimits, HintParseError, RelayHint, TcpHint, encode_abilities, encode_hints,
    parse_abilities, parse_hints,
};
pub use noise::Ephemeral;
pub use path::{Path, PathKind};
pub use pipe::{
    DEFAULT_MAX_FRAME, MAX_NOISE_MESSAGE, MAX_NOISE_PLAINTEXT, OpenError, Opener, SealError, Sealer,
    frame_length,
};
pub use prologue::{Answer, PrologueError, RelayError, RelayRequest, SideError};
pub use role::{DilationKey, Role};
