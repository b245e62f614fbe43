//! Reading one file to send, on a thread that may block: what it makes are frames, ready to be written.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use blake3::Hasher;
use bytes::{Bytes, BytesMut};
use tokio::{
    sync::mpsc,
    task::{self, JoinHandle},
};

use super::{
    frame::{self, END_OF_DATA, PREFIX},
    message::{Hash, Have, Start, Whole},
    side::Stop,
};
use crate::{
    exit::Failure,
    files::{Entry, Source},
};

/// Bytes of a file that are read at once, and sent in one frame.
const PIECE: usize = 256 << 10;

/// Bytes behind the data of the last piece, at most.
const ENDING: usize = 64;

/// Pieces whose memory is kept: about as much as is on its way.
const KEPT: usize = 8;

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
            let buffers = Buffers::default();
            let mut loader = Loader { source, hasher: Hasher::new(), offset: 0, opening, buffers };
            if let Some(have) = have {
                loader.skip(&have)?;
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
    buffers: Buffers,
}

/// The memory of pieces, to be used again when nobody needs them any more: fresh memory costs more than what is done with it.
#[derive(Default)]
struct Buffers(VecDeque<Bytes>);

impl Buffers {
    /// A buffer with anything in it.
    fn take(&mut self, length: usize) -> BytesMut {
        let mut buffer = match self.0.pop_front().map(Bytes::try_into_mut) {
            Some(Ok(free)) => free,
            Some(Err(used)) => {
                self.0.push_front(used);
                BytesMut::with_capacity(length + ENDING)
            }
            None => BytesMut::with_capacity(length + ENDING),
        };
        buffer.resize(length, 0);
        buffer
    }

    /// Remembers a piece that is sent.
    fn lend(&mut self, piece: &Bytes) {
        if self.0.len() < KEPT {
            self.0.push_back(piece.clone());
        }
    }
}

impl Loader {
    /// Goes on behind what the other side has, as far as that is what is here.
    fn skip(&mut self, have: &Have) -> Result<(), Stop> {
        have.check(self.source.size())?;
        let common = have.common(|at, piece| self.source.read_at(at, piece).map(drop));
        (self.offset, self.hasher) = common.map_err(Stop::source)?;
        frame::push(&mut self.opening, &Start { offset: self.offset });
        Ok(())
    }

    fn load(mut self, pieces: &mpsc::Sender<Bytes>) -> Result<Loaded, Failure> {
        loop {
            let left = self.source.size() - self.offset;
            // Behind the first piece all begin where the hash is fast.
            let room = PIECE as u64 - self.offset % PIECE as u64;
            let length = usize::try_from(left.min(room)).expect("a piece fits into memory");
            let opening = self.opening.len();
            let begin = if length > 0 { opening + PREFIX } else { opening };
            let mut piece = self.buffers.take(begin + length);
            piece[..opening].copy_from_slice(&self.opening);
            self.opening.clear();
            if length > 0 {
                piece[opening..begin].copy_from_slice(&frame::prefix(length));
                self.source.read_at(self.offset, &mut piece[begin..])?;
                self.hasher.update(&piece[begin..]);
                self.offset += length as u64;
            }
            let ended = self.offset == self.source.size();
            if ended {
                self.source.unchanged()?;
                let mut ending = END_OF_DATA.to_vec();
                frame::push(&mut ending, &Whole { hash: self.hasher.finalize().into() });
                piece.extend_from_slice(&ending);
            }
            let piece = piece.freeze();
            self.buffers.lend(&piece);
            // Nobody wants the rest when the session has ended.
            if pieces.blocking_send(piece).is_err() || ended {
                return Ok(Loaded { size: self.source.size(), hash: self.hasher.finalize().into() });
            }
        }
    }
}
