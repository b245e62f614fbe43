//! A link in service, as the product's `LinkPump` and `Watch` run it: seals what is queued, opens what arrives, keeps
//! the link alive.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use dilated::{
    LivenessConfig,
    protocol::{Due, Verdict},
};
use dilated_subchannel::{
    mux::ged::Mux,
    record::{PingId, Record},
};
use dilated_transit::{Opener, Sealer};

use crate::{
    network::{Network, Place},
    python::Keepalive,
};

/// Bytes of ciphertext that wait to be put on the wire before the multiplexer is asked for more.
const WRITE_AHEAD: usize = 4096;

/// What goes ahead on a link that may die young.
const FIRST_FLIGHT: usize = 4096;

/// As in the product.
const NUDGE: Duration = Duration::from_secs(1);
const NUDGE_DRAINING: Duration = Duration::from_millis(250);
const NUDGE_MAX: Duration = Duration::from_secs(30);

/// Turns of one visit; the product yields and goes on.
const MAX_TURNS: usize = 1000;

/// Why a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    Lost,
    Silent,
}

/// Who watches over it.
pub(crate) enum Watch {
    Ours(Box<Ours>),
    Python(Keepalive),
}

/// The product's watch, and when to ask for an ACK again.
pub(crate) struct Ours {
    watch: dilated::protocol::Watch,
    nudged: Option<Instant>,
    nudge_wait: Duration,
}

impl Ours {
    pub(crate) fn new(silent: u32, now: Instant) -> Ours {
        let watch = dilated::protocol::Watch::new(LivenessConfig::default(), silent, now);
        Ours { watch, nudged: None, nudge_wait: NUDGE }
    }

    fn nudge_due(&self) -> Option<Instant> {
        Some(self.nudged?.max(self.watch.last_heard()) + self.nudge_wait)
    }
}

pub(crate) struct Link {
    pub(crate) place: Place,
    sealer: Sealer,
    opener: Opener,
    output: BytesMut,
    watch: Watch,
    /// Anything came from the peer.
    pub(crate) heard: bool,
    /// The link may die young: until the peer is heard, or until then, only the first flight is sent.
    caution: Option<Instant>,
    started: bool,
    /// To tell once everything is delivered.
    draining: bool,
}

impl Link {
    /// Takes a connection into service. `output` is what is still to be sent of the handshake.
    pub(crate) fn new(
        place: Place,
        pipe: (Sealer, Opener),
        output: BytesMut,
        mux: &mut Mux,
        watch: Watch,
    ) -> Link {
        mux.link_up();
        let (sealer, opener) = pipe;
        Link {
            place,
            sealer,
            opener,
            output,
            watch,
            heard: false,
            caution: None,
            started: false,
            draining: false,
        }
    }

    /// The link before this one died young: begins carefully.
    pub(crate) fn be_cautious(&mut self, until: Instant) {
        self.caution = Some(until);
    }

