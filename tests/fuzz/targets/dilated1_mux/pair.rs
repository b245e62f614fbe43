//! Two muxes over links that are lost, and on which records come twice.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use dilated_subchannel::frame::{Frame, Frames, Received};
use dilated_subchannel::id::Parity;
use dilated_subchannel::mux::dilated1::{Batch, Mux};
use dilated_subchannel::mux::{MuxConfig, Names};

use crate::Script;
use crate::application::{Application, NAMES};

const TOTAL: usize = 128 << 10;
/// Records that may come again.
const REMEMBERED: usize = 16;
/// The most activations: more are more than a peer takes.
const ACTIVATIONS: u64 = 400;
/// The most turns that it may take until all is over.
const TURNS: usize = 2000;

/// What travels on a link.
enum Parcel {
    Record(Vec<u8>),
    Resume(u64, Vec<Received>),
}

/// One link, towards each side.
#[derive(Default)]
struct Link {
    towards: [VecDeque<Parcel>; 2],
    /// What is on it may still arrive, but nothing more gets there.
    lost: bool,
}

impl Link {
    fn push(&mut self, to: usize, parcel: Parcel) {
        if !self.lost {
            self.towards[to].push_back(parcel);
        }
    }
}

/// Where a side sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sends {
    /// On the link that was activated last.
    Here,
    /// On the one before: it has not heard of the other.
    There,
    /// On one that is gone, or it has to wait.
    Nowhere,
}

struct Side {
    mux: Mux,
    application: Application,
    epoch: u64,
    sends: Sends,
    /// Records that it has received.
    seen: VecDeque<Vec<u8>>,
}

struct World {
    sides: [Side; 2],
    /// The one before and the active one.
    former: Link,
    link: Link,
    now: Instant,
    batch: Batch,
}

pub(crate) fn run(script: &mut Script<'_>) {
    let mut world = World::new();
    while let Some(op) = script.byte() {
        let _ = world.step(op, script);
        for side in &mut world.sides {
            while side.mux.poll_event().is_some() {}
        }
    }
    world.finish();
}

impl World {
    fn new() -> Self {
        let mut config = MuxConfig::default();
        config.outbox_limit = TOTAL;
        config.stream_queue = TOTAL / 4;
        config.receive_total = TOTAL;
        config.max_subchannels = 8;
        config.pending_opens = 3;
        config.max_data = 16 << 10;
        config.max_datagram = 200;
        let params = config.params();
        let side = |parity| {
            let mut mux = Mux::new(config.clone(), parity, params, Names::default());
            mux.listen(&NAMES[0].into()).expect("nobody listens yet");
            mux.expect(&NAMES[1].into());
            let application = Application::new(true);
            Side { mux, application, epoch: 0, sends: Sends::Nowhere, seen: VecDeque::new() }
        };
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let now = Instant::now();
        let sides = [side(Parity::Odd), side(Parity::Even)];
        let mut world =
            Self { sides, former: Link::default(), link: Link::default(), now, batch: Batch::new() };
        world.activate();
        world
    }

    fn step(&mut self, op: u8, script: &mut Script<'_>) -> Option<()> {
        let side = usize::from(op >> 7);
        match op % 8 {
            0..=2 => {
                let Side { mux, application, .. } = &mut self.sides[side];
                let op = script.byte()?;
                application.step(mux, op, script)?;
            }
            3 => {
                self.now += Duration::from_millis(u64::from(script.byte()? % 40));
                self.transmit(side);
            }
            4 | 5 => {
                let choice = script.byte()?;
                for _ in 0..choice % 8 {
                    self.deliver(side, choice >= 128);
                }
            }
            6 => {
                let choice = usize::from(script.byte()?);
                let seen = &self.sides[side].seen;
                let record = seen.get(choice % seen.len().max(1))?.clone();
                self.take(side, &record, true);
            }
            _ if self.sides[0].epoch >= ACTIVATIONS => {}
            _ => match script.byte()? % 3 {
                // Another link is made active; the former one may still bring what it has.
                0 => self.activate(),
                // It is lost with all that is on it.
                1 => {
                    self.lose(0);
                    self.activate();
                }
                // A part of it arrives.
                _ => {
                    let keep = usize::from(script.byte()?);
                    self.lose(keep);
                    self.activate();
                }
            },
        }
        Some(())
    }

    /// The active link breaks. Of what is on it, `keep` records in each direction arrive.
    fn lose(&mut self, keep: usize) {
        self.link.lost = true;
        for queue in &mut self.link.towards {
            queue.truncate(keep);
        }
    }

