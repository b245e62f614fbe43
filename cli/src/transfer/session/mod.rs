//! Files between two of our own, over dilation: the protocol of `docs/transfer.md`.
//!
//! [`message`] and [`frame`] are what goes over the wire, [`state`] is what may be said when, and [`side`] does it: what
//! this side sends is in [`outgoing`], what comes from the other side in [`incoming`] and, on a thread, in [`store`].

mod frame;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzz;
mod hash;
mod incoming;
mod load;
mod message;
mod outgoing;
mod reading;
mod side;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod time;

use bytes::Bytes;
use dilated::Dilated;
use tokio::sync::mpsc;

pub(crate) use self::message::{Hash, Kind, Reason};
use self::side::Side;
use crate::{
    exit::Failure,
    files::{Landing, SafePath, Source, Tree},
    meeting::Broken,
};

/// The most files that are sent at a time: whose subchannels are open.
const MAX_OPEN: usize = 64;

/// Something to send.
pub(crate) enum Outgoing {
    Text(String),
    File(Source),
    Directory(Tree),
    /// Bytes whose number is known only at their end.
    Stream {
        name: String,
        input: mpsc::Receiver<std::io::Result<Bytes>>,
    },
}

/// What one side brings to a session.
pub(crate) struct Work {
    /// What it sends; may be nothing.
    pub(crate) outgoing: Vec<Outgoing>,
    /// Where it puts what it receives; without one it takes texts at most.
    pub(crate) landing: Option<Landing>,
    /// Whether it takes texts.
    pub(crate) texts: bool,
}

/// Something that the other side offers and that could be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) kind: Kind,
    /// As the other side calls it.
    pub(crate) name: String,
    /// Where it would land.
    pub(crate) path: SafePath,
    /// Bytes; `None` for a stream.
    pub(crate) size: Option<u64>,
    /// Files and directories in a directory.
    pub(crate) count: Option<u64>,
    /// Whether an earlier session left parts of it here.
    pub(crate) resume: bool,
}

/// What happens, for people and scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// The other side takes some of what was offered, of this many bytes; `None` with a stream among it. Of some it `has`
    /// parts, which are compared first.
    SendBegins { bytes: Option<u64>, has: bool },
    /// The other side will not have one of our items.
    Refused { name: &'a str, reason: Reason },
    /// A file goes on behind what was there. With that, this many bytes of all that we send have been acknowledged, or of
    /// all that comes are here.
    Resumed { bytes: u64 },
    /// This many bytes of all that we send have been acknowledged, or were there before.
    Acknowledged { bytes: u64 },
    /// The other side has stored one of our files. Its name has `/` between a directory and what is in it.
    Sent { name: &'a str, size: u64, hash: Hash },
    /// A text came.
    Text(&'a str),
    /// We take some of what was offered, of this many bytes; `None` with a stream among it. Of some this side `has` parts,
    /// which are compared first.
    ReceiveBegins { bytes: Option<u64>, has: bool },
    /// An item that cannot be taken, and why.
    NotTaken { name: &'a str, reason: Reason },
    /// This many bytes of all that comes have been written, or were there before.
    Received { bytes: u64 },
    /// Directories without files in them were made; whether one has another name than the other side gave it.
    MadeDirectories { altered: bool },
    /// A file is complete, or one in a directory that is not.
    Stored { path: &'a SafePath, size: u64, hash: Hash },
}

/// Those who watch a session and decide in it.
pub(crate) trait Host {
    /// Whether to take all of `offer`, which is never empty.
    async fn accept(&self, offer: &[Proposal]) -> Result<bool, Failure>;

    /// Something happened. Called often; must not block.
    fn tell(&self, event: Event<'_>);
}

/// How a session went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) sent: Totals,
    pub(crate) received: Totals,
}

/// One direction of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Items that were taken.
    pub(crate) taken: u64,
    /// Items that were not, with the last reason.
    pub(crate) refused: u64,
    pub(crate) reason: Option<Reason>,
    /// Files that are stored, those in directories included.
    pub(crate) files: u64,
    /// Their bytes, and those of texts.
    pub(crate) bytes: u64,
}

/// Adds up sizes; one that is not known makes the sum unknown.
fn total(mut sizes: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    sizes.try_fold(0, |sum: u64, size| Some(sum.saturating_add(size?)))
}

impl Totals {
    /// Counts what became of an item.
    fn count(&mut self, refused: Option<Reason>) {
        match refused {
            None => self.taken += 1,
            Some(_) => {
                self.refused += 1;
                self.reason = refused;
            }
        }
    }

    fn add_file(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn add_text(&mut self, text: &str) {
        self.bytes = self.bytes.saturating_add(text.len() as u64);
    }
}

/// Sends and receives until neither side has any more. To be called once for a [`Dilated`] whose endpoints nobody has
/// taken. When it is dropped, or fails, what was received is kept as the [`Landing`] has it, to be resumed.
///
/// # Errors
///
/// The end of the wormhole before that; what failed here; what the other side says that failed there.
pub(crate) async fn run<H: Host>(dilated: &mut Dilated, work: Work, host: &H) -> Result<Summary, Broken> {
    let (control, client, server) = dilated.endpoints().expect("nobody took them before");
    let (read, mut write) = control.connect().await.map_err(Broken::wormhole)?.into_split();
    let Work { outgoing, landing, texts } = work;
    let (side, queues) = Side::new(client, host, landing, texts);
    let outcome = side.run(read, &mut write, server, outgoing, queues).await;
    match outcome {
        Ok(()) => Ok(side.summary()),
        Err(stop) => {
            stop.tell(&mut write).await;
            Err(stop.into_broken())
        }
    }
}
