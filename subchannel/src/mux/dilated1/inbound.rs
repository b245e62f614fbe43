//! What the peer's frames do.
//!
//! All of them are idempotent: it does not matter on which link they arrive, or how often. No number of the peer is
//! believed before it was compared with what it may be.

use std::time::Instant;

use bytes::{Buf, Bytes};

use super::{
    Mux,
    credit::{ACKNOWLEDGE_AT, ACKNOWLEDGE_WITHIN},
    stream::{ReceiveState, SendState, flag},
};
use crate::{
    frame::{Code, Frame, Mark, Received, Violation},
    id::{Parity, SubchannelId},
    mux::{Event, names::Unwanted},
    record::Name,
};

/// The fields of DATA.
struct Data {
    offset: u64,
    mark: Mark,
    fin: bool,
    data: Bytes,
}

impl Mux {
    /// Takes in one frame that concerns subchannels, from whichever link. After the end it is ignored.
    ///
    /// # Errors
    ///
    /// [`Violation`]: the wormhole must end with its code. PING, PONG, RESUME and GOODBYE, which are the driver's, are
    /// [`Violation::INTERNAL`].
    pub fn handle_frame(&mut self, frame: Frame, now: Instant) -> Result<(), Violation> {
        if self.ended.is_some() {
            return Ok(());
        }
        match frame {
            Frame::Padding => Ok(()),
            Frame::Data { id, offset, mark, fin, data } => {
                self.handle_data(id, Data { offset, mark, fin, data }, now)
            }
            Frame::Credit(credit) => self.handle_credit(credit).map(|_| ()),
            Frame::LinkCredit(limit) => {
                self.credit.limit = self.credit.limit.max(limit);
                Ok(())
            }
            Frame::MaxSubchannels(count) => {
                self.opened.own_limit = self.opened.own_limit.max(count);
                self.wake_openers();
                Ok(())
            }
            Frame::Open { id, limit, priority, name } => self.handle_open(id, limit, priority, &name, now),
            Frame::Reset { id, code, final_offset } => self.handle_reset(id, Code(code), final_offset, now),
            Frame::Stop { id, code } => self.handle_stop(id, Code(code)),
            Frame::Refuse { id, code } => self.handle_refuse(id, Code(code)),
            Frame::Datagram { id, data } => self.handle_datagram(id, &data),
            Frame::Ping(_) | Frame::Pong(_) | Frame::Resume { .. } | Frame::Goodbye { .. } => {
                Err(Violation::new(Violation::INTERNAL, "a frame of the link was given to the subchannels"))
            }
        }
    }

    /// The slot of a subchannel; `None` if it was there and is forgotten.
    pub(super) fn locate(&mut self, id: SubchannelId) -> Result<Option<u32>, Violation> {
        if let Some(slot) = self.routes.get(id) {
            let stream = &mut self.slots[slot];
            if stream.flags.has(flag::OPEN_SENT) || !stream.flags.has(flag::MINE) {
                return Ok(Some(slot));
            }
        } else if self.was_opened(id) {
            return Ok(None);
        }
        let text = format!("the peer sent a frame for subchannel {id}, which was never opened");
        Err(Violation::new(Violation::STATE, text))
    }

    /// Whether the number was used by either side.
    fn was_opened(&self, id: SubchannelId) -> bool {
        let next = if self.is_own(id) { self.next_own } else { self.next_peer };
        id.0 == 0 || next.is_none_or(|next| id < next)
    }

    pub(super) fn is_own(&self, id: SubchannelId) -> bool {
        (id.0 % 2 == 1) == (self.parity == Parity::Odd)
    }

    /// The peer has said anything of it, so it has it.
    fn answered(&mut self, slot: u32) {
        if self.slots[slot].flags.raise(flag::ANSWERED) {
            self.note_acknowledged(slot);
        }
    }

