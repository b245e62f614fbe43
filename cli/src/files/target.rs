//! The directory in which what is received lands.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt};
use cap_std::{
    ambient_authority,
    fs::{Dir, Metadata, OpenOptions},
};

use super::{Id, Meta, Partial, PartialTree, SafePath, meta};
use crate::{
    exit::{Failure, Kind},
    quote,
};

/// What happens to a file that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It stays, and nothing can be received under its name.
    Keep,
    /// It is replaced once what replaces it is complete. Directories are never replaced.
    Replace,
}

/// A directory, opened once. Whatever its path comes to mean, this stays the same directory, and everything is
/// relative to it. No symbolic link below it is ever followed.
#[derive(Debug)]
pub(crate) struct Target {
    dir: Dir,
    /// Where it was when it was opened: for messages, and to ask about the file system.
    path: PathBuf,
    existing: Existing,
    /// Whether each file is on the disk before it gets its name. Otherwise the whole is, before that gets its name.
    sync: bool,
}

impl Target {
    /// Opens `path`, which this side chose: symbolic links in it are followed.
    pub(crate) fn open(path: &Path, existing: Existing) -> Result<Target, Failure> {
        let dir = Dir::open_ambient_dir(path, ambient_authority())
            .map_err(|error| Failure::io(&format!("could not open the directory {}", shown(path)), &error))?;
        Ok(Target { dir, path: path.to_owned(), existing, sync: true })
    }

    /// The directory of a tree that is complete only as a whole.
    pub(super) fn inside(dir: Dir, path: PathBuf) -> Target {
        Target { dir, path, existing: Existing::Keep, sync: false }
    }

    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What happens to files that have the name of a new one already.
    pub(crate) fn existing(&self) -> Existing {
        self.existing
    }

    pub(super) fn sync(&self) -> bool {
        self.sync
    }

    /// Whether anything has this name: a file, a directory, or a symbolic link, even one that leads nowhere.
    pub(crate) fn exists(&self, path: &SafePath) -> Result<bool, Failure> {
        let Some(place) = self.find(path)? else { return Ok(false) };
        Ok(place.metadata().map_err(|error| could_not("look at", path, &error))?.is_some())
    }

    /// How many bytes this user can still write here.
    pub(crate) fn free_space(&self) -> Result<u64, Failure> {
        fs4::available_space(&self.path).map_err(|error| {
            Failure::io(&format!("could not ask for the free space in {}", shown(&self.path)), &error)
        })
    }

    /// Fails when `bytes` more do not fit.
    pub(crate) fn require_space(&self, bytes: u64) -> Result<(), Failure> {
        let free = self.free_space()?;
        if bytes <= free {
            return Ok(());
        }
        Err(Failure::new(
            Kind::Local,
            format!(
                "there is not enough space in {}: {} are needed, {} are free",
                shown(&self.path),
                quote::bytes(bytes),
                quote::bytes(free)
            ),
        ))
    }

    /// A file without a name in the same file system, which is gone when it is closed.
    pub(crate) fn scratch(&self) -> Result<File, Failure> {
        tempfile::tempfile_in(&self.path)
            .map_err(|error| Failure::io(&format!("could not make a file in {}", shown(&self.path)), &error))
    }

    /// Makes a directory, and those above it. Those that exist are fine, as long as they are directories.
    pub(crate) fn create_dir(&self, path: &SafePath) -> Result<(), Failure> {
        self.walk(path.components(), path, Missing::Make).map(drop)
    }

    /// Gives a directory its final mode and time, when nothing more will be written into it.
    pub(crate) fn finish_dir(&self, path: &SafePath, meta: Meta) -> Result<(), Failure> {
        if let Some(dir) = self.walk(path.components(), path, Missing::Tell)? {
            let dir = readable(&dir).map_err(|error| could_not("open", path, &error))?;
            meta.apply(&dir, meta::Kind::Directory);
        }
        Ok(())
    }

    /// Begins a file of `size` bytes. Directories above it are made. Until [`Partial::commit`] it is called
    /// `NAME.dilated-partial`, is private, and is gone with the [`Partial`].
    pub(crate) fn create(&self, path: &SafePath, size: u64) -> Result<Partial, Failure> {
        Partial::create(self, path, size, None)
    }

    /// As [`Target::create`], but what was received stays for [`Target::resume`] with the same `id`.
    pub(crate) fn create_resumable(&self, path: &SafePath, size: u64, id: &Id) -> Result<Partial, Failure> {
        Partial::create(self, path, size, Some(id))
    }

