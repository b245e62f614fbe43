//! Both directions in one handle.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::ReadBuf;

use super::{ReadHalf, Shared, WriteHalf, read::impl_read, write::impl_write};
use crate::{
    id::SubchannelId,
    mux::{DatagramError, OpenRefused, ReadError, StreamKey, UnacknowledgedError, WriteError},
    record::Name,
};

/// A stream to the peer that outlives the links under it. Reads and writes as tokio's and as futures'
/// `AsyncRead` and `AsyncWrite`, or as messages with [`send`](Subchannel::send) and
/// [`recv`](Subchannel::recv).
///
/// * A write is done when the bytes are in the wormhole's outbox, from where they reach the peer whatever
///   happens to links; it waits while the outbox is full. Flushing has nothing to add, for there is no
///   buffer before the outbox; [`acknowledged`](Subchannel::acknowledged) waits for the peer.
/// * Shutting down ends our direction after what was written; the peer may go on sending. The
///   *full-close* protocols of Python peers answer it with CLOSE at once.
/// * The end of what can be read is the peer's shutdown and nothing else. A wormhole that ends before is an
///   error of kind `ConnectionAborted` if one side closed it, of kind `Other` if it failed, after all
///   that was received.
/// * Either direction can be given up with a code, by its writer ([`reset`](Subchannel::reset), an error of kind
///   `ConnectionReset` for the peer) or its reader ([`stop`](Subchannel::stop), `BrokenPipe`), and a subchannel can be
///   refused (`ConnectionRefused`). `ged` knows only shutting down.
/// * In `dilated-1` each subchannel has credit of its own: one that is not read holds up nobody else. In `ged` read, or
///   drop: unread bytes above the receive limit stop the link for all. Two sides that both write and never read come
///   to a stop there, as with TCP.
/// * Dropping it ends our direction after what was written and discards what comes.
#[derive(Debug)]
pub struct Subchannel {
    read: ReadHalf,
    write: WriteHalf,
}

impl Subchannel {
    pub(super) fn new(shared: Arc<Shared>, key: StreamKey) -> Self {
        Subchannel { read: ReadHalf::new(shared.clone(), key), write: WriteHalf::new(shared, key) }
    }

    /// The identifier on the wire: odd if the Leader opened it, 0 for the control channel.
    pub fn id(&self) -> SubchannelId {
        self.read.shared().describe(self.read.key()).0
    }

    /// The subprotocol.
    pub fn subprotocol(&self) -> Name {
        self.read.subprotocol()
    }

    /// Separates the directions, for two tasks. Each is ended by dropping its half.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        (self.read, self.write)
    }

    /// Waits for the peer's answer to our opening the subchannel; see [`WriteHalf::opened`].
    ///
    /// # Errors
    ///
    /// [`OpenRefused`] if the peer does not want it, with its code, or the wormhole is over before.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn opened(&mut self) -> Result<(), OpenRefused> {
        self.write.opened().await
    }

    /// Sends `message` as exactly one message; see [`WriteHalf::send`].
    ///
    /// # Errors
    ///
    /// [`WriteError`] after a shutdown, for a message that is too long, when the peer has stopped us, and when the
    /// wormhole is over.
    ///
    /// # Cancel safety
    ///
    /// Safe: a dropped future has sent nothing.
    pub async fn send(&mut self, message: Bytes) -> Result<(), WriteError> {
        self.write.send(message).await
    }

    /// Sends all of `messages`, in order, and removes each that is sent; see [`WriteHalf::send_many`].
    ///
    /// # Errors
    ///
    /// Those of [`send`](Subchannel::send), for the message that is then the first of `messages`.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was sent is no longer in `messages`.
    pub async fn send_many(&mut self, messages: &mut VecDeque<Bytes>) -> Result<(), WriteError> {
        self.write.send_many(messages).await
    }

    /// The peer's next message, or what earlier reads left of it; `None` when the peer has ended its direction. See
    /// [`ReadHalf::recv`].
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
        self.read.recv().await
    }

    /// Appends the messages that are there to `messages`, at least one and at most `limit`; see
    /// [`ReadHalf::recv_many`].
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Subchannel::recv).
    ///
    /// # Cancel safety
    ///
    /// Safe: no message is lost.
    pub async fn recv_many(&mut self, messages: &mut Vec<Bytes>, limit: usize) -> Result<usize, ReadError> {
        self.read.recv_many(messages, limit).await
    }

    /// Writes all of `data` to the stream without copying it; where its pieces end is not specified.
    ///
    /// # Errors
    ///
    /// [`WriteError`] after a shutdown, when the peer has stopped us, and when the wormhole is over.
    ///
    /// # Cancel safety
    ///
    /// Not safe: a part may have been written. See [`WriteHalf::write_chunk`].
    pub async fn write_bytes(&mut self, data: Bytes) -> Result<(), WriteError> {
        self.write.write_bytes(data).await
    }

    /// The next bytes of the stream without copying them, `None` at its end; never empty.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Subchannel::recv).
    ///
    /// # Cancel safety
    ///
    /// Safe: no bytes are lost.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, ReadError> {
        self.read.read_chunk().await
    }

    /// Waits until the peer has acknowledged everything written so far; see [`WriteHalf::acknowledged`].
    ///
    /// # Errors
    ///
    /// [`UnacknowledgedError`] when that will not happen any more.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn acknowledged(&mut self) -> Result<(), UnacknowledgedError> {
        self.write.acknowledged().await
    }

    /// Bytes written here that the peer has acknowledged.
    pub fn bytes_acknowledged(&self) -> u64 {
        self.write.bytes_acknowledged()
    }

    /// Sends `data` at most once; see [`WriteHalf::send_datagram`].
    ///
    /// # Errors
    ///
    /// [`DatagramError`] for one above [`max_datagram_size`](Subchannel::max_datagram_size), for a subchannel that
    /// does not take any, and always in `ged`.
    pub fn send_datagram(&mut self, data: Bytes) -> Result<(), DatagramError> {
        self.write.send_datagram(data)
    }

    /// The peer's next datagram; `None` when none will come, which in `ged` is always so.
    ///
    /// # Errors
    ///
    /// Those of [`recv`](Subchannel::recv).
    ///
    /// # Cancel safety
    ///
    /// Safe: no datagram is lost.
    pub async fn recv_datagram(&mut self) -> Result<Option<Bytes>, ReadError> {
        self.read.recv_datagram().await
    }

    /// The longest datagram that can be sent, in bytes; 0 if none can, as in `ged`.
    pub fn max_datagram_size(&self) -> usize {
        self.write.max_datagram_size()
    }

    /// Gives our direction up: the peer's reader gets `code`; see [`WriteHalf::reset`].
    pub fn reset(&mut self, code: u32) {
        self.write.reset(code);
    }

    /// Gives the peer's direction up: its writer gets `code`; see [`ReadHalf::stop`].
    pub fn stop(&mut self, code: u32) {
        self.read.stop(code);
    }

    /// Which subchannels' data goes first: 0 before all others, 7 last. `ged` ignores it.
    pub fn set_priority(&mut self, level: u8) {
        self.write.set_priority(level);
    }
}

impl_read!(Subchannel, read);
impl_write!(Subchannel, write);
