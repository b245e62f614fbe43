//! The engine of the dialect `ged`: one sequence of records in each direction, and no flow control of its own.
//!
//! The module is cut by direction:
//!
//! * `verbs`: what the application may do: open, accept, write, read, close;
//! * `receive`: what a record of the peer does;
//! * this file: the life of links, and what to put on them.

mod outbox;
mod receive;
mod stream;
#[cfg(test)]
mod tests;
mod verbs;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use slab::Slab;

use self::{
    outbox::{Outbox, Payload, Sent},
    receive::{Inbound, ReceiveBudget},
    stream::{SendState, Stream},
};
use super::{Batch, EndReason, Event, MuxConfig, Names, Progress, StreamKey, Usage};
use crate::{
    id::{Parity, SeqNum, SubchannelId},
    record::{MAX_CHUNK, MAX_CHUNK_ALONE, Name, Record},
};

#[derive(Debug)]
enum Phase {
    /// The number that the next subchannel of ours gets; `None` when they are used up.
    Running {
        next_id: Option<SubchannelId>,
    },
    Ended(EndReason),
}

/// Where the records of an identifier go.
#[derive(Clone, Copy, Debug)]
enum Route {
    Live(usize),
    /// Released and closed by us; the peer has not closed. What it still sends is discarded.
    Draining,
}

/// One side of the subchannels of a wormhole that speaks `ged`.
///
/// Order of calls, by the driver that owns the link:
///
/// 1. [`link_up`](Mux::link_up) when a link is chosen, then repeatedly
///    [`handle_record`](Mux::handle_record) for what came (unless [`read_paused`](Mux::read_paused)) and
///    [`poll_transmit`](Mux::poll_transmit) until `None`;
/// 2. [`link_down`](Mux::link_down) when it is lost, and again from 1 with the next;
/// 3. [`fail`](Mux::fail) at the end.
///
/// The application's verbs may be called at any time. After each of these calls drain
/// [`poll_event`](Mux::poll_event). Verbs that return [`Poll::Pending`](std::task::Poll) did nothing;
/// an event says when to repeat them.
#[derive(Debug)]
pub struct Mux {
    config: MuxConfig,
    phase: Phase,
    link_up: bool,
    streams: Slab<Stream>,
    routes: BTreeMap<SubchannelId, Route>,
    /// How many routes are `Draining`.
    draining: usize,
    generation: u32,
    /// Slots that have something to send, each once: the round robin.
    ready: VecDeque<usize>,
    /// Refused OPENs whose CLOSE is not sent.
    refusals: VecDeque<SubchannelId>,
    outbox: Outbox,
    inbound: Inbound,
    budget: ReceiveBudget,
    names: Names,
    /// Writers that wait for the outbox, in their order.
    blocked: VecDeque<StreamKey>,
    /// Someone waits to open.
    openers_wait: bool,
    events: VecDeque<Event>,
}

impl Mux {
    /// The engine of the side that allocates identifiers of `parity`: the Leader's are odd. `names` has what
    /// is listened for already.
    pub fn new(config: MuxConfig, parity: Parity, names: Names) -> Self {
        let config = config.clamped();
        let first = u64::from(parity.first().0) + 2 * u64::from(config.ids_used);
        Mux {
            phase: Phase::Running { next_id: u32::try_from(first).ok().map(SubchannelId) },
            link_up: false,
            streams: Slab::new(),
            routes: BTreeMap::new(),
            draining: 0,
            generation: 0,
            ready: VecDeque::new(),
            refusals: VecDeque::new(),
            outbox: Outbox::new(config.outbox_limit, config.first_seq),
            inbound: Inbound::new(config.first_seq),
            budget: ReceiveBudget::new(config.receive_limit, config.receive_total),
            names,
            blocked: VecDeque::new(),
            openers_wait: false,
            events: VecDeque::new(),
            config,
        }
    }

    /// The limits in force.
    pub fn config(&self) -> &MuxConfig {
        &self.config
    }

    /// A link was chosen. Everything unacknowledged will be transmitted on it, after an ACK of what the
    /// earlier links brought: that spares the peer from repeating it.
    pub fn link_up(&mut self) {
        if !self.is_ended() {
            self.link_up = true;
            self.outbox.rewind();
            self.inbound.link_up();
        }
    }

    /// Repeats the last unacknowledged record, so that its ACK comes again: a Python Follower loses the ACKs that it
    /// owes for what arrives together with the KCM, and if nothing follows, waiting for them would be in vain.
    pub fn nudge(&mut self) {
        self.outbox.nudge();
    }

    /// How far the records have come on the current link, for measuring its round trip.
    pub fn progress(&self) -> Progress {
        self.outbox.progress()
    }

    /// The link is lost. Records that still come from it are ignored; the peer sends them again.
    pub fn link_down(&mut self) {
        self.link_up = false;
        self.inbound.link_down();
    }

