//! Records over the connection that was found.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    net::halves::{self, Inlet, Outlet, halves},
    path::Path,
    v1::{MAX_RECORD, RECORD_OVERHEAD, RecordError, RecordOpener, RecordSealer, TransitHandshake},
};

/// Bytes of a stream in one record. Python sends 16 KiB; every reader takes more, and more is faster.
pub(super) const PIECE: usize = 64 * 1024;

/// Bytes that wait for the socket at most, before a writer has to.
const HELD: usize = 4 * PIECE;

/// Why a transfer ended early. There is no way to go on with it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The other side closed the connection before everything was there.
    #[error("the other side closed the connection after {received} of {expected} bytes")]
    Short {
        /// What came, in bytes.
        received: u64,
        /// What should have, in bytes.
        expected: u64,
    },
    /// The other side sends more than it said.
    #[error("the other side sends more than the {expected} bytes that it announced")]
    Long {
        /// What should have come, in bytes.
        expected: u64,
    },
    /// The connection ended where a record was due.
    #[error("the other side closed the connection")]
    Closed,
    /// The connection ended within a record.
    #[error("the connection ended in the middle of a record")]
    Torn,
    /// The network failed.
    #[error("the network failed: {0}")]
    Network(#[source] io::Error),
    /// What is sent could not be read, or what is received could not be written, here.
    #[error(transparent)]
    Local(io::Error),
    /// What came is not what the other side sealed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A record is too long to be sent.
    #[error("a record of {0} bytes is too long; the limit is {MAX_RECORD}")]
    RecordTooLong(usize),
}

/// What is sent is shorter than it was when it was announced.
pub(super) fn ended_early(missing: u64) -> io::Error {
    let why = format!("what is sent ended {missing} bytes before the length that was announced");
    io::Error::new(io::ErrorKind::UnexpectedEof, why)
}

/// The receiving half of a [`TransitPipe`].
#[derive(Debug)]
pub struct TransitReader {
    inlet: Inlet,
    pub(super) opener: RecordOpener,
}

impl TransitReader {
    /// The next record, or `None` when the other side has closed the connection in order.
    ///
    /// # Errors
    ///
    /// [`TransferError`], after which nothing more can be received.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a record is taken only when it is returned.
    pub async fn next_record(&mut self) -> Result<Option<Bytes>, TransferError> {
        poll_fn(|cx| self.poll_record(cx)).await
    }

    /// Takes as many records as carry `length` bytes, and writes them to `sink`. `observe` sees each piece after it was
    /// written: for progress, and for a hash. Reading waits while `sink` does, and so does the other side.
    ///
    /// # Errors
    ///
    /// [`TransferError`]; what came before it has been written.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: of a piece that is being written it is not known how much was.
    pub async fn copy_to(
        &mut self,
        sink: &mut (impl AsyncWrite + Unpin + ?Sized),
        length: u64,
        mut observe: impl FnMut(&[u8]),
    ) -> Result<(), TransferError> {
        let mut received = 0;
        let mut piece = Vec::new();
        while received < length {
            piece.clear();
            poll_fn(|cx| self.poll_piece(cx, &mut piece, &mut received, length)).await?;
            sink.write_all(&piece).await.map_err(TransferError::Local)?;
            observe(&piece);
        }
        sink.flush().await.map_err(TransferError::Local)
    }

