//! Who may write while what is written and not acknowledged has a limit.

/// Counts bytes that writers add and acknowledgements take away, and lets writers in while there is room.
#[derive(Debug)]
pub(super) struct Gate {
    bytes: usize,
    limit: usize,
    /// Someone was refused for want of room. Nobody is admitted until half is free, else those who happen to ask at
    /// the right moment would starve those who wait.
    closed: bool,
}

impl Gate {
    /// An open gate to an empty room of `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Gate { bytes: 0, limit, closed: false }
    }

    /// Bytes that are in.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Room for something that can be cut anywhere and costs `overhead` bytes more than it has; closes if there is none.
    pub(super) fn room(&mut self, overhead: usize) -> usize {
        let room = self.limit.saturating_sub(self.bytes.saturating_add(overhead));
        self.closed |= room == 0;
        if self.closed { 0 } else { room }
    }

    /// Whether something indivisible may enter: it fits, or at most half is in use, so that a message above the limit
    /// can be sent, too. Closes if not.
    pub(super) fn admits(&mut self, cost: usize) -> bool {
        let fits = self.bytes.saturating_add(cost) <= self.limit || self.is_half_free();
        self.closed |= !fits;
        !self.closed
    }

    /// Whether someone waits and may now be woken; opens.
    pub(super) fn reopen(&mut self) -> bool {
        let reopen = self.closed && self.is_half_free();
        self.closed &= !reopen;
        reopen
    }

    /// Whether someone waits.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// What cost `from` bytes costs `to` now; what enters has cost none. Whether it may, the gate is not asked here.
    pub(super) fn recharge(&mut self, from: usize, to: usize) {
        self.bytes = self.bytes + to - from;
    }

    /// Nothing is in, and nobody waits.
    pub(super) fn clear(&mut self) {
        self.bytes = 0;
        self.closed = false;
    }

    fn is_half_free(&self) -> bool {
        self.bytes <= self.limit / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(bytes: usize) -> Gate {
        let mut gate = Gate::new(1000);
        gate.recharge(0, bytes);
        gate
    }

    #[test]
    fn who_is_refused_closes_it_for_all_until_half_is_free() {
        let mut gate = holding(999);
        assert_eq!((gate.room(0), gate.is_closed()), (1, false));
        assert!(!gate.admits(2));
        gate.recharge(999, 501);
        assert_eq!((gate.room(0), gate.admits(1)), (0, false), "for those who did not wait, too");
        assert!(!gate.reopen() && gate.is_closed());
        gate.recharge(501, 500);
        assert_eq!((gate.room(0), gate.admits(1)), (0, false), "those who wait have to be woken first");
        assert!(gate.reopen() && !gate.is_closed());
        assert_eq!(gate.room(0), 500);
        assert!(!gate.reopen(), "nobody waits any more");
    }

    #[test]
    fn a_full_room_closes_it() {
        let mut gate = holding(1000);
        assert!(!gate.is_closed() && !gate.reopen());
        assert_eq!(gate.room(0), 0);
        assert!(gate.is_closed());
    }

    #[test]
    fn what_can_be_cut_gets_the_room_behind_its_overhead() {
        assert_eq!(holding(600).room(64), 336);
        let mut gate = holding(936);
        assert_eq!((gate.room(64), gate.is_closed()), (0, true), "overhead alone is no use");
    }

    #[test]
    fn what_is_indivisible_may_exceed_the_limit_when_half_is_free() {
        let mut gate = holding(500);
        assert!(gate.admits(usize::MAX));
        gate.recharge(0, 5000);
        assert!(!gate.admits(0));
        let mut gate = holding(501);
        assert!(gate.admits(499));
        assert!(!gate.admits(500));
    }

    #[test]
    fn after_the_end_nobody_waits() {
        let mut gate = holding(2000);
        assert!(!gate.admits(1));
        gate.clear();
        assert_eq!((gate.bytes(), gate.is_closed(), gate.reopen()), (0, false, false));
        assert_eq!(gate.room(0), 1000);
    }
}
