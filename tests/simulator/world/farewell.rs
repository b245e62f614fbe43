//! What must hold when sides close their wormholes.

use std::time::Duration;

use dilated_subchannel::EndReason;

use super::{World, judge::CONVERGENCE};
use crate::{post::CLOSE_TIMEOUT, side::End, side::LINGER, trace::name};

/// More than this late, and a close hangs.
const SLACK: Duration = Duration::from_secs(1);

impl World {
    /// Nobody hangs beyond the deadline, and ends are what they are called.
    pub(super) fn judge_close(&self) {
        for (number, side) in self.sides.iter().enumerate() {
            let other = &self.sides[1 - number];
            if let Some(at) = side.closed_at() {
                let late = self.network.now > at + LINGER + CLOSE_TIMEOUT + SLACK && !side.is_gone();
                assert!(!late, "the close of {} hangs: {}", name(number), self.describe());
                assert!(!side.is_gone() || side.end().is_some());
            } else {
                assert_ne!(side.end(), Some(End::Closed), "{} has not closed", name(number));
            }
            let closed = other.closed_at().is_some();
            assert!(
                side.end() != Some(End::PeerClosed) || closed,
                "{} is told of a close that never was",
                name(number)
            );
        }
        let late = self.network.now > self.calm + CONVERGENCE;
        assert!(!late || self.has_closed(), "somebody does not learn of the close: {}", self.describe());
    }

    /// Whether all have ended that have to.
    pub(super) fn has_closed(&self) -> bool {
        let told = self.told[0] || self.told[1];
        let now = self.network.now;
        self.sides.iter().zip(&self.network.hosts).all(|(side, host)| match side.closed_at() {
            Some(_) => side.is_gone(),
            // It is cut off for ever.
            None if host.deaf => true,
            None if told => side.end().is_some(),
            None => side.end().is_some() || now >= self.calm,
        })
    }

    /// What was acknowledged has arrived.
    pub(super) fn check_closed(&mut self) {
        for side in &mut self.sides {
            if side.end().is_none() {
                side.mux.fail(EndReason::closed("the run is over"));
                side.app.end(&mut side.mux);
            }
        }
        for number in [0, 1] {
            let [side, other] = [number, 1 - number].map(|number| &self.sides[number]);
            if side.closed_at().is_some() {
                self.summary.delivered += u64::from(side.has_delivered());
                self.summary.gave_up += u64::from(!side.has_delivered());
            }
            self.summary.told += u64::from(side.end() == Some(End::PeerClosed));
            if side.has_delivered() {
                other.app.check_delivered();
            }
        }
    }
}
