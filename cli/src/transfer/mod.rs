//! `dilated send` and `dilated receive`: with anybody's `wormhole`, and more with one of our own.

mod classic;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod host;
mod session;
mod source;
mod text;

use std::{cell::Cell, time::Duration};

use dilated::Dilated;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use self::{
    classic::{Classic, Wish},
    host::{Part, User},
    source::Sending,
};
use crate::{
    exit::Failure,
    files::{Existing, Landing},
    meeting::{self, Broken, Meeting, Purpose},
    options::{CodeWish, Global, ReceiveOptions, SendOptions, TRANSFER_APPID, TransferOptions},
    quote::bytes,
    show::{Event, Protocol, Role, Show, Total, TransferUri},
    signals::Signals,
    status::Report,
};

/// Messages of the other side that may wait.
const MESSAGES: usize = 64;

/// The version of the protocol of [`session`] that this side speaks.
const SESSION: u64 = 1;

/// How long a session that fails waits for what it has said to arrive. One that succeeds has waited before.
const LINGER: Duration = Duration::from_secs(2);

/// The member of the `app_versions` that tells what a side can do, as the program in Rust has it.
const ABILITIES: &str = "abilities";

/// Two people who misunderstood each other.
const BOTH_SEND: &str = "the other side wants to send, too; one of the two has to receive";
const BOTH_RECEIVE: &str =
    "the other side offers nothing; perhaps it receives, too, and one of the two has to send";

/// Within the member of our commands, the one with the version of that protocol.
const DILATED: &str = "dilated";

/// Runs `dilated send`.
pub(crate) async fn send(global: &Global, options: SendOptions, report: &Report) -> Result<(), Failure> {
    let show = Show::new(report, &options.transfer);
    let outcome = async {
        let mut global = global.clone();
        let task = Task::Send(Sending::choose(&options, &show)?);
        let code = options.code(&mut global)?;
        run(&global, &options.transfer, code, task, &show).await
    };
    let outcome = outcome.await;
    show.end(outcome)
}

/// Runs `dilated receive`.
pub(crate) async fn receive(
    global: &Global,
    options: ReceiveOptions,
    report: &Report,
) -> Result<(), Failure> {
    let show = Show::new(report, &options.transfer);
    let outcome = async {
        let mut global = global.clone();
        let existing = if options.overwrite { Existing::Replace } else { Existing::Keep };
        let task = Task::Receive(Wish {
            landing: Landing::new(options.output.as_deref(), existing)?,
            overwrite: options.overwrite,
            only_text: options.only_text,
            yes: options.transfer.yes,
        });
        let code = options.code(&mut global)?;
        run(&global, &options.transfer, code, task, &show).await
    };
    let outcome = outcome.await;
    show.end(outcome)
}

/// What this side does.
#[derive(Debug)]
enum Task {
    Send(Sending),
    Receive(Wish),
}

impl Task {
    /// The command that the other side types, and its part.
    fn for_the_other_side(&self, global: &Global, code: &str) -> (String, Role) {
        match self {
            Task::Send(_) => (SendOptions::for_the_other_side(global, code), Role::Follower),
            Task::Receive(_) => (ReceiveOptions::for_the_other_side(global, code), Role::Leader),
        }
    }

    async fn run_classic(self, classic: Classic<'_>, show: &Show) -> Result<Totals, Failure> {
        match self {
            Task::Send(sending) => {
                let content = sending.into_classic(show).await?;
                Ok(Totals { sent: classic::send(classic, content).await?, ..Totals::default() })
            }
            Task::Receive(wish) => {
                Ok(Totals { received: classic::receive(classic, wish).await?, ..Totals::default() })
            }
        }
    }

    /// Runs to the end of the session, which is in order even when something was refused.
    async fn run_session(
        self,
        dilated: &mut Dilated,
        show: &Show,
        kept: &Cell<bool>,
    ) -> Result<Result<Totals, Failure>, Broken> {
        let (work, user) = match self {
            Task::Send(sending) => {
                let (name, outgoing) = sending.into_session().map_err(Broken::Here)?;
                (
                    session::Work { outgoing, landing: None, texts: false },
                    User::new(show, Part::Sends, name, kept),
                )
            }
            Task::Receive(wish) => {
                let Wish { landing, only_text, yes, .. } = wish;
                let part = Part::Receives { yes, chosen: landing.chosen().is_some() };
                let landing = (!only_text).then_some(landing);
                let work = session::Work { outgoing: Vec::new(), landing, texts: true };
                (work, User::new(show, part, String::new(), kept))
            }
        };
        let summary = session::run(dilated, work, &user).await?;
        Ok(user.judge(&summary))
    }
}

