//! Reading one file to send, on a thread that may block: what it makes are frames, ready to be written.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use blake3::Hasher;
use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::{self, JoinHandle},
};

use super::{
    frame::{self, END_OF_DATA, PREFIX},
    message::{Hash, Have, Start, Whole},
    side::Stop,
    state::Violation,
};
use crate::{
    exit::Failure,
    files::{Entry, Source},
};

/// Bytes of a file that are read at once, and sent in one frame.
const PIECE: usize = 256 << 10;

/// Pieces that may wait for the wormhole.
const WAITING: usize = 1;

/// What is to be read.
#[derive(Debug)]
pub(super) enum Content {
    Source(Source),
    /// Of a directory. It is opened when its time has come.
    Entry(Entry),
}

/// What was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loaded {
    pub(super) size: u64,
    pub(super) hash: Hash,
}

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Loading {
    pub(super) pieces: mpsc::Receiver<Bytes>,
    /// Where it went on, once that is known.
    pub(super) offset: Arc<AtomicU64>,
    thread: JoinHandle<Result<Loaded, Stop>>,
}

impl Loading {
    /// Begins to read. `opening` goes before the first piece. `have` is what the other side has, if that matters.
    pub(super) fn start(content: Content, opening: Vec<u8>, have: Option<Have>) -> Loading {
        let (sender, pieces) = mpsc::channel(WAITING);
        let offset = Arc::new(AtomicU64::new(0));
        let at = Arc::clone(&offset);
        let thread = task::spawn_blocking(move || {
            let source = match content {
                Content::Source(source) => source,
                Content::Entry(entry) => entry.open().map_err(Stop::source)?,
            };
            let mut loader = Loader { source, hasher: Hasher::new(), offset: 0, opening };
            if let Some(have) = have {
                loader.skip(have)?;
                at.store(loader.offset, Ordering::Relaxed);
            }
            loader.load(&sender).map_err(Stop::source)
        });
        Loading { pieces, offset, thread }
    }

    /// What was read, when there are no more pieces.
    pub(super) async fn end(self) -> Result<Loaded, Stop> {
        self.thread.await.map_err(|_| Stop::worker())?
    }
}

struct Loader {
    source: Source,
    hasher: Hasher,
    offset: u64,
    /// What goes before the next piece.
    opening: Vec<u8>,
}

impl Loader {
    /// Goes on behind what the other side has, if that is what is here.
    fn skip(&mut self, have: Have) -> Result<(), Stop> {
        if have.have > self.source.size() {
            return Err(Violation::new("more of a file is there than it has").into());
        }
        let mut buffer = vec![0; PIECE];
        let mut hasher = Hasher::new();
        let mut offset = 0;
        while offset < have.have {
            let wanted = usize::try_from(have.have - offset).map_or(PIECE, |left| left.min(PIECE));
            let read = self.source.read_at(offset, &mut buffer[..wanted]).map_err(Stop::source)?;
            hasher.update(&buffer[..read]);
            offset += read as u64;
        }
        if Hash::from(hasher.finalize()) == have.hash {
            (self.hasher, self.offset) = (hasher, offset);
        }
        frame::push(&mut self.opening, &Start { offset: self.offset });
        Ok(())
    }

    fn load(mut self, pieces: &mpsc::Sender<Bytes>) -> Result<Loaded, Failure> {
        loop {
            let left = self.source.size() - self.offset;
            let length = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
            let mut piece = std::mem::take(&mut self.opening);
            if length > 0 {
                piece.extend_from_slice(&frame::prefix(length));
                let begin = piece.len();
                piece.resize(begin + length, 0);
                self.source.read_at(self.offset, &mut piece[begin..])?;
                self.hasher.update(&piece[begin..]);
                self.offset += length as u64;
            }
            let ended = self.offset == self.source.size();
            if ended {
                self.source.unchanged()?;
                piece.extend_from_slice(&END_OF_DATA);
                frame::push(&mut piece, &Whole { hash: self.hasher.finalize().into() });
            } else {
                self.opening.reserve_exact(PREFIX + PIECE);
            }
            // Nobody wants the rest when the session has ended.
            if pieces.blocking_send(piece.into()).is_err() || ended {
                return Ok(Loaded { size: self.source.size(), hash: self.hasher.finalize().into() });
            }
        }
    }
}
