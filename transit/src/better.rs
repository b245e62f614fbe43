//! What a side that has a link may still look for (specification `dilated-1`, section "The active link").

use crate::{
    hint::{Hint, RelayHint},
    path::Path,
};

/// What would be better than a link that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Better {
    /// One without a relay.
    Direct,
    /// One to stand by, which goes neither through the relay of this path, nor, if it is direct, to the same host.
    Other(Path),
}

impl Better {
    /// Whether a hint of the peer may lead to one.
    #[must_use]
    pub fn admits(&self, hint: &Hint) -> bool {
        match (self, hint) {
            (Better::Direct, Hint::Direct(_)) => true,
            (Better::Other(path), Hint::Direct(to)) => !path.is_direct() || to.hostname() != path.host(),
            (_, Hint::Relay(relay)) => self.admits_relay(relay),
            (_, Hint::Tor(_)) => false,
        }
    }

    /// Whether a meeting at this relay would be one.
    #[must_use]
    pub fn admits_relay(&self, relay: &RelayHint) -> bool {
        match self {
            Better::Direct => false,
            Better::Other(path) => relay.hints().iter().all(|hint| Path::relay(hint) != *path),
        }
    }

    /// The hints that a search for it may dial; all if it is another search.
    #[must_use]
    pub fn admitted(better: Option<&Better>, hints: &[Hint]) -> Vec<Hint> {
        hints.iter().filter(|hint| better.is_none_or(|better| better.admits(hint))).cloned().collect()
    }
}
