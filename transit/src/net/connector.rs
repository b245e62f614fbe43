//! One generation's search for a link: listens, dials as the [`Race`] says, runs the handshakes, picks the winner.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::{
    dial::{self, prepare, reset_on_drop},
    link::Link,
    now,
};
use crate::{
    handshake::{HandshakeError, HandshakeLimits, KCM, LinkHandshake, Stage},
    hint::{Hint, HintLimits, RelayHint, TcpHint},
    noise::Ephemeral,
    path::Path,
    pipe::{Opener, Sealer},
    prologue::{PrologueError, RelayError, RelayRequest},
    race::{Dial, Race, RaceConfig, Retry, Route, Verdict},
    role::{DilationKey, Role},
};

/// What a peer and the network may cost a [`Connector`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectorLimits {
    /// Of the hints in one message.
    pub hints: HintLimits,
    /// Of the dials, and their rhythm. `listen` is overwritten by [`ConnectorConfig::listen`].
    pub race: RaceConfig,
    /// Of the handshakes.
    pub handshake: HandshakeLimits,
    /// How long name resolution and TCP may take for one dial. Default 20 s.
    pub dial_timeout: Duration,
    /// How long a handshake may take once the two ends are in contact, until the keys are agreed on. Waiting for the
    /// peer at a relay does not count, nor does a Follower's wait for the Leader's choice. Default 30 s. Stops peers
    /// that connect and say nothing.
    pub handshake_timeout: Duration,
    /// Connections of others whose handshake is not finished; the oldest is dropped for a newer one. Default 32.
    /// Stops floods of connections from filling memory, without letting them keep the peer out.
    pub inbound: usize,
}

impl Default for ConnectorLimits {
    fn default() -> ConnectorLimits {
        ConnectorLimits {
            hints: HintLimits::default(),
            race: RaceConfig::default(),
            handshake: HandshakeLimits::default(),
            dial_timeout: Duration::from_secs(20),
            handshake_timeout: Duration::from_secs(30),
            inbound: 32,
        }
    }
}

/// What a [`Connector`] needs to know.
#[derive(Debug, Clone)]
pub struct ConnectorConfig {
    /// Ours.
    pub role: Role,
    /// The key that the peer must prove to have.
    pub key: DilationKey,
    /// Our dilation side, 16 hexadecimal digits; shown to relays.
    pub side: String,
    /// Listen for the peer and tell it our addresses.
    pub listen: bool,
    /// Tell the peer loopback addresses even when there are others.
    pub loopback: bool,
    /// Our relays.
    pub relays: Vec<RelayHint>,
    /// Bounds.
    pub limits: ConnectorLimits,
}

/// What a [`Connector`] reports.
#[derive(Debug)]
pub enum ConnectorEvent {
    /// Tell the peer these hints, in one message: Python delays a relay only if a direct hint came with it.
    LocalHints(Vec<Hint>),
    /// A dial begins.
    Dialing(Path),
    /// A dial or a handshake failed. Others go on.
    Failed {
        /// Which.
        path: Path,
        /// Why.
        reason: String,
    },
    /// This is the link. Every other connection is closed; nothing follows. A Leader's writer already holds the key
    /// confirmation that tells the Follower of the choice: flush it.
    Selected(Box<Link>),
}

/// How one attempt ended.
enum Outcome {
    Confirmed(Box<Candidate>),
    Failed { reason: String, retry: Retry },
}

struct Candidate {
    stream: TcpStream,
    sealer: Sealer,
    opener: Opener,
}

/// What the tasks tell the connector.
enum Report {
    Connected(crate::race::DialId),
    Done { attempt: Option<crate::race::DialId>, path: Path, outcome: Outcome },
    Inbound(TcpStream, SocketAddr),
}

