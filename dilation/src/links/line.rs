//! One link of `dilated-1`: the frames that concern the link itself, and the watch over it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use dilated_subchannel::{
    PingId,
    frame::{Frame, Frames, MAX_PLAINTEXT, Received, Violation},
};
use dilated_transit::Path;

use super::{LinkEvent, activation::LinkId};
use crate::{
    liveness::LivenessConfig,
    watch::{Due, Watch},
};

/// Answers to PING that wait for the socket; of a peer that asks more often the oldest are forgotten
/// (specification `dilated-1`, section "Liveness").
const MAX_PONGS: usize = 16;

#[derive(Debug)]
pub(super) struct Line {
    pub(super) id: LinkId,
    pub(super) path: Path,
    pub(super) watch: Watch,
    pongs: VecDeque<u64>,
    /// Frames that concern the link, to be sent before anything else.
    urgent: VecDeque<Frame>,
    /// The peer's list, as far as it is here, and its epoch.
    list: (u64, Vec<Received>),
    /// GOODBYE is said: nothing follows it.
    silent: bool,
    /// Another link took over because the answers on this one were late.
    pub(super) left: Option<Instant>,
}

impl Line {
    pub(super) fn new(id: LinkId, path: Path, config: LivenessConfig, fruitless: u32, now: Instant) -> Line {
        let mut watch = Watch::new(config, fruitless, now);
        watch.set_probing();
        let (pongs, urgent, list) = Default::default();
        Line { id, path, watch, pongs, urgent, list, silent: false, left: None }
    }

    /// Whether it has nothing to say of itself.
    pub(super) fn is_quiet(&self) -> bool {
        self.silent || self.urgent.is_empty() && self.pongs.is_empty()
    }

    /// Whether there is hope that it answers sooner than one that hesitates.
    pub(super) fn is_hopeful(&self) -> bool {
        self.left.is_none_or(|left| self.watch.last_heard() > left)
    }

    /// A RESUME that was not sent yet is outdated.
    pub(super) fn withdraw_resume(&mut self) {
        self.urgent.retain(|frame| !matches!(frame, Frame::Resume { .. }));
    }

    /// Takes a part of the peer's list. What came of an earlier epoch's is void.
    ///
    /// # Errors
    ///
    /// `Err` if it has more than `most` entries.
    pub(super) fn add_to_list(&mut self, epoch: u64, entries: Vec<Received>, most: usize) -> Result<(), ()> {
        let (of, list) = &mut self.list;
        if *of != epoch {
            (*of, *list) = (epoch, Vec::new());
        }
        if list.len() + entries.len() > most {
            return Err(());
        }
        list.extend(entries);
        Ok(())
    }

    /// The list is complete.
    pub(super) fn take_list(&mut self) -> Vec<Received> {
        std::mem::take(&mut self.list.1)
    }

    /// Queues our RESUME.
    pub(super) fn resume(&mut self, epoch: u64, entries: &[Received]) {
        self.urgent.extend(Frame::resume(epoch, entries));
    }

    /// Queues GOODBYE.
    pub(super) fn goodbye(&mut self, code: u64, reason: String) {
        self.urgent.push_back(Frame::Goodbye { code, reason });
    }

    /// Appends one record's worth of what it has to say of itself. Returns whether there was anything.
    pub(super) fn poll_transmit(&mut self, out: &mut Vec<u8>) -> bool {
        if self.silent {
            return false;
        }
        let before = out.len();
        while let Some(id) = self.pongs.pop_front() {
            Frame::Pong(id).encode(out);
        }
        while let Some(frame) = self.urgent.front() {
            if out.len() - before + frame.encoded_len() > MAX_PLAINTEXT {
                break;
            }
            frame.encode(out);
            self.silent = matches!(frame, Frame::Goodbye { .. });
            self.urgent.pop_front();
            if self.silent {
                self.urgent.clear();
            }
        }
        out.len() > before
    }

    /// Takes the frames of a record; those that are not the link's own business are appended to `inbound`.
    ///
    /// # Errors
    ///
    /// Why the rest of it cannot be read.
    pub(super) fn handle_record(
        &mut self,
        frames: Frames,
        inbound: &mut Vec<Frame>,
        now: Instant,
    ) -> Result<(), Violation> {
        let before = inbound.len();
        for frame in frames {
            match frame? {
                Frame::Padding => {}
                Frame::Ping(id) => {
                    if self.pongs.len() == MAX_PONGS {
                        self.pongs.pop_front();
                    }
                    self.pongs.push_back(id);
                }
                Frame::Pong(id) => {
                    if let Ok(id) = u32::try_from(id) {
                        self.watch.handle_records(&[PingId::new(id.to_be_bytes())], false, false, now);
                    }
                }
                frame => inbound.push(frame),
            }
        }
        self.watch.handle_records(&[], false, inbound.len() > before, now);
        Ok(())
    }

    /// What its watch has to say; PINGs are queued by this.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<Timed, LinkEvent> {
        match self.watch.handle_timeout(now) {
            None => Ok(Timed::Nothing),
            Some(Due::Ping(id)) => {
                let bytes = id.as_bytes().try_into().expect("our own ids have four bytes");
                self.urgent.push_back(Frame::Ping(u64::from(u32::from_be_bytes(bytes))));
                Ok(Timed::Pinged)
            }
            Some(Due::Hedge) => Ok(Timed::Hesitant),
            Some(Due::Dead(reason)) => Err(LinkEvent::Silent(reason)),
        }
    }

    /// The round trip of its path, once for each measurement.
    pub(super) fn take_probed(&mut self) -> Option<Duration> {
        self.watch.take_probed()
    }
}

/// What a watch found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timed {
    Nothing,
    Pinged,
    /// The peer's answer is late, but not yet so late that the link is dead.
    Hesitant,
}
