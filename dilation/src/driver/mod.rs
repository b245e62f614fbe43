//! The task behind a wormhole: it owns the mailbox connection, the connector, the link and the timers, tells the
//! manager what happened, and does what the manager says.

mod dilation;
mod seldom;

use std::{
    future::{Future, pending},
    pin::pin,
    sync::Arc,
    time::Instant,
};

use dilated_mailbox::{
    Key, WormholeError,
    client::{ConnectionStatus, Event as MailboxEvent},
    net::{Mailbox, MailboxDriver},
};
use dilated_subchannel::{EndReason, Parity, mux::Dialect as MuxDialect};
use dilated_transit::{
    HintLimits, Role, has_aes,
    net::{
        Candidate, Connector, ConnectorEvent, Disturbance, Link, Monitor, MonitorConfig, Search, has_address,
    },
};
use tokio::sync::watch;

use self::{dilation::Dilation, seldom::Seldom};
use crate::{
    clock,
    config::DilateConfig,
    dialect::{Agreement, Dialect, Parameters, Terms},
    endpoint::DilateRequest,
    error::DilationError,
    generation::Generation,
    link::{LinkEvent, LinkPump, Pump},
    manager::{Action, Choice, Manager, ManagerTiming, Selection, State},
    role::DilationSide,
    status::{LinkStatus, Recovery},
    wormhole::{Shared, Snapshot},
};

/// Links that may end, one after the other, with a record that cannot be read. The peer sends it again on every new
/// link, so it would go on for ever.
const MAX_UNREADABLE: u32 = 3;

/// How far an orderly close has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Written data is being delivered, until then at most.
    Draining(Instant),
    /// The mailbox is being closed.
    Leaving,
}

/// The task's state.
#[derive(Debug)]
pub(crate) struct Driver {
    mailbox_driver: MailboxDriver,
    mailbox: Mailbox,
    shared: Arc<Shared>,
    state: watch::Sender<Snapshot>,
    key: Option<Key>,
    manager: Manager,
    monitor: Monitor,
    dialects: Vec<Dialect>,
    dilation: Option<Dilation>,
    phase: Phase,
}

/// What woke the driver.
enum Woken {
    Mailbox(MailboxEvent),
    Requests,
    Connector(ConnectorEvent),
    Link(LinkEvent),
    Machine(Disturbance),
    Timer,
}

impl Driver {
    pub(crate) fn new(
        mailbox_driver: MailboxDriver,
        mailbox: Mailbox,
        shared: Arc<Shared>,
        state: watch::Sender<Snapshot>,
        monitor: MonitorConfig,
        dialects: Vec<Dialect>,
    ) -> Driver {
        Driver {
            mailbox_driver,
            mailbox,
            shared,
            state,
            key: None,
            manager: Manager::new(HintLimits::default(), ManagerTiming::default()),
            monitor: Monitor::start(monitor),
            dialects,
            dilation: None,
            phase: Phase::Open,
        }
    }

    /// Runs the wormhole to its end.
    pub(crate) async fn run(mut self) {
        let result = loop {
            self.publish();
            let deadline = self.deadline();
            let woken = {
                let (connector, link) = match &mut self.dilation {
                    Some(dilation) => (dilation.connector.as_mut(), dilation.link.as_mut()),
                    None => (None, None),
                };
                let rest = pin!(async {
                    tokio::select! {
                        event = self.mailbox_driver.next() => Woken::Mailbox(event),
                        () = self.shared.woken() => Woken::Requests,
                        event = optional(connector.map(Connector::next)) => Woken::Connector(event),
                        what = self.monitor.next() => Woken::Machine(what),
                        () = sleep_until(deadline) => Woken::Timer,
                    }
                });
                tokio::select! {
                    // What the application and the mailbox say goes before the end of a link that may follow from it.
                    biased;
                    woken = Seldom::new(rest) => woken,
                    end = optional(link.map(Pump::run)) => Woken::Link(end),
                }
            };
            match woken {
                Woken::Mailbox(MailboxEvent::Closed(result)) => break result,
                Woken::Mailbox(event) => {
                    if let Err(error) = self.handle_mailbox(event) {
                        self.mailbox.fail(error);
                    }
                }
                Woken::Requests => {
                    if self.handle_requests() {
                        break Err(WormholeError::Closed);
                    }
                }
                Woken::Connector(event) => self.handle_connector(event),
                Woken::Link(event) => self.handle_link(event),
                Woken::Machine(what) => self.handle_disturbance(&what),
                Woken::Timer => self.handle_timers(),
            }
            self.perform_actions();
            self.leave_if_delivered();
        };
        self.finish(result).await;
    }

