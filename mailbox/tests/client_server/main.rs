//! Our client through our server.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test that fails should panic")]

mod addresses;
mod embedded;
mod gate;
mod restarts;
