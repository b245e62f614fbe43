//! What a wormhole has from `dilate()` on: the connector, the link, the status.

use std::time::Instant;

use dilated_mailbox::Key;
use dilated_subchannel::EndReason;
use dilated_transit::{
    DilationKey, Role, frame_length,
    net::{Connector, ConnectorConfig},
};

use crate::{
    clock, endpoint::DilateRequest, generation::Generation, link::LinkPump, role::DilationSide,
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
    pub(super) link: Option<LinkPump>,
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
        Dilation { request, side, connector: None, link: None, lost: None, unreadable: 0, silent: 0 }
    }

    pub(super) fn set_link_status(&self, link: LinkStatus) {
        self.request.status.send_modify(|status| status.link = link);
    }

    pub(super) fn make_connector(&self, role: Role, key: &Key) -> std::io::Result<Connector> {
        let key = <[u8; 32]>::try_from(key.derive("dilation-v1", 32)).expect("32 bytes were asked for");
        let config = &self.request.config;
        let mut limits = config.connector.clone();
        // What the multiplexer accepts, the link must let through.
        limits.handshake.max_frame = frame_length(config.mux.max_data + RECORD_HEADER);
        Connector::new(ConnectorConfig {
            role,
            key: DilationKey::new(key),
            side: self.side.as_str().to_owned(),
            listen: config.listen,
            loopback: config.loopback,
            relays: config.relays.clone(),
            limits,
        })
    }

    /// Gives the link up at once. Returns whether there was one.
    pub(super) fn abort_link(&mut self, reason: String, generation: Generation) -> bool {
        let Some(link) = self.link.take() else { return false };
        tracing::info!(%generation, reason, "link lost");
        if link.is_loaded() {
            self.silent = 0;
        }
        link.abort();
        self.lost.get_or_insert_with(|| (reason.clone(), clock::now()));
        self.set_link_status(LinkStatus::Reconnecting { reason });
        true
    }
}
