//! What the other side sends.

use std::{collections::BTreeSet, io, sync::Arc};

use dilated::{Server, Subchannel, WriteHalf};
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, oneshot},
    task,
};

use super::{
    Event, Host, MAX_OPEN, Proposal, Reason, frame,
    message::{self, Answer, Directory, Hash, Have, Item, Kind, Start, Whole},
    reading::{FrameReader, ReadFault},
    side::{Side, Stop},
    state::{Arrival, ItemId, Violation},
    store::{Place, Plan, Step, store},
    time, total,
};
use crate::{
    exit::Failure,
    files::{Existing, Id, Landing, Meta, NameError, Partial, PartialTree, SafePath},
};

/// Batches that may wait for the thread that stores a file, and about how many bytes one has: to wake a thread costs more
/// than a piece.
const WAITING: usize = 2;
const BATCH: u64 = 512 << 10;

/// The most files that may be coming. One counts until we have noticed that the other side knows that it is stored.
const MOST_COMING: usize = 2 * MAX_OPEN;

/// Told to the writer of a subchannel that is one too many.
const TOO_MANY: u32 = 1;

impl Found {
    fn proposal(&self) -> Option<&Proposal> {
        match self {
            Found::Possible(possible) => Some(&possible.proposal),
            Found::Text | Found::Refused(_) => None,
        }
    }
}

/// Where an item that was accepted goes.
#[derive(Debug)]
pub(super) enum Accepted {
    File { path: SafePath, id: Option<Id>, partial: Option<Partial> },
    Tree { tree: Arc<PartialTree>, path: SafePath, id: Option<Id>, meta: Meta },
}

/// What is known of an item before anybody decides.
enum Found {
    /// A text, as long as texts are taken.
    Text,
    Refused(Reason),
    Possible(Box<Possible>),
}

struct Possible {
    proposal: Proposal,
    id: Option<Id>,
    partial: Option<Partial>,
    tree: Option<PartialTree>,
}

