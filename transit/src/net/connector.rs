//! Looks for links: listens, dials as the [`Race`] says, runs the handshakes, picks the winner.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use super::{
    attempt::{Candidate, Outcome, shake},
    dial::{self, prepare},
    link::Link,
    listener::Listener,
    now,
};
use crate::{
    handshake::{HandshakeLimits, KCM, LinkHandshake},
    hint::{Hint, HintLimits, RelayHint},
    noise::Ephemeral,
    path::Path,
    prologue::RelayRequest,
    race::{Dial, DialId, Race, RaceConfig, Retry, Route},
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
    /// How long a handshake may take once the two ends are in contact, until the keys are agreed on. Waiting for the
    /// peer at a relay does not count, nor does a Follower's wait for the Leader's choice. Default 10 s. Stops peers
    /// that connect and say nothing, and relays that paired us with a connection whose other end is gone.
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
            handshake_timeout: Duration::from_secs(10),
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
    /// This is the link. Every other connection is closed, and the search is over. A Leader's writer already holds the
    /// key confirmation that tells the Follower of the choice: flush it.
    ///
    /// It also comes while nothing is searched for, when the peer came by itself: it has lost the link that it had.
    Selected(Box<Link>),
}

/// What the tasks tell the connector.
enum Report {
    Connected(Attempt),
    Done { attempt: Option<Attempt>, path: Path, outcome: Outcome },
}

/// A dial of one search; what a former one reports late is nobody's business.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    search: u64,
    dial: DialId,
}

/// Looks for the peer, again and again, for as long as a dilation lives.
///
/// [`search`](Self::search) begins, and a [`ConnectorEvent::Selected`] ends it. The listener keeps its port from one
/// search to the next and accepts between them, too, so that a peer who remembers it gets through without being told.
/// Dropping the connector closes everything that was not selected.
#[derive(Debug)]
pub struct Connector {
    config: ConnectorConfig,
    listener: Option<Listener>,
    /// The peer's hints of its latest generation.
    remembered: Vec<Hint>,
    /// Between searches there is none.
    race: Option<Race>,
    /// There was a link before.
    met: bool,
    searches: u64,
    dials: JoinSet<()>,
    inbound: Inbound,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    events: VecDeque<ConnectorEvent>,
}

/// The handshakes of those who dialled us.
#[derive(Debug, Default)]
struct Inbound {
    tasks: JoinSet<()>,
    /// In the order of their arrival.
    handles: VecDeque<AbortHandle>,
}

