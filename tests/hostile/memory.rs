//! Watches the resident memory of the process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(2);

/// The greatest resident memory since it began.
pub(crate) struct Memory {
    before: usize,
    peak: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Memory {
    pub(crate) fn watch() -> Memory {
        let before = resident();
        let peak = Arc::new(AtomicUsize::new(before));
        let over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (peak, over) = (peak.clone(), over.clone());
            move || {
                while !over.load(Ordering::Relaxed) {
                    peak.fetch_max(resident(), Ordering::Relaxed);
                    std::thread::sleep(INTERVAL);
                }
            }
        });
        Memory { before, peak, over, thread: Some(thread) }
    }

    /// By how much it has grown at most, in KiB.
    pub(crate) fn growth(&self) -> usize {
        self.peak.load(Ordering::Relaxed).saturating_sub(self.before)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Only a thread that panicked gives an error, and a panic has been reported.
            drop(thread.join());
        }
    }
}

/// Resident memory in KiB; 0 where the system does not tell.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
