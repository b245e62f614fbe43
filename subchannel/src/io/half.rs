//! The two directions of a subchannel.

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
    mux::{ReadError, StreamKey, UnacknowledgedError, WriteError},
    record::Name,
};

/// The direction from the peer. Dropping it discards what waits and what still comes.
#[derive(Debug)]
pub struct ReadHalf {
    shared: Arc<Shared>,
    key: StreamKey,
    name: Name,
}

/// The direction to the peer. Dropping it sends CLOSE after what was written.
#[derive(Debug)]
pub struct WriteHalf {
    shared: Arc<Shared>,
    key: StreamKey,
    name: Name,
}

impl ReadHalf {
    pub(super) fn new(shared: Arc<Shared>, key: StreamKey, name: Name) -> Self {
        ReadHalf { shared, key, name }
    }

    /// The subprotocol.
    pub fn subprotocol(&self) -> &str {
        &self.name
    }

    /// The peer's next message, that is one DATA record, or what earlier reads left of it; `None` when
    /// the peer has closed this direction. No copy is made of a large one.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when the wormhole ended before the peer's CLOSE; never before received data.
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
        self.poll(cx, |inner, key| inner.mux.recv(key))
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
        poll_fn(|cx| self.poll(cx, |inner, key| inner.mux.read_chunk(key))).await
    }

    pub(super) fn poll_read_slice(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<usize, ReadError>> {
        self.poll(cx, |inner, key| inner.mux.read(key, buf))
    }

    fn poll<T>(
        &mut self,
        cx: &Context<'_>,
        f: impl FnOnce(&mut super::Inner, StreamKey) -> Poll<T>,
    ) -> Poll<T> {
        self.shared.with(|inner| {
            let polled = f(inner, self.key);
            if polled.is_pending() {
                inner.park(cx, |inner| &mut inner.stream(self.key).read);
            }
            polled
        })
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

impl WriteHalf {
    pub(super) fn new(shared: Arc<Shared>, key: StreamKey, name: Name) -> Self {
        WriteHalf { shared, key, name }
    }

    /// The subprotocol.
    pub fn subprotocol(&self) -> &str {
        &self.name
    }

    /// Sends `message` as exactly one DATA record: the peer receives it as one message. Waits while the
    /// outbox is full, not for a link.
    ///
    /// # Errors
    ///
    /// [`WriteError`] after a shutdown, for a message above
    /// [`max_data`](crate::mux::MuxConfig::max_data), and when the wormhole is over.
    ///
    /// # Cancel safety
    ///
    /// Safe: a dropped future has sent nothing.
    pub async fn send(&mut self, message: Bytes) -> Result<(), WriteError> {
        poll_fn(|cx| self.poll_send(cx, &message)).await
    }

    /// [`send`](WriteHalf::send) as a poll function; `message` is taken when it returns `Ready(Ok)`.
    ///
    /// # Errors
    ///
    /// Those of [`send`](WriteHalf::send).
    pub fn poll_send(&mut self, cx: &mut Context<'_>, message: &Bytes) -> Poll<Result<(), WriteError>> {
        self.poll(cx, |inner, key| inner.mux.send(key, message))
    }

    /// Writes all of `data` to the stream without copying it; where records end is not specified.
    ///
    /// # Errors
    ///
    /// [`WriteError`] after a shutdown and when the wormhole is over.
    ///
    /// # Cancel safety
    ///
    /// Not safe: a part may have been written. Use [`write_chunk`](WriteHalf::write_chunk) to know which.
    pub async fn write_bytes(&mut self, mut data: Bytes) -> Result<(), WriteError> {
        while !data.is_empty() {
            self.write_chunk(&mut data).await?;
        }
        Ok(())
    }

    /// Writes what there is room for from the front of `data`, at least one byte, and removes it from
    /// `data`. Returns how many.
    ///
    /// # Errors
    ///
    /// [`WriteError`] after a shutdown and when the wormhole is over.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was written is no longer in `data`.
    pub async fn write_chunk(&mut self, data: &mut Bytes) -> Result<usize, WriteError> {
        poll_fn(|cx| self.poll(cx, |inner, key| inner.mux.write_bytes(key, data))).await
    }

    /// Waits until the peer has acknowledged everything written so far, CLOSE included after a shutdown.
    /// The peer's wormhole has it then; whether its application has read it, only the application can say.
    ///
    /// # Errors
    ///
    /// [`UnacknowledgedError`] when the wormhole is over before.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn acknowledged(&mut self) -> Result<(), UnacknowledgedError> {
        let mark = self.shared.with(|inner| inner.mux.written(self.key));
        poll_fn(|cx| {
            self.shared.with(|inner| {
                let polled = inner.mux.poll_acknowledged(self.key, mark);
                if polled.is_pending() {
                    inner.park(cx, |inner| &mut inner.stream(self.key).acknowledged);
                }
                polled
            })
        })
        .await
    }

    /// Bytes written here that the peer has acknowledged: honest progress.
    pub fn bytes_acknowledged(&self) -> u64 {
        self.shared.with(|inner| inner.mux.bytes_acknowledged(self.key))
    }

    pub(super) fn poll_write_slice(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<Result<usize, WriteError>> {
        self.poll(cx, |inner, key| inner.mux.write(key, data))
    }

    /// There is no buffer before the outbox, so there is nothing to flush.
    pub(super) fn check_flush(&self) -> Result<(), WriteError> {
        match self.shared.with(|inner| inner.mux.ended().cloned()) {
            Some(reason) => Err(WriteError::Ended(reason)),
            None => Ok(()),
        }
    }

    pub(super) fn shut_down(&mut self) -> Result<(), WriteError> {
        self.shared.with(|inner| inner.mux.shutdown(self.key))
    }

    fn poll<T>(
        &mut self,
        cx: &Context<'_>,
        f: impl FnOnce(&mut super::Inner, StreamKey) -> Poll<T>,
    ) -> Poll<T> {
        self.shared.with(|inner| {
            let polled = f(inner, self.key);
            if polled.is_pending() {
                inner.park(cx, |inner| &mut inner.stream(self.key).write);
            }
            polled
        })
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        self.shared.with(|inner| {
            let wakers = inner.stream(self.key);
            let wakers = [wakers.write.take(), wakers.acknowledged.take()];
            inner.retired.extend(wakers.into_iter().flatten());
            inner.mux.release_write(self.key);
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

/// Both `AsyncWrite`s for `$type`, by way of the half that `$half` names.
macro_rules! impl_write {
    ($type:ty $(, $half:ident)?) => {
        impl tokio::io::AsyncWrite for $type {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                self$(.$half)?.poll_write_slice(cx, buf).map_err(io::Error::from)
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(self$(.$half)?.check_flush().map_err(io::Error::from))
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(self$(.$half)?.shut_down().map_err(io::Error::from))
            }
        }

        impl futures::io::AsyncWrite for $type {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                self$(.$half)?.poll_write_slice(cx, buf).map_err(io::Error::from)
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(self$(.$half)?.check_flush().map_err(io::Error::from))
            }

            fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(self$(.$half)?.shut_down().map_err(io::Error::from))
            }
        }
    };
}

impl_read!(ReadHalf);
impl_write!(WriteHalf);

pub(super) use {impl_read, impl_write};
