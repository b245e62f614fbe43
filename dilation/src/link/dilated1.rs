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

use super::{BATCH, FIRST_FLIGHT, LinkEvent, alarm::Alarm, wire::Wire};
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
        self.caution = Some(Caution { acknowledged, patience, over: None });
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

    /// See [`Links::is_barren`].
    pub(crate) fn is_barren(&self) -> bool {
        self.links.is_barren()
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

    /// Ready when something happened that the driver has to know. After a turn the task yields to its siblings, who take what
    /// came while it is in the cache.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        match self.poll_turn(cx) {
            Ok(true) => cx.waker().wake_by_ref(),
            Ok(false) if self.draining && self.is_drained(cx) => {
                // Said once; the links go on until the driver ends them.
                self.draining = false;
                return Poll::Ready(LinkEvent::Drained);
            }
            Ok(false) => {}
            Err(event) => {
                self.sweep();
                return Poll::Ready(event);
            }
        }
        Poll::Pending
    }

    /// One turn of all links: what came, and then what is to be said, so that after both there mostly is nothing more to look
    /// at. A blocked writer never stops a reader. Returns whether there may be more to do; an error is what the driver
    /// has to know.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Result<bool, LinkEvent> {
        let now = clock::now();
        let mut again = false;
        for index in 0..self.wires.len() {
            again |= self.poll_read(index, cx, now)?;
        }
        for index in 0..self.wires.len() {
            again |= self.poll_write(index, cx, now).map_err(|event| self.end(index, event))?;
            again |= self.poll_watch(index, cx, now)?;
        }
        Ok(again || self.poll_timer(cx).is_ready())
    }

    /// The end of a link.
    fn end(&mut self, index: usize, event: LinkEvent) -> LinkEvent {
        self.links.handle_end(self.wires[index].id, event, &mut self.mux, clock::now())
    }

    fn is_drained(&self, cx: &mut Context<'_>) -> bool {
        self.mux.poll_drained(cx).is_ready() && self.wires.iter().all(|wire| self.is_flushed(wire))
    }

    fn is_flushed(&self, wire: &Wire) -> bool {
        wire.is_flushed() && self.links.is_quiet(wire.id)
    }

    /// Takes in what came on one link. Returns whether there may be more.
    fn poll_read(&mut self, index: usize, cx: &mut Context<'_>, now: Instant) -> Result<bool, LinkEvent> {
        let wire = &mut self.wires[index];
        let id = wire.id;
        let read = wire.poll_read(cx, &mut self.links, now);
        match self.links.handle_inbound(id, &mut self.mux, now) {
            Some(event) => Err(event),
            None => read.map_err(|event| self.end(index, event)),
        }
    }

    /// Says what there is to say on one link. Returns whether there may be more. An error is the end of the link.
    fn poll_write(&mut self, index: usize, cx: &mut Context<'_>, now: Instant) -> Result<bool, LinkEvent> {
        let wire = &mut self.wires[index];
        let Poll::Ready(ready) = wire.poll_ready(cx, &mut self.links) else { return Ok(false) };
        ready?;
        if self.links.sending() != Some(wire.id) {
            return Ok(false);
        }
        let most = self.poll_allowance(cx);
        let Poll::Ready(more) = self.mux.poll_transmit(cx, now, most, &mut self.batch) else {
            return Ok(false);
        };
        let wire = &mut self.wires[index];
        wire.seal(&mut self.batch)?;
        match wire.poll_flush(cx) {
            Poll::Ready(flushed) => flushed.map(|()| more),
            Poll::Pending => Ok(false),
        }
    }

    /// Watches over one link. Returns whether there is something to do about it.
    fn poll_watch(&mut self, index: usize, cx: &mut Context<'_>, now: Instant) -> Result<bool, LinkEvent> {
        let id = self.wires[index].id;
        self.links.handle_progress(id, &mut self.mux, now);
        let mut due = false;
        while let Some(deadline) = self.links.deadline(id)
            && self.wires[index].alarm.poll(cx, deadline).is_ready()
        {
            due = true;
            match self.links.handle_timeout(id, &mut self.mux, clock::now()) {
                Ok(None) => {}
                Ok(Some(event)) => return Err(event),
                Err(event) => return Err(self.end(index, event)),
            }
        }
        Ok(due)
    }

    /// How much may be sent in this turn; 0 for no data yet. Everything else goes: the peer may be as cautious, and would
    /// else wait for our acknowledgement as we do for its.
    fn poll_allowance(&mut self, cx: &mut Context<'_>) -> usize {
        let Some(caution) = &mut self.caution else { return BATCH };
        let progress = self.mux.progress();
        let over = caution.over.get_or_insert_with(|| Box::pin(tokio::time::sleep(caution.patience)));
        let waits = progress.acknowledged <= caution.acknowledged && over.as_mut().poll(cx).is_pending();
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
    patience: Duration,
    /// From when data may be sent: on a slow path the exchange before that takes longer than the patience.
    over: Option<Pin<Box<Sleep>>>,
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