    /// The next moment at which a timer of ours is due.
    fn deadline(&self) -> Option<Instant> {
        let drain = match self.phase {
            Phase::Draining(until) => Some(until),
            _ => None,
        };
        self.manager.poll_timeout().into_iter().chain(drain).min()
    }

    fn handle_timers(&mut self) {
        let now = clock::now();
        self.manager.handle_timeout(now);
        if matches!(self.phase, Phase::Draining(until) if until <= now) {
            tracing::info!("the other side did not acknowledge everything before the deadline of the close");
            self.leave();
        }
    }

    /// Returns whether to end at once.
    fn handle_requests(&mut self) -> bool {
        let mut requests = self.shared.requests();
        let dropped = requests.dropped;
        let dilate = requests.dilate.take();
        let abandon = std::mem::take(&mut requests.abandon_link);
        let close = std::mem::take(&mut requests.close);
        drop(requests);
        if let Some(request) = dilate {
            self.dilate(request);
        }
        if abandon {
            match self.dilation.as_mut().and_then(|dilation| dilation.link.as_mut()).map(Pump::abandon) {
                Some(true) => self.handle_link(LinkEvent::Changed),
                _ => self.lose_link("given up by this program".to_owned()),
            }
        }
        if close && self.phase == Phase::Open {
            self.close();
        }
        dropped
    }

    fn dilate(&mut self, request: DilateRequest) {
        let side = DilationSide::random(request.config.role, &mut rand::rng());
        self.manager.set_limits(request.config.connector.hints, request.config.timing);
        let DilateConfig { aes, standby, mux, .. } = &*request.config;
        let parameters = Parameters { aes: *aes && has_aes(), standby: *standby, mux: mux.params() };
        let terms = Terms { dialects: self.dialects.clone(), parameters };
        self.dilation = Some(Dilation::new(request, side.clone()));
        self.manager.dilate(side, terms, clock::now());
    }

    fn handle_mailbox(&mut self, event: MailboxEvent) -> Result<(), WormholeError> {
        let now = clock::now();
        match event {
            MailboxEvent::Welcome(welcome) => self.state.send_modify(|s| s.welcome = Some(welcome)),
            MailboxEvent::Code(code) => self.state.send_modify(|s| s.code = Some(code)),
            MailboxEvent::UnverifiedKey(key) => {
                self.key = Some(key.clone());
                self.state.send_modify(|s| s.key = Some(key));
            }
            MailboxEvent::Verifier(verifier) => self.state.send_modify(|s| s.verifier = Some(verifier)),
            MailboxEvent::Versions(versions) => {
                self.manager.handle_versions(&versions.can_dilate, now);
                self.state.send_modify(|s| s.versions = Some(versions));
            }
            MailboxEvent::Message(message) => {
                self.shared.inbox().push(message)?;
                self.state.send_modify(|s| s.messages += 1);
            }
            MailboxEvent::Dilate(message) => self.manager.handle_message(message, now),
            event => {
                tracing::debug!(?event, "mailbox");
                let up = self.mailbox.status().connection == ConnectionStatus::Connected;
                self.manager.handle_mailbox(up);
            }
        }
        Ok(())
    }

    fn handle_connector(&mut self, event: ConnectorEvent) {
        match event {
            ConnectorEvent::LocalHints(hints) => self.manager.handle_local_hints(hints),
            ConnectorEvent::Dialing(path) => tracing::debug!(%path, "dialling"),
            ConnectorEvent::Failed { path, reason } => tracing::debug!(%path, reason, "no link there"),
            ConnectorEvent::Selected(link) => self.use_link(*link),
            ConnectorEvent::Candidate(candidate) => self.consider(*candidate),
        }
    }

