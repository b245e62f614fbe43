//! What this side sends.

use std::{
    collections::VecDeque,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dilated::WriteHalf;
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{io::AsyncWriteExt, sync::mpsc};

use super::{
    Event, Host, MAX_OPEN, Outgoing, Reason,
    frame::{self, END_OF_DATA, MAX_DATA},
    load::{self, Loaded, Loading},
    message::{self, Answer, Directory, Hash, Header, Item, Kind, MAX_ITEMS, MAX_TEXT, Message, Whole},
    reading::FrameReader,
    side::{Reply, Side, Stop},
    state::{ItemId, Violation},
    time, total,
};
use crate::{
    exit::Failure,
    files::{Entry, EntryKind, Tree},
};

/// Bytes that the items or directories of one message may have, names and texts. Their other members add less than that.
const MESSAGE: usize = 512 << 10;

/// How often to look how much of a file was acknowledged.
const LOOK: Duration = Duration::from_millis(100);

/// What is in a file.
enum Content {
    Load(load::Content),
    Stream(mpsc::Receiver<io::Result<Bytes>>),
}

/// A file that is sent.
struct Job {
    header: Header,
    content: Content,
    /// Known before, unless it is a stream.
    size: Option<u64>,
    resume: bool,
    name: String,
}

impl<H: Host> Side<'_, H> {
    /// Offers everything, and sends what the other side wants.
    pub(super) async fn send_all(
        &self,
        outgoing: Vec<Outgoing>,
        mut replies: mpsc::Receiver<Reply>,
    ) -> Result<(), Stop> {
        let mut offers = VecDeque::new();
        let (mut batch, mut length) = (Vec::new(), 0);
        for what in outgoing {
            let item = describe(&what)?;
            let more = item.name.len() + item.text.as_ref().map_or(0, String::len);
            if !batch.is_empty() && (batch.len() == MAX_ITEMS || length + more > MESSAGE) {
                offers.push_back(std::mem::take(&mut batch));
                length = 0;
            }
            length += more;
            batch.push((item, what));
        }
        if !batch.is_empty() {
            offers.push_back(batch);
        }
        for batch in offers {
            let (items, contents): (Vec<Item>, Vec<Outgoing>) = batch.into_iter().unzip();
            let (offer, message) = self.conversation.borrow_mut().offer(items.clone());
            self.say(message).await;
            let answers = match reply(&mut replies).await {
                Reply::Answers(answers) => answers,
                Reply::Finished => unreachable!("the conversation lets only answers pass"),
            };
            self.send_accepted(offer, items, contents, answers, &mut replies).await?;
        }
        Ok(())
    }

    async fn send_accepted(
        &self,
        offer: u64,
        items: Vec<Item>,
        contents: Vec<Outgoing>,
        answers: Vec<Answer>,
        replies: &mut mpsc::Receiver<Reply>,
    ) -> Result<(), Stop> {
        let taken =
            || items.iter().zip(&answers).filter(|(item, answer)| answer.accept && item.kind != Kind::Text);
        if taken().next().is_some() {
            let bytes = total(taken().map(|(item, _)| item.size));
            self.tell(Event::SendBegins { bytes, has: taken().any(|(_, answer)| answer.resume) });
        }
        let mut running = FuturesUnordered::new();
        for (index, ((item, content), answer)) in (0..).zip(items.into_iter().zip(contents).zip(answers)) {
            let refused = (!answer.accept).then(|| answer.reason.unwrap_or(Reason::Unknown));
            self.summary.borrow_mut().sent.count(refused);
            if let Some(reason) = refused {
                self.tell(Event::Refused { name: &item.name, reason });
                continue;
            }
            let id = ItemId { offer, item: index };
            let header = Header { offer, item: index, path: Vec::new(), size: None, mode: None, mtime: None };
            let job =
                |content| Job { header, content, size: item.size, resume: answer.resume, name: item.name };
            match content {
                Outgoing::Text(text) => self.summary.borrow_mut().sent.add_text(&text),
                Outgoing::File(source) => {
                    running.push(self.send_file(job(Content::Load(load::Content::Source(source)))));
                }
                Outgoing::Stream { input, .. } => {
                    running.push(self.send_file(job(Content::Stream(input))));
                }
                Outgoing::Directory(tree) => {
                    for entry in tree.entries() {
                        let EntryKind::File(size) = entry.kind() else { continue };
                        running.push(self.send_file(job_of(id, &tree, entry, size, answer.resume)));
                        self.wait_for_room(&mut running, MAX_OPEN).await?;
                    }
                    // All of them are stored before their directories get their times.
                    self.wait_for_room(&mut running, 1).await?;
                    self.finish_tree(id, &tree, replies).await?;
                }
            }
            self.wait_for_room(&mut running, MAX_OPEN).await?;
        }
        self.wait_for_room(&mut running, 1).await
    }

    /// Runs files until fewer than `room` are left.
    async fn wait_for_room(
        &self,
        running: &mut FuturesUnordered<impl Future<Output = Result<(), Stop>>>,
        room: usize,
    ) -> Result<(), Stop> {
        while running.len() >= room {
            match running.next().await {
                Some(sent) => sent?,
                None => break,
            }
        }
        Ok(())
    }

    /// Sends the directories of a tree whose files are there.
    async fn finish_tree(
        &self,
        id: ItemId,
        tree: &Tree,
        replies: &mut mpsc::Receiver<Reply>,
    ) -> Result<(), Stop> {
        let (mut directories, mut length) = (Vec::new(), 0);
        // From the inside out.
        for entry in tree.entries().iter().rev().filter(|entry| entry.kind() == EntryKind::Directory) {
            let (mode, mtime) = time::to_wire(entry.meta());
            // A name of one byte has its length before it, and each directory its mode and time.
            length += entry.components().iter().map(|name| name.len() + 3).sum::<usize>() + 64;
            directories.push(Directory { path: entry.components().to_vec(), mode, mtime });
            if length > MESSAGE {
                let directories = std::mem::take(&mut directories);
                self.say(Message::Directories { offer: id.offer, item: id.item, directories }).await;
                length = 0;
            }
        }
        if !directories.is_empty() {
            self.say(Message::Directories { offer: id.offer, item: id.item, directories }).await;
        }
        let finish = self.conversation.borrow_mut().sent(id);
        self.say(finish).await;
        match reply(replies).await {
            Reply::Finished => Ok(()),
            Reply::Answers(_) => unreachable!("the conversation lets only the end of the directory pass"),
        }
    }

    /// Sends one file, and waits until it is stored.
    async fn send_file(&self, job: Job) -> Result<(), Stop> {
        let Job { header, content, size, resume, name } = job;
        let subchannel = self.client.connect().await.map_err(Stop::wormhole)?;
        let (read, mut write) = subchannel.into_split();
        let mut frames = FrameReader::new(read);
        let mut opening = Vec::new();
        frame::push(&mut opening, &header);
        let mut have = None;
        if resume {
            self.write(&mut write, std::mem::take(&mut opening).into()).await?;
            have = Some(match frames.message().await {
                Ok(have) => have,
                Err(fault) => return Err(self.fault(fault).await),
            });
        }
        let mut progress = Progress { side: self, size, offset: Arc::default(), resumed: false, counted: 0 };
        let loaded = match content {
            Content::Stream(input) => self.send_stream(input, opening, &mut write, &mut progress).await?,
            Content::Load(content) => {
                let mut loading = Loading::start(content, opening, have);
                progress.offset = Arc::clone(&loading.offset);
                let turn = self.turn.lock().await;
                while let Some(piece) = loading.pieces.recv().await {
                    self.write(&mut write, piece).await?;
                    progress.look(&write);
                }
                drop(turn);
                loading.end().await?
            }
        };
        if let Err(error) = write.shutdown().await {
            return Err(self.lost(error).await);
        }
        let stored = {
            let mut whole = pin!(frames.message::<Whole>());
            loop {
                tokio::select! {
                    biased;
                    stored = &mut whole => break stored,
                    () = tokio::time::sleep(LOOK) => progress.look(&write),
                }
            }
        };
        let stored = match stored {
            Ok(stored) => frames.end().await.map(|()| stored),
            Err(fault) => Err(fault),
        };
        match stored {
            Err(fault) => return Err(self.fault(fault).await),
            Ok(stored) if stored.hash != loaded.hash => {
                return Err(Violation::new("something else was stored than was sent").into());
            }
            Ok(_) => {}
        }
        progress.acknowledged(loaded.size);
        self.summary.borrow_mut().sent.add_file(loaded.size);
        self.tell(Event::Sent { name: &name, size: loaded.size, hash: loaded.hash });
        Ok(())
    }

    /// Sends what comes until it ends. Whoever types it holds up nobody else.
    async fn send_stream(
        &self,
        mut input: mpsc::Receiver<io::Result<Bytes>>,
        opening: Vec<u8>,
        write: &mut WriteHalf,
        progress: &mut Progress<'_, '_, H>,
    ) -> Result<Loaded, Stop> {
        self.write(write, opening.into()).await?;
        let (mut size, mut hasher) = (0, blake3::Hasher::new());
        while let Some(data) = input.recv().await {
            let mut data =
                data.map_err(|e| Stop::source(Failure::io("could not read standard input", &e)))?;
            hasher.update(&data);
            size += data.len() as u64;
            while !data.is_empty() {
                let piece = data.split_to(data.len().min(MAX_DATA));
                self.write(write, Bytes::copy_from_slice(&frame::prefix(piece.len()))).await?;
                self.write(write, piece).await?;
            }
            progress.look(write);
        }
        let hash = hasher.finalize().into();
        let mut ending = END_OF_DATA.to_vec();
        frame::push(&mut ending, &Whole { hash });
        self.write(write, ending.into()).await?;
        Ok(Loaded { size, hash })
    }

    async fn write(&self, write: &mut WriteHalf, data: Bytes) -> Result<(), Stop> {
        match write.write_bytes(data).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.lost(error).await),
        }
    }
}

