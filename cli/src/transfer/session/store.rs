//! Storing one file, on a thread that may block.

use std::{fs::File, sync::Arc};

use blake3::Hasher;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{
    hash::{MIN_CHUNK, PieceHasher, add},
    message::{Code, Hash, Have},
    side::Stop,
    state::Violation,
};
use crate::{
    exit::{Failure, Kind},
    files::{Id, Landing, Meta, Partial, PartialTree, SafePath, Target, fill},
};

/// The directory in which a file lands.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// The one that the user chose.
    Landing(Arc<Landing>),
    /// One that is being received.
    Tree(Arc<PartialTree>),
}

impl Place {
    fn target(&self) -> &Target {
        match self {
            Place::Landing(landing) => landing.target(),
            Place::Tree(tree) => tree.target(),
        }
    }
}

/// What is to be stored.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) place: Place,
    pub(super) path: SafePath,
    /// `None` if it is known only at the end.
    pub(super) size: Option<u64>,
    pub(super) meta: Meta,
    /// Under which it is kept if it does not become complete.
    pub(super) id: Option<Id>,
    /// What was found of it before, if that was looked for.
    pub(super) partial: Option<Partial>,
}

/// What comes, in this order.
#[derive(Debug)]
pub(super) enum Step {
    /// The data go on here. Only after [`Have`] was told.
    Start(u64),
    Data(Vec<Bytes>),
    /// All has come, and this is its hash.
    End(Hash),
}

/// Does all of `plan`. `tell` gets what is there already; without it that does not matter.
pub(super) fn store(
    plan: Plan,
    mut steps: mpsc::Receiver<Step>,
    tell: Option<oneshot::Sender<Have>>,
) -> Result<Hash, Stop> {
    let mut storing = match tell {
        None => Storing::begin(plan)?,
        Some(tell) => {
            let (storing, have) = Storing::look(plan)?;
            // Nobody to tell is nobody who sends more, which the next step shows.
            let _ = tell.send(have);
            storing
        }
    };
    while let Some(step) = steps.blocking_recv() {
        match step {
            Step::Start(offset) => storing.start(offset)?,
            Step::Data(batch) => storing.write(&batch)?,
            Step::End(hash) => return storing.end(hash),
        }
    }
    storing.keep()?;
    Err(Stop::Left)
}

/// A file that is being stored.
struct Storing {
    plan: Plan,
    file: Storage,
    /// Bytes from the beginning that are there, and their hash.
    written: u64,
    hasher: PieceHasher,
}

enum Storage {
    Partial(Partial),
    /// It was complete in a directory that is not.
    Complete(File),
}

impl Storage {
    /// Fills `buffer` with what was written.
    fn read_at(&self, path: &SafePath, offset: u64, buffer: &mut [u8]) -> Result<(), Stop> {
        let read = match self {
            Storage::Partial(partial) => partial.read_at(offset, buffer),
            Storage::Complete(file) => fill(file, offset, buffer)
                .map_err(|error| Failure::io(&format!("could not read {path}"), &error)),
        };
        if read.map_err(Stop::storing)? < buffer.len() {
            let message = format!("somebody changed {path} while it was received");
            return Err(Stop::storing(Failure::new(Kind::Local, message)));
        }
        Ok(())
    }
}

impl Storing {
    fn begin(mut plan: Plan) -> Result<Storing, Stop> {
        let partial = match plan.partial.take() {
            Some(partial) => partial,
            None => create(&plan)?,
        };
        Ok(Storing {
            plan,
            file: Storage::Partial(partial),
            written: 0,
            hasher: PieceHasher::new(Hasher::new()),
        })
    }

