//! What a subchannel costs, and what follows when anything in it has changed.

use super::{
    Mux,
    credit::{USUAL_WINDOW, window_size},
    stream::{Active, ReceiveState, SendState, Stream, flag},
};
use crate::frame::Received;

/// Parts of subchannels that are kept for the next that needs one.
pub(super) const POOL: usize = 32;

impl Mux {
    /// The active part of a subchannel, which is made if there is none.
    pub(super) fn activate(&mut self, slot: u32) -> &mut Active {
        let (acked, received) = (self.slots[slot].acked, self.slots[slot].data_received());
        self.slots[slot].active.get_or_insert_with(|| {
            let mut active = self.pool.pop().unwrap_or_default();
            active.send.begin(acked);
            active.receive.consumed = received;
            active
        })
    }

    /// Brings the accounts of a subchannel up to date after its queues have changed.
    pub(super) fn recharge(&mut self, slot: u32) {
        let stream = &mut self.slots[slot];
        let unread = stream.data_received() - stream.consumed();
        let unacknowledged =
            if self.ended.is_some() { 0 } else { stream.written.saturating_sub(stream.acked) };
        let Some(active) = &mut stream.active else { return };
        let to = active.receive.cost(unread);
        self.receive_bytes = self.receive_bytes + to - active.receive.charged;
        active.receive.charged = to;
        let to = match stream.send {
            SendState::Open | SendState::Ending => active.send.cost(unacknowledged),
            SendState::Resetting | SendState::Done => 0,
        };
        self.outbox.recharge(active.send.charged, to);
        active.send.charged = to;
    }

    /// Draws the conclusions after anything has changed: whether the peer still owes an answer, whether the protocol
    /// can forget it, whether what it holds is needed, whether anybody knows it. May free the slot.
    pub(super) fn settle(&mut self, slot: u32) {
        self.recharge(slot);
        if self.slots[slot].send != SendState::Open {
            self.forget_writer(slot);
        }
        let ended = self.ended.is_some();
        let stream = &mut self.slots[slot];
        let owed = stream.flags.has(flag::CREDIT_DUE | flag::LATER | flag::CONTROL);
        if stream.flags.has(flag::ROUTED)
            && stream.send == SendState::Done
            && stream.is_receive_done()
            && !owed
            && stream.flags.has(flag::ANSWERED)
        {
            stream.flags.clear(flag::ROUTED);
            self.routes.remove(stream.id);
        }
        let outstanding = !ended && stream.is_outstanding();
        if outstanding != stream.flags.has(flag::OUTSTANDING) {
            if outstanding {
                stream.flags.set(flag::OUTSTANDING);
                self.outstanding += 1;
            } else {
                stream.flags.clear(flag::OUTSTANDING);
                // After the end the count was set to nothing.
                self.outstanding = self.outstanding.saturating_sub(1);
            }
        }
        let released = stream.flags.has(flag::READ_RELEASED) && stream.flags.has(flag::WRITE_RELEASED);
        if released && !stream.flags.has(flag::ROUTED) {
            self.reap(slot);
        } else if stream.is_idle() {
            let active = stream.active.take();
            self.recycle(active);
        }
    }

    pub(super) fn recycle(&mut self, active: Option<Box<Active>>) {
        if let Some(mut active) = active
            && self.pool.len() < POOL
        {
            active.recycle();
            self.pool.push(active);
        }
    }

    /// Nobody knows the subchannel any more.
    pub(super) fn reap(&mut self, slot: u32) {
        self.shrink(slot);
        self.leave_assembly(slot);
        let Some(mut stream) = self.slots.remove(slot) else { return };
        if let Some(active) = &mut stream.active {
            self.receive_bytes -= active.receive.charged;
            self.outbox.recharge(active.send.charged, 0);
            let waiting: usize =
                active.datagrams.out.iter().chain(&active.datagrams.received).map(bytes::Bytes::len).sum();
            self.datagram_bytes -= waiting;
        }
        self.recycle(stream.active.take());
        if !stream.flags.has(flag::MINE) {
            self.peer_gone();
        } else if !stream.is_control() {
            self.opened.own_live -= 1;
            self.wake_openers();
        }
    }

    /// One of the peer's subchannels takes no place any more.
    pub(super) fn peer_gone(&mut self) {
        self.opened.peer_gone += 1;
        let most = self.config.max_subchannels as u64;
        let more = self.opened.peer_gone + most - self.opened.peer_granted;
        self.opened.due |= more >= most.div_ceil(4);
    }

    /// What the peer may send on a subchannel once its CREDIT is made now.
    pub(super) fn grant(&self, stream: &Stream) -> u64 {
        if stream.receive == ReceiveState::Open {
            let window = window_size(stream.window, self.config.max_window as u64);
            stream.granted.max(stream.consumed() + window)
        } else {
            stream.granted
        }
    }

    /// The window of a subchannel that the application has.
    pub(super) fn usual_window(&self) -> u8 {
        if self.credit.is_pressed() { 0 } else { USUAL_WINDOW }
    }

    /// Makes the CREDIT of a subchannel, which counts as said.
    pub(super) fn make_credit(&mut self, slot: u32) -> Received {
        let limit = self.grant(&self.slots[slot]);
        let stream = &mut self.slots[slot];
        stream.granted = limit;
        stream.flags.clear(flag::CREDIT_DUE | flag::LATER);
        Received { id: stream.id, received: stream.received, limit }
    }
}
