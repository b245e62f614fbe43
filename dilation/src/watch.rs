//! The watch over a running link: its liveness, the measurement of its round trip, and why it is suspect. No clock.

use std::time::{Duration, Instant};

use dilated_subchannel::{PingId, mux::Progress};

use crate::liveness::{Liveness, LivenessConfig, Verdict};

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Due {
    /// Send a PING with this id.
    Ping(PingId),
    /// The answer is late, and another link could take over.
    Hedge,
    /// The link is dead, for this reason.
    Dead(String),
}

/// The watch over one link.
#[derive(Debug)]
pub struct Watch {
    liveness: Liveness,
    /// The ACK of this record, handed to the socket then, is a measurement.
    timed: Option<(u64, Instant)>,
    /// Why the link is suspect.
    suspicion: Option<String>,
    heard: bool,
}

impl Watch {
    /// Over a link that came up `now`, after so many fruitless ones that ended in silence.
    pub fn new(config: LivenessConfig, fruitless: u32, now: Instant) -> Watch {
        let liveness = Liveness::new(config, fruitless, now);
        Watch { liveness, timed: None, suspicion: None, heard: false }
    }

    /// Bytes came.
    pub fn handle_bytes(&mut self, now: Instant) {
        self.heard = true;
        self.liveness.handle_bytes(now);
    }

    /// Records came: the answers to PINGs, and perhaps PINGs and data.
    pub fn handle_records(&mut self, pongs: &[PingId], pings: bool, data: bool, now: Instant) {
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
            self.liveness.handle_pong(*pong, now);
        }
    }

    /// Our application does not read.
    pub fn handle_paused(&mut self, now: Instant) {
        self.liveness.handle_paused(now);
    }

    /// How far our records are.
    pub fn handle_progress(&mut self, progress: Progress, now: Instant) {
        match self.timed {
            Some((record, since)) if progress.acknowledged > record => {
                self.timed = None;
                self.liveness.handle_ack(now.saturating_duration_since(since));
            }
            None if progress.is_in_flight() => self.timed = Some((progress.sent - 1, now)),
            _ => {}
        }
        self.liveness.set_in_flight(progress.is_in_flight(), now);
    }

    /// The peer owes the answer to a RESUME.
    pub fn handle_asked(&mut self, now: Instant) {
        self.timed = None;
        self.liveness.set_in_flight(true, now);
    }

    /// The link stands by: the peer owes nothing on it but the answers to PINGs, and a sign of life if it owed more.
    pub fn handle_standby(&mut self, now: Instant) {
        self.timed = None;
        self.liveness.stand_by(now);
    }

    /// Whether another link could take over.
    pub fn set_hedged(&mut self, hedged: bool, now: Instant) {
        self.liveness.set_hedged(hedged, now);
    }

    /// The round trip of the path, once for each PONG that told it: without the time that an acknowledgement may wait.
    pub fn take_probed(&mut self) -> Option<Duration> {
        self.liveness.take_probed()
    }

    /// Has the round trip measured under load, too.
    pub fn set_probing(&mut self) {
        self.liveness.set_probing();
    }

    /// A record was sent again; its ACK would tell nothing (Karn's algorithm, RFC 6298, section 3).
    pub fn handle_repeat(&mut self) {
        self.timed = None;
    }

    /// The link may be broken.
    pub fn suspect(&mut self, why: String, now: Instant) {
        self.suspicion = Some(why);
        self.liveness.suspect(now);
    }

    /// When the peer was last heard.
    pub fn last_heard(&self) -> Instant {
        self.liveness.last_heard()
    }

    /// The round trip, once it was measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.liveness.round_trip()
    }

    /// Whether anything came from the peer.
    pub fn heard(&self) -> bool {
        self.heard
    }

    /// Whether the peer acknowledged anything.
    pub fn is_loaded(&self) -> bool {
        self.liveness.is_loaded()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn deadline(&self) -> Instant {
        self.liveness.deadline()
    }

    /// What to do `now`, if the time has come for anything.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        if self.liveness.deadline() > now {
            return None;
        }
        match self.liveness.handle_timeout(now) {
            Verdict::Quiet => None,
            Verdict::Ping(id) => Some(Due::Ping(id)),
            Verdict::Hedge => Some(Due::Hedge),
            Verdict::Dead => Some(Due::Dead(self.obituary(now))),
        }
    }

    fn obituary(&self, now: Instant) -> String {
        let silence = now.saturating_duration_since(self.liveness.last_heard()).as_secs_f32();
        match &self.suspicion {
            Some(why) if self.liveness.is_suspect() => format!("{why}, and the other side did not answer"),
            _ => format!("nothing was heard from the other side for {silence:.1} s"),
        }
    }
}
