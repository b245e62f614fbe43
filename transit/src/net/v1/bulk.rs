//! A stream of a known length from a blocking source, or into a blocking sink.
//!
//! ```text
//! thread of the source     bounded      this task
//! read, observe      ── 4 batches ──►   seal, write         and the other way round
//!                    ◄── buffers ───
//! ```
//!
//! A file read or written, and its hash, take as long as the network and the cipher do: on two threads they take it at the same
//! time. A batch waits for the next one in the other thread, no more than [`AHEAD`] of them, which is all the memory there is
//! to it and all the back-pressure.

use std::{
    future::poll_fn,
    io::{self, Read, Write},
    sync::mpsc as buffers,
    task::{Context, Poll, ready},
};

use tokio::{sync::mpsc, task::spawn_blocking};

use super::pipe::{PIECE, TransferError, TransitReader, TransitWriter, ended_early};

/// Bytes that are read or written at once, and then change threads: a few records, and less than a cache.
const BATCH: usize = 4 * PIECE;

/// Batches that wait for the other thread.
const AHEAD: usize = 4;

impl TransitWriter {
    /// Sends `length` bytes of `source`, which is read in a thread of its own, and given back. `observe` sees each piece there
    /// when it was read: for a hash, and for progress, of which the last MiB may not have been sent yet.
    ///
    /// Memory: about 1.5 MiB.
    ///
    /// # Errors
    ///
    /// [`TransferError::Local`] with [`io::ErrorKind::UnexpectedEof`] if `source` has less; [`TransferError::Network`].
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: it is not known how much of `source` was sent. The thread ends when its read has returned.
    pub async fn copy_from_blocking<R: Read + Send + 'static>(
        &mut self,
        mut source: R,
        length: u64,
        mut observe: impl FnMut(&[u8]) + Send + 'static,
    ) -> Result<R, TransferError> {
        let (full, mut batches) = mpsc::channel(AHEAD);
        let (spent, fresh) = buffers::channel();
        let reading = spawn_blocking(move || {
            let read = read_batches(&mut source, length, &mut observe, &full, &fresh);
            read.map(|()| source)
        });
        let mut sent = Ok(());
        while let Some(batch) = batches.recv().await {
            sent = self.send_batch(&batch).await;
            if sent.is_err() {
                break;
            }
            // The thread may have read everything already.
            let _ = spent.send(batch);
        }
        drop(batches);
        let read = joined(reading.await);
        sent?;
        read.map_err(TransferError::Local)
    }

    async fn send_batch(&mut self, batch: &[u8]) -> Result<(), TransferError> {
        for piece in batch.chunks(PIECE) {
            self.seal(piece)?;
        }
        self.flush().await
    }
}

/// Reads until everything is read or nobody wants it any more. A batch that a slow source begins does not wait to be full.
fn read_batches(
    source: &mut impl Read,
    length: u64,
    observe: &mut impl FnMut(&[u8]),
    full: &mpsc::Sender<Vec<u8>>,
    fresh: &buffers::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let mut rest = length;
    while rest > 0 {
        let mut batch = fresh.try_recv().unwrap_or_default();
        // Full ones come back as long as they were.
        batch.resize(usize::try_from(rest).map_or(BATCH, |rest| rest.min(BATCH)), 0);
        let read = match read_some(source, &mut batch) {
            Ok(0) => Err(ended_early(rest)),
            read => read,
        }?;
        batch.truncate(read);
        observe(&batch);
        rest -= read as u64;
        if full.blocking_send(batch).is_err() {
            break;
        }
    }
    Ok(())
}

fn read_some(source: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

impl TransitReader {
    /// Takes as many records as carry `length` bytes, and writes them to `sink`, in a thread of its own; then flushes it and
    /// gives it back. `observe` sees each piece there after it was written: for progress, and for a hash. No byte beyond
    /// `length` is written.
    ///
    /// Memory: about 1.5 MiB; 8 MiB at most, if the other side makes its records as long as it may.
    ///
    /// # Errors
    ///
    /// [`TransferError`]; what came before it has been written, and nothing is written any more.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: it is not known how much was written. The thread ends when it has written what it has.
    pub async fn copy_to_blocking<W: Write + Send + 'static>(
        &mut self,
        mut sink: W,
        length: u64,
        mut observe: impl FnMut(&[u8]) + Send + 'static,
    ) -> Result<W, TransferError> {
        let (full, mut batches) = mpsc::channel::<Vec<u8>>(AHEAD);
        let (spent, fresh) = buffers::channel::<Vec<u8>>();
        let writing = spawn_blocking(move || {
            while let Some(batch) = batches.blocking_recv() {
                sink.write_all(&batch)?;
                observe(&batch);
                // Everything may have been received already.
                let _ = spent.send(batch);
            }
            sink.flush()?;
            io::Result::Ok(sink)
        });
        let mut received = 0;
        let mut result = Ok(());
        while received < length && result.is_ok() {
            let mut batch = fresh.try_recv().unwrap_or_default();
            batch.clear();
            result = poll_fn(|cx| self.poll_batch(cx, &mut batch, &mut received, length)).await;
            if full.send(batch).await.is_err() {
                // It says why when it is joined.
                break;
            }
        }
        drop(full);
        let written = joined(writing.await);
        result?;
        written.map_err(TransferError::Local)
    }

    /// Fills a batch with the next records, at least one, as far as they are here and belong to the stream. What came before an
    /// error is in the batch.
    fn poll_batch(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Vec<u8>,
        received: &mut u64,
        length: u64,
    ) -> Poll<Result<(), TransferError>> {
        while *received < length && batch.len() < BATCH {
            match self.poll_piece(cx, batch, received, length) {
                Poll::Pending if !batch.is_empty() => break,
                opened => ready!(opened)?,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What the thread has come to. It is not aborted, so it can only have panicked, which goes on here.
fn joined<T>(joined: Result<T, tokio::task::JoinError>) -> T {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
