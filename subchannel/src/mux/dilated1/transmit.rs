//! What goes onto the link, and in which order: OPENs, what is short and concerns credit or ends, the control channel,
//! then the levels.

use std::time::Instant;

use super::{
    Link, Mux,
    batch::Batch,
    key,
    schedule::Chosen,
    send::Piece,
    stream::{SendState, Stream, flag},
};
use crate::{
    frame::{DataHeader, DatagramHeader, Frame, MAX_PLAINTEXT, Mark, payload_room},
    mux::Event,
};

/// A frame without payload or name fits into this.
const SHORT_FRAME: usize = 32;
/// The rest of a message up to this many bytes is not cut by the end of a record, nor is so little put before it: that goes
/// into the next.
const DO_NOT_CUT: usize = 1024;

/// Why a subchannel's turn ended.
enum Turn {
    /// It has nothing more to send now.
    Done,
    /// It has sent its share.
    Used,
    /// It needs credit of the link.
    Parked,
    /// The batch is full.
    Full,
}

impl Mux {
    /// Appends records for the link to `out`, until those in it have `most` bytes or nothing is left to send; at least
    /// one, if there is anything. With `most` 0 only what is not data, which must never wait: the peer may wait for it
    /// with its own. Returns whether there was anything. Call it again after [`poll_timeout`](Mux::poll_timeout).
    pub fn poll_transmit(&mut self, now: Instant, most: usize, out: &mut Batch) -> bool {
        if self.link == Link::Down {
            return false;
        }
        self.recall_writers(now);
        let due = self.acknowledge_at.is_some_and(|at| at <= now);
        if !due && !self.wants_transmit() {
            return false;
        }
        let before = out.bytes();
        let mut room = Room { out, most };
        self.acknowledge_all();
        let done = self.transmit_opens(&mut room)
            && self.transmit_controls(&mut room, now)
            && self.transmit_counts(&mut room);
        let flight = usize::try_from(self.flight.room(self.in_flight)).unwrap_or(usize::MAX);
        if done && flight > 0 && most > 0 {
            room.most = room.most.min(room.out.bytes().saturating_add(flight));
            self.transmit_data(&mut room);
        }
        // Whoever had asked for its turn may have had nothing to say any more.
        out.trim();
        out.bytes() > before
    }

    /// Whether [`poll_transmit`](Mux::poll_transmit) would probably give something, whatever the time.
    pub fn wants_transmit(&self) -> bool {
        self.link != Link::Down
            && (!self.opens.is_empty()
                || !self.controls.is_empty()
                || !self.refusals.is_empty()
                || self.credit.due
                || self.opened.due
                || self.outbox.wants_timeout()
                || self.schedule.has(self.credit.room() > 0) && self.flight.room(self.in_flight) > 0)
    }

