//! A link in memory that a task drives as a real driver would, in either dialect.

use std::{
    future::poll_fn,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use dilated_subchannel::{
    frame::Frames,
    id::Parity,
    io::{Multiplexer, Subchannel},
    mux::{Batch, Dialect, MuxConfig},
    record::Record,
};
use tokio::{task::JoinHandle, time::timeout};

/// A guard against hanging, not a measurement.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Which dialect the two sides of a test speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speak {
    Ged,
    Dilated1,
}

impl Speak {
    pub(crate) fn dialect(self, peer: &MuxConfig) -> Dialect {
        match self {
            Speak::Ged => Dialect::Ged,
            Speak::Dilated1 => Dialect::Dilated1 { peer: peer.params() },
        }
    }

    /// Decodes records for the side that they have come to.
    pub(crate) fn hand_over(self, records: impl Iterator<Item = Bytes>, to: &Multiplexer) {
        match self {
            Speak::Ged => {
                to.handle(records.map(|record| Record::decode(record).unwrap()).collect::<Vec<_>>()).unwrap();
            }
            Speak::Dilated1 => {
                let mut frames: Vec<_> = records.flat_map(Frames::new).map(Result::unwrap).collect();
                to.handle_frames(&mut frames, now()).unwrap();
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a driver reads the clock")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Moves records both ways until aborted, then the link is down.
pub(crate) struct Link {
    task: JoinHandle<()>,
    sides: [Multiplexer; 2],
}

impl Link {
    pub(crate) fn new(speak: Speak, a: &Multiplexer, b: &Multiplexer) -> Self {
        Link::between(speak, a, b, &MuxConfig::default())
    }

    /// Between sides of this configuration. The first link of the two starts them.
    pub(crate) fn between(speak: Speak, a: &Multiplexer, b: &Multiplexer, config: &MuxConfig) -> Self {
        let first = a.dialect().is_none() || b.dialect().is_none();
        a.start(Parity::Odd, speak.dialect(config));
        b.start(Parity::Even, speak.dialect(config));
        let (ours, theirs) = (a.resume(), b.resume());
        if first || speak == Speak::Ged {
            a.link_up();
            b.link_up();
        }
        a.handle_resume(theirs, now()).unwrap();
        b.handle_resume(ours, now()).unwrap();
        let sides = [a.clone(), b.clone()];
        let mut wire = Wire { speak, sides: sides.clone(), batch: Batch::new() };
        let task = tokio::spawn(async move {
            loop {
                wire.turn().await;
                tokio::task::yield_now().await;
            }
        });
        Link { task, sides }
    }

    pub(crate) fn cut(self) {}
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
        self.sides.iter().for_each(Multiplexer::link_down);
    }
}

struct Wire {
    speak: Speak,
    sides: [Multiplexer; 2],
    batch: Batch,
}

impl Wire {
    /// Until something was moved, or a timeout is over.
    async fn turn(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut moved = false;
        for (from, to) in [(0, 1), (1, 0)] {
            moved |= self.carry(cx, from, to);
        }
        if moved {
            return Poll::Ready(());
        }
        let due = self.sides.iter().filter_map(Multiplexer::next_timeout).min();
        let Some(due) = due else { return Poll::Pending };
        if due <= now() {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            waker.wake();
        });
        Poll::Pending
    }

    /// Moves a batch. Returns whether there was any.
    fn carry(&mut self, cx: &mut Context<'_>, from: usize, to: usize) -> bool {
        let Wire { speak, sides, batch } = self;
        let (from, to) = (&sides[from], &sides[to]);
        if to.poll_read_allowed(cx).is_pending()
            || from.poll_transmit(cx, now(), 256 << 10, batch).is_pending()
        {
            return false;
        }
        speak.hand_over(plaintexts(batch), to);
        batch.clear();
        true
    }
}

/// What the other side of a real link decrypts.
pub(crate) fn plaintexts(batch: &Batch) -> impl Iterator<Item = Bytes> {
    batch.records().map(|record| Bytes::from(record.collect::<Vec<_>>().concat()))
}

pub(crate) fn two() -> (Multiplexer, Multiplexer) {
    (Multiplexer::new(MuxConfig::default()), Multiplexer::new(MuxConfig::default()))
}

/// A subchannel from `a` to `b`.
pub(crate) async fn open(a: &Multiplexer, b: &Multiplexer) -> (Subchannel, Subchannel) {
    let mut listener = b.listen("p").unwrap();
    let mine = a.connector("p").unwrap().connect().await.unwrap();
    let theirs = listener.accept().await.unwrap();
    assert_eq!((mine.id(), mine.subprotocol()), (theirs.id(), theirs.subprotocol()));
    (mine, theirs)
}

pub(crate) async fn drained(multiplexer: &Multiplexer) {
    timeout(PATIENCE, poll_fn(|cx| multiplexer.poll_drained(cx))).await.unwrap();
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}
