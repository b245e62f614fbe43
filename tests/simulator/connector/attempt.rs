//! A connection on its way to become a link.

use std::time::Instant;

use bytes::BytesMut;
use dilated_transit::{
    KCM, LinkHandshake, Offer, Opener, Path, Sealer, Stage,
    race::{DialId, Retry},
};

use super::HANDSHAKE_TIMEOUT;
use crate::network::{Network, Place};

/// A connection over which the peer has confirmed its key.
pub(crate) struct Candidate {
    pub(crate) place: Place,
    pub(crate) pipe: (Sealer, Opener),
    /// To be sent: what is left of the handshake, and a Leader's choice.
    pub(crate) output: BytesMut,
    pub(crate) path: Path,
    pub(crate) generation: u64,
    pub(crate) peer_linked: bool,
    /// The dial that it came from.
    pub(super) attempt: Option<(u64, DialId)>,
}

impl Candidate {
    /// The Leader chooses it.
    pub(super) fn choose(&mut self) {
        self.pipe.0.seal(&[KCM], &mut self.output).expect("short");
    }
}

/// A connection that may become one.
pub(super) struct Attempt {
    /// Which search dialled; none if the peer did.
    pub(super) dial: Option<(u64, DialId)>,
    pub(super) relayed: bool,
    pub(super) path: Path,
    pub(super) handshake: LinkHandshake,
    pub(super) output: BytesMut,
    /// TCP is connected.
    pub(super) connected: bool,
    pub(super) deadline: Option<Instant>,
}

impl Attempt {
    pub(super) fn due(&self) -> Option<Instant> {
        self.deadline.filter(|_| !(self.connected && self.handshake.is_unhurried()))
    }

    /// Whether the peer has confirmed its key.
    pub(super) fn shake(&mut self, place: Place, offer: Offer, network: &mut Network) -> Result<bool, Retry> {
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
            self.handshake.set_offer(offer);
            self.handshake.handle_input(&bytes).map_err(|_| retry)?;
            if before == Stage::Relay && self.handshake.stage() != Stage::Relay {
                self.deadline = Some(network.now + HANDSHAKE_TIMEOUT);
            }
        }
    }
}