/// Looks for the peer, for one generation.
///
/// Call [`next`](Self::next) until it gives [`ConnectorEvent::Selected`]. Dropping the connector closes everything
/// that was not selected.
#[derive(Debug)]
pub struct Connector {
    config: ConnectorConfig,
    race: Race,
    tasks: JoinSet<()>,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    inbound: VecDeque<AbortHandle>,
    events: VecDeque<ConnectorEvent>,
}

impl Connector {
    /// Starts to listen. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// No listener could be made, though one was asked for, or `side` cannot be shown to a relay.
    pub fn start(mut config: ConnectorConfig) -> io::Result<Connector> {
        if RelayRequest::new(&config.key, &config.side).is_err() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the dilation side is not 16 hexadecimal digits",
            ));
        }
        config.limits.race.listen = config.listen;
        let race = Race::new(config.limits.race.clone(), &config.relays, now());
        let (reporter, reports) = mpsc::channel(16);
        let mut tasks = JoinSet::new();
        let mut hints = Vec::new();
        if config.listen {
            for listener in dial::listen()? {
                let address = listener.local_addr()?;
                hints.extend(advertised(address, config.loopback));
                tasks.spawn(accept(listener, reporter.clone()));
            }
        }
        hints.extend(config.relays.iter().cloned().map(Hint::Relay));
        let mut events = VecDeque::new();
        if !hints.is_empty() {
            events.push_back(ConnectorEvent::LocalHints(hints));
        }
        Ok(Connector { config, race, tasks, reports, reporter, inbound: VecDeque::new(), events })
    }

    /// Takes the hints of a message of the peer.
    pub fn add_peer_hints(&mut self, hints: Vec<Hint>) {
        self.race.handle_hints(&hints, now());
    }

    /// The next event. Pends for ever after [`ConnectorEvent::Selected`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: all state is in `self`.
    pub async fn next(&mut self) -> ConnectorEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            if self.race.is_over() {
                return std::future::pending().await;
            }
            while let Some(dial) = self.race.poll_dial(now()) {
                self.events.push_back(ConnectorEvent::Dialing(dial.path()));
                self.dial(dial);
            }
            if !self.events.is_empty() {
                continue;
            }
            let due = self.race.poll_timeout();
            tokio::select! {
                report = self.reports.recv() => if let Some(report) = report {
                    self.handle(report);
                },
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    fn handle(&mut self, report: Report) {
        match report {
            Report::Connected(id) => self.race.handle_connected(id),
            Report::Inbound(stream, from) => self.accept(stream, from),
            Report::Done { attempt, path, outcome } => match outcome {
                Outcome::Failed { reason, retry } => {
                    if let Some(id) = attempt {
                        self.race.handle_failed(id, retry, now());
                    }
                    self.events.push_back(ConnectorEvent::Failed { path, reason });
                }
                Outcome::Confirmed(candidate) => self.confirmed(*candidate, path),
            },
        }
    }

    fn confirmed(&mut self, candidate: Candidate, path: Path) {
        if self.race.handle_confirmed() == Verdict::Loser {
            return;
        }
        // Losers, dialled and accepted, are closed by the end of their tasks.
        self.tasks.abort_all();
        self.reports.close();
        let Candidate { stream, sealer, opener } = candidate;
        let mut link = Link::new(stream, sealer, opener, path);
        if self.config.role == Role::Leader {
            // The choice. A new link has all its nonces, so this cannot fail.
            if let Err(error) = link.writer.seal(&[KCM]) {
                tracing::error!(%error, "could not confirm the choice of a link");
            }
        }
        self.events.push_back(ConnectorEvent::Selected(Box::new(link)));
    }

    fn dial(&mut self, dial: Dial) {
        let relay = match dial.route {
            Route::Direct => None,
            Route::Relay => RelayRequest::new(&self.config.key, &self.config.side).ok(),
        };
        let handshake = self.handshake(relay.as_ref());
        let (dial_timeout, timeout) = (self.config.limits.dial_timeout, self.config.limits.handshake_timeout);
        let reporter = self.reporter.clone();
        self.tasks.spawn(async move {
            let outcome = match dial::connect(&dial.endpoint, dial_timeout).await {
                Ok(stream) => {
                    let _ = reporter.send(Report::Connected(dial.id)).await;
                    shake(stream, handshake, timeout).await
                }
                Err(error) => Outcome::Failed { reason: error.to_string(), retry: Retry::Later },
            };
            let _ = reporter.send(Report::Done { attempt: Some(dial.id), path: dial.path(), outcome }).await;
        });
    }

    fn accept(&mut self, stream: TcpStream, from: SocketAddr) {
        prepare(&stream);
        self.inbound.retain(|task| !task.is_finished());
        if self.inbound.len() >= self.config.limits.inbound
            && let Some(oldest) = self.inbound.pop_front()
        {
            oldest.abort();
        }
        let handshake = self.handshake(None);
        let (timeout, reporter) = (self.config.limits.handshake_timeout, self.reporter.clone());
        let task = self.tasks.spawn(async move {
            let outcome = shake(stream, handshake, timeout).await;
            let _ = reporter.send(Report::Done { attempt: None, path: Path::inbound(from), outcome }).await;
        });
        self.inbound.push_back(task);
    }

    fn handshake(&self, relay: Option<&RelayRequest>) -> LinkHandshake {
        let ephemeral = Ephemeral::generate(&mut rand::rng());
        LinkHandshake::new(
            self.config.role,
            self.config.key.clone(),
            ephemeral,
            relay,
            self.config.limits.handshake,
        )
    }
}

