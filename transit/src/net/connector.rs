//! Looks for links: listens, dials as the [`Race`] says, runs the handshakes, picks the winner.

use std::{collections::VecDeque, io, net::SocketAddr};

use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
};

use super::{
    attempt::{Confirmed, Guidance, Outcome, Refusal, shake},
    attempts::{Attempts, AwaitsChoice},
    candidate::Candidate,
    config::{ConnectorConfig, Search},
    dial::{self, prepare},
    link::Link,
    listener::Listener,
    now,
};
use crate::{
    better::Better,
    dialect::{LinkDialect, Offer},
    handshake::LinkHandshake,
    hint::{Hint, RelayHint},
    noise::Ephemeral,
    path::Path,
    prologue::{RelayRequest, SideError},
    race::{Dial, DialId, Race, Retry, Route},
    role::Role,
};

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
    ///
    /// In `ged` only.
    Selected(Box<Link>),
    /// This may become a link: [select](Candidate::select) it or drop it. The search goes on until
    /// [`Connector::rest`] ends it. It also comes while nothing is searched for, when the peer came by itself, and, for a
    /// Follower, some time after the search in which the connection was made.
    ///
    /// In `dilated-1` only.
    Candidate(Box<Candidate>),
}

/// What the tasks tell the connector.
enum Report {
    Connected(Attempt),
    Done { attempt: Option<Attempt>, path: Path, outcome: Outcome },
}

/// A dial of one search; what a former one reports late is nobody's business.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    search: u64,
    dial: DialId,
}

