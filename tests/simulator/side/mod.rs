//! One side, as the product's `Driver` runs it: what happens is told to the manager, and what the manager says is done.

mod actions;
mod checks;
mod close;
mod dilated1;
mod ged;

use std::{cell::RefCell, rc::Rc, time::Instant};

use dilated::{
    Dialect, DilationError, ManagerTiming, Role,
    protocol::{DilationSide, LinkEvent, Manager, Parameters, State, Terms},
};
use dilated_subchannel::mux::{Mux, MuxConfig};
use dilated_transit::{DilationKey, HintLimits};
use rand::{RngExt, rngs::StdRng};

pub(crate) use self::close::{End, LINGER};
use self::{close::Farewell, ged::ged};
use crate::{
    app::{App, Load},
    book::Book,
    connector::{Connector, Found},
    link::{Link, LinkEnd},
    network::{Network, Notice, Place},
    python::PythonManager,
    trace::name,
    wires::Wires,
};

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
    /// Leave the mailbox: all is said.
    Leave,
}

pub(crate) struct Side {
    number: usize,
    dialect: Dialect,
    brain: Brain,
    pub(crate) mux: Mux,
    pub(crate) config: MuxConfig,
    book: Rc<RefCell<Book>>,
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
    /// How far its close has come.
    farewell: Farewell,
}

impl Side {
    pub(crate) fn new(make: Make, side: DilationSide, book: Rc<RefCell<Book>>, rng: &mut StdRng) -> Side {
        let config = match make.dialect {
            Dialect::Dilated1 => dilated1::config(make.load, rng),
            _ => ged::config(),
        };
        let mut mux = Mux::new(config.clone());
        let app = App::new(make.number, make.load, book.clone(), &mut mux, rng);
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
            book,
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
            farewell: Farewell::default(),
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
        let said = message.clone();
        match &mut self.brain {
            Brain::Ours(manager) => manager.handle_message(message, network.now),
            Brain::Python(manager) => manager.handle_message(&message),
        }
        self.perform(network);
        self.check_heard(&said);
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
            || self.wires.as_ref().is_some_and(|wires| wires.has(place))
            || self.closes(place, network);
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
        self.handle_farewell(network);
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
        let own = manager.into_iter().chain(self.farewell_deadline());
        own.chain(connector).chain(link).chain(wires).min()
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
            if !self.poll_links(network) && !self.leave_if_delivered(network) {
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
                Ok(false) => return false,
                Ok(true) => self.handle_drained(network),
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
            Some(LinkEvent::Drained) => self.handle_drained(network),
            Some(LinkEvent::Fatal(DilationError::PeerClosed)) => self.end_dilation(network),
            Some(event) => panic!("{event:?}: {}", self.describe()),
        }
        true
    }

    fn is_python(&self) -> bool {
        matches!(self.brain, Brain::Python(_))
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
}
