//! The link of `ged`. Moves records between the multiplexer and it: seals what is queued, opens what arrives, keeps the link
//! alive. One future, polled by the wormhole's task; it holds no lock across a system call and awaits nothing.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use dilated_subchannel::{Multiplexer, PingId, Record, mux::Batch};
use dilated_transit::{Path, net::Link};
use tokio::time::{Instant, Sleep};

use super::{BATCH, FIRST_FLIGHT, LinkEvent, alarm::Alarm, lost, seal};
use crate::{
    clock,
    error::DilationError,
    liveness::LivenessConfig,
    watch::{Due, Watch},
};

/// Turns before the task yields to its siblings, who take what came while it is in the cache.
const MAX_TURNS: usize = 2;

/// The running link.
#[derive(Debug)]
pub(crate) struct LinkPump {
    link: Link,
    mux: Multiplexer,
    watch: Watch,
    alarm: Alarm,
    outbound: Batch,
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
            watch: Watch::new(config, fruitless, clock::now()),
            alarm: Alarm::new(),
            outbound: Batch::new(),
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
        self.watch.suspect(why, clock::now());
    }

    /// Gives the link up at once; nothing is flushed.
    pub(crate) fn abort(self) {
        self.mux.link_down();
        self.link.abort();
    }

    /// Ends the link in order: what is sealed is written, then FIN.
    pub(crate) async fn close(self) {
        self.mux.link_down();
        self.link.close().await;
    }

    /// Lets [`poll`](Self::poll) tell once everything written has been acknowledged by the peer and our last
    /// acknowledgement has left.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        self.nudge.wait = self.draining_nudge;
    }

    /// Runs the link until it ends.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        for _ in 0..MAX_TURNS {
            // Reading is polled in the same turn as writing, so that a blocked writer never stops a reader.
            let wrote = self.poll_write(cx);
            let read = self.poll_read(cx);
            self.watch.handle_progress(self.mux.progress(), clock::now());
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
                    return Poll::Ready(LinkEvent::Drained);
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

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEvent>> {
        if self.link.writer.pending() == 0 {
            if let Poll::Ready(reason) = self.mux.poll_ended(cx) {
                return Poll::Ready(Err(LinkEvent::Fatal(DilationError::Exhausted(reason.to_string()))));
            }
            let most = if self.cautious.is_some() { FIRST_FLIGHT } else { BATCH };
            ready!(self.poll_may_transmit(cx));
            ready!(self.mux.poll_transmit(cx, clock::now(), most, &mut self.outbound));
            self.started = true;
            seal(&mut self.link.writer, &mut self.outbound)?;
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

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEvent>> {
        if self.mux.poll_read_allowed(cx).is_pending() {
            self.watch.handle_paused(clock::now());
            return Poll::Pending;
        }
        // First what is already here: records may come bundled with the KCM, or wait behind a pause.
        if self.open_batch()? {
            return Poll::Ready(Ok(()));
        }
        ready!(self.link.reader.poll_fill(cx)).map_err(|e| lost(&e))?;
        self.watch.handle_bytes(clock::now());
        Poll::Ready(Ok(()))
    }

    /// Opens and hands over what is buffered, at most about a batch. Returns whether there was anything.
    fn open_batch(&mut self) -> Result<bool, LinkEvent> {
        let mut bytes = 0;
        while bytes < BATCH {
            let Some(message) = self.link.reader.next_message().map_err(|e| lost(&e))? else { break };
            bytes += message.len();
            self.inbound.push(Record::decode(message).map_err(|e| LinkEvent::Unreadable(e.to_string()))?);
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
                self.watch.handle_records(&pongs, pings, has_data, clock::now());
                Ok(true)
            }
            Err(error) if error.is_fatal() => {
                Err(LinkEvent::Fatal(DilationError::Protocol(error.to_string())))
            }
            Err(error) => Err(LinkEvent::Lost(error.to_string())),
        }
    }

    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEvent>> {
        loop {
            ready!(self.alarm.poll(cx, self.watch.deadline()));
            match self.watch.handle_timeout(clock::now()) {
                // Another link there never is.
                None | Some(Due::Hedge) => {}
                Some(Due::Ping(id)) => return Poll::Ready(self.ping(id)),
                Some(Due::Dead(reason)) => return Poll::Ready(Err(LinkEvent::Silent(reason))),
            }
        }
    }

    fn ping(&mut self, id: PingId) -> Result<(), LinkEvent> {
        let record = Record::Ping(id);
        self.link.writer.seal(&[record.header().as_ref(), record.body()]).map_err(|e| lost(&e))
    }
}
