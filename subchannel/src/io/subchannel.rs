//! Both directions in one handle.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::ReadBuf;

use super::{
    ReadHalf, Shared, WriteHalf,
    half::{impl_read, impl_write},
};
use crate::{
    id::SubchannelId,
    mux::{ReadError, StreamKey, UnacknowledgedError, WriteError},
    record::Name,
};

/// A stream to the peer that outlives the links under it. Reads and writes as tokio's and as futures'
/// `AsyncRead` and `AsyncWrite`, or as messages with [`send`](Subchannel::send) and
/// [`recv`](Subchannel::recv).
///
/// * A write is done when the bytes are in the wormhole's outbox, from where they reach the peer whatever
///   happens to links; it waits while the outbox is full. Flushing has nothing to add, for there is no
///   buffer before the outbox; [`acknowledged`](Subchannel::acknowledged) waits for the peer.
/// * Shutting down ends our direction (CLOSE after what was written); the peer may go on sending. The
///   *full-close* protocols of Python peers answer it with CLOSE at once.
/// * The end of what can be read is the peer's CLOSE and nothing else. A wormhole that ends before is an
///   error of kind `ConnectionAborted` if one side closed it, of kind `Other` if it failed, after all
///   that was received.
/// * Read, or drop: `ged` has no flow control per subchannel, so unread bytes above the receive limit
///   stop the link for all of them. Two sides that both write and never read come to a stop there, as with
///   TCP.
/// * Dropping it sends CLOSE after what was written and discards what comes.
#[derive(Debug)]
pub struct Subchannel {
    id: SubchannelId,
    read: ReadHalf,
    write: WriteHalf,
}

impl Subchannel {
    pub(super) fn new(shared: Arc<Shared>, key: StreamKey, id: SubchannelId, name: Name) -> Self {
        let read = ReadHalf::new(shared.clone(), key, name.clone());
        Subchannel { id, read, write: WriteHalf::new(shared, key, name) }
    }

    /// The identifier on the wire: odd if the Leader opened it.
    pub fn id(&self) -> SubchannelId {
        self.id
    }

    /// The subprotocol.
    pub fn subprotocol(&self) -> &str {
        self.read.subprotocol()
    }

    /// Separates the directions, for two tasks. Each is ended by dropping its half.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        (self.read, self.write)
    }

    /// Sends `message` as exactly one DATA record: the peer receives it as one message.
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
        self.write.send(message).await
    }

    /// The peer's next message, that is one DATA record, or what earlier reads left of it; `None` when
    /// the peer has closed its direction.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when the wormhole ended before the peer's CLOSE; never before received data.
    ///
    /// # Cancel safety
    ///
    /// Safe: no message is lost.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, ReadError> {
        self.read.recv().await
    }

    /// Writes all of `data` to the stream without copying it; where records end is not specified.
    ///
    /// # Errors
    ///
    /// [`WriteError`] after a shutdown and when the wormhole is over.
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
    /// [`UnacknowledgedError`] when the wormhole is over before.
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
}

impl_read!(Subchannel, read);
impl_write!(Subchannel, write);
