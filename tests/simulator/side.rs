//! One side, as the product's `Driver` runs it: what happens is told to the manager, and what the manager says is done.

use std::{cell::RefCell, rc::Rc, time::Instant};

use dilated::{
    Dialect, Generation, ManagerTiming, Role,
    protocol::{
        Action, Agreement, Choice, DilationSide, LinkEvent, Manager, Parameters, Selection, State, Terms,
    },
};
use dilated_subchannel::{
    id::Parity,
    mux::{Dialect as MuxDialect, Mux, MuxConfig, RECORD_OVERHEAD, dilated1, ged},
};
use dilated_transit::{DilationKey, HintLimits, LinkDialect, Path, RelayHint, TcpHint};
use rand::{RngExt, rngs::StdRng};

use crate::{
    app::{App, Load},
    book::Book,
    connector::{Candidate, Connector, Found, Style},
    link::{Link, LinkEnd, Ours, Watch},
    network::{Network, Notice, Place, RELAY, address, to_ip},
    python::{Keepalive, PythonManager},
    relay,
    trace::name,
    wires::Wires,
};

/// Small limits in `ged`, so that every run meets them.
const LIMITS: Limits = Limits { outbox: 8192, receive: 4096, total: 16_384 };

struct Limits {
    outbox: usize,
    receive: usize,
    total: usize,
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

/// What makes a side.
#[derive(Clone, Copy)]
pub(crate) struct Make {
    pub(crate) number: usize,
    pub(crate) python: bool,
    pub(crate) dialect: Dialect,
    pub(crate) relay: bool,
    pub(crate) standby: bool,
    pub(crate) load: Load,
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
    dialect: Dialect,
    brain: Brain,
    pub(crate) mux: Mux,
    config: MuxConfig,
    pub(crate) app: App,
    key: DilationKey,
    side: DilationSide,
    role: Option<Role>,
    relay: bool,
    connector: Option<Connector>,
    /// In `ged`.
    link: Option<Link>,
    /// In `dilated-1`, once the roles are known.
    wires: Option<Box<Wires>>,
    /// There is a generation with links, or the last of them has just been lost.
    linked: bool,
    standby: bool,
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
    pub(crate) fn new(make: Make, side: DilationSide, book: Rc<RefCell<Book>>, rng: &mut StdRng) -> Side {
        let config = match make.dialect {
            Dialect::Dilated1 => dilated1_config(make.load, rng),
            _ => MuxConfig {
                outbox_limit: LIMITS.outbox,
                receive_limit: LIMITS.receive,
                receive_total: LIMITS.total,
                ..MuxConfig::default()
            },
        };
        let mut mux = Mux::new(config.clone());
        let app = App::new(make.number, make.load, book, &mut mux, rng);
        let brain = if make.python {
            Brain::Python(PythonManager::new(side.clone()))
        } else {
            Brain::Ours(Box::new(Manager::new(HintLimits::default(), ManagerTiming::default())))
        };
        Side {
            number: make.number,
            dialect: make.dialect,
            brain,
            mux,
            config,
            app,
            key: DilationKey::new([7; 32]),
            side,
            role: None,
            relay: make.relay,
            connector: None,
            link: None,
            wires: None,
            linked: false,
            standby: make.standby,
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
                let parameters = Parameters {
                    aes: network.rng.random(),
                    standby: self.standby,
                    mux: self.config.params(),
                };
                let terms = Terms { dialects: vec![self.dialect], parameters };
                manager.dilate(self.side.clone(), terms, network.now);
                manager.handle_versions(&[self.dialect.name().to_owned()], network.now);
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
        let own = self.link.as_ref().is_some_and(|link| link.place == place)
            || self.wires.as_ref().is_some_and(|wires| wires.has(place));
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
            let address = network.hosts[self.number].address;
            if let Some(link) = &mut self.link {
                if network.local_address(link.place) == address {
                    link.suspect(network.now);
                } else {
                    self.lose_link("its address is gone", network);
                }
            } else if let Some((wires, mux)) = self.links()
                && !wires.suspect(address, mux, network)
            {
                self.lose_link("their addresses are gone", network);
            }
        }
        self.settle(network);
    }

