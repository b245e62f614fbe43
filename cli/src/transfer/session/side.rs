//! One side of a session: the control channel, and what is told to whom.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    sync::Arc,
    time::Duration,
};

use dilated::{Client, ReadHalf, Server, WriteHalf};
use tokio::{
    io::AsyncWriteExt,
    sync::{Mutex, mpsc, watch},
};

use super::{
    Event, Host, Outgoing, Summary,
    incoming::Accepted,
    message::{self, Answer, Code, Directory, Item, Message, VERSION},
    reading::ReadFault,
    state::{Action, Conversation, ItemId, Violation},
};
use crate::{
    exit::{Failure, Kind},
    files::Landing,
    meeting::Broken,
    quote::printable,
};

/// Messages that may wait to be sent.
const WAITING: usize = 16;

/// How long an error waits to be written, and one that a subchannel reports waits for the other side's reason.
const MOMENT: Duration = Duration::from_secs(3);

/// Why a session ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The wormhole ended.
    Wormhole(io::Error),
    /// The other side ended the control channel.
    Left,
    /// This side failed, or found the other side wrong.
    Here(Code, Failure),
    /// The other side said that it failed.
    There(Code, String),
}

impl Stop {
    pub(super) fn wormhole(error: impl Into<io::Error>) -> Stop {
        Stop::Wormhole(error.into())
    }

    pub(super) fn source(failure: Failure) -> Stop {
        Stop::Here(Code::Source, failure)
    }

    /// What the other side made us write is wrong, or could not be written.
    pub(super) fn storing(failure: Failure) -> Stop {
        let code = if failure.kind() == Kind::PeerProgram { Code::Protocol } else { Code::Target };
        Stop::Here(code, failure)
    }

    /// A worker thread ended without a result, which only a panic can do.
    pub(super) fn worker() -> Stop {
        Stop::storing(Failure::new(Kind::Local, "a thread that reads or writes files ended early"))
    }

    /// What is reported.
    pub(super) fn into_broken(self) -> Broken {
        Broken::Here(match self {
            Stop::Wormhole(error) => return Broken::Wormhole(error),
            Stop::Here(_, failure) => failure,
            Stop::Left => {
                Failure::new(Kind::PeerLeft, "the other side left before the end; the transfer is incomplete")
            }
            Stop::There(code, message) => {
                let kind = match code {
                    Code::Protocol => Kind::PeerProgram,
                    _ => Kind::PeerLeft,
                };
                Failure::new(kind, format!("the other side failed: {}", printable(&message))).explained()
            }
        })
    }

    /// Tells the other side, if it does not know.
    pub(super) async fn tell(&self, write: &mut WriteHalf) {
        let Stop::Here(code, failure) = self else { return };
        let error = message::encode(&Message::Error { code: *code, message: failure.to_string() });
        let told = async {
            write.send(error).await.map_err(io::Error::from)?;
            write.shutdown().await
        };
        let told = tokio::time::timeout(MOMENT, told).await;
        tracing::debug!(?told, "told the other side why this one ends");
    }
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Stop {
        let message = format!("the other side broke the protocol: {violation}");
        Stop::Here(Code::Protocol, Failure::new(Kind::PeerProgram, printable(&message)))
    }
}

/// What takes time and is done in turn.
#[derive(Debug)]
pub(super) enum Task {
    Decide { offer: u64, items: Vec<Item> },
    MakeDirectories(ItemId, Vec<Directory>),
    Finish(ItemId),
}

/// What our sender waits for.
#[derive(Debug)]
pub(super) enum Reply {
    Answers(Vec<Answer>),
    Finished,
}

/// What goes between the parts of a side.
pub(super) struct Queues {
    said: mpsc::Receiver<Message>,
    tasks: (mpsc::Sender<Task>, mpsc::Receiver<Task>),
    replies: (mpsc::Sender<Reply>, mpsc::Receiver<Reply>),
}

/// One side.
pub(super) struct Side<'h, H> {
    pub(super) client: Client,
    pub(super) host: &'h H,
    pub(super) landing: Option<Arc<Landing>>,
    pub(super) texts: bool,
    /// Where what was accepted goes.
    pub(super) accepted: RefCell<BTreeMap<ItemId, Accepted>>,
    pub(super) conversation: RefCell<Conversation>,
    pub(super) summary: RefCell<Summary>,
    /// Bytes of what we send that were acknowledged, and of what comes that are here.
    pub(super) acknowledged: Cell<u64>,
    pub(super) received: Cell<u64>,
    /// Held by the file whose data is written: one after the other.
    pub(super) turn: Mutex<()>,
    say: mpsc::Sender<Message>,
    over: watch::Sender<bool>,
}