    fn handle_data(&mut self, id: SubchannelId, frame: Data, now: Instant) -> Result<(), Violation> {
        let Some(slot) = self.locate(id)? else { return Ok(()) };
        self.answered(slot);
        let Data { offset, mark, fin, mut data } = frame;
        let stream = &mut self.slots[slot];
        let received = stream.received;
        let units_end = offset + data.len() as u64 + u64::from(mark == Mark::End);
        let end = units_end + u64::from(fin);
        if offset > received {
            return Err(offset_error("the peer left units of a subchannel out"));
        }
        if stream.is_receive_done() && (end > received || fin && end < received)
            || !stream.is_receive_done() && fin && end <= received
        {
            return Err(offset_error("the peer sent units behind the end of a subchannel, or moved the end"));
        }
        if end <= received {
            // A repetition: the peer does not know yet that we have it.
            self.acknowledge_soon(slot, now);
            return Ok(());
        }
        if units_end > stream.granted {
            let text = format!("the peer sent more on subchannel {id} than it may");
            return Err(Violation::new(Violation::FLOW_CONTROL, text));
        }
        let new = units_end - received;
        if !stream.is_control() {
            self.credit.receive(new)?;
        }
        let known = usize::try_from(received - offset).unwrap_or(usize::MAX).min(data.len());
        data.advance(known);
        self.take_units(slot, new, data, mark, fin)?;
        if fin {
            self.finish(slot);
        }
        if fin {
            self.note_control(slot, flag::CREDIT_DUE);
        } else {
            self.acknowledge_soon(slot, now);
        }
        self.untold += new;
        if self.untold >= ACKNOWLEDGE_AT {
            self.acknowledge_all();
        }
        self.settle(slot);
        Ok(())
    }

    /// Units that are new: `data`, and the end of a message if it is marked so.
    fn take_units(
        &mut self,
        slot: u32,
        new: u64,
        data: Bytes,
        mark: Mark,
        fin: bool,
    ) -> Result<(), Violation> {
        let most = self.config.max_data as u64;
        if new > 0 && self.slots[slot].receive == ReceiveState::Open {
            let receive = &mut self.activate(slot).receive;
            if mark != Mark::Stream && receive.message_len(data.len()) > most {
                self.slots[slot].flags.set(flag::TOO_LONG);
                self.give_up_reading(slot, Code::MESSAGE);
            } else if !receive.add(data, mark) {
                return Err(unfinished_message());
            }
        }
        let stream = &mut self.slots[slot];
        stream.received += new;
        match (stream.receive, &mut stream.active) {
            (ReceiveState::Open, Some(active)) => {
                let receive = &mut active.receive;
                if fin && receive.is_in_message() {
                    return Err(unfinished_message());
                }
                if receive.waits_for_message && receive.is_front_incomplete() {
                    self.assemble(slot);
                } else {
                    self.note_readable(slot);
                }
            }
            (ReceiveState::Stopping, Some(active)) => {
                active.receive.consumed += new;
                self.consumed(slot, new);
            }
            _ => {}
        }
        Ok(())
    }

    /// The peer has ended its direction.
    fn finish(&mut self, slot: u32) {
        let stream = &mut self.slots[slot];
        let stopping = stream.receive == ReceiveState::Stopping;
        stream.received += 1;
        stream.receive = if stopping { ReceiveState::Reset } else { ReceiveState::Finished };
        self.note_readable(slot);
    }

    /// CREDIT goes with whatever is sent next, or by itself a little later.
    fn acknowledge_soon(&mut self, slot: u32, now: Instant) {
        let stream = &mut self.slots[slot];
        if !stream.flags.has(flag::CREDIT_DUE | flag::LATER) && stream.flags.has(flag::ROUTED) {
            stream.flags.set(flag::LATER);
            self.later.push_back(slot);
            self.acknowledge_at.get_or_insert(now + ACKNOWLEDGE_WITHIN);
        }
    }