    /// What an earlier run left of the same content, damaged perhaps: [`Partial::here`] tells how much.
    pub(crate) fn resume(&self, path: &SafePath, size: u64, id: &Id) -> Result<Option<Partial>, Failure> {
        Partial::resume(self, path, size, id)
    }

    /// Begins a directory with all that is in it. Until [`PartialTree::commit`] it is called `NAME.dilated-partial`,
    /// and it is gone with the [`PartialTree`] unless there is an `id`, for [`Target::resume_tree`].
    pub(crate) fn create_tree(&self, root: &SafePath, id: Option<&Id>) -> Result<PartialTree, Failure> {
        PartialTree::create(self, root, id)
    }

    /// What an earlier run left of the same directory. Files that are complete in it are to be verified before they
    /// count: see [`Target::read`].
    pub(crate) fn resume_tree(&self, root: &SafePath, id: &Id) -> Result<Option<PartialTree>, Failure> {
        PartialTree::resume(self, root, id)
    }

    /// Opens a complete file for reading; `None` if there is no regular file of that name.
    pub(crate) fn read(&self, path: &SafePath) -> Result<Option<File>, Failure> {
        let Some(place) = self.find(path)? else { return Ok(None) };
        let file = place.open_regular(&place.name, OpenOptions::new().read(true));
        file.map_err(|error| could_not("open", path, &error))
    }

    /// Removes a complete file, such as one that turns out not to be what it should.
    pub(crate) fn remove_file(&self, path: &SafePath) -> Result<(), Failure> {
        let Some(place) = self.find(path)? else { return Ok(()) };
        place.remove(&place.name).map_err(|error| could_not("remove", path, &error))
    }

    /// Where `path` is, with the directories above it made.
    pub(super) fn place(&self, path: &SafePath) -> Result<Place, Failure> {
        let (above, name) = path.split();
        let dir = self.walk(above, path, Missing::Make)?.expect("what is missing is made");
        Ok(Place { dir, name: name.to_owned() })
    }

    /// Where `path` is, if the directories above it are there.
    pub(super) fn find(&self, path: &SafePath) -> Result<Option<Place>, Failure> {
        let (above, name) = path.split();
        Ok(self.walk(above, path, Missing::Tell)?.map(|dir| Place { dir, name: name.to_owned() }))
    }

    /// Opens one directory after the other. `path` is what a complaint names.
    fn walk(&self, components: &[String], path: &SafePath, missing: Missing) -> Result<Option<Dir>, Failure> {
        let mut dir = self.dir.try_clone().map_err(|error| could_not("open", path, &error))?;
        for name in components {
            dir = match dir.open_dir_nofollow(name) {
                Ok(next) => next,
                Err(error) if error.kind() == io::ErrorKind::NotFound => match missing {
                    Missing::Tell => return Ok(None),
                    Missing::Make => make(&dir, name).map_err(|error| blocked(&dir, name, path, &error))?,
                },
                Err(error) => return Err(blocked(&dir, name, path, &error)),
            };
        }
        Ok(Some(dir))
    }
}

/// What happens when a directory is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Tell,
}

fn make(dir: &Dir, name: &str) -> io::Result<Dir> {
    match dir.create_dir(name) {
        // Somebody else was faster. What it is, opening it tells.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    dir.open_dir_nofollow(name)
}

/// Why the directory `name` above `path` could not be opened.
fn blocked(dir: &Dir, name: &str, path: &SafePath, error: &io::Error) -> Failure {
    let what = match dir.symlink_metadata(name) {
        Ok(metadata) if metadata.is_symlink() => "a symbolic link, and those are not followed",
        Ok(metadata) if !metadata.is_dir() => "not a directory",
        _ => return could_not("open the directory of", path, error),
    };
    Failure::new(Kind::Local, format!("could not write {path}: {} is {what}", quote::printable(name)))
}

/// A name in an open directory.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) dir: Dir,
    pub(super) name: String,
}

impl Place {
    pub(super) fn try_clone(&self, path: &SafePath) -> Result<Place, Failure> {
        let dir = self.dir.try_clone().map_err(|error| could_not("open", path, &error))?;
        Ok(Place { dir, name: self.name.clone() })
    }

