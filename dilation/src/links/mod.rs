//! The links of `dilated-1`, as a machine without sockets and clock: one is active, another may stand by, or be about to
//! take its place (specification `dilated-1`, section "The active link").
//!
//! A driver owns the connections and the multiplexer. For each link it
//!
//! * sends what [`poll_transmit`](Links::poll_transmit) gives, and then, if the link is the one [for
//!   sending](Links::sending), what the multiplexer gives;
//! * hands over the frames that came with [`handle_record`](Links::handle_record) and, after a batch,
//!   [`handle_inbound`](Links::handle_inbound);
//! * then calls [`handle_progress`](Links::handle_progress), and [`handle_timeout`](Links::handle_timeout) when
//!   [`deadline`](Links::deadline) is over;
//! * reports its end with [`handle_end`](Links::handle_end), and resets every connection whose link is not
//!   [there](Links::contains) any more.

mod activation;
mod inbound;
mod line;
mod streams;
#[cfg(test)]
mod tests;
mod upgrade;

use std::time::Instant;

use activation::Activation;
pub use activation::LinkId;
use dilated_subchannel::{
    frame::{Frame, Received, Violation},
    mux::Progress,
};
use dilated_transit::{Better, Path, Role};
use line::{Line, Timed};
pub use streams::Streams;
use upgrade::Upgrade;

use crate::{error::DilationError, liveness::LivenessConfig};

/// Links at a time: the active one, one that stands by, and one that is about to take the place of either.
const MAX_LINKS: usize = 3;

/// What happened to the links.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LinkEvent {
    /// The network or the peer ended the only link; the next may do better.
    Lost(String),
    /// It fell silent.
    Silent(String),
    /// A record of `ged` cannot be read. Damage would have shown before, so the peer sent it like that, and will again.
    Unreadable(String),
    /// Every new link would end the same way.
    Fatal(DilationError),
    /// The peer has acknowledged everything; asked for with `drain`.
    Drained,
    /// Another link is active now, or one that stood by came or went.
    Changed,
}

/// All links of a dilation in the dialect `dilated-1`, over all generations.
#[derive(Debug)]
pub struct Links {
    role: Role,
    config: LivenessConfig,
    lines: Vec<Line>,
    activation: Activation,
    last_id: u64,
    /// Subchannels that a list of the peer may have.
    most_entries: usize,
    /// Links that fell silent, one after the other, before the peer acknowledged anything.
    silent: u32,
    /// The last link took data with it, of which the peer has acknowledged nothing.
    barren: bool,
    /// What links of this generation that are gone have shown.
    heard: bool,
    loaded: bool,
    /// What is searched for although there is a link.
    wanted: Option<Better>,
    upgrade: Upgrade,
    inbound: Vec<Frame>,
    /// Why what came behind that cannot be read.
    fault: Option<Violation>,
}

impl Links {
    /// No link yet. `most_entries`: subchannels that a RESUME of the peer may list.
    pub fn new(role: Role, config: LivenessConfig, most_entries: usize) -> Links {
        Links {
            role,
            config,
            lines: Vec::new(),
            activation: Activation::new(role),
            last_id: 0,
            most_entries,
            silent: 0,
            barren: false,
            heard: false,
            loaded: false,
            wanted: None,
            upgrade: Upgrade::default(),
            inbound: Vec::new(),
            fault: None,
        }
    }

    /// Takes a link that the Leader has chosen. The Leader [activates](Self::activate) the first one of a generation.
    pub fn add(&mut self, path: Path, now: Instant) -> LinkId {
        self.last_id += 1;
        let id = LinkId(self.last_id);
        if self.lines.len() >= MAX_LINKS {
            let current = self.activation.current();
            if let Some(index) = self.lines.iter().position(|line| Some(line.id) != current) {
                self.forget(index);
            }
        }
        self.lines.push(Line::new(id, path, self.config.clone(), self.silent, now));
        self.hedge(now);
        id
    }

