//! One attempt: the handshake over a connection that was dialled or accepted.

use std::{fmt, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

use super::{
    attempts::AwaitsChoice,
    dial::{linger, reset_on_drop},
    now,
};
use crate::{
    dialect::Offer,
    handshake::{HandshakeError, LinkHandshake, Stage},
    pipe::{Opener, Sealer},
    prologue::{PrologueError, RelayError},
    race::Retry,
};

/// How long somebody who dials us may keep silent before we begin.
const SILENCE: Duration = Duration::from_millis(300);

/// How long somebody who is turned away may take to read why.
const GOODBYE: Duration = Duration::from_secs(2);

/// How one attempt ended.
pub(super) enum Outcome {
    Confirmed(Box<Confirmed>),
    Failed { reason: String, retry: Retry },
}

/// A connection over which the peer has confirmed its key.
pub(super) struct Confirmed {
    pub(super) stream: TcpStream,
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    /// What the peer offered, and the generation of the link; both empty in `ged`.
    pub(super) peer: Offer,
    pub(super) generation: u64,
}

/// What a handshake needs from its connector while it runs.
pub(super) struct Guidance {
    /// For every wait that is not unhurried.
    pub(super) timeout: Duration,
    /// Ours, as it is at the moment.
    pub(super) offer: watch::Receiver<Offer>,
    pub(super) awaits_choice: AwaitsChoice,
}

/// A handshake, as the task sees it that moves its bytes.
pub(super) trait Handshake {
    /// How far it is, in words.
    type Stage: fmt::Display;

    fn poll_output(&mut self) -> Option<BytesMut>;
    fn handle_input(&mut self, bytes: &[u8]) -> Result<(), Refusal>;
    /// The other end closed the connection. Says what that means.
    fn handle_eof(&mut self) -> String;
    /// What is wrong if nothing more comes, as far as what came shows it.
    fn unfinished(&self) -> Option<String>;
    /// Whether we wait for somebody who dialled us to begin.
    fn is_reticent(&self) -> bool;
    /// We have waited long enough for that.
    fn handle_silence(&mut self);
    fn stage(&self) -> Self::Stage;
    /// Whether the relay has not joined us with anybody yet.
    fn is_at_relay(&self) -> bool;
    /// Whether the next byte may take as long as it likes.
    fn is_unhurried(&self) -> bool;
    /// Whether nothing is missing.
    fn is_done(&self) -> bool;
}

/// What came is wrong.
pub(super) struct Refusal {
    pub(super) reason: String,
    pub(super) retry: Retry,
}

impl Refusal {
    fn later(reason: impl fmt::Display) -> Refusal {
        Refusal { reason: reason.to_string(), retry: Retry::Later }
    }
}

/// Runs a handshake to its end. `timeout` is for every wait that is not unhurried. A connection on which it fails is reset
/// when it is dropped, unless there was something to say.
pub(super) async fn drive(
    stream: &mut TcpStream,
    handshake: &mut impl Handshake,
    timeout: Duration,
) -> Result<(), Refusal> {
    let result = exchange(stream, handshake, timeout).await;
    if result.is_err() {
        match handshake.poll_output() {
            // It is short, and the buffer of a new connection takes it.
            Some(output) if stream.try_write(&output).is_ok() => linger(stream, GOODBYE).await,
            _ => reset_on_drop(stream),
        }
    }
    result
}

async fn exchange(
    stream: &mut TcpStream,
    handshake: &mut impl Handshake,
    timeout: Duration,
) -> Result<(), Refusal> {
    let mut input = BytesMut::with_capacity(4096);
    let mut deadline = tokio::time::Instant::from_std(now() + timeout);
    loop {
        if let Some(output) = handshake.poll_output() {
            stream.write_all(&output).await.map_err(Refusal::later)?;
        }
        if handshake.is_done() {
            return Ok(());
        }
        let (before, at_relay, unhurried) =
            (handshake.stage(), handshake.is_at_relay(), handshake.is_unhurried());
        input.clear();
        let read = tokio::select! {
            read = stream.read_buf(&mut input) => read.map_err(Refusal::later)?,
            () = tokio::time::sleep(SILENCE), if handshake.is_reticent() => {
                handshake.handle_silence();
                continue;
            }
            () = tokio::time::sleep_until(deadline), if !unhurried => {
                let nothing = || format!("no progress within {} s while {before}", timeout.as_secs());
                return Err(Refusal::later(handshake.unfinished().unwrap_or_else(nothing)));
            }
        };
        if read == 0 {
            return Err(Refusal::later(handshake.handle_eof()));
        }
        handshake.handle_input(&input)?;
        if at_relay && !handshake.is_at_relay() {
            deadline = tokio::time::Instant::from_std(now() + timeout);
        }
    }
}

/// Runs the handshake of a link until the peer has confirmed its key.
pub(super) async fn shake(mut stream: TcpStream, handshake: LinkHandshake, guidance: Guidance) -> Outcome {
    let relayed = handshake.stage() == Stage::Relay;
    let mut guided = Guided { handshake, guidance, relayed };
    let timeout = guided.guidance.timeout;
    if let Err(Refusal { reason, retry }) = drive(&mut stream, &mut guided, timeout).await {
        return Outcome::Failed { reason, retry };
    }
    let handshake = guided.handshake;
    let peer = handshake.peer_offer().unwrap_or_default();
    let generation = handshake.generation().unwrap_or_default();
    match handshake.into_pipe() {
        Some((sealer, opener)) => {
            Outcome::Confirmed(Box::new(Confirmed { stream, sealer, opener, peer, generation }))
        }
        None => Outcome::Failed { reason: "the handshake did not finish".to_owned(), retry: Retry::Later },
    }
}

/// The handshake of a link, and what its connector has to say to it.
struct Guided {
    handshake: LinkHandshake,
    guidance: Guidance,
    relayed: bool,
}

impl Handshake for Guided {
    type Stage = Stage;

    fn poll_output(&mut self) -> Option<BytesMut> {
        self.handshake.poll_output()
    }

    fn handle_input(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.handshake.set_offer(*self.guidance.offer.borrow());
        self.handshake
            .handle_input(bytes)
            .map_err(|error| Refusal { reason: error.to_string(), retry: retry(&error, self.relayed) })?;
        if self.handshake.awaits_choice() {
            self.guidance.awaits_choice.set();
        }
        Ok(())
    }

    fn handle_eof(&mut self) -> String {
        self.handshake.handle_eof().to_string()
    }

    fn unfinished(&self) -> Option<String> {
        self.handshake.unfinished().map(|error| error.to_string())
    }

    fn is_reticent(&self) -> bool {
        self.handshake.is_reticent()
    }

    fn handle_silence(&mut self) {
        self.handshake.handle_silence();
    }

    fn stage(&self) -> Stage {
        self.handshake.stage()
    }

    fn is_at_relay(&self) -> bool {
        self.handshake.stage() == Stage::Relay
    }

    fn is_unhurried(&self) -> bool {
        self.handshake.is_unhurried()
    }

    fn is_done(&self) -> bool {
        self.handshake.is_confirmed()
    }
}

/// Whether what answered so could be the peer another time. At a relay whoever comes next is another one, and a proxy
/// before it may fail for a moment; only one that does not understand us never will.
fn retry(error: &HandshakeError, relayed: bool) -> Retry {
    match error {
        HandshakeError::Relay(RelayError::BadHandshake) => Retry::Never,
        // Perhaps we dialled ourselves, under an address that the peer has, too.
        HandshakeError::Prologue(PrologueError::SameRole(_)) => Retry::Later,
        _ if relayed => Retry::Later,
        _ => Retry::Never,
    }
}
