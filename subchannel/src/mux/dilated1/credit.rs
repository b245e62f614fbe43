//! How much either side may send: on a subchannel, on all of them, and how many of them.

use std::time::{Duration, Instant};

use crate::frame::Violation;

/// The window of a subchannel before it is accepted, and under pressure.
pub(super) const SMALL_WINDOW: u64 = 64 << 10;
/// The `Stream::window` of one that is in use: 256 KiB.
pub(super) const USUAL_WINDOW: u8 = 1;
/// CREDIT goes at once for all subchannels that wait with it when this much was received on all of them.
pub(super) const ACKNOWLEDGE_AT: u64 = 256 << 10;
/// CREDIT goes at the latest after this.
pub(super) const ACKNOWLEDGE_WITHIN: Duration = Duration::from_millis(25);
/// A window that is consumed within this grows, whatever the round trip.
pub(super) const SHORTEST_MEASURE: Duration = Duration::from_millis(1);
/// A grown window that was not used up for so long may be taken for another.
pub(super) const IDLE_AFTER: Duration = Duration::from_secs(5);

/// The window of a `Stream::window`.
pub(super) fn window_size(window: u8, most: u64) -> u64 {
    SMALL_WINDOW.saturating_mul(1 << (2 * window.min(24))).min(most)
}

/// The sums over all subchannels but the control channel, in units.
#[derive(Debug)]
pub(super) struct LinkCredit {
    /// What we have sent, and may send.
    pub(super) sent: u64,
    pub(super) limit: u64,
    /// What we have received and the application has consumed, and what we have allowed.
    pub(super) received: u64,
    pub(super) consumed: u64,
    pub(super) granted: u64,
    budget: u64,
    /// LINK_CREDIT is to be sent.
    pub(super) due: bool,
}

impl LinkCredit {
    pub(super) fn new(limit: u64, budget: u64) -> Self {
        LinkCredit { sent: 0, limit, received: 0, consumed: 0, granted: budget, budget, due: false }
    }

    /// Units that may still be sent.
    pub(super) fn room(&self) -> u64 {
        self.limit.saturating_sub(self.sent)
    }

    /// The peer sent more.
    pub(super) fn receive(&mut self, units: u64) -> Result<(), Violation> {
        self.received = self.received.saturating_add(units);
        if self.received > self.granted {
            return Err(Violation::new(
                Violation::FLOW_CONTROL,
                "the peer sent more on all subchannels together than it may",
            ));
        }
        Ok(())
    }

    pub(super) fn consume(&mut self, units: u64) {
        self.consumed += units;
        self.due |= self.target() - self.granted >= self.budget / 4;
    }

    /// The new limit for LINK_CREDIT.
    pub(super) fn grant(&mut self) -> u64 {
        self.due = false;
        self.granted = self.target();
        self.granted
    }

    /// Units that wait to be consumed.
    pub(super) fn unread(&self) -> u64 {
        self.received - self.consumed
    }

    /// Half of the budget is unread.
    pub(super) fn is_pressed(&self) -> bool {
        self.unread() >= self.budget / 2
    }

    fn target(&self) -> u64 {
        self.consumed + self.budget
    }
}

/// So much at once, and so much more in each second, of something that costs the peer little and us more.
#[derive(Debug)]
pub(super) struct Allowance {
    burst: u64,
    rate: u64,
    /// What the peer does too often.
    fault: &'static str,
    left: u64,
    since: Option<Instant>,
}

impl Allowance {
    /// Of subchannels that are refused, or given up by their opener before they are accepted.
    pub(super) fn of_refusals() -> Self {
        Allowance::new(10_000, 1_000, "the peer opens subchannels and gives them up faster than allowed")
    }

    /// Of lists in RESUME: each costs a look at every subchannel.
    pub(super) fn of_resumes() -> Self {
        Allowance::new(1_000, 100, "the peer activates links faster than allowed")
    }

    fn new(burst: u64, rate: u64, fault: &'static str) -> Self {
        Allowance { burst, rate, fault, left: burst, since: None }
    }

    pub(super) fn count(&mut self, now: Instant) -> Result<(), Violation> {
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since).as_millis();
        let more = u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_mul(self.rate) / 1000;
        if more > 0 {
            self.left = self.left.saturating_add(more).min(self.burst);
            self.since = Some(now);
        }
        let left = self.left.checked_sub(1);
        self.left = left.ok_or_else(|| Violation::new(Violation::RATE, self.fault))?;
        Ok(())
    }
}
