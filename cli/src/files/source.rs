//! Files that are sent.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File, OpenOptions},
    io,
    path::{Component, Path, PathBuf},
};

use super::{Meta, Tree, Unsendable, partial::fill, target::shown};
use crate::exit::{Failure, Kind};

/// One thing to send.
#[derive(Debug)]
pub(crate) enum Item {
    File(Source),
    Directory(Tree),
}

impl Item {
    /// What the other side shall call it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Item::File(source) => source.name(),
            Item::Directory(tree) => tree.name(),
        }
    }

    /// How many bytes of content it has.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Item::File(source) => source.size(),
            Item::Directory(tree) => tree.size(),
        }
    }
}

/// Opens what the user named. No two can have the same name on the other side.
pub(crate) fn items(paths: &[PathBuf], unsendable: Unsendable) -> Result<Vec<Item>, Failure> {
    let mut named: BTreeMap<String, &Path> = BTreeMap::new();
    for path in paths {
        if let Some(other) = named.insert(base_name(path)?, path) {
            let message =
                format!("{} and {} would have the same name on the other side", shown(other), shown(path));
            return Err(Failure::usage(message));
        }
    }
    paths.iter().map(|path| item(path, unsendable)).collect()
}

fn item(path: &Path, unsendable: Unsendable) -> Result<Item, Failure> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let why = if path.is_symlink() {
                "it is a symbolic link that leads nowhere"
            } else {
                "there is no such file or directory"
            };
            return Err(Failure::new(Kind::Local, format!("could not send {}: {why}", shown(path))));
        }
        metadata => metadata.map_err(|error| unsendable_because(path, &error))?,
    };
    if metadata.is_dir() {
        Ok(Item::Directory(Tree::walk(path, unsendable)?))
    } else {
        Ok(Item::File(Source::open(path)?))
    }
}

/// A file to send, opened once. Its size, mode and time are those of that moment; if it changes later, reading fails.
#[derive(Debug)]
pub(crate) struct Source {
    file: File,
    path: PathBuf,
    name: String,
    size: u64,
    meta: Meta,
}

impl Source {
    /// Opens a regular file. Symbolic links are followed; the name stays the one that was given.
    pub(crate) fn open(path: &Path) -> Result<Source, Failure> {
        Source::open_as(path, base_name(path)?)
    }

    pub(super) fn open_as(path: &Path, name: String) -> Result<Source, Failure> {
        let failed = |error: &io::Error| unsendable_because(path, error);
        let strange =
            || Failure::new(Kind::Local, format!("could not send {}: it is not a regular file", shown(path)));
        // Before it is opened, because opening a pipe waits, and opening a device may do something.
        if !fs::metadata(path).map_err(|error| failed(&error))?.is_file() {
            return Err(strange());
        }
        let mut options = OpenOptions::new();
        options.read(true);
        // It may have become a pipe meanwhile.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(
            &mut options,
            rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
        );
        let file = options.open(path).map_err(|error| failed(&error))?;
        let metadata = file.metadata().map_err(|error| failed(&error))?;
        if !metadata.is_file() {
            return Err(strange());
        }
        Ok(Source { file, path: path.to_owned(), name, size: metadata.len(), meta: Meta::of(&metadata) })
    }

    /// What the other side shall call it: the last component only.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn meta(&self) -> Meta {
        self.meta
    }

    /// Fills `buffer` from `offset`, as far as the file reached when it was opened. A file that became shorter is an
    /// error.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Failure> {
        let left = self.size.saturating_sub(offset);
        let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = fill(&self.file, offset, &mut buffer[..wanted])
            .map_err(|error| Failure::io(&format!("could not read {}", shown(&self.path)), &error))?;
        if read < wanted {
            return Err(self.changed("became shorter"));
        }
        Ok(read)
    }

    /// Fails if the file changed since it was opened. To be asked when all was read.
    pub(crate) fn unchanged(&self) -> Result<(), Failure> {
        let metadata = self
            .file
            .metadata()
            .map_err(|error| Failure::io(&format!("could not look at {}", shown(&self.path)), &error))?;
        match metadata.len().cmp(&self.size) {
            std::cmp::Ordering::Less => Err(self.changed("became shorter")),
            std::cmp::Ordering::Greater => Err(self.changed("became longer")),
            std::cmp::Ordering::Equal if metadata.modified().ok() != self.meta.modified => {
                Err(self.changed("changed"))
            }
            std::cmp::Ordering::Equal => Ok(()),
        }
    }

    fn changed(&self, how: &str) -> Failure {
        Failure::new(Kind::Local, format!("{} {how} while it was sent", shown(&self.path)))
    }
}

/// The name on the other side: the last component of the path as it was given, not that of what a link leads to.
/// `.` and `..` stand for the directory's real name.
pub(super) fn base_name(path: &Path) -> Result<String, Failure> {
    let mut whole = if path.is_absolute() {
        PathBuf::new()
    } else {
        env::current_dir().map_err(|error| Failure::io("could not find the working directory", &error))?
    };
    for component in path.components() {
        match component {
            Component::ParentDir => {
                whole.pop();
            }
            Component::CurDir => {}
            component => whole.push(component),
        }
    }
    let name = whole
        .file_name()
        .ok_or_else(|| Failure::usage(format!("{} has no name to send it under", shown(path))))?;
    let name = name.to_str().ok_or_else(|| {
        Failure::usage(format!("the name {} is not UTF-8, so it cannot be sent", shown(path)))
    })?;
    Ok(name.to_owned())
}

pub(super) fn unsendable_because(path: &Path, error: &io::Error) -> Failure {
    Failure::io(&format!("could not send {}", shown(path)), error)
}
