//! Two sides and links that break at any moment, with random verbs: what arrives is what was sent.

use std::collections::VecDeque;

use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::*;
use crate::mux::{OpenError, ReadError, WriteError};

/// What a link carries.
enum Item {
    Resume(u64, Vec<Received>),
    Record(Vec<Frame>),
}

/// A link, with what is under way to each side.
#[derive(Default)]
struct Wire {
    to: [VecDeque<Item>; 2],
    dead: bool,
}

/// What one end of a subchannel wrote, and what the other has read of it.
#[derive(Default)]
struct Flow {
    /// Stream bytes joined, messages each by itself.
    written: Vec<(bool, Vec<u8>)>,
    read: Vec<(bool, Vec<u8>)>,
    shut: bool,
    reset: Option<u32>,
    stop: Option<u32>,
    released_read: bool,
    released_write: bool,
    end: Option<Result<(), ReadError>>,
}

struct Subchannel {
    name: &'static str,
    opener: usize,
    id: u32,
    keys: [Option<StreamKey>; 2],
    /// From each side.
    flows: [Flow; 2],
    /// Both read it as a stream.
    as_stream: bool,
}

struct World {
    rng: StdRng,
    sides: [Side; 2],
    epochs: [u64; 2],
    /// The link on which each side sends.
    active: [usize; 2],
    wires: Vec<Wire>,
    subchannels: Vec<Subchannel>,
    datagrams: u64,
}

fn config() -> MuxConfig {
    MuxConfig {
        max_data: 150_000,
        receive_total: 400_000,
        outbox_limit: 300_000,
        stream_queue: 100_000,
        max_subchannels: 6,
        pending_opens: 3,
        ..MuxConfig::default()
    }
}

fn append(pieces: &mut Vec<(bool, Vec<u8>)>, message: bool, data: &[u8]) {
    match pieces.last_mut() {
        Some((false, last)) if !message => last.extend_from_slice(data),
        _ if message || !data.is_empty() => pieces.push((message, data.to_vec())),
        _ => {}
    }
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lens = |pieces: &[(bool, Vec<u8>)]| {
            pieces.iter().map(|(message, data)| (*message, data.len())).collect::<Vec<_>>()
        };
        f.debug_struct("Flow")
            .field("written", &lens(&self.written))
            .field("read", &lens(&self.read))
            .field("shut", &self.shut)
            .field("reset", &self.reset)
            .field("stop", &self.stop)
            .field("end", &self.end)
            .finish()
    }
}

impl Flow {
    fn check(&self, as_stream: bool) {
        let joined =
            |pieces: &[(bool, Vec<u8>)]| pieces.iter().flat_map(|(_, data)| data.clone()).collect::<Vec<_>>();
        if as_stream {
            assert!(joined(&self.written).starts_with(&joined(&self.read)), "delivered is a prefix");
            return;
        }
        for (index, (read, written)) in self.read.iter().zip(&self.written).enumerate() {
            let last = index + 1 == self.read.len();
            assert_eq!(read.0, written.0, "marks are kept");
            if last && !read.0 {
                assert!(written.1.starts_with(&read.1));
            } else {
                assert!(read.1 == written.1, "piece {index}: {} and {} bytes", read.1.len(), written.1.len());
            }
        }
        assert!(self.read.len() <= self.written.len());
    }

    fn is_whole(&self, as_stream: bool) -> bool {
        let bytes = |pieces: &[(bool, Vec<u8>)]| pieces.iter().map(|(_, data)| data.len()).sum::<usize>();
        bytes(&self.written) == bytes(&self.read) && (as_stream || self.written.len() == self.read.len())
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let params = config().params();
        let side = |parity| Side::new(config(), parity, params);
        let mut sides = [side(Parity::Odd), side(Parity::Even)];
        let keys = sides.each_mut().map(|side| {
            side.mux.listen(&name("q")).unwrap();
            side.mux.control()
        });
        let control = Subchannel {
            name: CONTROL_NAME,
            opener: 0,
            id: 0,
            keys,
            flows: Default::default(),
            as_stream: false,
        };
        World {
            rng: StdRng::seed_from_u64(seed),
            sides,
            epochs: [1, 1],
            active: [0, 0],
            wires: vec![Wire::default()],
            subchannels: vec![control],
            datagrams: 0,
        }
    }

    fn step(&mut self) {
        let side = self.rng.random_range(0..2);
        match self.rng.random_range(0..100) {
            0..25 => self.transmit(side),
            25..50 => self.deliver(),
            50..53 => self.switch(side),
            53..58 => self.open(side),
            58..62 => self.accept(side),
            62..78 => self.write(side),
            78..92 => self.read(side),
            92..95 => self.datagram(side),
            95..97 => self.shut(side),
            97..98 => self.give_up(side),
            98..99 => self.release(side),
            _ => {
                let pause = Duration::from_millis(self.rng.random_range(0..40));
                self.sides.iter_mut().for_each(|side| side.now += pause);
            }
        }
    }

