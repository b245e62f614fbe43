//! The only place of the server that reads clocks.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, as clients see them in `server_tx`.
#[expect(clippy::disallowed_methods, reason = "the driver's clock; the core takes the result as an argument")]
pub(super) fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The clock of timeouts.
#[expect(clippy::disallowed_methods, reason = "the driver's clock")]
pub(super) fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
