//! The queue from the core to one connection: unbounded in form, metered in fact.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Notify, mpsc};

/// What a connection has to send.
#[derive(Debug)]
pub(super) enum Outgoing {
    Text(Arc<str>),
    Close { code: u16, reason: &'static str },
}

impl Outgoing {
    /// Bytes that it occupies, with something for the queue itself.
    fn size(&self) -> usize {
        const SLOT: usize = 64;
        match self {
            Self::Text(text) => SLOT + text.len(),
            Self::Close { .. } => SLOT,
        }
    }
}

/// What all queues hold together, and what they may hold.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) per_connection: usize,
    pub(super) total: usize,
    used: AtomicUsize,
}

impl Meter {
    /// What a connection may always queue, even when the total is used up. Without it, a few slow readers could
    /// make the server close everybody.
    const FAIR_SHARE: usize = 64 << 10;

    pub(super) fn new(per_connection: usize, total: usize) -> Arc<Self> {
        Arc::new(Self { per_connection, total, used: AtomicUsize::new(0) })
    }
}

/// The core's end.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: mpsc::UnboundedSender<Outgoing>,
    queued: Arc<AtomicUsize>,
    meter: Arc<Meter>,
    overflow: Arc<Notify>,
}

/// The connection's end.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: mpsc::UnboundedReceiver<Outgoing>,
    queued: Arc<AtomicUsize>,
    meter: Arc<Meter>,
    overflow: Arc<Notify>,
}

/// One queue.
pub(super) fn channel(meter: &Arc<Meter>) -> (Outbox, Inbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let overflow = Arc::new(Notify::new());
    let outbox = Outbox {
        queue: sender,
        queued: Arc::clone(&queued),
        meter: Arc::clone(meter),
        overflow: Arc::clone(&overflow),
    };
    (outbox, Inbox { queue: receiver, queued, meter: Arc::clone(meter), overflow })
}

impl Outbox {
    /// Queues something. False if the connection reads too slowly, or is gone: then it is told to end at once,
    /// and there is no use in queueing more.
    pub(super) fn push(&self, outgoing: Outgoing) -> bool {
        let size = outgoing.size();
        let queued = self.queued.fetch_add(size, Ordering::Relaxed) + size;
        let used = self.meter.used.fetch_add(size, Ordering::Relaxed) + size;
        let over =
            queued > self.meter.per_connection || (used > self.meter.total && queued > Meter::FAIR_SHARE);
        if over || self.queue.send(outgoing).is_err() {
            self.queued.fetch_sub(size, Ordering::Relaxed);
            self.meter.used.fetch_sub(size, Ordering::Relaxed);
            self.overflow.notify_one();
            return false;
        }
        true
    }
}

impl Inbox {
    /// The next thing to send; `None` when the core has ended. Cancel safe.
    pub(super) async fn recv(&mut self) -> Option<Outgoing> {
        let outgoing = self.queue.recv().await?;
        self.release(&outgoing);
        Some(outgoing)
    }

    /// The next thing to send, if it is there already.
    pub(super) fn try_recv(&mut self) -> Option<Outgoing> {
        let outgoing = self.queue.try_recv().ok()?;
        self.release(&outgoing);
        Some(outgoing)
    }

    /// A future that ends when the queue has overflowed.
    pub(super) fn overflow(&self) -> Arc<Notify> {
        Arc::clone(&self.overflow)
    }

    fn release(&self, outgoing: &Outgoing) {
        self.queued.fetch_sub(outgoing.size(), Ordering::Relaxed);
        self.meter.used.fetch_sub(outgoing.size(), Ordering::Relaxed);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // After `close`, a push fails and takes back what it counted; so nothing stays counted for ever.
        self.queue.close();
        while self.try_recv().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(len: usize) -> Outgoing {
        Outgoing::Text("x".repeat(len).into())
    }

    #[test]
    fn a_queue_takes_its_limit_and_not_more() {
        let meter = Meter::new(1000, 1 << 20);
        let (outbox, mut inbox) = channel(&meter);
        assert!(outbox.push(text(900)));
        assert!(!outbox.push(text(100)));
        assert!(inbox.try_recv().is_some());
        assert!(outbox.push(text(900)), "room again");
        drop(inbox);
        assert_eq!(meter.used.load(Ordering::Relaxed), 0);
        assert!(!outbox.push(text(1)), "nobody reads any more");
        assert_eq!(meter.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_full_total_closes_those_who_queue_much() {
        let meter = Meter::new(1 << 20, 200 << 10);
        let (slow, _slow_inbox) = channel(&meter);
        let (quick, _quick_inbox) = channel(&meter);
        assert!(slow.push(text(150 << 10)));
        assert!(quick.push(text(60 << 10)), "within its fair share, although the total is used up");
        assert!(!slow.push(text(1)), "the slow one is over both");
    }
}
