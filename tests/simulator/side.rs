//! One side, as the product's `Driver` runs it: what happens is told to the manager, and what the manager says is done.

use std::time::Instant;

use dilated::{
    ManagerTiming, Role,
    protocol::{Action, DilationSide, Manager, Selection, State},
};
use dilated_subchannel::{
    id::Parity,
    mux::{Mux, MuxConfig, RECORD_OVERHEAD},
};
use dilated_transit::{DilationKey, HintLimits, RelayHint, RelayRequest, TcpHint};
use rand::rngs::StdRng;

use crate::{
    app::App,
    connector::{Candidate, Connector, Found, Style},
    link::{Link, LinkEnd, Ours, Watch},
    network::{Network, Notice, Place, RELAY, address, to_ip},
    python::{Keepalive, PythonManager},
    relay,
    trace::name,
};

/// Small limits, so that every run meets them.
pub(crate) const LIMITS: Limits = Limits { outbox: 8192, receive: 4096, total: 16_384 };

pub(crate) struct Limits {
    pub(crate) outbox: usize,
    pub(crate) receive: usize,
    pub(crate) total: usize,
}

/// Connections that a connector may hold: 32 of others, and one for each hint.
const MOST_HELD: usize = 32 + 32 + 8 + 1;
/// Hints that a connector may remember.
const MOST_HINTS: usize = 40;

/// Turns after one event.
const MAX_TURNS: usize = 200;

/// Which implementation.
enum Brain {
    Ours(Box<Manager>),
    Python(PythonManager),
}

/// What the side wants of its connection to the mailbox server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Send(Vec<u8>),
    /// It may be broken.
    Probe,
}

pub(crate) struct Side {
    number: usize,
    brain: Brain,
    pub(crate) mux: Mux,
    pub(crate) app: App,
    key: DilationKey,
    side: DilationSide,
    role: Option<Role>,
    relay: bool,
    connector: Option<Connector>,
    link: Option<Link>,
    /// Links in a row that fell silent before the peer acknowledged anything.
    silent: u32,
    pub(crate) wishes: Vec<Wish>,
    /// Records opened on all links.
    pub(crate) records: u64,
    /// Links taken into service.
    pub(crate) links: u64,
    /// Links taken before the mailbox had carried `reconnect` and its answer.
    pub(crate) early: u64,
    /// Links refused, or replaced by a better one.
    pub(crate) refused: u64,
    pub(crate) replaced: u64,
}

impl Side {
    pub(crate) fn new(
        number: usize,
        python: bool,
        side: DilationSide,
        relay: bool,
        rng: &mut StdRng,
    ) -> Side {
        let config = MuxConfig {
            outbox_limit: LIMITS.outbox,
            receive_limit: LIMITS.receive,
            receive_total: LIMITS.total,
            ..MuxConfig::default()
        };
        let mut mux = Mux::new(config);
        let app = App::new(number, &mut mux, rng);
        let brain = if python {
            Brain::Python(PythonManager::new(side.clone()))
        } else {
            Brain::Ours(Box::new(Manager::new(HintLimits::default(), ManagerTiming::default())))
        };
        Side {
            number,
            brain,
            mux,
            app,
            key: DilationKey::new([7; 32]),
            side,
            role: None,
            relay,
            connector: None,
            link: None,
            silent: 0,
            wishes: Vec::new(),
            records: 0,
            links: 0,
            early: 0,
            refused: 0,
            replaced: 0,
        }
    }

    /// The application dilates, and the peer's versions are here.
    pub(crate) fn begin(&mut self, network: &mut Network) {
        match &mut self.brain {
            Brain::Ours(manager) => {
                manager.dilate(self.side.clone(), network.now);
                manager.handle_versions(&["ged".to_owned()], network.now);
            }
            Brain::Python(manager) => manager.start(),
        }
        self.settle(network);
    }

    /// The next `dilate-N` message.
    pub(crate) fn handle_message(&mut self, message: Vec<u8>, network: &mut Network) {
        network.trace.note(|| format!("{} hears {}", name(self.number), String::from_utf8_lossy(&message)));
        match &mut self.brain {
            Brain::Ours(manager) => manager.handle_message(message, network.now),
            Brain::Python(manager) => manager.handle_message(&message),
        }
        self.settle(network);
    }

    /// The connection to the mailbox server came, or went.
    pub(crate) fn handle_mailbox(&mut self, up: bool, network: &mut Network) {
        if let Brain::Ours(manager) = &mut self.brain {
            manager.handle_mailbox(up);
        }
        self.settle(network);
    }

    /// Something happened to a connection.
    pub(crate) fn handle_network(&mut self, place: Place, notice: Notice, network: &mut Network) {
        let own = self.link.as_ref().is_some_and(|link| link.place == place);
        if !own && !self.connector.as_mut().is_some_and(|connector| connector.handle(place, notice, network))
        {
            // Nobody remembers it.
            network.abort(place);
        }
        self.settle(network);
    }

