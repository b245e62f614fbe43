//! Moves records between the multiplexer and one link: seals what is queued, opens what arrives, keeps the link
//! alive. One future, polled by the wormhole's task; it holds no lock across a system call and awaits nothing.

use std::{
    future::Future,
    net::SocketAddr,
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
    liveness::LivenessConfig,
    watch::{Due, Watch},
};

/// Plaintext sealed per turn before the socket is written, in bytes: large enough to fill a send buffer with one
/// system call, small enough that an acknowledgement never waits long behind it.
const BATCH: usize = 256 * 1024;

/// The same for what goes ahead on a link that may die young. The rest waits for the peer's first bytes, which say what it
/// has already: links would else be spent on sending that again and again.
const FIRST_FLIGHT: usize = 16 * 1024;

/// Turns before the task yields to its siblings.
const MAX_TURNS: usize = 16;

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// The network or the peer ended it; the next generation may do better.
    Lost(String),
    /// It fell silent.
    Silent(String),
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
    watch: Watch,
    outbound: Vec<Record>,
    inbound: Vec<Record>,
    /// The link may die young: until the peer is heard, or this time is over, only the first flight is sent.
    cautious: Option<Pin<Box<Sleep>>>,
    started: bool,
    draining: bool,
    draining_nudge: Duration,
    nudge: Nudge,
}

/// When to ask for an ACK again.
#[derive(Debug)]
struct Nudge {
    timer: Pin<Box<Sleep>>,
    /// Something is unacknowledged since then, or since the last nudge.
    since: Option<std::time::Instant>,
    first: Duration,
    wait: Duration,
    max: Duration,
}

impl LinkPump {
    /// Takes a link into service, after so many that fell silent before the peer acknowledged anything: everything
    /// unacknowledged is sent again, right behind the KCM.
    pub(crate) fn new(link: Link, mux: Multiplexer, config: LivenessConfig, fruitless: u32) -> LinkPump {
        mux.link_up();
        let nudge = Nudge {
            timer: Box::pin(tokio::time::sleep(config.nudge)),
            since: None,
            first: config.nudge,
            wait: config.nudge,
            max: config.nudge_max,
        };
        let draining_nudge = config.nudge_draining;
        LinkPump {
            link,
            mux,
            watch: Watch::new(config, fruitless),
            outbound: Vec::new(),
            inbound: Vec::new(),
            cautious: None,
            started: false,
            draining: false,
            draining_nudge,
            nudge,
        }
    }

    /// The link before this one died young: begins carefully.
    pub(crate) fn be_cautious(&mut self, patience: Duration) {
        self.cautious = Some(Box::pin(tokio::time::sleep(patience)));
    }

    /// How the link was reached.
    pub(crate) fn path(&self) -> &Path {
        &self.link.path
    }

    /// Our address of the connection.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.link.local_address()
    }

    /// Whether anything came from the peer.
    pub(crate) fn heard(&self) -> bool {
        self.watch.heard()
    }

    /// Whether the peer acknowledged anything.
    pub(crate) fn is_loaded(&self) -> bool {
        self.watch.is_loaded()
    }

    /// Something happened that may have broken the link: it has to show soon that it works.
    pub(crate) fn suspect(&mut self, why: String) {
        self.watch.suspect(why);
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
        self.nudge.wait = self.draining_nudge;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        for _ in 0..MAX_TURNS {
            // Reading is polled in the same turn as writing, so that a blocked writer never stops a reader.
            let wrote = self.poll_write(cx);
            let read = self.poll_read(cx);
            self.watch.handle_progress(self.mux.progress());
            let timed = self.poll_watch(cx);
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
            nudge.wait = nudge.first;
        }
        if drained || self.link.writer.pending() > 0 {
            // Nothing to ask for, or the question would only queue behind what the socket does not take.
            nudge.since = None;
            return Poll::Pending;
        }
        let since = *nudge.since.get_or_insert_with(clock::now);
        let due = Instant::from_std(since.max(self.watch.last_heard()) + nudge.wait);
        if nudge.timer.deadline() != due {
            nudge.timer.as_mut().reset(due);
        }
        ready!(nudge.timer.as_mut().poll(cx));
        nudge.since = Some(clock::now());
        nudge.wait = (nudge.wait * 2).min(nudge.max);
        self.mux.nudge();
        self.watch.handle_repeat();
        Poll::Ready(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        if self.link.writer.pending() == 0 {
            if let Poll::Ready(reason) = self.mux.poll_ended(cx) {
                return Poll::Ready(Err(LinkEnd::Exhausted(reason.to_string())));
            }
            let most = if self.cautious.is_some() { FIRST_FLIGHT } else { BATCH };
            ready!(self.poll_may_transmit(cx));
            ready!(self.mux.poll_transmit(cx, most, &mut self.outbound));
            self.started = true;
            for record in self.outbound.drain(..) {
                let header = record.header();
                self.link.writer.seal(&[header.as_ref(), record.body()]).map_err(|e| lost(&e))?;
            }
        }
        self.link.writer.poll_flush(cx).map_err(|e| lost(&e))
    }

    fn poll_may_transmit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(wait) = self.cautious.as_mut().filter(|_| self.started) {
            if !self.watch.heard() {
                ready!(wait.as_mut().poll(cx));
            }
            self.cautious = None;
        }
        Poll::Ready(())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        if self.mux.poll_read_allowed(cx).is_pending() {
            self.watch.handle_paused();
            return Poll::Pending;
        }
        // First what is already here: records may come bundled with the KCM, or wait behind a pause.
        if self.open_batch()? {
            return Poll::Ready(Ok(()));
        }
        ready!(self.link.reader.poll_fill(cx)).map_err(|e| lost(&e))?;
        self.watch.handle_bytes();
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
        let data = |record: &Record| {
            matches!(record, Record::Open { .. } | Record::Data { .. } | Record::Close { .. })
        };
        let has_data = self.inbound.iter().any(data);
        let pings = self.inbound.iter().any(|record| matches!(record, Record::Ping(_)));
        match self.mux.handle(self.inbound.drain(..)) {
            Ok(pongs) => {
                self.watch.handle_records(&pongs, pings, has_data);
                Ok(true)
            }
            Err(error) if error.is_fatal() => Err(LinkEnd::Fatal(error.to_string())),
            Err(error) => Err(LinkEnd::Lost(error.to_string())),
        }
    }

    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        Poll::Ready(match ready!(self.watch.poll(cx)) {
            Due::Ping(id) => self.ping(id),
            Due::Dead(reason) => Err(LinkEnd::Silent(reason)),
        })
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
