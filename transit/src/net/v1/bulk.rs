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
    io::{self, Read, Write},
    sync::mpsc as buffers,
};

use bytes::{Bytes, BytesMut};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::pipe::{PIECE, TransferError, TransitReader, TransitWriter, ended_early};
use crate::v1::{ROOM_BEFORE, ROOM_BEHIND};

/// Bytes of one record with the room that it is sealed in.
const ROOM: usize = ROOM_BEFORE + PIECE + ROOM_BEHIND;

/// Records that change threads at once.
const BATCH: usize = 4;

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
        while let Some(mut batch) = batches.recv().await {
            batch.chunks_mut(ROOM).for_each(|room| self.sealer.seal_in_place(room));
            self.outlet.push(batch);
            sent = self.flush().await;
            if sent.is_err() {
                break;
            }
            // The thread may have read everything already.
            let _ = spent.send(self.outlet.reclaim());
        }
        drop(batches);
        let read = joined(reading.await);
        sent?;
        read.map_err(TransferError::Local)
    }
}

/// Reads until everything is read or nobody wants it any more. A batch that a slow source begins does not wait to be full.
fn read_batches(
    source: &mut impl Read,
    length: u64,
    observe: &mut impl FnMut(&[u8]),
    full: &mpsc::Sender<BytesMut>,
    fresh: &buffers::Receiver<BytesMut>,
) -> io::Result<()> {
    let mut rest = length;
    while rest > 0 {
        let mut batch = fresh.try_recv().unwrap_or_default();
        batch.clear();
        batch.reserve(BATCH * ROOM);
        for _ in 0..BATCH {
            let most = usize::try_from(rest).map_or(PIECE, |rest| rest.min(PIECE));
            let start = batch.len() + ROOM_BEFORE;
            batch.resize(start + most, 0);
            let read = match read_some(source, &mut batch[start..]) {
                Ok(0) => Err(ended_early(rest)),
                read => read,
            }?;
            observe(&batch[start..start + read]);
            batch.truncate(start + read);
            batch.resize(start + read + ROOM_BEHIND, 0);
            rest -= read as u64;
            if read < PIECE {
                break;
            }
        }
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
    /// Memory: about 1.5 MiB, and buffers of the socket of 4 MiB at most.
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
        let (full, mut batches) = mpsc::channel::<Vec<Bytes>>(AHEAD);
        let writing = spawn_blocking(move || {
            while let Some(batch) = batches.blocking_recv() {
                for piece in batch {
                    sink.write_all(&piece)?;
                    observe(&piece);
                }
            }
            sink.flush()?;
            io::Result::Ok(sink)
        });
        let mut received = 0;
        let mut result = Ok(());
        while received < length {
            let batch = match self.next_batch(&mut received, length).await {
                Ok(batch) => batch,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
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

    /// The next records, at least one, as far as they are here and belong to the stream.
    async fn next_batch(&mut self, received: &mut u64, length: u64) -> Result<Vec<Bytes>, TransferError> {
        let mut batch = Vec::new();
        let mut next = self.next_piece(*received, length).await?;
        loop {
            *received += next.len() as u64;
            batch.push(next);
            if *received == length || batch.iter().map(Bytes::len).sum::<usize>() >= BATCH * PIECE {
                return Ok(batch);
            }
            // An error comes again when nothing else is left.
            next = match self.opener.next_record() {
                Ok(Some(next)) if *received + next.len() as u64 <= length => next,
                Ok(Some(_)) => return Err(TransferError::Long { expected: length }),
                Ok(None) | Err(_) => return Ok(batch),
            };
        }
    }
}

/// What the thread has come to. It is not aborted, so it can only have panicked, which goes on here.
fn joined<T>(joined: Result<T, tokio::task::JoinError>) -> T {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
