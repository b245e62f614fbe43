//! What is written and not acknowledged, for all subchannels, and who waits for room in it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{Link, Mux, key, stream::flag};
use crate::mux::{Event, StreamKey, gate::Gate};

/// Writers that were called and do not come are waited for so long. Whoever gave up waiting must not stop those behind.
const COME_WITHIN: Duration = Duration::from_millis(25);

/// Who was called and wants to write as much as `LARGE` may write so much before it waits again: to wake it costs the same for
/// little. In bytes.
const SHARE: usize = 128 << 10;
const LARGE: usize = 32 << 10;

/// What is kept free for a writer that wants to write so much.
fn share(wanted: usize) -> usize {
    if wanted < LARGE { wanted } else { wanted.max(SHARE) }
}

/// Bounds what is written and not acknowledged.
#[derive(Debug)]
pub(super) struct Outbox {
    gate: Gate,
    /// Writers that wait, and what each wants to write.
    line: VecDeque<(StreamKey, usize)>,
    /// Those who were called last, and how many of them have not come yet.
    called: Vec<StreamKey>,
    missing: usize,
    /// The one of them that came last, and how much it may still write though others wait.
    guest: Option<(StreamKey, usize)>,
    /// When they are no longer waited for.
    come_until: Option<Instant>,
    /// Writers that wait for the peer's credit, because what it gave none for has its part of the room already.
    without_credit: usize,
}

impl Outbox {
    pub(super) fn new(limit: usize) -> Self {
        Outbox {
            gate: Gate::new(limit),
            line: VecDeque::new(),
            called: Vec::new(),
            missing: 0,
            guest: None,
            come_until: None,
            without_credit: 0,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.gate.bytes()
    }

    /// Whether someone waits for room.
    pub(super) fn is_awaited(&self) -> bool {
        self.gate.is_closed() || self.without_credit > 0
    }

    /// How many stand in line for room.
    pub(super) fn waiting(&self) -> usize {
        self.line.len()
    }

    /// When to [recall](Mux::recall_writers) those who wait.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.come_until
    }

    /// Whether that time has still to be set.
    pub(super) fn wants_timeout(&self) -> bool {
        self.missing > 0 && self.come_until.is_none()
    }

    /// A cost has become another.
    pub(super) fn recharge(&mut self, from: usize, to: usize) {
        self.gate.recharge(from, to);
    }

    pub(super) fn clear(&mut self) {
        *self = Outbox::new(self.gate.limit());
    }
}

impl Mux {
    /// Room for what the peer has given no credit for. On a link not much less than half of all, so that half can become
    /// free whatever the peer reads; without one there is nobody whom it could stop.
    fn room_without_credit(&self) -> usize {
        let limit = self.outbox.gate.limit();
        let most = if self.link == Link::Down { limit } else { limit / 8 * 3 };
        most.saturating_sub(self.outbox.gate.bytes())
    }

    /// How many of `wanted` bytes of a stream may be written. `None` if it has to wait; then an event tells when to ask again.
    pub(super) fn outbox_room(&mut self, slot: u32, wanted: usize) -> Option<usize> {
        let called = self.comes(slot);
        let pass = self.pass(slot, called, wanted);
        // What the peer gave no credit for could fill the outbox and stop all others, so it gets a part only.
        let credit = usize::try_from(self.slots[slot].credit()).unwrap_or(usize::MAX);
        let can_leave = credit.max(self.room_without_credit());
        let room = if can_leave == 0 { 0 } else { self.outbox.gate.room(0, pass > 0) };
        let most = if self.outbox.gate.is_closed() { pass } else { wanted };
        let room = room.min(can_leave).min(most).min(wanted);
        self.use_pass(slot, room);
        self.admitted(slot, room > 0, called, wanted).then_some(room)
    }

    /// Whether a message may be written. If not, an event tells when to ask again.
    pub(super) fn outbox_admits(&mut self, slot: u32, len: usize) -> bool {
        let called = self.comes(slot);
        let pass = self.pass(slot, called, len);
        let can_leave = self.slots[slot].credit() > 0 || self.room_without_credit() > 0;
        let admits = can_leave && self.outbox.gate.admits(len, called || (1..=pass).contains(&len));
        if admits {
            self.use_pass(slot, len);
        }
        self.admitted(slot, admits, called, len)
    }

    /// How much a writer may write though others wait: its share if it was just `called`, or what it has left of that.
    fn pass(&mut self, slot: u32, called: bool, wanted: usize) -> usize {
        let key = key(slot, &self.slots[slot]);
        if called {
            self.outbox.guest = Some((key, share(wanted)));
        }
        self.outbox.guest.filter(|(guest, _)| *guest == key).map_or(0, |(_, left)| left)
    }

