//! The links of `dilated-1` over their connections: [`Links`] decides, this moves bytes. One future, polled by the
//! wormhole's task; it holds no lock across a system call and awaits nothing.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use dilated_subchannel::{
    Multiplexer,
    frame::{Frame, MAX_PLAINTEXT, Received, Violation},
    mux::{Batch, Progress},
};
use dilated_transit::{Better, Path, net::Link};
use tokio::time::Sleep;

use super::{BATCH, FIRST_FLIGHT, LinkEvent, MAX_TURNS, alarm::Alarm, wire::Wire};
use crate::{
    clock,
    links::{Links, Streams},
};

/// Bytes in a record on a link that may die young.
const SHORT_RECORD: usize = 4096;

/// The connections of all links of a dilation in the dialect `dilated-1`, over all generations.
#[derive(Debug)]
pub(crate) struct LinksPump {
    mux: Multiplexer,
    links: Links,
    wires: Vec<Wire>,
    draining: bool,
    caution: Option<Caution>,
    batch: Batch,
    /// When acknowledgements are due that nothing else carried.
    alarm: Alarm,
}

impl LinksPump {
    pub(crate) fn new(links: Links, mux: Multiplexer) -> LinksPump {
        LinksPump {
            mux,
            links,
            wires: Vec::new(),
            draining: false,
            caution: None,
            batch: Batch::default(),
            alarm: Alarm::new(),
        }
    }

    /// Takes a link that the Leader has chosen; `activate`: it shall be the active one.
    pub(crate) fn add(&mut self, link: Link, activate: bool) {
        let id = self.links.add(link.path.clone(), clock::now());
        self.wires.push(Wire::new(id, link));
        if activate {
            self.links.activate(id, &mut self.mux, clock::now());
        }
        self.sweep();
    }

    /// Links keep dying young: begins with little, in short records, and waits so long for the peer to acknowledge any of
    /// it before it sends more. Links would else be spent on records that never arrive whole.
    pub(crate) fn be_cautious(&mut self, patience: Duration) {
        let acknowledged = self.mux.progress().acknowledged;
        self.caution = Some(Caution { acknowledged, over: Box::pin(tokio::time::sleep(patience)) });
        self.batch.set_longest(SHORT_RECORD);
    }

    /// See [`Links::judge`].
    pub(crate) fn judge(&self, path: &Path, needed: bool, standby: bool) -> Option<bool> {
        self.links.judge(path, needed, standby, clock::now())
    }

    /// See [`Links::poll_wanted`].
    pub(crate) fn poll_wanted(&mut self, standby: bool) -> Option<Option<Better>> {
        let wanted = self.links.poll_wanted(standby, clock::now());
        self.sweep();
        wanted
    }