/// The hints of one listener.
fn advertised(listener: SocketAddr, loopback: bool) -> impl Iterator<Item = Hint> {
    dial::local_addresses(loopback)
        .into_iter()
        .filter(move |address| address.is_ipv4() == listener.is_ipv4())
        .map(move |address| Hint::Direct(TcpHint::from_addr(address, listener.port())))
}

/// Accepts until aborted. Errors, of this connection or of the machine, do not end it.
async fn accept(listener: TcpListener, reporter: mpsc::Sender<Report>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                if reporter.send(Report::Inbound(stream, from)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "could not accept a connection");
                // Out of descriptors, perhaps: trying at once would only burn the processor.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Runs a handshake until the peer has confirmed its key.
async fn shake(mut stream: TcpStream, mut handshake: LinkHandshake, timeout: Duration) -> Outcome {
    match drive(&mut stream, &mut handshake, timeout).await {
        Ok(()) => match handshake.into_pipe() {
            Some((sealer, opener)) => Outcome::Confirmed(Box::new(Candidate { stream, sealer, opener })),
            None => {
                Outcome::Failed { reason: "the handshake did not finish".to_owned(), retry: Retry::Later }
            }
        },
        Err(failure) => {
            reset_on_drop(&stream);
            failure
        }
    }
}

async fn drive(
    stream: &mut TcpStream,
    handshake: &mut LinkHandshake,
    timeout: Duration,
) -> Result<(), Outcome> {
    let network = |error: io::Error| Outcome::Failed { reason: error.to_string(), retry: Retry::Later };
    let relayed = handshake.stage() == Stage::Relay;
    let mut input = BytesMut::with_capacity(4096);
    let mut deadline = tokio::time::Instant::from_std(now() + timeout);
    while !handshake.is_confirmed() {
        if let Some(output) = handshake.poll_output() {
            stream.write_all(&output).await.map_err(network)?;
        }
        let before = handshake.stage();
        let unhurried = matches!(before, Stage::Relay | Stage::Confirmation);
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
        handshake
            .handle_input(&input)
            .map_err(|error| Outcome::Failed { reason: error.to_string(), retry: retry(&error, relayed) })?;
        if before == Stage::Relay && handshake.stage() != Stage::Relay {
            deadline = tokio::time::Instant::from_std(now() + timeout);
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

async fn sleep_until(at: Option<std::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
