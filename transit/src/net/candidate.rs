//! A connection over which the peer has confirmed its key, and which may become a link.

use tokio::sync::mpsc;

use super::{attempt::Confirmed, connector::Attempt, link::Link};
use crate::{dialect::Offer, handshake::KCM, path::Path, role::Role};

/// What a [`Connector`](super::Connector) in `dilated-1` has found: a connection to the peer that waits for a decision.
///
/// A Leader decides whether it becomes a link. A Follower has been told by the Leader that it does, and decides whether
/// that still fits its own generation. Dropping it resets the connection, and the search, if one runs, goes on.
#[derive(Debug)]
pub struct Candidate {
    /// Until it is selected.
    link: Option<Link>,
    role: Role,
    peer: Offer,
    /// The dial that it came from, and whom to tell when it is dropped.
    dial: Option<(Attempt, mpsc::UnboundedSender<Attempt>)>,
}

impl Candidate {
    pub(super) fn new(
        confirmed: Confirmed,
        path: Path,
        role: Role,
        dial: Option<(Attempt, mpsc::UnboundedSender<Attempt>)>,
    ) -> Candidate {
        let Confirmed { stream, sealer, opener, peer, generation } = confirmed;
        Candidate { link: Some(Link::new(stream, sealer, opener, path, generation)), role, peer, dial }
    }

    /// That of the link it would be: the greater of the two that the sides had in the handshake.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.link().generation
    }

    /// Whether the peer had a link of its generation when it made its part of the handshake.
    #[must_use]
    pub fn peer_linked(&self) -> bool {
        self.peer.linked
    }

    /// All that the peer said of itself in the handshake.
    #[must_use]
    pub fn peer(&self) -> Offer {
        self.peer
    }

    /// How the peer was reached.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.link().path
    }

    /// Our address of the connection, or none if the socket has none any more.
    #[must_use]
    pub fn local_address(&self) -> Option<std::net::SocketAddr> {
        self.link().local_address()
    }

    /// Makes it a link. A Leader's writer then holds the key confirmation that tells the Follower of the choice: flush it.
    #[must_use]
    pub fn select(mut self) -> Link {
        let mut link = self.link.take().expect("it is taken here only, and this is the end of the candidate");
        if self.role == Role::Leader {
            link.writer.seal(&[KCM]).expect("a new link has all its nonces, and one byte fits a frame");
        }
        link
    }

    fn link(&self) -> &Link {
        self.link.as_ref().expect("it is taken by `select` only, which consumes the candidate")
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        link.abort();
        if let Some((attempt, returns)) = self.dial.take() {
            // Nobody listens if the connector is gone, too.
            let _ = returns.send(attempt);
        }
    }
}