    /// The addresses or routes of this machine changed, or it slept. Python does not look.
    pub(crate) fn handle_disturbance(&mut self, network: &mut Network) {
        if let Brain::Ours(manager) = &mut self.brain {
            network.trace.note(|| format!("{} is told of a disturbance", name(self.number)));
            self.wishes.push(Wish::Probe);
            if let Some(connector) = &mut self.connector {
                connector.handle_network_change(network);
                manager.handle_network_change(network.now);
            }
            if let Some(link) = &mut self.link {
                if network.local_address(link.place) == network.hosts[self.number].address {
                    link.suspect(network.now);
                } else {
                    self.lose_link("its address is gone", network);
                }
            }
        }
        self.settle(network);
    }

    /// The application gives the link up.
    pub(crate) fn abandon_link(&mut self, network: &mut Network) {
        self.lose_link("given up by the program", network);
        self.settle(network);
    }

    /// Timers may be due.
    pub(crate) fn handle_timeout(&mut self, network: &mut Network) {
        if let Brain::Ours(manager) = &mut self.brain {
            manager.handle_timeout(network.now);
            assert!(
                manager.poll_timeout().is_none_or(|at| at > network.now),
                "the manager's timer is due for ever"
            );
        }
        if let Some(connector) = &mut self.connector {
            connector.handle_timeout(network);
        }
        self.settle(network);
    }

