//! The direction from the peer.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::ReadBuf;

use super::Shared;
use crate::{
    mux::{Mux, ReadError, StreamKey},
    record::Name,
};

/// The direction from the peer. Dropping it discards what waits and what still comes, and in `dilated-1` tells
/// the peer so.
#[derive(Debug)]
pub struct ReadHalf {
    shared: Arc<Shared>,
    key: StreamKey,
}

impl ReadHalf {
    pub(super) fn new(shared: Arc<Shared>, key: StreamKey) -> Self {
        ReadHalf { shared, key }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn key(&self) -> StreamKey {
        self.key
    }

    /// The subprotocol.
    pub fn subprotocol(&self) -> Name {
        self.shared.describe(self.key).1
    }

    /// The peer's next message, or what earlier reads left of it; `None` when the peer has ended this direction.
    /// Of bytes that the peer wrote as a stream it gives what is there. No copy is made of a large one.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when the peer gave its direction up, or the wormhole ended before the peer's end; the latter
    /// never before received data.
    ///
    /// # Cancel safety
    ///
    /// Safe: no message is lost.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// [`recv`](ReadHalf::recv) as a poll function.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](ReadHalf::recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ReadError>> {
        self.poll(cx, Mux::recv)
    }

    /// Appends the messages that are there to `messages`, at least one and at most `limit` (1 if that is 0). Returns
    /// how many; 0 when the peer has ended this direction. Much cheaper for each than [`recv`](ReadHalf::recv)
    /// when they are small and many.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](ReadHalf::recv).
    ///
    /// # Cancel safety
    ///
    /// Safe: no message is lost.
    pub async fn recv_many(&mut self, messages: &mut Vec<Bytes>, limit: usize) -> Result<usize, ReadError> {
        poll_fn(|cx| self.poll_recv_many(cx, messages, limit)).await
    }

    /// [`recv_many`](ReadHalf::recv_many) as a poll function.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](ReadHalf::recv).
    pub fn poll_recv_many(
        &mut self,
        cx: &mut Context<'_>,
        messages: &mut Vec<Bytes>,
        limit: usize,
    ) -> Poll<Result<usize, ReadError>> {
        self.poll(cx, |mux, key| {
            let mut received = 0;
            while received < limit.max(1) {
                match mux.recv(key) {
                    Poll::Ready(Ok(Some(message))) => messages.push(message),
                    // What stops us will do so again, when there is nothing to give before it.
                    _ if received > 0 => break,
                    Poll::Ready(Ok(None)) => break,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
                received += 1;
            }
            Poll::Ready(Ok(received))
        })
    }

    /// The next bytes of the stream without copying them, `None` at its end. Unlike
    /// [`recv`](ReadHalf::recv) it never gives an empty chunk, and where chunks end means nothing.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](ReadHalf::recv).
    ///
    /// # Cancel safety
    ///
    /// Safe: no bytes are lost.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|cx| self.poll(cx, Mux::read_chunk)).await
    }

    /// The peer's next datagram; `None` when none will come, which in `ged` is always so. Those that nobody takes
    /// are dropped, the oldest first.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](ReadHalf::recv).
    ///
    /// # Cancel safety
    ///
    /// Safe: no datagram is lost.
    pub async fn recv_datagram(&mut self) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|cx| self.poll(cx, Mux::recv_datagram)).await
    }

    /// Asks the peer to write no more, and says why: its writer gets `code`, which the application chooses. What
    /// was not read is discarded, and reading is an error from now on. In `ged`, which has no such thing, the peer is
    /// not told.
    pub fn stop(&mut self, code: u32) {
        self.shared.with(|inner| inner.mux.stop(self.key, code));
    }

    pub(super) fn poll_read_slice(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<usize, ReadError>> {
        self.poll(cx, |mux, key| mux.read(key, buf))
    }

    fn poll<T>(&mut self, cx: &Context<'_>, f: impl FnOnce(&mut Mux, StreamKey) -> Poll<T>) -> Poll<T> {
        let key = self.key;
        self.shared.with(|inner| inner.poll(cx, |mux| f(mux, key), |inner| &mut inner.stream(key).read))
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        self.shared.with(|inner| {
            let waker = inner.stream(self.key).read.take();
            inner.retired.extend(waker);
            inner.mux.release_read(self.key);
        });
    }
}

/// Both `AsyncRead`s for `$type`, by way of the half that `$half` names.
macro_rules! impl_read {
    ($type:ty $(, $half:ident)?) => {
        impl tokio::io::AsyncRead for $type {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let polled = self$(.$half)?.poll_read_slice(cx, buf.initialize_unfilled());
                polled.map(|read| {
                    buf.advance(read?);
                    Ok(())
                })
            }
        }

        impl futures::io::AsyncRead for $type {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                self$(.$half)?.poll_read_slice(cx, buf).map_err(io::Error::from)
            }
        }
    };
}

impl_read!(ReadHalf);

pub(super) use impl_read;
