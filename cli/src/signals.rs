//! The signals that ask a program to end.

use crate::exit::Failure;

/// Waits for Ctrl-C, and on Unix for `SIGTERM`.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// From now on the signals no longer kill the process.
    #[cfg(unix)]
    pub(crate) fn new() -> Result<Signals, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).map_err(|e| Failure::io("could not prepare for Ctrl-C", &e));
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    #[cfg(not(unix))]
    pub(crate) fn new() -> Result<Signals, Failure> {
        Ok(Signals {})
    }

    /// The next one, as the failure that it makes of a command.
    #[cfg(unix)]
    pub(crate) async fn next(&mut self) -> Failure {
        tokio::select! {
            _ = self.interrupt.recv() => Failure::interrupted(),
            _ = self.terminate.recv() => Failure::terminated(),
        }
    }

    #[cfg(not(unix))]
    pub(crate) async fn next(&mut self) -> Failure {
        // Without a handler Ctrl-C ends the process, which is all that is wanted.
        match tokio::signal::ctrl_c().await {
            Ok(()) => Failure::interrupted(),
            Err(_) => std::future::pending().await,
        }
    }
}
