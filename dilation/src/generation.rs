//! Generations count the links of one dilated wormhole.

use std::fmt;

/// The number of a time in which the two sides are linked, from 0. In `ged` every `reconnect` starts the next, and it
/// is local bookkeeping: the wire does not carry it. In `dilated-1` the links themselves agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Generation(u64);

impl Generation {
    /// The generation of this number.
    pub fn new(number: u64) -> Generation {
        Generation(number)
    }

    /// The one that follows.
    #[must_use]
    pub fn next(self) -> Generation {
        Generation(self.0.saturating_add(1))
    }

    /// As a number, from 0.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