/// What went in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    sent: Total,
    received: Total,
}

async fn run(
    global: &Global,
    options: &TransferOptions,
    code: CodeWish,
    task: Task,
    show: &Show,
) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let terminal = meeting::terminal(global)?;
    let wormhole = global.wormhole(TRANSFER_APPID, about(options))?;
    let complete = watch::Sender::new(false);
    let (sender, messages) = mpsc::channel(MESSAGES);
    let report = show.report();
    let meeting = Meeting {
        wormhole: &wormhole,
        purpose: Purpose::Transfer,
        complete: &complete,
        messages: Cell::new(Some(sender)),
        report,
    };
    let (spoken, parts) = (Cell::new(None), Cell::new(false));
    // It outlives the session, so that what was said last still arrives.
    let mut kept = None;
    let mut session = Box::pin(async {
        get_code(&meeting, code, show, |code| task.for_the_other_side(global, code), global).await?;
        let peer = meeting.peer().await?;
        let protocol = protocol(options, &peer.about);
        spoken.set(Some(protocol));
        show.event(&Event::Peer { protocol });
        if global.verify {
            show.event(&Event::Verifier { verifier: peer.verifier() });
        }
        peer.confirm(terminal, report).await?;
        match protocol {
            Protocol::Classic => {
                let classic = Classic::new(global, &wormhole, &peer.about, messages, show);
                task.run_classic(classic, show).await.map(Ok)
            }
            Protocol::Dilated => {
                let mut config = global.dilate_config()?;
                config.linger = LINGER;
                let dilated = kept.insert(wormhole.dilate(config)?);
                let changes = dilated.status_changes().inspect(host::link_events(show));
                tokio::select! {
                    outcome = task.run_session(dilated, show, &parts) => match outcome {
                        Ok(ended) => Ok(ended),
                        Err(broken) => Err(meeting::reason(dilated, broken).await),
                    },
                    never = meeting.narrate_link(changes) => match never {},
                }
            }
        }
    });
    let outcome = meeting.guard(&mut session, &mut signals).await;
    let ended = match spoken.get() {
        Some(Protocol::Classic) => {
            let last = outcome.as_ref().err().and_then(classic::last_word);
            // The connection ends with the session, and not before the server has the reason: whoever sees the end
            // first would have to guess.
            let outcome = meeting.leave(last, outcome, &mut signals).await;
            drop(session);
            outcome?
        }
        Some(Protocol::Dilated) | None => {
            // Its link stays up until the server has the reason.
            drop(session);
            if parts.get() {
                report.line(
                    "what has come stays here, and the next session goes on from there if the same is sent",
                );
            }
            meeting.part(outcome, &mut signals).await?
        }
    };
    let Totals { sent, received } = ended?;
    report.line(format_args!("done: sent {}, received {}", bytes(sent.bytes), bytes(received.bytes)));
    show.event(&Event::Done { sent, received });
    Ok(())
}

/// What this side tells about itself.
fn about(options: &TransferOptions) -> Value {
    let mut about = json!({ ABILITIES: ["transfer-v1"] });
    if !options.classic {
        about[Purpose::Transfer.key()] = json!({ DILATED: SESSION });
    }
    about
}

/// What both sides speak.
fn protocol(options: &TransferOptions, about: &Value) -> Protocol {
    let theirs = about.get(Purpose::Transfer.key()).and_then(|transfer| transfer.get(DILATED)?.as_u64());
    match theirs {
        Some(version) if version >= SESSION && !options.classic => Protocol::Dilated,
        _ => Protocol::Classic,
    }
}

/// Gets to a code in the way that was asked for, and shows it if the other side needs it.
async fn get_code(
    meeting: &Meeting<'_>,
    wish: CodeWish,
    show: &Show,
    other_side: impl FnOnce(&str) -> (String, Role),
    global: &Global,
) -> Result<(), Failure> {
    let wormhole = meeting.wormhole;
    match wish {
        CodeWish::Given(code) => {
            if let Err(error) = wormhole.set_code(&code) {
                return Err(meeting.reason(error).await);
            }
        }
        CodeWish::Allocate(words) => {
            let code = match wormhole.allocate_code(words.into()).await {
                Ok(code) => code.to_string(),
                Err(error) => return Err(meeting.reason(error).await),
            };
            let (command, reader) = other_side(&code);
            show.code(&code, &command, TransferUri::new(global, &code, reader).as_ref());
        }
        CodeWish::Input => show.input_code(wormhole).await?,
    }
    show.line("waiting for the other side");
    Ok(())
}