    /// Ends the wormhole. Data that was received can still be read, and subchannels that wait still be
    /// accepted; everything else fails with `reason`, now and later. The first reason stays.
    pub fn fail(&mut self, reason: EndReason) {
        if self.is_ended() {
            return;
        }
        self.phase = Phase::Ended(reason);
        self.link_down();
        self.outbox.clear();
        self.ready.clear();
        self.refusals.clear();
        self.blocked.clear();
        self.routes.clear();
        self.draining = 0;
        for slot in 0..self.streams.capacity() {
            let Some(stream) = self.streams.get_mut(slot) else { continue };
            stream.send.clear();
            let key = StreamKey { slot, generation: stream.generation };
            self.events.push_back(Event::Writable(key));
            self.note_readable(key);
            self.note_acknowledged(key);
            self.reap(key);
        }
        self.events.extend(self.names.tell_all().map(Event::Incoming));
        self.wake_openers();
        self.events.push_back(Event::Ended);
    }

    /// Why the wormhole is over, if it is: as told to [`fail`](Mux::fail), or because 2³² records were
    /// sent, which is all that the protocol can number.
    pub fn ended(&self) -> Option<&EndReason> {
        match &self.phase {
            Phase::Ended(reason) => Some(reason),
            Phase::Running { .. } => None,
        }
    }

    fn is_ended(&self) -> bool {
        self.ended().is_some()
    }

    /// The next record for the link, `None` if there is nothing to send now.
    ///
    /// One ACK for all that was accepted so far (not while a receive limit is reached), answers to PING, what an earlier link may have lost, then
    /// new records, one of each subchannel in turn.
    pub fn poll_transmit(&mut self) -> Option<Record> {
        if !self.link_up {
            return None;
        }
        if let Some(record) = self.inbound.next_answer(self.budget.is_pressed()) {
            return Some(record);
        }
        if let Some(record) = self.outbox.resend() {
            return Some(record);
        }
        if self.refusals.is_empty() && self.ready.is_empty() {
            return None;
        }
        if self.outbox.is_exhausted() {
            self.fail(EndReason::failed(
                "this wormhole has sent 2^32 records, which is all that the dialect \"ged\" can number; \
                 start a new wormhole to continue",
            ));
            return None;
        }
        if let Some(id) = self.refusals.pop_front() {
            return self.outbox.stamp(Sent { id, stream: None, payload: Payload::Close });
        }
        self.transmit_ready()
    }

    /// Puts what [`poll_transmit`](Mux::poll_transmit) gives into `out` until that has `most` bytes (at least one
    /// record, which may be larger). Returns whether there was anything.
    pub fn fill(&mut self, most: usize, out: &mut Batch) -> bool {
        let mut filled = 0;
        while filled < most
            && let Some(record) = self.poll_transmit()
        {
            filled += record.encoded_len();
            let header = record.header();
            match record {
                Record::Data { data, .. } => out.push_record(header.as_ref(), data),
                other => out.push_record(&other.to_vec(), Bytes::new()),
            }
        }
        filled > 0
    }

    /// Whether [`poll_transmit`](Mux::poll_transmit) has something, without taking it.
    pub fn wants_transmit(&self) -> bool {
        self.link_up
            && (self.inbound.has_answer(self.budget.is_pressed())
                || self.outbox.has_resend()
                || !self.refusals.is_empty()
                || !self.ready.is_empty())
    }

    /// Whether a receive limit is reached: do not read the link until it is `false` again. What was read
    /// before may still be handed over; nothing is ever dropped.
    ///
    /// While a writer waits for the outbox, only [`receive_total`](MuxConfig::receive_total) counts: the ACK
    /// that lets it go on may wait behind data, and an application that writes what it reads (an echo, a
    /// proxy) reads on only when it has written. What comes meanwhile is not acknowledged, so a peer with
    /// an outbox like ours stops by itself.
    pub fn read_paused(&self) -> bool {
        let must = self.budget.is_exhausted() || !self.outbox.is_gate_closed();
        must && self.budget.is_pressed()
    }

    /// Whether the peer has acknowledged everything that was written, opened and closed. True after the
    /// end, when nothing more can be.
    pub fn is_drained(&self) -> bool {
        self.outbox.bytes() == 0
    }