    /// Appends the next record of a stream of which so much was received.
    pub(super) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
        received: &mut u64,
        length: u64,
    ) -> Poll<Result<(), TransferError>> {
        let start = out.len();
        let next = ready!(self.poll_opened(cx, |opener| opener.next_record_into(out)))?;
        let piece = next.ok_or(TransferError::Short { received: *received, expected: length })?;
        *received += piece as u64;
        if *received > length {
            out.truncate(start);
            return Poll::Ready(Err(TransferError::Long { expected: length }));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, TransferError>> {
        self.poll_opened(cx, RecordOpener::next_record)
    }

    /// What `open` makes of the next record, or `None` when the other side has closed the connection in order.
    fn poll_opened<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut open: impl FnMut(&mut RecordOpener) -> Result<Option<T>, RecordError>,
    ) -> Poll<Result<Option<T>, TransferError>> {
        loop {
            if let Some(opened) = open(&mut self.opener)? {
                return Poll::Ready(Ok(Some(opened)));
            }
            let missing = self.opener.missing();
            let read = ready!(self.inlet.poll_fill(cx, self.opener.buffer(), missing));
            match read.map_err(TransferError::Network)? {
                0 if self.opener.buffer().is_empty() => return Poll::Ready(Ok(None)),
                0 => return Poll::Ready(Err(TransferError::Torn)),
                _ => {}
            }
        }
    }
}

/// The sending half of a [`TransitPipe`].
#[derive(Debug)]
pub struct TransitWriter {
    pub(super) outlet: Outlet,
    pub(super) sealer: RecordSealer,
}

impl TransitWriter {
    /// Sends one record, and waits until the system has taken it.
    ///
    /// # Errors
    ///
    /// [`TransferError::RecordTooLong`], [`TransferError::Network`].
    ///
    /// # Cancel safety
    ///
    /// The record is sealed at once. If the future is dropped, it goes ahead of the next one.
    pub async fn send_record(&mut self, plaintext: &[u8]) -> Result<(), TransferError> {
        self.seal(plaintext)?;
        self.flush().await
    }

    /// Sends `length` bytes of `source`. `observe` sees each piece when it is on its way: for progress, and for a hash.
    ///
    /// # Errors
    ///
    /// [`TransferError::Local`] with [`io::ErrorKind::UnexpectedEof`] if `source` has less; [`TransferError::Network`].
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: it is not known how much of `source` was sent.
    pub async fn copy_from(
        &mut self,
        source: &mut (impl AsyncRead + Unpin + ?Sized),
        length: u64,
        mut observe: impl FnMut(&[u8]),
    ) -> Result<(), TransferError> {
        let mut piece = vec![0; PIECE];
        let mut rest = length;
        while rest > 0 {
            let most = usize::try_from(rest).map_or(PIECE, |rest| rest.min(PIECE));
            let read = source.read(&mut piece[..most]).await.map_err(TransferError::Local)?;
            if read == 0 {
                return Err(TransferError::Local(ended_early(rest)));
            }
            self.seal(&piece[..read])?;
            if self.outlet.pending() >= HELD {
                self.flush().await?;
            }
            observe(&piece[..read]);
            rest -= read as u64;
        }
        self.flush().await
    }

    pub(super) fn seal(&mut self, plaintext: &[u8]) -> Result<(), TransferError> {
        if plaintext.len() > MAX_RECORD {
            return Err(TransferError::RecordTooLong(plaintext.len()));
        }
        self.outlet.append(|output| self.sealer.seal(plaintext, output));
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> Result<(), TransferError> {
        poll_fn(|cx| self.outlet.poll_flush(cx)).await.map_err(TransferError::Network)
    }
}

/// A connection to the other side, authenticated and encrypted. It cannot be resumed.
#[derive(Debug)]
pub struct TransitPipe {
    /// The receiving half.
    pub reader: TransitReader,
    /// The sending half.
    pub writer: TransitWriter,
    /// How the other side was reached.
    pub path: Path,
}

impl TransitPipe {
    /// A Sender's choice waits for the first [flush](TransitWriter::flush).
    pub(super) fn new(stream: TcpStream, handshake: TransitHandshake, path: Path) -> TransitPipe {
        let (inlet, mut outlet) = halves(stream, PIECE + RECORD_OVERHEAD);
        let (sealer, opener) = outlet
            .append(|output| handshake.into_pipe(output))
            .expect("only handshakes that are ready become pipes");
        TransitPipe {
            reader: TransitReader { inlet, opener },
            writer: TransitWriter { outlet, sealer },
            path,
        }
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
