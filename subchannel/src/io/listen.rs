//! Accepting subchannels.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::Stream;

use super::{Shared, Subchannel};
use crate::{mux::EndReason, record::Name};

/// The wormhole is over, so no subchannel will come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot accept a subchannel: {0}")]
pub struct AcceptError(pub EndReason);

impl From<AcceptError> for io::Error {
    fn from(error: AcceptError) -> Self {
        io::Error::new(io::Error::from(error.0.clone()).kind(), error)
    }
}

/// Takes the subchannels that the peer opens for one subprotocol. Also a [`Stream`] of them, which ends
/// after its first error.
///
/// Dropping it closes those that wait, unless the name is expected, and lets another listen.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    name: Name,
    /// The stream has given its error.
    finished: bool,
}

impl Listener {
    pub(super) fn new(shared: Arc<Shared>, name: Name) -> Self {
        Listener { shared, name, finished: false }
    }

    /// The subprotocol.
    pub fn subprotocol(&self) -> &str {
        &self.name
    }

    /// The next subchannel of the peer.
    ///
    /// # Errors
    ///
    /// [`AcceptError`] when the wormhole is over and all that came before were accepted.
    ///
    /// # Cancel safety
    ///
    /// Safe: no subchannel is lost.
    pub async fn accept(&mut self) -> Result<Subchannel, AcceptError> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// [`accept`](Listener::accept) as a poll function.
    ///
    /// # Errors
    ///
    /// Those of [`accept`](Listener::accept).
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Subchannel, AcceptError>> {
        let accepted = self.shared.with(|inner| {
            if let Some(key) = inner.mux.accept(&self.name) {
                return Poll::Ready(Ok(key));
            }
            if let Some(reason) = inner.mux.ended() {
                return Poll::Ready(Err(AcceptError(reason.clone())));
            }
            let replaced = inner.listeners.insert(self.name.clone(), cx.waker().clone());
            inner.retired.extend(replaced);
            Poll::Pending
        });
        accepted.map_ok(|key| Subchannel::new(self.shared.clone(), key))
    }
}

impl Stream for Listener {
    type Item = Result<Subchannel, AcceptError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.finished {
            return Poll::Ready(None);
        }
        let accepted = self.poll_accept(cx);
        self.finished = matches!(accepted, Poll::Ready(Err(_)));
        accepted.map(Some)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.with(|inner| {
            inner.mux.unlisten(&self.name);
            let waker = inner.listeners.remove(&self.name);
            inner.retired.extend(waker);
        });
    }
}
