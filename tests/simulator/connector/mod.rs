//! The search for links, as the product's `Connector` makes it: the real race and the real handshakes on virtual
//! connections. In `ged` the first candidate that is confirmed wins; in `dilated-1` the side decides.

mod attempt;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use dilated_transit::{
    Better, DilationKey, Ephemeral, HandshakeLimits, Hint, LinkDialect, LinkHandshake, Offer, Path,
    RelayHint, RelayRequest, Role, TcpHint,
    race::{Dial, DialId, Race, RaceConfig, Retry, Route},
};

use self::attempt::Attempt;
pub(crate) use self::attempt::Candidate;
use crate::network::{Network, Notice, Place, to_ip};

/// How long Python waits for TCP.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);

/// As in `ConnectorLimits::default()`.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const INBOUND: usize = 32;
const BETTER_FIRST: Duration = Duration::from_secs(10);
const BETTER_MAX: Duration = Duration::from_secs(300);

/// How an implementation searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// One port for life, heard at all times; who fails is dialled again.
    Ours,
    /// A port for each generation, closed when it is over; each hint is dialled once.
    Python,
}

/// What the connector tells.
pub(crate) enum Found {
    LocalHints(Vec<Hint>),
    /// The connection that won; in `ged`.
    Selected(Box<Candidate>),
    /// A connection that may become a link, which is for the side to decide; in `dilated-1`.
    Candidate(Box<Candidate>),
}

pub(crate) struct Connector {
    host: usize,
    style: Style,
    role: Role,
    key: DilationKey,
    dialect: LinkDialect,
    relay: Option<RelayHint>,
    /// Ours, as relays are told it.
    side: String,
    port: u16,
    generation: u64,
    /// What our handshakes say.
    offer: Offer,
    better: Option<Better>,
    /// There was a link before.
    met: bool,
    /// Searches, and beginnings anew.
    searches: u64,
    /// Our address in the hints that were made last.
    remembered: Vec<Hint>,
    race: Option<Race>,
    attempts: BTreeMap<Place, Attempt>,
    found: VecDeque<Found>,
}

impl Connector {
    /// Starts to listen, and no more.
    pub(crate) fn new(
        host: usize,
        style: Style,
        (role, dialect): (Role, LinkDialect),
        key: DilationKey,
        (side, relay): (String, Option<RelayHint>),
        network: &mut Network,
    ) -> Connector {
        let port = 40_000;
        if style == Style::Ours {
            network.hosts[host].port = Some(port);
        }
        Connector {
            host,
            style,
            role,
            key,
            dialect,
            relay,
            side,
            port,
            generation: 0,
            offer: Offer::default(),
            better: None,
            met: false,
            searches: 0,
            remembered: Vec::new(),
            race: None,
            attempts: BTreeMap::new(),
            found: VecDeque::new(),
        }
    }

    /// Begins a search, or begins anew with one that runs.
    pub(crate) fn search(&mut self, generation: u64, network: &mut Network) {
        if self.is_ged() && self.race.is_some() || self.style == Style::Python {
            self.rest(network);
        }
        self.met |= generation > 0;
        self.better = None;
        self.generation = generation;
        self.set_offer(generation, false);
        if self.style == Style::Python {
            self.remembered.clear();
            self.port += 1;
            network.hosts[self.host].port = Some(self.port);
        }
        self.start_over(network);
    }

    /// Searches gently for something better than the link that there is; in `dilated-1`.
    pub(crate) fn search_better(&mut self, generation: u64, better: Better, network: &mut Network) {
        self.better = Some(better);
        self.generation = generation;
        self.set_offer(generation, true);
        self.start_race(network);
    }

    /// What handshakes say of us from now on.
    pub(crate) fn set_offer(&mut self, generation: u64, linked: bool) {
        self.offer = Offer { generation, linked };
    }