    /// What has the name, not followed if it is a symbolic link; `None` if nothing has.
    pub(super) fn metadata(&self) -> io::Result<Option<Metadata>> {
        match self.dir.symlink_metadata(&self.name) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fails when the name is taken and what has it may not be replaced.
    pub(super) fn vacant(&self, path: &SafePath, existing: Existing) -> Result<(), Failure> {
        match self.metadata().map_err(|error| could_not("look at", path, &error))? {
            None => Ok(()),
            Some(there) if existing == Existing::Keep || there.is_dir() => Err(taken(path)),
            // Two names that were made equal by replacing characters would otherwise replace each other.
            Some(_) if path.altered() => Err(taken(path)),
            Some(_) => Ok(()),
        }
    }

    /// Makes a private file that nothing had the name of before.
    pub(super) fn create_new(&self, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).follow(FollowSymlinks::No);
        #[cfg(unix)]
        cap_std::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(self.dir.open_with(name, &options)?.into_std())
    }

    /// Opens `name` if it is a regular file with no other name, which is this user's.
    pub(super) fn open_regular(&self, name: &str, options: &mut OpenOptions) -> io::Result<Option<File>> {
        options.follow(FollowSymlinks::No);
        // Before it is opened, because opening a pipe or a device may do something.
        match self.dir.symlink_metadata(name) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let file = match self.dir.open_with(name, options) {
            Ok(file) => file.into_std(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(ours(&file)?.then_some(file))
    }

    /// Removes a file; fine if there is none.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match self.dir.remove_file(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Gives what is called `from` the name of this place. Nothing is replaced unless `existing` says so.
    pub(super) fn rename(&self, from: &str, existing: Existing) -> io::Result<()> {
        match existing {
            Existing::Replace => self.dir.rename(from, &self.dir, &self.name),
            Existing::Keep => self.rename_new(from),
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    fn rename_new(&self, from: &str) -> io::Result<()> {
        use rustix::{
            fs::{RenameFlags, renameat_with},
            io::Errno,
        };
        match renameat_with(&self.dir, from, &self.dir, &*self.name, RenameFlags::NOREPLACE) {
            // Not every file system can.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link_new(from),
            renamed => Ok(renamed?),
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    fn rename_new(&self, from: &str) -> io::Result<()> {
        self.link_new(from)
    }

    /// A second name is never given over one that exists.
    pub(super) fn link_new(&self, from: &str) -> io::Result<()> {
        if self.dir.symlink_metadata(from)?.is_dir() {
            return self.rename_dir_new(from);
        }
        match self.dir.hard_link(from, &self.dir, &self.name) {
            Ok(()) => self.dir.remove_file(from),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            // A file system without second names, such as that of a memory card.
            Err(_) => self.reserve_new(from),
        }
    }

    /// Reserves the name, then replaces the reservation.
    pub(super) fn reserve_new(&self, from: &str) -> io::Result<()> {
        self.create_new(&self.name)?;
        self.dir.rename(from, &self.dir, &self.name).inspect_err(|_| drop(self.remove(&self.name)))
    }

    /// A directory has no second name, but it only ever replaces an empty directory.
    fn rename_dir_new(&self, from: &str) -> io::Result<()> {
        self.dir.create_dir(&self.name)?;
        #[cfg(windows)]
        self.dir.remove_dir(&self.name)?;
        let renamed = self.dir.rename(from, &self.dir, &self.name);
        renamed.inspect_err(|_| drop(self.dir.remove_dir(&self.name)))
    }

    /// Makes the names in the directory last. Not every system can.
    pub(super) fn sync(&self) {
        if cfg!(unix)
            && let Err(error) = readable(&self.dir).and_then(|dir| dir.sync_all())
        {
            tracing::debug!(%error, "the directory could not be synchronised");
        }
    }
}

/// The same directory as a file that can be locked, synchronised and changed: that which a [`Dir`] holds may be good for
/// nothing but names below it.
pub(super) fn readable(dir: &Dir) -> io::Result<File> {
    #[cfg(unix)]
    return Ok(dir.open(".")?.into_std());
    #[cfg(not(unix))]
    return Ok(dir.try_clone()?.into_std_file());
}

/// Whether an open file is a regular one with a single name, and this user's. Anything else was put there for us.
fn ours(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Ok(metadata.is_file()
            && metadata.nlink() == 1
            && metadata.uid() == rustix::process::geteuid().as_raw())
    }
    #[cfg(not(unix))]
    Ok(metadata.is_file())
}

pub(super) fn taken(path: &SafePath) -> Failure {
    Failure::new(Kind::Local, format!("{path} exists already"))
}

pub(super) fn could_not(what: &str, path: &SafePath, error: &io::Error) -> Failure {
    Failure::io(&format!("could not {what} {path}"), error)
}

/// A path of this side for people.
pub(super) fn shown(path: &Path) -> String {
    quote::printable(&path.to_string_lossy())
}
