//! Opening subchannels.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use super::{ConnectError, Shared, Subchannel};
use crate::record::Name;

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

    /// Opens a subchannel. Waits until the wormhole's roles are decided, and while its outbox is full, but
    /// not for a link and not for the peer: there is no answer to OPEN. A peer that does not want the
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
        let mut wait = Wait { connector: self, ticket: None };
        poll_fn(|cx| wait.poll(cx)).await
    }
}

/// A place in the queue of openers, given up when the future is dropped.
struct Wait<'a> {
    connector: &'a Connector,
    ticket: Option<u64>,
}

impl Wait<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Subchannel, ConnectError>> {
        let Connector { shared, name } = self.connector;
        let opened = shared.with(|inner| {
            let opened = inner.mux.open(name)?;
            let Poll::Ready(key) = opened else {
                let ticket = *self.ticket.get_or_insert_with(|| {
                    inner.next_ticket += 1;
                    inner.next_ticket
                });
                let replaced = inner.openers.insert(ticket, cx.waker().clone());
                inner.retired.extend(replaced);
                return Poll::Pending;
            };
            let (id, name) = inner.mux.describe(key).expect("the subchannel was opened just now");
            Poll::Ready(Ok((key, id, name)))
        });
        opened.map_ok(|(key, id, name)| Subchannel::new(shared.clone(), key, id, name))
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.connector.shared.with(|inner| {
                let waker = inner.openers.remove(&ticket);
                inner.retired.extend(waker);
            });
        }
    }
}