    /// It has written so much.
    fn use_pass(&mut self, slot: u32, bytes: usize) {
        let key = key(slot, &self.slots[slot]);
        if let Some((guest, left)) = &mut self.outbox.guest
            && *guest == key
        {
            *left = left.saturating_sub(bytes);
        }
    }

    /// Who is not admitted stands in line, or waits for the peer's credit. Returns whether it is admitted.
    fn admitted(&mut self, slot: u32, admitted: bool, called: bool, wanted: usize) -> bool {
        let can_leave = self.slots[slot].credit() > 0 || self.room_without_credit() > 0;
        let stream = &mut self.slots[slot];
        if admitted {
            self.stop_waiting_for_credit(slot);
        } else if !can_leave {
            self.outbox.without_credit += usize::from(stream.flags.raise(flag::WAITS_FOR_CREDIT));
        } else if stream.flags.raise(flag::WAITS_FOR_OUTBOX) {
            self.outbox.line.push_back((key(slot, stream), wanted));
        }
        if called && !admitted {
            // The room that it was called for is for those behind it.
            self.reopen_outbox();
        }
        admitted
    }

    /// The peer gave a subchannel credit: a writer that waits for it may try again.
    pub(super) fn credit_came(&mut self, slot: u32) {
        if self.slots[slot].credit() > 0 && self.stop_waiting_for_credit(slot) {
            self.events.push_back(Event::Writable(key(slot, &self.slots[slot])));
        }
    }

    /// Returns whether it did wait.
    fn stop_waiting_for_credit(&mut self, slot: u32) -> bool {
        let waited = self.slots[slot].flags.take(flag::WAITS_FOR_CREDIT);
        self.outbox.without_credit -= usize::from(waited);
        waited
    }

    /// A writer is here. Returns whether it was called.
    fn comes(&mut self, slot: u32) -> bool {
        let called = self.slots[slot].flags.take(flag::CALLED);
        if called {
            self.outbox.missing -= 1;
            if self.outbox.missing == 0 {
                self.outbox.called.clear();
                self.outbox.come_until = None;
            }
        }
        called
    }

    /// Nobody writes to this one any more.
    pub(super) fn forget_writer(&mut self, slot: u32) {
        self.stop_waiting_for_credit(slot);
        self.pass_by(slot);
    }

    /// If this writer was called, it will not write: others may.
    pub(super) fn pass_by(&mut self, slot: u32) {
        if self.comes(slot) {
            self.reopen_outbox();
        }
    }

    /// Once half of the outbox is free and those who were called are through, calls as many of those who wait as there is
    /// room for. To call all of many for the room of a few would cost more than what they write.
    pub(super) fn reopen_outbox(&mut self) {
        let outbox = &self.outbox;
        if !outbox.gate.is_due() || outbox.missing > 0 {
            return;
        }
        let mut room = outbox.gate.unused();
        while room > 0
            && let Some((key, wanted)) = self.outbox.line.pop_front()
        {
            let Some(stream) = self.get_mut(key) else { continue };
            stream.flags.clear(flag::WAITS_FOR_OUTBOX);
            stream.flags.set(flag::CALLED);
            self.events.push_back(Event::Writable(key));
            self.outbox.called.push(key);
            self.outbox.missing += 1;
            room = room.saturating_sub(share(wanted));
        }
        if self.outbox.line.is_empty() {
            self.open_gate();
        } else if self.link == Link::Down {
            self.abandon_call();
        }
    }

    /// There is no link, so that nobody looks at the clock.
    pub(super) fn abandon_call(&mut self) {
        if self.outbox.missing > 0 {
            self.open_gate();
        }
    }

    /// Does not wait any longer for those who were called and do not come.
    pub(super) fn recall_writers(&mut self, now: Instant) {
        if self.outbox.missing > 0 && now >= *self.outbox.come_until.get_or_insert(now + COME_WITHIN) {
            self.open_gate();
        }
    }

    /// Calls everybody who waits, and does not wait for anybody.
    fn open_gate(&mut self) {
        self.outbox.gate.open();
        (self.outbox.missing, self.outbox.come_until, self.outbox.guest) = (0, None, None);
        for key in std::mem::take(&mut self.outbox.called) {
            if let Some(stream) = self.get_mut(key) {
                stream.flags.clear(flag::CALLED);
            }
        }
        for (key, _) in std::mem::take(&mut self.outbox.line) {
            if let Some(stream) = self.get_mut(key) {
                stream.flags.clear(flag::WAITS_FOR_OUTBOX);
                self.events.push_back(Event::Writable(key));
            }
        }
    }
}