    /// When to call [`poll_transmit`](Mux::poll_transmit) though nothing has happened: for a CREDIT that found nothing
    /// to go with, or for writers that were told of room and do not come.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timeouts = [self.acknowledge_at, self.outbox.timeout()];
        timeouts.into_iter().flatten().min().filter(|_| self.link != Link::Down)
    }

    /// Every CREDIT that could wait goes with what is sent now.
    pub(super) fn acknowledge_all(&mut self) {
        self.acknowledge_at = None;
        self.untold = 0;
        while let Some(slot) = self.later.pop_front() {
            if self.slots.get(slot).is_some_and(|stream| stream.flags.has(flag::LATER)) {
                self.note_control(slot, flag::CREDIT_DUE);
            }
        }
        super::release_if_large(&mut self.later);
    }

    fn transmit_opens(&mut self, room: &mut Room<'_>) -> bool {
        while let Some(&(id, slot)) = self.opens.front() {
            let due = |stream: &&Stream| stream.id == id && stream.flags.has(flag::OPEN_DUE);
            let Some(stream) = self.slots.get(slot).filter(due) else {
                self.opens.pop_front();
                continue;
            };
            let limit = self.grant(stream);
            let name = stream.name.clone();
            let frame = Frame::Open { id, limit, priority: stream.priority, name };
            if !room.reserve(frame.encoded_len()) {
                return false;
            }
            room.out.put_with(|out| frame.encode(out));
            self.opens.pop_front();
            let stream = &mut self.slots[slot];
            stream.granted = limit;
            stream.flags.clear(flag::OPEN_DUE);
            stream.flags.set(flag::OPEN_SENT);
        }
        super::release_if_large(&mut self.opens);
        true
    }

    fn transmit_controls(&mut self, room: &mut Room<'_>, now: Instant) -> bool {
        while let Some(&(id, code)) = self.refusals.front() {
            if !room.reserve(SHORT_FRAME) {
                return false;
            }
            room.out.put_with(|out| Frame::Refuse { id, code }.encode(out));
            self.refusals.pop_front();
        }
        super::release_if_large(&mut self.refusals);
        while let Some(&slot) = self.controls.front() {
            if !room.reserve(3 * SHORT_FRAME) {
                return false;
            }
            self.controls.pop_front();
            if self.slots.get_mut(slot).is_some_and(|stream| stream.flags.take(flag::CONTROL)) {
                self.transmit_control(slot, room, now);
                self.settle(slot);
            }
        }
        super::release_if_large(&mut self.controls);
        true
    }

    fn transmit_control(&mut self, slot: u32, room: &mut Room<'_>, now: Instant) {
        let stream = &mut self.slots[slot];
        let (id, final_offset) = (stream.id, stream.written);
        if stream.flags.take(flag::RESET_DUE)
            && stream.send == SendState::Resetting
            && let Some(active) = &mut stream.active
        {
            let end = final_offset + 1;
            self.in_flight += end - active.send.unit;
            active.send.sent(end - active.send.unit);
            let frame = Frame::Reset { id, code: active.codes.reset, final_offset };
            room.out.put_with(|out| frame.encode(out));
        }
        if stream.flags.take(flag::STOP_DUE)
            && !stream.is_receive_done()
            && let Some(active) = &stream.active
        {
            let frame = Frame::Stop { id, code: active.codes.stop };
            room.out.put_with(|out| frame.encode(out));
        }
        if stream.flags.has(flag::CREDIT_DUE | flag::LATER) {
            self.measure_window(slot, now);
            let credit = self.make_credit(slot);
            room.out.put_with(|out| credit.encode(out));
        }
    }

    fn transmit_counts(&mut self, room: &mut Room<'_>) -> bool {
        if (self.credit.due || self.opened.due) && !room.reserve(2 * SHORT_FRAME) {
            return false;
        }
        if self.credit.due {
            let limit = self.credit.grant();
            room.out.put_with(|out| Frame::LinkCredit(limit).encode(out));
        }
        if std::mem::take(&mut self.opened.due) {
            let granted = self.opened.peer_gone + self.config.max_subchannels as u64;
            self.opened.peer_granted = granted;
            room.out.put_with(|out| Frame::MaxSubchannels(granted).encode(out));
        }
        true
    }

    fn transmit_data(&mut self, room: &mut Room<'_>) {
        while let Some(Chosen { level, slot, quantum }) =
            self.schedule.pop(self.credit.room() > 0, self.outbox.waiting())
        {
            let Some(stream) = self.slots.get_mut(slot).filter(|stream| stream.flags.has(flag::READY)) else {
                continue;
            };
            let Some(active) = stream.active.as_mut() else {
                stream.flags.clear(flag::READY);
                continue;
            };
            if active.send.deficit <= 0 {
                active.send.deficit += quantum;
            }
            let alone = self.schedule.is_alone(level);
            let turn = self.transmit_turn(slot, alone, room);
            let stream = &mut self.slots[slot];
            let key = key(slot, stream);
            match turn {
                Turn::Done => {
                    stream.flags.clear(flag::READY);
                    if let Some(active) = &mut stream.active {
                        active.send.deficit = 0;
                    }
                }
                Turn::Used => self.schedule.push(level, slot),
                Turn::Parked => self.schedule.park(level, slot),
                Turn::Full => self.schedule.push_front(level, slot),
            }
            let stream = &mut self.slots[slot];
            if stream.flags.has(flag::WAITS_FOR_QUEUE)
                && stream.unsent() <= self.config.stream_queue as u64 / 2
            {
                stream.flags.clear(flag::WAITS_FOR_QUEUE);
                self.events.push_back(Event::Writable(key));
            }
            self.settle(slot);
            if matches!(turn, Turn::Full) {
                break;
            }
        }
    }

    /// Lets one subchannel send: its datagrams, then its data. If it is `alone` it goes on as long as it can.
    fn transmit_turn(&mut self, slot: u32, alone: bool, room: &mut Room<'_>) -> Turn {
        if !self.transmit_datagrams(slot, room) {
            return Turn::Full;
        }
        let stream = &mut self.slots[slot];
        let (id, control, ending) = (stream.id, stream.is_control(), stream.send == SendState::Ending);
        let Some(active) = stream.active.as_mut() else { return Turn::Done };
        if !matches!(stream.send, SendState::Open | SendState::Ending) {
            return Turn::Done;
        }
        let send = &mut active.send;
        loop {
            if send.unit > stream.written || (send.unit == stream.written && !ending) {
                return Turn::Done;
            }
            // The end goes along: it is not worth another turn.
            if send.deficit <= 0 && !alone && send.unit < stream.written {
                return Turn::Used;
            }
            let own = stream.send_limit.saturating_sub(send.unit);
            let repeated = send.sent_max.min(stream.written).saturating_sub(send.unit);
            let link = if control { u64::MAX } else { repeated.saturating_add(self.credit.room()) };
            let share = if alone { u64::MAX } else { send.deficit.unsigned_abs().max(DO_NOT_CUT as u64) };
            if send.unit < stream.written && own.min(link) == 0 {
                return if own == 0 { Turn::Done } else { Turn::Parked };
            }
            let head = DataHeader::fixed_len(id, send.unit);
            if !room.reserve(head + 1 + usize::from(send.unit < stream.written)) {
                return Turn::Full;
            }
            let mut most = payload_room(room.out.room() - head);
            let allowance = own.min(link).min(share);
            let mut piece = send.plan(most, allowance).unwrap_or(Piece::NOTHING);
            let little_is_left = piece.mark == Mark::More && piece.whole <= DO_NOT_CUT as u64;
            let little_fits = most < DO_NOT_CUT && piece.whole > most as u64;
            if piece.len == most && (little_is_left || little_fits) {
                if !room.start() {
                    return Turn::Full;
                }
                most = payload_room(room.out.room() - head);
                piece = send.plan(most, allowance).unwrap_or(Piece::NOTHING);
            }
            let fin = ending && send.is_last(&piece, stream.written);
            let header = DataHeader { id, offset: send.unit, mark: piece.mark, fin, len: piece.len };
            let sent_max = send.sent_max;
            room.out.put_with(|out| header.encode(out));
            send.emit(&piece, room.out);
            if !control {
                self.credit.sent += send.unit.saturating_sub(sent_max);
            }
            send.sent(u64::from(fin));
            self.in_flight += piece.units + u64::from(fin);
            send.deficit = send.deficit.saturating_sub_unsigned(piece.units + u64::from(fin));
        }
    }

    /// Returns whether all went out.
    fn transmit_datagrams(&mut self, slot: u32, room: &mut Room<'_>) -> bool {
        let stream = &mut self.slots[slot];
        let id = stream.id;
        let Some(active) = stream.active.as_mut() else { return true };
        while let Some(data) = active.datagrams.out.front() {
            let len = data.len();
            if !room.reserve(DatagramHeader::MAX + len) {
                return false;
            }
            let Some(data) = active.datagrams.out.pop_front() else { break };
            room.out.put_with(|out| DatagramHeader { id, len }.encode(out));
            room.out.put_payload(data);
            self.datagram_bytes -= len;
            active.send.deficit = active.send.deficit.saturating_sub_unsigned(len as u64);
        }
        true
    }
}

/// Where frames are put, and how many bytes that may become.
struct Room<'a> {
    out: &'a mut Batch,
    most: usize,
}

impl Room<'_> {
    /// Makes sure that `len` bytes fit into the last record, which may be a new one. `false` if the batch is full.
    fn reserve(&mut self, len: usize) -> bool {
        debug_assert!(len <= MAX_PLAINTEXT, "a frame fits into a record");
        self.out.room() >= len || self.start()
    }

    /// Starts a record, if there may be another.
    fn start(&mut self) -> bool {
        let may = self.out.is_empty() || self.out.bytes() < self.most;
        if may {
            self.out.start_record();
        }
        may
    }
}
