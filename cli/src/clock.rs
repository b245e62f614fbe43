//! The one place that reads the clock.

use std::time::{Duration, Instant, SystemTime};

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

/// The processor time that this process has used, where the system tells.
pub(crate) fn cpu() -> Option<Duration> {
    #[cfg(unix)]
    return Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime)).ok();
    #[cfg(not(unix))]
    return None;
}