    fn handle_open(
        &mut self,
        id: SubchannelId,
        limit: u64,
        priority: u8,
        name: &Name,
        now: Instant,
    ) -> Result<(), Violation> {
        if self.is_own(id) || id.0 == 0 {
            let text = format!("the peer opened subchannel {id}, which is not its to open");
            return Err(Violation::new(Violation::STATE, text));
        }
        if let Some(slot) = self.routes.get(id) {
            self.note_control(slot, flag::CREDIT_DUE);
            return Ok(());
        }
        if self.was_opened(id) {
            return self.refuse(id, Code::GONE, now);
        }
        if self.next_peer != Some(id) {
            let text = format!("the peer opened subchannel {id} before those with lower numbers");
            return Err(Violation::new(Violation::STATE, text));
        }
        if self.opened.peer >= self.opened.peer_granted {
            return Err(Violation::new(
                Violation::SUBCHANNELS,
                "the peer opened more subchannels than it may",
            ));
        }
        self.next_peer = id.next();
        self.opened.peer += 1;
        let name = match self.names.admit(name, self.config.pending_opens) {
            Ok(name) => name,
            Err(unwanted) => {
                self.peer_gone();
                let code = match unwanted {
                    Unwanted::Unexpected => Code::UNEXPECTED,
                    Unwanted::Busy => Code::BUSY,
                };
                return self.refuse(id, code, now);
            }
        };
        let key = self.insert(id, name.clone(), flag::ANSWERED | flag::WAITING);
        let granted = self.config.params().subchannel_credit;
        let slot = super::index(key);
        let stream = &mut self.slots[slot];
        stream.send_limit = limit;
        stream.granted = granted;
        stream.priority = priority;
        self.note_control(slot, flag::CREDIT_DUE);
        if self.names.push(&name, key) {
            self.events.push_back(Event::Incoming(name));
        }
        Ok(())
    }

    /// Nothing is remembered of it: what comes for it is ignored like everything for a subchannel that is gone.
    fn refuse(&mut self, id: SubchannelId, code: Code, now: Instant) -> Result<(), Violation> {
        self.refusals_left.count(now)?;
        self.refusals.push_back((id, code.0));
        Ok(())
    }

    fn handle_reset(
        &mut self,
        id: SubchannelId,
        code: Code,
        end: u64,
        now: Instant,
    ) -> Result<(), Violation> {
        let Some(slot) = self.locate(id)? else { return Ok(()) };
        self.answered(slot);
        let stream = &mut self.slots[slot];
        let received = stream.received;
        if stream.is_receive_done() {
            if end + 1 != received {
                return Err(offset_error("the peer moved the end of a subchannel"));
            }
            self.note_control(slot, flag::CREDIT_DUE);
            return Ok(());
        }
        if end < received {
            return Err(offset_error("the peer gave a subchannel up before what it had sent"));
        }
        if end > stream.granted {
            let text = format!("the peer sent more on subchannel {id} than it may");
            return Err(Violation::new(Violation::FLOW_CONTROL, text));
        }
        if !stream.is_control() {
            self.credit.receive(end - received)?;
        }
        if stream.flags.has(flag::WAITING) {
            self.refusals_left.count(now)?;
        }
        self.activate(slot).codes.peer_reset = code.0;
        let stream = &mut self.slots[slot];
        stream.flags.set(flag::CODES);
        // Everything up to the end counts as consumed.
        stream.received = end;
        self.discard_received(slot);
        let stream = &mut self.slots[slot];
        stream.received = end + 1;
        stream.receive = ReceiveState::Reset;
        self.note_control(slot, flag::CREDIT_DUE);
        self.note_readable(slot);
        self.settle(slot);
        Ok(())
    }

    fn handle_stop(&mut self, id: SubchannelId, code: Code) -> Result<(), Violation> {
        let Some(slot) = self.locate(id)? else { return Ok(()) };
        self.answered(slot);
        if matches!(self.slots[slot].send, SendState::Open | SendState::Ending) {
            self.slots[slot].flags.set(flag::STOPPED);
            self.activate(slot).codes.peer_stop = code.0;
            self.give_up_writing(slot, code);
            self.settle(slot);
            self.reopen_outbox();
        }
        Ok(())
    }

