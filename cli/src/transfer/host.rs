//! Shows a session with one of our own, and asks.

use std::cell::RefCell;

use dilated::{DilationStatus, LinkStatus};

use super::{
    Totals,
    session::{self, Host, Kind as ItemKind, Proposal, Reason},
    text,
};
use crate::{
    exit::{Failure, Kind},
    quote::{bytes, count, printable},
    show::{Bar, Event, Hash, Offered, Show, Side, Total},
};

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

/// The user of this side.
pub(super) struct User<'a> {
    show: &'a Show,
    /// Takes everything without a question.
    yes: bool,
    /// What is sent or received, for the bar.
    name: RefCell<String>,
    bar: RefCell<Option<Bar>>,
    /// The first thing that could not be shown.
    failed: RefCell<Option<Failure>>,
}

impl<'a> User<'a> {
    /// Of a side that sends what is called `name`, or nothing.
    pub(super) fn new(show: &'a Show, yes: bool, name: String) -> User<'a> {
        let (bar, failed) = (RefCell::new(None), RefCell::new(None));
        User { show, yes, name: RefCell::new(name), bar, failed }
    }

    /// What the end means.
    pub(super) fn judge(&self, summary: &session::Summary) -> Result<Totals, Failure> {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
        if let Some(failure) = self.failed.take() {
            return Err(failure);
        }
        if let Some(reason) = summary.sent.reason {
            let message = format!("the other side rejected the transfer: {}", explain(reason));
            return Err(Failure::new(Kind::Declined, message));
        }
        if let Some(reason) = summary.received.reason {
            return Err(not_taken(reason));
        }
        let total = |totals: &session::Totals| Total { files: totals.files, bytes: totals.bytes };
        Ok(Totals { sent: total(&summary.sent), received: total(&summary.received) })
    }

    fn begin(&self, bytes: Option<u64>) {
        *self.bar.borrow_mut() = Some(self.show.progress(bytes, &self.name.borrow()));
    }

    fn advance(&self, advance: impl FnOnce(&Bar)) {
        if let Some(bar) = &*self.bar.borrow() {
            advance(bar);
        }
    }

    fn file(&self, from: Side, name: &str, path: Option<String>, bytes: u64, hash: session::Hash) {
        let hash = Some(Hash::Blake3(hash.to_string()));
        self.show.event(&Event::File { from, name: name.to_owned(), path, bytes, hash });
    }

    fn tell_offer(&self, offer: &[Proposal]) {
        for proposal in offer {
            let resumed = if proposal.resume { "; parts of it are here already" } else { "" };
            self.show.line(format_args!("the other side offers {}{resumed}", describe(proposal)));
        }
        let (kind, name) = match offer {
            [one] => (offered(one.kind), Some(one.path.to_string())),
            _ => (Offered::Several, None),
        };
        *self.name.borrow_mut() = name.clone().unwrap_or_else(|| format!("{} things", offer.len()));
        let size = offer.iter().map(|proposal| proposal.size).sum();
        let files = offer.iter().map(|proposal| proposal.count.unwrap_or(1)).sum();
        self.show.event(&Event::Offer { from: Side::Them, kind, name, files: Some(files), bytes: size });
    }
}

impl Host for User<'_> {
    async fn accept(&self, offer: &[Proposal]) -> Result<bool, Failure> {
        self.tell_offer(offer);
        if self.yes {
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
            session::Event::Resumed { bytes } => self.advance(|bar| bar.resumed(bytes)),
            session::Event::Acknowledged { bytes } | session::Event::Received { bytes } => {
                self.advance(|bar| bar.acknowledged(bytes));
            }
            session::Event::Sent { name, size, hash } => self.file(Side::Us, name, None, size, hash),
            session::Event::Stored { path, size, hash } => {
                let path = path.to_string();
                self.file(Side::Them, &path, Some(path.clone()), size, hash);
            }
            session::Event::Text(text) => {
                if let Err(failure) = text::show(self.show, text) {
                    self.failed.borrow_mut().get_or_insert(failure);
                }
            }
            session::Event::Refused { name, reason } => {
                let name = printable(name);
                self.show.line(format_args!("the other side does not take {name}: {}", explain(reason)));
            }
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
    let path = &proposal.path;
    match (proposal.kind, proposal.size) {
        (ItemKind::Directory, Some(size)) => {
            let count = count(proposal.count.unwrap_or_default(), "entry", "entries");
            format!("the directory {path}, {} in {count}", bytes(size))
        }
        (_, Some(size)) => format!("the file {path}, {}", bytes(size)),
        (_, None) => format!("a stream {path}"),
    }
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
