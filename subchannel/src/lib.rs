//! What travels on the links of a dilated wormhole, and any number of subchannels over them that outlive every
//! connection underneath.
//!
//! ```text
//!   application                                                         the peer
//!  ─────────────        ┌──────────────────── Mux ───────────────────┐
//!  Connector            │   before the roles are known: names only   │
//!  Listener       ◄───► ├──────────── ged ─────┬───── dilated-1 ─────┤ ◄──► records of a link
//!  Subchannel           │ one sequence for all │ offsets and credit  │
//!  (io, "tokio")        │ outbox until ACK     │ for each subchannel │
//!                       └──────────────────────┴─────────────────────┘
//! ```
//!
//! * [`record`]: the records of the dialect `ged`; [`frame`]: the frames of `dilated-1`. Taken apart without copies.
//! * [`id`]: numbers on the wire.
//! * [`mux`]: the state machine of one side, with an engine for each dialect. Sans-IO: no socket, no clock, no
//!   randomness; compiles with `--no-default-features`.
//! * `io` (feature `tokio`): the lock and the wakers around it: `Multiplexer`, `Connector`, `Listener`
//!   and `Subchannel`, which is `AsyncRead + AsyncWrite`.
//!
//! # What is promised
//!
//! Every byte written arrives once and in order, however often the link breaks, as long as both programs
//! live and neither application gives the subchannel up. Messages keep their boundaries. Memory has limits, all in
//! [`mux::MuxConfig`]: writers wait when the outbox is full, and nothing is dropped to stay within them, datagrams
//! excepted.
//!
//! # What only `dilated-1` can promise
//!
//! Each subchannel has credit of its own, so a reader that stands still stops its own writer and nobody else. Opening is
//! answered, a direction can be given up with a code by either end of it, what matters more goes first, and there are
//! datagrams.
//!
//! `ged` has none of this. A subchannel that is not read stops the link for all once its
//! limit is reached: read what you accept, or drop it. An application that writes what it reads does not
//! dead-lock with a peer of ours, since unread data above the limit is not acknowledged and so fills the
//! peer's outbox; a Python peer, which has no such limit, may push up to
//! [`receive_total`](mux::MuxConfig::receive_total) first. Giving up is no more than ending: the verbs say what becomes of
//! it. Opening says nothing, and datagrams are an error.
//!
//! In both, two sides that only write and never read come to a stop, as with TCP.
//!
//! # The run loop
//!
//! A driver owns the links. It says what happened to them, hands over what came and transmits what there is:
//!
//! ```
//! use std::{
//!     task::Poll,
//!     time::{Duration, Instant},
//! };
//!
//! use dilated_subchannel::{
//!     Batch, Dialect, MuxConfig, Parity,
//!     frame::Frames,
//!     mux::{Mux, dilated1},
//! };
//!
//! type Error = Box<dyn std::error::Error>;
//!
//! /// The engine for its driver.
//! fn engine(mux: &mut Mux) -> &mut dilated1::Mux {
//!     mux.as_dilated1_mut().expect("started so")
//! }
//!
//! /// Moves what one side has to say to the other: a link, encryption left out.
//! fn deliver(from: &mut Mux, to: &mut Mux, now: Instant) -> Result<(), Error> {
//!     let mut batch = Batch::default();
//!     while from.poll_transmit(now, 256 << 10, &mut batch) {
//!         for record in batch.records() {
//!             // A real link seals the parts of the record as they are.
//!             let plaintext = record.collect::<Vec<_>>().concat();
//!             for frame in Frames::new(plaintext.into()) {
//!                 engine(to).handle_frame(frame?, now)?;
//!             }
//!         }
//!         batch.clear();
//!     }
//!     Ok(())
//! }
//!
//! # fn main() -> Result<(), Error> {
//! let config = MuxConfig::default();
//! let (mut leader, mut follower) = (Mux::new(config.clone()), Mux::new(config.clone()));
//! let echo = follower.check_name("echo")?;
//! follower.listen(&echo)?;
//!
//! // The two sides have met; each knows what the other said of itself.
//! let dialect = Dialect::Dilated1 { peer: config.params() };
//! leader.start(Parity::Odd, dialect);
//! follower.start(Parity::Even, dialect);
//!
//! // The application writes before there is any link.
//! let Poll::Ready(Ok(mine)) = leader.open(&echo) else { panic!("started, and nothing is full") };
//! assert_eq!(leader.write(mine, b"hello"), Poll::Ready(Ok(5)));
//!
//! // The first link. On each that follows, both sides exchange `resume()` instead.
//! leader.link_up();
//! follower.link_up();
//! let now = Instant::now();
//! deliver(&mut leader, &mut follower, now)?;
//!
//! let theirs = follower.accept(&echo).expect("OPEN has arrived");
//! let mut buf = [0; 16];
//! assert_eq!(follower.read(theirs, &mut buf), Poll::Ready(Ok(5)));
//! deliver(&mut follower, &mut leader, now + Duration::from_millis(25))?;
//! assert!(leader.is_drained(), "the peer has acknowledged it");
//! # Ok(())
//! # }
//! ```

pub mod frame;
pub mod id;
#[cfg(feature = "tokio")]
pub mod io;
pub mod mux;
pub mod record;

#[cfg(feature = "tokio")]
pub use self::io::{Connector, Listener, Multiplexer, OpenOptions, ReadHalf, Subchannel, WriteHalf};
pub use self::{
    frame::Frame,
    id::{Parity, SubchannelId},
    mux::{Batch, Dialect, EndKind, EndReason, MuxConfig, Usage},
    record::{PingId, Record},
};
