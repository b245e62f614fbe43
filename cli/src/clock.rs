//! The one place that reads the clock.

use std::time::Instant;

/// Now.
#[expect(clippy::disallowed_methods, reason = "the command is a driver; everything below it takes `now`")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
