//! One mux, and a peer that sends anything.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dilated_subchannel::frame::{Frame, Frames, MAX_PLAINTEXT, Mark, Received};
use dilated_subchannel::id::{Parity, SubchannelId};
use dilated_subchannel::mux::dilated1::{Batch, Mux, Params};
use dilated_subchannel::mux::{EndReason, MuxConfig, Names};
use dilated_subchannel::record::Name;

use crate::Script;
use crate::application::{Application, NAMES};

/// What may be received on all subchannels, and what may be written.
const TOTAL: usize = 128 << 10;
/// The credit of the control channel, which is beside that.
const CONTROL: usize = 64 << 10;
const LONGEST_MESSAGE: usize = 16 << 10;
const SUBCHANNELS: usize = 8;
const PENDING: usize = 3;

struct World {
    mux: Mux,
    application: Application,
    now: Instant,
    batch: Batch,
}

pub(crate) fn run(script: &mut Script<'_>) {
    let mut config = MuxConfig::default();
    config.outbox_limit = TOTAL;
    config.stream_queue = TOTAL / 2;
    config.receive_total = TOTAL;
    config.max_subchannels = SUBCHANNELS;
    config.pending_opens = PENDING;
    config.max_data = LONGEST_MESSAGE;
    let parity = if script.byte().is_some_and(|byte| byte & 1 == 1) { Parity::Odd } else { Parity::Even };
    let peer =
        Params { subchannel_credit: 1000, link_credit: 10_000, subchannels: 5, datagram: 200, message: 5000 };
    let mut mux = Mux::new(config, parity, peer, Names::default());
    mux.listen(&NAMES[0].into()).expect("nobody listens yet");
    mux.expect(&NAMES[1].into());
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    let now = Instant::now();
    let mut world = World { mux, application: Application::new(false), now, batch: Batch::new() };
    while let Some(op) = script.byte() {
        let _ = world.step(op, script);
        world.check();
        if world.mux.ended().is_some() {
            break;
        }
    }
    world.finish();
}

impl World {
    fn step(&mut self, op: u8, script: &mut Script<'_>) -> Option<()> {
        match op % 8 {
            // Bytes of a record as they are.
            0 => {
                let length = usize::from(script.byte()?) * 4;
                let record = Bytes::copy_from_slice(script.bytes(length));
                for frame in Frames::new(record) {
                    let Ok(frame) = frame else { break };
                    self.receive(frame);
                }
            }
            1..=3 => {
                let frame = frame(script)?;
                self.receive(frame);
            }
            4 => {
                let op = script.byte()?;
                self.application.step(&mut self.mux, op, script)?;
            }
            5 => {
                self.now += Duration::from_millis(script.byte()?.into());
                self.transmit();
            }
            6 => {
                let _ = self.mux.resume();
                let mut entries = Vec::new();
                for _ in 0..script.byte()? % 5 {
                    entries.push(received(script)?);
                }
                if let Err(violation) = self.mux.handle_resume(entries, self.now) {
                    self.mux.fail(EndReason::failed(violation.to_string()));
                }
            }
            _ => match script.byte()? % 3 {
                0 => self.mux.link_down(),
                1 => {
                    let _ = self.mux.resume();
                    self.mux.link_up();
                }
                _ => self.mux.set_round_trip(Duration::from_millis(script.byte()?.into())),
            },
        }
        Some(())
    }

    fn receive(&mut self, frame: Frame) {
        // These are the driver's own.
        if matches!(frame, Frame::Ping(_) | Frame::Pong(_) | Frame::Resume { .. } | Frame::Goodbye { .. }) {
            return;
        }
        if let Err(violation) = self.mux.handle_frame(frame, self.now) {
            self.mux.fail(EndReason::failed(violation.to_string()));
        }
    }

    fn transmit(&mut self) {
        self.mux.poll_transmit(self.now, 1 << 16, &mut self.batch);
        for parts in self.batch.records() {
            let record: Vec<u8> = parts.flatten().copied().collect();
            assert!((1..=MAX_PLAINTEXT).contains(&record.len()), "a record of {}", record.len());
            for frame in Frames::new(record.into()) {
                frame.expect("what we say can be read");
            }
        }
        self.batch.clear();
    }

    fn check(&mut self) {
        let mut events = 0;
        while self.mux.poll_event().is_some() {
            events += 1;
            assert!(events < 1000, "events without end");
        }
        let usage = self.mux.usage();
        assert!(usage.receive_bytes <= TOTAL + CONTROL + 2 * LONGEST_MESSAGE, "{usage:?}");
        assert!(usage.pending_opens <= PENDING * NAMES.len(), "{usage:?}");
        assert!(usage.subchannels <= 2 * SUBCHANNELS, "{usage:?}");
    }

    /// Whatever has happened, the end leaves nothing behind.
    fn finish(mut self) {
        self.mux.fail(EndReason::closed("the script is over"));
        assert!(self.application.wind_up(&mut self.mux), "every reader has come to the end");
        self.application.release(&mut self.mux);
        while self.mux.poll_event().is_some() {}
        let usage = self.mux.usage();
        assert_eq!((usage.outbox_bytes, usage.subchannels, usage.pending_opens), (0, 0, 0), "{usage:?}");
    }
}

fn received(script: &mut Script<'_>) -> Option<Received> {
    let id = SubchannelId(u32::from(script.byte()? % 24));
    Some(Received { id, received: script.number()?, limit: script.number()? })
}

/// A frame with numbers that lead somewhere more often than random ones.
fn frame(script: &mut Script<'_>) -> Option<Frame> {
    let kind = script.byte()?;
    let id = SubchannelId(u32::from(script.byte()? % 24));
    Some(match kind % 10 {
        0 => {
            let name = Name::from(["a", "b", "c"][usize::from(script.byte()? % 3)]);
            Frame::Open { id, limit: script.number()?, priority: script.byte()?, name }
        }
        1..=3 => {
            let (flags, length) = (script.byte()?, usize::from(script.byte()?) * 64);
            let mark = [Mark::Stream, Mark::More, Mark::End][usize::from(flags % 3)];
            let (offset, data) = (script.number()?, Bytes::from(vec![flags; length]));
            Frame::Data { id, offset, mark, fin: flags & 128 == 128, data }
        }
        4 => Frame::Credit(received(script)?),
        5 => Frame::Reset { id, code: script.number()?, final_offset: script.number()? },
        6 => Frame::Stop { id, code: script.number()? },
        7 => Frame::Refuse { id, code: script.number()? },
        8 => Frame::Datagram { id, data: Bytes::from(vec![0; usize::from(script.byte()?) * 5]) },
        _ if id.0 % 2 == 0 => Frame::LinkCredit(script.number()?),
        _ => Frame::MaxSubchannels(script.number()?),
    })
}
