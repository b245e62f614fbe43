//! Generations count the links of one dilated wormhole.

use std::fmt;

/// The number of a link attempt, from 0. Every `reconnect` starts the next. In `ged` it is local bookkeeping: the
/// wire does not carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Generation(u64);

impl Generation {
    /// The one that follows.
    #[must_use]
    pub fn next(self) -> Generation {
        Generation(self.0 + 1)
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