    /// Ends the search and closes everything that is under way, but what only waits for a Leader's choice.
    pub(crate) fn rest(&mut self, network: &mut Network) {
        self.race = None;
        if self.leader_chooses() {
            self.end_unfinished(|_| true, network);
            self.found.retain(|found| matches!(found, Found::Candidate(_)));
            return;
        }
        for (place, _) in std::mem::take(&mut self.attempts) {
            network.finish(place);
        }
        for found in self.found.drain(..) {
            if let Found::Selected(candidate) | Found::Candidate(candidate) = found {
                network.finish(candidate.place);
            }
        }
        if self.style == Style::Python {
            network.hosts[self.host].port = None;
        }
    }

    pub(crate) fn handle_network_change(&mut self, network: &mut Network) {
        match self.race {
            Some(_) => self.start_over(network),
            None => self.tell_hints(network),
        }
    }

    pub(crate) fn add_peer_hints(&mut self, hints: Vec<Hint>, first: bool, network: &mut Network) {
        if self.style == Style::Python && self.race.is_some() {
            // It knows no endpoint again: every message is dialled.
            self.start_race(network);
        }
        let now = network.now;
        if first {
            self.remembered.clear();
        }
        if let Some(race) = &mut self.race {
            race.handle_hints(&Better::admitted(self.better.as_ref(), &hints), now);
        }
        let limits = RaceConfig::default();
        let room = limits.max_direct + limits.max_relays;
        let new: Vec<Hint> = hints.into_iter().filter(|hint| !self.remembered.contains(hint)).collect();
        self.remembered.extend(new.into_iter().take(room.saturating_sub(self.remembered.len())));
    }

    /// The next thing that it found; dials whom it is time to dial.
    pub(crate) fn poll(&mut self, network: &mut Network) -> Option<Found> {
        loop {
            if let Some(found) = self.found.pop_front() {
                return Some(found);
            }
            let dial = self.race.as_mut()?.poll_dial(network.now)?;
            self.dial(&dial, network);
        }
    }

