//! The multiplexer of the dialect `dilated-1`: see `docs/protocol.md`, from "Offsets" on.
//!
//! Sans-IO like that of `ged`, with the same verbs. Cut by what happens:
//!
//! * `verbs`, `write`, `read`: what the application may do;
//! * `inbound`, `resume`: what the peer says;
//! * `transmit`: what goes onto the link, and in which order;
//! * `stream`, `send`, `receive` on `rope` and `segments`: one subchannel;
//! * `slots`, `schedule`, `credit`, `outbox`, `flight`: all of them; `account` keeps the sums.
//!
//! Nothing takes longer the more subchannels there are, but `resume`, `handle_resume` and `fail`.

mod account;
mod batch;
mod credit;
mod flight;
mod inbound;
mod outbox;
mod params;
mod read;
mod receive;
mod resume;
mod rope;
mod schedule;
mod segments;
mod send;
mod slots;
mod stream;
#[cfg(test)]
mod tests;
mod transmit;
mod verbs;
mod write;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

pub use self::{batch::Batch, params::Params};
use self::{
    credit::{Allowance, LinkCredit},
    flight::Flight,
    outbox::Outbox,
    schedule::{BRIEF, Schedule},
    slots::{Routes, Slots},
    stream::{Active, Stream, flag},
};
use super::{EndReason, Event, MuxConfig, Names, Progress, StreamKey, Usage};
pub use crate::frame::Violation;
use crate::{
    id::{Parity, SubchannelId},
    record::Name,
};

/// The name that [`Mux::describe`] gives to the control channel.
const CONTROL_NAME: &str = "control";

/// Whether frames may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// There is none, or the peer's RESUME has not come.
    Down,
    /// The first of all: nothing was sent before, so there is nothing to wait for.
    First,
    Up,
}

/// One side of the subchannels of a wormhole.
///
/// Order of calls, by the driver that owns the links:
///
/// 1. for epoch 1 [`resume`](Mux::resume) and [`link_up`](Mux::link_up): from then on
///    [`poll_transmit`](Mux::poll_transmit) gives records;
/// 2. [`handle_frame`](Mux::handle_frame) for each frame that concerns subchannels, from whichever link;
/// 3. when another link is activated [`resume`](Mux::resume), whose list goes into RESUME. That holds back everything
///    else until [`handle_resume`](Mux::handle_resume) was given the peer's list;
/// 4. [`link_down`](Mux::link_down) when the active link is lost, then again from 3;
/// 5. [`fail`](Mux::fail) at the end.
///
/// The application's verbs may be called at any time. After each of these calls drain
/// [`poll_event`](Mux::poll_event). Verbs that return [`Poll::Pending`](std::task::Poll) did nothing; an event says
/// when to repeat them.
#[derive(Debug)]
pub struct Mux {
    config: MuxConfig,
    peer: Params,
    parity: Parity,
    ended: Option<EndReason>,
    link: Link,
    slots: Slots,
    routes: Routes,
    generation: u32,
    /// The next number of each side; `None` when all are used.
    next_own: Option<SubchannelId>,
    next_peer: Option<SubchannelId>,
    opened: Opened,
    /// Subchannels whose OPEN is to be sent, in the order of their numbers, and their slots. One that was refused
    /// meanwhile may have left its slot to another, whose turn it is not.
    opens: VecDeque<(SubchannelId, u32)>,
    /// Slots that have CREDIT, RESET or STOP to send.
    controls: VecDeque<u32>,
    refusals: VecDeque<(SubchannelId, u64)>,
    /// Slots whose CREDIT can wait until `acknowledge_at`.
    later: VecDeque<u32>,
    acknowledge_at: Option<Instant>,
    schedule: Schedule,
    credit: LinkCredit,
    outbox: Outbox,
    /// Someone waits to open.
    openers_wait: bool,
    names: Names,
    events: VecDeque<Event>,
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    pool: Vec<Box<Active>>,
    /// Subchannels of which the peer has not acknowledged everything.
    outstanding: usize,
    /// Units sent on this link and not acknowledged, and units acknowledged ever.
    in_flight: u64,
    acknowledged: u64,
    flight: Flight,
    /// Units received since all subchannels were acknowledged.
    untold: u64,
    /// Memory of what is received and not read.
    receive_bytes: usize,
    /// The part of it that is datagrams, and those that wait to be sent.
    datagram_bytes: usize,
    /// How many more may assemble a long message, and who waits for that.
    assemblers: usize,
    assembly_line: VecDeque<StreamKey>,
    /// Those whose window has grown, and by how much in all.
    grown: Vec<StreamKey>,
    grown_bytes: u64,
    round_trip: Duration,
    /// Where `Stream::measured_at` counts from.
    epoch: Option<Instant>,
    refusals_left: Allowance,
    resumes_left: Allowance,
    control: Option<StreamKey>,
}

