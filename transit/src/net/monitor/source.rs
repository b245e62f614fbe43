//! Where news of addresses and routes comes from.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

#[cfg(target_os = "linux")]
use super::netlink::Subscription;
use crate::net::now;

/// What may have changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// The addresses: it takes a look at them to know.
    pub(super) addresses: bool,
    /// The routes.
    pub(super) routes: bool,
}

/// Tells when to look.
pub(super) enum Source {
    /// The kernel says so. Polls instead, with this interval, if that fails.
    #[cfg(target_os = "linux")]
    Netlink(Subscription, Duration),
    /// Nobody does: every now and then.
    Polling(Interval),
}

impl Source {
    /// The best source of this system; `poll` is for the one that always works.
    pub(super) fn open(poll: Duration) -> Source {
        #[cfg(target_os = "linux")]
        match Subscription::open() {
            Ok(subscription) => return Source::Netlink(subscription, poll),
            Err(error) => tracing::debug!(%error, ?poll, "cannot subscribe to netlink: addresses are polled"),
        }
        Source::polling(poll)
    }

    /// One that says "look at the addresses" every `poll`.
    pub(super) fn polling(poll: Duration) -> Source {
        let mut interval = interval_at(Instant::from_std(now() + poll), poll);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Source::Polling(interval)
    }

    /// Waits until something may have changed. Cancel safe.
    pub(super) async fn changed(&mut self) -> Changes {
        match self {
            #[cfg(target_os = "linux")]
            Source::Netlink(subscription, poll) => match subscription.changed().await {
                Ok(changes) => changes,
                Err(error) => {
                    tracing::debug!(%error, ?poll, "netlink failed: addresses are polled");
                    *self = Source::polling(*poll);
                    Changes { addresses: true, routes: true }
                }
            },
            Source::Polling(interval) => {
                interval.tick().await;
                Changes { addresses: true, routes: false }
            }
        }
    }
}