    fn handle_refuse(&mut self, id: SubchannelId, code: Code) -> Result<(), Violation> {
        if !self.is_own(id) || id.0 == 0 {
            let text = format!("the peer refused subchannel {id}, which it has opened itself");
            return Err(Violation::new(Violation::STATE, text));
        }
        let Some(slot) = self.locate(id)? else { return Ok(()) };
        // A late answer to a repeated OPEN says nothing new.
        if self.slots[slot].flags.has(flag::ANSWERED) {
            return Ok(());
        }
        self.activate(slot).codes.peer_reset = code.0;
        let stream = &mut self.slots[slot];
        stream.flags.set(flag::REFUSED | flag::CODES | flag::ANSWERED);
        let sent = stream.written.min(stream.sent_max());
        self.credit.sent = self.credit.sent.saturating_sub(sent);
        self.forget(slot);
        Ok(())
    }

    /// The peer does not have the subchannel any more, so neither direction goes on.
    pub(super) fn forget(&mut self, slot: u32) {
        self.unfly(slot);
        let stream = &mut self.slots[slot];
        stream.send = SendState::Done;
        if !stream.is_receive_done() {
            stream.received += 1;
            stream.receive = ReceiveState::Reset;
        }
        stream.flags.clear(
            flag::ROUTED | flag::READY | flag::CONTROL | flag::CREDIT_DUE | flag::LATER | flag::OPEN_DUE,
        );
        self.routes.remove(stream.id);
        if let Some(active) = &mut stream.active {
            active.send.discard();
            let datagrams = std::mem::take(&mut active.datagrams.out);
            self.datagram_bytes -= datagrams.iter().map(Bytes::len).sum::<usize>();
        }
        let key = super::key(slot, &self.slots[slot]);
        self.events.push_back(Event::Writable(key));
        self.note_readable(slot);
        self.note_acknowledged(slot);
        self.settle(slot);
        self.reopen_outbox();
    }

    fn handle_datagram(&mut self, id: SubchannelId, data: &Bytes) -> Result<(), Violation> {
        if data.len() as u64 > self.config.params().datagram {
            let text = format!("the peer sent a datagram of {} bytes, which is more than it may", data.len());
            return Err(Violation::new(Violation::DATAGRAM, text));
        }
        if let Some(slot) = self.locate(id)? {
            self.take_datagram(slot, data);
        }
        Ok(())
    }

    /// Takes CREDIT, or an entry of RESUME. Returns the slot, if the subchannel lives.
    pub(super) fn handle_credit(&mut self, credit: Received) -> Result<Option<u32>, Violation> {
        let Some(slot) = self.locate(credit.id)? else { return Ok(None) };
        self.answered(slot);
        let stream = &mut self.slots[slot];
        stream.send_limit = stream.send_limit.max(credit.limit);
        let news = credit.received > stream.acked && stream.send != SendState::Done;
        if news {
            self.acknowledge(slot, credit.received)?;
        }
        self.note_ready(slot);
        self.credit_came(slot);
        self.settle(slot);
        if news {
            self.reopen_outbox();
        }
        // It may have been freed, if this was the last that it waited for.
        Ok(self.slots.get(slot).map(|_| slot))
    }

    fn acknowledge(&mut self, slot: u32, received: u64) -> Result<(), Violation> {
        let stream = &mut self.slots[slot];
        if received > stream.sent_max() {
            return Err(offset_error("the peer acknowledged what was never sent"));
        }
        let (acked, cursor) = (stream.acked, stream.cursor());
        let active = stream.active.as_mut().expect("what is not acknowledged is kept here");
        let over = received > stream.written;
        self.in_flight -= cursor - acked;
        match stream.send {
            SendState::Resetting => {
                // What was given up is not acknowledged by the end.
                stream.acked = if over { acked } else { received };
                active.send.rewind(stream.acked.max(if over { 0 } else { cursor }));
            }
            _ => {
                let data = received.min(stream.written);
                stream.bytes_acked += active.send.acknowledge(acked, data);
                stream.acked = received;
                if over {
                    active.send.rewind(received);
                }
            }
        }
        if over {
            stream.send = SendState::Done;
        }
        self.in_flight += stream.cursor() - stream.acked;
        self.acknowledged += received - acked;
        self.note_acknowledged(slot);
        Ok(())
    }
}

fn offset_error(text: &'static str) -> Violation {
    Violation::new(Violation::OFFSET, text)
}

fn unfinished_message() -> Violation {
    Violation::new(Violation::FRAME, "the peer began a message and did not end it before it went on")
}
