//! One subchannel.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{receive::ReceiveQueue, send::SendQueue};
use crate::{frame::Code, id::SubchannelId, record::Name};

/// Many yes-or-no properties in little room.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags(u32);

impl Flags {
    pub(super) fn has(self, flags: u32) -> bool {
        self.0 & flags != 0
    }

    pub(super) fn set(&mut self, flags: u32) {
        self.0 |= flags;
    }

    pub(super) fn clear(&mut self, flags: u32) {
        self.0 &= !flags;
    }

    /// Sets; returns whether it was clear.
    pub(super) fn raise(&mut self, flags: u32) -> bool {
        let clear = !self.has(flags);
        self.set(flags);
        clear
    }

    /// Clears; returns whether it was set.
    pub(super) fn take(&mut self, flags: u32) -> bool {
        let set = self.has(flags);
        self.clear(flags);
        set
    }
}

pub(super) mod flag {
    /// In the round robin.
    pub(in super::super) const READY: u32 = 1 << 0;
    /// In the queue of those who have a CREDIT, RESET or STOP to send.
    pub(in super::super) const CONTROL: u32 = 1 << 1;
    /// CREDIT is to be sent at once.
    pub(in super::super) const CREDIT_DUE: u32 = 1 << 2;
    /// CREDIT is to be sent soon.
    pub(in super::super) const LATER: u32 = 1 << 3;
    pub(in super::super) const RESET_DUE: u32 = 1 << 4;
    pub(in super::super) const STOP_DUE: u32 = 1 << 5;
    /// In the queue of OPENs.
    pub(in super::super) const OPEN_DUE: u32 = 1 << 6;
    /// We opened it.
    pub(in super::super) const MINE: u32 = 1 << 7;
    /// OPEN was sent on some link.
    pub(in super::super) const OPEN_SENT: u32 = 1 << 8;
    /// The peer has it.
    pub(in super::super) const ANSWERED: u32 = 1 << 9;
    /// Frames lead to it: the protocol has not forgotten it.
    pub(in super::super) const ROUTED: u32 = 1 << 10;
    /// It waits to be accepted.
    pub(in super::super) const WAITING: u32 = 1 << 11;
    /// The peer refused it.
    pub(in super::super) const REFUSED: u32 = 1 << 12;
    /// The peer's STOP has come.
    pub(in super::super) const STOPPED: u32 = 1 << 13;
    /// The application gave up writing.
    pub(in super::super) const GAVE_UP: u32 = 1 << 14;
    /// A message was too long.
    pub(in super::super) const TOO_LONG: u32 = 1 << 15;
    /// The application dropped its reading half.
    pub(in super::super) const READ_RELEASED: u32 = 1 << 16;
    /// The application dropped its writing half.
    pub(in super::super) const WRITE_RELEASED: u32 = 1 << 17;
    /// An event that tells of data is queued.
    pub(in super::super) const READ_EVENT: u32 = 1 << 18;
    /// An event that tells of acknowledgement is queued.
    pub(in super::super) const ACK_EVENT: u32 = 1 << 19;
    /// A writer waits until less is unsent.
    pub(in super::super) const WAITS_FOR_QUEUE: u32 = 1 << 20;
    /// A writer waits for the outbox and is in the list of those.
    pub(in super::super) const WAITS_FOR_OUTBOX: u32 = 1 << 21;
    /// It was told that the outbox has room for it, and its writer has not come.
    pub(in super::super) const CALLED: u32 = 1 << 27;
    /// A writer waits for the peer's credit.
    pub(in super::super) const WAITS_FOR_CREDIT: u32 = 1 << 28;
    /// The peer has not acknowledged everything.
    pub(in super::super) const OUTSTANDING: u32 = 1 << 22;
    /// The peer's RESUME has it.
    pub(in super::super) const LISTED: u32 = 1 << 23;
    /// `Active::codes` are in use.
    pub(in super::super) const CODES: u32 = 1 << 24;
    /// We gave up reading.
    pub(in super::super) const STOPPED_READING: u32 = 1 << 26;
    /// Its window has grown, and it is in the list of those.
    pub(in super::super) const GROWN: u32 = 1 << 25;
}

/// Our direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendState {
    Open,
    /// The application has ended it.
    Ending,
    /// It is given up.
    Resetting,
    /// The peer has it all.
    Done,
}

/// The peer's direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReceiveState {
    Open,
    /// The application has given it up, the peer has not answered.
    Stopping,
    /// The peer has ended it.
    Finished,
    /// The peer has given it up, or we discarded it to its end.
    Reset,
}

/// A subchannel. Small, because most are idle: what moves is in `active`.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: SubchannelId,
    /// Guards a slot against keys of its earlier tenants.
    pub(super) generation: u32,
    pub(super) name: Name,
    /// Units written, the end not counted.
    pub(super) written: u64,
    /// Units that the peer has, the end counted unless the direction was given up.
    pub(super) acked: u64,
    /// Bytes that the peer has.
    pub(super) bytes_acked: u64,
    /// The offset up to which we may send.
    pub(super) send_limit: u64,
    /// Units received, the end counted.
    pub(super) received: u64,
    /// The offset up to which we have allowed the peer to send.
    pub(super) granted: u64,
    pub(super) active: Option<Box<Active>>,
    /// The window's measurement: low bits of the offset consumed, and microseconds, when it began.
    pub(super) measured_from: u32,
    pub(super) measured_at: u32,
    pub(super) flags: Flags,
    pub(super) priority: u8,
    /// The window is the small one times 4 to the power of this.
    pub(super) window: u8,
    pub(super) send: SendState,
    pub(super) receive: ReceiveState,
}

