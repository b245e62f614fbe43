//! One core for each end of a link.

/// Where one of two ends runs. Otherwise the system would put both on one core now and then, and leave them there: figures
/// would differ by half from run to run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Core {
    First,
    Second,
}

impl Core {
    /// Keeps this thread there, and those that it makes. On a machine without that core, and on other systems than Linux,
    /// it stays where it is.
    pub(crate) fn keep_this_thread(self) {
        self.keep(None);
    }

    /// Keeps the main thread of another process there, and those that it makes.
    pub(crate) fn keep_process(self, id: u32) {
        self.keep(Some(id));
    }

    #[cfg(target_os = "linux")]
    fn keep(self, thread: Option<u32>) {
        use rustix::thread::{CpuSet, Pid, sched_setaffinity};

        let mut set = CpuSet::new();
        set.set(self as usize);
        let thread = thread.and_then(|id| Pid::from_raw(id.try_into().ok()?));
        let _stays_where_it_is = sched_setaffinity(thread, &set);
    }

    #[cfg(not(target_os = "linux"))]
    fn keep(self, _: Option<u32>) {}
}
