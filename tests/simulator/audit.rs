//! Looks at every frame that a side sends and receives in `dilated-1`, and knows only what the specification says.

use std::collections::BTreeMap;

use bytes::Bytes;
use dilated::protocol::{LinkId, Links};
use dilated_subchannel::{
    frame::{Frame, Frames, Received},
    mux::Params,
};
use dilated_transit::Role;

use crate::{book::Book, ledger::Ledger};

pub(crate) struct Audit {
    role: Role,
    /// What the peer has said that it has of each subchannel: it has answered those that are here.
    received: BTreeMap<u32, u64>,
    /// The greatest epoch that was sent or received.
    epoch: u64,
    /// The last RESUME that was sent: its epoch and its link, and whether the peer's of the same epoch came there.
    said: Option<(u64, LinkId, bool)>,
    /// A RESUME of the peer counts, and its answer has not been sent.
    owed: Option<(u64, LinkId)>,
    /// It has come since the last look.
    adopted: Option<LinkId>,
    /// A list is being sent over this link.
    listing: Option<(u64, LinkId)>,
    /// The peer's lists that are not complete, by their links.
    lists: BTreeMap<LinkId, (u64, Vec<Received>)>,
    ledger: Ledger,
}

impl Audit {
    /// Of a side whose peer said `peer` of itself.
    pub(crate) fn new(role: Role, peer: Params) -> Audit {
        Audit {
            role,
            received: BTreeMap::new(),
            epoch: 0,
            said: None,
            owed: None,
            adopted: None,
            listing: None,
            lists: BTreeMap::new(),
            ledger: Ledger::new(peer),
        }
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What must have been said when this link is free and nothing is left to send on it.
    pub(crate) fn check(&self, link: LinkId, book: &Book, number: usize) {
        let settled = self.said.is_some_and(|(epoch, on, answered)| on == link && (answered || epoch == 1));
        if settled && self.owed.is_none() && self.listing.is_none() {
            self.ledger.check(book, number);
        }
    }

    /// The greatest epoch that was sent or received.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// This record is about to be sealed.
    pub(crate) fn sent(&mut self, link: LinkId, record: &[u8]) {
        assert!(!record.is_empty(), "a record without plaintext");
        for frame in Frames::new(Bytes::copy_from_slice(record)) {
            self.sent_frame(link, frame.expect("our own frame can be read"));
        }
    }

    fn sent_frame(&mut self, link: LinkId, frame: Frame) {
        match &frame {
            Frame::Padding | Frame::Ping(_) | Frame::Pong(_) | Frame::Goodbye { .. } => return,
            Frame::Resume { epoch, more, .. } => {
                let goes_on = self.listing == Some((*epoch, link));
                self.listing = more.then_some((*epoch, link));
                if !goes_on {
                    self.sent_resume(link, *epoch);
                }
                return;
            }
            _ => {}
        }
        assert_eq!(self.listing, None, "{frame:?} in the middle of a list");
        let (epoch, active, answered) = self.said.expect("RESUME comes first");
        assert_eq!(active, link, "{frame:?} goes over a link that is not the active one");
        assert!(answered || epoch == 1, "{frame:?} before the answer to RESUME");
        assert_eq!(self.owed, None, "{frame:?} before our answer to RESUME");
        self.ledger.sent(&frame);
        match frame {
            Frame::Data { id, offset, .. } => {
                let has = self.received.get(&id.0).copied().unwrap_or_default();
                assert!(offset >= has, "{offset} of subchannel {id} is sent, and the peer has said {has}");
            }
            Frame::Open { id, .. } => {
                assert!(!self.received.contains_key(&id.0), "{id} is opened again, though it was answered");
            }
            Frame::Reset { id, final_offset, .. } => {
                let has = self.received.get(&id.0).copied().unwrap_or_default();
                assert!(has <= final_offset, "the end of {id} is repeated, though the peer has it");
            }
            _ => {}
        }
    }

    /// This record has come. Returns whether it concerns the link.
    pub(crate) fn received(&mut self, link: LinkId, record: &Bytes) -> bool {
        let mut concerns = false;
        for frame in Frames::new(record.clone()) {
            let frame = frame.expect("an honest peer");
            self.ledger.received(&frame);
            match frame {
                Frame::Credit(credit) => self.take(credit.id.0, credit.received),
                Frame::Resume { epoch, entries, more } => {
                    for entry in &entries {
                        self.take(entry.id.0, entry.received);
                    }
                    let (of, mut list) = self.lists.remove(&link).unwrap_or_default();
                    if of != epoch {
                        list.clear();
                    }
                    list.extend(entries);
                    if more {
                        self.lists.insert(link, (epoch, list));
                    } else {
                        self.resumed(link, epoch, &list);
                    }
                    concerns = true;
                }
                Frame::Ping(_) | Frame::Pong(_) | Frame::Goodbye { .. } => concerns = true,
                _ => {}
            }
        }
        concerns
    }

    fn take(&mut self, id: u32, received: u64) {
        let has = self.received.entry(id).or_default();
        *has = (*has).max(received);
    }

    fn sent_resume(&mut self, link: LinkId, epoch: u64) {
        let owed = self.owed.take();
        let answer = owed == Some((epoch, link));
        // The Leader may have decided before the Follower's of the same epoch came.
        let wins = self.role == Role::Leader && owed.is_some_and(|(other, on)| other == epoch && on != link);
        // Some may have been lost with their link before they were sent.
        assert!(answer || wins || epoch > self.epoch, "RESUME {epoch} after {}", self.epoch);
        self.epoch = epoch;
        self.said = Some((epoch, link, answer));
    }

    /// A RESUME is complete.
    fn resumed(&mut self, link: LinkId, epoch: u64, list: &[Received]) {
        if let Some((said, on, answered)) = &mut self.said
            && (*said, *on) == (epoch, link)
            && epoch == self.epoch
        {
            *answered = true;
            self.adopted = Some(link);
            return self.tell_ledger(epoch, list);
        }
        let settled = self.said.is_some_and(|(said, _, answered)| answered && said == epoch);
        let tie = epoch == self.epoch && self.role == Role::Follower && !settled;
        if epoch > self.epoch || tie {
            self.epoch = epoch;
            self.owed = Some((epoch, link));
            self.adopted = Some(link);
            self.tell_ledger(epoch, list);
        }
    }

    fn tell_ledger(&mut self, epoch: u64, list: &[Received]) {
        if epoch > 1 {
            self.ledger.resumed(list);
        }
    }

    /// What came was handed over.
    pub(crate) fn handled(&mut self, links: &Links) {
        if let Some(link) = self.adopted.take() {
            // Unless another activation has been decided on that has still to be said.
            let decided = links.current().is_some_and(|current| !links.is_quiet(current));
            assert!(decided || links.current() == Some(link), "the peer's RESUME does not count");
        }
    }
}