/// Counts of OPEN, for the life of the wormhole.
#[derive(Debug)]
struct Opened {
    /// Ours, and how many the peer allows.
    own: u64,
    own_limit: u64,
    /// Ours that have a slot.
    own_live: usize,
    /// The peer's, how many of them are gone, and how many we have allowed.
    peer: u64,
    peer_gone: u64,
    peer_granted: u64,
    /// MAX_SUBCHANNELS is to be sent.
    due: bool,
}

impl Mux {
    /// The mux of a side whose peer said `peer` of itself; the Leader is odd. `names` may be listened for already.
    pub fn new(config: MuxConfig, parity: Parity, peer: Params, names: Names) -> Mux {
        let config = config.clamped();
        let own = config.params();
        let first = u64::from(parity.first().0) + 2 * u64::from(config.ids_used);
        let mut mux = Mux {
            ended: None,
            link: Link::Down,
            slots: Slots::default(),
            routes: Routes::default(),
            generation: 0,
            next_own: u32::try_from(first).ok().map(SubchannelId),
            next_peer: Some(parity.peer().first()),
            opened: Opened {
                own: 0,
                own_limit: peer.subchannels,
                own_live: 0,
                peer: 0,
                peer_gone: 0,
                peer_granted: own.subchannels,
                due: false,
            },
            opens: VecDeque::new(),
            controls: VecDeque::new(),
            refusals: VecDeque::new(),
            later: VecDeque::new(),
            acknowledge_at: None,
            schedule: Schedule::default(),
            credit: LinkCredit::new(peer.link_credit, own.link_credit),
            outbox: Outbox::new(config.outbox_limit),
            openers_wait: false,
            names,
            events: VecDeque::new(),
            pool: Vec::new(),
            outstanding: 0,
            in_flight: 0,
            acknowledged: 0,
            flight: Flight::default(),
            untold: 0,
            receive_bytes: 0,
            datagram_bytes: 0,
            assemblers: (config.receive_total / config.max_data).max(1),
            assembly_line: VecDeque::new(),
            grown: Vec::new(),
            grown_bytes: 0,
            round_trip: Duration::ZERO,
            epoch: None,
            refusals_left: Allowance::of_refusals(),
            resumes_left: Allowance::of_resumes(),
            control: None,
            config,
            peer,
            parity,
        };
        let control = mux.insert(
            SubchannelId(0),
            Name::from(CONTROL_NAME),
            flag::MINE | flag::ANSWERED | flag::OPEN_SENT,
        );
        let stream = &mut mux.slots[index(control)];
        stream.send_limit = peer.subchannel_credit;
        stream.granted = own.subchannel_credit;
        mux.control = Some(control);
        mux
    }

    /// The limits in force.
    pub fn config(&self) -> &MuxConfig {
        &self.config
    }

    /// The first link of all is active: frames go out at once, since nothing was sent before that could be missing.
    pub fn link_up(&mut self) {
        if self.ended.is_none() {
            self.link = Link::First;
        }
    }

    /// The active link is lost. Nothing is sent until [`handle_resume`](Mux::handle_resume); datagrams that wait are
    /// dropped. Frames that still come from it count.
    pub fn link_down(&mut self) {
        self.link = Link::Down;
        self.abandon_call();
    }

    /// The round trip of the active link as just measured, from which windows are sized, and how much may be on its way.
    pub fn set_round_trip(&mut self, rtt: Duration) {
        self.round_trip = rtt;
        self.flight.measured(rtt, self.in_flight == 0);
    }

    /// How far what this side sends has come on the current link, in units.
    pub fn progress(&self) -> Progress {
        Progress { sent: self.acknowledged + self.in_flight, acknowledged: self.acknowledged }
    }

