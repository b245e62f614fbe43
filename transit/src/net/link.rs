//! The finished link: a reader that opens, a writer that seals.

use std::{
    io,
    net::SocketAddr,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use thiserror::Error;
use tokio::net::TcpStream;

use super::halves::{self, Inlet, Outlet, halves};
use crate::{
    path::Path,
    pipe::{MAX_NOISE_MESSAGE, OpenError, Opener, SealError, Sealer},
};

/// The longest record of `dilated-1`, with its length, in bytes.
const RECORD: usize = 4 + MAX_NOISE_MESSAGE;

/// Why a link ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer, or something on the way, closed it in order.
    #[error("the other end closed the connection")]
    Closed,
    /// The network failed.
    #[error("the network failed: {0}")]
    Io(#[from] io::Error),
    /// What arrived is not what the peer sealed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nothing more can be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The receiving half of a [`Link`].
#[derive(Debug)]
pub struct LinkReader {
    inlet: Inlet,
    opener: Opener,
}

impl LinkReader {
    /// Reads the socket once. Ready when bytes were added; take messages with [`next_message`](Self::next_message)
    /// until there are none before calling it again.
    ///
    /// # Errors
    ///
    /// [`LinkError::Closed`] at an orderly end of the stream, [`LinkError::Io`] for everything else.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let missing = self.opener.missing();
        match ready!(self.inlet.poll_fill(cx, self.opener.buffer(), missing))? {
            0 => Poll::Ready(Err(LinkError::Closed)),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// The plaintext of the next frame that is here completely.
    ///
    /// # Errors
    ///
    /// [`LinkError::Open`]; the link is unusable then.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, LinkError> {
        Ok(self.opener.next_message()?)
    }
}

/// The sending half of a [`Link`].
#[derive(Debug)]
pub struct LinkWriter {
    outlet: Outlet,
    sealer: Sealer,
}

impl LinkWriter {
    /// Seals one message, whose plaintext is the concatenation of `parts`, behind what is already pending.
    ///
    /// # Errors
    ///
    /// [`LinkError::Seal`].
    pub fn seal(&mut self, parts: &[&[u8]]) -> Result<(), LinkError> {
        self.seal_parts(parts.iter().copied())
    }

    /// [`seal`](Self::seal) for parts that are not in a slice.
    ///
    /// # Errors
    ///
    /// [`LinkError::Seal`].
    pub fn seal_parts<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]> + Clone) -> Result<(), LinkError> {
        Ok(self.outlet.append(|output| self.sealer.seal_parts(parts, output))?)
    }

    /// Bytes that are sealed and not yet written.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.outlet.pending()
    }

    /// Writes what is pending. Ready when all of it was.
    ///
    /// # Errors
    ///
    /// [`LinkError::Io`].
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        Poll::Ready(Ok(ready!(self.outlet.poll_flush(cx))?))
    }
}

/// A chosen connection to the peer, authenticated and encrypted.
#[derive(Debug)]
pub struct Link {
    /// The receiving half.
    pub reader: LinkReader,
    /// The sending half.
    pub writer: LinkWriter,
    /// How the peer was reached.
    pub path: Path,
    /// The generation that the two sides have agreed on; 0 in `ged`, whose links do not know theirs.
    pub generation: u64,
}

impl Link {
    pub(super) fn new(
        stream: TcpStream,
        sealer: Sealer,
        opener: Opener,
        path: Path,
        generation: u64,
    ) -> Link {
        let (inlet, outlet) = halves(stream, RECORD);
        let (reader, writer) = (LinkReader { inlet, opener }, LinkWriter { outlet, sealer });
        Link { reader, writer, path, generation }
    }

    /// Our address of the connection, or none if the socket has none any more.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.writer.outlet.local_address()
    }

    /// Gives the connection up at once: the peer sees a reset, and nothing that was queued is waited for. A flush
    /// would wait for a network that is gone.
    pub fn abort(self) {
        halves::abort(self.reader.inlet, self.writer.outlet);
    }

    /// Writes what is pending and ends the connection in order.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection.
    pub async fn close(self) {
        halves::close(self.reader.inlet, self.writer.outlet).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::BytesMut;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{net::buffers::KEPT, pipe::Cipher};

    #[tokio::test]
    async fn a_long_message_does_not_keep_its_memory() {
        const LONG: usize = 8 * 1024 * 1024;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (out, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let link = |stream| {
            let sealer = Sealer::new(&[1; 32], Cipher::ChaChaPoly, 2 * LONG);
            let opener = Opener::new(&[1; 32], Cipher::ChaChaPoly, 2 * LONG, BytesMut::new());
            Link::new(stream, sealer, opener, Path::inbound(address), 0)
        };
        let (mut writing, mut reading) = (link(out.unwrap()), link(accepted.unwrap().0));
        let write = async {
            for message in [&vec![7; LONG][..], b"short"] {
                writing.writer.seal(&[message]).unwrap();
                poll_fn(|cx| writing.writer.poll_flush(cx)).await.unwrap();
            }
        };
        let read = async {
            for expected in [LONG, 5] {
                let message = loop {
                    if let Some(message) = reading.reader.next_message().unwrap() {
                        break message;
                    }
                    poll_fn(|cx| reading.reader.poll_fill(cx)).await.unwrap();
                };
                assert_eq!(message.len(), expected);
            }
        };
        tokio::join!(write, read);
        // Both messages may have come with one read. Who waits for more gives the room back.
        assert!(poll_fn(|cx| Poll::Ready(reading.reader.poll_fill(cx).is_pending())).await);
        // What an empty buffer has kept shows when it is asked for room: it takes back all of its allocation.
        let capacity = writing.writer.outlet.append(|output| {
            output.reserve(1);
            output.capacity()
        });
        assert!(capacity <= KEPT, "{capacity}");
        let buffer = reading.reader.opener.buffer();
        buffer.reserve(1);
        assert!(buffer.capacity() <= 2 * KEPT, "{}", buffer.capacity());
    }
}
