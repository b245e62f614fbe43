//! Opening subchannels.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use super::{ConnectError, Shared, Subchannel};
use crate::{mux::Mux, record::Name};

/// How a subchannel is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Which subchannels' data goes first: 0 before all others, 7 (and more) last, 3 if nothing is said. One that
    /// always has data keeps those of greater numbers waiting. The peer is told. `ged` ignores it.
    pub priority: u8,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions { priority: 3 }
    }
}

impl OpenOptions {
    /// The same with this priority.
    #[must_use]
    pub fn priority(mut self, level: u8) -> Self {
        self.priority = level;
        self
    }
}

/// Opens subchannels of one subprotocol. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector {
    shared: Arc<Shared>,
    name: Name,
}

impl Connector {
    pub(super) fn new(shared: Arc<Shared>, name: Name) -> Self {
        Connector { shared, name }
    }

    /// The subprotocol.
    pub fn subprotocol(&self) -> &str {
        &self.name
    }

    /// Opens a subchannel. Waits until the wormhole's roles are decided, and while its outbox is full or the peer
    /// takes no more subchannels, but not for a link and not for the peer's answer: write at once, and ask
    /// [`Subchannel::opened`] if the answer matters. In `ged` there is none; a peer that does not want the
    /// subchannel closes it.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] when there are too many subchannels or the wormhole is over.
    ///
    /// # Cancel safety
    ///
    /// Safe: a dropped future has opened nothing.
    pub async fn connect(&self) -> Result<Subchannel, ConnectError> {
        self.connect_with(OpenOptions::default()).await
    }

    /// [`connect`](Connector::connect) with more to say about it.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Connector::connect).
    ///
    /// # Cancel safety
    ///
    /// Safe: a dropped future has opened nothing.
    pub async fn connect_with(&self, options: OpenOptions) -> Result<Subchannel, ConnectError> {
        let open = |mux: &mut Mux| {
            mux.open(&self.name).map_ok(|key| {
                mux.set_priority(key, options.priority);
                key
            })
        };
        let key = Place::new(&self.shared).wait(open).await?;
        Ok(Subchannel::new(self.shared.clone(), key))
    }
}

/// A place in the queue of those who wait to open, given up when it is dropped.
pub(super) struct Place<'a> {
    shared: &'a Shared,
    ticket: Option<u64>,
}

impl<'a> Place<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Place { shared, ticket: None }
    }

    /// Waits until `f` is ready.
    pub(super) async fn wait<T>(mut self, mut f: impl FnMut(&mut Mux) -> Poll<T>) -> T {
        poll_fn(|cx| self.poll(cx, &mut f)).await
    }

    fn poll<T>(&mut self, cx: &Context<'_>, f: impl FnOnce(&mut Mux) -> Poll<T>) -> Poll<T> {
        self.shared.with(|inner| {
            let polled = f(&mut inner.mux);
            if polled.is_pending() {
                let ticket = *self.ticket.get_or_insert_with(|| {
                    inner.next_ticket += 1;
                    inner.next_ticket
                });
                let replaced = inner.openers.insert(ticket, cx.waker().clone());
                inner.retired.extend(replaced);
            }
            polled
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.shared.with(|inner| {
                let waker = inner.openers.remove(&ticket);
                inner.retired.extend(waker);
            });
        }
    }
}
