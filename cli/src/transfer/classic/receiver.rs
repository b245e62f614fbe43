//! The part that receives.

use std::{
    fs::File,
    io::{self, Write},
    time::Duration,
};

use dilated::transit::{TransitPipe, TransitReceiver};

use super::{
    Classic, broken,
    feed::{Hashing, Lent, Worker, as_io},
    message::{self, BadOffer, Offer},
    no_connection,
    unpack::{Offered, unpack},
};
use crate::{
    exit::{Failure, Kind},
    files::{Landing, Meta, Partial, SafePath},
    quote::{bytes, count, printable},
    show::{self, Event, Hash, Side, Total},
    transfer::{BOTH_RECEIVE, text},
};

/// What this side's user wants.
#[derive(Debug)]
pub(in crate::transfer) struct Wish {
    /// Where it lands.
    pub(in crate::transfer) landing: Landing,
    /// Whether what exists may be replaced.
    pub(in crate::transfer) overwrite: bool,
    pub(in crate::transfer) only_text: bool,
    /// Take it without asking.
    pub(in crate::transfer) yes: bool,
}

/// Receives what the other side offers.
pub(in crate::transfer) async fn receive(mut classic: Classic<'_>, wish: Wish) -> Result<Total, Failure> {
    let outcome = take(&mut classic, wish).await;
    classic.give_up(outcome)
}

async fn take(classic: &mut Classic<'_>, wish: Wish) -> Result<Total, Failure> {
    /// The user is told what may be wrong when nothing was offered for so long.
    const PATIENCE: Duration = Duration::from_secs(10);
    let (mut transit, mut advised) = (None, false);
    loop {
        let message = tokio::select! {
            message = classic.hear() => message?,
            () = tokio::time::sleep(PATIENCE), if !advised => {
                advised = true;
                classic.show.line(format_args!("still waiting: {BOTH_RECEIVE}"));
                continue;
            }
        };
        if message.transit.is_some() {
            transit = Some(contact(classic, transit)?);
        }
        match message.offer {
            None => {}
            Some(Ok(Offer::Text(text))) => return take_text(classic, &text),
            Some(Ok(offer)) => {
                let transit = contact(classic, transit)?;
                return take_data(classic, wish, transit, offer).await;
            }
            Some(Err(bad)) => return Err(refuse_bad(classic, bad)),
        }
    }
}

/// Tells the other side where this one can be reached, the first time.
fn contact(classic: &Classic<'_>, transit: Option<TransitReceiver>) -> Result<TransitReceiver, Failure> {
    if let Some(transit) = transit {
        return Ok(transit);
    }
    let transit: TransitReceiver = classic.transit()?;
    classic.say(message::transit(&transit.abilities(), &transit.hints()))?;
    Ok(transit)
}

fn take_text(classic: &Classic<'_>, text: &str) -> Result<Total, Failure> {
    text::show(classic.show, text)?;
    classic.say(message::text_answer())?;
    Ok(Total { files: 0, bytes: text.len() as u64 })
}

/// A file or a directory that is about to come.
struct Incoming {
    /// As the other side calls it.
    name: String,
    path: SafePath,
    /// Of what is transferred, in bytes.
    size: u64,
    /// For a directory.
    contents: Option<Offered>,
}

async fn take_data(
    classic: &mut Classic<'_>,
    wish: Wish,
    transit: TransitReceiver,
    offer: Offer,
) -> Result<Total, Failure> {
    let accepted = accept(classic, &wish, offer).await;
    let incoming = match accepted {
        Ok(incoming) => incoming,
        Err(failure) => {
            classic.refuse(message::REJECTED);
            return Err(failure);
        }
    };
    // What could fail here fails before the other side starts.
    let target = wish.landing.target();
    let place = match incoming.contents {
        None => target.create(&incoming.path, incoming.size).map(Place::File),
        Some(_) => Spool::new(target, &incoming).map(Place::Directory),
    };
    let place = place.inspect_err(|_| classic.refuse(message::REJECTED))?;
    classic.say(message::file_answer())?;
    while !classic.heard {
        classic.hear().await?;
    }
    let (show, hints) = (classic.show.clone(), classic.hints.clone());
    let delivery = async {
        show.line("looking for a path to the other side");
        let mut pipe = transit.connect(&hints).await.map_err(|error| no_connection(&error))?;
        let path = printable(&pipe.path.to_string());
        show.line(format_args!("connected {path}; receiving {}", bytes(incoming.size)));
        show.event(&Event::Connected { path });
        let Filled { hash, altered } = place.fill(&mut pipe, &incoming, &show).await?;
        show.line(format_args!("{} is complete", incoming.path));
        if altered {
            show.altered();
        }
        // It is here, whatever becomes of this.
        if let Err(error) = pipe.writer.send_record(&message::acknowledgement(&hash)).await {
            show.line(format_args!("the other side left before it was told so: {error}"));
        }
        pipe.close().await;
        Ok(incoming.done(&show, hash, altered))
    };
    classic.unless_abandoned(delivery).await
}

impl Incoming {
    fn done(self, show: &show::Show, hash: String, altered: bool) -> Total {
        let (from, name, path) = (Side::Them, self.name, Some(self.path.to_string()));
        match self.contents {
            None => {
                let hash = Some(Hash::Sha256(hash));
                show.event(&Event::File { from, name, path, altered, bytes: self.size, hash });
                Total { files: 1, bytes: self.size }
            }
            Some(Offered { bytes, files }) => {
                show.event(&Event::File { from, name, path, altered, bytes, hash: None });
                Total { files, bytes }
            }
        }
    }
}