    /// What becomes of a candidate for another link of the generation. `None`: it is of no use; `Some(true)`: it is to
    /// be the active one; `Some(false)`: it stands by. A Follower hears of a link only when that was chosen, and takes
    /// each. `needed`: the peer may not have the one that there is. `standby`: one more is wanted for the worst case.
    pub fn judge(&self, path: &Path, needed: bool, standby: bool, now: Instant) -> Option<bool> {
        let active = self.path();
        let barred = self.upgrade.is_barred(now);
        let better = active.is_none_or(|active| path.is_direct() && !active.is_direct() && !barred);
        let another = standby
            && self.other_ways().next().is_none()
            && active.is_some_and(|active| !is_same_way(active, path));
        match self.role {
            Role::Follower => Some(false),
            Role::Leader if needed || better => Some(true),
            Role::Leader => another.then_some(false),
        }
    }

    /// Makes this link the active one: RESUME goes there first.
    pub fn activate(&mut self, id: LinkId, streams: &mut impl Streams, now: Instant) {
        let is_direct = |id| self.lines.iter().find(|line| line.id == id).map(|line| line.path.is_direct());
        let upgraded = self.current().and_then(is_direct) == Some(false) && is_direct(id) == Some(true);
        let epoch = self.activation.activate(id);
        streams.link_down();
        let list = streams.resume();
        self.say_resume(id, epoch, &list);
        if epoch == 1 {
            // Nothing was sent before, so nothing can be missing.
            streams.link_up();
        }
        self.upgrade.follow(Some(id), now);
        if upgraded {
            self.upgrade.begin(id, now);
        }
        self.hedge(now);
    }

    /// Once both sides agree on the active link: closes those that are not needed any more, and tells what to look for
    /// from now on, if that has changed: something better, or nothing.
    pub fn poll_wanted(&mut self, standby: bool, now: Instant) -> Option<Option<Better>> {
        if self.activation.current().is_none() || self.activation.is_asked() {
            return None;
        }
        if self.role == Role::Leader {
            self.trim(usize::from(standby), now);
        }
        let path = self.path()?;
        let wanted = if standby && self.other_ways().next().is_none() {
            Some(Better::Other(path.clone()))
        } else {
            (!path.is_direct()).then_some(Better::Direct)
        };
        (self.wanted != wanted).then(|| {
            self.wanted.clone_from(&wanted);
            wanted
        })
    }

