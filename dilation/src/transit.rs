//! Transit v1, the connection of the classic file transfer: for programs that move files to and from the `wormhole`
//! commands in Python, Go and Rust, or use Transit for something of their own.
//!
//! Unlike a dilated wormhole it is one connection, without resumption. Both sides derive a key from the wormhole's,
//! tell each other hints through its mailbox, and build the connection; the Sender chooses among those that succeed.
//!
//! ```no_run
//! use dilated::transit::{
//!     HintLimits, TransitConfig, TransitKey, TransitSender, encode_abilities, encode_hints, parse_hints,
//! };
//!
//! # async fn example(wormhole: dilated::Wormhole, peer: serde_json::Value) -> Result<(), Box<dyn std::error::Error>> {
//! // The purpose of the file transfer; the wormhole has agreed on its key by now.
//! let purpose = "lothar.com/wormhole/text-or-file-xfer/transit-key";
//! let key = wormhole.derive_key(purpose, 32)?.try_into().map_err(|_| "it has another length")?;
//! let sender = TransitSender::new(TransitConfig::new(TransitKey::new(key)))?;
//!
//! // What the other side has to hear, in a message of the wormhole, and what it says.
//! let transit = serde_json::json!({ "transit": {
//!     "abilities-v1": encode_abilities(&sender.abilities()),
//!     "hints-v1": encode_hints(&sender.hints()),
//! } });
//! let hints = parse_hints(&peer["transit"]["hints-v1"], &HintLimits::default());
//!
//! let mut pipe = sender.connect(&hints).await?;
//! println!("sending {}", pipe.path);
//! let data = vec![0; 1_000_000];
//! pipe.writer.copy_from(&mut &data[..], data.len() as u64, |_piece| { /* progress, hash */ }).await?;
//! let acknowledgement = pipe.reader.next_record().await?;
//! # let _ = (transit, acknowledgement);
//! pipe.close().await;
//! # Ok(())
//! # }
//! ```

pub use dilated_transit::{
    Ability, Hint, HintLimits, HintParseError, Path, PathKind, RelayHint, TcpHint, encode_abilities,
    encode_hints,
    net::v1::{
        ConnectError, Receiving, Sending, Side, TransferError, Transit, TransitConfig, TransitLimits,
        TransitPipe, TransitReader, TransitReceiver, TransitSender, TransitWriter,
    },
    net::{Proxy, ProxyParseError},
    parse_abilities, parse_hints,
    race::RaceConfig,
    v1::{MAX_RECORD, Part, RecordError, TransitKey},
};