    /// Begins with what is there, which is read.
    fn look(mut plan: Plan) -> Result<(Storing, Have), Stop> {
        let (file, length) = match complete(&plan)? {
            Some((file, length)) => (Storage::Complete(file), length),
            None => {
                let partial = match (plan.partial.take(), &plan.id, plan.size) {
                    (None, Some(id), Some(size)) => {
                        plan.place.target().resume(&plan.path, size, id).map_err(Stop::storing)?
                    }
                    (partial, ..) => partial,
                };
                let partial = match partial {
                    Some(partial) => partial,
                    None => create(&plan)?,
                };
                let length = partial.here();
                (Storage::Partial(partial), length)
            }
        };
        let (have, hasher) = Have::of(length, |at, piece| file.read_at(&plan.path, at, piece))?;
        Ok((Storing { plan, file, written: length, hasher: PieceHasher::new(hasher) }, have))
    }

    /// Goes on at `offset`, where [`Have`] allows it. What is behind that is something else.
    fn start(&mut self, offset: u64) -> Result<(), Stop> {
        if offset == self.written {
            return Ok(());
        }
        let Storing { plan, file, .. } = self;
        let mut hasher = Hasher::new();
        match file {
            Storage::Partial(_) => {
                add(&mut hasher, 0..offset, |at, piece| file.read_at(&plan.path, at, piece))?;
            }
            Storage::Complete(_) => {
                plan.place.target().remove_file(&plan.path).map_err(Stop::storing)?;
                let mut partial = create(plan)?;
                add(&mut hasher, 0..offset, |at, piece| {
                    file.read_at(&plan.path, at, piece)?;
                    partial.write_at(at, piece).map_err(Stop::storing)
                })?;
                *file = Storage::Partial(partial);
            }
        }
        (self.written, self.hasher) = (offset, PieceHasher::new(hasher));
        Ok(())
    }

    fn write(&mut self, batch: &[Bytes]) -> Result<(), Stop> {
        let Storage::Partial(partial) = &mut self.file else {
            return Err(Violation::new("more comes than was offered").into());
        };
        self.written += partial.write_all_at(self.written, batch).map_err(Stop::storing)?;
        batch.iter().for_each(|data| self.hasher.update(data));
        Ok(())
    }

    fn end(self, hash: Hash) -> Result<Hash, Stop> {
        let Storing { plan, file, written, hasher } = self;
        if plan.size.is_some_and(|size| size != written) {
            return Err(Violation::new("a file is shorter than was offered").into());
        }
        let found = hasher.finalize();
        if found != hash {
            match file {
                Storage::Partial(partial) => partial.discard(),
                Storage::Complete(_) => {
                    plan.place.target().remove_file(&plan.path).map_err(Stop::storing)?;
                }
            }
            let message = format!("{} is not what was sent: its hash is wrong", plan.path);
            return Err(Stop::Here(Code::Hash, Failure::new(Kind::PeerProgram, message)));
        }
        if let Storage::Partial(mut partial) = file {
            if plan.size.is_none() {
                partial.set_size(written).map_err(Stop::storing)?;
            }
            partial.commit(plan.meta).map_err(Stop::storing)?;
        }
        Ok(found)
    }

    fn keep(self) -> Result<(), Stop> {
        match self.file {
            Storage::Partial(partial) => partial.keep().map_err(Stop::storing),
            Storage::Complete(_) => Ok(()),
        }
    }
}

/// Begins a file. One of a single chunk is as soon sent again as resumed.
fn create(plan: &Plan) -> Result<Partial, Stop> {
    let target = plan.place.target();
    let size = plan.size.unwrap_or(u64::MAX);
    match &plan.id {
        Some(id) if size > MIN_CHUNK => target.create_resumable(&plan.path, size, id),
        _ => target.create(&plan.path, size),
    }
    .map_err(Stop::storing)
}

/// The file and its size, if it is there with that, in a directory that is not complete. What is there with another size
/// goes.
fn complete(plan: &Plan) -> Result<Option<(File, u64)>, Stop> {
    let Place::Tree(tree) = &plan.place else { return Ok(None) };
    let target = tree.target();
    let Some(file) = target.read(&plan.path).map_err(Stop::storing)? else { return Ok(None) };
    let length = file.metadata().ok().map(|metadata| metadata.len());
    if let Some(length) = length.filter(|_| length == plan.size) {
        return Ok(Some((file, length)));
    }
    target.remove_file(&plan.path).map_err(Stop::storing)?;
    Ok(None)
}