impl<H: Host> Side<'_, H> {
    /// Answers an offer.
    pub(super) async fn answers(&self, offer: u64, items: &[Item]) -> Result<Vec<Answer>, Stop> {
        let (landing, texts, wanted) = (self.landing.clone(), self.texts, items.to_vec());
        let found = task::spawn_blocking(move || survey(landing.as_deref(), texts, &wanted)).await;
        let mut found = found.map_err(|_| Stop::worker())?.map_err(Stop::storing)?;
        let proposals: Vec<Proposal> = found.iter().filter_map(Found::proposal).cloned().collect();
        let accepted = proposals.is_empty() || self.host.accept(&proposals).await.map_err(Stop::storing)?;
        let mut answers = Vec::new();
        for (index, (item, found)) in (0..).zip(items.iter().zip(found.drain(..))) {
            let refused = match found {
                Found::Text => {
                    let text = item.text.as_deref().unwrap_or_default();
                    self.summary.borrow_mut().received.add_text(text);
                    self.tell(Event::Text(text));
                    None
                }
                Found::Refused(reason) => Some(reason),
                Found::Possible(_) if !accepted => Some(Reason::Declined),
                Found::Possible(possible) => {
                    answers.push(self.take(ItemId { offer, item: index }, item, *possible).await?);
                    continue;
                }
            };
            if let Some(reason) = refused {
                self.tell(Event::NotTaken { name: &item.name, reason });
            }
            self.count_answer(refused);
            answers.push(Answer { accept: refused.is_none(), resume: false, reason: refused });
        }
        if accepted && !proposals.is_empty() {
            let bytes = total(proposals.iter().map(|proposal| proposal.size));
            let has = proposals.iter().any(|proposal| proposal.resume);
            self.tell(Event::ReceiveBegins { bytes, has });
        }
        Ok(answers)
    }

    fn count_answer(&self, refused: Option<Reason>) {
        self.summary.borrow_mut().received.count(refused);
    }

    /// Makes ready for an item.
    async fn take(&self, id: ItemId, item: &Item, possible: Possible) -> Result<Answer, Stop> {
        let Possible { proposal, id: content, partial, tree } = possible;
        let accepted = if proposal.kind == Kind::Directory {
            let landing = self.landing.clone().expect("without one nothing is possible");
            let path = proposal.path.clone();
            let made = task::spawn_blocking(move || match tree {
                Some(tree) => Ok(tree),
                None => landing.target().create_tree(&path, content.as_ref()),
            });
            let tree = made.await.map_err(|_| Stop::worker())?.map_err(Stop::storing)?;
            let meta = time::from_wire(item.mode, item.mtime);
            Accepted::Tree { tree: Arc::new(tree), path: proposal.path, id: content, meta }
        } else {
            Accepted::File { path: proposal.path, id: content, partial }
        };
        self.accepted.borrow_mut().insert(id, accepted);
        self.count_answer(None);
        Ok(Answer { accept: true, resume: proposal.resume, reason: None })
    }

    /// Makes directories of a tree, and gives them what is known of them.
    pub(super) async fn make_directories(&self, id: ItemId, directories: Vec<Directory>) -> Result<(), Stop> {
        let tree = match self.accepted.borrow().get(&id) {
            Some(Accepted::Tree { tree, .. }) => Arc::clone(tree),
            _ => unreachable!("the conversation lets only directories pass"),
        };
        let made = task::spawn_blocking(move || -> Result<bool, Failure> {
            let mut paths = Vec::with_capacity(directories.len());
            for directory in &directories {
                let path = SafePath::relative(&directory.path)?;
                tree.target().create_dir(&path)?;
                paths.push(path);
            }
            // Making one changes the time of the one above.
            for (directory, path) in directories.iter().zip(&paths) {
                tree.target().finish_dir(path, time::from_wire(directory.mode, directory.mtime))?;
            }
            Ok(paths.iter().any(SafePath::altered))
        });
        let altered = made.await.map_err(|_| Stop::worker())?.map_err(Stop::storing)?;
        self.tell(Event::MadeDirectories { altered });
        Ok(())
    }

    /// Puts a directory in place.
    pub(super) async fn finish(&self, id: ItemId) -> Result<(), Stop> {
        let Some(Accepted::Tree { tree, meta, .. }) = self.accepted.borrow_mut().remove(&id) else {
            unreachable!("the conversation lets only directories pass")
        };
        let tree = Arc::into_inner(tree).ok_or_else(Stop::worker)?;
        let committed = task::spawn_blocking(move || tree.commit(meta));
        committed.await.map_err(|_| Stop::worker())?.map_err(Stop::storing)
    }

    /// Takes the subchannels of files until the session is over.
    pub(super) async fn take_files(&self, mut server: Server) -> Result<(), Stop> {
        let mut files = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                () = self.over() => return Ok(()),
                Some(taken) = files.next() => taken?,
                subchannel = server.accept() => {
                    let mut subchannel = subchannel.map_err(Stop::wormhole)?;
                    if files.len() < MOST_COMING {
                        files.push(self.take_file(subchannel));
                    } else {
                        subchannel.stop(TOO_MANY);
                        return Err(Violation::new("too many files at a time").into());
                    }
                }
            }
        }
    }

    async fn take_file(&self, subchannel: Subchannel) -> Result<(), Stop> {
        let (read, mut write) = subchannel.into_split();
        let mut frames = FrameReader::new(read);
        let header = match frames.message().await {
            Ok(header) => header,
            Err(fault) => return Err(self.fault(fault).await),
        };
        let arrival = self.conversation.borrow_mut().begin(header)?;
        let (plan, path) = self.plan(&arrival)?;
        let (steps, queue) = mpsc::channel(WAITING);
        let (tell, told) = oneshot::channel();
        let told = arrival.resume.then_some(told);
        let tell = arrival.resume.then_some(tell);
        let worker = task::spawn_blocking(move || store(plan, queue, tell));
        let size = match self.feed(frames, &mut write, steps, told).await {
            Ok(size) => Some(size),
            Err(Unfed::Stored) => None,
            Err(Unfed::Fault(fault)) => return Err(self.fault(fault).await),
            Err(Unfed::Write(error)) => return Err(self.lost(error).await),
        };
        let hash = worker.await.map_err(|_| Stop::worker())??;
        // Without an error it has taken all.
        let size = size.ok_or_else(Stop::worker)?;
        // Before the other side knows, who goes on then.
        self.conversation.borrow_mut().stored(arrival.id);
        let mut stored = Vec::new();
        frame::push(&mut stored, &Whole { hash });
        self.answer(&mut write, stored).await?;
        if let Err(error) = write.shutdown().await {
            return Err(self.lost(error).await);
        }
        self.summary.borrow_mut().received.add_file(size);
        self.tell(Event::Stored { path: &path, size, hash });
        Ok(())
    }

    /// Where what arrives goes, and its path from where everything lands.
    fn plan(&self, arrival: &Arrival) -> Result<(Plan, SafePath), Stop> {
        let mut accepted = self.accepted.borrow_mut();
        let meta = time::from_wire(arrival.mode, arrival.mtime);
        let (place, path, whole, id, partial) = match accepted.get_mut(&arrival.id) {
            Some(Accepted::Tree { tree, path: root, id, .. }) => {
                let wrong = |e: NameError| Stop::storing(e.into());
                let path = SafePath::relative(&arrival.path).map_err(wrong)?;
                let whole = root.join(&path).map_err(wrong)?;
                let id = id.map(|id| id_within(&id, arrival));
                (Place::Tree(Arc::clone(tree)), path, whole, id, None)
            }
            Some(Accepted::File { path, id, partial }) => {
                let landing = self.landing.clone().expect("without one nothing is accepted");
                (Place::Landing(landing), path.clone(), path.clone(), *id, partial.take())
            }
            None => unreachable!("the conversation lets only files of accepted items pass"),
        };
        Ok((Plan { place, path, size: arrival.size, meta, id, partial }, whole))
    }

    /// Gives what comes to the thread that stores it. Returns how many bytes the file has.
    async fn feed(
        &self,
        mut frames: FrameReader,
        write: &mut WriteHalf,
        steps: mpsc::Sender<Step>,
        told: Option<oneshot::Receiver<Have>>,
    ) -> Result<u64, Unfed> {
        let mut size = 0;
        if let Some(told) = told {
            let have = told.await.map_err(|_| Unfed::Stored)?;
            let mut answer = Vec::new();
            frame::push(&mut answer, &have);
            write.write_bytes(answer.into()).await.map_err(|e| Unfed::Write(e.into()))?;
            let Start { offset } = frames.message().await?;
            if !have.allows(offset) {
                return Err(Violation::new("a file goes on where it was not asked to").into());
            }
            steps.send(Step::Start(offset)).await.map_err(|_| Unfed::Stored)?;
            size = offset;
            self.count_received(offset, |bytes| Event::Resumed { bytes });
        }
        while let Some((batch, length)) = frames.data(BATCH).await? {
            steps.send(Step::Data(batch)).await.map_err(|_| Unfed::Stored)?;
            size = size.saturating_add(length);
            self.count_received(length, |bytes| Event::Received { bytes });
        }
        let Whole { hash } = frames.message().await?;
        frames.end().await?;
        steps.send(Step::End(hash)).await.map_err(|_| Unfed::Stored)?;
        Ok(size)
    }

    async fn answer(&self, write: &mut WriteHalf, frame: Vec<u8>) -> Result<(), Stop> {
        match write.write_bytes(frame.into()).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(error).await),
        }
    }

    fn count_received(&self, bytes: u64, event: impl FnOnce(u64) -> Event<'static>) {
        if bytes > 0 {
            self.received.set(self.received.get().saturating_add(bytes));
            self.tell(event(self.received.get()));
        }
    }
}

