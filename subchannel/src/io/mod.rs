//! Asynchronous handles on a [`Mux`]: the application's side and the driver's.
//!
//! One `Mutex` guards the mux and the wakers. It is held for a copy of at most a record or a batch of
//! bookkeeping, never across an `await`, a system call or encryption. Wakers are collected under it and
//! used after it, so a waker may do anything, dropping a [`Subchannel`] included.
//!
//! ```text
//!  application tasks                              the driver's task
//!  Connector  ─ connect ─┐                    ┌─ handle ◄─ records of the link
//!  Listener   ─ accept  ─┤   Mutex<Mux +      ├─ poll_transmit ─► records for the link
//!  Subchannel ─ read    ─┼──  wakers>       ──┼─ poll_read_allowed
//!             ─ write   ─┘                    └─ poll_drained, poll_ended
//! ```
//!
//! A link in memory, to show who calls what:
//!
//! ```
//! use std::{future::poll_fn, task::Poll};
//!
//! use dilated_subchannel::{Multiplexer, MuxConfig, Parity};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let leader = Multiplexer::new(MuxConfig::default());
//! let follower = Multiplexer::new(MuxConfig::default());
//! let mut listener = follower.listen("greeting")?;
//!
//! // The driver: roles and a link are there; records go across until nobody has any.
//! leader.start(Parity::Odd);
//! follower.start(Parity::Even);
//! leader.link_up();
//! follower.link_up();
//! let ends = [(leader.clone(), follower.clone()), (follower.clone(), leader.clone())];
//! let mut batch = Vec::new();
//! let driver = poll_fn(move |cx| {
//!     for (from, to) in ends.iter().cycle().take(4) {
//!         while to.poll_read_allowed(cx).is_ready()
//!             && from.poll_transmit(cx, 256 << 10, &mut batch).is_ready()
//!         {
//!             to.handle(batch.drain(..)).expect("our own records");
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
mod half;
mod listen;
mod subchannel;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

pub use self::{
    connect::Connector,
    half::{ReadHalf, WriteHalf},
    listen::{AcceptError, Listener},
    subchannel::Subchannel,
};
pub use crate::mux::OpenError as ConnectError;
use crate::{
    mux::{EndReason, Event, ListenError, Mux, MuxConfig, NameError, StreamKey, Usage},
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
            retired: Vec::new(),
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

    /// How much of the limits is in use.
    pub fn usage(&self) -> Usage {
        self.shared.with(|inner| inner.mux.usage())
    }

    /// Why the wormhole is over, if it is.
    pub fn ended(&self) -> Option<EndReason> {
        self.shared.with(|inner| inner.mux.ended().cloned())
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
    retired: Vec<Waker>,
}

#[derive(Debug, Default)]
struct StreamWakers {
    read: Option<Waker>,
    write: Option<Waker>,
    acknowledged: Option<Waker>,
}

#[derive(Debug, Default)]
struct DriverWakers {
    transmit: Option<Waker>,
    read_allowed: Option<Waker>,
    drained: Option<Waker>,
    ended: Option<Waker>,
}

impl Shared {
    /// Runs `f` under the lock, then, after it, wakes whoever can go on.
    fn with<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        let mut wake = Vec::new();
        let (result, retired) = {
            let mut inner = self.lock();
            let result = f(&mut inner);
            inner.collect(&mut wake);
            (result, std::mem::take(&mut inner.retired))
        };
        wake.into_iter().for_each(Waker::wake);
        drop(retired);
        result
    }

    /// A panic under the lock leaves no half-done state that later calls could not bear, and must not
    /// turn every drop of a handle into another panic.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Moves the wakers of all that has become possible to `wake`.
    fn collect(&mut self, wake: &mut Vec<Waker>) {
        while let Some(event) = self.mux.poll_event() {
            match event {
                Event::Readable(key) => wake.extend(self.stream(key).read.take()),
                Event::Writable(key) => wake.extend(self.stream(key).write.take()),
                Event::Acknowledged(key) => wake.extend(self.stream(key).acknowledged.take()),
                Event::Incoming(name) => wake.extend(self.listeners.remove(&name)),
                Event::Openable => wake.extend(std::mem::take(&mut self.openers).into_values()),
                Event::Ended => wake.extend(self.driver.ended.take()),
            }
        }
        let (ended, driver) = (self.mux.ended().is_some(), &mut self.driver);
        if self.mux.wants_transmit() {
            wake.extend(driver.transmit.take());
        }
        if ended || !self.mux.read_paused() {
            wake.extend(driver.read_allowed.take());
        }
        if ended || self.mux.is_drained() {
            wake.extend(driver.drained.take());
        }
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
}
