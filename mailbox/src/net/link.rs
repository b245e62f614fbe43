//! One open websocket: sends and receives texts, pings, and notices silence.

use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Sink, Stream as _};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::NetConfig;
use super::clock::now;
use super::connect::{Connection, Socket};

/// How much one turn reads before it gives the task back.
const BATCH: usize = 64;

/// Why a connection cannot go on.
pub(super) enum Loss {
    /// The reason, as a sentence's part. Another connection may help.
    Reason(String),
    /// It was in doubt, and the server did not answer in time.
    Doubt,
    /// The machine does not have the address of our end any more.
    AddressGone,
    /// A message is larger than the limit. It would be replayed on the next connection, for ever.
    TooLarge,
}

/// A question whether the server still answers.
struct Probe {
    /// What the ping carries. Only a pong that repeats it is an answer: whatever else arrives may have been on its way,
    /// or in a buffer here, before the connection broke.
    number: u64,
    deadline: Instant,
}

impl Probe {
    fn payload(&self) -> Bytes {
        Bytes::copy_from_slice(&self.number.to_be_bytes())
    }
}

pub(super) struct Link {
    socket: Socket,
    /// Our end.
    pub(super) local: SocketAddr,
    ping_interval: Duration,
    ping_timeout: Duration,
    probe_timeout: Duration,
    farewell: Duration,
    /// The connection is in doubt.
    probe: Option<Probe>,
    probes: u64,
    /// When something last arrived.
    heard: Instant,
    timer: Pin<Box<Sleep>>,
    next_ping: Instant,
}

impl Link {
    pub(super) fn new(connection: Connection, config: &NetConfig) -> Self {
        let heard = now();
        let next_ping = heard + config.ping_interval;
        Self {
            socket: connection.socket,
            local: connection.local,
            ping_interval: config.ping_interval,
            ping_timeout: config.ping_timeout,
            probe_timeout: config.probe_timeout,
            farewell: config.farewell,
            probe: None,
            probes: 0,
            heard,
            timer: Box::pin(sleep_until(next_ping)),
            next_ping,
        }
    }

    /// Puts the connection in doubt: it is pinged at once and has [`NetConfig::probe_timeout`] to answer. Asked again
    /// before it did, it has no more time than before.
    pub(super) fn probe(&mut self) {
        let now = now();
        self.probes += 1;
        let deadline = self.probe.as_ref().map_or(now + self.probe_timeout, |probe| probe.deadline);
        self.probe = Some(Probe { number: self.probes, deadline });
        self.next_ping = now;
    }

    /// Whether it still has to show that it answers.
    #[cfg(test)]
    pub(super) fn is_in_doubt(&self) -> bool {
        self.probe.is_some()
    }

    /// Whether the address of our end is not this machine's any more, so that nothing can arrive.
    pub(super) fn lost_its_address(&self) -> bool {
        let mut address = self.local;
        address.set_port(0);
        UdpSocket::bind(address).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrNotAvailable)
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
        loop {
            let now = now();
            if now >= self.timer.deadline() + self.probe_timeout / 4 {
                self.handle_late(now);
            }
            let silent = self.heard + self.ping_timeout;
            if now >= silent {
                let silence = self.ping_timeout.as_secs_f32();
                return Err(Loss::Reason(format!("the mailbox server was silent for {silence} s")));
            }
            let deadline = self.probe.as_ref().map_or(silent, |probe| probe.deadline.min(silent));
            if now >= deadline {
                return Err(Loss::Doubt);
            }
            // A ping that finds no room is tried again when the socket has some.
            if now >= self.next_ping && Pin::new(&mut self.socket).poll_ready(cx).is_ready() {
                let ping = Message::Ping(self.probe.as_ref().map_or_else(Bytes::new, Probe::payload));
                Pin::new(&mut self.socket).start_send(ping).map_err(reason)?;
                self.next_ping = now + self.ping_interval;
            }
            let wake = if self.next_ping > now { self.next_ping.min(deadline) } else { deadline };
            if self.timer.deadline() != wake {
                self.timer.as_mut().reset(wake);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
        }
    }

    /// It was us who did not look, asleep or without processor time. What the server sent may be here already, and what we
    /// owed it was not sent: it gets its time again, but the connection is in doubt.
    fn handle_late(&mut self, now: Instant) {
        self.heard = now;
        self.probe = None;
        self.probe();
    }

    fn ponged(&mut self, payload: &[u8]) {
        match &mut self.probe {
            Some(probe) if probe.payload() == payload => self.probe = None,
            // An earlier question was answered, so the latest has its whole time now.
            Some(probe) if !payload.is_empty() => probe.deadline = now() + self.probe_timeout,
            _ => {}
        }
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
                Message::Pong(payload) => {
                    self.ponged(payload);
                    false
                }
                Message::Ping(_) | Message::Frame(_) => false,
            };
            if enough {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Says farewell, for a bounded time.
    pub(super) async fn close(mut self) {
        let _ = tokio::time::timeout(self.farewell, self.socket.close(None)).await;
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