    /// The next moment at which anything of it has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let manager = match &self.brain {
            Brain::Ours(manager) => manager.poll_timeout(),
            Brain::Python(_) => None,
        };
        let connector = self.connector.as_ref().and_then(Connector::deadline);
        let link = self.link.as_ref().and_then(Link::deadline);
        manager.into_iter().chain(connector).chain(link).min()
    }

    /// The connection in use.
    pub(crate) fn connection(&self) -> Option<u64> {
        self.link.as_ref().map(|link| link.place.connection)
    }

    /// The place of the link in use.
    pub(crate) fn place(&self) -> Option<Place> {
        self.link.as_ref().map(|link| link.place)
    }

    pub(crate) fn is_connected(&self) -> bool {
        match &self.brain {
            Brain::Ours(manager) => matches!(manager.state(), State::Connected { .. }),
            Brain::Python(manager) => manager.is_connected(),
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        match &self.brain {
            Brain::Ours(manager) => manager.generation().get(),
            Brain::Python(manager) => manager.generation().get(),
        }
    }

    /// What it does, in words.
    pub(crate) fn describe(&self) -> String {
        let manager = match &self.brain {
            Brain::Ours(manager) => format!("{:?}", manager.state()),
            Brain::Python(manager) => format!("Python {manager:?}"),
        };
        format!(
            "{} {manager} link {:?} {:?} done {}",
            name(self.number),
            self.connection(),
            self.mux.usage(),
            self.app.is_done()
        )
    }

    /// Does everything that is to be done now.
    pub(crate) fn settle(&mut self, network: &mut Network) {
        for _ in 0..MAX_TURNS {
            self.perform(network);
            if let Some(found) = self.connector.as_mut().and_then(|connector| connector.poll(network)) {
                match found {
                    Found::LocalHints(hints) => match &mut self.brain {
                        Brain::Ours(manager) => manager.handle_local_hints(hints),
                        Brain::Python(manager) => manager.handle_local_hints(hints),
                    },
                    Found::Selected(candidate) => self.use_link(*candidate, network),
                }
                continue;
            }
            let Some(link) = &mut self.link else { return self.check(network) };
            match link.poll(&mut self.mux, &mut self.records, network) {
                Ok(()) => return self.check(network),
                Err(LinkEnd::Lost) => self.lose_link("the connection ended", network),
                Err(LinkEnd::Silent) => {
                    self.silent = self.silent.saturating_add(1);
                    self.lose_link("it fell silent", network);
                }
            }
        }
        panic!("{} does not come to rest", self.describe());
    }

    fn perform(&mut self, network: &mut Network) {
        loop {
            let action = match &mut self.brain {
                Brain::Ours(manager) => manager.poll_action(),
                Brain::Python(manager) => manager.poll_action(),
            };
            let Some(action) = action else { return };
            match action {
                Action::Send(message) => {
                    network
                        .trace
                        .note(|| format!("{} says {}", name(self.number), String::from_utf8_lossy(&message)));
                    self.wishes.push(Wish::Send(message));
                }
                Action::RoleChosen(role) => self.role_chosen(role, network),
                Action::Search(_, generation) => {
                    network.trace.note(|| format!("{} searches, generation {generation}", name(self.number)));
                    if let Some(connector) = &mut self.connector {
                        connector.search(network);
                    }
                }
                Action::Rest => {
                    if let Some(connector) = &mut self.connector {
                        connector.rest(network);
                    }
                }
                Action::UseHints { hints, first } => {
                    if let Some(connector) = &mut self.connector {
                        connector.add_peer_hints(hints, first, network);
                    }
                }
                Action::AbortLink => {
                    self.abort_link("the other side started a new generation", network);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn role_chosen(&mut self, role: Role, network: &mut Network) {
        self.role = Some(role);
        self.mux.start(match role {
            Role::Leader => Parity::Odd,
            Role::Follower => Parity::Even,
        });
        // The product makes it with the first search, which follows.
        let relay = self.relay.then(|| {
            let hint = TcpHint::from_addr(to_ip(address(RELAY, 1)).into(), relay::PORT);
            let request = RelayRequest::new(&self.key, self.side.as_str()).expect("a good side");
            (RelayHint::from(hint), request)
        });
        let style = if self.is_python() { Style::Python } else { Style::Ours };
        self.connector = Some(Connector::new(self.number, style, role, self.key.clone(), relay, network));
    }

    fn is_python(&self) -> bool {
        matches!(self.brain, Brain::Python(_))
    }

    fn use_link(&mut self, candidate: Candidate, network: &mut Network) {
        let early = self.is_early();
        let mut selection = self.handle_selected(network.now);
        let replaced = selection == Selection::Replace;
        if replaced {
            self.replaced += 1;
            self.lose_link("the other side had lost it", network);
            self.perform(network);
            selection = self.handle_selected(network.now);
        }
        let Candidate { place, pipe, output } = candidate;
        if selection != Selection::Use {
            self.refused += 1;
            network.trace.note(|| format!("{} refuses connection {}", name(self.number), place.connection));
            return network.abort(place);
        }
        if let Some(connector) = &mut self.connector {
            connector.rest(network);
        }
        network.trace.note(|| {
            format!(
                "{} takes connection {}, generation {}",
                name(self.number),
                place.connection,
                self.generation()
            )
        });
        let watch = match &self.brain {
            Brain::Ours(_) => Watch::Ours(Box::new(Ours::new(self.silent, network.now))),
            Brain::Python(_) => Watch::Python(Keepalive::new(self.role.expect("chosen before"), network.now)),
        };
        self.links += 1;
        self.early += u64::from(early || replaced);
        self.link = Some(Link::new(place, pipe, output, &mut self.mux, watch));
    }

    fn is_early(&self) -> bool {
        let Brain::Ours(manager) = &self.brain else { return false };
        matches!(manager.state(), State::Flushing { .. } | State::Lonely)
    }

    fn handle_selected(&mut self, now: Instant) -> Selection {
        self.tell_heard();
        match &mut self.brain {
            Brain::Ours(manager) => manager.handle_selected(now),
            Brain::Python(manager) => manager.handle_selected(),
        }
    }

    fn tell_heard(&mut self) {
        if let Brain::Ours(manager) = &mut self.brain
            && self.link.as_ref().is_some_and(|link| link.heard)
        {
            manager.handle_heard();
        }
    }

    fn lose_link(&mut self, why: &str, network: &mut Network) {
        self.tell_heard();
        let progressed = self.link.as_ref().is_some_and(Link::is_loaded);
        if !self.abort_link(why, network) {
            return;
        }
        match &mut self.brain {
            Brain::Ours(manager) => {
                self.wishes.push(Wish::Probe);
                manager.handle_link_lost(network.now, progressed);
            }
            Brain::Python(manager) => manager.handle_link_lost(),
        }
    }

    /// Returns whether there was a link.
    fn abort_link(&mut self, why: &str, network: &mut Network) -> bool {
        let Some(link) = self.link.take() else { return false };
        network.trace.note(|| {
            let (progress, silent) = (self.mux.progress(), self.silent);
            let health = link.health(network.now);
            format!(
                "{} loses connection {}: {why} ({progress:?}, {health}, silent links {silent})",
                name(self.number),
                link.place.connection
            )
        });
        if link.is_loaded() {
            self.silent = 0;
        }
        self.mux.link_down();
        match &self.brain {
            Brain::Ours(_) => network.abort(link.place),
            Brain::Python(_) => network.finish(link.place),
        }
        true
    }

    /// What must hold whenever it has come to rest.
    fn check(&mut self, network: &Network) {
        // Only the bounds matter here; the events of this side are asked for by polling.
        while self.mux.poll_event().is_some() {}
        let usage = self.mux.usage();
        let (record, slack) = (1500 + 2 * RECORD_OVERHEAD, 4096);
        assert!(usage.outbox_bytes <= LIMITS.outbox + record + slack, "{usage:?}");
        // Reading pauses behind the record that reached the limit.
        assert!(usage.receive_bytes <= LIMITS.total + record, "{usage:?}");
        if let Some(connector) = &self.connector {
            assert!(connector.held() <= MOST_HELD, "{} connections are held", connector.held());
            assert!(connector.remembered() <= MOST_HINTS, "{} hints are remembered", connector.remembered());
        }
        assert_eq!(self.is_connected(), self.link.is_some(), "{}", self.describe());
        if let Some(link) = &self.link {
            assert!(link.deadline().is_none_or(|at| at > network.now), "a timer of the link is late");
        }
    }
}
