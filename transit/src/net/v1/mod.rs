//! Transit v1 over TCP: a [`TransitSender`] and a [`TransitReceiver`] tell each other their hints, find one connection, and
//! move records over it.

mod bulk;
mod config;
mod pipe;
mod search;

use std::{collections::BTreeSet, fmt, io, marker::PhantomData, time::Duration};

use rand::Rng;
use thiserror::Error;

use self::search::Search;
pub use self::{
    config::{TransitConfig, TransitLimits},
    pipe::{TransferError, TransitPipe, TransitReader, TransitWriter},
};
use super::listener::Listener;
use crate::{
    hint::{Ability, Hint},
    path::Path,
    v1::Part,
};

/// One of the two parts, as a type.
pub trait Side {
    /// The same as a value.
    const PART: Part;
}

/// The part of the one that chooses the connection.
#[derive(Debug, Clone, Copy)]
pub enum Sending {}

/// The part of the other one.
#[derive(Debug, Clone, Copy)]
pub enum Receiving {}

impl Side for Sending {
    const PART: Part = Part::Sender;
}

impl Side for Receiving {
    const PART: Part = Part::Receiver;
}

/// The side that chooses the connection; in a file transfer, the one that sends.
pub type TransitSender = Transit<Sending>;

/// The side that uses the connection which the other one chose.
pub type TransitReceiver = Transit<Receiving>;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Neither side can dial the other, and there is no relay.
    #[error(
        "there is no way to the other side: it named no address and no relay that can be used, and nothing listens here; allow listening, or name a relay"
    )]
    NoWay,
    /// Nothing that could be dialled is the other side, and nothing listens here.
    #[error("nothing that can be dialled is the other side, and nothing listens here{}", Failures(.failures))]
    NothingLeft {
        /// What was tried, and what became of it; the last of each.
        failures: Vec<(Path, String)>,
    },
    /// It took too long.
    #[error("no connection to the other side within {} s{}", .timeout.as_secs(), Failures(.failures))]
    Timeout {
        /// [`TransitLimits::timeout`].
        timeout: Duration,
        /// What was tried, and what became of it; the last of each.
        failures: Vec<(Path, String)>,
    },
}

struct Failures<'a>(&'a [(Path, String)]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(path, reason)| write!(f, "; {path}: {reason}"))
    }
}

/// One side of a connection that is to be, from the moment on where it listens.
///
/// Send the other side the [`abilities`](Self::abilities) and [`hints`](Self::hints), and [`connect`](Self::connect) with its
/// hints. Dropping it closes everything.
#[derive(Debug)]
pub struct Transit<S> {
    config: TransitConfig,
    listener: Option<Listener>,
    /// Ours, shown to relays.
    side: String,
    part: PhantomData<S>,
}

impl<S: Side> Transit<S> {
    /// Starts to listen, unless the configuration forbids it. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// No listener could be made, though one was asked for.
    pub fn new(config: TransitConfig) -> io::Result<Transit<S>> {
        let listen = config.listen && config.proxy.is_none();
        let listener = listen.then(Listener::bind).transpose()?;
        let side = format!("{:016x}", rand::rng().next_u64());
        Ok(Transit { config, listener, side, part: PhantomData })
    }

    /// What we can use of what the other side names.
    #[must_use]
    pub fn abilities(&self) -> BTreeSet<Ability> {
        let tor = self.config.proxy.as_ref().filter(|proxy| proxy.is_tor()).map(|_| Ability::Tor);
        [Ability::DirectTcp, Ability::Relay].into_iter().chain(tor).collect()
    }

    /// Where the other side can find us: our addresses, if we listen, and our relays.
    #[must_use]
    pub fn hints(&self) -> Vec<Hint> {
        let listener = self.listener.as_ref();
        let mut hints = listener.map_or_else(Vec::new, |listener| listener.hints(self.config.loopback));
        hints.extend(self.config.relays.iter().cloned().map(Hint::Relay));
        hints
    }

    /// Looks for the other side until there is a connection that both use.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]. Everything is closed then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes everything.
    pub async fn connect(self, peer_hints: &[Hint]) -> Result<TransitPipe, ConnectError> {
        Search::new(S::PART, self.config, self.listener, &self.side, peer_hints)?.run().await
    }
}

#[cfg(test)]
mod tests;
