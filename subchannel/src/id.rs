//! Numbers on the wire: subchannel identifiers and sequence numbers.

use std::fmt;

/// Which half of the identifiers a side allocates, so that both may open subchannels without asking.
///
/// Dilation protocol, "Subchannel Allocation": the Leader uses odd numbers, the Follower even ones. The
/// rule is for the side that allocates; a peer that breaks it is tolerated while the identifier is free,
/// because the released Python peers do not enforce it either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parity {
    /// 1, 3, 5, …: the Leader.
    Odd,
    /// 2, 4, 6, …: the Follower.
    Even,
}

impl Parity {
    /// The first identifier that this side allocates.
    pub fn first(self) -> SubchannelId {
        match self {
            Parity::Odd => SubchannelId(1),
            Parity::Even => SubchannelId(2),
        }
    }

    /// The parity of the other side.
    #[must_use]
    pub fn peer(self) -> Parity {
        match self {
            Parity::Odd => Parity::Even,
            Parity::Even => Parity::Odd,
        }
    }
}

/// The identifier of a subchannel ("scid"), unique among those that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubchannelId(pub u32);

impl SubchannelId {
    /// The next identifier of the same parity, `None` when 32 bits are used up.
    pub fn next(self) -> Option<SubchannelId> {
        self.0.checked_add(2).map(SubchannelId)
    }
}

impl fmt::Display for SubchannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of an OPEN, DATA or CLOSE record; one counter per direction, from 0, for the life of the
/// wormhole. It never wraps: the protocol has no rule for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqNum(pub u32);

impl fmt::Display for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parity_decides_the_first_identifier_and_steps_stay_in_it() {
        assert_eq!(Parity::Odd.first(), SubchannelId(1));
        assert_eq!(Parity::Even.first(), SubchannelId(2));
        assert_eq!(Parity::Odd.peer(), Parity::Even);
        assert_eq!(Parity::Even.peer(), Parity::Odd);
        assert_eq!(SubchannelId(1).next(), Some(SubchannelId(3)));
        assert_eq!(SubchannelId(u32::MAX - 2).next(), Some(SubchannelId(u32::MAX)));
        assert_eq!(SubchannelId(u32::MAX - 1).next(), None);
        assert_eq!(SubchannelId(u32::MAX).next(), None);
    }
}
