//! The one place of this crate that reads the clock; everything else is told.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "drivers read the clock here, cores never")]
pub(crate) fn now() -> Instant {
    // Tokio's clock, so that tests which pause it pause us too.
    tokio::time::Instant::now().into_std()
}
