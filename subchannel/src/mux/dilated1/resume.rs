//! From one link to the next.

use std::time::Instant;

use super::{
    Link, Mux,
    stream::{ReceiveState, SendState, flag},
};
use crate::{
    frame::{Received, Violation},
    id::SubchannelId,
};

impl Mux {
    /// The list for our RESUME: what we have of every subchannel that lives. It counts as said. From now on nothing is
    /// given to transmit until [`handle_resume`](Mux::handle_resume), or for the first epoch
    /// [`link_up`](Mux::link_up), because what was sent on another link after the list would contradict it.
    pub fn resume(&mut self) -> Vec<Received> {
        self.link = Link::Down;
        self.flight.reset();
        let mut entries = Vec::with_capacity(self.slots.len());
        for slot in 0..self.slots.end() {
            let Some(stream) = self.slots.get(slot) else { continue };
            let known = stream.flags.has(flag::OPEN_SENT) || !stream.flags.has(flag::MINE);
            if stream.flags.has(flag::ROUTED) && known {
                entries.push(self.make_credit(slot));
            }
        }
        entries
    }

    /// Takes the whole list of the peer's RESUME. What it does not have is sent again, and the link is up.
    ///
    /// # Errors
    ///
    /// [`Violation`]: the wormhole must end with its code.
    pub fn handle_resume(&mut self, entries: Vec<Received>, now: Instant) -> Result<(), Violation> {
        if self.ended.is_some() {
            return Ok(());
        }
        self.resumes_left.count(now)?;
        self.epoch.get_or_insert(now);
        for entry in entries {
            // The OPEN of a subchannel of the peer may have been lost. It follows.
            let unseen = entry.id.0 != 0
                && !self.is_own(entry.id)
                && self.next_peer.is_some_and(|next| entry.id >= next);
            if !unseen && let Some(slot) = self.handle_credit(entry)? {
                self.slots[slot].flags.set(flag::LISTED);
            }
        }
        let first = std::mem::replace(&mut self.link, Link::Up) == Link::First;
        let mut opens = Vec::new();
        for slot in 0..self.slots.end() {
            let Some(stream) = self.slots.get_mut(slot) else { continue };
            let listed = stream.flags.take(flag::LISTED);
            // On the first link nothing can have been lost: what the list does not have is still under way.
            if stream.flags.has(flag::ROUTED) && !first {
                self.resume_stream(slot, listed, &mut opens);
            }
        }
        if !first {
            self.schedule.unpark();
            opens.sort_unstable();
            self.opens = opens.into();
        }
        self.credit.due = true;
        self.opened.due = true;
        Ok(())
    }

    fn resume_stream(&mut self, slot: u32, listed: bool, opens: &mut Vec<(SubchannelId, u32)>) {
        let stream = &self.slots[slot];
        let ended = matches!(stream.send, SendState::Ending | SendState::Resetting)
            && stream.sent_max() > stream.written
            || stream.send == SendState::Done;
        if !listed && stream.flags.has(flag::ANSWERED) && ended && stream.is_receive_done() {
            // It has everything, ours and its own, or it would not have forgotten it.
            self.count_all(slot);
            return;
        }
        self.unfly(slot);
        let stream = &mut self.slots[slot];
        if let Some(active) = &mut stream.active {
            let datagrams = std::mem::take(&mut active.datagrams.out);
            self.datagram_bytes -= datagrams.iter().map(bytes::Bytes::len).sum::<usize>();
        }
        let unanswered = stream.flags.has(flag::MINE) && !stream.flags.has(flag::ANSWERED);
        let (resetting, stopping) =
            (stream.send == SendState::Resetting, stream.receive == ReceiveState::Stopping);
        if unanswered {
            stream.flags.set(flag::OPEN_DUE);
            opens.push((stream.id, slot));
        }
        if resetting {
            self.note_control(slot, flag::RESET_DUE);
        }
        if stopping {
            self.note_control(slot, flag::STOP_DUE);
        }
        self.note_ready(slot);
        self.settle(slot);
    }

    /// The peer has finished with a subchannel whose end it has.
    fn count_all(&mut self, slot: u32) {
        self.unfly(slot);
        let stream = &mut self.slots[slot];
        if stream.send == SendState::Ending
            && let Some(active) = &mut stream.active
        {
            let from = stream.acked.min(stream.written);
            stream.bytes_acked += active.send.acknowledge(from, stream.written);
            self.acknowledged += stream.written + 1 - stream.acked;
            stream.acked = stream.written + 1;
            active.send.rewind(stream.acked);
        }
        self.forget(slot);
    }
}
