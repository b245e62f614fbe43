//! Standard input into the stream, and the stream into standard output, both at once.

use std::{
    cell::Cell,
    io::{self, IsTerminal},
    time::Duration,
};

use dilated::{ReadHalf, WriteHalf};
use tokio::{
    io::AsyncWriteExt,
    sync::{Notify, watch},
};

use crate::{
    exit::{Failure, Kind},
    meeting::Broken,
    status::Report,
    stdio,
};

/// How long to wait for the other side to confirm the end of what we sent, in a link that may be broken just then.
const CONFIRMATION: Duration = Duration::from_secs(20);

/// Ctrl-C ends all programs of a pipeline, and the one before us may be the first: its end is not the end of the data
/// when we are interrupted within this time.
const DOUBT: Duration = Duration::from_millis(25);

/// Bytes that went each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// What sits at the ends of this process.
#[derive(Debug, Clone, Copy)]
struct Terminals {
    input: bool,
    output: bool,
}

impl Terminals {
    fn detect() -> Terminals {
        Terminals { input: io::stdin().is_terminal(), output: io::stdout().is_terminal() }
    }

    /// Whether this side only receives: nobody types into `dilated pipe CODE > file`, so the end of what comes is
    /// the end of all.
    fn only_receives(self) -> bool {
        self.input && !self.output
    }
}

/// Carries the bytes until both directions have ended and the other side has everything. `complete` is told when the
/// other side says so itself.
pub(crate) async fn run(
    read: &mut ReadHalf,
    write: &mut WriteHalf,
    complete: &watch::Sender<bool>,
    report: &Report,
) -> Result<Totals, Broken> {
    let terminals = Terminals::detect();
    let (ended, sending) = (Notify::new(), Cell::new(true));
    let receive = async {
        let received = receive(read).await?;
        if sending.get() && terminals.input && !terminals.only_receives() {
            report.line("the other side has finished; end your side with Ctrl-D");
        }
        ended.notify_one();
        Ok(received)
    };
    let stop = async {
        match terminals.only_receives() {
            true => ended.notified().await,
            false => std::future::pending().await,
        }
    };
    let send = async {
        let sent = send(write, stop).await?;
        sending.set(false);
        Ok(sent)
    };
    let (sent, received) = tokio::try_join!(send, receive)?;
    confirm(write, complete).await?;
    Ok(Totals { sent, received })
}

async fn send(write: &mut WriteHalf, stop: impl Future<Output = ()>) -> Result<u64, Broken> {
    let cannot_read = |e: &io::Error| Broken::Here(Failure::io("could not read standard input", e));
    let mut input = stdio::read_input().map_err(|e| cannot_read(&e))?;
    let mut sent = 0;
    tokio::pin!(stop);
    loop {
        let chunk = tokio::select! {
            chunk = input.recv() => chunk,
            () = &mut stop => None,
        };
        let Some(chunk) = chunk else { break };
        let chunk = chunk.map_err(|e| cannot_read(&e))?;
        let length = chunk.len() as u64;
        write.write_bytes(chunk).await.map_err(Broken::wormhole)?;
        sent += length;
    }
    tokio::time::sleep(DOUBT).await;
    write.shutdown().await.map_err(Broken::wormhole)?;
    Ok(sent)
}

async fn receive(read: &mut ReadHalf) -> Result<u64, Broken> {
    let cannot_write = |e: io::Error| {
        Broken::Here(match e.kind() {
            io::ErrorKind::BrokenPipe => Failure::output_closed(),
            _ => Failure::io("could not write standard output", &e),
        })
    };
    let mut output = stdio::Output::start().map_err(cannot_write)?;
    let mut received = 0;
    loop {
        let chunk = tokio::select! {
            chunk = read.read_chunk() => chunk.map_err(Broken::wormhole)?,
            error = output.failed() => return Err(cannot_write(error)),
        };
        let Some(chunk) = chunk else { break };
        received += chunk.len() as u64;
        output.write(chunk).await.map_err(cannot_write)?;
    }
    output.close().await.map_err(cannot_write)?;
    Ok(received)
}

/// Waits until the other side has the last byte.
async fn confirm(write: &mut WriteHalf, complete: &watch::Sender<bool>) -> Result<(), Broken> {
    let mut said_so = complete.subscribe();
    let confirmed = async {
        tokio::select! {
            acknowledged = write.acknowledged() => acknowledged.map_err(Broken::wormhole),
            // It has read the end of our data, and so all of it.
            _ = said_so.wait_for(|complete| *complete) => Ok(()),
        }
    };
    tokio::time::timeout(CONFIRMATION, confirmed).await.unwrap_or_else(|_| {
        Err(Broken::Here(Failure::new(
            Kind::PeerLeft,
            "the other side is gone and has not confirmed the last bytes; they may be missing there",
        )))
    })
}
