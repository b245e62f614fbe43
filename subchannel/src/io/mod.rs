//! Asynchronous handles on a [`Mux`]: the application's side and the driver's.
//!
//! One `Mutex` guards the mux and the wakers. It is held for a copy of at most a record or a batch of
//! bookkeeping, never across an `await`, a system call or encryption. Wakers are collected under it and
//! used after it, so a waker may do anything, dropping a [`Subchannel`] included.
//!
//! ```text
//!  application tasks                              the driver's task
//!  Connector  ─ connect ─┐                    ┌─ handle, handle_frames ◄─ records of the link
//!  Listener   ─ accept  ─┤   Mutex<Mux +      ├─ poll_transmit ─► records for the link
//!  Subchannel ─ read    ─┼──  wakers>       ──┼─ poll_read_allowed
//!             ─ write   ─┘                    └─ poll_drained, poll_ended, next_timeout
//! ```
//!
//! A link in memory, to show who calls what:
//!
//! ```
//! use std::{future::poll_fn, task::Poll, time::Instant};
//!
//! use dilated_subchannel::{Batch, Dialect, Multiplexer, MuxConfig, Parity, frame::Frames};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let leader = Multiplexer::new(MuxConfig::default());
//! let follower = Multiplexer::new(MuxConfig::default());
//! let mut listener = follower.listen("greeting")?;
//!
//! // The driver: roles, dialect and a link are there; records go across until nobody has any.
//! let dialect = Dialect::Dilated1 { peer: MuxConfig::default().params() };
//! leader.start(Parity::Odd, dialect);
//! follower.start(Parity::Even, dialect);
//! leader.link_up();
//! follower.link_up();
//! let ends = [(leader.clone(), follower.clone()), (follower.clone(), leader.clone())];
//! let mut batch = Batch::new();
//! let driver = poll_fn(move |cx| {
//!     for (from, to) in ends.iter().cycle().take(4) {
//!         while from.poll_transmit(cx, Instant::now(), 256 << 10, &mut batch).is_ready() {
//!             let mut frames = Vec::new();
//!             for record in batch.records() {
//!                 let plaintext = record.collect::<Vec<_>>().concat();
//!                 frames.extend(Frames::new(plaintext.into()).map(|frame| frame.expect("our own")));
//!             }
//!             to.handle_frames(&mut frames, Instant::now()).expect("our own frames");
//!             batch.clear();
//!         }
//!     }
//!     Poll::<()>::Pending
//! });
//!
//! // The application.
//! let application = async {
//!     let mut mine = leader.connector("greeting")?.connect().await?;
//!     mine.write_all(b"hello").await?;
//!     mine.shutdown().await?;
//!     let mut text = String::new();
//!     listener.accept().await?.read_to_string(&mut text).await?;
//!     Ok::<_, Box<dyn std::error::Error>>(text)
//! };
//! tokio::select! {
//!     text = application => assert_eq!(text?, "hello"),
//!     () = driver => unreachable!("it never ends"),
//! }
//! # Ok(())
//! # }
//! ```

mod connect;
mod driver;
mod listen;
mod read;
mod subchannel;
mod wakers;
mod write;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use self::{
    connect::Place,
    wakers::{DriverWakers, StreamWakers, Wakes},
};
pub use self::{
    connect::{Connector, OpenOptions},
    listen::{AcceptError, Listener},
    read::ReadHalf,
    subchannel::Subchannel,
    write::WriteHalf,
};
pub use crate::mux::OpenError as ConnectError;
use crate::{
    id::SubchannelId,
    mux::{Dialect, EndReason, Event, ListenError, Mux, MuxConfig, NameError, StreamKey, Usage},
    record::Name,
};

/// The subchannels of one wormhole, shared by the application and the driver. Cheap to clone.
///
/// Dropping all clones does not end anything; the driver does, with [`fail`](Multiplexer::fail).
#[derive(Clone, Debug)]
pub struct Multiplexer {
    shared: Arc<Shared>,
}

impl Multiplexer {
    /// Subchannels without a link yet.
    pub fn new(config: MuxConfig) -> Self {
        let inner = Inner {
            mux: Mux::new(config),
            streams: Vec::new(),
            openers: BTreeMap::new(),
            next_ticket: 0,
            listeners: BTreeMap::new(),
            driver: DriverWakers::default(),
            retired: Wakes::default(),
        };
        Multiplexer { shared: Arc::new(Shared { inner: Mutex::new(inner) }) }
    }

    /// Opens subchannels of one subprotocol; may be called before the wormhole has a link.
    ///
    /// # Errors
    ///
    /// [`NameError`] for a name that is empty or above [`MuxConfig::max_name`].
    pub fn connector(&self, subprotocol: &str) -> Result<Connector, NameError> {
        let name = self.shared.with(|inner| inner.mux.check_name(subprotocol))?;
        Ok(Connector::new(self.shared.clone(), name))
    }

    /// Takes the subchannels that the peer opens for one subprotocol, until the listener is dropped.
    ///
    /// # Errors
    ///
    /// [`ListenError`] for a bad name, one that has a listener already, and after the end.
    pub fn listen(&self, subprotocol: &str) -> Result<Listener, ListenError> {
        let name = self.shared.with(|inner| {
            let name = inner.mux.check_name(subprotocol)?;
            inner.mux.listen(&name).map(|()| name)
        })?;
        Ok(Listener::new(self.shared.clone(), name))
    }

