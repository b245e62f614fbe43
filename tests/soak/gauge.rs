//! What the process uses: memory, descriptors, tasks.

use std::time::{Duration, Instant};

/// One look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Since the beginning of the soak.
    pub(crate) at: Duration,
    /// Resident memory in KiB; 0 where the system does not tell.
    pub(crate) resident: usize,
    /// Open file descriptors; 0 where the system does not tell.
    pub(crate) descriptors: usize,
    pub(crate) tasks: usize,
}

/// Takes samples.
pub(crate) struct Gauge {
    start: Instant,
}

impl Gauge {
    #[expect(clippy::disallowed_methods, reason = "the soak lasts for a real time")]
    pub(crate) fn new() -> Gauge {
        Gauge { start: Instant::now() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn sample(&self) -> Sample {
        Sample {
            at: self.elapsed(),
            resident: resident(),
            descriptors: descriptors(),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        }
    }
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn descriptors() -> usize {
    // The directory itself is open while it is read.
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1))
}

/// The medians of one value in the first and the last third of `samples`.
pub(crate) fn thirds(samples: &[Sample], value: impl Fn(&Sample) -> usize) -> (usize, usize) {
    let third = samples.len() / 3;
    let median = |part: &[Sample]| {
        let mut values: Vec<usize> = part.iter().map(&value).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    };
    (median(&samples[..third]), median(&samples[samples.len() - third..]))
}
