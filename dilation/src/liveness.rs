//! Is the link alive? What is owed an answer, how long that may take, and the verdict when it does not come.
//!
//! Specification `ged`, section "Keepalive", with differences that no peer can see: both roles ping (Python answers in
//! both), every byte from the peer counts as life, and the patience is measured instead of fixed. A saturated relay
//! with deep buffers is slow to answer a PING, but it never falls silent.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use dilated_subchannel::PingId;

use crate::rtt::RoundTrip;

/// PINGs that may be unanswered at a time and still be measured; more than any patience allows.
const MAX_SENT: usize = 16;

/// How a link is watched. `LivenessConfig::default()` suits most.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LivenessConfig {
    /// An idle link is probed with a PING after this long without a byte from the peer. At least 100 ms. Default 15 s.
    pub ping_interval: Duration,
    /// How long the answer to that PING may take, and at least [`round_trips`](Self::round_trips). Default 3 s.
    pub ping_timeout: Duration,
    /// With data in flight, silence of this length ends the link, and at least
    /// [`round_trips`](Self::round_trips). When a stream of records from the peer stops for as long, the link is
    /// probed, and has the same time to answer. Default 1 s.
    pub silence: Duration,
    /// The same on a link whose round trip under load is not known, because the peer has not acknowledged anything
    /// yet: a slow path may need that long for the first record. Default 4 s.
    pub first_silence: Duration,
    /// After a link that died young the next one begins with one record, and waits so long for the peer's first bytes
    /// before it sends more. Default 250 ms.
    pub first_answer: Duration,
    /// How many round trips, smoothed as in RFC 6298, an answer may take. Default 4.
    pub round_trips: u32,
    /// After a change of this machine's addresses or routes, or its sleep, the link has this long to show that it
    /// still works, and at least [`round_trips`](Self::round_trips). Default 500 ms.
    pub suspicion: Duration,
    /// While our own application does not read, the peer gets neither ACK nor PONG; a PING so often shows it that we
    /// are here. Must be well below the peer's [`silence`](Self::silence). Default 250 ms.
    pub paused_ping: Duration,
    /// With another link standing by, that one takes over when data is in flight and silence has this length, and at
    /// least [`round_trips`](Self::round_trips); the silent link has still to die. A link whose round trip was not
    /// measured yet has half of [`first_silence`](Self::first_silence). Default 100 ms.
    pub hedge: Duration,
    /// An ACK that is missing while the peer is heard of is asked for after this long, by sending the last record again;
    /// the wait doubles each time up to [`nudge_max`](Self::nudge_max). A Python Follower loses the ACKs that it owes
    /// for what arrives together with the KCM, and would never repeat them by itself. Default 1 s.
    pub nudge: Duration,
    /// The longest such wait. Default 30 s.
    pub nudge_max: Duration,
    /// The first such wait of a close. Default 250 ms.
    pub nudge_draining: Duration,
    /// The longest patience of all. Each link that ends in silence before the peer has acknowledged anything doubles
    /// that of the next one up to this, so that a path that is merely slow is not given up for ever. Default 60 s.
    pub longest: Duration,
}

impl Default for LivenessConfig {
    fn default() -> Self {
        LivenessConfig {
            ping_interval: Duration::from_secs(15),
            ping_timeout: Duration::from_secs(3),
            silence: Duration::from_secs(1),
            first_silence: Duration::from_secs(4),
            first_answer: Duration::from_millis(250),
            round_trips: 4,
            suspicion: Duration::from_millis(500),
            paused_ping: Duration::from_millis(250),
            hedge: Duration::from_millis(100),
            nudge: Duration::from_secs(1),
            nudge_max: Duration::from_secs(30),
            nudge_draining: Duration::from_millis(250),
            longest: Duration::from_secs(60),
        }
    }
}

/// What the driver must do about liveness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing until [`Liveness::deadline`].
    Quiet,
    /// Send a PING with this id.
    Ping(PingId),
    /// The peer is late with an answer: let another link take over.
    Hedge,
    /// Nothing has been heard for too long: abort the link.
    Dead,
}

/// Something that the peer owes us.
#[derive(Debug, Clone, Copy)]
struct Debt {
    since: Instant,
    /// The peer was reminded with a PING.
    reminded: bool,
}

/// The watch over one link. No clock: every call says what time it is.
#[derive(Debug)]
pub struct Liveness {
    config: LivenessConfig,
    /// How often the patience is doubled.
    doublings: u32,
    round_trip: Option<RoundTrip>,
    /// An ACK was timed on this link, so the round trip includes what a record needs.
    loaded: bool,
    last_heard: Instant,
    next_ping: Instant,
    /// Records of the application came since the last PING.
    active: bool,
    /// Data is unacknowledged.
    data: Option<Debt>,
    /// A PING is unanswered; whether it was sent because a stream of records had stopped.
    ping: Option<(Debt, bool)>,
    /// Data goes over another link, and what the peer owes here is a sign of life.
    standing_by: bool,
    /// Another link could take over since then; whether that was said since the peer was last heard.
    hedged: Option<(Instant, bool)>,
    /// The link is suspect.
    suspicion: Option<Debt>,
    /// The PINGs whose PONG would be a measurement: on a long path the next leaves before the answer to the last.
    sent: VecDeque<(PingId, Instant)>,
    /// What it measured.
    probed: Option<Duration>,
    /// When it was sent.
    pinged: Instant,
    /// The round trip is measured under load, too.
    probing: bool,
    counter: u32,
}

