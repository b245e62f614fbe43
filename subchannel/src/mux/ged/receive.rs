//! What a record of the peer does.
//!
//! Every OPEN, DATA and CLOSE is acknowledged, the repeated ones too, with one ACK for all that a batch
//! brought; while a receive limit is reached the ACK waits. A repeated record is then dropped, a missing
//! one is an error.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    Mux, Route,
    stream::{ReceiveSide, Stream},
};
use crate::{
    id::{SeqNum, SubchannelId},
    mux::{Event, MuxConfig, RECORD_OVERHEAD, RecordError, StreamKey},
    record::{Name, PingId, Record},
};

/// Answers to PING that wait for the link. A peer that asks more often gets the newest answered.
const MAX_PONGS: usize = 16;

/// The receiving side of the sequence, and the answers that it owes.
#[derive(Debug)]
pub(super) struct Inbound {
    /// The next number that is new; 2^32 when none is left.
    expected: u64,
    /// Something was accepted in the life of the wormhole: there is a number to acknowledge.
    any: bool,
    ack_due: bool,
    pongs: VecDeque<PingId>,
}

impl Inbound {
    pub(super) fn new(first_seq: u32) -> Self {
        Inbound { expected: first_seq.into(), any: false, ack_due: false, pongs: VecDeque::new() }
    }

    pub(super) fn link_up(&mut self) {
        self.link_down();
        self.ack_due = self.any;
    }

    /// What was owed to the old link is not owed to the next: a PONG that nobody asked for upsets the
    /// Python peer.
    pub(super) fn link_down(&mut self) {
        self.ack_due = false;
        self.pongs.clear();
    }

    /// `hold_ack`: a receive limit is reached, so the peer shall keep what it sends in its own account.
    pub(super) fn has_answer(&self, hold_ack: bool) -> bool {
        (self.ack_due && !hold_ack) || !self.pongs.is_empty()
    }

    pub(super) fn next_answer(&mut self, hold_ack: bool) -> Option<Record> {
        if !hold_ack && std::mem::take(&mut self.ack_due) {
            let seq = u32::try_from(self.expected - 1).expect("a number of 32 bits was accepted");
            return Some(Record::Ack { seq: SeqNum(seq) });
        }
        self.pongs.pop_front().map(Record::Pong)
    }

    fn ping(&mut self, id: PingId) {
        if self.pongs.len() == MAX_PONGS {
            self.pongs.pop_front();
        }
        self.pongs.push_back(id);
    }

    /// Whether the record is new.
    fn check(&self, seq: SeqNum) -> Result<bool, RecordError> {
        match u64::from(seq.0) {
            n if n > self.expected => {
                let expected = u32::try_from(self.expected).expect("less than a number of 32 bits");
                Err(RecordError::Gap { expected: SeqNum(expected), received: seq })
            }
            n => Ok(n == self.expected),
        }
    }

    fn accept(&mut self) {
        self.expected += 1;
        self.any = true;
        self.ack_due = true;
    }
}

/// Bytes that wait to be read, against the limits of [`MuxConfig`].
#[derive(Debug)]
pub(super) struct ReceiveBudget {
    limit: usize,
    total_limit: usize,
    total: usize,
    /// Half of `total_limit` was passed; the other half is for when a writer waits.
    total_over: bool,
    /// How many streams are over their limit.
    streams_over: usize,
}

impl ReceiveBudget {
    pub(super) fn new(limit: usize, total_limit: usize) -> Self {
        ReceiveBudget { limit, total_limit, total: 0, total_over: false, streams_over: 0 }
    }

    /// Some limit was reached and half of it is not free yet.
    pub(super) fn is_pressed(&self) -> bool {
        self.total_over || self.streams_over > 0
    }

    /// Nothing more can be taken for any reason.
    pub(super) fn is_exhausted(&self) -> bool {
        self.total > self.total_limit
    }

    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// `receive` was charged `cost` more.
    fn charged(&mut self, receive: &mut ReceiveSide, cost: usize) {
        self.total += cost;
        self.total_over |= self.total > self.total_limit / 2;
        if receive.charge > self.limit && !receive.over {
            receive.over = true;
            self.streams_over += 1;
        }
    }

    /// `receive` went down from `before`. Reading starts again at half: not for every byte.
    pub(super) fn settled(&mut self, receive: &mut ReceiveSide, before: usize) {
        self.total -= before - receive.charge;
        self.total_over &= self.total > self.total_limit / 4;
        if receive.over && receive.charge <= self.limit / 2 {
            receive.over = false;
            self.streams_over -= 1;
        }
    }
}

