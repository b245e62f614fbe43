//! Moves records between the multiplexer and one link: seals what is queued, opens what arrives, keeps the link
//! alive. One future, polled by the wormhole's task; it holds no lock across a system call and awaits nothing.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use dilated_subchannel::{Multiplexer, PingId, Record};
use dilated_transit::{
    OpenError, Path,
    net::{Link, LinkError},
};
use tokio::time::{Instant, Sleep};

use crate::{
    clock,
    liveness::{Liveness, Verdict},
};

/// Plaintext sealed per turn before the socket is written, in bytes: large enough to fill a send buffer with one
/// system call, small enough that an acknowledgement never waits long behind it.
const BATCH: usize = 256 * 1024;

/// How long to wait for an ACK in silence before asking for it again; doubles up to the second value. A Python Follower
/// loses the ACKs that it owes for what arrives together with the KCM, and would never repeat them by itself.
const NUDGE: Duration = Duration::from_secs(1);
const NUDGE_MAX: Duration = Duration::from_secs(30);

/// The same while a close waits for it.
const NUDGE_DRAINING: Duration = Duration::from_millis(250);

/// Turns before the task yields to its siblings.
const MAX_TURNS: usize = 16;

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// The network or the peer ended it; the next generation may do better.
    Lost(String),
    /// A record cannot be read. Damage would have shown before, so the peer sent it like that, and will again.
    Unreadable(String),
    /// Every new link would end the same way.
    Fatal(String),
    /// All that the protocol can number was sent.
    Exhausted(String),
    /// The peer has acknowledged everything; asked for with [`LinkPump::drain`].
    Drained,
}

/// The running link.
#[derive(Debug)]
pub(crate) struct LinkPump {
    link: Link,
    mux: Multiplexer,
    liveness: Liveness,
    timer: Pin<Box<Sleep>>,
    outbound: Vec<Record>,
    inbound: Vec<Record>,
    draining: bool,
    nudge: Nudge,
}

/// When to ask for an ACK again.
#[derive(Debug)]
struct Nudge {
    timer: Pin<Box<Sleep>>,
    /// Something is unacknowledged since then, or since the last nudge.
    since: Option<std::time::Instant>,
    wait: Duration,
}

impl LinkPump {
    /// Takes a link into service: everything unacknowledged is sent again, right behind the KCM.
    pub(crate) fn new(link: Link, mux: Multiplexer, ping_interval: Duration) -> LinkPump {
        mux.link_up();
        let liveness = Liveness::new(ping_interval, clock::now());
        let timer = Box::pin(tokio::time::sleep_until(Instant::from_std(liveness.deadline())));
        let nudge = Nudge { timer: Box::pin(tokio::time::sleep(NUDGE)), since: None, wait: NUDGE };
        LinkPump {
            link,
            mux,
            liveness,
            timer,
            outbound: Vec::new(),
            inbound: Vec::new(),
            draining: false,
            nudge,
        }
    }

    /// How the link was reached.
    pub(crate) fn path(&self) -> &Path {
        &self.link.path
    }

    /// Gives the link up at once; nothing is flushed.
    pub(crate) fn abort(self) {
        self.mux.link_down();
        self.link.abort();
    }

    /// Ends the link in order: what is sealed is written, then FIN, within `deadline`.
    pub(crate) async fn close(self, deadline: Duration) {
        self.mux.link_down();
        if tokio::time::timeout(deadline, self.link.close()).await.is_err() {
            tracing::debug!("the link did not close in time; dropped");
        }
    }

