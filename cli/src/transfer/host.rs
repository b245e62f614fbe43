//! Shows a session with one of our own, and asks.

use std::cell::{Cell, RefCell};

use dilated::{DilationStatus, LinkStatus};

use super::{
    BOTH_RECEIVE, BOTH_SEND, Totals,
    session::{self, Host, Kind as ItemKind, Proposal, Reason},
    text,
};
use crate::{
    exit::{Failure, Kind},
    files::SafePath,
    quote::{bytes, count, printable},
    show::{Bar, Event, Hash, Offered, Show, Side, Total},
};

/// From so many bytes on it is told that they are kept for another session.
const WORTH_KEEPING: u64 = 1 << 20;

/// Tells programs what happens to the link, given its states.
pub(super) fn link_events(show: &Show) -> impl FnMut(&DilationStatus) {
    let mut told = None;
    move |status| {
        let event = match &status.link {
            LinkStatus::Connected { path, .. } => Event::Connected { path: path.to_string() },
            LinkStatus::Reconnecting { reason } => Event::Lost { reason: reason.clone() },
            _ => return,
        };
        let now = Some((status.generation, event));
        if told != now
            && let Some((_, event)) = &now
        {
            show.event(event);
        }
        told = now;
    }
}

/// What this side does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// And takes nothing.
    Sends,
    /// And has nothing to send.
    Receives {
        /// Without a question.
        yes: bool,
        /// Under a name that the user chose.
        chosen: bool,
    },
}

/// The user of this side.
pub(super) struct User<'a> {
    show: &'a Show,
    part: Part,
    /// What is sent or received, for the bar.
    name: RefCell<String>,
    bar: RefCell<Option<Bar>>,
    length_known: Cell<bool>,
    /// Whether something got another name than the other side gave it.
    altered: Cell<bool>,
    /// Whether so much of something has come that another session goes on behind it.
    kept: &'a Cell<bool>,
    /// The first thing that could not be shown.
    failed: RefCell<Option<Failure>>,
}

impl<'a> User<'a> {
    /// Of a side that sends what is called `name`, or nothing. Whether something is kept for another session is told in
    /// `kept`.
    pub(super) fn new(show: &'a Show, part: Part, name: String, kept: &'a Cell<bool>) -> User<'a> {
        User {
            show,
            part,
            name: RefCell::new(name),
            bar: RefCell::default(),
            length_known: Cell::default(),
            altered: Cell::default(),
            kept,
            failed: RefCell::default(),
        }
    }

    /// What the end means.
    pub(super) fn judge(&self, summary: &session::Summary) -> Result<Totals, Failure> {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
        if let Some(failure) = self.failed.take() {
            return Err(failure);
        }
        self.kept.set(false);
        if self.altered.get() {
            self.show.altered();
        }
        let session::Totals { taken, refused, .. } = summary.received;
        match self.part {
            Part::Sends if refused > 0 => return Err(Failure::usage(BOTH_SEND)),
            Part::Receives { .. } if taken + refused == 0 => return Err(Failure::usage(BOTH_RECEIVE)),
            _ => {}
        }
        if let Some(reason) = summary.sent.reason {
            let message = format!("the other side rejected the transfer: {}", explain(reason));
            return Err(Failure::new(Kind::Declined, message));
        }
        if let Some(reason) = summary.received.reason {
            return Err(self.not_taken(reason));
        }
        let total = |totals: &session::Totals| Total { files: totals.files, bytes: totals.bytes };
        Ok(Totals { sent: total(&summary.sent), received: total(&summary.received) })
    }

    fn begin(&self, bytes: Option<u64>) {
        self.length_known.set(bytes.is_some());
        *self.bar.borrow_mut() = Some(self.show.progress(bytes, &self.name.borrow()));
    }

    fn advance(&self, advance: impl FnOnce(&Bar)) {
        if let Some(bar) = &*self.bar.borrow() {
            advance(bar);
        }
    }

    fn sent(&self, name: &str, bytes: u64, hash: session::Hash) {
        let (name, hash) = (name.to_owned(), Some(Hash::Blake3(hash.to_string())));
        self.show.event(&Event::File { from: Side::Us, name, path: None, altered: false, bytes, hash });
    }

    fn stored(&self, path: &SafePath, bytes: u64, hash: session::Hash) {
        let (altered, hash) = (path.altered(), Some(Hash::Blake3(hash.to_string())));
        self.note_altered(altered);
        let (name, path) = (path.to_string(), Some(path.to_string()));
        self.show.event(&Event::File { from: Side::Them, name, path, altered, bytes, hash });
    }

    fn note_altered(&self, altered: bool) {
        self.altered.set(self.altered.get() || altered);
    }

    fn note_here(&self, bytes: u64) {
        // Nothing is kept of streams, and of short files.
        let resumable = self.length_known.get() && bytes >= WORTH_KEEPING;
        self.kept.set(resumable && matches!(self.part, Part::Receives { .. }));
    }

    /// Why this side did not take something.
    fn not_taken(&self, reason: Reason) -> Failure {
        match (reason, self.part) {
            (Reason::Name, Part::Receives { chosen: true, .. }) => Failure::usage(
                "the other side offers several things; --output has to be a directory that exists",
            ),
            _ => not_taken(reason),
        }
    }

    fn tell_offer(&self, offer: &[Proposal]) {
        for proposal in offer {
            let resumed = if proposal.resume { "; parts of it are here already" } else { "" };
            self.show.line(format_args!("the other side offers {}{resumed}", describe(proposal)));
        }
        let (kind, name) = match offer {
            [one] => (offered(one.kind), Some(one.name.clone())),
            _ => (Offered::Several, None),
        };
        *self.name.borrow_mut() = match offer {
            [one] => one.path.to_string(),
            several => format!("{} things", several.len()),
        };
        let size = offer.iter().map(|proposal| proposal.size).sum();
        let files = offer.iter().map(|proposal| proposal.count.unwrap_or(1)).sum();
        self.show.event(&Event::Offer { from: Side::Them, kind, name, files: Some(files), bytes: size });
    }
}

