//! The links of `dilated-1`, as the product's `LinksPump` runs them: the product's [`Links`] decides, this seals what is to
//! be sent on each, opens what arrives, and has every frame looked at.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use dilated::{
    LivenessConfig,
    protocol::{LinkEvent, LinkId, Links},
};
use dilated_subchannel::{
    frame::{Frame, Frames, MAX_PLAINTEXT, Violation},
    mux::{Batch, Params, dilated1::Mux},
};
use dilated_transit::{Better, Opener, Path, Role, Sealer};
use rand::RngExt;

use crate::{
    audit::Audit,
    book::Book,
    connector::Candidate,
    network::{Network, Place},
    trace::name,
};

/// Bytes of plaintext that are asked for at a time.
const WRITE_AHEAD: usize = 4096;
/// As in the product, on a link that may die young: bytes of a record, and of what goes ahead.
const SHORT_RECORD: usize = 4096;
const FIRST_FLIGHT: usize = 4096;
/// Subchannels that a RESUME may list.
const MOST_ENTRIES: usize = 1000;
/// Turns of one visit; the product yields and goes on.
const MAX_TURNS: usize = 1000;

/// The beginning of a link that may die young.
struct Caution {
    /// What the peer had acknowledged before.
    acknowledged: u64,
    patience: Duration,
    over: Option<Instant>,
}

struct Wire {
    id: LinkId,
    place: Place,
    generation: u64,
    sealer: Sealer,
    opener: Opener,
    output: BytesMut,
}

pub(crate) struct Wires {
    number: usize,
    links: Links,
    wires: Vec<Wire>,
    audit: Audit,
    batch: Batch,
    caution: Option<Caution>,
    /// To tell once everything is delivered.
    draining: bool,
}

impl Wires {
    /// Of a side whose peer said `peer` of itself.
    pub(crate) fn new(number: usize, role: Role, peer: Params) -> Wires {
        Wires {
            number,
            links: Links::new(role, LivenessConfig::default(), MOST_ENTRIES),
            wires: Vec::new(),
            audit: Audit::new(role, peer),
            batch: Batch::new(),
            caution: None,
            draining: false,
        }
    }

    /// Links keep dying young: begins with little.
    pub(crate) fn be_cautious(&mut self, patience: Duration, mux: &Mux) {
        let acknowledged = mux.progress().acknowledged;
        self.caution = Some(Caution { acknowledged, patience, over: None });
        self.batch.set_longest(SHORT_RECORD);
    }

    /// Lets [`poll`](Self::poll) tell once everything written was acknowledged.
    pub(crate) fn drain(&mut self) {
        self.draining = true;
    }

    /// Says goodbye on every link, on the active one first. Returns the connections that are to be closed in order, with
    /// what is still to be written.
    pub(crate) fn close(&mut self, mux: &mut Mux, network: &mut Network) -> Vec<(Place, BytesMut)> {
        mux.link_down();
        self.links.goodbye(Violation::CLOSED, "");
        let current = self.links.current();
        self.wires.sort_by_key(|wire| Some(wire.id) != current);
        let mut last = Vec::new();
        for mut wire in std::mem::take(&mut self.wires) {
            let mut record = Vec::new();
            while self.links.poll_transmit(wire.id, &mut record) {
                network.trace.note(|| tell(self.number, "sends", wire.id, &record));
                self.audit.sent(wire.id, &record);
                wire.sealer.seal(&[&record], &mut wire.output).expect("within the limits");
                record.clear();
            }
            last.push((wire.place, wire.output));
        }
        self.links.reset(mux);
        self.end_caution();
        last
    }

    pub(crate) fn add(
        &mut self,
        candidate: Candidate,
        activate: bool,
        generation: u64,
        mux: &mut Mux,
        network: &mut Network,
    ) {
        let Candidate { place, pipe: (sealer, opener), output, path, .. } = candidate;
        let id = self.links.add(path, network.now);
        self.wires.push(Wire { id, place, generation, sealer, opener, output });
        if activate {
            self.links.activate(id, mux, network.now);
        }
        self.sweep(network);
    }

    pub(crate) fn judge(&self, path: &Path, needed: bool, standby: bool, now: Instant) -> Option<bool> {
        self.links.judge(path, needed, standby, now)
    }

    pub(crate) fn poll_wanted(&mut self, standby: bool, network: &mut Network) -> Option<Option<Better>> {
        let wanted = self.links.poll_wanted(standby, network.now);
        self.sweep(network);
        wanted
    }

    pub(crate) fn suspect(&mut self, address: u32, mux: &mut Mux, network: &mut Network) -> bool {
        let wires = &self.wires;
        let place = |id| wires.iter().find(|wire| wire.id == id).expect("each link has one").place;
        let usable = |id| network.local_address(place(id)) == address;
        let left = self.links.suspect("a disturbance", usable, mux, network.now);
        self.sweep(network);
        left
    }