    fn use_link(&mut self, link: Link) {
        self.tell_heard();
        let mut selection = self.manager.handle_selected(clock::now());
        if selection == Selection::Replace {
            self.lose_link("the other side had lost it".to_owned());
            self.perform_actions();
            selection = self.manager.handle_selected(clock::now());
        }
        let Some(dilation) = self.dilation.as_mut().filter(|_| selection == Selection::Use) else {
            tracing::debug!("a link came at the wrong time");
            return link.abort();
        };
        if let Some(connector) = &mut dilation.connector {
            connector.rest();
        }
        let config = &dilation.request.config;
        let mut pump =
            LinkPump::new(link, dilation.request.mux.clone(), config.liveness.clone(), dilation.silent);
        if self.phase != Phase::Open {
            pump.drain();
        }
        if self.manager.short_links() > 0 {
            pump.be_cautious(config.liveness.first_answer);
        }
        dilation.link = Some(Pump::Ged(Box::new(pump)));
        self.publish_link();
    }

    /// A candidate for a link, in `dilated-1`.
    fn consider(&mut self, candidate: Candidate) {
        self.tell_heard();
        let generation = Generation::new(candidate.generation());
        let choice = self.manager.handle_candidate(generation, candidate.peer_linked(), clock::now());
        let Some(dilation) = &mut self.dilation else { return };
        match choice {
            Choice::Use => {
                let (draining, young) = (self.phase != Phase::Open, self.manager.short_links() > 0);
                dilation.use_candidate(candidate, generation, draining, young);
            }
            Choice::Another { needed } => dilation.add_candidate(candidate, needed, generation),
            Choice::Refuse => {}
        }
        self.publish_link();
    }

    /// Tells the application how the peer is reached now.
    fn publish_link(&mut self) {
        let Some(dilation) = &mut self.dilation else { return };
        let Some(path) = dilation.link.as_ref().and_then(Pump::path).cloned() else { return };
        let made_good = dilation.lost.take().map(|(reason, since)| Recovery {
            reason,
            outage: clock::now().saturating_duration_since(since),
        });
        let recovered = match &dilation.request.status.borrow().link {
            // Nobody may have seen yet what it made good.
            LinkStatus::Connected { path: before, recovered } if *before == path && made_good.is_none() => {
                recovered.clone()
            }
            _ => made_good,
        };
        if dilation.set_link_status(LinkStatus::Connected { path, recovered }) {
            tracing::info!(generation = %self.manager.generation(), "link up");
        }
    }

    /// The addresses or routes of this machine changed, or it slept.
    fn handle_disturbance(&mut self, what: &Disturbance) {
        tracing::info!(%what, "the network may have changed");
        self.mailbox.network_changed();
        let Some(dilation) = &mut self.dilation else { return };
        if let Some(connector) = &mut dilation.connector {
            connector.handle_network_change();
            self.manager.handle_network_change(clock::now());
        }
        let Some(link) = &mut dilation.link else { return };
        if link.suspect(&what.to_string(), |address| has_address(address.ip())) {
            // One of several may be gone.
            self.handle_link(LinkEvent::Changed);
        } else {
            self.lose_link(format!("{what}, and the address that it used is gone"));
        }
    }