impl Liveness {
    /// A link that came up `now`, after so many fruitless ones that ended in silence.
    pub fn new(config: LivenessConfig, fruitless: u32, now: Instant) -> Liveness {
        Liveness {
            config,
            doublings: fruitless,
            round_trip: None,
            loaded: false,
            last_heard: now,
            // The first PING is a measurement, and shows a Leader that the Follower has the link.
            next_ping: now,
            active: false,
            data: None,
            ping: None,
            standing_by: false,
            hedged: None,
            suspicion: None,
            sent: VecDeque::new(),
            probed: None,
            pinged: now,
            probing: false,
            counter: 0,
        }
    }

    /// Bytes came from the peer.
    pub fn handle_bytes(&mut self, now: Instant) {
        self.last_heard = now;
        self.ping = None;
        self.hedged = self.hedged.map(|(since, _)| (since, false));
        if self.standing_by {
            self.data = None;
        } else if let Some(debt) = &mut self.data {
            *debt = Debt { since: now, reminded: false };
        }
        // What the machine had received before the suspicion proves nothing, but it is read at once.
        let patience = self.suspicion_patience();
        if self.suspicion.is_some_and(|debt| now >= debt.since + patience / 2) {
            self.suspicion = None;
        }
        if self.counter > 0 {
            let quiet = if self.active { self.config.silence } else { self.config.ping_interval };
            self.next_ping = now + quiet.min(self.config.ping_interval);
            if self.probing && self.active {
                self.next_ping = self.next_ping.min((self.pinged + self.config.silence).max(now));
            }
        }
    }

    /// Records of the application came, so silence will be news: the PING comes sooner.
    pub fn handle_data(&mut self) {
        self.active = true;
    }

    /// A PONG came.
    pub fn handle_pong(&mut self, id: PingId, now: Instant) {
        if let Some(index) = self.sent.iter().position(|(sent, _)| *sent == id) {
            let at = self.sent[index].1;
            self.sent.drain(..=index);
            let took = now.saturating_duration_since(at);
            self.probed = Some(took);
            self.measure(took);
            if self.suspicion.is_some_and(|debt| at >= debt.since) {
                self.suspicion = None;
            }
        }
    }

    /// The peer acknowledged a record that was handed to the socket so long ago.
    pub fn handle_ack(&mut self, took: Duration) {
        self.loaded = true;
        self.doublings = 0;
        self.measure(took);
    }

    /// Whether data is on its way that the peer has not acknowledged.
    pub fn set_in_flight(&mut self, in_flight: bool, now: Instant) {
        if std::mem::take(&mut self.standing_by) {
            self.data = None;
        }
        match (in_flight, &self.data) {
            (true, None) => self.data = Some(Debt { since: now, reminded: false }),
            (false, Some(_)) => self.data = None,
            _ => {}
        }
    }

    /// Data goes over another link now. A peer that owes an answer here is asked for a sign of life; if it gives none, the
    /// link is dead when it would have been anyway.
    pub fn stand_by(&mut self, now: Instant) {
        if self.data.is_some() && !std::mem::replace(&mut self.standing_by, true) {
            self.next_ping = now;
        }
    }

    /// Our own reading is paused because the application does not read: silence says nothing about the peer.
    pub fn handle_paused(&mut self, now: Instant) {
        self.last_heard = now;
        (self.ping, self.suspicion) = (None, None);
        self.sent.clear();
        if let Some(debt) = &mut self.data {
            *debt = Debt { since: now, reminded: false };
        }
        self.next_ping = self.next_ping.min(now + self.config.paused_ping);
    }

    /// Something happened that may have broken the link: it has to show that it works.
    pub fn suspect(&mut self, now: Instant) {
        self.suspicion.get_or_insert(Debt { since: now, reminded: false });
    }

    /// Whether another link could take over. What this one owed before that does not count: it may just have taken over
    /// itself.
    pub fn set_hedged(&mut self, hedged: bool, now: Instant) {
        self.hedged = hedged.then(|| self.hedged.unwrap_or((now, false)));
    }

    /// What the last PONG measured, once for each.
    pub fn take_probed(&mut self) -> Option<Duration> {
        self.probed.take()
    }

    /// Has a busy link measured by PING, too, not only an idle one: whoever sizes windows wants to know.
    pub fn set_probing(&mut self) {
        self.probing = true;
    }

