//! The search for links, as the product's `Connector` makes it: the real race and the real handshakes on virtual
//! connections. The first candidate that is confirmed wins.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use dilated_transit::{
    DilationKey, Ephemeral, HandshakeLimits, Hint, KCM, LinkHandshake, Opener, RelayHint, RelayRequest, Role,
    Sealer, Stage, TcpHint,
    race::{Dial, DialId, Race, RaceConfig, Retry, Route},
};

use crate::network::{Network, Notice, Place, to_ip};

/// As in `ConnectorLimits::default()`.
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const INBOUND: usize = 32;

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
    Selected(Box<Candidate>),
}

/// The connection that won.
pub(crate) struct Candidate {
    pub(crate) place: Place,
    pub(crate) pipe: (Sealer, Opener),
    /// To be sent: what is left of the handshake, and a Leader's choice.
    pub(crate) output: BytesMut,
}

/// A connection that may become one.
struct Attempt {
    /// None if the peer dialled.
    dial: Option<DialId>,
    relayed: bool,
    handshake: LinkHandshake,
    output: BytesMut,
    /// TCP is connected.
    connected: bool,
    deadline: Option<Instant>,
}

pub(crate) struct Connector {
    host: usize,
    style: Style,
    role: Role,
    key: DilationKey,
    relay: Option<(RelayHint, RelayRequest)>,
    port: u16,
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
        role: Role,
        key: DilationKey,
        relay: Option<(RelayHint, RelayRequest)>,
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
            relay,
            port,
            remembered: Vec::new(),
            race: None,
            attempts: BTreeMap::new(),
            found: VecDeque::new(),
        }
    }

    /// Begins a search, or begins anew with one that runs.
    pub(crate) fn search(&mut self, network: &mut Network) {
        if self.race.is_some() || self.style == Style::Python {
            self.rest(network);
        }
        if self.style == Style::Python {
            self.remembered.clear();
            self.port += 1;
            network.hosts[self.host].port = Some(self.port);
        }
        self.start_over(network);
    }

    /// Ends the search and closes everything that is under way.
    pub(crate) fn rest(&mut self, network: &mut Network) {
        self.race = None;
        for (place, _) in std::mem::take(&mut self.attempts) {
            network.finish(place);
        }
        for found in self.found.drain(..) {
            if let Found::Selected(candidate) = found {
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
            self.dial_anew(network);
        }
        let now = network.now;
        if first {
            self.remembered.clear();
        }
        if let Some(race) = &mut self.race {
            race.handle_hints(&hints, now);
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
                if let (Some(dial), Some(race)) = (attempt.dial, &mut self.race) {
                    race.handle_connected(dial);
                }
                self.shake(place, network);
            }
            Notice::Ready if self.attempts.contains_key(&place) => self.shake(place, network),
            Notice::Refused | Notice::Ready => return false,
        }
        true
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
        self.dial_anew(network);
        self.tell_hints(network);
    }

    fn dial_anew(&mut self, network: &mut Network) {
        // Only dials: who dialled us may still get through.
        let dials: Vec<Place> =
            self.attempts.iter().filter(|(_, a)| a.dial.is_some()).map(|(p, _)| *p).collect();
        for place in dials {
            self.attempts.remove(&place);
            network.finish(place);
        }
        let own_relay: Vec<RelayHint> = self.relay.iter().map(|(hint, _)| hint.clone()).collect();
        let mut race = Race::new(RaceConfig::default(), &own_relay, network.now);
        race.handle_hints(&self.remembered, network.now);
        self.race = Some(race);
    }

    fn tell_hints(&mut self, network: &Network) {
        let address = to_ip(network.hosts[self.host].address);
        let mut hints = vec![Hint::Direct(TcpHint::from_addr(address.into(), self.port))];
        hints.extend(self.relay.iter().map(|(hint, _)| Hint::Relay(hint.clone())));
        self.found.push_back(Found::LocalHints(hints));
    }

    fn dial(&mut self, dial: &Dial, network: &mut Network) {
        let relay = match dial.route {
            Route::Direct => None,
            Route::Relay => self.relay.as_ref().map(|(_, request)| request),
        };
        let handshake = self.handshake(relay, network);
        let place = network.dial(self.host, dial.endpoint.hostname(), dial.endpoint.port());
        self.attempts.insert(
            place,
            Attempt {
                dial: Some(dial.id),
                relayed: relay.is_some(),
                handshake,
                output: BytesMut::new(),
                connected: false,
                deadline: Some(network.now + DIAL_TIMEOUT),
            },
        );
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
        LinkHandshake::new(self.role, self.key.clone(), ephemeral, relay, HandshakeLimits::default())
    }

    /// The handshake goes on.
    fn shake(&mut self, place: Place, network: &mut Network) {
        let Some(attempt) = self.attempts.get_mut(&place) else { return };
        match attempt.shake(place, network) {
            Ok(true) => self.select(place, network),
            Ok(false) => {}
            Err(retry) => {
                network.abort(place);
                self.failed(place, retry, network.now);
            }
        }
    }

    fn failed(&mut self, place: Place, retry: Retry, now: Instant) {
        let Some(attempt) = self.attempts.remove(&place) else { return };
        if let (Some(dial), Some(race)) = (attempt.dial, &mut self.race) {
            race.handle_failed(dial, if self.style == Style::Python { Retry::Never } else { retry }, now);
        }
    }

    fn select(&mut self, place: Place, network: &mut Network) {
        let attempt = self.attempts.remove(&place).expect("it was just confirmed");
        self.rest(network);
        let mut output = attempt.output;
        let mut pipe = attempt.handshake.into_pipe().expect("confirmed");
        if self.role == Role::Leader {
            pipe.0.seal(&[KCM], &mut output).expect("short");
        }
        self.found.push_back(Found::Selected(Box::new(Candidate { place, pipe, output })));
    }
}

impl Attempt {
    fn due(&self) -> Option<Instant> {
        let unhurried =
            self.connected && matches!(self.handshake.stage(), Stage::Relay | Stage::Confirmation);
        self.deadline.filter(|_| !unhurried)
    }

    /// Whether the peer has confirmed its key.
    fn shake(&mut self, place: Place, network: &mut Network) -> Result<bool, Retry> {
        loop {
            if let Some(output) = self.handshake.poll_output() {
                self.output.unsplit(output);
            }
            network.write(place, &mut self.output).map_err(|()| Retry::Later)?;
            if self.handshake.is_confirmed() {
                return Ok(true);
            }
            let before = self.handshake.stage();
            let bytes = network.read(place).map_err(|()| Retry::Later)?;
            if bytes.is_empty() {
                return Ok(false);
            }
            // At a relay whoever comes next is another one.
            let retry = if self.relayed { Retry::Later } else { Retry::Never };
            self.handshake.handle_input(&bytes).map_err(|_| retry)?;
            if before == Stage::Relay && self.handshake.stage() != Stage::Relay {
                self.deadline = Some(network.now + HANDSHAKE_TIMEOUT);
            }
        }
    }
}
