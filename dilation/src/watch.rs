//! The watch over a running link: its liveness, with the timer, and the measurement of its round trip.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use dilated_subchannel::{PingId, mux::Progress};
use tokio::time::Sleep;

use crate::{
    clock,
    liveness::{Liveness, LivenessConfig, Verdict},
};

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Due {
    Ping(PingId),
    /// The link is dead, for this reason.
    Dead(String),
}

#[derive(Debug)]
pub(crate) struct Watch {
    liveness: Liveness,
    timer: Pin<Box<Sleep>>,
    /// The ACK of this record, handed to the socket then, is a measurement.
    timed: Option<(u64, Instant)>,
    /// Why the link is suspect.
    suspicion: Option<String>,
    heard: bool,
}

impl Watch {
    pub(crate) fn new(config: LivenessConfig, fruitless: u32) -> Watch {
        let liveness = Liveness::new(config, fruitless, clock::now());
        let timer = Box::pin(tokio::time::sleep_until(liveness.deadline().into()));
        Watch { liveness, timer, timed: None, suspicion: None, heard: false }
    }

    /// Bytes came.
    pub(crate) fn handle_bytes(&mut self) {
        self.heard = true;
        self.liveness.handle_bytes(clock::now());
    }

    /// Records came: the answers to PINGs, and perhaps PINGs and data.
    pub(crate) fn handle_records(&mut self, pongs: &[PingId], pings: bool, data: bool) {
        self.heard = true;
        if data {
            self.liveness.handle_data();
        }
        if pings {
            // A peer that pings may be one whose application does not read. It holds its ACKs back, and how late they
            // come says nothing about the path.
            self.timed = None;
        }
        for pong in pongs {
            self.liveness.handle_pong(*pong, clock::now());
        }
    }

    /// Our application does not read.
    pub(crate) fn handle_paused(&mut self) {
        self.liveness.handle_paused(clock::now());
    }

    /// How far our records are.
    pub(crate) fn handle_progress(&mut self, progress: Progress) {
        match self.timed {
            Some((record, since)) if progress.acknowledged > record => {
                self.timed = None;
                self.liveness.handle_ack(clock::now().saturating_duration_since(since));
            }
            None if progress.is_in_flight() => self.timed = Some((progress.sent - 1, clock::now())),
            _ => {}
        }
        self.liveness.set_in_flight(progress.is_in_flight(), clock::now());
    }

    /// A record was sent again; its ACK would tell nothing (Karn's algorithm, RFC 6298, section 3).
    pub(crate) fn handle_repeat(&mut self) {
        self.timed = None;
    }

    /// The link may be broken.
    pub(crate) fn suspect(&mut self, why: String) {
        self.suspicion = Some(why);
        self.liveness.suspect(clock::now());
    }

    pub(crate) fn last_heard(&self) -> Instant {
        self.liveness.last_heard()
    }

    /// Whether anything came from the peer.
    pub(crate) fn heard(&self) -> bool {
        self.heard
    }

    /// Whether the peer acknowledged anything.
    pub(crate) fn is_loaded(&self) -> bool {
        self.liveness.is_loaded()
    }

    /// Ready when there is something to do.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        loop {
            let deadline = self.liveness.deadline();
            // A timer that is too early costs one look; arming it anew for each byte would cost more.
            if tokio::time::Instant::from_std(deadline) < self.timer.deadline() {
                self.timer.as_mut().reset(deadline.into());
            }
            ready!(self.timer.as_mut().poll(cx));
            let verdict = self.liveness.handle_timeout(clock::now());
            self.timer.as_mut().reset(self.liveness.deadline().into());
            match verdict {
                Verdict::Quiet => {}
                Verdict::Ping(id) => return Poll::Ready(Due::Ping(id)),
                Verdict::Dead => return Poll::Ready(Due::Dead(self.obituary())),
            }
        }
    }

    fn obituary(&self) -> String {
        let silence = clock::now().saturating_duration_since(self.liveness.last_heard()).as_secs_f32();
        match &self.suspicion {
            Some(why) if self.liveness.is_suspect() => format!("{why}, and the other side did not answer"),
            _ => format!("nothing was heard from the other side for {silence:.1} s"),
        }
    }
}