    /// When [`poll`](Self::poll) or [`handle_timeout`](Self::handle_timeout) have something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let attempts = self.attempts.values().filter_map(Attempt::due);
        attempts.chain(self.race.as_ref().and_then(Race::poll_timeout)).min()
    }

    pub(crate) fn handle_timeout(&mut self, network: &mut Network) {
        let late = |(place, attempt): (&Place, &Attempt)| {
            attempt.due().is_some_and(|due| due <= network.now).then_some(*place)
        };
        let late: Vec<Place> = self.attempts.iter().filter_map(late).collect();
        for place in late {
            network.abort(place);
            self.failed(place, Retry::Later, network.now);
        }
    }

    /// Something happened to a connection of its own. Returns whether it is one.
    pub(crate) fn handle(&mut self, place: Place, notice: Notice, network: &mut Network) -> bool {
        match notice {
            Notice::Accepted => self.accept(place, network),
            Notice::Refused if self.attempts.contains_key(&place) => {
                network.abort(place);
                self.failed(place, Retry::Later, network.now);
            }
            Notice::Connected => {
                let Some(attempt) = self.attempts.get_mut(&place) else { return false };
                attempt.connected = true;
                attempt.deadline = Some(network.now + HANDSHAKE_TIMEOUT);
                let dial = attempt.dial;
                if let Some((race, dial)) = self.race_of(dial) {
                    race.handle_connected(dial);
                }
                self.shake(place, network);
            }
            Notice::Ready if self.attempts.contains_key(&place) => self.shake(place, network),
            Notice::Refused | Notice::Ready => return false,
        }
        true
    }

    /// Closes everything, the listener included.
    pub(crate) fn shut(mut self, network: &mut Network) {
        self.close(|_| true, network);
        for found in self.found {
            if let Found::Selected(candidate) | Found::Candidate(candidate) = found {
                network.finish(candidate.place);
            }
        }
        network.hosts[self.host].port = None;
    }

    /// Whether these are the hints that it remembers.
    pub(crate) fn knows(&self, hints: &[Hint]) -> bool {
        hints.iter().all(|hint| self.remembered.contains(hint))
            && self.remembered.iter().all(|hint| hints.contains(hint))
    }

    /// Connections that it holds.
    pub(crate) fn held(&self) -> usize {
        self.attempts.len()
    }

    /// Hints that it remembers.
    pub(crate) fn remembered(&self) -> usize {
        self.remembered.len()
    }

    fn start_over(&mut self, network: &mut Network) {
        self.start_race(network);
        self.tell_hints(network);
    }

    fn is_ged(&self) -> bool {
        self.dialect == LinkDialect::Ged
    }

    /// Whether a connection may wait for a choice that is not ours.
    fn leader_chooses(&self) -> bool {
        !self.is_ged() && self.role == Role::Follower
    }

    fn start_race(&mut self, network: &mut Network) {
        // Only dials: who dialled us may still get through.
        if self.leader_chooses() {
            self.end_unfinished(|attempt| attempt.dial.is_some(), network);
        } else {
            self.close(|attempt| attempt.dial.is_some(), network);
        }
        self.searches += 1;
        let mut config = RaceConfig::default();
        if self.style == Style::Ours {
            if self.met {
                config.relay_delay = config.relay_delay_again;
            }
            if self.better.is_some() {
                (config.retry_first, config.retry_max) = (BETTER_FIRST, BETTER_MAX);
            }
            config.relays_ahead = u8::from(!self.is_ged() && !self.offer.linked);
        }
        let better = self.better.as_ref();
        let admits = |relay: &&RelayHint| better.is_none_or(|better| better.admits_relay(relay));
        let relays: Vec<RelayHint> = self.relay.iter().filter(admits).cloned().collect();
        let mut race = Race::new(config, &relays, network.now);
        race.handle_hints(&Better::admitted(better, &self.remembered), network.now);
        self.race = Some(race);
    }

    fn close(&mut self, which: impl Fn(&Attempt) -> bool, network: &mut Network) {
        let places: Vec<Place> =
            self.attempts.iter().filter(|(_, attempt)| which(attempt)).map(|(place, _)| *place).collect();
        for place in places {
            self.attempts.remove(&place);
            network.finish(place);
        }
    }

    /// Closes those that do not wait for the Leader's choice, and of the others the oldest above the limit.
    fn end_unfinished(&mut self, which: impl Fn(&Attempt) -> bool, network: &mut Network) {
        self.close(|attempt| which(attempt) && !attempt.handshake.awaits_choice(), network);
        let mut rest = self.attempts.values().filter(|attempt| which(attempt)).count();
        while rest > INBOUND
            && let Some(place) = self.attempts.iter().find(|(_, a)| which(a)).map(|(place, _)| *place)
        {
            self.attempts.remove(&place);
            network.finish(place);
            rest -= 1;
        }
    }

    /// The race that an attempt belongs to, if it still runs.
    fn race_of(&mut self, attempt: Option<(u64, DialId)>) -> Option<(&mut Race, DialId)> {
        let (search, dial) = attempt?;
        self.race.as_mut().filter(|_| search == self.searches).map(|race| (race, dial))
    }

    fn tell_hints(&mut self, network: &Network) {
        let address = to_ip(network.hosts[self.host].address);
        let mut hints = vec![Hint::Direct(TcpHint::from_addr(address.into(), self.port))];
        hints.extend(self.relay.iter().cloned().map(Hint::Relay));
        self.found.push_back(Found::LocalHints(hints));
    }

    fn dial(&mut self, dial: &Dial, network: &mut Network) {
        let relay = match dial.route {
            Route::Direct => None,
            Route::Relay => Some(self.relay_request(u64::from(dial.ahead))),
        };
        let handshake = self.handshake(relay.as_ref(), network);
        let place = network.dial(self.host, dial.endpoint.hostname(), dial.endpoint.port());
        let patience = if self.style == Style::Python { DIAL_TIMEOUT } else { dial.patience };
        self.attempts.insert(
            place,
            Attempt {
                dial: Some((self.searches, dial.id)),
                relayed: relay.is_some(),
                path: dial.path(),
                handshake,
                output: BytesMut::new(),
                connected: false,
                deadline: Some(network.now + patience),
            },
        );
    }

    fn relay_request(&self, ahead: u64) -> RelayRequest {
        let request = match self.dialect {
            LinkDialect::Ged => RelayRequest::new(&self.key, &self.side),
            LinkDialect::Dilated1 { .. } => {
                RelayRequest::of_generation(&self.key, &self.side, self.generation + ahead)
            }
        };
        request.expect("a good side")
    }

    fn accept(&mut self, place: Place, network: &mut Network) {
        let inbound = |(_, attempt): &(&Place, &Attempt)| attempt.dial.is_none();
        if self.attempts.iter().filter(inbound).count() >= INBOUND {
            let oldest = self.attempts.iter().find(inbound).map(|(place, _)| *place).expect("there are some");
            self.attempts.remove(&oldest);
            network.finish(oldest);
        }
        let handshake = self.handshake(None, network);
        let deadline = Some(network.now + HANDSHAKE_TIMEOUT);
        let attempt = Attempt {
            dial: None,
            relayed: false,
            path: Path::inbound((network.remote_address(place), 1).into()),
            handshake,
            output: BytesMut::new(),
            connected: true,
            deadline,
        };
        self.attempts.insert(place, attempt);
        self.shake(place, network);
    }

    fn handshake(&self, relay: Option<&RelayRequest>, network: &mut Network) -> LinkHandshake {
        let ephemeral = Ephemeral::generate(&mut network.rng);
        let (role, key, limits) = (self.role, self.key.clone(), HandshakeLimits::default());
        match self.dialect {
            LinkDialect::Ged => LinkHandshake::new(role, key, ephemeral, relay, limits),
            LinkDialect::Dilated1 { aes } => {
                LinkHandshake::dilated1(role, key, ephemeral, relay, limits, aes, self.offer)
            }
        }
    }

    /// The handshake goes on.
    fn shake(&mut self, place: Place, network: &mut Network) {
        let Some(attempt) = self.attempts.get_mut(&place) else { return };
        match attempt.shake(place, self.offer, network) {
            Ok(true) => self.confirmed(place, network),
            Ok(false) => {}
            Err(retry) => {
                network.abort(place);
                self.failed(place, retry, network.now);
            }
        }
    }

    fn failed(&mut self, place: Place, retry: Retry, now: Instant) {
        let Some(attempt) = self.attempts.remove(&place) else { return };
        let retry = if self.style == Style::Python { Retry::Never } else { retry };
        if let Some((race, dial)) = self.race_of(attempt.dial) {
            race.handle_failed(dial, retry, now);
        }
    }

    fn confirmed(&mut self, place: Place, network: &mut Network) {
        let attempt = self.attempts.remove(&place).expect("it was just confirmed");
        let mut candidate = Box::new(Candidate {
            place,
            output: attempt.output,
            path: attempt.path,
            generation: attempt.handshake.generation().unwrap_or_default(),
            peer_linked: attempt.handshake.peer_offer().unwrap_or_default().linked,
            attempt: attempt.dial,
            pipe: attempt.handshake.into_pipe().expect("confirmed"),
        });
        if !self.is_ged() {
            self.found.push_back(Found::Candidate(candidate));
            return;
        }
        self.rest(network);
        self.met = true;
        if self.role == Role::Leader {
            candidate.choose();
        }
        self.found.push_back(Found::Selected(candidate));
    }

    /// The side takes a candidate.
    pub(crate) fn select(&self, mut candidate: Candidate) -> Candidate {
        if self.role == Role::Leader {
            candidate.choose();
        }
        candidate
    }

    /// The side does not want a candidate; the search goes on.
    pub(crate) fn refuse(&mut self, candidate: &Candidate, network: &mut Network) {
        network.abort(candidate.place);
        if let Some((race, dial)) = self.race_of(candidate.attempt) {
            race.handle_failed(dial, Retry::Later, network.now);
        }
    }
}
