//! Attempts that are started one after the other and then run side by side. The first success counts.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep_until};

use super::clock::now;

/// A failure is a reason, as a sentence's part.
pub(super) type Attempt<T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send>>;

/// What happened in a [`Race`]. Attempts are counted from 0.
pub(super) enum Step<T> {
    Started(usize),
    Failed(usize, String),
    Won(usize, T),
    /// All have failed.
    Over,
}

/// An attempt starts when the one before has failed, or has been pending for the stagger. Dropping the race drops all
/// attempts.
pub(super) struct Race<T> {
    waiting: VecDeque<(usize, Attempt<T>)>,
    running: Vec<(usize, Attempt<T>)>,
    stagger: Duration,
    next: Pin<Box<Sleep>>,
}

impl<T> Race<T> {
    pub(super) fn new(attempts: impl IntoIterator<Item = Attempt<T>>, stagger: Duration) -> Self {
        let waiting = attempts.into_iter().enumerate().collect();
        Self { waiting, running: Vec::new(), stagger, next: Box::pin(sleep_until(now())) }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step<T>> {
        if !self.waiting.is_empty()
            && (self.running.is_empty() || self.next.as_mut().poll(cx).is_ready())
            && let Some((number, attempt)) = self.waiting.pop_front()
        {
            self.running.push((number, attempt));
            self.next.as_mut().reset(now() + self.stagger);
            return Poll::Ready(Step::Started(number));
        }
        for at in 0..self.running.len() {
            let Poll::Ready(result) = self.running[at].1.as_mut().poll(cx) else { continue };
            let (number, _) = self.running.remove(at);
            return Poll::Ready(match result {
                Ok(won) => Step::Won(number, won),
                Err(reason) => {
                    self.next.as_mut().reset(now());
                    Step::Failed(number, reason)
                }
            });
        }
        if self.running.is_empty() { Poll::Ready(Step::Over) } else { Poll::Pending }
    }

    /// The result of the first success, or the reason of the last failure; `None` if there was no attempt.
    pub(super) async fn winner(mut self) -> Result<T, Option<String>> {
        let mut last = None;
        loop {
            match std::future::poll_fn(|cx| self.poll(cx)).await {
                Step::Started(_) => {}
                Step::Failed(_, reason) => last = Some(reason),
                Step::Won(_, won) => return Ok(won),
                Step::Over => return Err(last),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGGER: Duration = Duration::from_secs(2);

    /// Succeeds or fails after so many seconds.
    fn attempt(seconds: u64, result: Result<&'static str, &'static str>) -> Attempt<&'static str> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            result.map_err(str::to_owned)
        })
    }

    /// Each step with the second in which it was taken.
    async fn run(attempts: Vec<Attempt<&'static str>>) -> Vec<String> {
        let (start, mut race, mut steps) = (now(), Race::new(attempts, STAGGER), Vec::new());
        loop {
            let step = std::future::poll_fn(|cx| race.poll(cx)).await;
            let (text, last) = match step {
                Step::Started(n) => (format!("start {n}"), false),
                Step::Failed(n, reason) => (format!("{n} {reason}"), false),
                Step::Won(n, won) => (format!("{n} {won}"), true),
                Step::Over => ("over".to_owned(), true),
            };
            steps.push(format!("{} {text}", (now() - start).as_secs()));
            if last {
                return steps;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_starts_beside_one_that_swallows_everything() {
        let steps =
            run(vec![attempt(30, Err("silent")), attempt(1, Ok("won")), attempt(0, Ok("late"))]).await;
        assert_eq!(steps, ["0 start 0", "2 start 1", "3 1 won"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_starts_at_once_after_a_failure() {
        let steps =
            run(vec![attempt(1, Err("refused")), attempt(30, Err("silent")), attempt(5, Ok("won"))]).await;
        assert_eq!(steps, ["0 start 0", "1 0 refused", "1 start 1", "3 start 2", "8 2 won"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_beside_a_silent_one_is_followed_at_once() {
        let steps =
            run(vec![attempt(30, Err("silent")), attempt(0, Err("refused")), attempt(1, Ok("won"))]).await;
        assert_eq!(steps, ["0 start 0", "2 start 1", "2 1 refused", "2 start 2", "3 2 won"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_one_may_still_win() {
        let steps = run(vec![attempt(5, Ok("won")), attempt(30, Err("silent"))]).await;
        assert_eq!(steps, ["0 start 0", "2 start 1", "5 0 won"]);
    }

    #[tokio::test(start_paused = true)]
    async fn all_may_fail() {
        let steps = run(vec![attempt(5, Err("slow")), attempt(0, Err("refused"))]).await;
        assert_eq!(steps, ["0 start 0", "2 start 1", "2 1 refused", "5 0 slow", "5 over"]);
        assert_eq!(
            Race::new([attempt(1, Err("last"))], STAGGER).winner().await,
            Err(Some("last".to_owned()))
        );
        assert_eq!(Race::<()>::new([], STAGGER).winner().await, Err(None));
    }
}