    /// Lets [`poll`](Self::poll) tell once everything written was acknowledged.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
        if let Watch::Ours(ours) = &mut self.watch {
            ours.nudge_wait = NUDGE_DRAINING;
        }
    }

    /// What is sealed and not written, when the link is closed in order.
    pub(crate) fn close(self) -> (Place, BytesMut) {
        (self.place, self.output)
    }

    /// Whether the peer has acknowledged anything.
    pub(crate) fn is_loaded(&self) -> bool {
        matches!(&self.watch, Watch::Ours(ours) if ours.watch.is_loaded())
    }

    /// What its watch knows, in words.
    pub(crate) fn health(&self, now: Instant) -> String {
        match &self.watch {
            Watch::Ours(ours) => {
                let silence = now.saturating_duration_since(ours.watch.last_heard());
                let (round_trip, loaded) = (ours.watch.round_trip(), ours.watch.is_loaded());
                format!("heard {silence:.1?} ago, round trip {round_trip:.1?}, loaded {loaded}")
            }
            Watch::Python(_) => "watched by Python".to_owned(),
        }
    }

    pub(crate) fn suspect(&mut self, now: Instant) {
        if let Watch::Ours(ours) = &mut self.watch {
            ours.watch.suspect("a disturbance".to_owned(), now);
        }
    }

    /// When it has to be polled again, if nothing arrives before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let watch = match &self.watch {
            Watch::Ours(ours) => {
                Some(ours.nudge_due().map_or(ours.watch.deadline(), |nudge| nudge.min(ours.watch.deadline())))
            }
            Watch::Python(keepalive) => keepalive.deadline(),
        };
        watch.into_iter().chain(self.caution).min()
    }

    /// Does all that can be done now, and says whether everything was delivered that had to be. `records` counts those
    /// that were opened.
    pub(crate) fn poll(
        &mut self,
        mux: &mut Mux,
        records: &mut u64,
        network: &mut Network,
    ) -> Result<bool, LinkEnd> {
        let now = network.now;
        self.caution.take_if(|until| *until <= now);
        for _ in 0..MAX_TURNS {
            let wrote = self.poll_write(mux, network)?;
            let read = self.poll_read(mux, records, network)?;
            if let Watch::Ours(ours) = &mut self.watch {
                ours.watch.handle_progress(mux.progress(), now);
            }
            let watched = self.poll_watch(now)?;
            if !(wrote || read || watched || self.poll_nudge(mux, now)) {
                let drained = self.draining && mux.is_drained() && self.output.is_empty();
                self.draining &= !drained;
                return Ok(drained);
            }
        }
        panic!("a link does not come to rest");
    }

    /// Whether something was sealed.
    fn poll_write(&mut self, mux: &mut Mux, network: &mut Network) -> Result<bool, LinkEnd> {
        let mut sealed = false;
        if self.output.is_empty() {
            if self.started && self.heard {
                self.caution = None;
            }
            let most = match self.caution {
                None => WRITE_AHEAD,
                Some(_) if self.started => 0,
                Some(_) => FIRST_FLIGHT,
            };
            while self.output.len() < most
                && let Some(record) = mux.poll_transmit()
            {
                self.seal(&record);
                sealed = true;
            }
            self.started |= sealed;
        }
        if !self.output.is_empty() {
            network.write(self.place, &mut self.output).map_err(|()| LinkEnd::Lost)?;
        }
        Ok(sealed)
    }

    /// Whether something was read.
    fn poll_read(
        &mut self,
        mux: &mut Mux,
        records: &mut u64,
        network: &mut Network,
    ) -> Result<bool, LinkEnd> {
        if mux.read_paused() {
            if let Watch::Ours(ours) = &mut self.watch {
                ours.watch.handle_paused(network.now);
            }
            return Ok(false);
        }
        if self.open_records(mux, records, network) {
            return Ok(true);
        }
        let bytes = network.read(self.place).map_err(|()| LinkEnd::Lost)?;
        if bytes.is_empty() {
            return Ok(false);
        }
        self.opener.buffer().extend_from_slice(&bytes);
        self.heard = true;
        if let Watch::Ours(ours) = &mut self.watch {
            ours.watch.handle_bytes(network.now);
        }
        Ok(true)
    }

    /// Hands over what is complete, also what came bundled with the KCM or waited behind a pause.
    fn open_records(&mut self, mux: &mut Mux, records: &mut u64, network: &Network) -> bool {
        let mut any = false;
        while !mux.read_paused() {
            let Some(message) = self.opener.next_message().expect("honest bytes") else { break };
            let record = Record::decode(message).expect("an honest record");
            let data = matches!(record, Record::Open { .. } | Record::Data { .. } | Record::Close { .. });
            let ping = matches!(record, Record::Ping(_));
            *records += 1;
            any = true;
            self.heard = true;
            let pong = mux.handle_record(record).expect("an honest peer");
            match &mut self.watch {
                Watch::Ours(ours) => {
                    ours.watch.handle_records(pong.as_slice(), ping, data, network.now);
                }
                Watch::Python(keepalive) => {
                    if pong.is_some() {
                        keepalive.handle_pong();
                    }
                }
            }
        }
        any
    }

    /// Whether a PING was sealed.
    fn poll_watch(&mut self, now: Instant) -> Result<bool, LinkEnd> {
        let verdict = match &mut self.watch {
            Watch::Ours(ours) => match ours.watch.handle_timeout(now) {
                Some(Due::Ping(id)) => Verdict::Ping(id),
                Some(Due::Dead(_)) => Verdict::Dead,
                _ => Verdict::Quiet,
            },
            Watch::Python(keepalive) => keepalive.handle_timeout(now),
        };
        match verdict {
            Verdict::Quiet => {
                assert!(
                    self.watch_deadline().is_none_or(|at| at > now),
                    "a timer of the watch is due and nothing is done"
                );
                Ok(false)
            }
            Verdict::Ping(id) => {
                self.ping(id);
                Ok(true)
            }
            Verdict::Dead => Err(LinkEnd::Silent),
            Verdict::Hedge => unreachable!("there is never another link"),
        }
    }

    fn watch_deadline(&self) -> Option<Instant> {
        match &self.watch {
            Watch::Ours(ours) => Some(ours.watch.deadline()),
            Watch::Python(keepalive) => keepalive.deadline(),
        }
    }

    fn ping(&mut self, id: PingId) {
        self.seal(&Record::Ping(id));
    }

    /// Whether an ACK was asked for again.
    fn poll_nudge(&mut self, mux: &mut Mux, now: Instant) -> bool {
        let Watch::Ours(ours) = &mut self.watch else { return false };
        let drained = mux.is_drained();
        if drained {
            ours.nudge_wait = NUDGE;
        }
        if drained || !self.output.is_empty() {
            ours.nudged = None;
            return false;
        }
        ours.nudged.get_or_insert(now);
        if ours.nudge_due().is_none_or(|due| due > now) {
            return false;
        }
        ours.nudged = Some(now);
        ours.nudge_wait = (ours.nudge_wait * 2).min(NUDGE_MAX);
        mux.nudge();
        ours.watch.handle_repeat();
        true
    }

    fn seal(&mut self, record: &Record) {
        let header = record.header();
        self.sealer.seal(&[header.as_ref(), record.body()], &mut self.output).expect("within the limits");
    }
}