    /// Runs the link until it ends.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: all state is in `self`.
    pub(crate) fn run(&mut self) -> impl Future<Output = LinkEnd> + '_ {
        std::future::poll_fn(|cx| self.poll(cx))
    }

    /// Lets [`run`](Self::run) end once everything written has been acknowledged by the peer and our last
    /// acknowledgement has left.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.nudge.wait = NUDGE_DRAINING;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        for _ in 0..MAX_TURNS {
            // Reading is polled in the same turn as writing, so that a blocked writer never stops a reader.
            let wrote = self.poll_write(cx);
            let read = self.poll_read(cx);
            let timed = self.poll_timer(cx);
            for end in [&wrote, &read, &timed] {
                if let Poll::Ready(Err(end)) = end {
                    return Poll::Ready(end.clone());
                }
            }
            if wrote.is_pending() && read.is_pending() && timed.is_pending() {
                let drained = self.mux.poll_drained(cx).is_ready();
                if drained && self.draining && self.link.writer.pending() == 0 {
                    // Said once; the link itself goes on until the driver ends it.
                    self.draining = false;
                    return Poll::Ready(LinkEnd::Drained);
                }
                ready!(self.poll_nudge(cx, drained));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready when an ACK was asked for again.
    fn poll_nudge(&mut self, cx: &mut Context<'_>, drained: bool) -> Poll<()> {
        let nudge = &mut self.nudge;
        if drained {
            nudge.wait = NUDGE;
        }
        if drained || self.link.writer.pending() > 0 {
            // Nothing to ask for, or the question would only queue behind what the socket does not take.
            nudge.since = None;
            return Poll::Pending;
        }
        let since = *nudge.since.get_or_insert_with(clock::now);
        let due = Instant::from_std(since.max(self.liveness.last_heard()) + nudge.wait);
        if nudge.timer.deadline() != due {
            nudge.timer.as_mut().reset(due);
        }
        ready!(nudge.timer.as_mut().poll(cx));
        nudge.since = Some(clock::now());
        nudge.wait = (nudge.wait * 2).min(NUDGE_MAX);
        self.mux.nudge();
        Poll::Ready(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        if self.link.writer.pending() == 0 {
            if let Poll::Ready(reason) = self.mux.poll_ended(cx) {
                return Poll::Ready(Err(LinkEnd::Exhausted(reason.to_string())));
            }
            ready!(self.mux.poll_transmit(cx, BATCH, &mut self.outbound));
            for record in self.outbound.drain(..) {
                let header = record.header();
                self.link.writer.seal(&[header.as_ref(), record.body()]).map_err(|e| lost(&e))?;
            }
        }
        self.link.writer.poll_flush(cx).map_err(|e| lost(&e))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        if self.mux.poll_read_allowed(cx).is_pending() {
            self.liveness.handle_paused(clock::now());
            return Poll::Pending;
        }
        // First what is already here: records may come bundled with the KCM, or wait behind a pause.
        if self.open_batch()? {
            return Poll::Ready(Ok(()));
        }
        ready!(self.link.reader.poll_fill(cx)).map_err(|e| lost(&e))?;
        self.liveness.handle_bytes(clock::now());
        Poll::Ready(Ok(()))
    }

    /// Opens and hands over what is buffered, at most about a batch. Returns whether there was anything.
    fn open_batch(&mut self) -> Result<bool, LinkEnd> {
        let mut bytes = 0;
        while bytes < BATCH {
            let Some(message) = self.link.reader.next_message().map_err(|e| lost(&e))? else { break };
            bytes += message.len();
            self.inbound.push(Record::decode(message).map_err(|e| LinkEnd::Unreadable(e.to_string()))?);
        }
        if self.inbound.is_empty() {
            return Ok(false);
        }
        match self.mux.handle(self.inbound.drain(..)) {
            Ok(_pongs) => Ok(true),
            Err(error) if error.is_fatal() => Err(LinkEnd::Fatal(error.to_string())),
            Err(error) => Err(LinkEnd::Lost(error.to_string())),
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        ready!(self.timer.as_mut().poll(cx));
        let verdict = self.liveness.handle_timeout(clock::now());
        self.timer.as_mut().reset(Instant::from_std(self.liveness.deadline()));
        match verdict {
            Verdict::Quiet => Poll::Ready(Ok(())),
            Verdict::Ping(id) => Poll::Ready(self.ping(id)),
            Verdict::Dead => {
                let silence = clock::now().saturating_duration_since(self.liveness.last_heard());
                let reason =
                    format!("nothing was heard from the other side for {:.1} s", silence.as_secs_f32());
                Poll::Ready(Err(LinkEnd::Lost(reason)))
            }
        }
    }

    fn ping(&mut self, id: PingId) -> Result<(), LinkEnd> {
        let record = Record::Ping(id);
        self.link.writer.seal(&[record.header().as_ref(), record.body()]).map_err(|e| lost(&e))
    }
}

fn lost(error: &LinkError) -> LinkEnd {
    match error {
        LinkError::Open(OpenError::TooLong { length, .. }) => LinkEnd::Unreadable(format!(
            "it sends {length} bytes in one record, more than `MuxConfig::max_data` allows; raise that if it is meant to"
        )),
        _ => LinkEnd::Lost(error.to_string()),
    }
}