    /// Whether it has not shown that yet.
    pub fn is_suspect(&self) -> bool {
        self.suspicion.is_some()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn deadline(&self) -> Instant {
        let debts = self.debts().flat_map(|(debt, patience)| {
            let end = debt.since + patience;
            [Some(end), (!debt.reminded).then(|| reminder(debt, patience))]
        });
        let debts = debts.flatten().min();
        let suspect = self.suspicion.filter(|debt| !debt.reminded).map(|debt| debt.since);
        debts.into_iter().chain(suspect).chain(self.hedge()).fold(self.next_ping, Instant::min)
    }

    /// When the peer was last heard.
    pub fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// The round trip, once it was measured.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip.map(|round_trip| round_trip.smoothed())
    }

    /// Whether the peer has acknowledged anything on this link.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Decides what to do `now`.
    pub fn handle_timeout(&mut self, now: Instant) -> Verdict {
        if now >= self.deadline() + self.config.suspicion {
            self.handle_late(now);
        }
        if self.debts().any(|(debt, patience)| debt.since + patience <= now) {
            return Verdict::Dead;
        }
        if self.hedge().is_some_and(|at| at <= now) {
            self.hedged = self.hedged.map(|(since, _)| (since, true));
            return Verdict::Hedge;
        }
        let mut remind = false;
        let data = self.data_patience();
        let ping = self.ping.map_or(data, |(_, active)| self.ping_patience(active));
        let ping_debt = self.ping.as_mut().map(|(debt, _)| debt);
        for (debt, patience) in [(self.data.as_mut(), data), (ping_debt, ping)] {
            if let Some(debt) = debt.filter(|debt| !debt.reminded && reminder(**debt, patience) <= now) {
                debt.reminded = true;
                remind = true;
            }
        }
        if let Some(debt) = self.suspicion.as_mut().filter(|debt| !debt.reminded) {
            debt.reminded = true;
            remind = true;
        }
        if self.next_ping <= now {
            // A Python Follower may lose its answer to the very first one, so nothing hangs on that.
            if self.counter > 0 {
                self.ping.get_or_insert((Debt { since: now, reminded: false }, self.active));
            }
            remind = true;
        }
        if !remind {
            return Verdict::Quiet;
        }
        self.active = false;
        self.next_ping = now + self.config.ping_interval;
        self.counter = self.counter.wrapping_add(1);
        let id = PingId::from(self.counter.to_be_bytes());
        if self.sent.len() == MAX_SENT {
            self.sent.pop_front();
        }
        self.sent.push_back((id, now));
        self.pinged = now;
        Verdict::Ping(id)
    }

    /// It was us who did not look, asleep or without processor time. What the peer owed may be on its way: it gets its
    /// time again, but the link is suspect.
    fn handle_late(&mut self, now: Instant) {
        let fresh = Debt { since: now, reminded: false };
        self.data = self.data.map(|_| fresh);
        self.ping = self.ping.map(|(_, active)| (fresh, active));
        self.suspicion = Some(fresh);
    }

    /// When another link should take over.
    fn hedge(&self) -> Option<Instant> {
        let (since, said) = self.hedged?;
        let owed = [self.data, self.suspicion].into_iter().flatten().map(|debt| debt.since).min()?;
        let least = match self.round_trip {
            Some(_) => self.config.hedge,
            // A slow path would else never get the chance to answer.
            None => self.config.hedge.max(self.config.first_silence / 2),
        };
        (!said).then(|| owed.max(since) + self.patience(least))
    }

    fn debts(&self) -> impl Iterator<Item = (Debt, Duration)> {
        [
            self.data.map(|debt| (debt, self.data_patience())),
            self.ping.map(|(debt, active)| (debt, self.ping_patience(active))),
            self.suspicion.map(|debt| (debt, self.suspicion_patience())),
        ]
        .into_iter()
        .flatten()
    }

    fn measure(&mut self, took: Duration) {
        match &mut self.round_trip {
            Some(round_trip) => round_trip.update(took),
            None => self.round_trip = Some(RoundTrip::new(took)),
        }
    }

    fn data_patience(&self) -> Duration {
        self.patience(if self.loaded { self.config.silence } else { self.config.first_silence })
    }

    fn ping_patience(&self, active: bool) -> Duration {
        self.patience(match self.round_trip {
            Some(_) if active => self.config.silence,
            // A slow path may need that long.
            None if active => self.config.first_silence,
            _ => self.config.ping_timeout,
        })
    }

    fn suspicion_patience(&self) -> Duration {
        self.patience(self.config.suspicion)
    }

    fn patience(&self, least: Duration) -> Duration {
        let measured = self.round_trip.map_or(least, |rtt| rtt.patience(self.config.round_trips));
        let doubled = least.max(measured).saturating_mul(2u32.saturating_pow(self.doublings));
        doubled.min(self.config.longest.max(least))
    }
}

/// When the peer is asked for what it owes: half of the patience is left for the answer.
fn reminder(debt: Debt, patience: Duration) -> Instant {
    debt.since + patience / 2
}

#[cfg(test)]
mod tests;
