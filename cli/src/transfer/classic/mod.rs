//! The classic file transfer, with any program that is not ours: one offer, one answer, one connection, one hash.

mod archive;
mod feed;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzz;
mod message;
mod receiver;
mod sender;
mod unpack;

use std::{pin::pin, time::Duration};

use dilated::{
    Wormhole,
    transit::{ConnectError, Hint, Side, TransferError, Transit, TransitConfig, TransitKey},
};
use serde_json::Value;
use tokio::sync::mpsc;

use self::message::Message;
pub(super) use self::{
    archive::{item, several, spooled},
    receiver::{Wish, receive},
    sender::{Content, send},
};
use crate::{
    exit::{Failure, Kind},
    options::{Global, TRANSFER_APPID},
    quote::printable,
    show::Show,
    transfer::ABILITIES,
};

/// Hints of the other side that are used, over all its messages.
const MOST_HINTS: usize = 100;

/// What both parts need.
pub(super) struct Classic<'a> {
    global: &'a Global,
    wormhole: &'a Wormhole,
    /// The other side's `app_versions`.
    about: &'a Value,
    /// The messages of the other side.
    messages: mpsc::Receiver<Vec<u8>>,
    show: &'a Show,
    /// Where it can be reached, as far as it has said so.
    hints: Vec<Hint>,
    /// Whether it has said anything of that.
    heard: bool,
    /// Whether the other side was told that this one gives up.
    told: bool,
}

/// The last message of a side that ended with `failure`, if it has not said one.
pub(super) fn last_word(failure: &Failure) -> Option<Vec<u8>> {
    match failure.kind() {
        Kind::Interrupted | Kind::Terminated => Some(message::error("transfer cancelled")),
        Kind::Code => Some(message::error("verification rejected, transfer abandoned")),
        _ => None,
    }
}

impl<'a> Classic<'a> {
    /// With a side whose `app_versions` are `about`.
    pub(super) fn new(
        global: &'a Global,
        wormhole: &'a Wormhole,
        about: &'a Value,
        messages: mpsc::Receiver<Vec<u8>>,
        show: &'a Show,
    ) -> Classic<'a> {
        Classic { global, wormhole, about, messages, show, hints: Vec::new(), heard: false, told: false }
    }

    /// Starts to listen for the connection.
    fn transit<S: Side>(&self) -> Result<Transit<S>, Failure> {
        let key = self.wormhole.derive_key(&self.key_purpose(), 32)?;
        let key = TransitKey::new(key.try_into().expect("as many bytes as were asked for"));
        let mut config = TransitConfig::new(key);
        let dilation = self.global.dilate_config()?;
        config.listen = dilation.listen;
        config.loopback = dilation.loopback;
        config.relays = dilation.relays;
        config.proxy = dilation.proxy;
        Transit::new(config).map_err(|error| Failure::io("could not listen for a connection", &error))
    }

    /// The command of the original has one purpose whatever the application is; programs in Go and Rust derive it from
    /// the application, and those in Rust tell their abilities.
    fn key_purpose(&self) -> String {
        let appid = match self.about.get(ABILITIES) {
            Some(_) => self.global.appid(TRANSFER_APPID),
            None => TRANSFER_APPID,
        };
        format!("{appid}/transit-key")
    }

    fn say(&self, message: Vec<u8>) -> Result<(), Failure> {
        Ok(self.wormhole.send_message(message)?)
    }

    /// The next message that makes sense, unless the other side gives up. What it says about where it can be reached
    /// is kept.
    async fn hear(&mut self) -> Result<Message, Failure> {
        loop {
            let Some(bytes) = self.messages.recv().await else {
                // The wormhole has ended, and tells why.
                self.wormhole.next_message().await?;
                continue;
            };
            match Message::parse(&bytes) {
                Some(Message { error: Some(error), .. }) => return Err(abandoned(&error)),
                Some(message) => {
                    if let Some(hints) = &message.transit {
                        self.heard = true;
                        self.hints.extend(hints.iter().cloned());
                        self.hints.truncate(MOST_HINTS);
                    }
                    return Ok(message);
                }
                None => tracing::info!("a message that is no JSON object was ignored"),
            }
        }
    }

    /// Waits until the other side gives up, or is gone with the wormhole.
    async fn gives_up(&mut self) -> Failure {
        loop {
            if let Err(failure) = self.hear().await {
                return failure;
            }
        }
    }

    /// Runs `work`, unless the other side gives up before its end.
    async fn unless_abandoned<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        /// Why the other side left, it says through the mailbox, which may be slower than the connection.
        const MOMENT: Duration = Duration::from_secs(1);
        let mut abandoned = pin!(self.gives_up());
        tokio::select! {
            outcome = work => match outcome {
                Err(failure) if failure.kind() == Kind::PeerLeft => {
                    Err(tokio::time::timeout(MOMENT, abandoned).await.unwrap_or(failure))
                }
                outcome => outcome,
            },
            failure = &mut abandoned => Err(failure),
        }
    }

    /// Tells the other side that this one gives up, and why.
    fn refuse(&mut self, reason: &str) {
        self.told = true;
        // When the wormhole has ended, there is nobody to tell.
        let _ = self.say(message::error(reason));
    }

    /// Tells the other side that this one gives up, unless it knows.
    fn give_up<T>(&mut self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &outcome
            && !self.told
        {
            let reason = match failure.kind() {
                // What it is in detail may be private.
                Kind::Local | Kind::OutputClosed => "transfer failed, the reason is on the other machine",
                Kind::PeerProgram | Kind::Usage => "transfer failed, the two programs do not fit",
                _ => return outcome,
            };
            self.refuse(reason);
        }
        outcome
    }
}

/// What it means that the other side sent an error.
fn abandoned(error: &str) -> Failure {
    if error == message::REJECTED {
        return Failure::new(Kind::Declined, "the other side rejected the transfer");
    }
    Failure::new(Kind::PeerLeft, format!("the other side gave up: {}", printable(error)))
}

fn no_connection(error: &ConnectError) -> Failure {
    Failure::new(Kind::PeerLeft, printable(&error.to_string()))
}

fn broken(error: &TransferError) -> Failure {
    let kind = match error {
        TransferError::Local(_) => Kind::Local,
        TransferError::Long { .. } | TransferError::Record(_) | TransferError::RecordTooLong(_) => {
            Kind::PeerProgram
        }
        _ => Kind::PeerLeft,
    };
    Failure::new(kind, error.to_string())
}
