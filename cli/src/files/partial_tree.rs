//! A directory that is being received.

use std::{fs::File, io};

use cap_fs_ext::DirExt;
use cap_std::fs::{Dir, OpenOptions};

use super::{
    Id, Meta, SafePath, Target, meta,
    own::{self, MOST, OwnNames},
    partial::{give_name, same_file},
    side::Side,
    target::{Existing, Place, could_not, readable},
};
use crate::exit::{Failure, Kind};

/// A directory that is being received: everything goes into its [`PartialTree::target`]. Without
/// [`PartialTree::commit`] it is gone when this is, with all that is in it, unless it is resumable.
#[derive(Debug)]
pub(crate) struct PartialTree {
    target: Target,
    /// The same directory, locked.
    root: File,
    place: Place,
    path: SafePath,
    names: OwnNames,
    sync: bool,
    side: Option<Side>,
    /// Whether something of an earlier run may be in it.
    resumed: bool,
    settled: bool,
}

impl PartialTree {
    pub(super) fn create(target: &Target, path: &SafePath, id: Option<&Id>) -> Result<PartialTree, Failure> {
        let place = target.place(path)?;
        place.vacant(path, Existing::Keep)?;
        let failed = |error: &io::Error| could_not("create", path, error);
        for names in OwnNames::all(&place.name) {
            match create_private(&place.dir, &names.partial) {
                // Nothing that is in a directory is removed because of its name.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                created => created.map_err(|error| failed(&error))?,
            }
            let dir = place.dir.open_dir_nofollow(&names.partial).map_err(|error| failed(&error))?;
            let Some(mut tree) = PartialTree::new(target, path, place.try_clone(path)?, names, dir)? else {
                continue;
            };
            if let Some(id) = id {
                tree.side = Some(tree.begin_side(id).map_err(|error| failed(&error))?);
            }
            return Ok(tree);
        }
        Err(Failure::new(
            Kind::Local,
            format!(
                "there are {MOST} unfinished transfers of {path}; remove some of the .dilated-partial directories"
            ),
        ))
    }

    pub(super) fn resume(target: &Target, path: &SafePath, id: &Id) -> Result<Option<PartialTree>, Failure> {
        let Some(place) = target.find(path)? else { return Ok(None) };
        place.vacant(path, Existing::Keep)?;
        let failed = |error: &io::Error| could_not("resume", path, error);
        for names in OwnNames::all(&place.name) {
            let side = place.open_regular(&names.side, OpenOptions::new().read(true).write(true));
            let Some(side) = side.map_err(|error| failed(&error))? else { continue };
            let Some(side) = Side::read(side, id, 0).map_err(|error| failed(&error))? else { continue };
            let Ok(dir) = place.dir.open_dir_nofollow(&names.partial) else { continue };
            if let Some(mut tree) = PartialTree::new(target, path, place.try_clone(path)?, names, dir)? {
                tree.side = Some(side);
                tree.resumed = true;
                return Ok(Some(tree));
            }
        }
        Ok(None)
    }

    /// `None` if somebody else is at it.
    fn new(
        target: &Target,
        path: &SafePath,
        place: Place,
        names: OwnNames,
        dir: Dir,
    ) -> Result<Option<PartialTree>, Failure> {
        let root = readable(&dir).map_err(|error| could_not("open", path, &error))?;
        // Directories can be locked on Unix alone.
        if cfg!(unix) && root.try_lock().is_err() {
            return Ok(None);
        }
        let inside = Target::inside(
            dir,
            target.path().join(path.components().join("/")).with_file_name(&names.partial),
        );
        let sync = target.sync();
        let path = path.clone();
        Ok(Some(PartialTree {
            target: inside,
            root,
            place,
            path,
            names,
            sync,
            side: None,
            resumed: false,
            settled: false,
        }))
    }

    fn begin_side(&self, id: &Id) -> io::Result<Side> {
        self.place.remove(&self.names.side)?;
        Side::begin(self.place.create_new(&self.names.side)?, id, 0)
    }

    /// Where its files and directories go. A file of it is on the disk when the whole is.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Completes it: all is on the disk, and only then it gets its name, which must not be taken.
    pub(crate) fn commit(mut self, meta: Meta) -> Result<(), Failure> {
        let failed = |error: &io::Error| could_not("complete", &self.path, error);
        self.place.vacant(&self.path, Existing::Keep)?;
        if self.resumed {
            sweep(self.target.dir()).map_err(|error| failed(&error))?;
        }
        meta.apply(&self.root, meta::Kind::Directory);
        if self.sync {
            sync_all_of(&self.root).map_err(|error| failed(&error))?;
        }
        give_name(&self.place, &self.names, &self.root, &self.path, Existing::Keep)?;
        self.settled = true;
        if self.side.take().is_some() {
            self.place.remove(&self.names.side).map_err(|error| failed(&error))?;
        }
        if self.sync {
            self.place.sync();
        }
        Ok(())
    }

    /// Empties the directory that was opened, whatever its name means by now, and removes the name if it is its own.
    fn remove(&self) -> io::Result<()> {
        let dir = self.target.dir();
        for entry in dir.entries()? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                dir.remove_dir_all(entry.file_name())?;
            } else {
                dir.remove_file_or_symlink(entry.file_name())?;
            }
        }
        if same_file(&self.place, &self.names.partial, &self.root)? {
            self.place.dir.remove_dir(&self.names.partial)?;
        }
        Ok(())
    }
}

impl Drop for PartialTree {
    fn drop(&mut self) {
        if self.settled || self.side.is_some() {
            return;
        }
        if let Err(error) = self.remove() {
            tracing::warn!(%error, "{} could not be removed", self.names.partial);
        }
    }
}

/// Removes what an earlier run left unfinished and this one did not need. Only own files have such names.
fn sweep(dir: &Dir) -> io::Result<()> {
    for entry in dir.entries()? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            sweep(&dir.open_dir_nofollow(&name)?)?;
        } else if name.to_str().is_some_and(own::is_own) {
            dir.remove_file_or_symlink(&name)?;
        }
    }
    Ok(())
}

/// Makes a directory that only this user can enter.
fn create_private(parent: &Dir, name: &str) -> io::Result<()> {
    #[cfg(unix)]
    {
        use cap_std::fs::{DirBuilder, DirBuilderExt};
        let mut builder = DirBuilder::new();
        parent.create_dir_with(name, builder.mode(0o700))
    }
    #[cfg(not(unix))]
    parent.create_dir(name)
}

/// Brings everything below a directory to the disk, which is much faster at once than file by file.
fn sync_all_of(root: &File) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    rustix::fs::syncfs(root)?;
    #[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
    {
        let _ = root;
        rustix::fs::sync();
    }
    #[cfg(not(unix))]
    let _ = root;
    Ok(())
}
