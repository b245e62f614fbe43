//! The tasks that run handshakes: how many there are, and which of them end with a search.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::task::{AbortHandle, JoinSet};

/// Set by a task whose handshake has come to where only the Leader's choice is missing.
#[derive(Debug, Clone, Default)]
pub(super) struct AwaitsChoice(Arc<AtomicBool>);

impl AwaitsChoice {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Tasks, in the order of their beginning. Dropping it ends them.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    tasks: JoinSet<()>,
    running: VecDeque<(AbortHandle, AwaitsChoice)>,
}

impl Attempts {
    /// Starts a task.
    pub(super) fn spawn<F>(&mut self, task: impl FnOnce(AwaitsChoice) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.running.retain(|(task, _)| !task.is_finished());
        let awaits = AwaitsChoice::default();
        let handle = self.tasks.spawn(task(awaits.clone()));
        self.running.push_back((handle, awaits));
    }

    /// Ends the oldest until there are no more than `most`.
    pub(super) fn limit(&mut self, most: usize) {
        self.running.retain(|(task, _)| !task.is_finished());
        while self.running.len() > most
            && let Some((oldest, _)) = self.running.pop_front()
        {
            oldest.abort();
        }
    }

    /// Ends all tasks.
    pub(super) fn end(&mut self) {
        *self = Attempts::default();
    }

    /// Ends all tasks but the newest `most` of those that only wait for the Leader's choice.
    pub(super) fn end_unfinished(&mut self, most: usize) {
        self.running.retain(|(task, awaits)| {
            let stays = awaits.get();
            if !stays {
                task.abort();
            }
            stays
        });
        self.limit(most);
    }

    /// Takes note of a task that is over. Pending while there is none.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a task that is over stays noted until it was taken.
    pub(super) async fn reap(&mut self) {
        if self.tasks.is_empty() {
            std::future::pending::<()>().await;
        } else {
            // A task that was aborted has nothing to say; one that panicked has been reported by the hook.
            drop(self.tasks.join_next().await);
        }
    }
}