    pub(crate) fn abandon(&mut self, mux: &mut Mux, network: &mut Network) -> bool {
        let left = self.links.abandon(mux, network.now);
        self.sweep(network);
        left
    }

    /// Activates the active link anew, so that both sides say all sums again.
    pub(crate) fn renew(&mut self, mux: &mut Mux, now: Instant) {
        if let Some(current) = self.links.current() {
            self.links.activate(current, mux, now);
        }
    }

    /// Activates any link, the active one included.
    pub(crate) fn switch(&mut self, mux: &mut Mux, network: &mut Network) {
        let chosen = network.rng.random_range(0..self.wires.len().max(1));
        if let Some(wire) = self.wires.get(chosen) {
            self.links.activate(wire.id, mux, network.now);
        }
    }

    pub(crate) fn reset(&mut self, mux: &mut Mux, network: &mut Network) {
        self.links.reset(mux);
        self.end_caution();
        self.sweep(network);
    }

    pub(crate) fn is_empty(&self) -> bool {
        assert_eq!(self.links.is_empty(), self.wires.is_empty(), "links and connections differ");
        self.wires.is_empty()
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    pub(crate) fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Activations that it knows of.
    pub(crate) fn epoch(&self) -> u64 {
        self.audit.epoch()
    }

    pub(crate) fn has(&self, place: Place) -> bool {
        self.wires.iter().any(|wire| wire.place == place)
    }

    /// The connection of the active link.
    pub(crate) fn place(&self) -> Option<Place> {
        let current = self.links.current()?;
        self.wires.iter().find(|wire| wire.id == current).map(|wire| wire.place)
    }

    /// Whether both sides agree on the active link, as far as this one knows, and another stands by.
    pub(crate) fn has_standby(&self) -> bool {
        self.links.sending().is_some() && self.links.standing_by().next().is_some()
    }

    pub(crate) fn deadline(&self, mux: &Mux) -> Option<Instant> {
        let watches = self.wires.iter().filter_map(|wire| self.links.deadline(wire.id));
        let caution = self.caution.as_ref().and_then(|caution| caution.over);
        watches.chain(self.acknowledgement(mux)).chain(caution).min()
    }

    /// When acknowledgements are due that nothing else carried.
    fn acknowledgement(&self, mux: &Mux) -> Option<Instant> {
        let sending = self.links.sending()?;
        let free = |wire: &Wire| wire.id == sending && wire.output.is_empty() && self.links.is_quiet(wire.id);
        mux.poll_timeout().filter(|_| self.wires.iter().any(free))
    }

    /// What must hold whenever the side has come to rest.
    pub(crate) fn check(&self, generation: u64, mux: &Mux, book: &Book, network: &Network) {
        for wire in &self.wires {
            assert_eq!(wire.generation, generation, "a link of another generation is kept");
        }
        let late = self.deadline(mux).is_some_and(|at| at <= network.now);
        assert!(!late, "a timer of the links is late");
        let sending = self.wires.iter().find(|wire| Some(wire.id) == self.links.sending());
        if let Some(wire) = sending.filter(|wire| wire.output.is_empty() && self.caution.is_none()) {
            self.audit.check(wire.id, book, self.number);
        }
    }

    /// Does all that can be done now, until something happened that the side has to know. `records` counts those that
    /// were opened.
    pub(crate) fn poll(
        &mut self,
        mux: &mut Mux,
        records: &mut u64,
        network: &mut Network,
    ) -> Option<LinkEvent> {
        if self.caution.as_ref().is_some_and(|caution| caution.over.is_some_and(|over| over <= network.now)) {
            self.end_caution();
        }
        for _ in 0..MAX_TURNS {
            let mut progress = false;
            let mut index = 0;
            while index < self.wires.len() {
                let id = self.wires[index].id;
                match self.poll_wire(index, mux, records, network) {
                    Ok((turned, None)) => progress |= turned,
                    Ok((_, Some(event))) => {
                        self.sweep(network);
                        return Some(event);
                    }
                    Err(event) => {
                        network.trace.note(|| format!("{} loses {id:?}: {event:?}", name(self.number)));
                        let event = self.links.handle_end(id, event, mux, network.now);
                        self.sweep(network);
                        return Some(event);
                    }
                }
                index += 1;
            }
            let due = self.acknowledgement(mux).is_some_and(|at| at <= network.now);
            if !progress && !due {
                let flushed = |wire: &Wire| wire.output.is_empty() && self.links.is_quiet(wire.id);
                let drained = self.draining && mux.is_drained() && self.wires.iter().all(flushed);
                self.draining &= !drained;
                return drained.then_some(LinkEvent::Drained);
            }
        }
        panic!("links do not come to rest");
    }

    fn end_caution(&mut self) {
        self.caution = None;
        self.batch.set_longest(MAX_PLAINTEXT);
    }

    /// How much may be sent in this turn; 0 for no data yet.
    fn allowance(&mut self, mux: &Mux, now: Instant) -> usize {
        let Some(caution) = &mut self.caution else { return WRITE_AHEAD };
        caution.over.get_or_insert(now + caution.patience);
        let progress = mux.progress();
        if progress.acknowledged > caution.acknowledged {
            self.end_caution();
            return WRITE_AHEAD;
        }
        let sent = usize::try_from(progress.sent - progress.acknowledged).expect("little");
        FIRST_FLIGHT.saturating_sub(sent)
    }

    /// Whether anything was done, and what the side has to know.
    fn poll_wire(
        &mut self,
        index: usize,
        mux: &mut Mux,
        records: &mut u64,
        network: &mut Network,
    ) -> Result<(bool, Option<LinkEvent>), LinkEvent> {
        let wrote = self.poll_write(index, mux, network)?;
        let id = self.wires[index].id;
        let read = self.poll_read(index, records, network)?;
        let event = self.links.handle_inbound(id, mux, network.now);
        self.audit.handled(&self.links);
        if event.is_some() {
            return Ok((true, event));
        }
        self.links.handle_progress(id, mux, network.now);
        let due = self.links.deadline(id).is_some_and(|at| at <= network.now);
        let event = if due { self.links.handle_timeout(id, mux, network.now)? } else { None };
        Ok((wrote || read || due, event))
    }

    /// Whether something was sealed.
    fn poll_write(&mut self, index: usize, mux: &mut Mux, network: &mut Network) -> Result<bool, LinkEvent> {
        let wire = &mut self.wires[index];
        let mut sealed = false;
        loop {
            if !wire.output.is_empty() {
                network.write(wire.place, &mut wire.output).map_err(|()| lost())?;
                if !wire.output.is_empty() {
                    return Ok(sealed);
                }
            }
            let mut record = Vec::new();
            if !self.links.poll_transmit(wire.id, &mut record) {
                break;
            }
            network.trace.note(|| tell(self.number, "sends", wire.id, &record));
            self.audit.sent(wire.id, &record);
            wire.sealer.seal(&[&record], &mut wire.output).expect("within the limits");
            sealed = true;
        }
        if self.links.sending() != Some(wire.id) {
            return Ok(sealed);
        }
        let most = self.allowance(mux, network.now);
        if !mux.poll_transmit(network.now, most, &mut self.batch) {
            return Ok(sealed);
        }
        let wire = &mut self.wires[index];
        for parts in self.batch.records() {
            let record = parts.collect::<Vec<_>>().concat();
            self.audit.sent(wire.id, &record);
            wire.sealer.seal(&[&record], &mut wire.output).expect("within the limits");
        }
        self.batch.clear();
        network.write(wire.place, &mut wire.output).map_err(|()| lost())?;
        Ok(true)
    }

    /// Whether something was read.
    fn poll_read(
        &mut self,
        index: usize,
        records: &mut u64,
        network: &mut Network,
    ) -> Result<bool, LinkEvent> {
        // Records may come bundled with the KCM.
        if self.open_records(index, records, network)? {
            return Ok(true);
        }
        let wire = &mut self.wires[index];
        let bytes = network.read(wire.place).map_err(|()| lost())?;
        if bytes.is_empty() {
            return Ok(false);
        }
        wire.opener.buffer().extend_from_slice(&bytes);
        self.links.handle_bytes(wire.id, network.now);
        self.open_records(index, records, network)?;
        Ok(true)
    }

    fn open_records(
        &mut self,
        index: usize,
        records: &mut u64,
        network: &mut Network,
    ) -> Result<bool, LinkEvent> {
        let wire = &mut self.wires[index];
        let mut any = false;
        while let Some(record) = wire.opener.next_message().expect("honest bytes") {
            *records += 1;
            any = true;
            if self.audit.received(wire.id, &record) {
                network.trace.note(|| tell(self.number, "gets", wire.id, &record));
            }
            self.links.handle_record(wire.id, Frames::new(record), network.now);
        }
        Ok(any)
    }

    /// Resets the connections whose links are given up.
    fn sweep(&mut self, network: &mut Network) {
        let links = &self.links;
        for wire in self.wires.extract_if(.., |wire| !links.contains(wire.id)) {
            network.abort(wire.place);
        }
    }
}

/// What a record says that concerns the link, in words.
fn tell(number: usize, does: &str, link: LinkId, record: &[u8]) -> String {
    let frames = Frames::new(record.to_vec().into()).map_while(Result::ok);
    let words: Vec<String> = frames
        .filter_map(|frame| match frame {
            Frame::Resume { epoch, entries, .. } => {
                let list = entries.iter().map(|e| format!("{}:{}", e.id, e.received)).collect::<Vec<_>>();
                Some(format!("RESUME {epoch} ({})", list.join(" ")))
            }
            Frame::Ping(id) => Some(format!("PING {id}")),
            Frame::Pong(id) => Some(format!("PONG {id}")),
            _ => None,
        })
        .collect();
    format!("{} {does} {link:?} {}", name(number), words.join(", "))
}

fn lost() -> LinkEvent {
    LinkEvent::Lost("the connection ended".to_owned())
}
