//! Two sides meet, and part: what is the same in every command that has another side.

mod last_word;
mod story;
mod verify;

use std::{cell::Cell, io, pin::pin, time::Duration};

use dilated::{Dilated, LinkStatus, Role, Wormhole, WormholeError};
use futures::StreamExt;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use self::last_word::LastWord;
use crate::{
    exit::{Failure, Kind},
    options::{Global, JoinOptions},
    show::Terminal,
    signals::Signals,
    status::Report,
};

/// How long the whole end may take, servers that do not answer included.
const END: Duration = Duration::from_secs(6);

/// What two sides meet for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Pipe,
    Bench,
    Transfer,
}

impl Purpose {
    /// The member of the `app_versions`, and of the last word, that belongs to it; also the command's name.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Purpose::Pipe => "pipe",
            Purpose::Bench => "bench",
            Purpose::Transfer => "transfer",
        }
    }

    fn work(self) -> &'static str {
        match self {
            Purpose::Pipe | Purpose::Transfer => "transfer",
            Purpose::Bench => "measurement",
        }
    }

    /// The command, or the commands, of this purpose.
    fn command(self) -> &'static str {
        match self {
            Purpose::Pipe => "pipe",
            Purpose::Bench => "bench",
            Purpose::Transfer => "send` or `dilated receive",
        }
    }

    /// Complains when the other side's `app_versions` are those of another command of ours.
    fn check(self, about: &Value) -> Result<(), Failure> {
        let all = [Purpose::Pipe, Purpose::Bench, Purpose::Transfer];
        let others = all.into_iter().filter(|other| *other != self);
        match others.into_iter().find(|other| about.get(other.key()).is_some()) {
            None => Ok(()),
            Some(other) => Err(Failure::new(
                Kind::PeerProgram,
                format!(
                    "the other side runs `dilated {}`, this side `dilated {}`; they do not fit",
                    other.command(),
                    self.command()
                ),
            )),
        }
    }
}

/// Why something on the link ended early.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The wormhole ended, and knows why.
    Wormhole(io::Error),
    /// This side failed.
    Here(Failure),
}

impl Broken {
    /// What a subchannel said at its end.
    pub(crate) fn wormhole(error: impl Into<io::Error>) -> Broken {
        Broken::Wormhole(error.into())
    }
}

/// The terminal for `--verify`. Opened before anything begins, because without it nobody can answer.
pub(crate) fn terminal(global: &Global) -> Result<Option<Terminal>, Failure> {
    global.verify.then(verify::open).transpose()
}

/// What the other side proved and said.
#[derive(Debug)]
pub(crate) struct Peer {
    verifier: [u8; 32],
    /// Its `app_versions`.
    pub(crate) about: Value,
}

impl Peer {
    /// What two people may compare, in hexadecimal digits.
    pub(crate) fn verifier(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.verifier)
    }

    /// Lets two people compare the verifier, if they want to.
    pub(crate) async fn confirm(&self, terminal: Option<Terminal>, report: &Report) -> Result<(), Failure> {
        match terminal {
            Some(terminal) => verify::ask(terminal, &self.verifier, report).await,
            None => Ok(()),
        }
    }
}

/// One side's wormhole, from the code to the end.
pub(crate) struct Meeting<'a> {
    pub(crate) wormhole: &'a Wormhole,
    pub(crate) purpose: Purpose,
    /// Told when the other side has all that it wanted: what then happens to the link is no news.
    pub(crate) complete: &'a watch::Sender<bool>,
    /// Where messages go that are not the other side's last word, for commands that have a use for them. The channel
    /// ends with the wormhole.
    pub(crate) messages: Cell<Option<mpsc::Sender<Vec<u8>>>>,
    pub(crate) report: &'a Report,
}