    /// Lets subchannels of this subprotocol wait (bounded by [`MuxConfig::pending_opens`]) until something
    /// listens. The peer's subchannels of any other name that has no listener are closed at once.
    ///
    /// What they send counts against the receive limits: expect only what will be listened for, because
    /// unread data above them stops the link for all.
    ///
    /// # Errors
    ///
    /// [`NameError`] for a name that is empty or above [`MuxConfig::max_name`].
    pub fn expect(&self, subprotocol: &str) -> Result<(), NameError> {
        self.shared.with(|inner| {
            let name = inner.mux.check_name(subprotocol)?;
            inner.mux.expect(&name);
            Ok(())
        })
    }

    /// The control channel, subchannel 0 of `dilated-1`, which is there from the beginning. Waits until the
    /// dialect is known. `None` if it was taken before, and in `ged`, which has none.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] when the wormhole is over.
    ///
    /// # Cancel safety
    ///
    /// Safe: a dropped future has taken nothing.
    pub async fn control(&self) -> Result<Option<Subchannel>, ConnectError> {
        let taken = Place::new(&self.shared).wait(Mux::control).await?;
        Ok(taken.map(|key| Subchannel::new(self.shared.clone(), key)))
    }

    /// The limits that it was made with.
    pub fn config(&self) -> MuxConfig {
        self.shared.lock().mux.config().clone()
    }

    /// What is spoken with the peer, once that is decided.
    pub fn dialect(&self) -> Option<Dialect> {
        self.shared.lock().mux.dialect()
    }

    /// How much of the limits is in use.
    pub fn usage(&self) -> Usage {
        self.shared.lock().mux.usage()
    }

    /// Why the wormhole is over, if it is.
    pub fn ended(&self) -> Option<EndReason> {
        self.shared.lock().mux.ended().cloned()
    }
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    mux: Mux,
    /// By [`StreamKey::slot`].
    streams: Vec<StreamWakers>,
    /// Those who wait to open, by ticket, in their order.
    openers: BTreeMap<u64, Waker>,
    next_ticket: u64,
    /// Those who wait to accept.
    listeners: BTreeMap<Name, Waker>,
    driver: DriverWakers,
    /// Wakers that were replaced. Dropping one may drop a task and with it a handle of ours, so it is
    /// not done under the lock.
    retired: Wakes,
}

impl Shared {
    /// Runs `f` under the lock, then, after it, wakes whoever can go on.
    fn with<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        let mut wakes = Wakes::default();
        let (result, retired) = {
            let mut inner = self.lock();
            let result = f(&mut inner);
            inner.collect(&mut wakes);
            (result, std::mem::take(&mut inner.retired))
        };
        wakes.wake();
        drop(retired);
        result
    }

    /// What the mux knows of a subchannel whose handle lives.
    fn describe(&self, key: StreamKey) -> (SubchannelId, Name) {
        self.lock().mux.describe(key).expect("a subchannel lives as long as its handles")
    }

    /// A panic under the lock leaves no half-done state that later calls could not bear, and must not
    /// turn every drop of a handle into another panic.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Moves the wakers of all that has become possible to `wakes`.
    fn collect(&mut self, wakes: &mut Wakes) {
        while let Some(event) = self.mux.poll_event() {
            match event {
                Event::Readable(key) => wakes.add(self.stream(key).read.take()),
                Event::Writable(key) => wakes.add(self.stream(key).writing().and_then(|w| w.write.take())),
                Event::Acknowledged(key) => {
                    wakes.add(self.stream(key).writing().and_then(|w| w.acknowledged.take()));
                }
                Event::Incoming(name) => wakes.add(self.listeners.remove(&name)),
                Event::Openable => {
                    std::mem::take(&mut self.openers).into_values().for_each(|waker| wakes.add(Some(waker)));
                }
                Event::Ended => wakes.add(self.driver.ended.take()),
            }
        }
        self.driver.collect(&self.mux, wakes);
    }

    fn stream(&mut self, key: StreamKey) -> &mut StreamWakers {
        let slot = key.slot();
        if slot >= self.streams.len() {
            self.streams.resize_with(slot + 1, StreamWakers::default);
        }
        &mut self.streams[slot]
    }

    /// Keeps the waker of `cx` in the place that `place` names.
    fn park(&mut self, cx: &Context<'_>, place: impl FnOnce(&mut Inner) -> &mut Option<Waker>) {
        let waker = place(self);
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            let replaced = waker.replace(cx.waker().clone());
            self.retired.extend(replaced);
        }
    }

    /// Polls `f`, and keeps the waker of `cx` where `place` says if that is pending.
    fn poll<T>(
        &mut self,
        cx: &Context<'_>,
        f: impl FnOnce(&mut Mux) -> Poll<T>,
        place: impl FnOnce(&mut Inner) -> &mut Option<Waker>,
    ) -> Poll<T> {
        let polled = f(&mut self.mux);
        if polled.is_pending() {
            self.park(cx, place);
        }
        polled
    }
}
