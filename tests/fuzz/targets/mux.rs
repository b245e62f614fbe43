//! A mux between a peer that sends anything at all and an application that does anything it may: no panic, and
//! no more memory than its limits allow.

#![no_main]

use std::task::Poll;

use bytes::Bytes;
use dilated_subchannel::id::{Parity, SeqNum, SubchannelId};
use dilated_subchannel::mux::{MuxConfig, Names, StreamKey, ged::Mux};
use dilated_subchannel::record::{Name, Record};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 4096;
const LARGEST: usize = 1024;

/// The input, read as a script.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

struct World {
    mux: Mux,
    /// Our subchannels, opened or accepted.
    keys: Vec<StreamKey>,
    /// The sequence number that a peer in its right mind would send next.
    next: u32,
    /// Sequenced records that the mux has sent.
    sent: u32,
}

impl World {
    fn new(parity: Parity) -> Self {
        let mut config = MuxConfig::default();
        config.outbox_limit = LIMIT;
        config.stream_queue = LIMIT / 2;
        config.receive_limit = LIMIT;
        config.receive_total = 2 * LIMIT;
        config.max_subchannels = 8;
        config.pending_opens = 3;
        config.max_data = LARGEST;
        let mut mux = Mux::new(config, parity, Names::default());
        mux.listen(&"a".into()).expect("nobody listens yet");
        mux.expect(&"b".into());
        Self { mux, keys: Vec::new(), next: 0, sent: 0 }
    }

    fn receive(&mut self, record: Record) {
        // As the driver does: a paused link is not read.
        if self.mux.read_paused() {
            return;
        }
        let in_order = record.seq() == Some(SeqNum(self.next));
        match self.mux.handle_record(record) {
            Ok(_) if in_order => self.next += 1,
            Ok(_) => {}
            Err(_) => self.relink(),
        }
    }

    /// The link is cut and comes back, with the peer's honest view of what was accepted.
    fn relink(&mut self) {
        self.mux.link_down();
        self.mux.link_up();
        while let Some(record) = self.mux.poll_transmit() {
            if let Record::Ack { seq } = record {
                self.next = seq.0.wrapping_add(1);
            }
        }
    }

    fn key(&self, choice: u8) -> Option<StreamKey> {
        self.keys.get(usize::from(choice) % self.keys.len().max(1)).copied()
    }

    fn step(&mut self, op: u8, script: &mut Script<'_>) -> Option<()> {
        let mux = &mut self.mux;
        match op % 16 {
            0 => {
                let length = usize::from(script.byte()?);
                let record = Record::decode(Bytes::copy_from_slice(script.bytes(length)));
                if let Ok(record) = record {
                    self.receive(record);
                }
            }
            1 => {
                let (id, name) = (SubchannelId(script.byte()?.into()), script.byte()?);
                let subprotocol = Name::from(["a", "b", "c", ""][usize::from(name % 4)]);
                self.receive(Record::Open { id, seq: SeqNum(self.next), subprotocol });
            }
            2 => {
                let id = SubchannelId(script.byte()?.into());
                let data = Bytes::from(vec![7; 5 * usize::from(script.byte()?)]);
                self.receive(Record::Data { id, seq: SeqNum(self.next), data });
            }
            3 => {
                let id = SubchannelId(script.byte()?.into());
                self.receive(Record::Close { id, seq: SeqNum(self.next) });
            }
            4 => {
                let behind = u32::from(script.byte()?);
                self.receive(Record::Ack { seq: SeqNum(self.sent.saturating_sub(behind)) });
            }
            5 => {
                for _ in 0..script.byte()? % 8 {
                    let Some(record) = self.mux.poll_transmit() else { break };
                    self.sent = self.sent.max(record.seq().map_or(0, |seq| seq.0));
                }
            }
            6 => self.relink(),
            7 => {
                let key = self.key(script.byte()?)?;
                self.mux.discard(key);
            }
            8 => {
                if let Poll::Ready(Ok(key)) = mux.open(&"a".into()) {
                    self.keys.push(key);
                }
            }
            9 => {
                let name = Name::from(if script.byte()? & 1 == 0 { "a" } else { "b" });
                self.keys.extend(mux.accept(&name));
            }
            10 => {
                let (key, length) = (self.key(script.byte()?)?, usize::from(script.byte()?));
                let _ = self.mux.write(key, &vec![1; length * 8]);
            }
            11 => {
                let (key, length) = (self.key(script.byte()?)?, usize::from(script.byte()?));
                let _ = self.mux.send(key, &Bytes::from(vec![2; length * 5]));
            }
            12 => {
                let (key, length) = (self.key(script.byte()?)?, usize::from(script.byte()?));
                let _ = self.mux.read(key, &mut vec![0; length]);
            }
            13 => {
                let key = self.key(script.byte()?)?;
                let _ = self.mux.recv(key);
            }
            14 => {
                let key = self.key(script.byte()?)?;
                let _ = self.mux.shutdown(key);
            }
            _ => {
                let key = self.key(script.byte()?)?;
                self.keys.retain(|other| *other != key);
                self.mux.release(key);
            }
        }
        Some(())
    }

    fn check(&mut self) {
        let mut events = 0;
        while self.mux.poll_event().is_some() {
            events += 1;
            assert!(events < 1000, "events without end");
        }
        let usage = self.mux.usage();
        assert!(usage.receive_bytes <= 2 * LIMIT + LARGEST + 256, "{usage:?}");
        assert!(usage.pending_opens <= 2 * 3, "{usage:?}");
        assert!(usage.subchannels <= 2 * 8 + 2 * 3, "{usage:?}");
    }
}

fuzz_target!(|data: &[u8]| {
    let mut script = Script(data);
    let odd = script.byte().is_none_or(|byte| byte & 1 == 0);
    let mut world = World::new(if odd { Parity::Odd } else { Parity::Even });
    world.mux.link_up();
    while let Some(op) = script.byte() {
        let _ = world.step(op, &mut script);
        world.check();
    }
});
