//! How two sides of a wormhole meet: codes, SPAKE2, and the client of the mailbox server.
//!
//! Two people share a short code, such as `4-purple-sausages`. Their programs find the same *mailbox* on a
//! server by the code's number, agree on a strong key with SPAKE2 (the words are the password, and a wrong guess
//! shows), and exchange encrypted messages there. That is enough for small messages, and to find each other
//! for a direct link.
//!
//! ```text
//!    Mailbox ── verbs ──┐                                     ┌── verbs ── Mailbox
//!                    Client ═ ws ═► mailbox server ◄═ ws ═ Client
//!    events ◄── driver ─┘         claim 4, open, add          └─ driver ──► events
//!
//!      pake     ───────────────►      ◄───────────────  SPAKE2, in the clear
//!      version  ───────────────►      ◄───────────────  encrypted from here on: proves the key
//!      0, 1, …  ───────────────►      ◄───────────────  the application's messages
//!      dilate-0 …  ────────────►      ◄───────────────  only between peers who can dilate
//! ```
//!
//! - [`client`]: the client as a plain state machine, without sockets, clock or randomness of its own.
//! - [`net`] (feature `tokio`): its driver over websockets, with and without TLS.
//! - `server` (feature `server`): the mailbox server.
//! - [`Code`], [`wordlist`], [`pake`], [`keys`], [`message`]: the parts, each usable alone.
//!
//! # Example
//!
//! ```no_run
//! # #[cfg(feature = "tokio")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use dilated_mailbox::client::{ClientConfig, Event};
//! use dilated_mailbox::net;
//!
//! let server = "ws://localhost:4000/v1".parse()?;
//! let (mailbox, mut driver) = net::client(vec![server], ClientConfig::new("example.org/hello"))?;
//! mailbox.allocate_code(2)?;
//! mailbox.send_message(b"hello".to_vec())?;
//! loop {
//!     match driver.next().await {
//!         Event::Code(code) => println!("the other side needs this code: {code}"),
//!         Event::Message(message) => {
//!             println!("they say {}", String::from_utf8_lossy(&message));
//!             mailbox.close();
//!         }
//!         Event::Closed(result) => return Ok(result?),
//!         _ => {}
//!     }
//! }
//! # }
//! ```

pub mod client;
pub mod code;
pub mod error;
pub mod keys;
pub mod message;
#[cfg(feature = "tokio")]
pub mod net;
pub mod pake;
#[cfg(feature = "server")]
pub mod server;
pub mod wordlist;

pub use code::{Code, KeyFormatError, Nameplate};
pub use error::{InputError, WormholeError};
pub use keys::Key;

#[cfg(test)]
mod tests {
    //! What the unit tests of several modules share.

    use std::convert::Infallible;
    use std::sync::OnceLock;

    use rand::{TryCryptoRng, TryRng};
    use serde_json::Value;

    /// The golden vectors, made with the Python packages.
    pub(crate) fn vectors() -> &'static Value {
        static VECTORS: OnceLock<Value> = OnceLock::new();
        VECTORS.get_or_init(|| {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors.json");
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        })
    }

    pub(crate) fn hex(bytes: &[u8]) -> String {
        data_encoding::HEXLOWER.encode(bytes)
    }

    pub(crate) fn unhex(value: &Value) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
    }

    /// Yields given bytes, and panics when they are used up.
    pub(crate) struct FixedRng(std::vec::IntoIter<u8>);

    impl FixedRng {
        pub(crate) fn new(bytes: Vec<u8>) -> Self {
            Self(bytes.into_iter())
        }
    }

    impl TryRng for FixedRng {
        type Error = Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Infallible> {
            let mut bytes = [0; 4];
            self.try_fill_bytes(&mut bytes)?;
            Ok(u32::from_le_bytes(bytes))
        }

        fn try_next_u64(&mut self) -> Result<u64, Infallible> {
            let mut bytes = [0; 8];
            self.try_fill_bytes(&mut bytes)?;
            Ok(u64::from_le_bytes(bytes))
        }

        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
            for byte in out {
                *byte = self.0.next().expect("enough fixed randomness");
            }
            Ok(())
        }
    }

    impl TryCryptoRng for FixedRng {}
}
