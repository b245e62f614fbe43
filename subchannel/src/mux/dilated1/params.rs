//! What a side says of itself in `please`.

use crate::{
    frame::{DatagramHeader, MAX_PLAINTEXT},
    mux::MuxConfig,
};

/// What a side takes before it has said anything on a link: the numbers of `docs/protocol.md`, "Negotiation".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Units on each subchannel before its first CREDIT.
    pub subchannel_credit: u64,
    /// Units on all subchannels together before the first LINK_CREDIT.
    pub link_credit: u64,
    /// How many subchannels the peer may open before the first MAX_SUBCHANNELS.
    pub subchannels: u64,
    /// The longest datagram in bytes; 0 for none.
    pub datagram: u64,
    /// The longest message in bytes.
    pub message: u64,
}

impl Default for Params {
    fn default() -> Self {
        Params {
            subchannel_credit: 65_536,
            link_credit: 64 << 20,
            subchannels: 65_536,
            datagram: 1200,
            message: 16 << 20,
        }
    }
}

impl MuxConfig {
    /// What we say of ourselves to the peer.
    pub fn params(&self) -> Params {
        let config = self.clone().clamped();
        Params {
            subchannel_credit: super::credit::SMALL_WINDOW,
            link_credit: config.receive_total as u64,
            subchannels: config.max_subchannels as u64,
            datagram: config.max_datagram.min(MAX_PLAINTEXT - DatagramHeader::MAX) as u64,
            message: config.max_data as u64,
        }
    }
}
