//! What is going on, for people and programs.

use std::{fmt, time::Duration};

use dilated_mailbox::client::MailboxStatus;
use dilated_transit::{Path, Role};

use crate::{dialect::Dialect, error::DilationError, generation::Generation};

/// The state of a dilation at one moment.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DilationStatus {
    /// The connection to the mailbox server, the key and the code. A lost mailbox costs nothing while the link is up.
    pub mailbox: MailboxStatus,
    /// Ours, once the peer's `please` is here.
    pub role: Option<Role>,
    /// What the two sides speak, once that is agreed on.
    pub dialect: Option<Dialect>,
    /// Counts the links, from 0; in `dilated-1` the times without any.
    pub generation: Generation,
    /// The link.
    pub link: LinkStatus,
    /// How the link goes that stands by, if there is one; only in `dilated-1`, and only if one is
    /// [wanted](crate::DilateConfig::standby).
    pub standby: Option<Path>,
}

/// The state of the link.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LinkStatus {
    /// Waiting for the peer to dilate too.
    Waiting,
    /// Looking for the first link.
    Connecting,
    /// On a link.
    Connected {
        /// How it was reached.
        path: Path,
        /// What it made good, unless it is the first. States may be missed when much happens at once; this tells of a
        /// loss that was over before anybody looked.
        recovered: Option<Recovery>,
    },
    /// The link was lost; looking for the next one. What is written meanwhile is queued.
    Reconnecting {
        /// Why it was lost.
        reason: String,
    },
    /// Ended, for good.
    Stopped {
        /// Why, unless the wormhole was closed in order.
        error: Option<DilationError>,
    },
}

/// The end of an outage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Why the link before was lost.
    pub reason: String,
    /// For how long there was none.
    pub outage: Duration,
}

impl fmt::Display for LinkStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkStatus::Waiting => f.write_str("waiting for the other side"),
            LinkStatus::Connecting => f.write_str("connecting"),
            LinkStatus::Connected { path, .. } => write!(f, "connected {path}"),
            LinkStatus::Reconnecting { reason } => write!(f, "reconnecting: {reason}"),
            LinkStatus::Stopped { error: Some(error) } => write!(f, "stopped: {error}"),
            LinkStatus::Stopped { error: None } => f.write_str("stopped"),
        }
    }
}
