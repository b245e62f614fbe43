//! Standard input and output as streams of buffers. Each has a thread of its own: a read of a terminal or a pipe
//! cannot be cancelled, and the threads die with the process.

use std::{io, thread};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// Bytes read at once.
const BUFFER: usize = 256 * 1024;

/// Buffers that may wait between a thread and the wormhole, in each direction.
const WAITING: usize = 2;

/// Starts to read standard input. The channel ends with it.
pub(crate) fn read_input() -> io::Result<mpsc::Receiver<io::Result<Bytes>>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut buffer = vec![0; BUFFER];
        loop {
            let item = match io::Read::read(&mut io::stdin().lock(), &mut buffer) {
                Ok(0) => return,
                Ok(length) => Ok(Bytes::copy_from_slice(&buffer[..length])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = item.is_err();
            if sender.blocking_send(item).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Output {
    sender: mpsc::Sender<Bytes>,
    result: oneshot::Receiver<io::Result<()>>,
}

impl Output {
    pub(crate) fn start() -> io::Result<Output> {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(WAITING);
        let (done, result) = oneshot::channel();
        thread::Builder::new().name("stdout".to_owned()).spawn(move || {
            let mut write = || -> io::Result<()> {
                let mut output = sys::unbuffered()?;
                while let Some(chunk) = receiver.blocking_recv() {
                    io::Write::write_all(&mut output, &chunk)?;
                }
                io::Write::flush(&mut output)?;
                drop(output);
                sys::close()
            };
            let written = write();
            // Before the result is told, so that a blocked writer learns of it.
            drop(receiver);
            let _ = done.send(written);
        })?;
        Ok(Output { sender, result })
    }

    /// Writes `chunk`, after those before. An error may be that of an earlier one.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        match self.sender.send(chunk).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failed().await),
        }
    }

    /// Waits until everything is written, and closes standard output, so that who reads it sees the end.
    pub(crate) async fn close(self) -> io::Result<()> {
        drop(self.sender);
        self.result.await.unwrap_or_else(|_| Err(io::Error::other("the writing thread ended early")))
    }

    /// Waits until writing fails, which who writes little would notice late. Not to be called again after that.
    pub(crate) async fn failed(&mut self) -> io::Error {
        match (&mut self.result).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => io::Error::other("the writing thread ended early"),
        }
    }
}

#[cfg(unix)]
mod sys {
    use std::{
        fs::{File, OpenOptions},
        io,
        os::fd::AsFd,
    };

    /// Standard output without the line buffer of the standard library.
    pub(super) fn unbuffered() -> io::Result<File> {
        Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
    }

    /// Puts `/dev/null` in the place of standard output.
    pub(super) fn close() -> io::Result<()> {
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
        Ok(())
    }
}

#[cfg(not(unix))]
mod sys {
    use std::io;

    pub(super) fn unbuffered() -> io::Result<io::Stdout> {
        Ok(io::stdout())
    }

    /// It closes when the process ends.
    pub(super) fn close() -> io::Result<()> {
        Ok(())
    }
}