    /// The application gives the link up.
    pub(crate) fn abandon_link(&mut self, network: &mut Network) {
        match self.links().map(|(wires, mux)| wires.abandon(mux, network)) {
            Some(true) => self.look_for_more(network),
            _ => self.lose_link("given up by the program", network),
        }
        self.settle(network);
    }

    /// Any of its links becomes the active one.
    pub(crate) fn switch_link(&mut self, network: &mut Network) {
        if let Some((wires, mux)) = self.links() {
            wires.switch(mux, network);
        }
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
        let wires =
            self.wires.as_ref().zip(self.mux.as_dilated1()).and_then(|(wires, mux)| wires.deadline(mux));
        manager.into_iter().chain(connector).chain(link).chain(wires).min()
    }

    /// The connection in use.
    pub(crate) fn connection(&self) -> Option<u64> {
        self.place().map(|place| place.connection)
    }

    /// The place of the link in use.
    pub(crate) fn place(&self) -> Option<Place> {
        let active = self.wires.as_ref().and_then(|wires| wires.place());
        self.link.as_ref().map(|link| link.place).or(active)
    }

    /// The links of `dilated-1`.
    pub(crate) fn wires(&self) -> Option<&Wires> {
        self.wires.as_deref()
    }

    /// Whether both sides agree on the active link, as far as this one knows.
    pub(crate) fn has_agreed(&self) -> bool {
        self.wires.as_ref().is_none_or(|wires| {
            let links = wires.links();
            links.sending().is_some() && links.sending() == links.current()
        })
    }

    /// Whether it is on a link that no relay is in.
    pub(crate) fn is_direct(&self) -> bool {
        self.wires.as_ref().and_then(|wires| wires.links().path()).is_some_and(Path::is_direct)
    }

    /// Whether another link stands by.
    pub(crate) fn has_standby(&self) -> bool {
        self.wires.as_ref().is_some_and(|wires| wires.has_standby())
    }

    /// The links of `dilated-1`, if there are any, and what is above them.
    fn links(&mut self) -> Option<(&mut Wires, &mut dilated1::Mux)> {
        Some((self.wires.as_deref_mut().filter(|_| self.linked)?, self.mux.as_dilated1_mut()?))
    }

