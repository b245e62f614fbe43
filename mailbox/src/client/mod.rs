//! The client of the mailbox server, as a plain state machine: no sockets, no clock, no randomness of its own.
//!
//! One [`Client`] is one wormhole. Whoever drives it owns a connection to the server and does, in this order
//! and whenever something changed:
//!
//! 1. tell what happened: [`handle_open`](Client::handle_open), [`handle_text`](Client::handle_text),
//!    [`handle_lost`](Client::handle_lost), [`handle_timeout`](Client::handle_timeout), or a verb of the
//!    application, such as [`set_code`](Client::set_code);
//! 2. send all of [`poll_transmit`](Client::poll_transmit), if connected;
//! 3. deliver all of [`poll_event`](Client::poll_event);
//! 4. ask [`poll_timeout`](Client::poll_timeout) when to call `handle_timeout`.
//!
//! Inside, small machines each own one question and one enum of states:
//!
//! ```text
//!   verbs ──► Client ──┬─ Input       the code, typed step by step          events ──►
//!                      ├─ Lister, Allocator   questions to the server
//!                      ├─ Nameplate   claim … release
//!                      ├─ Mailbox     open, add until echoed and when forgotten, close, de-duplicate
//!                      ├─ Session     SPAKE2, sealing, opening; early and unsent messages
//!                      └─ Stream ×2   numeric and dilate messages in order
//!                                     all speak to the server through one Wire
//! ```

mod backoff;
mod config;
mod event;
mod input;
mod mailbox;
mod nameplate;
mod requests;
mod sent;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod verbs;
mod wire;

use std::time::Instant;

use rand::CryptoRng;
use tracing::debug;

pub use backoff::Backoff;
pub use config::{ClientConfig, ClientLimits};
pub use event::{CodeStatus, ConnectionStatus, Event, KeyStatus, MailboxStatus, PeerVersions};

use crate::error::{WormholeError, printable};
pub use crate::message::Welcome;
use crate::message::{ClientMessage, Mood, Phase, ServerMessage};
use crate::{Code, wordlist};
use event::Events;
use input::Input;
use mailbox::MailboxMachine;
use nameplate::NameplateMachine;
use requests::{Allocator, Lister};
use session::{Action, Session};
use stream::Stream;
use wire::Wire;

/// How far the wormhole is.
#[derive(Debug)]
enum Stage {
    /// The other side has not proved the key.
    Lonely,
    /// It has.
    Happy,
    /// Waiting for the server to release and close, until the deadline, which the next poll sets.
    Closing { result: Result<(), WormholeError>, deadline: Option<Instant> },
    /// Ended.
    Closed,
}

/// One wormhole's client of the mailbox server. See the [module](self) for how to drive it.
pub struct Client {
    config: ClientConfig,
    side: String,
    rng: Box<dyn CryptoRng + Send>,
    stage: Stage,
    connection: ConnectionStatus,
    last_failure: Option<String>,
    ever_connected: bool,
    welcomed: bool,
    has_code: bool,
    wire: Wire,
    events: Events,
    input: Input,
    lister: Lister,
    allocator: Allocator,
    nameplate: NameplateMachine,
    mailbox: MailboxMachine,
    session: Session,
    messages: Stream,
    dilate: Stream,
    versions: Option<PeerVersions>,
    next_message: u64,
    next_dilate: u64,
}

impl Client {
    /// A client that is not connected yet. All randomness (the side, words, the key agreement, nonces) comes
    /// from `rng`, so that a seeded one replays a wormhole.
    #[must_use]
    pub fn new(config: ClientConfig, mut rng: impl CryptoRng + Send + 'static) -> Self {
        let mut side = [0; 5];
        rng.fill_bytes(&mut side);
        let side = data_encoding::HEXLOWER.encode(&side);
        Self {
            stage: Stage::Lonely,
            connection: ConnectionStatus::Disconnected,
            last_failure: None,
            ever_connected: false,
            welcomed: false,
            has_code: false,
            wire: Wire::default(),
            events: Events::default(),
            input: Input::new(),
            lister: Lister::default(),
            allocator: Allocator::default(),
            nameplate: NameplateMachine::new(),
            mailbox: MailboxMachine::new(),
            session: Session::new(side.clone()),
            messages: Stream::default(),
            dilate: Stream::default(),
            versions: None,
            next_message: 0,
            next_dilate: 0,
            rng: Box::new(rng),
            config,
            side,
        }
    }