/// Looks for the peer, again and again, for as long as a dilation lives.
///
/// [`search`](Self::search) begins. In `ged` a [`ConnectorEvent::Selected`] ends it, in `dilated-1` it gives
/// [`ConnectorEvent::Candidate`]s until [`rest`](Self::rest). The listener keeps its port from one search to the next and
/// accepts between them, too, so that a peer who remembers it gets through without being told. Dropping the connector
/// closes everything that was not selected.
#[derive(Debug)]
pub struct Connector {
    config: ConnectorConfig,
    listener: Option<Listener>,
    /// The peer's hints of its latest generation.
    remembered: Vec<Hint>,
    /// Between searches there is none.
    race: Option<Race>,
    /// What the race is run for.
    search: Search,
    /// The race is not for a first link.
    better: Option<Better>,
    /// There was a link before.
    met: bool,
    searches: u64,
    /// What handshakes say of us.
    offer: watch::Sender<Offer>,
    dials: Attempts,
    inbound: Attempts,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    /// Candidates that were dropped. No more can wait than were given out.
    returned: mpsc::UnboundedReceiver<Attempt>,
    returns: mpsc::UnboundedSender<Attempt>,
    events: VecDeque<ConnectorEvent>,
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
        config.listen &= config.proxy.is_none();
        config.limits.race.listen = config.listen;
        config.limits.race.tor = config.proxy.is_some();
        let listener = config.listen.then(Listener::bind).transpose()?;
        let (reporter, reports) = mpsc::channel(16);
        let (returns, returned) = mpsc::unbounded_channel();
        Ok(Connector {
            config,
            listener,
            remembered: Vec::new(),
            race: None,
            search: Search::default(),
            better: None,
            met: false,
            searches: 0,
            offer: watch::Sender::default(),
            dials: Attempts::default(),
            inbound: Attempts::default(),
            reports,
            reporter,
            returned,
            returns,
            events: VecDeque::new(),
        })
    }

    /// Begins a search. The peer's hints that are known are dialled at once. Begun while one runs it is another: the dials
    /// that are under way belong to a generation that is over, and are closed, and in `ged` all handshakes are. But a peer
    /// who dialled us between searches has only been faster, and may go on.
    ///
    /// In `dilated-1` a Follower leaves those dials open that only wait for the Leader's choice: the Leader may be about to
    /// choose one of them, and closes them if not.
    pub fn search(&mut self, search: Search) {
        match self.config.dialect {
            LinkDialect::Ged if self.race.is_some() => self.rest(),
            LinkDialect::Ged => {}
            // Nobody leaves a generation without having heard the peer.
            LinkDialect::Dilated1 { .. } => self.met |= search.generation > 0,
        }
        self.begin(search, None);
        self.tell_hints();
    }

    /// Begins a gentle search for something better than the link of this generation that there is, in place of any other
    /// search. Endpoints are dialled at once, and again after [`better_first`](super::ConnectorLimits::better_first) and growing waits; at once,
    /// too, when the peer names new ones and when the network changes. The peer is not told our hints. Called again it
    /// begins anew.
    ///
    /// A link of `ged` cannot be replaced: there it does nothing.
    pub fn search_better(&mut self, generation: u64, better: Better) {
        if self.config.dialect != LinkDialect::Ged {
            self.begin(Search { generation, linked: true }, Some(better));
        }
    }

    /// What handshakes say of us from now on: our generation, and whether we have a link of it. A search says it, too; this
    /// is for the time between searches. `ged` ignores it.
    pub fn set_offer(&mut self, generation: u64, linked: bool) {
        self.offer.send_replace(Offer { generation, linked });
    }

    /// The network has changed: gives up the dials that are under way, which may wait for an answer that cannot come,
    /// and begins anew; if nothing is searched for, only tells our hints again.
    pub fn handle_network_change(&mut self) {
        if self.race.is_some() {
            self.start_race();
        }
        self.tell_hints();
    }

    /// Ends the search and closes everything that is under way. Who dials us is still heard.
    ///
    /// In `dilated-1` a Follower leaves open what only waits for the Leader's choice; what the Leader does not choose it
    /// closes when it comes to rest itself.
    pub fn rest(&mut self) {
        self.race = None;
        if self.leader_chooses() {
            self.dials.end_unfinished(self.config.limits.inbound);
            self.inbound.end_unfinished(self.config.limits.inbound);
            self.events.retain(|event| matches!(event, ConnectorEvent::Candidate(_)));
            return;
        }
        self.dials.end();
        self.inbound.end();
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
            race.handle_hints(&Better::admitted(self.better.as_ref(), &hints), now());
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
                Some(attempt) = self.returned.recv() => self.handle_failed(attempt, Retry::Later),
                () = self.dials.reap() => {}
                () = self.inbound.reap() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    fn begin(&mut self, search: Search, better: Option<Better>) {
        self.search = search;
        self.better = better;
        self.set_offer(search.generation, search.linked);
        self.start_race();
    }

    fn start_race(&mut self) {
        if self.leader_chooses() {
            self.dials.end_unfinished(self.config.limits.inbound);
        } else {
            self.dials.end();
        }
        self.searches += 1;
        let now = now();
        let limits = &self.config.limits;
        let mut config = limits.race.clone();
        if self.met {
            config.relay_delay = config.relay_delay_again.min(config.relay_delay);
        }
        if self.better.is_some() {
            (config.retry_first, config.retry_max) = (limits.better_first, limits.better_max);
        }
        let unsure = self.config.dialect != LinkDialect::Ged && !self.search.linked;
        config.relays_ahead = u8::from(unsure);
        let better = self.better.as_ref();
        let admits = |relay: &&RelayHint| better.is_none_or(|better| better.admits_relay(relay));
        let relays: Vec<RelayHint> = self.config.relays.iter().filter(admits).cloned().collect();
        let mut race = Race::new(config, &relays, now);
        race.handle_hints(&Better::admitted(better, &self.remembered), now);
        self.race = Some(race);
    }

    /// Whether a connection may wait for a choice that is not ours.
    fn leader_chooses(&self) -> bool {
        self.config.dialect != LinkDialect::Ged && self.config.role == Role::Follower
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
                let late = attempt.is_some_and(|attempt| self.race_of(attempt).is_none());
                match outcome {
                    Outcome::Failed { .. } if late => {}
                    Outcome::Failed { reason, retry } => {
                        if let Some(attempt) = attempt {
                            self.handle_failed(attempt, retry);
                        }
                        self.events.push_back(ConnectorEvent::Failed { path, reason });
                    }
                    // In `dilated-1` the generation says whether it comes too late.
                    Outcome::Confirmed(_) if late && self.config.dialect == LinkDialect::Ged => {}
                    Outcome::Confirmed(confirmed) => self.handle_confirmed(*confirmed, path, attempt),
                }
            }
        }
    }

    fn handle_failed(&mut self, attempt: Attempt, retry: Retry) {
        if let Some(race) = self.race_of(attempt) {
            race.handle_failed(attempt.dial, retry, now());
        }
    }

    /// The race that an attempt belongs to, if it still runs.
    fn race_of(&mut self, attempt: Attempt) -> Option<&mut Race> {
        self.race.as_mut().filter(|_| attempt.search == self.searches)
    }

    fn handle_confirmed(&mut self, confirmed: Confirmed, path: Path, attempt: Option<Attempt>) {
        let dial = attempt.map(|attempt| (attempt, self.returns.clone()));
        let candidate = Box::new(Candidate::new(confirmed, path, self.config.role, dial));
        if self.config.dialect == LinkDialect::Ged {
            // The first one wins. Losers, dialled and accepted, are closed by the end of their tasks.
            self.rest();
            self.met = true;
            self.events.push_back(ConnectorEvent::Selected(Box::new(candidate.select())));
            return;
        }
        self.events.push_back(ConnectorEvent::Candidate(candidate));
    }

    fn dial(&mut self, dial: Dial) {
        let relay = match dial.route {
            Route::Direct => None,
            Route::Relay => self.relay_request(u64::from(dial.ahead)).ok(),
        };
        let handshake = self.handshake(relay.as_ref());
        let (guide, reporter) = (self.guide(), self.reporter.clone());
        let (attempt, proxy) = (Attempt { search: self.searches, dial: dial.id }, self.config.proxy.clone());
        self.dials.spawn(|awaits_choice| async move {
            let outcome = match dial::connect(&dial.endpoint, proxy.as_ref(), dial.patience).await {
                Ok(stream) => {
                    let _ = reporter.send(Report::Connected(attempt)).await;
                    shake(stream, handshake, guide(awaits_choice)).await
                }
                Err(Refusal { reason, retry }) => Outcome::Failed { reason, retry },
            };
            let _ = reporter.send(Report::Done { attempt: Some(attempt), path: dial.path(), outcome }).await;
        });
    }

    fn accept(&mut self, stream: TcpStream, from: SocketAddr) {
        prepare(&stream);
        let handshake = self.handshake(None).accepted();
        let (guide, reporter) = (self.guide(), self.reporter.clone());
        self.inbound.limit(self.config.limits.inbound.saturating_sub(1));
        self.inbound.spawn(|awaits_choice| async move {
            let outcome = shake(stream, handshake, guide(awaits_choice)).await;
            let _ = reporter.send(Report::Done { attempt: None, path: Path::inbound(from), outcome }).await;
        });
    }

    fn guide(&self) -> impl FnOnce(AwaitsChoice) -> Guidance + use<> {
        let (timeout, offer) = (self.config.limits.handshake_timeout, self.offer.subscribe());
        move |awaits_choice| Guidance { timeout, offer, awaits_choice }
    }

    fn relay_request(&self, ahead: u64) -> Result<RelayRequest, SideError> {
        let ConnectorConfig { key, side, dialect, .. } = &self.config;
        match dialect {
            LinkDialect::Ged => RelayRequest::new(key, side),
            LinkDialect::Dilated1 { .. } => {
                RelayRequest::of_generation(key, side, self.search.generation.saturating_add(ahead))
            }
        }
    }

    fn handshake(&self, relay: Option<&RelayRequest>) -> LinkHandshake {
        let ConnectorConfig { role, key, dialect, limits, .. } = &self.config;
        let (key, ephemeral) = (key.clone(), Ephemeral::generate(&mut rand::rng()));
        match *dialect {
            LinkDialect::Ged => LinkHandshake::new(*role, key, ephemeral, relay, limits.handshake),
            LinkDialect::Dilated1 { aes } => {
                let offer = *self.offer.borrow();
                LinkHandshake::dilated1(*role, key, ephemeral, relay, limits.handshake, aes, offer)
            }
        }
    }
}

pub(super) async fn accept(listener: Option<&Listener>) -> (TcpStream, SocketAddr) {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

pub(super) async fn sleep_until(at: Option<std::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