impl Mux {
    /// Takes in one record of the link. Returns the content of a PONG, which is the driver's business.
    ///
    /// Before [`link_up`](Mux::link_up) and after [`link_down`](Mux::link_down) records are ignored.
    ///
    /// # Errors
    ///
    /// [`RecordError`]: the link must be dropped. The mux itself stays usable.
    pub fn handle_record(&mut self, record: Record) -> Result<Option<PingId>, RecordError> {
        if !self.link_up {
            return Ok(None);
        }
        match record {
            Record::Kcm => return Err(RecordError::UnexpectedKcm),
            Record::Ping(id) => self.inbound.ping(id),
            Record::Pong(id) => return Ok(Some(id)),
            Record::Ack { seq } => self.retire(seq),
            Record::Open { id, seq, subprotocol } => {
                if self.is_new(seq)? {
                    self.check_flood()?;
                    self.inbound.accept();
                    self.handle_open(id, &subprotocol);
                }
            }
            Record::Data { id, seq, data } => {
                if self.is_new(seq)? {
                    let (len, limit) = (data.len(), self.config.max_data);
                    if len > limit {
                        return Err(RecordError::DataTooLarge { len, limit });
                    }
                    self.inbound.accept();
                    self.handle_data(id, data);
                }
            }
            Record::Close { id, seq } => {
                if self.is_new(seq)? {
                    self.inbound.accept();
                    self.handle_close(id);
                }
            }
        }
        Ok(None)
    }

    /// Whether a sequenced record is new. One that is not is acknowledged again: the peer would not send
    /// it if the first ACK had arrived.
    fn is_new(&mut self, seq: SeqNum) -> Result<bool, RecordError> {
        let new = self.inbound.check(seq)?;
        self.inbound.ack_due |= !new;
        Ok(new)
    }

    /// CLOSE is not limited by the outbox: the peer decides how many refusals there are. A peer that goes
    /// on opening, though as many CLOSE are unacknowledged as there may be subchannels, is not sane.
    fn check_flood(&self) -> Result<(), RecordError> {
        let MuxConfig { outbox_limit, max_data, max_subchannels, .. } = self.config;
        let written = outbox_limit.max((outbox_limit / 2).saturating_add(max_data + RECORD_OVERHEAD));
        let closes = max_subchannels.saturating_add(1024).saturating_mul(RECORD_OVERHEAD);
        if self.outbox.bytes() > written.saturating_add(closes) { Err(RecordError::Flood) } else { Ok(()) }
    }

    fn handle_open(&mut self, id: SubchannelId, subprotocol: &Name) {
        if self.routes.contains_key(&id) {
            // A duplicate of a live one: the Python peer logs and ignores it, too.
            return;
        }
        let (Ok(name), false) = (self.names.admit(subprotocol, self.config.pending_opens), self.is_full())
        else {
            self.refuse(id);
            return;
        };
        let key = self.insert(id, name.clone());
        if self.names.push(&name, key) {
            self.events.push_back(Event::Incoming(name));
        }
    }

    /// Nobody takes it: the answer is CLOSE. Nothing is remembered, since what the peer sent before it
    /// sees the CLOSE is ignored like everything for an unknown identifier.
    fn refuse(&mut self, id: SubchannelId) {
        self.outbox.charge(RECORD_OVERHEAD);
        self.refusals.push_back(id);
    }

    /// Data for an unknown or closed subchannel is a fault of the peer that the Python peer forgives.
    fn handle_data(&mut self, id: SubchannelId, data: Bytes) {
        let Some((key, stream)) = self.route(id) else { return };
        let receive = &mut stream.receive;
        if receive.discards || receive.closed {
            return;
        }
        let cost = receive.push(data);
        self.budget.charged(&mut self.streams[key.slot].receive, cost);
        self.note_readable(key);
    }

    fn handle_close(&mut self, id: SubchannelId) {
        if let Some(Route::Draining) = self.routes.get(&id) {
            self.routes.remove(&id);
            self.draining -= 1;
            return;
        }
        let Some((key, stream)) = self.route(id) else { return };
        if !std::mem::replace(&mut stream.receive.closed, true) {
            self.note_readable(key);
            self.after_close(key);
        }
    }

    fn route(&mut self, id: SubchannelId) -> Option<(StreamKey, &mut Stream)> {
        let Some(Route::Live(slot)) = self.routes.get(&id).copied() else { return None };
        let stream = self.streams.get_mut(slot).expect("a route to a slot is removed before the slot");
        Some((StreamKey { slot, generation: stream.generation }, stream))
    }
}
