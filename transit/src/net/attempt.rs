//! One attempt: the handshake over a connection that was dialled or accepted.

use std::{io, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

use super::{attempts::AwaitsChoice, dial::reset_on_drop, now};
use crate::{
    dialect::Offer,
    handshake::{HandshakeError, LinkHandshake, Stage},
    pipe::{Opener, Sealer},
    prologue::{PrologueError, RelayError},
    race::Retry,
};

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

/// Runs a handshake until the peer has confirmed its key.
pub(super) async fn shake(
    mut stream: TcpStream,
    mut handshake: LinkHandshake,
    guidance: &Guidance,
) -> Outcome {
    if let Err(failure) = drive(&mut stream, &mut handshake, guidance).await {
        reset_on_drop(&stream);
        return failure;
    }
    let peer = handshake.peer_offer().unwrap_or_default();
    let generation = handshake.generation().unwrap_or_default();
    match handshake.into_pipe() {
        Some((sealer, opener)) => {
            Outcome::Confirmed(Box::new(Confirmed { stream, sealer, opener, peer, generation }))
        }
        None => Outcome::Failed { reason: "the handshake did not finish".to_owned(), retry: Retry::Later },
    }
}

async fn drive(
    stream: &mut TcpStream,
    handshake: &mut LinkHandshake,
    guidance: &Guidance,
) -> Result<(), Outcome> {
    let timeout = guidance.timeout;
    let network = |error: io::Error| Outcome::Failed { reason: error.to_string(), retry: Retry::Later };
    let relayed = handshake.stage() == Stage::Relay;
    let mut input = BytesMut::with_capacity(4096);
    let mut deadline = tokio::time::Instant::from_std(now() + timeout);
    while !handshake.is_confirmed() {
        if let Some(output) = handshake.poll_output() {
            stream.write_all(&output).await.map_err(network)?;
        }
        let before = handshake.stage();
        let unhurried = handshake.is_unhurried();
        input.clear();
        let read = tokio::select! {
            read = stream.read_buf(&mut input) => read.map_err(network)?,
            () = tokio::time::sleep_until(deadline), if !unhurried => {
                let reason = format!("no progress within {} s while {before}", timeout.as_secs());
                return Err(Outcome::Failed { reason, retry: Retry::Later });
            }
        };
        if read == 0 {
            let reason = handshake.handle_eof().to_string();
            return Err(Outcome::Failed { reason, retry: Retry::Later });
        }
        handshake.set_offer(*guidance.offer.borrow());
        handshake
            .handle_input(&input)
            .map_err(|error| Outcome::Failed { reason: error.to_string(), retry: retry(&error, relayed) })?;
        if before == Stage::Relay && handshake.stage() != Stage::Relay {
            deadline = tokio::time::Instant::from_std(now() + timeout);
        }
        if handshake.awaits_choice() {
            guidance.awaits_choice.set();
        }
    }
    if let Some(output) = handshake.poll_output() {
        stream.write_all(&output).await.map_err(network)?;
    }
    Ok(())
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
