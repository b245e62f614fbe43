//! Keeps account, from the frames alone, of what a side may send, has sent and has to send again: offsets, credit and
//! ends as the specification of `dilated-1` counts them.

use std::collections::BTreeMap;

use dilated_subchannel::{
    frame::{Frame, Mark, Received},
    id::SubchannelId,
    mux::Params,
};

use crate::book::{Book, End};

/// Both directions of a subchannel.
#[derive(Debug, Default)]
struct Account {
    /// It is ours, and the peer has not answered.
    unanswered: bool,
    /// OPEN was sent since the last RESUME.
    opened: bool,
    /// Units sent ever, and since the last RESUME or known as received. The end does not count.
    sent: u64,
    cursor: u64,
    /// What the peer has.
    acknowledged: u64,
    limit: u64,
    /// Where the direction ends, once that was said, and whether it was since the last RESUME.
    end: Option<u64>,
    end_said: bool,
    reset: bool,
    /// The peer gave it up.
    stopped: bool,
    /// The peer's direction has ended.
    finished: bool,
    /// We gave it up, ever and since the last RESUME.
    stops: bool,
    stop_said: bool,
}

impl Account {
    fn acknowledge(&mut self, received: u64) {
        self.acknowledged = self.acknowledged.max(received);
        self.cursor = self.cursor.max(received.min(self.sent));
        self.unanswered = false;
    }

    /// Whether the peer has the end.
    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| self.acknowledged > end)
    }
}

#[derive(Debug)]
pub(crate) struct Ledger {
    /// What the peer said of itself.
    peer: Params,
    accounts: BTreeMap<u32, Account>,
    /// Units on all subchannels but 0: those that were sent, and may be.
    sent: u64,
    limit: u64,
    /// Subchannels opened, and how many may be.
    opened: u64,
    subchannels: u64,
    /// The last RESUME has been answered, and the sums have not been said since.
    owes_credit: bool,
    owes_count: bool,
}

impl Ledger {
    pub(crate) fn new(peer: Params) -> Ledger {
        let control = Account { limit: peer.subchannel_credit, ..Account::default() };
        Ledger {
            accounts: BTreeMap::from([(0, control)]),
            sent: 0,
            limit: peer.link_credit,
            opened: 0,
            subchannels: peer.subchannels,
            owes_credit: false,
            owes_count: false,
            peer,
        }
    }

    /// Credit, and subchannels, that are left when everything has ended and the sums were said after that: what the peer
    /// has promised for good.
    pub(crate) fn left(&self) -> (u64, u64) {
        (self.limit - self.sent, self.subchannels - self.opened)
    }

    pub(crate) fn sent(&mut self, frame: &Frame) {
        match frame {
            Frame::Open { id, .. } => {
                let fresh = !self.accounts.contains_key(&id.0);
                let limit = self.peer.subchannel_credit;
                let account = self.accounts.entry(id.0).or_insert_with(|| Account {
                    limit,
                    unanswered: true,
                    ..Account::default()
                });
                account.opened = true;
                self.opened += u64::from(fresh);
                assert!(self.opened <= self.subchannels, "more subchannels are opened than allowed");
            }
            Frame::Data { id, offset, mark, fin, data } => {
                let units = data.len() as u64 + u64::from(*mark == Mark::End);
                self.sent_data(*id, *offset, units, *fin);
            }
            Frame::Reset { id, final_offset, .. } => {
                let account = self.accounts.get_mut(&id.0).expect("RESET for what was never opened");
                assert_eq!(*final_offset, account.sent, "the end of {id} is not where it was sent to");
                assert!(account.end.is_none_or(|end| end == *final_offset), "the end of {id} moves");
                (account.end, account.end_said, account.reset) = (Some(*final_offset), true, true);
            }
            Frame::Stop { id, .. } => {
                let account = self.accounts.get_mut(&id.0).expect("STOP for what was never opened");
                assert!(!account.finished, "STOP for {id}, which the peer has ended");
                (account.stops, account.stop_said) = (true, true);
            }
            Frame::Refuse { id, .. } => drop(self.accounts.remove(&id.0)),
            Frame::LinkCredit(_) => self.owes_credit = false,
            Frame::MaxSubchannels(_) => self.owes_count = false,
            _ => {}
        }
    }

