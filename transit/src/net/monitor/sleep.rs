//! Sleep, as two clocks and a timer see it.

use std::time::{Duration, Instant, SystemTime};

/// Tells from regular observations of both clocks when the machine slept or the process stood still.
#[derive(Debug)]
pub(super) struct SleepDetector {
    threshold: Duration,
    monotonic: Instant,
    wall: SystemTime,
}

impl SleepDetector {
    pub(super) fn new(threshold: Duration, monotonic: Instant, wall: SystemTime) -> SleepDetector {
        SleepDetector { threshold, monotonic, wall }
    }

    /// An observation that came `late` after it was due. Gives how long nothing ran, if that is more than the
    /// threshold.
    pub(super) fn observe(
        &mut self,
        late: Duration,
        monotonic: Instant,
        wall: SystemTime,
    ) -> Option<Duration> {
        let counted = monotonic.saturating_duration_since(self.monotonic);
        // A wall clock that was set back says nothing.
        let dated = wall.duration_since(self.wall).unwrap_or_default();
        (self.monotonic, self.wall) = (monotonic, wall);
        // A suspended machine's monotonic clock stands still; that of a stopped process goes on, but its timer is late.
        let suspended = dated.saturating_sub(counted);
        let away = [suspended, late]
            .into_iter()
            .filter(|gap| *gap > self.threshold)
            .fold(Duration::ZERO, Duration::saturating_add);
        (!away.is_zero()).then_some(away)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLD: Duration = Duration::from_secs(2);

    struct Clocks {
        monotonic: Instant,
        wall: SystemTime,
        detector: SleepDetector,
    }

    impl Clocks {
        #[expect(clippy::disallowed_methods, reason = "an arbitrary origin of virtual time")]
        fn new() -> Clocks {
            let monotonic = Instant::now();
            let wall = SystemTime::UNIX_EPOCH + secs(1_700_000_000.0);
            Clocks { monotonic, wall, detector: SleepDetector::new(THRESHOLD, monotonic, wall) }
        }

        /// An observation in time, between which the clocks advanced so far.
        fn pass(&mut self, monotonic: f64, wall: f64) -> Option<Duration> {
            self.pass_late(0.0, monotonic, wall)
        }

        fn pass_late(&mut self, late: f64, monotonic: f64, wall: f64) -> Option<Duration> {
            self.monotonic += secs(monotonic);
            self.wall = if wall < 0.0 { self.wall - secs(-wall) } else { self.wall + secs(wall) };
            self.detector.observe(secs(late), self.monotonic, self.wall)
        }
    }

    fn secs(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_suspended_machine_is_told_once() {
        let mut clocks = Clocks::new();
        assert_eq!(clocks.pass(1.0, 1.0), None);
        assert_eq!(clocks.pass(1.0, 61.0), Some(secs(60.0)));
        assert_eq!(clocks.pass(1.0, 1.0), None);
        assert_eq!(clocks.pass(0.5, 3.0), Some(secs(2.5)));
    }

    #[test]
    fn a_stopped_process_is_told_by_its_lateness() {
        let mut clocks = Clocks::new();
        assert_eq!(clocks.pass_late(4.0, 5.0, 5.0), Some(secs(4.0)));
        assert_eq!(clocks.pass(1.0, 1.0), None);
    }

    #[test]
    fn a_process_stopped_on_a_machine_that_is_suspended_is_told_the_sum() {
        let mut clocks = Clocks::new();
        assert_eq!(clocks.pass_late(4.0, 5.0, 65.0), Some(secs(64.0)));
    }

    #[test]
    fn the_threshold_itself_is_not_sleep() {
        let mut clocks = Clocks::new();
        assert_eq!(clocks.pass(1.0, 3.0), None);
        assert_eq!(clocks.pass_late(2.0, 3.0, 3.0), None);
        assert_eq!(clocks.pass(1.0, 3.001), Some(secs(2.001)));
    }

    #[test]
    fn a_wall_clock_set_back_or_stepped_a_little_is_nothing() {
        let mut clocks = Clocks::new();
        assert_eq!(clocks.pass(1.0, -3600.0), None);
        // It counts from where it was set to.
        assert_eq!(clocks.pass(1.0, 1.0), None);
        assert_eq!(clocks.pass(1.0, 1.9), None);
        assert_eq!(clocks.pass(1.0, 0.1), None);
        // Many small steps do not add up.
        for _ in 0..100 {
            assert_eq!(clocks.pass(1.0, 1.5), None);
        }
    }

    #[test]
    fn a_monotonic_clock_far_ahead_of_the_date_is_nothing() {
        let mut clocks = Clocks::new();
        assert_eq!(clocks.pass(3600.0, 0.0), None);
        assert_eq!(clocks.pass(3600.0, 1.0), None);
    }
}