/// Why not all of a file went to the thread.
enum Unfed {
    /// The thread takes no more, and says why.
    Stored,
    Fault(ReadFault),
    Write(io::Error),
}

impl From<Violation> for Unfed {
    fn from(violation: Violation) -> Unfed {
        Unfed::Fault(violation.into())
    }
}

impl From<ReadFault> for Unfed {
    fn from(fault: ReadFault) -> Unfed {
        Unfed::Fault(fault)
    }
}

/// Names a file in a directory that has a name for its content.
fn id_within(tree: &Id, arrival: &Arrival) -> Id {
    let what = (Hash(*tree), &arrival.path, arrival.size, arrival.mtime);
    blake3::hash(&message::encode(&what)).into()
}

/// Looks at what is offered, and at what is here.
fn survey(landing: Option<&Landing>, texts: bool, items: &[Item]) -> Result<Vec<Found>, Failure> {
    let things = items.iter().filter(|item| item.kind != Kind::Text).count();
    let mut names = BTreeSet::new();
    let mut missing = 0_u64;
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        found.push(match (item.kind, landing) {
            (Kind::Text, _) if texts => Found::Text,
            (Kind::Text | Kind::Unknown, _) | (_, None) => Found::Refused(Reason::Unsupported),
            // The name that the user chose is for one thing.
            (_, Some(landing)) if things > 1 && landing.chosen().is_some() => Found::Refused(Reason::Name),
            (_, Some(landing)) => match landing.name(&item.name) {
                Err(_) => Found::Refused(Reason::Name),
                Ok(path) if !names.insert(path.clone()) => Found::Refused(Reason::Exists),
                Ok(path) => look(landing, item, path, &mut missing)?,
            },
        });
    }
    if let Some(landing) = landing
        && missing > 0
        && missing > landing.target().free_space()?
    {
        for found in found.iter_mut().filter(|found| matches!(found, Found::Possible(_))) {
            *found = Found::Refused(Reason::Space);
        }
    }
    Ok(found)
}

/// Looks at what is here of one item, and adds to `missing` what is not.
fn look(landing: &Landing, item: &Item, path: SafePath, missing: &mut u64) -> Result<Found, Failure> {
    let target = landing.target();
    let directory = item.kind == Kind::Directory;
    if target.exists(&path)? && (directory || target.existing() == Existing::Keep) {
        return Ok(Found::Refused(Reason::Exists));
    }
    let id = item.id.map(|id| id.0);
    let (mut partial, mut tree) = (None, None);
    if let Some(id) = &id {
        if directory {
            tree = target.resume_tree(&path, id)?;
        } else if let Some(size) = item.size {
            partial = target.resume(&path, size, id)?;
        }
    }
    // How much of a directory is here, it is not worth to know.
    if tree.is_none() {
        let here = partial.as_ref().map_or(0, Partial::here);
        *missing = missing.saturating_add(item.size.unwrap_or(0).saturating_sub(here));
    }
    let resume = partial.is_some() || tree.is_some();
    let name = item.name.clone();
    let proposal = Proposal { kind: item.kind, name, path, size: item.size, count: item.count, resume };
    Ok(Found::Possible(Box::new(Possible { proposal, id, partial, tree })))
}