    fn sent_data(&mut self, id: SubchannelId, offset: u64, units: u64, fin: bool) {
        let account = self.accounts.get_mut(&id.0).expect("DATA before OPEN");
        assert!(!account.reset, "DATA for {id} behind RESET");
        assert!(offset <= account.sent, "units of {id} are left out");
        let end = offset + units;
        assert!(account.end.is_none_or(|known| end < known || end == known && fin), "the end of {id} moves");
        assert!(end <= account.limit, "{end} of {id} is beyond the credit of {}", account.limit);
        let new = end.saturating_sub(account.sent);
        if id.0 != 0 {
            self.sent += new;
        }
        assert!(self.sent <= self.limit, "{} units on all subchannels, of {}", self.sent, self.limit);
        account.sent += new;
        account.cursor = account.cursor.max(end);
        if fin {
            (account.end, account.end_said) = (Some(end), true);
        }
    }

    /// A frame of the peer but RESUME.
    pub(crate) fn received(&mut self, frame: &Frame) {
        match frame {
            Frame::Open { id, limit, .. } => {
                let fresh = Account { limit: *limit, ..Account::default() };
                self.accounts.entry(id.0).or_insert(fresh);
            }
            Frame::Credit(credit) => self.credit(credit),
            Frame::LinkCredit(limit) => self.limit = self.limit.max(*limit),
            Frame::MaxSubchannels(count) => self.subchannels = self.subchannels.max(*count),
            Frame::Data { id, fin, .. } => self.heard(*id, |account| account.finished |= *fin),
            Frame::Reset { id, .. } => self.heard(*id, |account| account.finished = true),
            Frame::Stop { id, .. } => self.heard(*id, |account| account.stopped = true),
            Frame::Refuse { id, .. } if self.accounts.get(&id.0).is_some_and(|a| a.unanswered) => {
                let account = self.accounts.remove(&id.0).expect("just seen");
                self.sent -= account.sent;
            }
            _ => {}
        }
    }

    fn heard(&mut self, id: SubchannelId, note: impl FnOnce(&mut Account)) {
        if let Some(account) = self.accounts.get_mut(&id.0) {
            account.unanswered = false;
            note(account);
        }
    }

    fn credit(&mut self, credit: &Received) {
        if let Some(account) = self.accounts.get_mut(&credit.id.0) {
            account.limit = account.limit.max(credit.limit);
            account.acknowledge(credit.received);
        }
    }

    /// The list of a RESUME that counts, and is not that of epoch 1.
    pub(crate) fn resumed(&mut self, list: &[Received]) {
        for entry in list {
            self.credit(entry);
        }
        let listed = |id: &u32| list.iter().any(|entry| entry.id.0 == *id);
        self.accounts.retain(|id, account| {
            // The peer has forgotten it, and so may we.
            let over = account.finished && account.end.is_some() && !account.unanswered;
            listed(id) || !over
        });
        for account in self.accounts.values_mut() {
            account.cursor = account.acknowledged.min(account.sent);
            (account.opened, account.end_said, account.stop_said) = (false, false, false);
        }
        (self.owes_credit, self.owes_count) = (true, true);
    }

    /// What must have been said whenever the active link is free and nothing is left to send. `number` is the side's own.
    pub(crate) fn check(&self, book: &Book, number: usize) {
        assert!(!self.owes_credit, "LINK_CREDIT is not said again after RESUME");
        assert!(!self.owes_count, "MAX_SUBCHANNELS is not said again after RESUME");
        for (id, account) in &self.accounts {
            let id = SubchannelId(*id);
            let own = book.direction(id, number);
            assert!(!account.unanswered || account.opened, "{id} was not answered, and is not opened again");
            self.check_data(id, account, own.units());
            let given_up = account.reset || account.stopped;
            let ends = match own.end {
                Some(End::Reset(_)) => true,
                Some(End::Fin) => given_up || account.sent == own.units(),
                None => false,
            };
            assert!(!ends || account.end.is_some(), "the end of {id} is not said: {account:?}");
            let repeats = account.end.is_some() && !account.is_over() && account.cursor == account.sent;
            assert!(!repeats || account.end_said, "the end of {id} is not said again: {account:?}");
            let stops = book.direction(id, 1 - number).stop.is_some() && !account.finished;
            assert!(!stops || account.stops, "STOP of {id} is not said: {account:?}");
            let repeats = account.stops && !account.finished;
            assert!(!repeats || account.stop_said, "STOP of {id} is not said again: {account:?}");
        }
    }

    fn check_data(&self, id: SubchannelId, account: &Account, written: u64) {
        if account.reset || account.stopped {
            return;
        }
        assert!(account.cursor >= account.sent, "what was sent on {id} is not sent again: {account:?}");
        let may = account.sent < account.limit && (id.0 == 0 || self.sent < self.limit);
        assert!(!may || account.sent >= written, "{id} stalls at {} of {written}: {account:?}", account.sent);
    }
}
