//! How busy the machine is, of which the reader of times wants to know.

use std::ops::{AddAssign, Sub};

/// Time of the processors, in ticks, since some start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    busy: u64,
    all: u64,
}

impl Load {
    /// Since the machine started. Nothing where the system does not tell.
    pub(crate) fn now() -> Load {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        // cpu  user nice system idle iowait irq softirq steal …
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> =
            line.split_whitespace().skip(1).take(8).filter_map(|part| part.parse().ok()).collect();
        let (all, idle) = (ticks.iter().sum(), ticks.iter().skip(3).take(2).sum::<u64>());
        Load { busy: all - idle, all }
    }

    /// The part of the time in which the processors were busy, in per cent.
    pub(crate) fn percent(self) -> u64 {
        (100 * self.busy).checked_div(self.all).unwrap_or(0)
    }
}

impl Sub for Load {
    type Output = Load;

    fn sub(self, start: Load) -> Load {
        Load { busy: self.busy.saturating_sub(start.busy), all: self.all.saturating_sub(start.all) }
    }
}

impl AddAssign for Load {
    fn add_assign(&mut self, more: Load) {
        self.busy += more.busy;
        self.all += more.all;
    }
}