/// The part of a subchannel that it needs while something waits in it.
#[derive(Debug, Default)]
pub(super) struct Active {
    pub(super) send: SendQueue,
    pub(super) receive: ReceiveQueue,
    pub(super) datagrams: Datagrams,
    pub(super) codes: Codes,
}

/// Datagrams that wait, in both directions.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    pub(super) out: VecDeque<Bytes>,
    pub(super) received: VecDeque<Bytes>,
}

/// Why things were given up. Valid when the state or a flag says so.
#[derive(Debug, Default)]
pub(super) struct Codes {
    /// Of our RESET.
    pub(super) reset: u64,
    /// Of our STOP.
    pub(super) stop: u64,
    /// Of the peer's RESET or REFUSE.
    pub(super) peer_reset: u64,
    /// Of the peer's STOP.
    pub(super) peer_stop: u64,
}

impl Stream {
    pub(super) fn new(id: SubchannelId, name: Name, generation: u32, flags: u32) -> Self {
        let mut stream = Stream {
            id,
            generation,
            name,
            written: 0,
            acked: 0,
            bytes_acked: 0,
            send_limit: 0,
            received: 0,
            granted: 0,
            active: None,
            measured_from: 0,
            measured_at: 0,
            flags: Flags::default(),
            priority: super::schedule::DEFAULT_PRIORITY,
            window: 0,
            send: SendState::Open,
            receive: ReceiveState::Open,
        };
        stream.flags.set(flags | flag::ROUTED);
        stream
    }

    pub(super) fn is_control(&self) -> bool {
        self.id.0 == 0
    }

    /// The next unit to send on this link.
    pub(super) fn cursor(&self) -> u64 {
        self.active.as_ref().map_or(self.acked, |active| active.send.unit)
    }

    /// The greatest unit that was ever sent.
    pub(super) fn sent_max(&self) -> u64 {
        self.active.as_ref().map_or(self.acked, |active| active.send.sent_max)
    }

    /// Units written and never sent.
    pub(super) fn unsent(&self) -> u64 {
        self.written.saturating_sub(self.sent_max())
    }

    /// Units that may be written and sent before the peer gives more credit.
    pub(super) fn credit(&self) -> u64 {
        self.send_limit.saturating_sub(self.written)
    }

    /// Units received that are data: all but the end.
    pub(super) fn data_received(&self) -> u64 {
        match self.receive {
            ReceiveState::Finished | ReceiveState::Reset => self.received.saturating_sub(1),
            ReceiveState::Open | ReceiveState::Stopping => self.received,
        }
    }

    pub(super) fn consumed(&self) -> u64 {
        self.active.as_ref().map_or_else(|| self.data_received(), |active| active.receive.consumed)
    }

    /// Whether the peer has given or taken back everything that it will.
    pub(super) fn is_receive_done(&self) -> bool {
        matches!(self.receive, ReceiveState::Finished | ReceiveState::Reset)
    }

    /// Whether there is something for the round robin. It may still have to wait for the link's credit.
    pub(super) fn has_data(&self) -> bool {
        let cursor = self.cursor();
        let sendable = match self.send {
            SendState::Open => cursor < self.written && cursor < self.send_limit,
            SendState::Ending if cursor < self.written => cursor < self.send_limit,
            SendState::Ending => cursor == self.written,
            SendState::Resetting | SendState::Done => false,
        };
        sendable || self.active.as_ref().is_some_and(|active| !active.datagrams.out.is_empty())
    }

    /// Whether `active` is there and not needed.
    pub(super) fn is_idle(&self) -> bool {
        let Some(active) = &self.active else { return false };
        let sent = match self.send {
            SendState::Open => self.acked == self.written && active.send.unit == self.acked,
            SendState::Done => true,
            SendState::Ending | SendState::Resetting => false,
        };
        sent && !self.flags.has(flag::CODES)
            && active.receive.consumed == self.data_received()
            && active.receive.is_idle()
            && active.datagrams.out.is_empty()
            && active.datagrams.received.is_empty()
    }

    fn codes(&self) -> Option<&Codes> {
        self.active.as_ref().map(|active| &active.codes)
    }

    /// The code of the peer's RESET or REFUSE.
    pub(super) fn peer_reset(&self) -> Code {
        Code(self.codes().map_or(0, |codes| codes.peer_reset))
    }

    /// The code of the peer's STOP.
    pub(super) fn peer_stop(&self) -> Code {
        Code(self.codes().map_or(0, |codes| codes.peer_stop))
    }

    /// Its level in the schedule.
    pub(super) fn level(&self) -> usize {
        super::schedule::level(self.is_control(), self.priority)
    }

    /// Whether the peer still has to say that it has something.
    pub(super) fn is_outstanding(&self) -> bool {
        self.flags.has(flag::ROUTED)
            && (self.flags.has(flag::MINE) && !self.flags.has(flag::ANSWERED)
                || match self.send {
                    SendState::Open => self.acked < self.written,
                    SendState::Ending | SendState::Resetting => true,
                    SendState::Done => false,
                })
    }
}

impl Active {
    /// Makes it fit for another subchannel, without what was large.
    pub(super) fn recycle(&mut self) {
        self.send.discard();
        self.send.begin(0);
        self.send.charged = 0;
        self.receive.discard(0);
        self.receive.charged = 0;
        self.datagrams = Datagrams::default();
        self.codes = Codes::default();
    }
}