    // What happened.

    /// A connection is being tried.
    pub fn handle_connecting(&mut self, url: &str) {
        if !self.is_closed() {
            self.connection = ConnectionStatus::Connecting { url: url.to_owned() };
            self.events.push(Event::Connecting { url: url.to_owned() });
        }
    }

    /// The attempt failed. The first one is fatal unless [`retry_first`](ClientConfig::retry_first) is set.
    pub fn handle_connect_failed(&mut self, url: &str, reason: &str) {
        if self.is_closed() {
            return;
        }
        let reason = self.disconnected(reason);
        if self.ever_connected || self.config.retry_first {
            self.events.push(Event::Disconnected { reason });
        } else {
            self.finish(Err(WormholeError::Connection { url: url.to_owned(), reason }));
        }
    }

    /// A websocket is open. Everything that the server must be told again is queued.
    pub fn handle_open(&mut self) {
        if self.is_closed() {
            return;
        }
        self.ever_connected = true;
        self.welcomed = false;
        self.connection = ConnectionStatus::Connected;
        self.last_failure = None;
        self.events.push(Event::Connected);
        self.wire.open();
        self.wire.send(ClientMessage::Bind {
            appid: self.config.appid.clone(),
            side: self.side.clone(),
            client_version: self.config.client_version.clone(),
        });
        self.nameplate.connected(&mut self.wire);
        self.mailbox.connected(&mut self.wire);
        self.lister.connected(&mut self.wire);
        self.allocator.connected(&mut self.wire);
    }

    /// The websocket is gone.
    pub fn handle_lost(&mut self, reason: &str) {
        self.wire.lose();
        if !self.is_closed() {
            let reason = self.disconnected(reason);
            self.events.push(Event::Disconnected { reason });
        }
    }

    fn disconnected(&mut self, reason: &str) -> String {
        let reason = printable(reason);
        self.connection = ConnectionStatus::Disconnected;
        self.last_failure = Some(reason.clone());
        reason
    }

    /// A text message of the server arrived.
    pub fn handle_text(&mut self, text: &str) {
        if self.is_closed() {
            return;
        }
        let handled =
            ServerMessage::parse(text, &self.config.limits).and_then(|message| self.handle(message));
        self.settle(handled);
    }

