//! How much may be on its way over the active link.
//!
//! What waits in the sockets' queues, ours and the peer's, makes everything after it late, and no priority reaches it
//! there. The kernel lets both grow to many megabytes. So we stop before they do: where the round trip is short, little
//! has to be on its way to keep a link busy.

use std::time::Duration;

/// May be on its way whatever the round trip, in units: twice what the peer acknowledges at once, and a record, which keeps
/// both ends busy. More does not fit into the caches of the processors any more.
const LEAST: u64 = 2 * AT_ONCE + STEP;
/// What the peer acknowledges at once, and so many for each microsecond of the round trip, where that is more: no path below
/// 8 Gbit/s is slowed down.
const AT_ONCE: u64 = 256 << 10;
const PER_MICROSECOND: u64 = 1 << 10;
/// Data waits until so much of it may go: short records cost more than a little patience.
const STEP: u64 = 64 << 10;

/// The limit, from the round trip of the path without what waits in its queues.
#[derive(Debug, Default)]
pub(super) struct Flight {
    base: Option<Duration>,
}

impl Flight {
    /// Another link: nothing is known of its path.
    pub(super) fn reset(&mut self) {
        self.base = None;
    }

    /// The round trip was measured. One that was `idle`, with nothing on its way, is that of the path; under load
    /// only a shorter one is news.
    pub(super) fn measured(&mut self, round_trip: Duration, idle: bool) {
        let known = self.base.filter(|_| !idle);
        self.base = Some(known.map_or(round_trip, |known| known.min(round_trip)));
    }

    /// Units that may follow `in_flight` ones; 0 if that is not worth a record.
    pub(super) fn room(&self, in_flight: u64) -> u64 {
        let Some(base) = self.base else { return u64::MAX };
        let micros = u64::try_from(base.as_micros()).unwrap_or(u64::MAX);
        let limit = micros.saturating_mul(PER_MICROSECOND).saturating_add(AT_ONCE).max(LEAST);
        let room = limit.saturating_sub(in_flight);
        if room < STEP { 0 } else { room }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn the_limit_follows_the_round_trip_of_the_path() {
        let mut flight = Flight::default();
        assert_eq!(flight.room(1 << 40), u64::MAX, "before anything was measured");
        flight.measured(MILLISECOND, false);
        let limit = AT_ONCE + 1000 * PER_MICROSECOND;
        assert_eq!(flight.room(0), limit);
        assert_eq!(flight.room(limit - STEP), STEP);
        assert_eq!(flight.room(limit - STEP + 1), 0, "not worth a record");
        assert_eq!(flight.room(u64::MAX), 0);
        flight.reset();
        assert_eq!(flight.room(0), u64::MAX);
    }

    #[test]
    fn what_our_own_queue_adds_is_not_taken_for_the_path() {
        let mut flight = Flight::default();
        flight.measured(2 * MILLISECOND, true);
        let limit = flight.room(0);
        flight.measured(50 * MILLISECOND, false);
        assert_eq!(flight.room(0), limit);
        flight.measured(MILLISECOND, false);
        assert!(flight.room(0) < limit);
        flight.measured(50 * MILLISECOND, true);
        assert!(flight.room(0) > limit, "the path has changed");
    }
}
