//! The one place of the driver that reads the clock.

#[expect(clippy::disallowed_methods, reason = "drivers read the clock and pass it to the core")]
pub(super) fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
