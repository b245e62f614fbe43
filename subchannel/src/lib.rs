//! What travels on the link of a dilated wormhole: the records of the dialect `ged`, the durable outbox,
//! and any number of subchannels over it that outlive every connection underneath.
//!
//! ```text
//!   application                                                         the peer
//!  ─────────────        ┌──────────────────── Mux ───────────────────┐
//!  Connector            │ streams ─► ready queue ─► outbox ── cursor ─┼─► OPEN DATA CLOSE
//!  Listener       ◄───► │  (chunks)  (round robin)  (until ACK)       │   PONG ACK
//!  Subchannel           │ streams ◄─ receive accounting ◄─ sequence ◄─┼── OPEN DATA CLOSE
//!  (io, "tokio")        └────────────────────────────────────────────┘   PING ACK
//! ```
//!
//! * [`record`]: the records and their encoding. Taken apart without copies, sealed in two parts.
//! * [`id`]: numbers on the wire.
//! * [`mux`]: the state machine of one side. Sans-IO: no socket, no clock, no randomness; compiles with
//!   `--no-default-features`.
//! * `io` (feature `tokio`): the lock and the wakers around it: `Multiplexer`, `Connector`, `Listener`
//!   and `Subchannel`, which is `AsyncRead + AsyncWrite`.
//!
//! # What is promised
//!
//! Every byte written arrives once and in order, however often the link breaks, as long as both programs
//! live. Memory has limits, all in [`mux::MuxConfig`]: writers wait when the outbox is full, and the link
//! is not read while too much is unread. Nothing is dropped to stay within them.
//!
//! # What `ged` cannot promise
//!
//! The dialect has no flow control per subchannel. One that is not read stops the link for all once its
//! limit is reached: read what you accept, or drop it. An application that writes what it reads does not
//! dead-lock with a peer of ours, since unread data above the limit is not acknowledged and so fills the
//! peer's outbox; a Python peer, which has no such limit, may push up to
//! [`receive_total`](mux::MuxConfig::receive_total) first. Two sides that only write and never read come to
//! a stop, as with TCP.
//!
//! # The run loop
//!
//! A driver owns the links; it calls [`Mux::link_up`](mux::Mux::link_up) and
//! [`link_down`](mux::Mux::link_down), hands over what came and transmits what there is:
//!
//! ```
//! use std::task::Poll;
//!
//! use dilated_subchannel::{
//!     id::Parity,
//!     mux::{Mux, MuxConfig},
//!     record::Record,
//! };
//!
//! /// Moves what one side has to say to the other: a link, encryption left out.
//! fn deliver(from: &mut Mux, to: &mut Mux) -> Result<(), Box<dyn std::error::Error>> {
//!     while let Some(record) = from.poll_transmit() {
//!         let plaintext = record.to_vec(); // a real link seals header() and body()
//!         to.handle_record(Record::decode(plaintext.into())?)?;
//!     }
//!     Ok(())
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (mut leader, mut follower) = (Mux::new(MuxConfig::default()), Mux::new(MuxConfig::default()));
//! leader.start(Parity::Odd);
//! follower.start(Parity::Even);
//!
//! let echo = follower.check_name("echo")?;
//! follower.listen(&echo)?;
//!
//! // The application writes before there is any link.
//! let Poll::Ready(Ok(mine)) = leader.open(&echo) else { panic!("started, and nothing is full") };
//! assert_eq!(leader.write(mine, b"hello"), Poll::Ready(Ok(5)));
//!
//! leader.link_up();
//! follower.link_up();
//! deliver(&mut leader, &mut follower)?;
//! deliver(&mut follower, &mut leader)?;
//!
//! let theirs = follower.accept(&echo).expect("OPEN has arrived");
//! let mut buf = [0; 16];
//! assert_eq!(follower.read(theirs, &mut buf), Poll::Ready(Ok(5)));
//! assert!(leader.is_drained(), "the ACK has arrived");
//! # Ok(())
//! # }
//! ```

pub mod id;
#[cfg(feature = "tokio")]
pub mod io;
pub mod mux;
pub mod record;

#[cfg(feature = "tokio")]
pub use self::io::{Connector, Listener, Multiplexer, ReadHalf, Subchannel, WriteHalf};
pub use self::{
    id::{Parity, SubchannelId},
    mux::{EndKind, EndReason, MuxConfig, Usage},
    record::{PingId, Record},
};