    fn transmit(&mut self, side: usize) {
        let most = [1, 2000, 200_000][self.rng.random_range(0..3)];
        let mut batch = Batch::new();
        let Side { mux, now } = &mut self.sides[side];
        mux.poll_transmit(*now, most, &mut batch);
        let wire = &mut self.wires[self.active[side]];
        if wire.dead {
            return;
        }
        for record in batch.records() {
            let plaintext = record.collect::<Vec<_>>().concat();
            let frames = Frames::new(plaintext.into()).collect::<Result<_, _>>().unwrap();
            wire.to[1 - side].push_back(Item::Record(frames));
        }
    }

    /// Something arrives, perhaps from a link that is long replaced.
    fn deliver(&mut self) {
        let full: Vec<(usize, usize)> = (0..self.wires.len())
            .flat_map(|wire| [(wire, 0), (wire, 1)])
            .filter(|(wire, side)| !self.wires[*wire].to[*side].is_empty())
            .collect();
        let Some(&(wire, side)) = full.choose(&mut self.rng) else { return };
        let item = self.wires[wire].to[side].pop_front().unwrap();
        let Side { mux, now } = &mut self.sides[side];
        match item {
            Item::Record(frames) => {
                for frame in frames {
                    mux.handle_frame(frame.clone(), *now)
                        .unwrap_or_else(|error| panic!("{frame:?}: {error}"));
                }
            }
            Item::Resume(epoch, _) if epoch < self.epochs[side] => {}
            Item::Resume(epoch, entries) => {
                if epoch > self.epochs[side] {
                    self.epochs[side] = epoch;
                    let answer = mux.resume();
                    if !self.wires[wire].dead {
                        self.wires[wire].to[1 - side].push_back(Item::Resume(epoch, answer));
                    }
                }
                self.active[side] = wire;
                mux.handle_resume(entries, *now).unwrap();
            }
        }
        let _: Vec<Event> = self.sides[side].events();
    }

    /// A side activates another link. The one before may be dead, and then the end of what was on it is lost; or it
    /// goes on for a while.
    fn switch(&mut self, side: usize) {
        let old = self.active[side];
        if self.rng.random_bool(0.7) {
            self.wires[old].dead = true;
            for to in 0..2 {
                let kept = self.rng.random_range(0..=self.wires[old].to[to].len());
                self.wires[old].to[to].truncate(kept);
            }
        }
        if self.rng.random_bool(0.5) {
            self.sides[side].mux.link_down();
        }
        let epoch = self.epochs[0].max(self.epochs[1]) + 1;
        self.epochs[side] = epoch;
        let entries = self.sides[side].mux.resume();
        let mut wire = Wire::default();
        wire.to[1 - side].push_back(Item::Resume(epoch, entries));
        self.wires.push(wire);
        self.active[side] = self.wires.len() - 1;
    }

    fn open(&mut self, side: usize) {
        let names = ["p", "p", "p", "q", "nobody"];
        let text = names[self.rng.random_range(0..names.len())];
        match self.sides[side].mux.open(&name(text)) {
            Poll::Ready(Ok(key)) => {
                let id = self.sides[side].mux.describe(key).unwrap().0.0;
                let mut keys = [None, None];
                keys[side] = Some(key);
                let as_stream = self.rng.random();
                let flows = <[Flow; 2]>::default();
                self.subchannels.push(Subchannel { name: text, opener: side, id, keys, flows, as_stream });
            }
            Poll::Pending | Poll::Ready(Err(OpenError::TooMany { .. })) => {}
            Poll::Ready(Err(error)) => panic!("{error}"),
        }
    }

    fn accept(&mut self, side: usize) {
        for text in ["p", "q"] {
            while let Some(key) = self.sides[side].mux.accept(&name(text)) {
                let (id, accepted) = self.sides[side].mux.describe(key).unwrap();
                let subchannel = self
                    .subchannels
                    .iter_mut()
                    .find(|subchannel| subchannel.opener != side && subchannel.id == id.0)
                    .expect("it was opened by the other side");
                assert_eq!((&*accepted, subchannel.keys[side]), (subchannel.name, None), "accepted once");
                subchannel.keys[side] = Some(key);
            }
        }
    }

