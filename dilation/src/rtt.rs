//! The round-trip time of a link, estimated as TCP does (RFC 6298, section 2).

use std::time::Duration;

/// The smoothed round-trip time and its variation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundTrip {
    smoothed: Duration,
    variation: Duration,
}

impl RoundTrip {
    /// From the first measurement (RFC 6298, 2.2).
    pub fn new(measured: Duration) -> RoundTrip {
        RoundTrip { smoothed: measured, variation: measured / 2 }
    }

    /// Takes another measurement (RFC 6298, 2.3).
    pub fn update(&mut self, measured: Duration) {
        let deviation = self.smoothed.abs_diff(measured);
        self.variation = self.variation * 3 / 4 + deviation / 4;
        self.smoothed = self.smoothed * 7 / 8 + measured / 8;
    }

    /// The smoothed round-trip time.
    pub fn smoothed(&self) -> Duration {
        self.smoothed
    }

    /// After how long an answer is missing: so many round trips, and no less than what RFC 6298 allows a jittery path.
    pub fn patience(&self, round_trips: u32) -> Duration {
        (self.smoothed.saturating_mul(round_trips)).max(self.smoothed + self.variation * 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_estimate_is_that_of_rfc_6298() {
        let mut rtt = RoundTrip::new(ms(100));
        assert_eq!(rtt, RoundTrip { smoothed: ms(100), variation: ms(50) });
        rtt.update(ms(180));
        assert_eq!(rtt, RoundTrip { smoothed: ms(110), variation: Duration::from_micros(57_500) });
        assert_eq!(rtt.patience(4), ms(440));
        assert_eq!(rtt.patience(1), ms(110 + 230), "jitter counts where the round trips would not suffice");
    }

    #[test]
    fn it_follows_a_change_and_survives_extremes() {
        let mut rtt = RoundTrip::new(ms(1));
        for _ in 0..60 {
            rtt.update(ms(800));
        }
        assert!(rtt.smoothed() > ms(790) && rtt.patience(4) < ms(3300), "{rtt:?}");
        rtt.update(Duration::from_secs(1 << 40));
        rtt.update(Duration::ZERO);
        assert!(rtt.patience(u32::MAX) >= rtt.smoothed());
    }
}