    /// What has become possible since the last call. At most a few events per subchannel are queued, and
    /// none is lost.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        match &event {
            Event::Readable(key) => {
                if let Some(stream) = self.get_mut(*key) {
                    stream.receive.event_queued = false;
                }
            }
            Event::Acknowledged(key) => {
                if let Some(stream) = self.get_mut(*key) {
                    stream.send.event_queued = false;
                }
            }
            Event::Incoming(name) => self.names.told(name),
            Event::Writable(_) | Event::Openable | Event::Ended => {}
        }
        Some(event)
    }

    /// How much of the limits is in use.
    pub fn usage(&self) -> Usage {
        Usage {
            outbox_bytes: self.outbox.bytes(),
            unacknowledged_records: self.outbox.unacknowledged(),
            receive_bytes: self.budget.total(),
            subchannels: self.streams.len() + self.draining,
            pending_opens: self.names.waiting(),
            read_paused: self.read_paused(),
            writers_wait: self.outbox.is_gate_closed(),
        }
    }

    fn transmit_ready(&mut self) -> Option<Record> {
        while let Some(slot) = self.ready.pop_front() {
            let stream = self.streams.get_mut(slot).expect("a ready stream is not reaped");
            let most = if self.ready.is_empty() { MAX_CHUNK_ALONE } else { MAX_CHUNK };
            let charged = stream.send.cost();
            let Some(payload) = stream.next_payload(most) else {
                stream.send.ready = false;
                continue;
            };
            let key = StreamKey { slot, generation: stream.generation };
            let id = stream.id;
            if let Payload::Data(_) = payload {
                self.outbox.recharge(charged, stream.send.cost() + payload.cost());
            }
            stream.send.ready = stream.send.has_work();
            if stream.send.ready {
                self.ready.push_back(slot);
            }
            if stream.send.waits_for_queue && stream.send.queued <= self.config.stream_queue / 2 {
                stream.send.waits_for_queue = false;
                self.events.push_back(Event::Writable(key));
            }
            let closed = matches!(payload, Payload::Close);
            let record = self.outbox.stamp(Sent { id, stream: Some(key), payload });
            if closed {
                self.after_close(key);
            }
            return record;
        }
        outbox::release_if_large(&mut self.ready);
        None
    }

    /// The peer acknowledged everything up to `ack`.
    fn retire(&mut self, ack: SeqNum) {
        while let Some(sent) = self.outbox.retire(ack) {
            let Some(key) = sent.stream else { continue };
            if let Some(stream) = self.get_mut(key) {
                stream.send.retired(&sent.payload);
                self.note_acknowledged(key);
            }
        }
        self.reopen_outbox();
    }

    /// Wakes all who wait for the outbox, once half of it is free.
    fn reopen_outbox(&mut self) {
        if !self.outbox.reopen() {
            return;
        }
        for key in std::mem::take(&mut self.blocked) {
            if let Some(stream) = self.get_mut(key) {
                stream.send.waits_for_outbox = false;
                self.events.push_back(Event::Writable(key));
            }
        }
        self.wake_openers();
    }

    fn wake_openers(&mut self) {
        if std::mem::take(&mut self.openers_wait) {
            self.events.push_back(Event::Openable);
        }
    }

    fn note_readable(&mut self, key: StreamKey) {
        let Some(stream) = self.get_mut(key) else { return };
        if !stream.receive.released && !std::mem::replace(&mut stream.receive.event_queued, true) {
            self.events.push_back(Event::Readable(key));
        }
    }

    fn note_acknowledged(&mut self, key: StreamKey) {
        let Some(stream) = self.get_mut(key) else { return };
        if !stream.send.released && !std::mem::replace(&mut stream.send.event_queued, true) {
            self.events.push_back(Event::Acknowledged(key));
        }
    }

    fn note_ready(&mut self, key: StreamKey) {
        let Some(stream) = self.get_mut(key) else { return };
        if stream.send.has_work() && !std::mem::replace(&mut stream.send.ready, true) {
            self.ready.push_back(key.slot);
        }
    }

    /// A CLOSE was sent or has arrived. The identifier is free after both; until then it is remembered,
    /// even if the application is gone.
    fn after_close(&mut self, key: StreamKey) {
        let Some(stream) = self.get(key) else { return };
        if stream.send.state == SendState::CloseSent && stream.receive.closed {
            let id = stream.id;
            if matches!(self.routes.get(&id), Some(Route::Live(slot)) if *slot == key.slot) {
                self.routes.remove(&id);
            }
        }
        self.reap(key);
    }

    /// Frees the slot once the application has let go of it and nothing is left to send.
    fn reap(&mut self, key: StreamKey) {
        let ended = self.is_ended();
        let Some(stream) = self.get(key) else { return };
        let done = ended || stream.send.state == SendState::CloseSent;
        if !(done && stream.send.released && stream.receive.released) {
            return;
        }
        let stream = self.streams.remove(key.slot);
        if !ended && !stream.receive.closed {
            self.routes.insert(stream.id, Route::Draining);
            self.draining += 1;
        }
    }

    fn get(&self, key: StreamKey) -> Option<&Stream> {
        self.streams.get(key.slot).filter(|stream| stream.generation == key.generation)
    }

    fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.streams.get_mut(key.slot).filter(|stream| stream.generation == key.generation)
    }

    /// Puts a new stream into a slot and routes its identifier there.
    fn insert(&mut self, id: SubchannelId, name: Name) -> StreamKey {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let slot = self.streams.insert(Stream::new(id, name, generation));
        self.routes.insert(id, Route::Live(slot));
        StreamKey { slot, generation }
    }

    fn is_full(&self) -> bool {
        self.streams.len() + self.draining >= self.config.max_subchannels
    }
}