    /// The path of the active link, or of the one that is to be.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.links.path()
    }

    /// The paths of the links that stand by.
    pub(crate) fn standing_by(&self) -> impl Iterator<Item = &Path> {
        self.links.standing_by()
    }

    pub(crate) fn heard(&self) -> bool {
        self.links.heard()
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.links.is_loaded()
    }

    /// See [`Pump::suspect`](super::Pump::suspect).
    pub(crate) fn suspect(&mut self, why: &str, has_address: impl Fn(SocketAddr) -> bool) -> bool {
        let wires = &self.wires;
        let usable = |id| {
            let wire = wires.iter().find(|wire| wire.id == id);
            wire.and_then(Wire::local_address).is_some_and(&has_address)
        };
        let left = self.links.suspect(why, usable, &mut self.mux, clock::now());
        self.sweep();
        left
    }

    /// Gives the active link up. Returns false if no other is left.
    pub(crate) fn abandon(&mut self) -> bool {
        let left = self.links.abandon(&mut self.mux, clock::now());
        self.sweep();
        left
    }

    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// Gives up all links of the generation. Those of the next may follow.
    pub(crate) fn reset(&mut self) {
        self.links.reset(&mut self.mux);
        self.sweep();
    }

    /// Gives up everything at once. What has to be known when there are links again is returned.
    pub(crate) fn abort(mut self) -> Links {
        self.reset();
        self.links
    }

    /// Says goodbye on every link, on the active one first, and closes in order.
    pub(crate) async fn close(mut self) {
        self.mux.link_down();
        self.links.goodbye(Violation::CLOSED, "");
        let current = self.links.current();
        self.wires.sort_by_key(|wire| Some(wire.id) != current);
        let mut closing = Vec::new();
        for wire in self.wires {
            closing.extend(wire.flush(&mut self.links).await.map(Link::close));
        }
        futures::future::join_all(closing).await;
    }

    /// Ready when something happened that the driver has to know.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        for _ in 0..MAX_TURNS {
            let mut progress = false;
            let mut index = 0;
            while index < self.wires.len() {
                match self.poll_wire(index, cx) {
                    Ok(turn) => {
                        progress |= turn.progress;
                        if let Some(event) = turn.event {
                            self.sweep();
                            return Poll::Ready(event);
                        }
                        index += 1;
                    }
                    Err(event) => {
                        let id = self.wires[index].id;
                        let event = self.links.handle_end(id, event, &mut self.mux, clock::now());
                        self.sweep();
                        return Poll::Ready(event);
                    }
                }
            }
            if !progress && self.poll_timer(cx).is_pending() {
                if self.draining && self.is_drained(cx) {
                    // Said once; the links go on until the driver ends them.
                    self.draining = false;
                    return Poll::Ready(LinkEvent::Drained);
                }
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_drained(&self, cx: &mut Context<'_>) -> bool {
        self.mux.poll_drained(cx).is_ready() && self.wires.iter().all(|wire| self.is_flushed(wire))
    }

    fn is_flushed(&self, wire: &Wire) -> bool {
        wire.is_flushed() && self.links.is_quiet(wire.id)
    }

    /// One turn of one link. An error is the end of that link.
    fn poll_wire(&mut self, index: usize, cx: &mut Context<'_>) -> Result<Turn, LinkEvent> {
        // Reading is polled in the same turn as writing, so that a blocked writer never stops a reader.
        let wrote = self.poll_write(index, cx)?;
        let wire = &mut self.wires[index];
        let id = wire.id;
        let read = wire.poll_read(cx, &mut self.links);
        let now = clock::now();
        let event = self.links.handle_inbound(id, &mut self.mux, now);
        let mut turn = Turn { progress: wrote | read.is_ready(), event };
        if turn.event.is_some() {
            return Ok(turn);
        }
        if let Poll::Ready(read) = read {
            read?;
        }
        self.links.handle_progress(id, &mut self.mux, now);
        while let Some(deadline) = self.links.deadline(id)
            && self.wires[index].alarm.poll(cx, deadline).is_ready()
        {
            turn.progress = true;
            turn.event = self.links.handle_timeout(id, &mut self.mux, clock::now())?;
            if turn.event.is_some() {
                break;
            }
        }
        Ok(turn)
    }

    /// Returns whether anything was sealed or written.
    fn poll_write(&mut self, index: usize, cx: &mut Context<'_>) -> Result<bool, LinkEvent> {
        let quiet = self.is_flushed(&self.wires[index]);
        let wire = &mut self.wires[index];
        match wire.poll_ready(cx, &mut self.links) {
            Poll::Pending => return Ok(false),
            Poll::Ready(ready) => ready?,
        }
        if self.links.sending() != Some(wire.id) {
            return Ok(!quiet);
        }
        let most = self.poll_allowance(cx);
        if self.mux.poll_transmit(cx, clock::now(), most, &mut self.batch).is_pending() {
            return Ok(!quiet);
        }
        let wire = &mut self.wires[index];
        wire.seal(&mut self.batch)?;
        match wire.poll_flush(cx) {
            Poll::Ready(Err(event)) => Err(event),
            _ => Ok(true),
        }
    }

    /// How much may be sent in this turn; 0 for no data yet. Everything else goes: the peer may be as cautious, and would
    /// else wait for our acknowledgement as we do for its.
    fn poll_allowance(&mut self, cx: &mut Context<'_>) -> usize {
        let Some(caution) = &mut self.caution else { return BATCH };
        let progress = self.mux.progress();
        let waits =
            progress.acknowledged <= caution.acknowledged && caution.over.as_mut().poll(cx).is_pending();
        if !waits {
            self.caution = None;
            self.batch.set_longest(MAX_PLAINTEXT);
            return BATCH;
        }
        let sent = usize::try_from(progress.sent - progress.acknowledged).unwrap_or(usize::MAX);
        FIRST_FLIGHT.saturating_sub(sent)
    }

    /// Resets the connections whose links are given up.
    fn sweep(&mut self) {
        while let Some(index) = self.wires.iter().position(|wire| !self.links.contains(wire.id)) {
            self.wires.remove(index).abort();
        }
    }

    /// Ready when acknowledgements are due.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sending = self.links.sending();
        // While the socket takes nothing, that is what is waited for.
        let free = self.wires.iter().any(|wire| Some(wire.id) == sending && self.is_flushed(wire));
        let Some(due) = self.mux.next_timeout().filter(|_| free) else { return Poll::Pending };
        self.alarm.poll(cx, due)
    }
}

/// The beginning of a link that may die young.
#[derive(Debug)]
struct Caution {
    /// What the peer had acknowledged before.
    acknowledged: u64,
    over: Pin<Box<Sleep>>,
}

/// What one turn came to.
#[derive(Debug)]
struct Turn {
    progress: bool,
    event: Option<LinkEvent>,
}

impl Streams for Multiplexer {
    fn handle_frames(&mut self, frames: &mut Vec<Frame>, now: Instant) -> Result<(), Violation> {
        Multiplexer::handle_frames(self, frames, now)
    }

    fn resume(&mut self) -> Vec<Received> {
        Multiplexer::resume(self)
    }

    fn handle_resume(&mut self, entries: Vec<Received>, now: Instant) -> Result<(), Violation> {
        Multiplexer::handle_resume(self, entries, now)
    }

    fn link_up(&mut self) {
        Multiplexer::link_up(self);
    }

    fn link_down(&mut self) {
        Multiplexer::link_down(self);
    }

    fn progress(&self) -> Progress {
        Multiplexer::progress(self)
    }

    fn set_round_trip(&mut self, round_trip: Duration) {
        Multiplexer::set_round_trip(self, round_trip);
    }
}
