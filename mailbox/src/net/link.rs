//! One open websocket: sends and receives texts, pings, and notices silence.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Sink, Stream as _};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::NetConfig;
use super::clock::now;
use super::connect::Socket;

/// How long the websocket's own farewell may take before the connection is just dropped.
const FAREWELL: Duration = Duration::from_secs(1);

/// How much one turn reads before it gives the task back.
const BATCH: usize = 64;

/// Why a connection cannot go on.
pub(super) enum Loss {
    /// The reason, as a sentence's part. Another connection may help.
    Reason(String),
    /// It was in doubt, and showed no life in time.
    Doubt,
    /// A message is larger than the limit. It would be replayed on the next connection, for ever.
    TooLarge,
}

pub(super) struct Link {
    socket: Socket,
    ping_interval: Duration,
    ping_timeout: Duration,
    probe_timeout: Duration,
    /// The connection is in doubt, and has until then to show life.
    probe: Option<Instant>,
    /// When something last arrived.
    heard: Instant,
    timer: Pin<Box<Sleep>>,
    next_ping: Instant,
}

impl Link {
    pub(super) fn new(socket: Socket, config: &NetConfig) -> Self {
        let heard = now();
        let next_ping = heard + config.ping_interval;
        Self {
            socket,
            ping_interval: config.ping_interval,
            ping_timeout: config.ping_timeout,
            probe_timeout: config.probe_timeout,
            probe: None,
            heard,
            timer: Box::pin(sleep_until(next_ping)),
            next_ping,
        }
    }

    /// Puts the connection in doubt: it is pinged at once and has [`NetConfig::probe_timeout`] to show life.
    pub(super) fn probe(&mut self) {
        let now = now();
        self.probe.get_or_insert(now + self.probe_timeout);
        self.next_ping = now;
        self.timer.as_mut().reset(now);
    }

    /// Sends every text that `next` gives, as far as the socket takes it. An error is the reason of the loss.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut() -> Option<String>,
    ) -> Result<(), Loss> {
        loop {
            let full = loop {
                match Pin::new(&mut self.socket).poll_ready(cx) {
                    Poll::Pending => break true,
                    Poll::Ready(result) => result.map_err(reason)?,
                }
                let Some(text) = next() else { break false };
                Pin::new(&mut self.socket).start_send(Message::text(text)).map_err(reason)?;
            };
            self.poll_ping(cx)?;
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) if full => {}
                Poll::Ready(Ok(())) | Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(reason(error)),
            }
        }
    }

    /// Wire facts, section 1: a ping every 30 s, and the end after 60 s of silence.
    fn poll_ping(&mut self, cx: &mut Context<'_>) -> Result<(), Loss> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = now();
            if now >= self.heard + self.ping_timeout {
                let silence = self.ping_timeout.as_secs_f32();
                return Err(Loss::Reason(format!("the mailbox server was silent for {silence} s")));
            }
            if self.probe.is_some_and(|deadline| now >= deadline) {
                return Err(Loss::Doubt);
            }
            if now >= self.next_ping && Pin::new(&mut self.socket).poll_ready(cx).is_ready() {
                Pin::new(&mut self.socket).start_send(Message::Ping(Bytes::new())).map_err(reason)?;
                self.next_ping = now + self.ping_interval;
            }
            let deadline =
                (self.heard + self.ping_timeout).min(self.probe.unwrap_or(self.heard + self.ping_timeout));
            // A ping that found no room is retried when the flush makes some, or at the next interval.
            let wake = if self.next_ping > now { self.next_ping } else { now + self.ping_interval };
            self.timer.as_mut().reset(wake.min(deadline));
        }
        Ok(())
    }

    /// Gives received texts to `take` until it has had enough. Pending only if there was none: a text may
    /// have caused something to send.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&str) -> bool,
    ) -> Poll<Result<(), Loss>> {
        for received in 0..BATCH {
            let message = match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Pending if received == 0 => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(Some(Ok(message))) => message,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(reason(error))),
                Poll::Ready(None) => return Poll::Ready(Err(Loss::Reason(GONE.to_owned()))),
            };
            self.heard = now();
            self.probe = None;
            let enough = match &message {
                Message::Text(text) => take(text),
                // The protocol wants text; the documentation of the server says binary.
                Message::Binary(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => take(text),
                    Err(_) => {
                        let reason = "the mailbox server sent bytes that are no text";
                        return Poll::Ready(Err(Loss::Reason(reason.to_owned())));
                    }
                },
                Message::Close(_) => return Poll::Ready(Err(Loss::Reason(GONE.to_owned()))),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => false,
            };
            if enough {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Says farewell, for a bounded time.
    pub(super) async fn close(mut self) {
        let _ = tokio::time::timeout(FAREWELL, self.socket.close(None)).await;
    }
}

const GONE: &str = "the mailbox server closed the connection";

fn reason(error: Error) -> Loss {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => Loss::Reason(GONE.to_owned()),
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Loss::TooLarge,
        error => Loss::Reason(error.to_string()),
    }
}
