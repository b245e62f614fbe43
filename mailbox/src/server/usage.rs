//! How sessions ended: what the server counts about nameplates and mailboxes that are gone.

use super::store::{MailboxRecord, Mood, NameplateRecord};

/// How a nameplate or a mailbox ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody opened it.
    Quiet,
    /// One side only, or a side said so.
    Lonely,
    /// Two sides met.
    Happy,
    /// A side reported an error.
    Errory,
    /// A side saw a wrong code.
    Scary,
    /// It was deleted because nobody used it.
    Pruney,
    /// A third side was refused.
    Crowded,
}

/// How many ended in each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// [`Outcome::Quiet`].
    pub quiet: u64,
    /// [`Outcome::Lonely`].
    pub lonely: u64,
    /// [`Outcome::Happy`].
    pub happy: u64,
    /// [`Outcome::Errory`].
    pub errory: u64,
    /// [`Outcome::Scary`].
    pub scary: u64,
    /// [`Outcome::Pruney`].
    pub pruney: u64,
    /// [`Outcome::Crowded`].
    pub crowded: u64,
}

impl Outcomes {
    fn count(&mut self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Quiet => &mut self.quiet,
            Outcome::Lonely => &mut self.lonely,
            Outcome::Happy => &mut self.happy,
            Outcome::Errory => &mut self.errory,
            Outcome::Scary => &mut self.scary,
            Outcome::Pruney => &mut self.pruney,
            Outcome::Crowded => &mut self.crowded,
        };
        *counter += 1;
    }
}

/// One line of history. Times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    /// When the first side came, since 1970.
    pub(super) started: f64,
    /// From the first side to the second.
    pub(super) waiting_time: Option<f64>,
    /// From the first side to the end.
    pub(super) total_time: f64,
    pub(super) outcome: Outcome,
}

impl Summary {
    pub(super) fn of_nameplate(record: &NameplateRecord, pruned: bool, now: f64) -> Self {
        let outcome = match record.sides.len() {
            _ if record.crowded => Outcome::Crowded,
            _ if pruned => Outcome::Pruney,
            2 => Outcome::Happy,
            _ => Outcome::Lonely,
        };
        Self::new(record.sides.iter().map(|side| side.added), outcome, now)
    }

    pub(super) fn of_mailbox(record: &MailboxRecord, pruned: bool, now: f64) -> Self {
        let said = |mood| record.sides.iter().any(|side| side.mood == Some(mood));
        let outcome = match record.sides.len() {
            _ if record.crowded => Outcome::Crowded,
            _ if pruned => Outcome::Pruney,
            _ if said(Mood::Scary) => Outcome::Scary,
            _ if said(Mood::Errory) => Outcome::Errory,
            _ if said(Mood::Lonely) => Outcome::Lonely,
            0 => Outcome::Quiet,
            1 => Outcome::Lonely,
            _ => Outcome::Happy,
        };
        Self::new(record.sides.iter().map(|side| side.added), outcome, now)
    }

    fn new(times: impl Iterator<Item = f64>, outcome: Outcome, now: f64) -> Self {
        let mut times: Vec<f64> = times.collect();
        times.sort_by(f64::total_cmp);
        let started = times.first().copied().unwrap_or(now);
        Self {
            started,
            waiting_time: times.get(1).map(|second| second - started),
            total_time: now - started,
            outcome,
        }
    }
}

/// What happened on a server since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nameplates that are gone.
    pub nameplates: Outcomes,
    /// Mailboxes that are gone.
    pub mailboxes: Outcomes,
}

impl Usage {
    pub(super) fn nameplate_gone(&mut self, summary: &Summary) {
        tracing::debug!(?summary, "nameplate gone");
        self.nameplates.count(summary.outcome);
    }

    pub(super) fn mailbox_gone(&mut self, summary: &Summary) {
        tracing::debug!(?summary, "mailbox gone");
        self.mailboxes.count(summary.outcome);
    }
}
