//! The last events of a run in words, for whoever has to understand a failure.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How many lines are kept, unless `DILATED_SIM_TRACE` asks for more.
const LINES: usize = 60;

pub(crate) struct Trace {
    start: Instant,
    now: Instant,
    lines: VecDeque<(Duration, String)>,
    most: usize,
    /// Only a run that is watched pays for the words.
    on: bool,
    /// Also when the run succeeds.
    wanted: bool,
}

impl Trace {
    pub(crate) fn new(start: Instant, on: bool) -> Trace {
        let wanted = on.then(|| crate::number("DILATED_SIM_TRACE")).flatten();
        let most = wanted.map_or(LINES, |most| usize::try_from(most).unwrap_or(LINES));
        Trace { start, now: start, lines: VecDeque::new(), most, on, wanted: wanted.is_some() }
    }

    pub(crate) fn set_time(&mut self, now: Instant) {
        self.now = now;
    }

    pub(crate) fn note(&mut self, words: impl FnOnce() -> String) {
        if !self.on {
            return;
        }
        if self.lines.len() == self.most {
            self.lines.pop_front();
        }
        self.lines.push_back((self.now - self.start, words()));
    }

    fn story(&self) -> String {
        let line = |(at, words): &(Duration, String)| format!("{:>10.3} s  {words}\n", at.as_secs_f64());
        self.lines.iter().map(line).collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if self.on && (self.wanted || std::thread::panicking()) {
            crate::report(&self.story());
        }
    }
}

/// A side's name.
pub(crate) fn name(host: usize) -> &'static str {
    ["A", "B", "the relay"][host]
}
