//! The direction to the peer.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::Shared;
use crate::{
    mux::{DatagramError, Mux, OpenRefused, StreamKey, UnacknowledgedError, WriteError},
    record::Name,
};

/// The direction to the peer. Dropping it ends the direction after what was written.
#[derive(Debug)]
pub struct WriteHalf {
    shared: Arc<Shared>,
    key: StreamKey,
}

impl WriteHalf {
    pub(super) fn new(shared: Arc<Shared>, key: StreamKey) -> Self {
        WriteHalf { shared, key }
    }

    /// The subprotocol.
    pub fn subprotocol(&self) -> Name {
        self.shared.describe(self.key).1
    }

    /// Waits for the peer's answer to our opening the subchannel. Writing need not wait for it. Ready at once for one
    /// that the peer has opened, and in `ged`, which has no answer.
    ///
    /// # Errors
    ///
    /// [`OpenRefused`] if the peer does not want it, with its code, or the wormhole is over before.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn opened(&mut self) -> Result<(), OpenRefused> {
        poll_fn(|cx| self.poll_acknowledgement(cx, |mux, key| mux.poll_opened(key))).await
    }

    /// Sends `message` as exactly one message. Waits while the outbox is full, not for a link.
    ///
    /// # Errors
    ///
    /// [`WriteError`] after a shutdown, for a message above
    /// [`max_data`](crate::mux::MuxConfig::max_data) or what the peer takes, when the peer has stopped us, and when
    /// the wormhole is over.
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
        self.poll(cx, |mux, key| mux.send(key, message))
    }

    /// Sends all of `messages`, in order, and removes each that is sent. Much cheaper for each than
    /// [`send`](WriteHalf::send) when they are small and many.
    ///
    /// # Errors
    ///
    /// Those of [`send`](WriteHalf::send), for the message that is then the first of `messages`.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was sent is no longer in `messages`.
    pub async fn send_many(&mut self, messages: &mut VecDeque<Bytes>) -> Result<(), WriteError> {
        poll_fn(|cx| self.poll_send_many(cx, messages)).await
    }

    /// [`send_many`](WriteHalf::send_many) as a poll function; `Ready(Ok)` when `messages` is empty.
    ///
    /// # Errors
    ///
    /// Those of [`send`](WriteHalf::send).
    pub fn poll_send_many(
        &mut self,
        cx: &mut Context<'_>,
        messages: &mut VecDeque<Bytes>,
    ) -> Poll<Result<(), WriteError>> {
        self.poll(cx, |mux, key| {
            while let Some(message) = messages.front() {
                match mux.send(key, message) {
                    Poll::Ready(Ok(())) => drop(messages.pop_front()),
                    stopped => return stopped,
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Writes all of `data` to the stream without copying it; where its pieces end is not specified.
    ///
    /// # Errors
    ///
    /// [`WriteError`] after a shutdown, when the peer has stopped us, and when the wormhole is over.
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
    /// [`WriteError`] after a shutdown, when the peer has stopped us, and when the wormhole is over.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was written is no longer in `data`.
    pub async fn write_chunk(&mut self, data: &mut Bytes) -> Result<usize, WriteError> {
        poll_fn(|cx| self.poll(cx, |mux, key| mux.write_bytes(key, data))).await
    }

    /// Waits until the peer has acknowledged everything written so far, our end included after a shutdown.
    /// The peer's wormhole has it then; whether its application has read it, only the application can say.
    ///
    /// # Errors
    ///
    /// [`UnacknowledgedError`] when that will not happen any more.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn acknowledged(&mut self) -> Result<(), UnacknowledgedError> {
        let mark = self.shared.lock().mux.written(self.key);
        poll_fn(|cx| self.poll_acknowledgement(cx, |mux, key| mux.poll_acknowledged(key, mark))).await
    }

    /// Bytes written here that the peer has acknowledged: honest progress.
    pub fn bytes_acknowledged(&self) -> u64 {
        self.shared.lock().mux.bytes_acknowledged(self.key)
    }

    /// Sends `data` at most once: a datagram may be lost with its link, arrives in no order with what is
    /// written, and waits for nothing.
    ///
    /// # Errors
    ///
    /// [`DatagramError`] for one above [`max_datagram_size`](WriteHalf::max_datagram_size), for a subchannel that
    /// does not take any, and always in `ged`.
    pub fn send_datagram(&mut self, data: Bytes) -> Result<(), DatagramError> {
        self.shared.with(|inner| inner.mux.send_datagram(self.key, data))
    }

    /// The longest datagram that can be sent, in bytes; 0 if none can, as in `ged` and before the dialect is known.
    pub fn max_datagram_size(&self) -> usize {
        self.shared.lock().mux.max_datagram()
    }

    /// Gives this direction up: the peer's reader gets `code`, which the application chooses, instead of what it has
    /// not read. In `ged`, which has no such thing, it is a shutdown.
    pub fn reset(&mut self, code: u32) {
        self.shared.with(|inner| inner.mux.reset(self.key, code));
    }

    /// Which subchannels' data goes first: 0 before all others, 7 (and more) last. `ged` ignores it.
    pub fn set_priority(&mut self, level: u8) {
        self.shared.with(|inner| inner.mux.set_priority(self.key, level));
    }

    pub(super) fn poll_write_slice(
        &mut self,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<Result<usize, WriteError>> {
        self.poll(cx, |mux, key| mux.write(key, data))
    }

    /// There is no buffer before the outbox, so there is nothing to flush.
    pub(super) fn check_flush(&self) -> Result<(), WriteError> {
        match self.shared.lock().mux.ended().cloned() {
            Some(reason) => Err(WriteError::Ended(reason)),
            None => Ok(()),
        }
    }

    pub(super) fn shut_down(&mut self) -> Result<(), WriteError> {
        self.shared.with(|inner| inner.mux.shutdown(self.key))
    }

    fn poll<T>(&mut self, cx: &Context<'_>, f: impl FnOnce(&mut Mux, StreamKey) -> Poll<T>) -> Poll<T> {
        let key = self.key;
        self.shared.with(|inner| {
            inner.poll(cx, |mux| f(mux, key), |inner| &mut inner.stream(key).writing_mut().write)
        })
    }

    fn poll_acknowledgement<T>(
        &mut self,
        cx: &Context<'_>,
        f: impl FnOnce(&mut Mux, StreamKey) -> Poll<T>,
    ) -> Poll<T> {
        let key = self.key;
        self.shared.with(|inner| {
            inner.poll(cx, |mux| f(mux, key), |inner| &mut inner.stream(key).writing_mut().acknowledged)
        })
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        self.shared.with(|inner| {
            let wakers = inner.stream(self.key).release_writing();
            inner.retired.extend(wakers);
            inner.mux.release_write(self.key);
        });
    }
}

/// Both `AsyncWrite`s for `$type`, by way of the half that `$half` names. They differ in what they call the end.
macro_rules! impl_write {
    (@ $trait:path, $poll_end:ident, $type:ty $(, $half:ident)?) => {
        impl $trait for $type {
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

            fn $poll_end(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(self$(.$half)?.shut_down().map_err(io::Error::from))
            }
        }
    };
    ($type:ty $(, $half:ident)?) => {
        impl_write!(@ tokio::io::AsyncWrite, poll_shutdown, $type $(, $half)?);
        impl_write!(@ futures::io::AsyncWrite, poll_close, $type $(, $half)?);
    };
}

impl_write!(WriteHalf);

pub(super) use impl_write;