/// How much of one file is counted as acknowledged.
struct Progress<'s, 'h, H> {
    side: &'s Side<'h, H>,
    size: Option<u64>,
    /// Where the file went on, and whether that was told.
    offset: Arc<AtomicU64>,
    resumed: bool,
    counted: u64,
}

impl<H: Host> Progress<'_, '_, H> {
    /// Counts what was acknowledged of what was written. What is not data is so little that it counts.
    fn look(&mut self, write: &WriteHalf) {
        let offset = self.offset.load(Ordering::Relaxed);
        if offset > 0 && !self.resumed {
            self.resumed = true;
            self.set(offset, |bytes| Event::Resumed { bytes });
        }
        let bytes = offset.saturating_add(write.bytes_acknowledged());
        self.acknowledged(bytes.min(self.size.unwrap_or(u64::MAX)));
    }

    fn acknowledged(&mut self, bytes: u64) {
        self.set(bytes, |bytes| Event::Acknowledged { bytes });
    }

    fn set(&mut self, bytes: u64, event: impl FnOnce(u64) -> Event<'static>) {
        let acknowledged = &self.side.acknowledged;
        let all = acknowledged.get().saturating_sub(self.counted).saturating_add(bytes);
        if bytes != self.counted {
            self.counted = bytes;
            acknowledged.set(all);
            self.side.tell(event(all));
        }
    }
}

