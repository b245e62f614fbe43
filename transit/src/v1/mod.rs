//! Transit v1, the connection of the classic file transfer: as machines without sockets and clock.
//!
//! ```text
//!            relay only         both at once                        the Sender's choice
//! dialler  please relay.. ->
//!          <- ok             transit sender <hex> ready ->          go ->          (or nevermind ->)
//!                            <- transit receiver <hex> ready
//! record   BE4 length ‖ nonce of 24 bytes ‖ NaCl secretbox; the nonce is a big-endian counter from 0, one per direction
//! ```
//!
//! Unlike a link of a dilation it has no acknowledgements and cannot be resumed (specification "Transit Protocol").

mod handshake;
mod keys;
mod record;

pub use handshake::{TransitError, TransitHandshake, TransitStage};
pub use keys::{Part, TransitKey};
pub use record::{MAX_RECORD, RECORD_OVERHEAD, RecordError, RecordOpener, RecordSealer};
