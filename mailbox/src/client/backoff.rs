//! How long to wait before the next connection.

use std::time::Duration;

use rand::{Rng, RngExt};

const FACTOR: f64 = 1.5;
const MAX_SECONDS: f64 = 60.0;

/// The delays of the Python client: `min(1.5^n, 60)` seconds and up to one more at random.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: i32,
}

impl Backoff {
    /// The delay before the next attempt; the one after that will be longer.
    pub fn next_delay(&mut self, rng: &mut impl Rng) -> Duration {
        let seconds = FACTOR.powi(self.failures).min(MAX_SECONDS);
        // 1.5^11 is beyond the maximum already.
        self.failures = (self.failures + 1).min(11);
        Duration::from_secs_f64(seconds + rng.random_range(0.0..1.0))
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
        let mut backoff = Backoff::default();
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
