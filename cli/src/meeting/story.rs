//! What the user is told while two sides are together.

use std::{convert::Infallible, time::Duration};

use dilated::{ConnectionStatus, DilationStatus, Event, Wormhole};
use futures::{FutureExt, Stream, StreamExt};

use super::{LastWord, Meeting};
use crate::{
    exit::Failure,
    quote::printable,
    status::{LinkStory, NO_PATH_ADVICE, NO_PATH_PATIENCE},
};

impl Meeting<'_> {
    /// Tells what happens to the mailbox while it matters, and returns when the other side leaves early.
    pub(super) async fn watch_mailbox(&self) -> Failure {
        let mut events = self.wormhole.events();
        let messages = self.messages.take();
        let mut present = true;
        while let Some(event) = events.next().await {
            match event {
                Event::Welcome(welcome) => {
                    if let Some(motd) = &welcome.motd {
                        self.report.line(format_args!("the mailbox server says: {}", printable(motd)));
                    }
                }
                Event::Message(message) => match LastWord::parse(&message, self.purpose) {
                    Some(word) => match word.failure(self.purpose) {
                        Some(failure) => return failure,
                        None => {
                            self.complete.send_replace(true);
                        }
                    },
                    None => match &messages {
                        // Who does not listen any more has no use for it.
                        Some(messages) => drop(messages.send(message).await),
                        None => {
                            tracing::info!("a message that is not the other side's last word was ignored");
                        }
                    },
                },
                Event::Status(status) => match status.connection {
                    ConnectionStatus::Connected if !present => {
                        present = true;
                        self.report.line("the mailbox server is back");
                    }
                    ConnectionStatus::Disconnected if present && was_greeted(self.wormhole) => {
                        present = false;
                        let reason = status.last_failure.as_deref().unwrap_or("no reason is known");
                        self.report.line(format_args!(
                            "the mailbox server is gone, which matters only while there is no link; trying again ({})",
                            printable(reason)
                        ));
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        // The session has the reason.
        drop(messages);
        std::future::pending().await
    }

    /// Tells what happens to the link, given its states.
    pub(crate) async fn narrate_link(
        &self,
        mut changes: impl Stream<Item = DilationStatus> + Unpin,
    ) -> Infallible {
        /// Whether the other side left because it had everything, the mailbox may tell a moment after the link.
        const MOMENT: Duration = Duration::from_millis(300);
        let mut complete = self.complete.subscribe();
        let mut story = LinkStory::new();
        let mut advised = false;
        loop {
            let patience = tokio::time::sleep(NO_PATH_PATIENCE);
            tokio::select! {
                status = changes.next() => {
                    let Some(status) = status else { return std::future::pending().await };
                    let Some(line) = story.tell(&status) else { continue };
                    advised = false;
                    if story.is_lost() && tokio::time::timeout(MOMENT, complete.wait_for(|c| *c)).await.is_ok() {
                        return std::future::pending().await;
                    }
                    self.report.line(line);
                }
                () = patience, if story.is_searching() && !advised => {
                    self.report.line(NO_PATH_ADVICE);
                    advised = true;
                }
            }
        }
    }
}

/// Whether the mailbox server was there once: a server that never was is an error that the session tells.
fn was_greeted(wormhole: &Wormhole) -> bool {
    wormhole.welcome().now_or_never().is_some_and(|welcome| welcome.is_ok())
}
