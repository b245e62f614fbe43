//! Clocks, memory and statistics.

use std::{
    fs,
    time::{Duration, Instant},
};

use alloc_tracker::{ProcessSpan, Session};

use crate::program::Outcome;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// What a piece of work took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) time: Duration,
    /// Of all threads of this process together.
    pub(crate) cpu: Duration,
    /// By all threads; nothing unless the allocator of the program counts.
    pub(crate) allocated: Allocated,
}

/// What was asked of the allocator; growing something asks for all of it again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allocated {
    pub(crate) times: u64,
    pub(crate) bytes: u64,
}

impl Spent {
    /// In MB/s, of 10^6 bytes.
    pub(crate) fn rate(&self, bytes: u64) -> f64 {
        float(bytes) / 1e6 / self.time.as_secs_f64()
    }

    /// In seconds of processor for 10^9 bytes.
    pub(crate) fn cpu_per_gigabyte(&self, bytes: u64) -> f64 {
        self.cpu.as_secs_f64() / (float(bytes) / 1e9)
    }
}

/// Runs while something is measured.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    started: Instant,
    cpu: Duration,
    allocations: Session,
    span: ProcessSpan,
}

impl Stopwatch {
    pub(crate) fn start() -> Outcome<Stopwatch> {
        let cpu = cpu_time()?;
        let allocations = Session::new().no_stdout().no_file();
        let span = allocations.operation("measured").measure_process().iterations(1);
        Ok(Stopwatch { cpu, allocations, span, started: now() })
    }

    pub(crate) fn stop(self) -> Outcome<Spent> {
        let time = now().saturating_duration_since(self.started);
        // Its end is what it counts to.
        drop(self.span);
        let cpu = cpu_time()?.saturating_sub(self.cpu);
        let report = self.allocations.to_report();
        let (_, counted) = report.operations().next().ok_or("the allocations were not counted")?;
        let allocated =
            Allocated { times: counted.total_allocations_count(), bytes: counted.total_bytes_allocated() };
        Ok(Spent { time, cpu, allocated })
    }
}

/// The processor time of this process. Linux counts it here in hundredths of a second.
fn cpu_time() -> Outcome<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in parentheses, may have spaces. User and system time are the 14th and 15th field.
    let fields = stat.rsplit_once(')').ok_or("/proc/self/stat has no name")?.1.split_whitespace();
    let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(10 * ticks))
}

/// The resident memory of this process, in bytes.
pub(crate) fn resident() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024)
}

#[expect(clippy::cast_precision_loss, reason = "what is counted here is far below 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// Counts of things that are in memory.
pub(crate) fn float_of(count: usize) -> f64 {
    float(count as u64)
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Round trips, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) median: f64,
    pub(crate) tail: f64,
    pub(crate) trips: usize,
}

impl Latency {
    /// The median and the 99th percentile of one round.
    pub(crate) fn of(mut trips: Vec<Duration>) -> Outcome<Latency> {
        trips.sort_unstable();
        let at = |index: usize| trips.get(index).map(|trip| trip.as_secs_f64() * 1e6);
        let count = trips.len();
        let (median, tail) = at(count / 2).zip(at(count * 99 / 100)).ok_or("not one round trip was done")?;
        Ok(Latency { median, tail, trips: count })
    }

    /// The medians over rounds.
    pub(crate) fn over(rounds: &[Latency]) -> Latency {
        Latency {
            median: median(rounds.iter().map(|round| round.median).collect()),
            tail: median(rounds.iter().map(|round| round.tail).collect()),
            trips: rounds.iter().map(|round| round.trips).sum(),
        }
    }
}