    /// Whether this link is still to be kept.
    pub fn contains(&self, id: LinkId) -> bool {
        self.lines.iter().any(|line| line.id == id)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The active link, or the one that is to be.
    pub fn current(&self) -> Option<LinkId> {
        self.activation.current()
    }

    /// The link on which what concerns subchannels may be sent.
    pub fn sending(&self) -> Option<LinkId> {
        self.activation.sending()
    }

    /// The path of the active link, or of the one that is to be.
    pub fn path(&self) -> Option<&Path> {
        let current = self.current();
        let line = self.lines.iter().find(|line| Some(line.id) == current);
        line.or(self.lines.first()).map(|line| &line.path)
    }

    /// The paths of the links that stand by.
    pub fn standing_by(&self) -> impl Iterator<Item = &Path> {
        let current = self.current();
        self.lines.iter().filter(move |line| Some(line.id) != current).map(|line| &line.path)
    }

    /// Whether anything came from the peer in this generation.
    pub fn heard(&self) -> bool {
        self.heard || self.lines.iter().any(|line| line.watch.heard())
    }

    /// Whether the peer acknowledged anything in this generation.
    pub fn is_loaded(&self) -> bool {
        self.loaded || self.lines.iter().any(|line| line.watch.is_loaded())
    }

    /// Whether the last link ended before the peer acknowledged anything of what was sent: the next should begin with little.
    pub fn is_barren(&self) -> bool {
        self.barren
    }

    /// Something happened that may have broken links. Those that are not `usable` are given up; the others have to show
    /// soon that they work. Returns false if none is left.
    pub fn suspect(
        &mut self,
        why: &str,
        usable: impl Fn(LinkId) -> bool,
        streams: &mut impl Streams,
        now: Instant,
    ) -> bool {
        let gone: Vec<LinkId> = self.lines.iter().map(|line| line.id).filter(|id| !usable(*id)).collect();
        for id in gone {
            self.remove(id, streams, now);
        }
        for line in &mut self.lines {
            line.watch.suspect(why.to_owned(), now);
        }
        !self.lines.is_empty()
    }

    /// Gives the active link up. Returns false if no other is left.
    pub fn abandon(&mut self, streams: &mut impl Streams, now: Instant) -> bool {
        if let Some(id) = self.current().or(self.lines.first().map(|line| line.id)) {
            self.remove(id, streams, now);
        }
        !self.lines.is_empty()
    }

    /// Gives up all links of the generation. Those of the next may follow.
    pub fn reset(&mut self, streams: &mut impl Streams) {
        if !self.lines.is_empty() {
            self.note_yield(streams);
        }
        streams.link_down();
        for line in std::mem::take(&mut self.lines) {
            self.activation.handle_lost(line.id);
        }
        (self.heard, self.loaded, self.wanted) = (false, false, None);
        self.upgrade = Upgrade::default();
    }

    /// Says goodbye on every link.
    pub fn goodbye(&mut self, code: u64, reason: &str) {
        for line in &mut self.lines {
            line.goodbye(code, reason.to_owned());
        }
    }

    /// Whether the link has nothing to say of itself.
    pub fn is_quiet(&self, id: LinkId) -> bool {
        self.lines.iter().find(|line| line.id == id).is_none_or(Line::is_quiet)
    }

    /// Appends to `out` the next record that the link itself has to send, if there is one. It goes before all that the
    /// multiplexer gives.
    pub fn poll_transmit(&mut self, id: LinkId, out: &mut Vec<u8>) -> bool {
        self.line(id).is_some_and(|line| line.poll_transmit(out))
    }

    /// Bytes came.
    pub fn handle_bytes(&mut self, id: LinkId, now: Instant) {
        if let Some(line) = self.line(id) {
            line.watch.handle_bytes(now);
        }
    }

    /// Queues our RESUME. Those that have not left yet are outdated.
    fn say_resume(&mut self, id: LinkId, epoch: u64, list: &[Received]) {
        for line in &mut self.lines {
            line.withdraw_resume();
            if line.id == id {
                line.resume(epoch, list);
            }
        }
    }

    /// How far the multiplexer is; to be told after everything that was sent or received.
    pub fn handle_progress(&mut self, id: LinkId, streams: &mut impl Streams, now: Instant) {
        let (current, asked) = (self.current() == Some(id), self.activation.is_asked());
        let Some(line) = self.line(id) else { return };
        if !current {
            return line.watch.handle_standby(now);
        }
        if let Some(round_trip) = line.take_probed() {
            streams.set_round_trip(round_trip);
        }
        if asked {
            line.watch.handle_asked(now);
        } else {
            line.watch.handle_progress(streams.progress(), now);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) for this link.
    pub fn deadline(&self, id: LinkId) -> Option<Instant> {
        self.lines.iter().find(|line| line.id == id).map(|line| line.watch.deadline())
    }

    /// A timer of this link may be due. Returns [`LinkEvent::Changed`] if another link takes its place.
    ///
    /// # Errors
    ///
    /// [`LinkEvent::Silent`], for [`handle_end`](Self::handle_end).
    pub fn handle_timeout(
        &mut self,
        id: LinkId,
        streams: &mut impl Streams,
        now: Instant,
    ) -> Result<Option<LinkEvent>, LinkEvent> {
        let Some(line) = self.line(id) else { return Ok(None) };
        match line.handle_timeout(now)? {
            Timed::Nothing | Timed::Pinged => Ok(None),
            Timed::Hesitant => {
                let replaced =
                    self.current() == Some(id) && self.fail_over(id, Line::is_hopeful, streams, now);
                if let Some(line) = self.line(id).filter(|_| replaced) {
                    line.left = Some(now);
                }
                Ok(replaced.then_some(LinkEvent::Changed))
            }
        }
    }

    /// This link ended. Returns what its driver has to know.
    pub fn handle_end(
        &mut self,
        id: LinkId,
        event: LinkEvent,
        streams: &mut impl Streams,
        now: Instant,
    ) -> LinkEvent {
        if self.lines.len() == 1 && self.contains(id) {
            self.note_yield(streams);
        }
        // Nothing was asked of another one that it could have acknowledged.
        let current = self.current();
        if let Some(line) = self.lines.iter().find(|line| line.id == id && Some(id) == current) {
            let (loaded, silent) = (line.watch.is_loaded(), matches!(event, LinkEvent::Silent(_)));
            self.silent = if silent && !loaded { self.silent.saturating_add(1) } else { 0 };
        }
        self.remove(id, streams, now);
        if self.lines.is_empty() { event } else { LinkEvent::Changed }
    }

    /// The last link of a generation ends.
    fn note_yield(&mut self, streams: &impl Streams) {
        let Progress { sent, acknowledged } = streams.progress();
        self.barren = !self.is_loaded() && sent > acknowledged;
    }

    /// Takes a link away; if it was the active one, another becomes that.
    fn remove(&mut self, id: LinkId, streams: &mut impl Streams, now: Instant) {
        let Some(index) = self.lines.iter().position(|line| line.id == id) else { return };
        self.forget(index);
        if self.activation.handle_lost(id) {
            streams.link_down();
            self.fail_over(id, |_| true, streams, now);
            self.upgrade.follow(self.current(), now);
        }
        self.hedge(now);
    }

    /// Keeps what a link has shown that goes away.
    fn forget(&mut self, index: usize) {
        let line = self.lines.remove(index);
        self.heard |= line.watch.heard();
        self.loaded |= line.watch.is_loaded();
    }

    /// Closes what stands by, but the newest so many of those that do not go the way of the active one.
    fn trim(&mut self, keep: usize, now: Instant) {
        let current = self.current();
        let kept: Vec<LinkId> = self.other_ways().rev().take(keep).map(|line| line.id).collect();
        while let Some(index) =
            self.lines.iter().position(|line| Some(line.id) != current && !kept.contains(&line.id))
        {
            self.forget(index);
        }
        self.hedge(now);
    }

    /// Those that do not go the way of the active one.
    fn other_ways(&self) -> impl DoubleEndedIterator<Item = &Line> {
        let active = self.path();
        let other = move |line: &&Line| active.is_some_and(|active| !is_same_way(active, &line.path));
        self.lines.iter().filter(other)
    }

    /// Tells the watches which link has another beside it.
    fn hedge(&mut self, now: Instant) {
        let (current, several) = (self.current(), self.lines.len() > 1);
        for line in &mut self.lines {
            line.watch.set_hedged(several && Some(line.id) == current, now);
        }
    }

    /// Another link that is `fit` takes the place of this one, if there is one. Returns whether there was.
    fn fail_over(
        &mut self,
        from: LinkId,
        fit: impl Fn(&Line) -> bool,
        streams: &mut impl Streams,
        now: Instant,
    ) -> bool {
        let others = self.lines.iter().filter(|line| line.id != from && fit(line));
        let Some(id) = others.max_by_key(|line| line.watch.last_heard()).map(|line| line.id) else {
            return false;
        };
        tracing::info!("the active link hesitates; going on over the one that stands by");
        self.activate(id, streams, now);
        true
    }

    /// The peer broke the protocol: says so to it.
    fn refuse(&mut self, violation: &Violation) -> LinkEvent {
        self.goodbye(violation.code, &violation.to_string());
        LinkEvent::Fatal(DilationError::Protocol(violation.to_string()))
    }

    fn line(&mut self, id: LinkId) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.id == id)
    }
}

/// Whether what breaks the one breaks the other, as far as can be seen from here.
fn is_same_way(one: &Path, other: &Path) -> bool {
    one.is_direct() == other.is_direct() && one.host() == other.host()
}
