//! Who may write while what is written and not acknowledged has a limit.

/// Counts bytes that writers add and acknowledgements take away, and lets writers in while there is room.
#[derive(Debug)]
pub(super) struct Gate {
    bytes: usize,
    limit: usize,
    /// Someone was refused for want of room. Nobody else is admitted until half is free, or those who happen to ask at
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
    /// `called`: whoever asks has waited, and was told to come through the closed gate.
    pub(super) fn room(&mut self, overhead: usize, called: bool) -> usize {
        let room = self.unused().saturating_sub(overhead);
        self.closed |= room == 0;
        if self.closed && !called { 0 } else { room }
    }

    /// Whether something indivisible may enter: it fits, or at most half is in use, so that a message above the limit
    /// can be sent, too. Closes if not.
    pub(super) fn admits(&mut self, cost: usize, called: bool) -> bool {
        let fits = self.bytes.saturating_add(cost) <= self.limit || self.is_half_free();
        self.closed |= !fits;
        fits && (!self.closed || called)
    }

    /// Whether someone waits and may now be told to come.
    pub(super) fn is_due(&self) -> bool {
        self.closed && self.is_half_free()
    }

    /// Lets everybody in again.
    pub(super) fn open(&mut self) {
        self.closed = false;
    }

    /// The limit, in bytes.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes that are free.
    pub(super) fn unused(&self) -> usize {
        self.limit.saturating_sub(self.bytes)
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
        assert_eq!((gate.room(0, false), gate.is_closed()), (1, false));
        assert!(!gate.admits(2, false));
        gate.recharge(999, 501);
        assert_eq!(
            (gate.room(0, false), gate.admits(1, false)),
            (0, false),
            "for those who did not wait, too"
        );
        assert!(!gate.is_due() && gate.is_closed());
        gate.recharge(501, 500);
        assert_eq!(
            (gate.room(0, false), gate.admits(1, false)),
            (0, false),
            "those who wait have to be woken first"
        );
        assert_eq!(
            (gate.room(0, true), gate.admits(500, true)),
            (500, true),
            "those who are called come through"
        );
        assert!(gate.is_due() && gate.is_closed());
        gate.open();
        assert_eq!(gate.room(0, false), 500);
        assert!(!gate.is_due(), "nobody waits any more");
    }

    #[test]
    fn a_full_room_closes_it() {
        let mut gate = holding(1000);
        assert!(!gate.is_closed() && !gate.is_due());
        assert_eq!(gate.room(0, false), 0);
        assert!(gate.is_closed());
    }

    #[test]
    fn what_can_be_cut_gets_the_room_behind_its_overhead() {
        assert_eq!(holding(600).room(64, false), 336);
        let mut gate = holding(936);
        assert_eq!((gate.room(64, false), gate.is_closed()), (0, true), "overhead alone is no use");
    }

    #[test]
    fn what_is_indivisible_may_exceed_the_limit_when_half_is_free() {
        let mut gate = holding(500);
        assert!(gate.admits(usize::MAX, false));
        gate.recharge(0, 5000);
        assert!(!gate.admits(0, false));
        let mut gate = holding(501);
        assert!(gate.admits(499, false));
        assert!(!gate.admits(500, false));
    }

    #[test]
    fn after_the_end_nobody_waits() {
        let mut gate = holding(2000);
        assert!(!gate.admits(1, false));
        gate.clear();
        assert_eq!((gate.bytes(), gate.is_closed(), gate.is_due()), (0, false, false));
        assert_eq!(gate.room(0, false), 1000);
    }
}
