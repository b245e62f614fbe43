//! How long to wait before the next connection.

use std::time::Duration;

use rand::{Rng, RngExt};

const FACTOR: f64 = 1.5;

/// Failures that count: a factor of several millions, beyond every maximum that makes sense.
const MOST_FAILURES: i32 = 40;

/// The delays of the Python client, which are `min(1.5^n, 60)` seconds and up to one more at random.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: i32,
}

impl Backoff {
    /// Delays of `first`, half as much more each time, at most `max`; and up to `first` more by chance, so that the
    /// clients of a server that died do not all come back at once.
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Backoff {
        Backoff { first, max, failures: 0 }
    }

    /// The delay before the next attempt; the one after that will be longer.
    pub fn next_delay(&mut self, rng: &mut impl Rng) -> Duration {
        let first = self.first.as_secs_f64();
        let seconds = (first * FACTOR.powi(self.failures)).min(self.max.as_secs_f64());
        self.failures = (self.failures + 1).min(MOST_FAILURES);
        Duration::from_secs_f64(seconds + first * rng.random_range(0.0..1.0))
    }

    /// A connection was made: begin again with the shortest delay.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn grows_to_a_minute_and_resets() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for expected in [1.0, 1.5, 2.25, 3.375] {
            let delay = backoff.next_delay(&mut rng).as_secs_f64();
            assert!((expected..=expected + 1.0).contains(&delay), "{delay}");
        }
        for _ in 0..1000 {
            assert!(backoff.next_delay(&mut rng).as_secs_f64() <= 61.0);
        }
        assert!(backoff.next_delay(&mut rng).as_secs_f64() >= 60.0);
        backoff.reset();
        assert!(backoff.next_delay(&mut rng).as_secs_f64() <= 2.0);
    }
}
