//! `dilated pipe`: standard input and output across a wormhole.

mod agree;
mod transfer;
mod verify;

use std::time::Duration;

use dilated::{
    ConnectionStatus, Dilated, Event, LinkStatus, ReadHalf, Role, Subchannel, Wormhole, WormholeError,
    WriteHalf,
};
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;

use self::{
    agree::{LastWord, Opener, Part},
    transfer::{Broken, Totals},
    verify::Terminal,
};
use crate::{
    exit::{Failure, Kind},
    options::{Global, PipeOptions},
    quote::{bytes, printable},
    signals::Signals,
    status::{LinkStory, NO_PATH_ADVICE, NO_PATH_PATIENCE, Report},
};

/// How long a pipe that fails waits for what it has sent to arrive. One that succeeds has waited before.
const LINGER: Duration = Duration::from_secs(2);

/// How long the whole end may take, servers that do not answer included.
const END: Duration = Duration::from_secs(6);

/// What must outlive the session when it is interrupted: the direction to the other side, since dropping it would
/// say that the data ends here.
#[derive(Debug, Default)]
struct Stream {
    dilated: Option<Dilated>,
    read: Option<ReadHalf>,
    write: Option<WriteHalf>,
}

/// Runs the command.
pub(crate) async fn run(global: &Global, options: PipeOptions, report: &Report) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let terminal = global.verify.then(Terminal::open).transpose()?;
    let part = Part {
        opens: if options.open || options.listen { options.open } else { options.code().is_some() },
        flexible: !options.open && !options.listen,
        subprotocol: options.subprotocol.clone(),
    };
    let wormhole = global.wormhole(part.to_json())?;
    let complete = watch::Sender::new(false);
    let mut stream = Stream::default();
    let session =
        Session { global, options: &options, part: &part, wormhole: &wormhole, complete: &complete, report };
    let outcome = tokio::select! {
        outcome = session.run(terminal, &mut stream) => outcome,
        failure = watch_mailbox(&wormhole, &complete, report) => Err(failure),
        failure = signals.next() => Err(failure),
    };
    match outcome {
        Ok(totals) => {
            let _ = wormhole.send_message(LastWord::Complete.to_bytes());
            end(&wormhole, stream, &mut signals).await;
            report.line(format_args!(
                "done: sent {}, received {}",
                bytes(totals.sent),
                bytes(totals.received)
            ));
            Ok(())
        }
        Err(failure) => {
            if let Some(word) = LastWord::about(&failure) {
                // Without a key there is nobody to tell.
                let _ = wormhole.send_message(word.to_bytes());
            }
            end(&wormhole, stream, &mut signals).await;
            Err(failure)
        }
    }
}

/// Ends the wormhole in order; a second signal ends it at once.
async fn end(wormhole: &Wormhole, mut stream: Stream, signals: &mut Signals) {
    // What still comes is discarded, so that it holds nothing up.
    stream.read = None;
    tokio::select! {
        closed = tokio::time::timeout(END, wormhole.close()) => tracing::debug!(?closed, "the end"),
        _ = signals.next() => {}
    }
}

/// One run, from the code to the last byte.
struct Session<'a> {
    global: &'a Global,
    options: &'a PipeOptions,
    part: &'a Part,
    wormhole: &'a Wormhole,
    complete: &'a watch::Sender<bool>,
    report: &'a Report,
}

impl Session<'_> {
    async fn run(&self, terminal: Option<Terminal>, stream: &mut Stream) -> Result<Totals, Failure> {
        self.code().await?;
        let verifier = self.wormhole.verifier().await?;
        self.report.line("the other side is here, and has the same code");
        let theirs = Part::from_json(&self.wormhole.versions().await?);
        let opener = self.part.agree(theirs.as_ref())?;
        if let Some(terminal) = terminal {
            terminal.ask(&verifier, self.report).await?;
        }
        let mut config = self.global.dilate_config()?;
        config.linger = LINGER;
        config.expected_subprotocols.push(self.part.subprotocol.clone());
        let dilated = stream.dilated.insert(self.wormhole.dilate(config)?);
        tokio::select! {
            outcome = self.carry(opener, dilated, &mut stream.read, &mut stream.write) => match outcome {
                Ok(totals) => Ok(totals),
                Err(Broken::Here(failure)) => Err(failure),
                Err(Broken::Wormhole(error)) => Err(reason(dilated, &error).await),
            },
            never = narrate_link(dilated, self.complete.subscribe(), self.report) => match never {},
        }
    }

    /// Uses the code that was given, or gets one and shows it.
    async fn code(&self) -> Result<(), Failure> {
        if let Some(code) = self.options.code() {
            if let Err(error) = self.wormhole.set_code(code) {
                return Err(self.reason(error).await);
            }
            self.report.line("waiting for the other side");
            return Ok(());
        }
        let code = match self.wormhole.allocate_code(self.options.code_length.into()).await {
            Ok(code) => code.to_string(),
            Err(error) => return Err(self.reason(error).await),
        };
        self.report.line("on the other side, run");
        self.report.plain(format_args!("    {}", self.options.for_the_other_side(self.global, &code)));
        self.report.line("waiting for the other side");
        Ok(())
    }

    /// A wormhole that ended before it was used only says that it ended; closing it says why.
    async fn reason(&self, error: WormholeError) -> Failure {
        match error {
            WormholeError::Closed => self.wormhole.close().await.err().unwrap_or(error).into(),
            error => error.into(),
        }
    }

    async fn carry(
        &self,
        opener: Opener,
        dilated: &Dilated,
        read: &mut Option<ReadHalf>,
        write: &mut Option<WriteHalf>,
    ) -> Result<Totals, Broken> {
        let (reader, writer) = self.open(opener, dilated).await?.into_split();
        transfer::run(read.insert(reader), write.insert(writer), self.complete, self.report).await
    }

    async fn open(&self, opener: Opener, dilated: &Dilated) -> Result<Subchannel, Broken> {
        let name = &self.part.subprotocol;
        let refused = |e: &dyn std::error::Error| {
            Broken::Here(Failure::usage(format!("--subprotocol {} cannot be used: {e}", printable(name))))
        };
        let opens = match opener {
            Opener::Us => true,
            Opener::Them => false,
            Opener::Leader => leads(dilated).await,
        };
        if opens {
            let connector = dilated.connector_for(name).map_err(|e| refused(&e))?;
            connector.connect().await.map_err(|e| Broken::Wormhole(e.into()))
        } else {
            let mut listener = dilated.listener_for(name).map_err(|e| refused(&e))?;
            listener.accept().await.map_err(|e| Broken::Wormhole(e.into()))
        }
    }
}

