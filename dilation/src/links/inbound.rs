//! What comes from the peer: which of it is about the links, and in which order it counts.

use std::time::Instant;

use dilated_subchannel::frame::{Frame, Frames, Received, Violation};

use super::{LinkEvent, LinkId, Links, Streams, activation::Verdict};
use crate::error::DilationError;

impl Links {
    /// Takes the frames of a record. What concerns subchannels waits for [`handle_inbound`](Self::handle_inbound), and
    /// so does the end if something cannot be read.
    pub fn handle_record(&mut self, id: LinkId, frames: Frames, now: Instant) {
        let Some(line) = self.lines.iter_mut().find(|line| line.id == id) else { return };
        if self.fault.is_none() {
            self.fault = line.handle_record(frames, &mut self.inbound, now).err();
        }
    }

    /// Hands over what came on this link.
    pub fn handle_inbound(
        &mut self,
        id: LinkId,
        streams: &mut impl Streams,
        now: Instant,
    ) -> Option<LinkEvent> {
        let event = self.hand_over(id, streams, now);
        let fault = self.fault.take().filter(|_| !matches!(event, Some(LinkEvent::Fatal(_))));
        match fault {
            Some(violation) => Some(self.refuse(&violation)),
            None => event,
        }
    }

    fn hand_over(&mut self, id: LinkId, streams: &mut impl Streams, now: Instant) -> Option<LinkEvent> {
        if self.inbound.is_empty() {
            return None;
        }
        let special = |frame: &Frame| matches!(frame, Frame::Resume { .. } | Frame::Goodbye { .. });
        if !self.inbound.iter().any(special) {
            let handled = streams.handle_frames(&mut self.inbound, now);
            return handled.err().map(|violation| self.refuse(&violation));
        }
        let handled = self.handle_special(id, streams, now);
        handled.unwrap_or_else(|violation| Some(self.refuse(&violation)))
    }

    /// The same, with RESUME or GOODBYE among it.
    fn handle_special(
        &mut self,
        id: LinkId,
        streams: &mut impl Streams,
        now: Instant,
    ) -> Result<Option<LinkEvent>, Violation> {
        let (mut event, mut run) = (None, Vec::new());
        for frame in std::mem::take(&mut self.inbound) {
            match frame {
                Frame::Resume { epoch, more, entries } => {
                    // What came before it, first.
                    streams.handle_frames(&mut run, now)?;
                    if self.handle_resume(id, epoch, more, entries, streams, now)? {
                        event = Some(LinkEvent::Changed);
                    }
                }
                Frame::Goodbye { code, reason } => {
                    streams.handle_frames(&mut run, now)?;
                    return Ok(Some(LinkEvent::Fatal(match code {
                        Violation::CLOSED => DilationError::PeerClosed,
                        _ => DilationError::Refused { code, reason },
                    })));
                }
                frame => run.push(frame),
            }
        }
        streams.handle_frames(&mut run, now)?;
        Ok(event)
    }

    /// Returns whether the active link is another one now.
    fn handle_resume(
        &mut self,
        id: LinkId,
        epoch: u64,
        more: bool,
        entries: Vec<Received>,
        streams: &mut impl Streams,
        now: Instant,
    ) -> Result<bool, Violation> {
        let most = self.most_entries;
        let Some(line) = self.line(id) else { return Ok(false) };
        line.add_to_list(epoch, entries, most)
            .map_err(|()| fault("a RESUME has more subchannels than there can be"))?;
        if more {
            return Ok(false);
        }
        let list = line.take_list();
        let before = self.current();
        let answer = match self.activation.handle_resume(id, epoch) {
            Verdict::Adopt { answer } => answer,
            Verdict::Ignore => return Ok(false),
            Verdict::Exceed => {
                self.activate(id, streams, now);
                return Ok(false);
            }
        };
        if answer {
            let ours = streams.resume();
            self.say_resume(id, epoch, &ours);
        }
        streams.handle_resume(list, now)?;
        self.upgrade.follow(Some(id), now);
        self.hedge(now);
        Ok(!answer || before != Some(id))
    }
}

/// Something of the peer that cannot be read.
fn fault(text: &'static str) -> Violation {
    Violation { code: Violation::FRAME, text: text.into() }
}