/// The next reply of the other side.
async fn reply(replies: &mut mpsc::Receiver<Reply>) -> Reply {
    match replies.recv().await {
        Some(reply) => reply,
        // The session ends, and those who know why say so.
        None => std::future::pending().await,
    }
}

/// A file of a directory.
fn job_of(id: ItemId, tree: &Tree, entry: &Entry, size: u64, resume: bool) -> Job {
    let (mode, mtime) = time::to_wire(entry.meta());
    let path = entry.components().to_vec();
    let name = format!("{}/{}", tree.name(), path.join("/"));
    let header = Header { offer: id.offer, item: id.item, path, size: Some(size), mode, mtime };
    Job {
        header,
        content: Content::Load(load::Content::Entry(entry.clone())),
        size: Some(size),
        resume,
        name,
    }
}

/// What is offered.
fn describe(what: &Outgoing) -> Result<Item, Stop> {
    Ok(match what {
        Outgoing::Text(text) if text.len() > MAX_TEXT => {
            let message = format!("a text may have {MAX_TEXT} bytes; send more than that as a file");
            return Err(Stop::source(Failure::usage(message)));
        }
        Outgoing::Text(text) => Item { text: Some(text.clone()), ..Item::new(Kind::Text, "") },
        Outgoing::Stream { name, .. } => Item::new(Kind::Stream, name),
        Outgoing::File(source) => {
            let (mode, mtime) = time::to_wire(source.meta());
            let id = Some(content_id(source.name(), source.size(), mtime, &[]));
            Item { size: Some(source.size()), id, mode, mtime, ..Item::new(Kind::File, source.name()) }
        }
        Outgoing::Directory(tree) => {
            let (mode, mtime) = time::to_wire(tree.meta());
            let id = Some(content_id(tree.name(), tree.size(), mtime, tree.entries()));
            let (size, count) = (Some(tree.size()), Some(tree.entries().len() as u64));
            Item { size, count, id, mode, mtime, ..Item::new(Kind::Directory, tree.name()) }
        }
    })
}

/// Names a content: the same as long as no name, size or time in it changes.
fn content_id(name: &str, size: u64, mtime: Option<i64>, entries: &[Entry]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&message::encode(&(name, size, mtime)));
    for entry in entries {
        let size = match entry.kind() {
            EntryKind::Directory => None,
            EntryKind::File(size) => Some(size),
        };
        let (_, mtime) = time::to_wire(entry.meta());
        // The time of a directory says nothing about what is in it that this does not.
        let mtime = size.and(mtime);
        hasher.update(&message::encode(&(entry.components(), size, mtime)));
    }
    hasher.finalize().into()
}
