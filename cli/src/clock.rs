//! The one place that reads the clock.

use std::time::{Instant, SystemTime};

/// Now.
#[expect(clippy::disallowed_methods, reason = "the command is a driver; everything below it takes `now`")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// What this machine believes the date is.
#[expect(clippy::disallowed_methods, reason = "the command is a driver, and only `doctor` asks for the date")]
pub(crate) fn date() -> SystemTime {
    SystemTime::now()
}
