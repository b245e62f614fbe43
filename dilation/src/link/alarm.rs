//! A timer that follows a deadline.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use tokio::time::Sleep;

use crate::clock;

#[derive(Debug)]
pub(super) struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    pub(super) fn new() -> Alarm {
        Alarm(Box::pin(tokio::time::sleep_until(clock::now().into())))
    }

    /// Ready when the deadline is over. Ask again with the next one.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let deadline = tokio::time::Instant::from_std(deadline);
        loop {
            // A timer that is too early costs one look; arming it anew for each byte would cost more.
            if deadline < self.0.deadline() {
                self.0.as_mut().reset(deadline);
            }
            if self.0.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.0.deadline() >= deadline {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(deadline);
        }
    }
}
