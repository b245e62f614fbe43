//! The two halves of a connection with their buffers, whatever its records are sealed with.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{
    buffers::{Buffers, KEPT},
    dial::reset_on_drop,
};

/// What comes in.
#[derive(Debug)]
pub(super) struct Inlet {
    stream: OwnedReadHalf,
    buffers: Buffers,
}

/// What goes out.
#[derive(Debug)]
pub(super) struct Outlet {
    stream: OwnedWriteHalf,
    output: BytesMut,
    /// The most that the output had to hold since it was new.
    peak: usize,
}

/// The halves of a connection, whose records are of so many bytes when they are full.
pub(super) fn halves(stream: TcpStream, record: usize) -> (Inlet, Outlet) {
    let (read, write) = stream.into_split();
    (
        Inlet { stream: read, buffers: Buffers::new(record) },
        Outlet { stream: write, output: BytesMut::new(), peak: 0 },
    )
}

impl Inlet {
    /// Reads the socket once. `missing`: bytes of the record at the front of `buffer` that are not here yet, as far as that is
    /// known. Ready with 0 at an orderly end.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
        missing: usize,
    ) -> Poll<io::Result<usize>> {
        self.buffers.make_room(buffer, missing);
        // The future holds nothing between polls: making a new one each time is the poll function of `read_buf`.
        let Poll::Ready(read) = pin!(self.stream.read_buf(buffer)).poll(cx) else {
            self.buffers.handle_pending();
            return Poll::Pending;
        };
        Poll::Ready(read.inspect(|bytes| self.buffers.handle_read(*bytes)))
    }
}

impl Outlet {
    /// Appends to what is pending.
    pub(super) fn append<T>(&mut self, write: impl FnOnce(&mut BytesMut) -> T) -> T {
        let written = write(&mut self.output);
        self.peak = self.peak.max(self.output.len());
        written
    }

    /// Bytes that are not written yet.
    pub(super) fn pending(&self) -> usize {
        self.output.len()
    }

    /// Writes what is pending. Ready when all of it was.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(n);
        }
        if self.peak > KEPT {
            self.output = BytesMut::new();
            self.peak = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Our address of the connection, or none if the socket has none any more.
    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }
}

/// Gives the connection up at once: the other side sees a reset, and nothing that was queued is waited for.
pub(super) fn abort(inlet: Inlet, outlet: Outlet) {
    if let Ok(stream) = inlet.stream.reunite(outlet.stream) {
        reset_on_drop(&stream);
    }
}

/// Writes what is pending and ends the connection in order.
pub(super) async fn close(mut inlet: Inlet, mut outlet: Outlet) {
    // An error here means that the connection is gone already, which is what was wanted.
    if poll_fn(|cx| outlet.poll_flush(cx)).await.is_ok() {
        let _ = outlet.stream.shutdown().await;
        // Bytes that nobody reads would turn the end into a reset, which may overtake our last bytes.
        let drain = async { while matches!(inlet.stream.read(&mut [0; 4096]).await, Ok(n) if n > 0) {} };
        let _ = tokio::time::timeout(Duration::from_millis(500), drain).await;
    }
}
