//! The applications: each opens a few subchannels and sends, on those it opened and on those it accepted, bytes that
//! can be told from all others; and checks every byte that it reads.

use std::{collections::BTreeMap, task::Poll};

use bytes::Bytes;
use dilated_subchannel::{
    id::SubchannelId,
    mux::{Mux, StreamKey},
    record::Name,
};
use rand::{RngExt, rngs::StdRng};

/// Subchannels that each side opens.
const OPENS: usize = 3;

/// The byte at `offset` of what `sender` (0 or 1) writes on a subchannel.
fn byte(id: SubchannelId, sender: usize, offset: u64) -> u8 {
    let mixed = (offset + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(id.0) << 8 | sender as u64);
    (mixed.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 56) as u8
}

/// One end of a subchannel.
struct Flow {
    id: SubchannelId,
    to_write: u64,
    written: u64,
    shut_down: bool,
    read: u64,
    ended: bool,
}

impl Flow {
    fn is_done(&self) -> bool {
        self.shut_down && self.ended
    }
}

/// One side's application.
pub(crate) struct App {
    number: usize,
    name: Name,
    lengths: Vec<u64>,
    opened: usize,
    flows: BTreeMap<StreamKey, Flow>,
    accepted: usize,
    finished: usize,
    /// Bytes read in all.
    pub(crate) received: u64,
}

impl App {
    pub(crate) fn new(number: usize, mux: &mut Mux, rng: &mut StdRng) -> App {
        let name = mux.check_name("sim").expect("a good name");
        mux.listen(&name).expect("free");
        let lengths = (0..2 * OPENS)
            .map(|_| match rng.random_range(0..4) {
                0 => 0,
                1 => rng.random_range(1..100),
                _ => rng.random_range(100..6000),
            })
            .collect();
        App {
            number,
            name,
            lengths,
            opened: 0,
            flows: BTreeMap::new(),
            accepted: 0,
            finished: 0,
            received: 0,
        }
    }

    /// Whether all subchannels of both sides have ended, in both directions.
    pub(crate) fn is_done(&self) -> bool {
        self.finished == 2 * OPENS
    }

    /// Opens, accepts, writes or reads something.
    pub(crate) fn step(&mut self, mux: &mut Mux, rng: &mut StdRng) {
        match rng.random_range(0..10) {
            0 if self.opened < OPENS => {
                if let Poll::Ready(opened) = mux.open(&self.name) {
                    let key = opened.expect("within the limits");
                    self.opened += 1;
                    self.add(key, mux, self.opened - 1);
                }
            }
            1 => {
                while let Some(key) = mux.accept(&self.name) {
                    self.accepted += 1;
                    self.add(key, mux, OPENS + self.accepted - 1);
                }
            }
            2..=5 => self.with_random_flow(mux, rng, Self::write),
            _ => self.with_random_flow(mux, rng, Self::read),
        }
    }

    fn add(&mut self, key: StreamKey, mux: &Mux, number: usize) {
        let (id, name) = mux.describe(key).expect("just made");
        assert_eq!(name, self.name);
        let to_write = self.lengths[number];
        let flow = Flow { id, to_write, written: 0, shut_down: false, read: 0, ended: false };
        assert!(self.flows.insert(key, flow).is_none(), "a key was given twice");
    }

    fn with_random_flow(
        &mut self,
        mux: &mut Mux,
        rng: &mut StdRng,
        act: fn(&mut Self, StreamKey, &mut Flow, &mut Mux, &mut StdRng),
    ) {
        if self.flows.is_empty() {
            return;
        }
        let chosen = rng.random_range(0..self.flows.len());
        let key = *self.flows.keys().nth(chosen).expect("in range");
        let mut flow = self.flows.remove(&key).expect("chosen");
        act(self, key, &mut flow, mux, rng);
        if flow.is_done() {
            self.finished += 1;
            mux.release(key);
        } else {
            self.flows.insert(key, flow);
        }
    }

    fn write(&mut self, key: StreamKey, flow: &mut Flow, mux: &mut Mux, rng: &mut StdRng) {
        if flow.shut_down {
            return;
        }
        if flow.written == flow.to_write {
            mux.shutdown(key).expect("the wormhole lives");
            flow.shut_down = true;
            return;
        }
        let length = rng.random_range(1..=1500).min(flow.to_write - flow.written);
        let data: Bytes = (0..length).map(|n| byte(flow.id, self.number, flow.written + n)).collect();
        let taken = match rng.random_range(0..3) {
            0 => mux.send(key, &data).map_ok(|()| data.len()),
            1 => mux.write_bytes(key, &mut data.clone()),
            _ => mux.write(key, &data),
        };
        if let Poll::Ready(taken) = taken {
            flow.written += taken.expect("the wormhole lives") as u64;
        }
    }

    fn read(&mut self, key: StreamKey, flow: &mut Flow, mux: &mut Mux, rng: &mut StdRng) {
        if flow.ended {
            return;
        }
        let read = if rng.random_bool(0.5) {
            mux.recv(key)
        } else {
            let mut buffer = vec![0; rng.random_range(1..4000)];
            mux.read(key, &mut buffer).map_ok(|n| {
                buffer.truncate(n);
                (n > 0).then(|| Bytes::from(buffer))
            })
        };
        let Poll::Ready(read) = read else { return };
        match read.expect("the wormhole lives") {
            Some(bytes) => {
                for (n, got) in bytes.iter().enumerate() {
                    let offset = flow.read + n as u64;
                    let expected = byte(flow.id, 1 - self.number, offset);
                    assert_eq!(*got, expected, "byte {offset} of subchannel {} is wrong", flow.id.0);
                }
                flow.read += bytes.len() as u64;
                self.received += bytes.len() as u64;
            }
            None => flow.ended = true,
        }
    }

    /// What the other side must have received when all is done.
    pub(crate) fn sent(&self) -> u64 {
        self.lengths.iter().sum()
    }
}
