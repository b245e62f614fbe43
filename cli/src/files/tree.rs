//! Directories that are sent.

use std::{
    fs::{self, DirEntry},
    io,
    path::{Path, PathBuf},
};

use super::{
    Meta, Source,
    name::DEEPEST,
    own,
    source::{base_name, unsendable_because},
    target::shown,
};
use crate::exit::{Failure, Kind};

/// What happens when something in a directory cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsendable {
    /// Nothing is sent.
    Fail,
    /// The rest is sent; [`Tree::skipped`] tells what is not.
    Skip,
}

/// A directory with all that is in it. Symbolic links are followed, so that the other side gets what they lead to.
#[derive(Debug)]
pub(crate) struct Tree {
    name: String,
    meta: Meta,
    entries: Vec<Entry>,
    size: u64,
    files: u64,
    skipped: Vec<Failure>,
}

/// Something in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    components: Vec<String>,
    path: PathBuf,
    kind: EntryKind,
    meta: Meta,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Directory,
    /// With its size in bytes.
    File(u64),
}

impl Entry {
    /// The path below the directory that is sent.
    pub(crate) fn components(&self) -> &[String] {
        &self.components
    }

    pub(crate) fn kind(&self) -> EntryKind {
        self.kind
    }

    pub(crate) fn meta(&self) -> Meta {
        self.meta
    }

    /// Opens a file, which must be as it was when the directory was walked.
    pub(crate) fn open(&self) -> Result<Source, Failure> {
        let name = self.components.last().cloned().unwrap_or_default();
        let source = Source::open_as(&self.path, name)?;
        if self.kind != EntryKind::File(source.size()) || self.meta.modified != source.meta().modified {
            return Err(Failure::new(
                Kind::Local,
                format!("{} changed while it was sent", shown(&self.path)),
            ));
        }
        Ok(source)
    }
}

impl Tree {
    /// Looks at everything in a directory.
    pub(crate) fn walk(path: &Path, unsendable: Unsendable) -> Result<Tree, Failure> {
        let name = base_name(path)?;
        let failed = |error: io::Error| unsendable_because(path, &error);
        let meta = Meta::of(&fs::metadata(path).map_err(failed)?);
        let real = fs::canonicalize(path).map_err(failed)?;
        let tree = Tree { name, meta, entries: Vec::new(), size: 0, files: 0, skipped: Vec::new() };
        let mut walk = Walk { tree, unsendable, above: vec![real], components: Vec::new() };
        walk.directory(path)?;
        Ok(walk.tree)
    }

    /// What the other side shall call the directory.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Mode and time of the directory itself.
    pub(crate) fn meta(&self) -> Meta {
        self.meta
    }

    /// All that is in it, every directory before what is in that, sorted by name. The directory itself is not listed.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The bytes of all files.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// How many files there are, directories not counted.
    pub(crate) fn files(&self) -> u64 {
        self.files
    }

    /// What is not sent, and why.
    pub(crate) fn skipped(&self) -> &[Failure] {
        &self.skipped
    }
}

/// A walk under way.
struct Walk {
    tree: Tree,
    unsendable: Unsendable,
    /// The real paths of the directories in which the walk is: a link to one of them is a loop.
    above: Vec<PathBuf>,
    /// Where the walk is, as the other side will see it.
    components: Vec<String>,
}

impl Walk {
    fn directory(&mut self, path: &Path) -> Result<(), Failure> {
        let entries: io::Result<Vec<DirEntry>> = fs::read_dir(path).and_then(Iterator::collect);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.cannot(unsendable_because(path, &error)),
        };
        entries.sort_by_key(DirEntry::file_name);
        for entry in entries {
            self.entry(&entry)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &DirEntry) -> Result<(), Failure> {
        let path = entry.path();
        let because =
            |why: &str| Failure::new(Kind::Local, format!("could not send {}: {why}", shown(&path)));
        let Ok(name) = entry.file_name().into_string() else {
            return self.cannot(because("its name is not UTF-8"));
        };
        if own::is_own(&name) {
            return self.cannot(because("it belongs to a transfer that has not ended"));
        }
        // The directory itself is a component on the other side.
        if self.components.len() + 2 > DEEPEST {
            return self.cannot(because("it is too deep in directories"));
        }
        let link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if link && error.kind() == io::ErrorKind::NotFound => {
                return self.cannot(because("it is a symbolic link that leads nowhere"));
            }
            Err(error) => return self.cannot(unsendable_because(&path, &error)),
        };
        self.components.push(name);
        let done =
            if metadata.is_dir() { self.enter(&path, link, Meta::of(&metadata)) } else { self.file(&path) };
        self.components.pop();
        done
    }

    fn enter(&mut self, path: &Path, link: bool, meta: Meta) -> Result<(), Failure> {
        let here = self.above.last().expect("the walk is in a directory");
        let real =
            if link { fs::canonicalize(path) } else { Ok(here.join(path.file_name().unwrap_or_default())) };
        let real = match real {
            Ok(real) => real,
            Err(error) => return self.cannot(unsendable_because(path, &error)),
        };
        if link && self.above.contains(&real) {
            let why = "it is a symbolic link to a directory that it is in";
            return self.cannot(Failure::new(Kind::Local, format!("could not send {}: {why}", shown(path))));
        }
        self.add(path, EntryKind::Directory, meta);
        self.above.push(real);
        let done = self.directory(path);
        self.above.pop();
        done
    }

    fn file(&mut self, path: &Path) -> Result<(), Failure> {
        // Opening is the only sure way to know that it can be read.
        let source = match Source::open_as(path, String::new()) {
            Ok(source) => source,
            Err(failure) => return self.cannot(failure),
        };
        self.tree.size += source.size();
        self.tree.files += 1;
        self.add(path, EntryKind::File(source.size()), source.meta());
        Ok(())
    }

    fn add(&mut self, path: &Path, kind: EntryKind, meta: Meta) {
        self.tree.entries.push(Entry {
            components: self.components.clone(),
            path: path.to_owned(),
            kind,
            meta,
        });
    }

    fn cannot(&mut self, failure: Failure) -> Result<(), Failure> {
        match self.unsendable {
            Unsendable::Fail => Err(Failure::new(
                failure.kind(),
                format!("{failure}; --ignore-unsendable-files sends the rest"),
            )),
            Unsendable::Skip => {
                self.tree.skipped.push(failure);
                Ok(())
            }
        }
    }
}