impl Connector {
    /// Starts to listen, and no more. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// No listener could be made, though one was asked for, or `side` cannot be shown to a relay.
    pub fn new(mut config: ConnectorConfig) -> io::Result<Connector> {
        if RelayRequest::new(&config.key, &config.side).is_err() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the dilation side is not 16 hexadecimal digits",
            ));
        }
        config.limits.race.listen = config.listen;
        let listener = config.listen.then(Listener::bind).transpose()?;
        let (reporter, reports) = mpsc::channel(16);
        Ok(Connector {
            config,
            listener,
            remembered: Vec::new(),
            race: None,
            met: false,
            searches: 0,
            dials: JoinSet::new(),
            inbound: Inbound::default(),
            reports,
            reporter,
            events: VecDeque::new(),
        })
    }

    /// Begins a search. The peer's hints that are known are dialled at once. Begun while one runs it is another: what is
    /// under way belongs to a generation that is over, and is closed. But a peer who dialled us between searches has
    /// only been faster, and may go on.
    pub fn search(&mut self) {
        if self.race.is_some() {
            self.rest();
        }
        self.start_over();
    }

    /// The network has changed: gives up the dials that are under way, which may wait for an answer that cannot come,
    /// and begins anew; if nothing is searched for, only tells our hints again.
    pub fn handle_network_change(&mut self) {
        match self.race {
            Some(_) => self.start_over(),
            None => self.tell_hints(),
        }
    }

    /// Ends the search and closes everything that is under way. Who dials us is still heard.
    pub fn rest(&mut self) {
        self.race = None;
        self.dials.abort_all();
        self.inbound = Inbound::default();
        // What the tasks reported before their end is void, too.
        (self.reporter, self.reports) = mpsc::channel(16);
        self.events.clear();
    }

    /// Takes the hints of a message of the peer. `first` of its generation: those of former ones are forgotten.
    pub fn add_peer_hints(&mut self, hints: Vec<Hint>, first: bool) {
        if first {
            self.remembered.clear();
        }
        if let Some(race) = &mut self.race {
            race.handle_hints(&hints, now());
        }
        let room = self.config.limits.race.max_direct + self.config.limits.race.max_relays;
        let new: Vec<Hint> = hints.into_iter().filter(|hint| !self.remembered.contains(hint)).collect();
        self.remembered.extend(new.into_iter().take(room.saturating_sub(self.remembered.len())));
    }

    /// The next event.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: all state is in `self`.
    pub async fn next(&mut self) -> ConnectorEvent {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            if let Some(dial) = self.race.as_mut().and_then(|race| race.poll_dial(now())) {
                self.events.push_back(ConnectorEvent::Dialing(dial.path()));
                self.dial(dial);
                continue;
            }
            let due = self.race.as_ref().and_then(Race::poll_timeout);
            tokio::select! {
                Some(report) = self.reports.recv() => self.handle(report),
                (stream, from) = accept(self.listener.as_ref()) => self.accept(stream, from),
                Some(_) = self.dials.join_next(), if !self.dials.is_empty() => {}
                Some(_) = self.inbound.tasks.join_next(), if !self.inbound.tasks.is_empty() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    fn start_over(&mut self) {
        self.dials.abort_all();
        self.searches += 1;
        let now = now();
        let mut config = self.config.limits.race.clone();
        if self.met {
            config.relay_delay = config.relay_delay_again.min(config.relay_delay);
        }
        let mut race = Race::new(config, &self.config.relays, now);
        race.handle_hints(&self.remembered, now);
        self.race = Some(race);
        self.tell_hints();
    }

    fn tell_hints(&mut self) {
        let mut hints =
            self.listener.as_ref().map_or_else(Vec::new, |listener| listener.hints(self.config.loopback));
        hints.extend(self.config.relays.iter().cloned().map(Hint::Relay));
        if !hints.is_empty() {
            self.events.push_back(ConnectorEvent::LocalHints(hints));
        }
    }

    fn handle(&mut self, report: Report) {
        match report {
            Report::Connected(attempt) => {
                if let Some(race) = self.race_of(attempt) {
                    race.handle_connected(attempt.dial);
                }
            }
            Report::Done { attempt, path, outcome } => {
                if attempt.is_some_and(|attempt| self.race_of(attempt).is_none()) {
                    return;
                }
                match outcome {
                    Outcome::Failed { reason, retry } => {
                        if let Some(attempt) = attempt
                            && let Some(race) = self.race_of(attempt)
                        {
                            race.handle_failed(attempt.dial, retry, now());
                        }
                        self.events.push_back(ConnectorEvent::Failed { path, reason });
                    }
                    Outcome::Confirmed(candidate) => self.select(*candidate, path),
                }
            }
        }
    }

    /// The race that an attempt belongs to, if it still runs.
    fn race_of(&mut self, attempt: Attempt) -> Option<&mut Race> {
        self.race.as_mut().filter(|_| attempt.search == self.searches)
    }

    /// The first one wins. Losers, dialled and accepted, are closed by the end of their tasks.
    fn select(&mut self, candidate: Candidate, path: Path) {
        self.rest();
        self.met = true;
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
        let timeout = self.config.limits.handshake_timeout;
        let reporter = self.reporter.clone();
        let attempt = Attempt { search: self.searches, dial: dial.id };
        self.dials.spawn(async move {
            let outcome = match dial::connect(&dial.endpoint, dial.patience).await {
                Ok(stream) => {
                    let _ = reporter.send(Report::Connected(attempt)).await;
                    shake(stream, handshake, timeout).await
                }
                Err(error) => Outcome::Failed { reason: error.to_string(), retry: Retry::Later },
            };
            let _ = reporter.send(Report::Done { attempt: Some(attempt), path: dial.path(), outcome }).await;
        });
    }

    fn accept(&mut self, stream: TcpStream, from: SocketAddr) {
        prepare(&stream);
        let handshake = self.handshake(None);
        let (timeout, reporter) = (self.config.limits.handshake_timeout, self.reporter.clone());
        let shaking = async move {
            let outcome = shake(stream, handshake, timeout).await;
            let _ = reporter.send(Report::Done { attempt: None, path: Path::inbound(from), outcome }).await;
        };
        let Inbound { tasks, handles } = &mut self.inbound;
        handles.retain(|task| !task.is_finished());
        if handles.len() >= self.config.limits.inbound
            && let Some(oldest) = handles.pop_front()
        {
            oldest.abort();
        }
        handles.push_back(tasks.spawn(shaking));
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

async fn accept(listener: Option<&Listener>) -> (TcpStream, SocketAddr) {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<std::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
