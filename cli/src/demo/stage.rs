//! Where the demonstration is told.

use std::{convert::Infallible, fmt::Display, time::Instant};

use dilated::Dilated;
use futures::StreamExt;

use crate::{
    clock,
    exit::Failure,
    quote::printable,
    status::{LinkStory, Report},
};

/// Prints what happens, with the time since the beginning.
#[derive(Debug)]
pub(crate) struct Stage {
    report: Report,
    begin: Instant,
}

impl Stage {
    pub(crate) fn new(report: Report) -> Stage {
        Stage { report, begin: clock::now() }
    }

    /// Text as it is.
    pub(crate) fn text(&self, text: impl Display) -> Result<(), Failure> {
        self.report.output(text)
    }

    /// Something that happened.
    pub(crate) fn narrate(&self, what: impl Display) -> Result<(), Failure> {
        let seconds = clock::now().saturating_duration_since(self.begin).as_secs_f64();
        self.report.output(format_args!("{seconds:6.2} s  {what}"))
    }

    /// What somebody said, printed when it has arrived.
    pub(crate) fn said(&self, who: &str, words: &[u8]) -> Result<(), Failure> {
        self.narrate(format_args!("{who}: “{}”", printable(&String::from_utf8_lossy(words))))
    }

    /// Tells what happens to the link of `who`.
    pub(crate) async fn follow(&self, who: &str, dilated: &Dilated) -> Result<Infallible, Failure> {
        let mut changes = dilated.status_changes();
        let mut story = LinkStory::new();
        while let Some(status) = changes.next().await {
            if let Some(line) = story.tell(&status) {
                self.narrate(format_args!("[{who}'s link] {line}"))?;
            }
        }
        // Who uses the link learns why it ended.
        std::future::pending().await
    }
}
