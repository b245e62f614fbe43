//! The drivers of this crate, on tokio: listening, dialling, links over TCP, and what disturbs them.

mod attempt;
mod attempts;
mod buffers;
mod candidate;
mod config;
mod connector;
mod dial;
mod halves;
mod link;
mod listener;
mod monitor;
mod proxy;
pub mod v1;

pub use candidate::Candidate;
pub use config::{ConnectorConfig, ConnectorLimits, Search};
pub use connector::{Connector, ConnectorEvent};
#[cfg(feature = "relay")]
pub(crate) use dial::linger;
pub use dial::local_addresses;
pub use link::{Link, LinkError, LinkReader, LinkWriter};
pub use monitor::{Disturbance, Monitor, MonitorConfig, has_address};
pub use proxy::{Proxy, ProxyParseError};

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "drivers read the clock here, cores never")]
fn now() -> Instant {
    // Tokio's clock, so that tests which pause it pause us too.
    tokio::time::Instant::now().into_std()
}
