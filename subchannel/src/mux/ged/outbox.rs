//! The durable outbox: records that were sent at least once and that the peer has not acknowledged,
//! plus the byte budget shared with what is written and not yet sent.
//!
//! Dilation protocol, "L3 durability": one sequence per direction, an ACK retires everything up to its
//! number, and a new link starts with all that is not acknowledged. The records stay as they are and
//! only a cursor rewinds: nothing is encoded twice.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    id::{SeqNum, SubchannelId},
    mux::{Progress, RECORD_OVERHEAD, StreamKey, gate::Gate},
    record::{Name, Record},
};

/// The part of a sequenced record that does not depend on its number.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    Open(Name),
    Data(Bytes),
    Close,
}

impl Payload {
    /// What it costs in the budget.
    pub(super) fn cost(&self) -> usize {
        match self {
            Payload::Open(name) => name.len() + RECORD_OVERHEAD,
            Payload::Data(data) => data.len() + RECORD_OVERHEAD,
            Payload::Close => RECORD_OVERHEAD,
        }
    }
}

/// A record in the outbox. Its number follows from its place.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) id: SubchannelId,
    /// Whom to tell when it is acknowledged; nobody for the CLOSE of a refused OPEN.
    pub(super) stream: Option<StreamKey>,
    pub(super) payload: Payload,
}

#[derive(Debug)]
pub(super) struct Outbox {
    sent: VecDeque<Sent>,
    /// The number that the next new record gets; 2^32 when there is none left.
    next_seq: u64,
    /// Index in `sent` of the next record to put on the current link.
    cursor: usize,
    /// Holds the cost of everything written and not acknowledged, whether in `sent` or still with its stream.
    gate: Gate,
}

impl Outbox {
    pub(super) fn new(limit: usize, first_seq: u32) -> Self {
        Outbox { sent: VecDeque::new(), next_seq: first_seq.into(), cursor: 0, gate: Gate::new(limit) }
    }

    pub(super) fn bytes(&self) -> usize {
        self.gate.bytes()
    }

    pub(super) fn unacknowledged(&self) -> usize {
        self.sent.len()
    }

    pub(super) fn progress(&self) -> Progress {
        let acknowledged = self.first_seq();
        Progress { sent: acknowledged + self.cursor as u64, acknowledged }
    }

    /// Room for stream bytes in a new chunk; closes the gate if there is none.
    pub(super) fn room(&mut self) -> usize {
        self.gate.room(RECORD_OVERHEAD, false)
    }

    /// Whether something indivisible of this cost may enter; closes the gate if not.
    pub(super) fn admits(&mut self, cost: usize) -> bool {
        self.gate.admits(cost, false)
    }

    /// Whether someone waits and may now be woken; opens the gate.
    pub(super) fn reopen(&mut self) -> bool {
        let reopens = self.gate.is_due();
        if reopens {
            self.gate.open();
        }
        reopens
    }

    /// Whether someone waits.
    pub(super) fn is_gate_closed(&self) -> bool {
        self.gate.is_closed()
    }

    pub(super) fn charge(&mut self, cost: usize) {
        self.gate.recharge(0, cost);
    }

    /// What cost `from` costs `to` now.
    pub(super) fn recharge(&mut self, from: usize, to: usize) {
        self.gate.recharge(from, to);
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.next_seq > u64::from(u32::MAX)
    }

    pub(super) fn has_resend(&self) -> bool {
        self.cursor < self.sent.len()
    }

    /// A new link: everything that is not acknowledged goes again.
    pub(super) fn rewind(&mut self) {
        self.cursor = 0;
    }

    /// Sends the last unacknowledged record once more, unless there is something to send again anyway.
    pub(super) fn nudge(&mut self) {
        if !self.has_resend() {
            self.cursor = self.sent.len().saturating_sub(1);
        }
    }

    pub(super) fn resend(&mut self) -> Option<Record> {
        let record = self.record(self.cursor)?;
        self.cursor += 1;
        Some(record)
    }

    /// Numbers a new record. Its cost was charged when it was written.
    pub(super) fn stamp(&mut self, sent: Sent) -> Option<Record> {
        debug_assert!(!self.has_resend(), "new records go after the old ones");
        if self.is_exhausted() {
            return None;
        }
        self.next_seq += 1;
        self.sent.push_back(sent);
        self.cursor = self.sent.len();
        self.record(self.cursor - 1)
    }

    /// The oldest record, if `ack` covers it, out of the outbox. Call until `None`.
    pub(super) fn retire(&mut self, ack: SeqNum) -> Option<Sent> {
        if self.sent.is_empty() || self.first_seq() > u64::from(ack.0) {
            return None;
        }
        let sent = self.sent.pop_front()?;
        self.cursor = self.cursor.saturating_sub(1);
        self.gate.recharge(sent.payload.cost(), 0);
        if self.sent.is_empty() {
            release_if_large(&mut self.sent);
        }
        Some(sent)
    }

