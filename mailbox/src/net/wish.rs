//! What the handles wish of the connection, and how often the driver heeds it.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep_until};

use super::clock::now;

/// A wish, the stronger the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    /// See whether the connection still answers.
    Doubt,
    /// The machine's addresses or routes are others now.
    NetworkChanged,
}

/// The strongest wish that the driver has not seen.
#[derive(Debug, Default)]
pub(super) struct Wishes(Mutex<Option<Wish>>);

impl Wishes {
    pub(super) fn leave(&self, wish: Wish) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = (*slot).max(Some(wish));
    }

    pub(super) fn take(&self) -> Option<Wish> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Spaces out how often wishes are heeded. The space doubles while attempts are started over and none succeeds, so that
/// a network that changes all the time does not keep a slow connection from being made.
#[derive(Debug)]
pub(super) struct Pace {
    space: Duration,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    const LEAST: Duration = Duration::from_millis(250);
    const MOST: Duration = Duration::from_secs(8);

    pub(super) fn new() -> Self {
        Self { space: Self::LEAST, pause: None }
    }

    /// Ready when the next wish may be heeded. The first may at once.
    pub(super) fn poll_free(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    /// A wish was heeded.
    pub(super) fn heeded(&mut self) {
        self.pause = Some(Box::pin(sleep_until(now() + self.space)));
    }

    /// A wish was heeded, and an attempt started over for it.
    pub(super) fn restarted(&mut self) {
        self.heeded();
        self.space = (self.space * 2).min(Self::MOST);
    }

    /// An attempt succeeded.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_wish_stays() {
        let wishes = Wishes::default();
        assert_eq!(wishes.take(), None);
        wishes.leave(Wish::NetworkChanged);
        wishes.leave(Wish::Doubt);
        assert_eq!((wishes.take(), wishes.take()), (Some(Wish::NetworkChanged), None));
        wishes.leave(Wish::Doubt);
        assert_eq!(wishes.take(), Some(Wish::Doubt));
    }

    #[tokio::test(start_paused = true)]
    async fn restarts_in_a_row_are_spaced_out_more_and_more() {
        let mut pace = Pace::new();
        let start = now();
        for expected in [0, 250, 750, 1750, 3750, 7750, 15_750, 23_750, 31_750] {
            std::future::poll_fn(|cx| pace.poll_free(cx)).await;
            assert_eq!(now() - start, Duration::from_millis(expected));
            pace.restarted();
        }
        pace.reset();
        let start = now();
        for _ in 0..3 {
            std::future::poll_fn(|cx| pace.poll_free(cx)).await;
            pace.heeded();
        }
        assert_eq!(now() - start, 2 * Pace::LEAST);
    }
}
