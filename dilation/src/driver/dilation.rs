//! What a wormhole has from `dilate()` on: the connector, the link, the status.

use std::time::Instant;

use dilated_mailbox::Key;
use dilated_subchannel::EndReason;
use dilated_transit::{
    DilationKey, LinkDialect, Role, frame_length,
    net::{Candidate, Connector, ConnectorConfig},
};

use crate::{
    clock,
    dialect::Agreement,
    endpoint::DilateRequest,
    generation::Generation,
    link::{LinksPump, Pump},
    links::Links,
    role::DilationSide,
    status::LinkStatus,
};

/// Bytes before the payload of a DATA record.
const RECORD_HEADER: usize = 9;

/// The dilated part, from `dilate()` on.
#[derive(Debug)]
pub(super) struct Dilation {
    pub(super) request: DilateRequest,
    side: DilationSide,
    pub(super) connector: Option<Connector>,
    pub(super) agreement: Option<Agreement>,
    pub(super) link: Option<Pump>,
    /// In `dilated-1`, while there is no link: what the next have to know of the former ones.
    former: Option<Links>,
    /// Why and since when there is no link, after there was one.
    pub(super) lost: Option<(String, Instant)>,
    pub(super) unreadable: u32,
    /// Links in a row that fell silent before the peer acknowledged anything.
    pub(super) silent: u32,
}

impl Drop for Dilation {
    fn drop(&mut self) {
        // For the case that the task itself is dropped, with its runtime; in every other the reason is known and
        // was given before.
        self.request.mux.fail(EndReason::closed("the wormhole's task is gone"));
    }
}

impl Dilation {
    pub(super) fn new(request: DilateRequest, side: DilationSide) -> Dilation {
        Dilation {
            request,
            side,
            connector: None,
            agreement: None,
            link: None,
            former: None,
            lost: None,
            unreadable: 0,
            silent: 0,
        }
    }

    /// Tells the application. Returns whether that was news.
    pub(super) fn set_link_status(&self, link: LinkStatus) -> bool {
        let standby = self.link.as_ref().and_then(Pump::standby).cloned();
        self.request.status.send_if_modified(|status| {
            let news = status.link != link || status.standby != standby;
            (status.link, status.standby) = (link, standby);
            news
        })
    }

    pub(super) fn make_connector(&self, role: Role, key: &Key) -> std::io::Result<Connector> {
        let key = <[u8; 32]>::try_from(key.derive("dilation-v1", 32)).expect("32 bytes were asked for");
        let config = &self.request.config;
        let mut limits = config.connector.clone();
        // What the multiplexer accepts, the link must let through.
        limits.handshake.max_frame = frame_length(config.mux.max_data + RECORD_HEADER);
        Connector::new(ConnectorConfig {
            role,
            dialect: match self.agreement {
                Some(Agreement::Dilated1 { aes, .. }) => LinkDialect::Dilated1 { aes },
                _ => LinkDialect::Ged,
            },
            key: DilationKey::new(key),
            side: self.side.as_str().to_owned(),
            listen: config.listen,
            loopback: config.loopback,
            relays: config.relays.clone(),
            proxy: config.proxy.clone(),
            limits,
        })
    }

    /// The first link of its generation.
    pub(super) fn use_candidate(
        &mut self,
        candidate: Candidate,
        generation: Generation,
        draining: bool,
        may_die_young: bool,
    ) {
        let Some(role) = self.request.status.borrow().role else { return };
        if self.link.is_some() {
            self.lost = Some(("the other side had lost it".to_owned(), clock::now()));
        }
        let config = &self.request.config;
        let mut links = match self.link.take() {
            Some(Pump::Dilated1(mut links)) => {
                links.reset();
                links
            }
            _ => {
                let most = config.mux.max_subchannels.saturating_mul(4);
                let fresh = || Links::new(role, config.liveness.clone(), most);
                let links = self.former.take().unwrap_or_else(fresh);
                Box::new(LinksPump::new(links, self.request.mux.clone()))
            }
        };
        if may_die_young || links.is_barren() {
            links.be_cautious(config.liveness.first_answer);
        }
        links.add(candidate.select(), role == Role::Leader);
        if draining {
            links.drain();
        }
        self.link = Some(Pump::Dilated1(links));
        if let Some(connector) = &mut self.connector {
            connector.rest();
            connector.set_offer(generation.get(), true);
        }
    }

    /// Another link of our generation.
    pub(super) fn add_candidate(&mut self, candidate: Candidate, needed: bool, generation: Generation) {
        let standby = self.wants_standby();
        let Some(Pump::Dilated1(links)) = &mut self.link else { return };
        if let Some(activate) = links.judge(candidate.path(), needed, standby) {
            links.add(candidate.select(), activate);
        }
        self.look_for_more(generation);
    }

    /// Goes on searching, gently, while there is something to gain; closes what is not needed any more.
    pub(super) fn look_for_more(&mut self, generation: Generation) {
        let standby = self.wants_standby();
        let (Some(Pump::Dilated1(links)), Some(connector)) = (&mut self.link, &mut self.connector) else {
            return;
        };
        match links.poll_wanted(standby) {
            Some(Some(better)) => connector.search_better(generation.get(), better),
            Some(None) => connector.rest(),
            None => {}
        }
    }

    /// Whether one of the two sides wants a second link.
    fn wants_standby(&self) -> bool {
        matches!(self.agreement, Some(Agreement::Dilated1 { standby: true, .. }))
    }

    /// Gives the link up at once. Returns whether there was one.
    pub(super) fn abort_link(&mut self, reason: String, generation: Generation) -> bool {
        let Some(link) = self.link.take() else { return false };
        tracing::info!(%generation, reason, "link lost");
        if link.is_loaded() {
            self.silent = 0;
        }
        self.former = link.abort();
        self.lost.get_or_insert_with(|| (reason.clone(), clock::now()));
        self.set_link_status(LinkStatus::Reconnecting { reason });
        true
    }
}
