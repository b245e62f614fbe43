//! What the links ask of the multiplexer.

use std::time::{Duration, Instant};

use dilated_subchannel::{
    frame::{Frame, Received, Violation},
    mux::{Progress, dilated1::Mux},
};

/// What the links ask of the multiplexer; see [`Mux`] for each.
pub trait Streams {
    /// Takes in frames that concern subchannels, and empties the list.
    ///
    /// # Errors
    ///
    /// [`Violation`]: the wormhole must end with its code.
    fn handle_frames(&mut self, frames: &mut Vec<Frame>, now: Instant) -> Result<(), Violation>;
    /// The list for our RESUME. Nothing may be transmitted until the peer's is here.
    fn resume(&mut self) -> Vec<Received>;
    /// The whole list of the peer's RESUME.
    ///
    /// # Errors
    ///
    /// [`Violation`]: the wormhole must end with its code.
    fn handle_resume(&mut self, entries: Vec<Received>, now: Instant) -> Result<(), Violation>;
    /// The first link of all is active.
    fn link_up(&mut self);
    /// The active link is lost.
    fn link_down(&mut self);
    /// How far what is sent has come.
    fn progress(&self) -> Progress;
    /// The round trip of the active link.
    fn set_round_trip(&mut self, round_trip: Duration);
}

impl Streams for Mux {
    fn handle_frames(&mut self, frames: &mut Vec<Frame>, now: Instant) -> Result<(), Violation> {
        frames.drain(..).try_for_each(|frame| self.handle_frame(frame, now))
    }

    fn resume(&mut self) -> Vec<Received> {
        Mux::resume(self)
    }

    fn handle_resume(&mut self, entries: Vec<Received>, now: Instant) -> Result<(), Violation> {
        Mux::handle_resume(self, entries, now)
    }

    fn link_up(&mut self) {
        Mux::link_up(self);
    }

    fn link_down(&mut self) {
        Mux::link_down(self);
    }

    fn progress(&self) -> Progress {
        Mux::progress(self)
    }

    fn set_round_trip(&mut self, round_trip: Duration) {
        Mux::set_round_trip(self, round_trip);
    }
}