    /// One that the side has a handle of.
    fn any(&mut self, side: usize) -> Option<(usize, StreamKey)> {
        let known: Vec<_> = self
            .subchannels
            .iter()
            .enumerate()
            .rev()
            .filter_map(|(index, subchannel)| subchannel.keys[side].map(|key| (index, key)))
            .take(8)
            .collect();
        known.choose(&mut self.rng).copied()
    }

    fn write(&mut self, side: usize) {
        let Some((index, key)) = self.any(side) else { return };
        let len = match self.rng.random_range(0..20) {
            0 => 0,
            1 => self.rng.random_range(0..150_000),
            2..5 => self.rng.random_range(0..10_000),
            _ => self.rng.random_range(0..300),
        };
        let mut data = Bytes::from((0..len).map(|_| self.rng.random()).collect::<Vec<u8>>());
        let kind = self.rng.random_range(0..3);
        let mux = &mut self.sides[side].mux;
        let flow = &mut self.subchannels[index].flows[side];
        let whole = data.clone();
        let taken = match kind {
            0 => mux.write(key, &data),
            1 => mux.write_bytes(key, &mut data),
            _ => mux.send(key, &data).map_ok(|()| data.len()),
        };
        match taken {
            Poll::Ready(Ok(n)) => append(&mut flow.written, kind == 2, &whole[..n]),
            Poll::Ready(Err(WriteError::ShutDown)) => {
                assert!(flow.shut || flow.reset.is_some() || flow.released_write);
            }
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
    }

    fn read(&mut self, side: usize) {
        if let Some((index, _)) = self.any(side) {
            self.read_from(side, index);
        }
    }

    fn read_from(&mut self, side: usize, index: usize) {
        let subchannel = &mut self.subchannels[index];
        let Some(key) = subchannel.keys[side] else { return };
        let flow = &mut subchannel.flows[1 - side];
        let mux = &mut self.sides[side].mux;
        for _ in 0..self.rng.random_range(1..50) {
            let got = if !subchannel.as_stream {
                // What is a message and what is not is told by what was written.
                mux.recv(key)
            } else if self.rng.random() {
                mux.read_chunk(key)
            } else {
                let mut buf = vec![0; self.rng.random_range(1..5000)];
                mux.read(key, &mut buf).map_ok(|n| (n > 0).then(|| Bytes::copy_from_slice(&buf[..n])))
            };
            match got {
                Poll::Pending => break,
                Poll::Ready(Ok(Some(data))) => {
                    assert!(!flow.released_read);
                    let message = flow.next_is_message();
                    append(&mut flow.read, message && !subchannel.as_stream, &data);
                }
                Poll::Ready(Ok(None)) => {
                    flow.end = Some(Ok(()));
                    break;
                }
                Poll::Ready(Err(error)) => {
                    flow.end = Some(Err(error));
                    break;
                }
            }
        }
    }

    fn datagram(&mut self, side: usize) {
        let Some((_, key)) = self.any(side) else { return };
        let mux = &mut self.sides[side].mux;
        if self.rng.random() {
            self.datagrams += u64::from(mux.send_datagram(key, Bytes::from(vec![9; 500])).is_ok());
        } else if let Poll::Ready(Ok(Some(data))) = mux.recv_datagram(key) {
            assert_eq!(data, vec![9; 500]);
            self.datagrams = self.datagrams.checked_sub(1).expect("none arrives twice");
        }
    }

    fn shut(&mut self, side: usize) {
        let Some((index, key)) = self.any(side) else { return };
        if self.sides[side].mux.shutdown(key).is_ok() {
            self.subchannels[index].flows[side].shut = true;
        }
    }

    fn give_up(&mut self, side: usize) {
        let Some((index, key)) = self.any(side) else { return };
        let code = self.rng.random();
        if self.rng.random() {
            self.sides[side].mux.reset(key, code);
            self.subchannels[index].flows[side].reset.get_or_insert(code);
        } else {
            self.sides[side].mux.stop(key, code);
            self.subchannels[index].flows[1 - side].stop.get_or_insert(code);
        }
    }

    fn release(&mut self, side: usize) {
        let Some((index, key)) = self.any(side) else { return };
        match self.rng.random_range(0..3) {
            0 => self.release_half(side, index, key, true),
            1 => self.release_half(side, index, key, false),
            _ => {
                self.release_half(side, index, key, true);
                self.release_half(side, index, key, false);
            }
        }
    }

    fn release_half(&mut self, side: usize, index: usize, key: StreamKey, read: bool) {
        let flows = &mut self.subchannels[index].flows;
        if read {
            flows[1 - side].released_read = true;
            self.sides[side].mux.release_read(key);
        } else {
            flows[side].released_write = true;
            flows[side].shut = true;
            self.sides[side].mux.release_write(key);
        }
    }

    fn check(&self) {
        for side in &self.sides {
            let usage = side.mux.usage();
            let config = config();
            // The credit for all, what is assembled, and the control channel.
            assert!(usage.receive_bytes <= 2 * config.receive_total + (128 << 10), "{usage:?}");
            assert!(usage.outbox_bytes <= config.outbox_limit * 2, "{usage:?}");
            assert!(usage.subchannels <= 2 * config.max_subchannels, "{usage:?}");
            assert!(side.mux.pool.len() <= account::POOL);
        }
        for subchannel in &self.subchannels {
            subchannel.flows.iter().for_each(|flow| flow.check(subchannel.as_stream));
        }
    }

    /// Both end everything over a link that lasts; nothing may be left.
    fn rest(&mut self) {
        self.switch(0);
        for round in 0..3000 {
            for side in 0..2 {
                self.sides[side].now += Duration::from_millis(30);
                self.accept(side);
                self.transmit(side);
                for index in 0..self.subchannels.len() {
                    if let Some(key) = self.subchannels[index].keys[side] {
                        let _gone: Result<(), _> = self.sides[side].mux.shutdown(key);
                        self.subchannels[index].flows[side].shut = true;
                    }
                    self.read_from(side, index);
                }
            }
            for _ in 0..20 {
                self.deliver();
            }
            let quiet = self.wires.iter().all(|wire| wire.to.iter().all(VecDeque::is_empty));
            let drained = self.sides.iter().all(|side| side.mux.is_drained());
            let idle =
                self.sides.iter().all(|side| !side.mux.wants_transmit() && side.mux.poll_timeout().is_none());
            if round > 50 && quiet && drained && idle {
                return;
            }
        }
        let state: Vec<_> = self.sides.iter().map(|side| (side.mux.usage(), side.mux.progress())).collect();
        panic!("this does not come to rest: {state:?}");
    }

    fn judge(&mut self) {
        self.check();
        for subchannel in &self.subchannels {
            let Subchannel { flows, as_stream, .. } = subchannel;
            let refused = subchannel.keys[1 - subchannel.opener].is_none();
            for flow in flows {
                if flow.released_read {
                    continue;
                }
                let end = flow.end.as_ref();
                let given_up = flow.reset.is_some() || flow.stop.is_some();
                match end {
                    Some(Ok(())) => assert!(refused || flow.is_whole(*as_stream), "{flow:?}"),
                    Some(Err(ReadError::Reset { code })) => {
                        let expected = flow.reset.or(flow.stop).expect("nothing is reset by itself");
                        assert_eq!(code.application(), Some(expected), "{flow:?}");
                    }
                    Some(Err(ReadError::Stopped)) => assert!(flow.stop.is_some()),
                    Some(Err(ReadError::Refused { .. })) => assert!(refused),
                    Some(Err(error)) => panic!("{error}"),
                    None => assert!(refused),
                }
                assert!(refused || given_up || end == Some(&Ok(())), "{flow:?}");
            }
        }
        for side in 0..2 {
            for index in 0..self.subchannels.len() {
                if let Some(key) = self.subchannels[index].keys[side].take() {
                    self.sides[side].mux.release(key);
                }
            }
        }
        self.rest();
        for side in &mut self.sides {
            side.events();
            let mux = &side.mux;
            assert_eq!(mux.usage(), Usage::default());
            assert!(!mux.progress().is_in_flight());
            assert_eq!((mux.datagram_bytes, mux.grown_bytes, mux.assemblers), (0, 0, 2));
            assert_eq!(mux.credit.received, mux.credit.consumed);
            assert_eq!(mux.slots.len(), 0, "the control channel is gone, too");
        }
        let [a, b] = &self.sides;
        assert_eq!(a.mux.credit.sent, b.mux.credit.received, "the sums of both sides agree");
        assert_eq!(b.mux.credit.sent, a.mux.credit.received);
    }
}

impl Flow {
    fn next_is_message(&self) -> bool {
        // Stream bytes that are not all read yet come before the next piece.
        match (self.read.last(), self.read.len()) {
            (Some((false, read)), n) if read.len() < self.written[n - 1].1.len() => false,
            (_, n) => self.written.get(n).is_some_and(|(message, _)| *message),
        }
    }
}

fn run(seed: u64, steps: usize) {
    let mut world = World::new(seed);
    for step in 0..steps {
        world.step();
        if step % 50 == 0 {
            world.check();
        }
    }
    world.rest();
    world.judge();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 30, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_breaks_what_arrives_is_what_was_sent(seed: u64, steps in 1usize..1500) {
        run(seed, steps);
    }
}
