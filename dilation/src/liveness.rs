//! Is the link alive? Pings while it is quiet, and the verdict when they stay unanswered.
//!
//! Specification `ged`, section "Keepalive", with three differences that no peer can see: both roles ping (Python
//! answers in both), every byte from the peer counts as life, and one lost PONG is forgiven, because a Python
//! Follower loses those that it sends before its outbound side is attached.

use std::time::{Duration, Instant};

use dilated_subchannel::PingId;

/// What the driver must do about liveness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing until [`Liveness::deadline`].
    Quiet,
    /// Send a PING with this id.
    Ping(PingId),
    /// Nothing has been heard for too long: abort the link.
    Dead,
}

/// The keepalive of one link.
#[derive(Debug)]
pub struct Liveness {
    interval: Duration,
    last_heard: Instant,
    next_ping: Instant,
    unanswered: u32,
    counter: u32,
}

/// PINGs in silence before the link counts as dead.
const MAX_UNANSWERED: u32 = 2;

impl Liveness {
    /// A link that came up `now`; a PING is sent after `interval` without a byte from the peer, and the link is
    /// dead after three intervals of silence.
    pub fn new(interval: Duration, now: Instant) -> Liveness {
        Liveness { interval, last_heard: now, next_ping: now + interval, unanswered: 0, counter: 0 }
    }

    /// Bytes came from the peer.
    pub fn handle_bytes(&mut self, now: Instant) {
        self.last_heard = now;
        self.unanswered = 0;
        self.next_ping = now + self.interval;
    }

    /// Our own reading is paused because the application does not read: silence says nothing about the peer. The
    /// peer gets no PONG from us meanwhile, so we go on to ping: that is our sign of life.
    pub fn handle_paused(&mut self, now: Instant) {
        self.last_heard = now;
        self.unanswered = 0;
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn deadline(&self) -> Instant {
        self.next_ping
    }

    /// When the peer was last heard.
    pub fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// Decides what to do `now`.
    pub fn handle_timeout(&mut self, now: Instant) -> Verdict {
        if now < self.next_ping {
            return Verdict::Quiet;
        }
        if self.unanswered >= MAX_UNANSWERED {
            return Verdict::Dead;
        }
        self.unanswered += 1;
        self.next_ping = now + self.interval;
        self.counter = self.counter.wrapping_add(1);
        Verdict::Ping(PingId::from(self.counter.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    #[expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]
    fn link() -> (Liveness, Instant) {
        let now = Instant::now();
        (Liveness::new(INTERVAL, now), now)
    }

    #[test]
    fn silence_is_probed_twice_and_then_is_death() {
        let (mut link, start) = link();
        assert_eq!(link.handle_timeout(start + INTERVAL / 2), Verdict::Quiet);
        let Verdict::Ping(first) = link.handle_timeout(start + INTERVAL) else { panic!("no ping") };
        let Verdict::Ping(second) = link.handle_timeout(start + INTERVAL * 2) else { panic!("no ping") };
        assert_ne!(first, second);
        assert_eq!(link.handle_timeout(start + INTERVAL * 3), Verdict::Dead);
        assert_eq!(link.last_heard(), start);
    }

    #[test]
    fn any_byte_is_life_and_one_lost_pong_is_forgiven() {
        let (mut link, start) = link();
        assert!(matches!(link.handle_timeout(start + INTERVAL), Verdict::Ping(_)));
        assert!(matches!(link.handle_timeout(start + INTERVAL * 2), Verdict::Ping(_)));
        link.handle_bytes(start + INTERVAL * 5 / 2);
        assert_eq!(link.deadline(), start + INTERVAL * 7 / 2);
        assert_eq!(link.handle_timeout(start + INTERVAL * 3), Verdict::Quiet);
        assert!(matches!(link.handle_timeout(start + INTERVAL * 7 / 2), Verdict::Ping(_)));
    }

    #[test]
    fn our_own_slow_reader_is_not_the_peers_death() {
        let (mut link, start) = link();
        for interval in 1..20 {
            link.handle_paused(start + INTERVAL * interval);
            let verdict = link.handle_timeout(start + INTERVAL * interval);
            assert!(matches!(verdict, Verdict::Ping(_)), "{verdict:?}: the peer must hear that we live");
        }
    }
}
