//! What happened, for the reader of a failure.

use std::{
    collections::VecDeque,
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use crate::gauge::Gauge;

const KEPT_LINES: usize = 200;

/// The last lines of the story. Printed when the test panics.
pub(crate) struct Journal {
    gauge: Gauge,
    lines: Mutex<VecDeque<String>>,
}

impl Journal {
    pub(crate) fn new(gauge: Gauge) -> Arc<Journal> {
        Arc::new(Journal { gauge, lines: Mutex::default() })
    }

    pub(crate) fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    pub(crate) fn note(&self, line: impl std::fmt::Display) {
        let line = format!("{:9.3} {line}", self.gauge.elapsed().as_secs_f32());
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Prints the last lines.
    pub(crate) fn print(&self) {
        for line in self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            report(line);
        }
    }
}

/// Prints the journal if the test fails while this is alive.
pub(crate) struct PrintOnPanic(pub(crate) Arc<Journal>);

impl Drop for PrintOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.print();
        }
    }
}

/// Prints what a passing test's reader should see, too: `println!` would be captured by the test harness.
pub(crate) fn report(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