    fn handle_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Lost(reason) => self.lose_link(reason),
            LinkEvent::Silent(reason) => {
                if let Some(dilation) = &mut self.dilation {
                    dilation.silent = dilation.silent.saturating_add(1);
                }
                self.lose_link(reason);
            }
            LinkEvent::Unreadable(reason) => {
                let seen = self.dilation.as_mut().map_or(0, |dilation| {
                    dilation.unreadable += 1;
                    dilation.unreadable
                });
                if seen >= MAX_UNREADABLE {
                    self.fail_dilation(DilationError::Protocol(reason));
                } else {
                    self.lose_link(reason);
                }
            }
            LinkEvent::Fatal(error) => self.fail_dilation(error),
            LinkEvent::Changed => {
                if let Some(dilation) = &mut self.dilation {
                    dilation.look_for_more(self.manager.generation());
                }
                self.publish_link();
            }
            LinkEvent::Drained => {
                if matches!(self.phase, Phase::Draining(_)) {
                    self.leave();
                }
                // The link stays up until the mailbox is closed.
            }
        }
    }

    /// Tells the manager whether the peer was heard on the link.
    fn tell_heard(&mut self) {
        let link = self.dilation.as_ref().and_then(|dilation| dilation.link.as_ref());
        if link.is_some_and(Pump::heard) {
            self.manager.handle_heard();
        }
    }

    fn lose_link(&mut self, reason: String) {
        self.tell_heard();
        let Some(dilation) = &mut self.dilation else { return };
        let progressed = dilation.link.as_ref().is_some_and(Pump::is_loaded);
        if dilation.abort_link(reason, self.manager.generation()) {
            // What took the link may have taken the mailbox connection, too, and a new link needs that.
            self.mailbox.reconnect_now();
            self.manager.handle_link_lost(clock::now(), progressed);
            // A search says it, too, but that may have to pause.
            let generation = self.manager.generation().get();
            if let Some(connector) = self.connector() {
                connector.set_offer(generation, false);
            }
        }
    }

    fn perform_actions(&mut self) {
        while let Some(action) = self.manager.poll_action() {
            match action {
                Action::Send(message) => {
                    if let Err(error) = self.mailbox.send_dilate(message) {
                        tracing::debug!(%error, "a dilation message cannot be sent any more");
                    }
                }
                Action::Agreed(role, agreement) => self.agreed(role, agreement),
                Action::Search(role, generation) => self.search(role, generation),
                Action::Rest => {
                    if let Some(connector) = self.connector() {
                        connector.rest();
                    }
                }
                Action::UseHints { hints, first } => {
                    if let Some(connector) = self.connector() {
                        connector.add_peer_hints(hints, first);
                    }
                }
                Action::AbortLink => {
                    if let Some(dilation) = &mut self.dilation {
                        let reason = "the other side started a new generation".to_owned();
                        dilation.abort_link(reason, self.manager.generation());
                    }
                }
                Action::Failed(error) => self.fail_dilation(error),
            }
        }
    }

    fn agreed(&mut self, role: Role, agreement: Agreement) {
        let Some(dilation) = &mut self.dilation else { return };
        dilation.agreement = Some(agreement);
        let parity = match role {
            Role::Leader => Parity::Odd,
            Role::Follower => Parity::Even,
        };
        let (dialect, mux) = match agreement {
            Agreement::Ged => (Dialect::Ged, MuxDialect::Ged),
            Agreement::Dilated1 { peer, .. } => (Dialect::Dilated1, MuxDialect::Dilated1 { peer }),
        };
        dilation.request.mux.start(parity, mux);
        dilation.request.status.send_modify(|status| {
            status.role = Some(role);
            status.dialect = Some(dialect);
        });
    }

    fn connector(&mut self) -> Option<&mut Connector> {
        self.dilation.as_mut()?.connector.as_mut()
    }

    fn search(&mut self, role: Role, generation: Generation) {
        let (Some(dilation), Some(key)) = (&mut self.dilation, &self.key) else { return };
        // While reconnecting, the reason of the loss is worth more than the word "connecting".
        if matches!(dilation.request.status.borrow().link, LinkStatus::Waiting) {
            dilation.set_link_status(LinkStatus::Connecting);
        }
        if dilation.connector.is_none() {
            match dilation.make_connector(role, key) {
                Ok(connector) => dilation.connector = Some(connector),
                Err(error) => {
                    // The Leader's timer, or the peer's, starts the next generation, and with it the next attempt.
                    tracing::warn!(%error, "could not start to look for a link");
                }
            }
        }
        if let Some(connector) = &mut dilation.connector {
            connector.search(Search { generation: generation.get(), linked: false });
        }
        tracing::debug!(%generation, "connecting");
    }

    /// The dilation ends; the wormhole stays.
    fn fail_dilation(&mut self, error: DilationError) {
        self.manager.stop();
        if let Some(dilation) = &mut self.dilation {
            match dilation.link.take() {
                // The last word may still have to leave: why we end this.
                Some(Pump::Dilated1(links)) => {
                    tokio::spawn(Pump::Dilated1(links).close(dilation.request.config.fin_timeout));
                }
                Some(link) => drop(link.abort()),
                None => {}
            }
            dilation.connector = None;
            dilation.request.mux.fail(EndReason::failed(error.to_string()));
            dilation.set_link_status(LinkStatus::Stopped { error: Some(error) });
        }
    }

    /// Begins an orderly close: what was written is delivered first, if there is hope for it.
    fn close(&mut self) {
        let state = self.manager.state();
        let hopeless = matches!(state, State::Waiting { .. } | State::Stopped(_));
        if let Some(dilation) = self.dilation.as_mut().filter(|_| !hopeless) {
            self.phase = Phase::Draining(clock::now() + dilation.request.config.linger);
            if let Some(link) = &mut dilation.link {
                link.drain();
            }
        } else {
            self.leave();
        }
    }

    /// Nothing is outstanding and there is no link, because the other side has left already: there is nothing to wait
    /// for.
    fn leave_if_delivered(&mut self) {
        let delivered = self.dilation.as_ref().is_some_and(|dilation| {
            // An end that was not acknowledged takes no room in the outbox, and counts, too.
            dilation.link.is_none() && dilation.request.mux.is_drained()
        });
        if delivered && matches!(self.phase, Phase::Draining(_)) {
            self.leave();
        }
    }

    fn leave(&mut self) {
        self.phase = Phase::Leaving;
        self.manager.say_closing();
        self.perform_actions();
        self.mailbox.close();
    }

    /// Tells the application everything that changed.
    fn publish(&mut self) {
        let mailbox = self.mailbox.status();
        self.state.send_if_modified(|state| {
            let changed = state.status != mailbox;
            state.status = mailbox.clone();
            changed
        });
        if let Some(dilation) = &self.dilation {
            let generation = self.manager.generation();
            dilation.request.status.send_if_modified(|status| {
                let changed = status.mailbox != mailbox || status.generation != generation;
                status.mailbox = mailbox;
                status.generation = generation;
                changed
            });
        }
    }

    async fn finish(mut self, result: Result<(), WormholeError>) {
        self.manager.stop();
        let late = {
            let mut requests = self.shared.requests();
            requests.ended = Some(result.clone().err().unwrap_or(WormholeError::Closed));
            requests.dilate.take()
        };
        if let Some(request) = late {
            self.dilate(request);
        }
        if let Some(mut dilation) = self.dilation.take() {
            dilation.connector = None;
            let (reason, error) = match &result {
                Ok(()) => (EndReason::closed("the wormhole was closed"), None),
                Err(WormholeError::Closed) => {
                    (EndReason::closed("the wormhole was dropped"), Some(WormholeError::Closed))
                }
                Err(error) => (EndReason::failed(error.to_string()), Some(error.clone())),
            };
            dilation.request.mux.fail(reason);
            if let Some(link) = dilation.link.take() {
                link.close(dilation.request.config.fin_timeout).await;
            }
            dilation.set_link_status(LinkStatus::Stopped { error: error.map(DilationError::Wormhole) });
        }
        self.publish();
        self.state.send_modify(|state| state.closed = Some(result));
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Its runtime may be gone before anything came to an end: who dilates now, or did a moment ago, must be told.
        let late = {
            let mut requests = self.shared.requests();
            requests.ended.get_or_insert(WormholeError::Closed);
            requests.dilate.take()
        };
        if let Some(request) = late {
            request.mux.fail(EndReason::closed("the wormhole's task is gone"));
        }
    }
}

/// The future, or one that never ends.
async fn optional<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