    /// Ends the wormhole. Data that was received can still be read, and subchannels that wait still be accepted;
    /// everything else fails with `reason`, now and later. The first reason stays.
    pub fn fail(&mut self, reason: EndReason) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(reason);
        self.link = Link::Down;
        self.opens = VecDeque::new();
        for queue in [&mut self.controls, &mut self.later] {
            *queue = VecDeque::new();
        }
        self.refusals = VecDeque::new();
        self.acknowledge_at = None;
        self.schedule.clear();
        self.routes.clear();
        self.in_flight = 0;
        self.outstanding = 0;
        self.outbox.clear();
        for slot in 0..self.slots.end() {
            self.end_stream(slot);
        }
        self.events.extend(self.names.tell_all().map(Event::Incoming));
        self.wake_openers();
        self.events.push_back(Event::Ended);
    }

    fn end_stream(&mut self, slot: u32) {
        let Some(stream) = self.slots.get_mut(slot) else { return };
        let key = key(slot, stream);
        stream.flags.clear(
            flag::ROUTED
                | flag::OUTSTANDING
                | flag::READY
                | flag::CONTROL
                | flag::CREDIT_DUE
                | flag::LATER
                | flag::OPEN_DUE,
        );
        if let Some(active) = &mut stream.active {
            active.send.discard();
            active.send.charged = 0;
            let waiting: usize = active.datagrams.out.drain(..).map(|data| data.len()).sum();
            self.datagram_bytes -= waiting;
        }
        self.events.push_back(Event::Writable(key));
        self.note_readable(slot);
        self.note_acknowledged(slot);
        self.settle(slot);
    }

    /// Why the wormhole is over, if it is: as told to [`fail`](Mux::fail).
    pub fn ended(&self) -> Option<&EndReason> {
        self.ended.as_ref()
    }

    /// Whether the peer has acknowledged everything that was written, opened and ended. True after the end, when
    /// nothing more can be.
    pub fn is_drained(&self) -> bool {
        self.outstanding == 0
    }

    /// What has become possible since the last call. At most a few events per subchannel are queued, and none is
    /// lost.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        match &event {
            Event::Readable(key) => {
                if let Some(stream) = self.get_mut(*key) {
                    stream.flags.clear(flag::READ_EVENT);
                }
            }
            Event::Acknowledged(key) => {
                if let Some(stream) = self.get_mut(*key) {
                    stream.flags.clear(flag::ACK_EVENT);
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
            unacknowledged_records: usize::try_from(self.in_flight).unwrap_or(usize::MAX),
            receive_bytes: self.receive_bytes,
            subchannels: self.slots.len() - usize::from(self.slots.get(0).is_some_and(Stream::is_control)),
            pending_opens: self.names.waiting(),
            read_paused: false,
            writers_wait: self.outbox.is_awaited(),
        }
    }

    fn note_readable(&mut self, slot: u32) {
        let stream = &mut self.slots[slot];
        if !stream.flags.has(flag::READ_RELEASED) && stream.flags.raise(flag::READ_EVENT) {
            self.events.push_back(Event::Readable(key(slot, stream)));
        }
    }

    fn note_acknowledged(&mut self, slot: u32) {
        let stream = &mut self.slots[slot];
        if !stream.flags.has(flag::WRITE_RELEASED) && stream.flags.raise(flag::ACK_EVENT) {
            self.events.push_back(Event::Acknowledged(key(slot, stream)));
        }
    }

    /// Puts it into the round robin if it has something for it.
    fn note_ready(&mut self, slot: u32) {
        let stream = &mut self.slots[slot];
        if stream.flags.has(flag::ROUTED) && stream.has_data() && stream.flags.raise(flag::READY) {
            let level = stream.level();
            if stream.written.saturating_sub(stream.cursor()) <= BRIEF {
                self.schedule.push_brief(level, slot);
            } else {
                self.schedule.push(level, slot);
            }
        }
    }

    /// CREDIT, RESET or STOP (`due`) is to be sent.
    fn note_control(&mut self, slot: u32, due: u32) {
        let stream = &mut self.slots[slot];
        if !stream.flags.has(flag::ROUTED) {
            return;
        }
        stream.flags.set(due);
        if stream.flags.raise(flag::CONTROL) {
            self.controls.push_back(slot);
        }
    }

    fn wake_openers(&mut self) {
        if std::mem::take(&mut self.openers_wait) {
            self.events.push_back(Event::Openable);
        }
    }

    fn get(&self, key: StreamKey) -> Option<&Stream> {
        let slot = u32::try_from(key.slot).ok()?;
        self.slots.get(slot).filter(|stream| stream.generation == key.generation)
    }

    fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        let slot = u32::try_from(key.slot).ok()?;
        self.slots.get_mut(slot).filter(|stream| stream.generation == key.generation)
    }

    /// The slot of a key that is not an old one.
    fn slot(&self, key: StreamKey) -> Option<u32> {
        self.get(key).map(|_| index(key))
    }

    fn insert(&mut self, id: SubchannelId, name: Name, flags: u32) -> StreamKey {
        self.generation = self.generation.wrapping_add(1);
        let slot = self.slots.insert(Stream::new(id, name, self.generation, flags));
        self.routes.insert(id, slot);
        StreamKey { slot: slot as usize, generation: self.generation }
    }
}

fn key(slot: u32, stream: &Stream) -> StreamKey {
    StreamKey { slot: slot as usize, generation: stream.generation }
}

/// The slot of a key, which has to be a live one.
fn index(key: StreamKey) -> u32 {
    u32::try_from(key.slot).expect("slots are numbered with 32 bits")
}

/// An empty queue gives back what a burst made it allocate; small ones keep their room.
fn release_if_large<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() > 64 {
        *queue = VecDeque::new();
    }
}