/// Decides whether to take the offer, and asks the user.
async fn accept(classic: &mut Classic<'_>, wish: &Wish, offer: Offer) -> Result<Incoming, Failure> {
    let (name, size, contents) = match offer {
        Offer::File { name, size } => (name, size, None),
        Offer::Directory { name, archive, bytes, files } => (name, archive, Some(Offered { bytes, files })),
        Offer::Text(_) => unreachable!("texts are taken without a question"),
    };
    let (kind, files) = match contents {
        None => (show::Offered::File, None),
        Some(contents) => (show::Offered::Directory, Some(contents.files)),
    };
    let content = contents.map_or(size, |contents| contents.bytes);
    let name_shown = printable(&name);
    classic.show.event(&Event::Offer {
        from: Side::Them,
        kind,
        name: Some(name.clone()),
        files,
        bytes: Some(content),
    });
    if wish.only_text {
        let message = format!("the other side offers {name_shown}, which is no text; leave --only-text away");
        return Err(Failure::usage(message));
    }
    let path =
        wish.landing.name(&name).map_err(|error| Failure::new(Kind::PeerProgram, error.to_string()))?;
    let target = wish.landing.target();
    if target.exists(&path)? && (!wish.overwrite || contents.is_some()) {
        let advice = if contents.is_some() { "" } else { ", or --overwrite" };
        let message = format!("{path} exists already; name another with --output{advice}");
        return Err(Failure::new(Kind::Local, message));
    }
    // The archive and what is in it are there at the same time.
    target.require_space(contents.map_or(size, |contents| size.saturating_add(contents.bytes)))?;
    let what = match contents {
        None => format!("the file {name_shown}, {}", bytes(size)),
        Some(Offered { bytes: content, files }) => {
            format!("the directory {name_shown}, {} in {}", bytes(content), count(files, "file", "files"))
        }
    };
    classic.show.line(format_args!("the other side offers {what}"));
    if !wish.yes {
        let show = classic.show.clone();
        let question = format!("Receive it as {path}?");
        if !classic.unless_abandoned(show.ask(&question, Some(true), "--yes")).await? {
            return Err(Failure::new(Kind::Declined, "nothing was received"));
        }
    }
    Ok(Incoming { name, path, size, contents })
}

/// Where the data go.
enum Place {
    File(Partial),
    Directory(Spool),
}

/// What came to its place.
struct Filled {
    /// Of what was transferred, SHA-256 in hexadecimal digits.
    hash: String,
    /// Whether something has another name than the other side gave it.
    altered: bool,
}

impl Place {
    /// Receives all of it, and returns once everything is in its final place.
    async fn fill(
        self,
        pipe: &mut TransitPipe,
        incoming: &Incoming,
        show: &show::Show,
    ) -> Result<Filled, Failure> {
        let altered = incoming.path.altered();
        match self {
            Place::File(partial) => {
                let store = PartialStore { partial, offset: 0 };
                let (store, hash) = drain(pipe, incoming, store, show).await?;
                Worker::start(move |_| store.partial.commit(Meta::default()))?.finish().await?;
                Ok(Filled { hash, altered })
            }
            Place::Directory(Spool { archive, tree, offered }) => {
                let (archive, hash) = drain(pipe, incoming, archive, show).await?;
                show.line("unpacking");
                let unpacked = Worker::start(move |cancelled| {
                    let altered = unpack(archive, offered, tree.target(), cancelled)?;
                    tree.commit(Meta::default()).map(|()| altered)
                });
                let inside = unpacked?.finish().await?;
                Ok(Filled { hash, altered: altered || inside })
            }
        }
    }
}

/// An archive that is unpacked when it is complete.
struct Spool {
    /// Without a name; it is gone when it is closed.
    archive: File,
    tree: crate::files::PartialTree,
    offered: Offered,
}

impl Spool {
    fn new(target: &crate::files::Target, incoming: &Incoming) -> Result<Spool, Failure> {
        let offered = incoming.contents.expect("it is a directory");
        Ok(Spool { archive: target.scratch()?, tree: target.create_tree(&incoming.path, None)?, offered })
    }
}

/// Receives exactly as many bytes as were offered. When this is dropped, the store is gone.
async fn drain<S: Write + Send + 'static>(
    pipe: &mut TransitPipe,
    incoming: &Incoming,
    store: S,
    show: &show::Show,
) -> Result<(S, String), Failure> {
    let bar = show.progress(Some(incoming.size), &incoming.name);
    let observed = bar.clone();
    let (lent, _waiting) = Lent::new(Hashing::new(store));
    let observe = move |piece: &[u8]| observed.add(piece.len() as u64);
    let stored = pipe.reader.copy_to_blocking(lent, incoming.size, observe).await;
    bar.finish();
    Ok(stored.map_err(|error| broken(&error))?.inner.finish())
}

/// A file that grows from its beginning.
struct PartialStore {
    partial: Partial,
    offset: u64,
}

impl Write for PartialStore {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.partial.write_at(self.offset, piece).map_err(as_io)?;
        self.offset += piece.len() as u64;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn refuse_bad(classic: &mut Classic<'_>, bad: BadOffer) -> Failure {
    classic.refuse(bad.reason());
    let message = format!("the other side offers something that this side does not know ({})", bad.reason());
    Failure::new(Kind::PeerProgram, message)
}