    pub(crate) fn is_connected(&self) -> bool {
        match &self.brain {
            Brain::Ours(manager) => matches!(manager.state(), State::Connected { .. } | State::Linked { .. }),
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
            "{} {manager} generation {} link {:?} active {:?} {:?} done {}",
            name(self.number),
            self.generation(),
            self.connection(),
            self.wires.as_ref().map(|wires| (wires.links().current(), wires.links().sending())),
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
                    Found::Candidate(candidate) => self.consider(*candidate, network),
                }
                continue;
            }
            if !self.poll_links(network) {
                return self.check(network);
            }
        }
        panic!("{} does not come to rest", self.describe());
    }

    /// Lets the links do what they can. Returns whether something happened that may have consequences.
    fn poll_links(&mut self, network: &mut Network) -> bool {
        if let Some(link) = &mut self.link {
            let mux = ged(&mut self.mux);
            match link.poll(mux, &mut self.records, network) {
                Ok(()) => return false,
                Err(LinkEnd::Lost) => self.lose_link("the connection ended", network),
                Err(LinkEnd::Silent) => {
                    self.silent = self.silent.saturating_add(1);
                    self.lose_link("it fell silent", network);
                }
            }
            return true;
        }
        let mut records = self.records;
        let event = self.links().and_then(|(wires, mux)| wires.poll(mux, &mut records, network));
        self.records = records;
        match event {
            None => return false,
            Some(LinkEvent::Changed) => self.look_for_more(network),
            Some(LinkEvent::Lost(why) | LinkEvent::Silent(why)) => self.lose_link(&why, network),
            Some(event) => panic!("{event:?}: {}", self.describe()),
        }
        true
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
                Action::Agreed(role, agreement) => self.agreed(role, agreement, network),
                Action::Search(_, generation) => {
                    network.trace.note(|| format!("{} searches, generation {generation}", name(self.number)));
                    if let Some(connector) = &mut self.connector {
                        connector.search(generation.get(), network);
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

    fn agreed(&mut self, role: Role, agreement: Agreement, network: &mut Network) {
        self.role = Some(role);
        let parity = match role {
            Role::Leader => Parity::Odd,
            Role::Follower => Parity::Even,
        };
        let dialect = match agreement {
            Agreement::Dilated1 { aes, peer, .. } => {
                self.mux.start(parity, MuxDialect::Dilated1 { peer });
                self.wires = Some(Box::new(Wires::new(self.number, role)));
                LinkDialect::Dilated1 { aes }
            }
            _ => {
                self.mux.start(parity, MuxDialect::Ged);
                LinkDialect::Ged
            }
        };
        // The product makes it with the first search, which follows.
        let relay = self
            .relay
            .then(|| RelayHint::from(TcpHint::from_addr(to_ip(address(RELAY, 1)).into(), relay::PORT)));
        let style = if self.is_python() { Style::Python } else { Style::Ours };
        let side = self.side.as_str().to_owned();
        self.connector = Some(Connector::new(
            self.number,
            style,
            (role, dialect),
            self.key.clone(),
            (side, relay),
            network,
        ));
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
        let Candidate { place, pipe, output, .. } = candidate;
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
        self.link = Some(Link::new(place, pipe, output, ged(&mut self.mux), watch));
    }

    /// As the product's `Driver::consider`, and what it calls.
    fn consider(&mut self, candidate: Candidate, network: &mut Network) {
        self.tell_heard();
        let Brain::Ours(manager) = &mut self.brain else { unreachable!("Python has no candidates") };
        let generation = Generation::new(candidate.generation);
        let choice = manager.handle_candidate(generation, candidate.peer_linked, network.now);
        let wires = self.wires.as_deref_mut().expect("the dialect has them");
        let connector = self.connector.as_mut().expect("it found the candidate");
        let mux = self.mux.as_dilated1_mut().expect("the dialect");
        let (place, path) = (candidate.place, candidate.path.clone());
        let taken = match choice {
            Choice::Use => {
                if !wires.is_empty() {
                    self.replaced += 1;
                }
                wires.reset(mux, network);
                self.linked = true;
                Some(self.role == Some(Role::Leader))
            }
            Choice::Another { needed } => wires.judge(&path, needed, self.standby, network.now),
            Choice::Refuse => None,
        };
        network.trace.note(|| {
            let (name, connection) = (name(self.number), place.connection);
            format!(
                "{name}: connection {connection} ({path}), generation {generation}: {choice:?}, {taken:?}"
            )
        });
        let Some(activate) = taken else {
            self.refused += 1;
            connector.refuse(&candidate, network);
            return self.look_for_more(network);
        };
        self.links += 1;
        wires.add(connector.select(candidate), activate, generation.get(), mux, network);
        if choice == Choice::Use {
            connector.rest(network);
            connector.set_offer(generation.get(), true);
        } else {
            self.look_for_more(network);
        }
    }

    /// As the product's `Dilation::look_for_more`.
    fn look_for_more(&mut self, network: &mut Network) {
        let (generation, standby) = (self.generation(), self.standby);
        let Some(wires) = self.wires.as_deref_mut().filter(|_| self.linked) else { return };
        let connector = self.connector.as_mut().expect("it found the links");
        match wires.poll_wanted(standby, network) {
            Some(Some(better)) => connector.search_better(generation, better, network),
            Some(None) => connector.rest(network),
            None => {}
        }
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
        let heard = self.link.as_ref().is_some_and(|link| link.heard)
            || self.wires.as_ref().is_some_and(|wires| wires.links().heard());
        if let Brain::Ours(manager) = &mut self.brain
            && heard
        {
            manager.handle_heard();
        }
    }

    fn lose_link(&mut self, why: &str, network: &mut Network) {
        self.tell_heard();
        let progressed = self.link.as_ref().is_some_and(Link::is_loaded)
            || self.wires.as_ref().is_some_and(|wires| wires.links().is_loaded());
        if !self.abort_link(why, network) {
            return;
        }
        match &mut self.brain {
            Brain::Ours(manager) => {
                self.wishes.push(Wish::Probe);
                manager.handle_link_lost(network.now, progressed);
                // A search says it, too, but that may have to pause.
                let generation = manager.generation().get();
                if let Some(connector) = &mut self.connector {
                    connector.set_offer(generation, false);
                }
            }
            Brain::Python(manager) => manager.handle_link_lost(),
        }
    }

    /// Returns whether there was a link.
    fn abort_link(&mut self, why: &str, network: &mut Network) -> bool {
        if let Some((wires, mux)) = self.links() {
            wires.reset(mux, network);
            self.linked = false;
            network.trace.note(|| format!("{} loses its links: {why}", name(self.number)));
            return true;
        }
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
        ged(&mut self.mux).link_down();
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
        match self.dialect {
            Dialect::Dilated1 => self.check_dilated1(network),
            _ => {
                let (record, slack) = (1500 + 2 * RECORD_OVERHEAD, 4096);
                assert!(usage.outbox_bytes <= LIMITS.outbox + record + slack, "{usage:?}");
                // Reading pauses behind the record that reached the limit.
                assert!(usage.receive_bytes <= LIMITS.total + record, "{usage:?}");
            }
        }
        if let Some(connector) = &self.connector {
            assert!(connector.held() <= MOST_HELD, "{} connections are held", connector.held());
            assert!(connector.remembered() <= MOST_HINTS, "{} hints are remembered", connector.remembered());
        }
        let linked = self.link.is_some() || self.wires.as_ref().is_some_and(|wires| !wires.is_empty());
        assert_eq!(self.is_connected(), linked, "{}", self.describe());
        if let Some(link) = &self.link {
            assert!(link.deadline().is_none_or(|at| at > network.now), "a timer of the link is late");
        }
    }

    fn check_dilated1(&self, network: &Network) {
        let (usage, config) = (self.mux.usage(), &self.config);
        // A chunk may cost a little more than its bytes.
        let most = config.outbox_limit + config.outbox_limit / 2 + config.max_data;
        assert!(usage.outbox_bytes <= most, "{usage:?}");
        // Long messages are put together outside of the credit, a few at a time.
        let assemblers = (config.receive_total / config.max_data).max(1);
        let control = 64 * 1024;
        let most = config.receive_total + control + assemblers * config.max_data;
        assert!(usage.receive_bytes <= most, "{usage:?}");
        if let (Some(wires), Some(mux)) = (&self.wires, self.mux.as_dilated1()) {
            wires.check(self.generation(), mux, network);
        }
    }
}

/// Limits which the load meets, but which it can be done with.
fn dilated1_config(load: Load, rng: &mut StdRng) -> MuxConfig {
    let piece = usize::try_from(load.piece).expect("short");
    // Whoever waits for the rest of a message does not read meanwhile: all may do so at once.
    let unread = (2 * load.opens + 2) * piece;
    MuxConfig {
        outbox_limit: 8192,
        receive_total: unread + [0, 20_000, 1 << 20][rng.random_range(0..3)],
        stream_queue: [2048, 4 << 20][rng.random_range(0..2)],
        max_subchannels: [2, 4, 64][rng.random_range(0..3)],
        max_data: piece,
        ..MuxConfig::default()
    }
}

/// The engine of `ged`.
fn ged(mux: &mut Mux) -> &mut ged::Mux {
    mux.as_ged_mut().expect("the dialect")
}