    pub(super) fn clear(&mut self) {
        self.sent = VecDeque::new();
        self.cursor = 0;
        self.gate.clear();
    }

    fn first_seq(&self) -> u64 {
        self.next_seq - self.sent.len() as u64
    }

    fn record(&self, index: usize) -> Option<Record> {
        let Sent { id, payload, .. } = self.sent.get(index)?;
        let seq = u32::try_from(self.first_seq() + index as u64).expect("stamp() checks the range");
        let (id, seq) = (*id, SeqNum(seq));
        Some(match payload {
            Payload::Open(name) => Record::Open { id, seq, subprotocol: name.clone() },
            Payload::Data(data) => Record::Data { id, seq, data: data.clone() },
            Payload::Close => Record::Close { id, seq },
        })
    }
}

/// An empty queue gives back what a burst made it allocate; small ones keep their room.
pub(super) fn release_if_large<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() > 32 {
        *queue = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(id: u32) -> Sent {
        Sent { id: SubchannelId(id), stream: None, payload: Payload::Close }
    }

    fn stamp(outbox: &mut Outbox, id: u32) -> Option<Record> {
        outbox.charge(RECORD_OVERHEAD);
        outbox.stamp(close(id))
    }

    fn wire(id: u32, seq: u32) -> Option<Record> {
        Some(Record::Close { id: SubchannelId(id), seq: SeqNum(seq) })
    }

    #[test]
    fn a_new_link_gets_all_that_is_unacknowledged_in_order() {
        let mut outbox = Outbox::new(10_000, 0);
        for id in 0..4 {
            assert_eq!(stamp(&mut outbox, id), wire(id, id));
        }
        assert_eq!(outbox.retire(SeqNum(0)).map(|sent| sent.id.0), Some(0));
        assert!(outbox.retire(SeqNum(0)).is_none());
        outbox.rewind();
        assert_eq!(outbox.resend(), wire(1, 1));
        // An ACK that overtakes the cursor: what it covers need not be sent again.
        while outbox.retire(SeqNum(2)).is_some() {}
        assert_eq!(outbox.resend(), wire(3, 3));
        assert_eq!(outbox.resend(), None);
        assert_eq!(stamp(&mut outbox, 4), wire(4, 4));
        assert_eq!(outbox.bytes(), 2 * RECORD_OVERHEAD);
        // An ACK for the future counts for what exists.
        while outbox.retire(SeqNum(u32::MAX)).is_some() {}
        assert_eq!((outbox.bytes(), outbox.unacknowledged()), (0, 0));
        assert_eq!(stamp(&mut outbox, 5), wire(5, 5));
    }

    #[test]
    fn a_nudge_repeats_the_last_record_and_nothing_else() {
        let mut outbox = Outbox::new(10_000, 0);
        outbox.nudge();
        assert_eq!(outbox.resend(), None, "there is nothing to repeat");
        for id in 0..3 {
            stamp(&mut outbox, id);
        }
        outbox.nudge();
        assert_eq!((outbox.resend(), outbox.resend()), (wire(2, 2), None));
        outbox.rewind();
        outbox.nudge();
        assert_eq!(outbox.resend(), wire(0, 0), "a new link repeats everything anyway");
    }

    #[test]
    fn numbers_end_at_32_bits() {
        let mut outbox = Outbox::new(10_000, u32::MAX - 1);
        assert_eq!(stamp(&mut outbox, 1), wire(1, u32::MAX - 1));
        assert_eq!(stamp(&mut outbox, 1), wire(1, u32::MAX));
        assert!(outbox.is_exhausted());
        assert_eq!(outbox.stamp(close(1)).map(|_| ()), None);
        assert!(outbox.retire(SeqNum(u32::MAX)).is_some());
        assert!(outbox.retire(SeqNum(u32::MAX)).is_some());
        assert!(outbox.retire(SeqNum(u32::MAX)).is_none());
    }

    #[test]
    fn what_is_acknowledged_makes_room() {
        let mut outbox = Outbox::new(4 * RECORD_OVERHEAD, 0);
        for id in 0..4 {
            stamp(&mut outbox, id);
        }
        assert_eq!((outbox.room(), outbox.is_gate_closed()), (0, true));
        assert!(outbox.retire(SeqNum(1)).is_some() && !outbox.reopen());
        assert!(outbox.retire(SeqNum(1)).is_some() && outbox.reopen());
        assert_eq!(outbox.room(), RECORD_OVERHEAD, "behind the overhead of the chunk itself");
    }
}