impl<'h, H: Host> Side<'h, H> {
    pub(super) fn new(
        client: Client,
        host: &'h H,
        landing: Option<Landing>,
        texts: bool,
    ) -> (Side<'h, H>, Queues) {
        let (say, said) = mpsc::channel(WAITING);
        let side = Side {
            client,
            host,
            landing: landing.map(Arc::new),
            texts,
            accepted: RefCell::default(),
            conversation: RefCell::default(),
            summary: RefCell::default(),
            acknowledged: Cell::new(0),
            received: Cell::new(0),
            turn: Mutex::new(()),
            say,
            over: watch::Sender::new(false),
        };
        (side, Queues { said, tasks: mpsc::channel(WAITING), replies: mpsc::channel(1) })
    }

    pub(super) fn summary(&self) -> Summary {
        self.summary.borrow().clone()
    }

    pub(super) async fn run(
        &self,
        read: ReadHalf,
        write: &mut WriteHalf,
        server: Server,
        outgoing: Vec<Outgoing>,
        queues: Queues,
    ) -> Result<(), Stop> {
        let Queues { said, tasks, replies } = queues;
        let send = async {
            self.send_all(outgoing, replies.1).await?;
            let end = self.conversation.borrow_mut().end();
            self.say(end).await;
            self.check_over();
            Ok(())
        };
        tokio::try_join!(
            self.hear(read, tasks.0, replies.0),
            self.speak(write, said),
            self.attend(tasks.1),
            self.take_files(server),
            send,
        )?;
        Ok(())
    }

    /// Sends a message, after those before.
    pub(super) async fn say(&self, message: Message) {
        // It is taken until the session is over.
        let _ = self.say.send(message).await;
    }

    /// Waits until neither side has any more.
    pub(super) async fn over(&self) {
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Why the session ends when a file's subchannel gave no frame.
    pub(super) async fn fault(&self, fault: ReadFault) -> Stop {
        match fault {
            ReadFault::Lost(error) => self.lost(error).await,
            ReadFault::Cut => {
                tokio::time::sleep(MOMENT).await;
                Violation::new("a subchannel ends before its last frame").into()
            }
            ReadFault::Wrong(violation) => violation.into(),
        }
    }

    /// A subchannel failed. The other side says why, if it can.
    pub(super) async fn lost(&self, error: impl Into<io::Error>) -> Stop {
        let error = error.into();
        tokio::time::sleep(MOMENT).await;
        Stop::Wormhole(error)
    }

    pub(super) fn tell(&self, event: Event<'_>) {
        self.host.tell(event);
    }

    fn check_over(&self) {
        if self.conversation.borrow().is_over() {
            self.over.send_replace(true);
        }
    }

    async fn speak(&self, write: &mut WriteHalf, mut said: mpsc::Receiver<Message>) -> Result<(), Stop> {
        let hello = message::encode(&Message::Hello { version: VERSION });
        write.send(hello).await.map_err(Stop::wormhole)?;
        loop {
            let message = tokio::select! {
                biased;
                message = said.recv() => message,
                () = self.over() => None,
            };
            let Some(message) = message else { break };
            write.send(message::encode(&message)).await.map_err(Stop::wormhole)?;
        }
        // The other side has said that it has everything, so it may be gone.
        let _ = write.shutdown().await;
        Ok(())
    }

    async fn hear(
        &self,
        mut read: ReadHalf,
        tasks: mpsc::Sender<Task>,
        replies: mpsc::Sender<Reply>,
    ) -> Result<(), Stop> {
        loop {
            let message = read.recv().await;
            if self.conversation.borrow().is_over() {
                // Nothing that is said now matters; only the end does, of whatever kind.
                match message {
                    Ok(Some(_)) => continue,
                    Ok(None) | Err(_) => return Ok(()),
                }
            }
            let Some(message) = message.map_err(Stop::wormhole)? else { return Err(Stop::Left) };
            let message = message::decode(&message)?;
            let action = self.conversation.borrow_mut().hear(message)?;
            let Some(action) = action else { continue };
            // Who does not take it any more has failed, and says so.
            match action {
                Action::Decide { offer, items } => drop(tasks.send(Task::Decide { offer, items }).await),
                Action::MakeDirectories(id, directories) => {
                    drop(tasks.send(Task::MakeDirectories(id, directories)).await);
                }
                Action::Finish(id) => drop(tasks.send(Task::Finish(id)).await),
                Action::Answered(answers) => drop(replies.send(Reply::Answers(answers)).await),
                Action::Finished => drop(replies.send(Reply::Finished).await),
                Action::Fail { code, message } => return Err(Stop::There(code, message)),
                Action::Over => self.check_over(),
            }
        }
    }

    /// Does what takes time, in turn.
    async fn attend(&self, mut tasks: mpsc::Receiver<Task>) -> Result<(), Stop> {
        while let Some(task) = tasks.recv().await {
            match task {
                Task::Decide { offer, items } => {
                    let answers = self.answers(offer, &items).await?;
                    let answer = self.conversation.borrow_mut().decide(offer, answers)?;
                    self.say(answer).await;
                }
                Task::MakeDirectories(id, directories) => self.make_directories(id, directories).await?,
                Task::Finish(id) => {
                    self.finish(id).await?;
                    let finished = self.conversation.borrow_mut().finished(id);
                    self.say(finished).await;
                }
            }
        }
        Ok(())
    }
}
