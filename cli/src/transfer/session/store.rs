//! Storing one file, on a thread that may block.

use std::{fs::File, io::Read, sync::Arc};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{
    hash::FileHasher,
    message::{Code, Hash, Have},
    side::Stop,
    state::Violation,
};
use crate::{
    exit::{Failure, Kind},
    files::{CHUNK, Id, Landing, Meta, Partial, PartialTree, SafePath, Target},
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
            let storing = Storing::look(plan)?;
            let have = Have { have: storing.written, hash: storing.hasher.finalize() };
            // Nobody to tell is nobody who sends more, which the next step shows.
            let _ = tell.send(have);
            storing
        }
    };
    while let Some(step) = steps.blocking_recv() {
        match step {
            Step::Start(offset) => storing.start(offset)?,
            Step::Data(batch) => batch.iter().try_for_each(|data| storing.write(data))?,
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
    hasher: FileHasher,
}

enum Storage {
    Partial(Partial),
    /// It was complete in a directory that is not.
    Complete,
}

impl Storing {
    fn begin(mut plan: Plan) -> Result<Storing, Stop> {
        let partial = match plan.partial.take() {
            Some(partial) => partial,
            None => create(&plan)?,
        };
        Ok(Storing { plan, file: Storage::Partial(partial), written: 0, hasher: FileHasher::new() })
    }

    /// Begins with what is there.
    fn look(mut plan: Plan) -> Result<Storing, Stop> {
        if let Some(complete) = complete(&plan)? {
            let (mut hasher, mut written) = (FileHasher::new(), 0);
            read_all(complete, &plan.path, |data| {
                written += data.len() as u64;
                hasher.update(data, |_, _| Ok(()))
            })?;
            return Ok(Storing { plan, file: Storage::Complete, written, hasher });
        }
        if plan.partial.is_none()
            && let (Some(id), Some(size)) = (&plan.id, plan.size)
        {
            plan.partial = plan.place.target().resume(&plan.path, size, id).map_err(Stop::storing)?;
        }
        let Some(partial) = plan.partial.take() else { return Storing::begin(plan) };
        // Every chunk behind a hole comes again.
        let whole = partial.size() / CHUNK;
        let chunks: Vec<Id> = (0..whole).map_while(|index| partial.have().get(&index)).copied().collect();
        let hasher = match chunks.len() {
            0 => FileHasher::new(),
            1 => {
                let mut hasher = FileHasher::new();
                let mut chunk = vec![0; usize::try_from(CHUNK).expect("a chunk fits into memory")];
                partial.read_at(0, &mut chunk).map_err(Stop::storing)?;
                hasher.update(&chunk, |_, _| Ok::<_, Stop>(()))?;
                hasher
            }
            _ => FileHasher::after(&chunks),
        };
        let written = chunks.len() as u64 * CHUNK;
        Ok(Storing { plan, file: Storage::Partial(partial), written, hasher })
    }

    fn start(&mut self, offset: u64) -> Result<(), Stop> {
        if offset == self.written {
            return Ok(());
        }
        if offset != 0 {
            return Err(Violation::new("a file goes on where it was not asked to").into());
        }
        // What is here is something else.
        match &mut self.file {
            Storage::Partial(partial) => partial.restart().map_err(Stop::storing)?,
            Storage::Complete => {
                self.plan.place.target().remove_file(&self.plan.path).map_err(Stop::storing)?;
                self.file = Storage::Partial(create(&self.plan)?);
            }
        }
        (self.written, self.hasher) = (0, FileHasher::new());
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Stop> {
        let Storage::Partial(partial) = &mut self.file else { return Err(too_much()) };
        partial.write_at(self.written, data).map_err(Stop::storing)?;
        self.written += data.len() as u64;
        self.hasher.update(data, |index, hash| partial.record(index, hash)).map_err(Stop::storing)
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
                Storage::Complete => {
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
            Storage::Complete => Ok(()),
        }
    }
}

/// Begins a file. One of a single chunk is as soon sent again as resumed.
fn create(plan: &Plan) -> Result<Partial, Stop> {
    let target = plan.place.target();
    let size = plan.size.unwrap_or(u64::MAX);
    match &plan.id {
        Some(id) if size > CHUNK => target.create_resumable(&plan.path, size, id),
        _ => target.create(&plan.path, size),
    }
    .map_err(Stop::storing)
}

/// The file, if it is there with its size, in a directory that is not complete. What is there with another size goes.
fn complete(plan: &Plan) -> Result<Option<File>, Stop> {
    let Place::Tree(tree) = &plan.place else { return Ok(None) };
    let target = tree.target();
    let Some(file) = target.read(&plan.path).map_err(Stop::storing)? else { return Ok(None) };
    if file.metadata().is_ok_and(|metadata| Some(metadata.len()) == plan.size) {
        return Ok(Some(file));
    }
    target.remove_file(&plan.path).map_err(Stop::storing)?;
    Ok(None)
}

fn read_all(
    file: File,
    path: &SafePath,
    mut take: impl FnMut(&[u8]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut file = file.take(length);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => take(&buffer[..read])?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Stop::storing(Failure::io(&format!("could not read {path}"), &error)));
            }
        }
    }
}

fn too_much() -> Stop {
    Violation::new("more comes than was offered").into()
}