    /// The Leader makes a new link the active one.
    fn activate(&mut self) {
        self.former = std::mem::take(&mut self.link);
        let [leader, follower] = &mut self.sides;
        follower.sends = if follower.sends == Sends::Here { Sends::There } else { Sends::Nowhere };
        leader.epoch += 1;
        let first = leader.epoch == 1;
        let list = leader.mux.resume();
        self.link.push(1, Parcel::Resume(leader.epoch, list));
        leader.sends = if first { Sends::Here } else { Sends::Nowhere };
        if first {
            leader.mux.link_up();
        }
    }

    fn transmit(&mut self, side: usize) {
        let Side { mux, sends, .. } = &mut self.sides[side];
        let sent = mux.poll_transmit(self.now, 4096, &mut self.batch);
        let link = match sends {
            Sends::Here => Some(&mut self.link),
            Sends::There => Some(&mut self.former),
            Sends::Nowhere => {
                assert!(side == 1 || !sent, "nothing may follow RESUME before the answer");
                None
            }
        };
        if let Some(link) = link {
            for parts in self.batch.records() {
                link.push(1 - side, Parcel::Record(parts.flatten().copied().collect()));
            }
        }
        self.batch.clear();
    }

    /// Hands over the next thing for this side.
    fn deliver(&mut self, side: usize, former: bool) {
        let link = if former { &mut self.former } else { &mut self.link };
        match link.towards[side].pop_front() {
            Some(Parcel::Record(record)) => self.take(side, &record, false),
            Some(Parcel::Resume(epoch, list)) => self.resume(side, epoch, list),
            None => {}
        }
    }

    fn take(&mut self, side: usize, record: &[u8], again: bool) {
        let Side { mux, seen, .. } = &mut self.sides[side];
        for frame in Frames::new(record.to_vec().into()) {
            let frame = frame.expect("what a mux says can be read");
            if again && matches!(frame, Frame::Datagram { .. }) {
                continue;
            }
            let text = format!("{frame:?}");
            mux.handle_frame(frame, self.now).unwrap_or_else(|violation| panic!("{text}: {violation}"));
        }
        if !again {
            if seen.len() == REMEMBERED {
                seen.pop_front();
            }
            seen.push_back(record.to_vec());
        }
    }

    fn resume(&mut self, side: usize, epoch: u64, list: Vec<Received>) {
        // One that comes late, on the former link.
        if epoch != self.sides[0].epoch {
            return;
        }
        let Side { mux, sends, .. } = &mut self.sides[side];
        if side == 1 {
            let ours = mux.resume();
            self.link.push(0, Parcel::Resume(epoch, ours));
        }
        mux.handle_resume(list, self.now).unwrap_or_else(|violation| panic!("a list: {violation}"));
        *sends = Sends::Here;
    }

    /// No more disturbances: all arrives, all ends, nothing is left.
    fn finish(mut self) {
        for turn in 0.. {
            self.now += Duration::from_millis(30);
            let mut over = true;
            for side in 0..2 {
                let Side { mux, application, .. } = &mut self.sides[side];
                over &= application.wind_up(mux) && mux.is_drained() && mux.usage().pending_opens == 0;
                while mux.poll_event().is_some() {}
                self.transmit(side);
                for _ in 0..64 {
                    self.deliver(side, false);
                }
            }
            if over && self.link.towards.iter().all(VecDeque::is_empty) {
                break;
            }
            let usage = self.sides.each_ref().map(|side| side.mux.usage());
            assert!(turn < TURNS, "it does not come to an end: {usage:?}");
        }
        let [leader, follower] = &self.sides;
        for (writer, reader) in [(leader, follower), (follower, leader)] {
            for (id, written) in writer.application.written() {
                if let Some(read) = reader.application.finished.get(&id) {
                    assert_eq!(*read, written, "a clean end of {id} before all was read");
                }
            }
        }
        for side in &mut self.sides {
            side.application.release(&mut side.mux);
            while side.mux.poll_event().is_some() {}
        }
        // What was dropped is given up in order, which takes a word or two.
        for turn in 0.. {
            let usage = self.sides.each_ref().map(|side| side.mux.usage());
            if usage
                .iter()
                .all(|usage| (usage.outbox_bytes, usage.receive_bytes, usage.subchannels) == (0, 0, 0))
            {
                break;
            }
            assert!(turn < TURNS, "something is left: {usage:?}");
            self.now += Duration::from_millis(30);
            for side in 0..2 {
                self.transmit(side);
                self.deliver(side, false);
                while self.sides[side].mux.poll_event().is_some() {}
            }
        }
    }
}