impl Meeting<'_> {
    /// Waits for the other side. `command` is what it has to run, given the code, when this side has none.
    pub(crate) async fn meet(
        &self,
        join: &JoinOptions,
        command: impl FnOnce(&str) -> String,
    ) -> Result<Peer, Failure> {
        self.code(join, command).await?;
        self.peer().await
    }

    /// Waits for the other side, when there is a code.
    pub(crate) async fn peer(&self) -> Result<Peer, Failure> {
        let verifier = self.wormhole.verifier().await?;
        self.report.line("the other side is here, and has the same code");
        let about = self.wormhole.versions().await?;
        self.purpose.check(&about)?;
        Ok(Peer { verifier, about })
    }

    /// Uses the code that was given, or gets one and shows it.
    async fn code(&self, join: &JoinOptions, command: impl FnOnce(&str) -> String) -> Result<(), Failure> {
        if let Some(code) = join.code() {
            if let Err(error) = self.wormhole.set_code(code) {
                return Err(self.reason(error).await);
            }
        } else {
            let code = match self.wormhole.allocate_code(join.code_length.into()).await {
                Ok(code) => code.to_string(),
                Err(error) => return Err(self.reason(error).await),
            };
            self.report.line("on the other side, run");
            self.report.plain(format_args!("    {}", command(&code)));
        }
        self.report.line("waiting for the other side");
        Ok(())
    }

    /// A wormhole that ended before it was used only says that it ended; closing it says why.
    pub(crate) async fn reason(&self, error: WormholeError) -> Failure {
        match error {
            WormholeError::Closed => self.wormhole.close().await.err().unwrap_or(error).into(),
            error => error.into(),
        }
    }

    /// Runs `session` until it ends, or the other side says that it left, or the user ends this one.
    pub(crate) async fn guard<T>(
        &self,
        session: impl Future<Output = Result<T, Failure>>,
        signals: &mut Signals,
    ) -> Result<T, Failure> {
        /// Why the other side left, it says through the mailbox, and what failed there, on the link. Either may be slower.
        const MOMENT: Duration = Duration::from_secs(1);
        let (mut session, mut mailbox) = (pin!(session), pin!(self.watch_mailbox()));
        tokio::select! {
            outcome = &mut session => match outcome {
                Err(failure) if failure.awaits_reason() => {
                    Err(tokio::time::timeout(MOMENT, mailbox).await.unwrap_or(failure))
                }
                outcome => outcome,
            },
            failure = &mut mailbox => match failure.awaits_reason() {
                true => match tokio::time::timeout(MOMENT, session).await {
                    Ok(Err(better)) if better.is_explained() => Err(better),
                    _ => Err(failure),
                },
                false => Err(failure),
            },
            failure = signals.next() => Err(failure),
        }
    }

    /// Tells the other side how this one ended, and ends the wormhole in order; a signal ends it at once.
    pub(crate) async fn part<T>(
        &self,
        outcome: Result<T, Failure>,
        signals: &mut Signals,
    ) -> Result<T, Failure> {
        let word = match &outcome {
            Ok(_) => Some(LastWord::Complete),
            Err(failure) => LastWord::about(failure),
        };
        self.leave(word.map(|word| word.to_bytes(self.purpose)), outcome, signals).await
    }

    /// Sends the last message, if there is one, and ends the wormhole in order; a signal ends it at once.
    pub(crate) async fn leave<T>(
        &self,
        message: Option<Vec<u8>>,
        outcome: Result<T, Failure>,
        signals: &mut Signals,
    ) -> Result<T, Failure> {
        if let Some(message) = message {
            // Without a key there is nobody to tell.
            let _ = self.wormhole.send_message(message);
        }
        tokio::select! {
            closed = tokio::time::timeout(END, self.wormhole.close()) => tracing::debug!(?closed, "the end"),
            _ = signals.next() => {}
        }
        outcome
    }
}

/// Whether this side leads, once that is known. When the wormhole ends first, whoever asks next learns why.
pub(crate) async fn leads(dilated: &Dilated) -> bool {
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
pub(crate) async fn reason(dilated: &Dilated, broken: Broken) -> Failure {
    /// The stream ends a moment before the status says why.
    const MOMENT: Duration = Duration::from_secs(3);
    let error = match broken {
        Broken::Here(failure) => return failure,
        Broken::Wormhole(error) => error,
    };
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_another_command_of_ours_is_refused() {
        for strange in [json!({}), json!([]), json!({ "greeter": 1 }), json!({ "pipe": {} })] {
            assert_eq!(Purpose::Pipe.check(&strange), Ok(()), "{strange}");
        }
        let failure = Purpose::Pipe.check(&json!({ "bench": {} })).unwrap_err();
        assert_eq!(failure.kind(), Kind::PeerProgram);
        assert!(failure.to_string().contains("runs `dilated bench`, this side `dilated pipe`"), "{failure}");
        assert!(Purpose::Bench.check(&json!({ "pipe": 1 })).is_err());
    }
}