/// Whether this side leads, once that is known. When the wormhole ends first, whoever asks next learns why.
async fn leads(dilated: &Dilated) -> bool {
    let mut changes = dilated.status_changes();
    while let Some(status) = changes.next().await {
        if let Some(role) = status.role {
            return role == Role::Leader;
        }
        if matches!(status.link, LinkStatus::Stopped { .. }) {
            break;
        }
    }
    false
}

/// Why the wormhole ended, which the status says better than the stream.
async fn reason(dilated: &Dilated, error: &std::io::Error) -> Failure {
    /// The stream ends a moment before the status says why.
    const MOMENT: Duration = Duration::from_secs(3);
    let mut changes = dilated.status_changes();
    let stopped = async {
        while let Some(status) = changes.next().await {
            if let LinkStatus::Stopped { error } = status.link {
                return error;
            }
        }
        None
    };
    match tokio::time::timeout(MOMENT, stopped).await {
        Ok(Some(reason)) => reason.into(),
        _ => Failure::new(Kind::PeerLeft, format!("the wormhole ended early: {error}")),
    }
}

/// Tells what happens to the mailbox while it matters, and returns when the other side leaves early.
async fn watch_mailbox(wormhole: &Wormhole, complete: &watch::Sender<bool>, report: &Report) -> Failure {
    let mut events = wormhole.events();
    let mut present = true;
    while let Some(event) = events.next().await {
        match event {
            Event::Welcome(welcome) => {
                if let Some(motd) = &welcome.motd {
                    report.line(format_args!("the mailbox server says: {}", printable(motd)));
                }
            }
            Event::Message(message) => match LastWord::parse(&message).map(LastWord::failure) {
                Some(Some(failure)) => return failure,
                Some(None) => {
                    complete.send_replace(true);
                }
                None => tracing::info!("a message that is not a pipe's last word was ignored"),
            },
            Event::Status(status) => match status.connection {
                ConnectionStatus::Connected if !present => {
                    present = true;
                    report.line("the mailbox server is back");
                }
                ConnectionStatus::Disconnected if present && was_greeted(wormhole) => {
                    present = false;
                    let reason = status.last_failure.as_deref().unwrap_or("no reason is known");
                    report.line(format_args!(
                            "the mailbox server is gone, which matters only while there is no link; trying again ({})",
                            printable(reason)
                        ));
                }
                _ => {}
            },
            _ => {}
        }
    }
    // The session has the reason.
    std::future::pending().await
}

/// Whether the mailbox server was there once: a server that never was is an error that the session tells.
fn was_greeted(wormhole: &Wormhole) -> bool {
    wormhole.welcome().now_or_never().is_some_and(|welcome| welcome.is_ok())
}

/// Tells what happens to the link.
async fn narrate_link(
    dilated: &Dilated,
    mut complete: watch::Receiver<bool>,
    report: &Report,
) -> std::convert::Infallible {
    /// Whether the other side left because it had everything, the mailbox may tell a moment after the link.
    const MOMENT: Duration = Duration::from_millis(300);
    let mut changes = dilated.status_changes();
    let mut story = LinkStory::new();
    let mut advised = false;
    loop {
        let patience = tokio::time::sleep(NO_PATH_PATIENCE);
        tokio::select! {
            status = changes.next() => {
                let Some(status) = status else { return std::future::pending().await };
                let Some(line) = story.tell(&status) else { continue };
                advised = false;
                if story.is_lost() && tokio::time::timeout(MOMENT, complete.wait_for(|c| *c)).await.is_ok() {
                    return std::future::pending().await;
                }
                report.line(line);
            }
            () = patience, if story.is_searching() && !advised => {
                report.line(NO_PATH_ADVICE);
                advised = true;
            }
        }
    }
}
