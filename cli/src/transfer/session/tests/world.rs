//! Wormholes, directories and people for tests.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use dilated::{Dialect, Dilated, Wormhole};
use tempfile::TempDir;

use super::super::{Event, Host, Outgoing, Proposal, Reason, Summary, Work, run};
use crate::{
    exit::Failure,
    files::{Existing, Item, Landing, Unsendable, items},
    loopback::Servers,
    meeting::{self, Broken},
};

/// No test takes longer.
pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// Two wormholes that have met.
pub(super) struct Pair {
    pub(super) one: (Wormhole, Dilated),
    pub(super) other: (Wormhole, Dilated),
}

impl Pair {
    pub(super) async fn new() -> Pair {
        Pair::speaking(&[Dialect::Dilated1, Dialect::Ged]).await
    }

    /// Two that speak only these dialects.
    pub(super) async fn speaking(dialects: &[Dialect]) -> Pair {
        let servers = Servers::start().await.unwrap();
        let wormhole = || {
            Wormhole::builder("dilated.dev/test")
                .mailbox(&servers.mailbox)
                .dialects(dialects)
                .build()
                .unwrap()
        };
        let (one, other) = (wormhole(), wormhole());
        other.set_code(&one.allocate_code(2).await.unwrap().to_string()).unwrap();
        let dilate = |wormhole: Wormhole| {
            let dilated = wormhole.dilate(servers.config(false)).unwrap();
            (wormhole, dilated)
        };
        Pair { one: dilate(one), other: dilate(other) }
    }

    /// Runs both sides to their ends.
    pub(super) async fn run(&mut self, one: (Work, &Person), other: (Work, &Person)) -> (Outcome, Outcome) {
        let both = async {
            tokio::join!(side(&mut self.one.1, one.0, one.1), side(&mut self.other.1, other.0, other.1))
        };
        tokio::time::timeout(LIMIT, both).await.expect("a session ends")
    }

    pub(super) async fn close(self) {
        let closed = async { tokio::join!(self.one.0.close(), self.other.0.close()) };
        let (one, other) = tokio::time::timeout(LIMIT, closed).await.expect("wormholes close");
        one.unwrap();
        other.unwrap();
    }
}

pub(super) type Outcome = Result<Summary, Failure>;

pub(super) async fn side(dilated: &mut Dilated, work: Work, person: &Person) -> Outcome {
    let outcome: Result<Summary, Broken> = run(dilated, work, person).await;
    match outcome {
        Ok(summary) => Ok(summary),
        Err(broken) => Err(meeting::reason(dilated, broken).await),
    }
}

/// Somebody who answers questions, and remembers what happened.
#[derive(Default)]
pub(super) struct Person {
    pub(super) declines: bool,
    pub(super) asked: RefCell<Vec<Vec<Proposal>>>,
    pub(super) texts: RefCell<Vec<String>>,
    pub(super) not_taken: RefCell<Vec<(String, Reason)>>,
    pub(super) refused: RefCell<Vec<(String, Reason)>>,
    /// The files that were stored, here or there, with their hashes.
    pub(super) stored: RefCell<BTreeMap<String, String>>,
    pub(super) sent: RefCell<BTreeMap<String, String>>,
    /// The values of the progress when a file goes on.
    pub(super) resumed: RefCell<Vec<u64>>,
    /// All values of the progress.
    pub(super) received: RefCell<Vec<u64>>,
    pub(super) acknowledged: RefCell<Vec<u64>>,
}

impl Host for Person {
    async fn accept(&self, offer: &[Proposal]) -> Result<bool, Failure> {
        self.asked.borrow_mut().push(offer.to_vec());
        Ok(!self.declines)
    }

    fn tell(&self, event: Event<'_>) {
        match event {
            Event::Text(text) => self.texts.borrow_mut().push(text.to_owned()),
            Event::NotTaken { name, reason } => self.not_taken.borrow_mut().push((name.to_owned(), reason)),
            Event::Refused { name, reason } => self.refused.borrow_mut().push((name.to_owned(), reason)),
            Event::Stored { path, hash, .. } => {
                self.stored.borrow_mut().insert(path.to_string(), hash.to_string());
            }
            Event::Sent { name, hash, .. } => {
                self.sent.borrow_mut().insert(name.to_owned(), hash.to_string());
            }
            // Of what comes, or nobody looks at it among what does.
            Event::Resumed { bytes } => {
                self.resumed.borrow_mut().push(bytes);
                self.received.borrow_mut().push(bytes);
            }
            Event::Received { bytes } => self.received.borrow_mut().push(bytes),
            Event::Acknowledged { bytes } => self.acknowledged.borrow_mut().push(bytes),
            Event::SendBegins { .. } | Event::ReceiveBegins { .. } | Event::MadeDirectories { .. } => {}
        }
    }
}

/// Work that only sends.
pub(super) fn sending(outgoing: Vec<Outgoing>) -> Work {
    Work { outgoing, landing: None, texts: false }
}

/// Work that only receives, into `directory`.
pub(super) fn receiving(directory: &Path) -> Work {
    Work {
        outgoing: Vec::new(),
        landing: Some(Landing::new(Some(directory), Existing::Keep).unwrap()),
        texts: true,
    }
}

/// What is called so in `directory`.
pub(super) fn take(directory: &Path, names: &[&str]) -> Vec<Outgoing> {
    let paths: Vec<_> = names.iter().map(|name| directory.join(name)).collect();
    let found = items(&paths, Unsendable::Fail).unwrap();
    found
        .into_iter()
        .map(|item| match item {
            Item::File(source) => Outgoing::File(source),
            Item::Directory(tree) => Outgoing::Directory(tree),
        })
        .collect()
}

pub(super) fn temporary() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Bytes without a pattern that helps anybody.
pub(super) fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Writes a file with directories above it, and a time long ago.
pub(super) fn write(directory: &Path, name: &str, content: &[u8]) {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    age(&path, 1_000_000_000);
}

pub(super) fn age(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_700);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// All that is in `directory`: contents (`None` of a directory), modes and times.
pub(super) fn listing(directory: &Path) -> BTreeMap<String, (Option<Vec<u8>>, u32, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = metadata.is_file().then(|| fs::read(&path).unwrap());
            #[cfg(unix)]
            let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
            #[cfg(not(unix))]
            let mode = 0;
            let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
            found.insert(name, (content, mode, metadata.modified().unwrap()));
            if metadata.is_dir() {
                left.push(path);
            }
        }
    }
    found
}

/// The names of all that is in `directory`.
pub(super) fn names(directory: &Path) -> Vec<String> {
    listing(directory).into_keys().collect()
}