impl Host for User<'_> {
    async fn accept(&self, offer: &[Proposal]) -> Result<bool, Failure> {
        self.tell_offer(offer);
        if let Part::Receives { yes: true, .. } = self.part {
            return Ok(true);
        }
        let question = match offer {
            [one] => format!("Receive it as {}?", one.path),
            several => format!("Receive these {} things?", several.len()),
        };
        self.show.ask(&question, Some(true), "--yes").await
    }

    fn tell(&self, event: session::Event<'_>) {
        match event {
            session::Event::SendBegins { bytes, has } | session::Event::ReceiveBegins { bytes, has } => {
                if has {
                    self.show.line("comparing what is there already");
                }
                self.begin(bytes);
            }
            session::Event::Resumed { bytes } => {
                self.note_here(bytes);
                self.advance(|bar| bar.resumed(bytes));
            }
            session::Event::Acknowledged { bytes } => self.advance(|bar| bar.acknowledged(bytes)),
            session::Event::Received { bytes } => {
                self.note_here(bytes);
                self.advance(|bar| bar.acknowledged(bytes));
            }
            session::Event::Sent { name, size, hash } => self.sent(name, size, hash),
            session::Event::Stored { path, size, hash } => self.stored(path, size, hash),
            session::Event::MadeDirectories { altered } => self.note_altered(altered),
            session::Event::Text(text) => {
                if let Err(failure) = text::show(self.show, text) {
                    self.failed.borrow_mut().get_or_insert(failure);
                }
            }
            session::Event::Refused { name, reason } => {
                let name = printable(name);
                self.show.line(format_args!("the other side does not take {name}: {}", explain(reason)));
            }
            // Who declines knows.
            session::Event::NotTaken { reason: Reason::Declined, .. } => {}
            session::Event::NotTaken { name, reason } => {
                self.show.line(format_args!("{} is not taken: {}", printable(name), explain(reason)));
            }
        }
    }
}

fn offered(kind: ItemKind) -> Offered {
    match kind {
        ItemKind::Text => Offered::Text,
        ItemKind::Directory => Offered::Directory,
        ItemKind::Stream => Offered::Stream,
        ItemKind::File | ItemKind::Unknown => Offered::File,
    }
}

fn describe(proposal: &Proposal) -> String {
    let (name, path) = (printable(&proposal.name), proposal.path.to_string());
    let what = match (proposal.kind, proposal.size) {
        (ItemKind::Directory, Some(size)) => {
            let count = count(proposal.count.unwrap_or_default(), "entry", "entries");
            format!("the directory {name}, {} in {count}", bytes(size))
        }
        (_, Some(size)) => format!("the file {name}, {}", bytes(size)),
        (_, None) => format!("a stream {name}"),
    };
    if name == path { what } else { format!("{what}; here it is called {path}") }
}

fn explain(reason: Reason) -> &'static str {
    match reason {
        Reason::Declined => "somebody there said no",
        Reason::Exists => "something has the name already",
        Reason::Space => "there is not enough space",
        Reason::Name => "the name cannot be used",
        Reason::Unsupported => "such things are not taken",
        Reason::Unknown => "for a reason that this side does not know",
    }
}

/// Why this side did not take something.
fn not_taken(reason: Reason) -> Failure {
    match reason {
        Reason::Declined => Failure::new(Kind::Declined, "nothing was received"),
        Reason::Exists => Failure::new(
            Kind::Local,
            "it exists already; name another with --output, or replace files with --overwrite",
        ),
        Reason::Space => Failure::new(Kind::Local, "there is not enough space"),
        Reason::Name => Failure::new(Kind::PeerProgram, "the name that the other side gives cannot be used"),
        Reason::Unsupported => {
            Failure::usage("the other side offers something that is no text; leave --only-text away")
        }
        Reason::Unknown => Failure::new(Kind::PeerProgram, "the other side offers something unknown"),
    }
}
