//! The drivers of this crate, on tokio: listening, dialling, and links over TCP.

mod connector;
mod dial;
mod link;

pub use connector::{Connector, ConnectorConfig, ConnectorEvent, ConnectorLimits};
pub use dial::local_addresses;
pub use link::{Link, LinkError, LinkReader, LinkWriter};

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "drivers read the clock here, cores never")]
fn now() -> Instant {
    // Tokio's clock, so that tests which pause it pause us too.
    tokio::time::Instant::now().into_std()
}