    /// Time has passed: ends a wormhole whose closing took too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Stage::Closing { deadline: Some(deadline), result } = &self.stage
            && now >= *deadline
        {
            debug!("the server did not confirm the close in time");
            let result = result.clone();
            self.finish(result);
        }
    }

    // What to do.

    /// The next text for the server. What is polled and not sent before the connection is lost needs no
    /// attention: it is repeated on the next.
    pub fn poll_transmit(&mut self) -> Option<String> {
        self.wire.pop().map(|message| message.to_json())
    }

    /// The next event. [`Event::Closed`] is the last.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Whether [`poll_event`](Self::poll_event) has something.
    #[must_use]
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let Stage::Closing { deadline, .. } = &mut self.stage else { return None };
        Some(*deadline.get_or_insert(now + self.config.close_timeout))
    }

    /// Whether the wormhole ended: the connection may be dropped.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.stage, Stage::Closed)
    }

    /// Whether the wormhole is ending or has ended.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing { .. } | Stage::Closed)
    }

    // Inside.

    fn handle(&mut self, message: ServerMessage) -> Result<(), WormholeError> {
        match message {
            ServerMessage::Welcome(welcome) => self.welcome(welcome)?,
            ServerMessage::Error(error) if !self.is_closing() => return Err(WormholeError::server(&error)),
            ServerMessage::Error(error) => {
                debug!(error = printable(&error), "the server complained while closing");
            }
            ServerMessage::Nameplates(listed) => {
                self.lister.answered();
                self.input.got_nameplates(listed);
            }
            ServerMessage::Allocated(nameplate) => {
                if let Some(count) = self.allocator.answered() {
                    let mut bytes = vec![0; count];
                    self.rng.fill_bytes(&mut bytes);
                    let code = Code::new(&nameplate, &wordlist::words(&bytes))?;
                    self.nameplate.set(nameplate, &mut self.wire);
                    self.got_code(code)?;
                }
            }
            ServerMessage::Claimed(mailbox) => {
                if self.nameplate.claimed() {
                    self.input.got_wordlist();
                    self.mailbox.got_mailbox(mailbox, &mut self.wire);
                }
            }
            ServerMessage::Released => self.nameplate.released(),
            ServerMessage::Closed => self.mailbox.closed(),
            ServerMessage::Pong(number) => self.mailbox.pong(number, &mut self.wire)?,
            ServerMessage::Message(message) => {
                if message.side != self.side && self.mailbox.is_open() {
                    self.nameplate.release(&mut self.wire);
                }
                if let Some(new) = self.mailbox.received(message, &self.side, &self.config.limits)? {
                    let received = self.session.got_message(new, &self.config, &mut self.rng);
                    self.act()?;
                    received?;
                }
            }
            ServerMessage::Ignored(kind) => {
                if kind != "ack" {
                    debug!(kind = printable(&kind), "unknown message of the server ignored");
                }
            }
        }
        Ok(())
    }

    fn welcome(&mut self, welcome: Welcome) -> Result<(), WormholeError> {
        if let Some(error) = &welcome.error {
            return Err(WormholeError::Welcome { message: printable(error) });
        }
        if !std::mem::replace(&mut self.welcomed, true) && !self.is_closing() {
            self.events.push(Event::Welcome(welcome));
        }
        Ok(())
    }

    fn got_code(&mut self, code: Code) -> Result<(), WormholeError> {
        self.events.push(Event::Code(code.clone()));
        let agreed = self.session.got_code(&code, &self.config, &mut self.rng);
        self.act()?;
        agreed
    }

    /// Does what the session asked for.
    fn act(&mut self) -> Result<(), WormholeError> {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Add { phase, body } => self.mailbox.add(&phase, &body, &mut self.wire),
                Action::UnverifiedKey(key) => self.events.push(Event::UnverifiedKey(key)),
                Action::Verified { verifier } => {
                    if matches!(self.stage, Stage::Lonely) {
                        self.stage = Stage::Happy;
                    }
                    self.events.push(Event::Verifier(verifier));
                }
                Action::Received { phase, plaintext } => self.received(&phase, plaintext)?,
            }
        }
        Ok(())
    }

    fn received(&mut self, phase: &Phase, plaintext: Vec<u8>) -> Result<(), WormholeError> {
        let limits = self.config.limits;
        match *phase {
            Phase::Version => {
                let versions = PeerVersions::parse(&plaintext)?;
                self.versions = Some(versions.clone());
                self.events.push(Event::Versions(versions));
            }
            Phase::Numeric(number) => {
                self.messages.insert(number, plaintext, &limits)?;
                while let Some(message) = self.messages.pop() {
                    self.events.push(Event::Message(message));
                }
            }
            Phase::Dilate(number) => self.dilate.insert(number, plaintext, &limits)?,
            Phase::Pake | Phase::Unknown => debug!("message of an unknown phase ignored"),
        }
        if self.versions.is_some() {
            while let Some(message) = self.dilate.pop() {
                self.events.push(Event::Dilate(message));
            }
        }
        self.dilate.check(&limits)?;
        self.events.check(&limits)
    }

    /// After each change: begins to close on an error, and ends when everything is given back.
    fn settle(&mut self, result: Result<(), WormholeError>) {
        if let Err(error) = result {
            self.begin_close(error.mood(), Err(error));
        }
        if let Stage::Closing { result, .. } = &self.stage
            && self.nameplate.is_done()
            && self.mailbox.is_done()
        {
            let result = result.clone();
            self.finish(result);
        }
    }

    fn begin_close(&mut self, mood: Mood, result: Result<(), WormholeError>) {
        if self.is_closing() {
            return;
        }
        self.stage = Stage::Closing { result, deadline: None };
        self.allocator.cancel();
        self.lister.answered();
        self.nameplate.close(&mut self.wire);
        self.mailbox.close(mood, &mut self.wire);
    }

    fn finish(&mut self, result: Result<(), WormholeError>) {
        self.stage = Stage::Closed;
        self.connection = ConnectionStatus::Closed;
        self.wire.lose();
        self.events.push(Event::Closed(result));
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("side", &self.side).field("stage", &self.stage).finish_non_exhaustive()
    }
}
