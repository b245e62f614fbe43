//! The virtual network, and the dice.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use dilated::{RolePreference, protocol::DilationSide};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{app::percent, side::Side};

/// When links are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Anywhere, several times.
    Random,
    /// Once, when both sides together have opened this many records.
    CutAfterRecord(u64),
}

/// What happened in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) cuts: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

/// Steps in which any run must be over; the longest take a tenth of it.
const MAX_STEPS: u64 = 2_000_000;

/// What a socket's buffers hold.
const WIRE: usize = 6000;

/// One direction of the connection.
#[derive(Default)]
struct Wire {
    bytes: VecDeque<u8>,
    /// The receiver will notice the end after the bytes that are still on the way.
    ended: bool,
}

pub(crate) struct World {
    rng: StdRng,
    plan: Plan,
    now: Instant,
    sides: [Side; 2],
    /// `wires[n]` leads to side `n`.
    wires: [Wire; 2],
    up: bool,
    mail: [VecDeque<Vec<u8>>; 2],
    cuts: u64,
    cuts_left: u64,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]
    pub(crate) fn new(seed: u64, plan: Plan) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let sides = [0, 1].map(|number| {
            let side = DilationSide::random(RolePreference::Any, &mut rng);
            Side::new(number, side, &mut rng)
        });
        let cuts_left = match plan {
            Plan::Random => rng.random_range(0..8),
            Plan::CutAfterRecord(_) => 1,
        };
        World {
            rng,
            plan,
            now: Instant::now(),
            sides,
            wires: Default::default(),
            up: false,
            mail: Default::default(),
            cuts: 0,
            cuts_left,
        }
    }

    pub(crate) fn run(mut self) -> Summary {
        for side in &mut self.sides {
            side.begin(self.now);
        }
        for _ in 0..MAX_STEPS {
            self.step();
            if self.is_done() {
                return self.finish();
            }
        }
        let states: Vec<_> = self
            .sides
            .iter()
            .map(|s| format!("{:?} {:?} {}", s.manager.state(), s.mux.usage(), s.app.is_done()))
            .collect();
        panic!("the two sides did not finish: {states:#?}");
    }

    fn is_done(&self) -> bool {
        self.sides.iter().all(|side| side.app.is_done() && side.mux.is_drained())
    }

    fn finish(self) -> Summary {
        let [a, b] = &self.sides;
        assert_eq!((a.app.received, b.app.received), (b.app.sent(), a.app.sent()));
        for side in &self.sides {
            let usage = side.mux.usage();
            assert_eq!((usage.outbox_bytes, usage.receive_bytes, usage.subchannels), (0, 0, 0), "{usage:?}");
        }
        Summary { cuts: self.cuts, records: self.records(), bytes: a.app.received + b.app.received }
    }

    fn records(&self) -> u64 {
        self.sides.iter().map(|side| side.records).sum()
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.random_range(0..20));
        let n = self.rng.random_range(0..2);
        match self.rng.random_range(0..100) {
            0..=39 => {
                let side = &mut self.sides[n];
                side.app.step(&mut side.mux, &mut self.rng);
                side.open_records();
            }
            40..=64 => self.transmit(n),
            65..=89 => self.deliver(n),
            90..=93 => self.deliver_mail(n),
            94..=96 => self.connect(),
            97 => self.timers(n),
            _ => self.maybe_cut(),
        }
        if let Plan::CutAfterRecord(record) = self.plan
            && self.cuts_left > 0
            && self.up
            && self.records() >= record
            && self.sides.iter().any(Side::is_connected)
        {
            self.cut(true);
        }
        self.sides[n].check_memory();
    }

    /// A side's ciphertext goes onto the wire, as much as fits.
    fn transmit(&mut self, n: usize) {
        let side = &mut self.sides[n];
        side.transmit();
        let wire = &mut self.wires[1 - n];
        if self.up && !wire.ended {
            wire.bytes.extend(side.take_output(WIRE.saturating_sub(wire.bytes.len())));
        }
    }

    /// Some bytes arrive, or the end does.
    fn deliver(&mut self, n: usize) {
        let wire = &mut self.wires[n];
        if !self.sides[n].wants_input() {
            return;
        }
        if wire.bytes.is_empty() {
            if std::mem::take(&mut wire.ended) {
                self.sides[n].handle_lost(self.now);
                self.forget_dead_connection();
            }
            return;
        }
        let length = self.rng.random_range(1..=wire.bytes.len());
        let bytes: Vec<u8> = wire.bytes.drain(..length).collect();
        self.sides[n].handle_input(&bytes, self.now);
        self.sides[n].perform();
        self.forget_dead_connection();
    }

    fn deliver_mail(&mut self, n: usize) {
        let sent = std::mem::take(&mut self.sides[1 - n].outgoing_mail);
        self.mail[n].extend(sent);
        if let Some(message) = self.mail[n].pop_front() {
            self.sides[n].manager.handle_message(message, self.now);
            self.sides[n].perform();
            self.forget_dead_connection();
        }
    }

    /// When one side let go of the connection, the other will notice.
    fn forget_dead_connection(&mut self) {
        if !self.up {
            return;
        }
        let gone = self.sides.each_ref().map(|side| side.connection.is_none());
        if gone == [false, false] {
            return;
        }
        self.up = false;
        for (n, gone) in gone.into_iter().enumerate() {
            self.wires[n].ended = !gone;
            if gone {
                self.wires[n].bytes.clear();
            }
        }
    }

    /// Both sides connecting, one of them knows where the other is: they may meet.
    fn connect(&mut self) {
        let ready = self.sides.iter().all(|side| side.connecting.is_some() && side.connection.is_none());
        let told = self.sides.iter().any(|side| side.knows_peer);
        if ready && told && !self.up {
            for side in &mut self.sides {
                side.connect(&mut self.rng);
            }
            self.wires = Default::default();
            self.up = true;
        }
    }

    fn timers(&mut self, n: usize) {
        // Sometimes nothing else happens for a long time.
        if percent(&mut self.rng, 20)
            && let Some(at) = self.sides[n].manager.poll_timeout()
        {
            self.now = self.now.max(at);
        }
        self.sides[n].manager.handle_timeout(self.now);
        // Asking for an ACK again is never wrong.
        self.sides[n].mux.nudge();
        self.sides[n].perform();
        self.forget_dead_connection();
    }

    fn maybe_cut(&mut self) {
        if self.plan == Plan::Random && self.up && self.cuts_left > 0 && percent(&mut self.rng, 10) {
            let clean = percent(&mut self.rng, 50);
            self.cut(clean);
        }
    }

    /// The connection breaks. What is on the way still arrives if the cut is clean; otherwise a random part is lost,
    /// at any byte.
    fn cut(&mut self, clean: bool) {
        self.cuts += 1;
        self.cuts_left -= 1;
        self.up = false;
        for wire in &mut self.wires {
            wire.ended = true;
            if !clean {
                let kept = self.rng.random_range(0..=wire.bytes.len());
                wire.bytes.truncate(kept);
            }
        }
    }
}
