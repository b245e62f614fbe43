//! Looking only where somebody has called.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::task::AtomicWaker;

/// A future that is polled when it has asked for it, and not whenever its task is. The task of a wormhole is woken for
/// every message on the link, and all else that it waits for hardly ever happens.
#[derive(Debug)]
pub(super) struct Seldom<F> {
    future: F,
    bell: Arc<Bell>,
    waker: Waker,
}

/// The waker of the future: remembers that it was called.
#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl<F: Future + Unpin> Seldom<F> {
    pub(super) fn new(future: F) -> Seldom<F> {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: AtomicWaker::new() });
        Seldom { future, waker: Waker::from(bell.clone()), bell }
    }
}

impl<F: Future + Unpin> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // In this order: who rings between the two finds the task's waker.
        self.bell.task.register(cx.waker());
        if !self.bell.rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let Seldom { future, waker, .. } = &mut *self;
        Pin::new(future).poll(&mut Context::from_waker(waker))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures::{future::poll_fn, task::noop_waker};
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn it_is_polled_only_after_it_was_woken() {
        let polls = Arc::new(AtomicUsize::new(0));
        let (tell, mut told) = oneshot::channel();
        let counted = polls.clone();
        let mut seldom = Seldom::new(poll_fn(move |cx| {
            counted.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut told).poll(cx)
        }));
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        for _ in 0..3 {
            assert!(Pin::new(&mut seldom).poll(&mut cx).is_pending());
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1, "the first time it has to be asked");
        tell.send(5).unwrap();
        assert_eq!(Pin::new(&mut seldom).poll(&mut cx), Poll::Ready(Ok(5)));
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn its_task_is_woken_with_it() {
        let (tell, told) = oneshot::channel();
        let waiting = tokio::spawn(async move { Seldom::new(told).await });
        tokio::task::yield_now().await;
        tell.send(7).unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(7));
    }

    #[tokio::test]
    async fn a_call_while_it_is_polled_is_not_lost() {
        let mut polls = 0;
        let busy = poll_fn(move |cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            if polls == 3 { Poll::Ready(polls) } else { Poll::Pending }
        });
        assert_eq!(Seldom::new(busy).await, 3);
    }
}
