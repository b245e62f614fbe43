//! A file that is being received.

use std::{
    fs::File,
    io::{self, IoSlice, Seek, SeekFrom, Write},
};

use bytes::Bytes;
use cap_std::fs::OpenOptions;

use super::{
    Existing, Id, Meta, SafePath, Target, meta,
    own::{MOST, OwnNames},
    side::Side,
    target::{Place, could_not, taken},
};
use crate::exit::{Failure, Kind};

/// A file that is being received. It never becomes longer than was said. Without [`Partial::commit`] it is gone when
/// this is, unless it is resumable: then it stays, with its side file.
#[derive(Debug)]
pub(crate) struct Partial {
    file: File,
    place: Place,
    path: SafePath,
    names: OwnNames,
    size: u64,
    existing: Existing,
    sync: bool,
    side: Option<Side>,
    here: u64,
    /// Whether nothing is left to clean up.
    settled: bool,
}

impl Partial {
    pub(super) fn create(
        target: &Target,
        path: &SafePath,
        size: u64,
        id: Option<&Id>,
    ) -> Result<Partial, Failure> {
        let place = target.place(path)?;
        place.vacant(path, target.existing())?;
        let failed = |error: &io::Error| could_not("create", path, error);
        for names in OwnNames::all(&place.name) {
            let Some(file) = claim(&place, &names).map_err(|error| failed(&error))? else { continue };
            let mut partial = Partial::new(target, path, place, names, file, size);
            if let Some(id) = id {
                partial.side = Some(partial.begin_side(id).map_err(|error| failed(&error))?);
            }
            return Ok(partial);
        }
        Err(Failure::new(
            Kind::Local,
            format!(
                "there are {MOST} unfinished transfers of {path}; remove some of the .dilated-partial files"
            ),
        ))
    }

    pub(super) fn resume(
        target: &Target,
        path: &SafePath,
        size: u64,
        id: &Id,
    ) -> Result<Option<Partial>, Failure> {
        let Some(place) = target.find(path)? else { return Ok(None) };
        place.vacant(path, target.existing())?;
        let failed = |error: &io::Error| could_not("resume", path, error);
        for names in OwnNames::all(&place.name) {
            let mut options = OpenOptions::new();
            options.read(true).write(true);
            let mut open =
                |name: &str| place.open_regular(name, &mut options).map_err(|error| failed(&error));
            let (Some(side), Some(file)) = (open(&names.side)?, open(&names.partial)?) else { continue };
            // Somebody else may be at it.
            if file.try_lock().is_err() {
                continue;
            }
            let Some(side) = Side::read(side, id, size).map_err(|error| failed(&error))? else {
                continue;
            };
            let mut partial = Partial::new(target, path, place, names, file, size);
            partial.side = Some(side);
            partial.measure().map_err(|error| failed(&error))?;
            return Ok(Some(partial));
        }
        Ok(None)
    }

    fn new(
        target: &Target,
        path: &SafePath,
        place: Place,
        names: OwnNames,
        file: File,
        size: u64,
    ) -> Partial {
        Partial {
            file,
            place,
            path: path.clone(),
            names,
            size,
            existing: target.existing(),
            sync: target.sync(),
            side: None,
            here: 0,
            settled: false,
        }
    }

    fn begin_side(&self, id: &Id) -> io::Result<Side> {
        Side::begin(self.place.create_new(&self.names.side)?, id, self.size)
    }

    /// Finds out how much is here. Nobody's claim makes the file longer than it may be.
    fn measure(&mut self) -> io::Result<()> {
        self.here = self.file.metadata()?.len();
        if self.here > self.size {
            self.file.set_len(self.size)?;
            self.here = self.size;
        }
        Ok(())
    }

    /// How many bytes an earlier run left. Nobody knows whether they are what it wrote.
    pub(crate) fn here(&self) -> u64 {
        self.here
    }

    /// Writes all of `data` at `offset`.
    pub(crate) fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), Failure> {
        self.check(offset, data.len() as u64)?;
        write_all(&self.file, offset, data).map_err(|error| could_not("write", &self.path, &error))
    }

    /// Writes all of `pieces`, one behind the other, at `offset`. Returns how many bytes that are.
    pub(crate) fn write_all_at(&mut self, offset: u64, pieces: &[Bytes]) -> Result<u64, Failure> {
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        self.check(offset, length)?;
        let written = write_pieces(&self.file, offset, pieces);
        written.map_err(|error| could_not("write", &self.path, &error))?;
        Ok(length)
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), Failure> {
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            let message =
                format!("the other side sent more of {} than the {} bytes it offered", self.path, self.size);
            return Err(Failure::new(Kind::PeerProgram, message));
        }
        Ok(())
    }

    /// Reads what was written; fewer bytes than asked for only at the end of what is there.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Failure> {
        fill(&self.file, offset, buffer).map_err(|error| could_not("read", &self.path, &error))
    }

    /// Says how long it really is, when that was not known at the beginning. It cannot become longer than was said.
    pub(crate) fn set_size(&mut self, size: u64) -> Result<(), Failure> {
        if size > self.size {
            let message = format!("the other side sent more of {} than was agreed", self.path);
            return Err(Failure::new(Kind::PeerProgram, message));
        }
        self.size = size;
        Ok(())
    }

    /// Completes it: all bytes must be there. It gets its mode and time, is on the disk, and only then gets its name,
    /// which replaces nothing unless the target says so.
    pub(crate) fn commit(mut self, meta: Meta) -> Result<(), Failure> {
        let failed = |error: &io::Error| could_not("complete", &self.path, error);
        let length = self.file.metadata().map_err(|error| failed(&error))?.len();
        if length != self.size {
            let message = format!("{} is not complete: {length} of {} bytes are there", self.path, self.size);
            return Err(Failure::new(Kind::PeerProgram, message));
        }
        self.place.vacant(&self.path, self.existing)?;
        meta.apply(&self.file, meta::Kind::File);
        if self.sync {
            self.file.sync_all().map_err(|error| failed(&error))?;
        }
        // A name that had to be changed could be that of another file of the same transfer.
        let existing = if self.path.altered() { Existing::Keep } else { self.existing };
        give_name(&self.place, &self.names, &self.file, &self.path, existing)?;
        self.settled = true;
        if self.side.take().is_some() {
            self.place.remove(&self.names.side).map_err(|error| failed(&error))?;
        }
        if self.sync {
            self.place.sync();
        }
        Ok(())
    }

    /// Leaves it for a later run, safely on the disk, if it is resumable.
    pub(crate) fn keep(self) -> Result<(), Failure> {
        let Some(side) = &self.side else { return Ok(()) };
        let synced = self.file.sync_data().and_then(|()| side.sync());
        synced.map_err(|error| could_not("keep", &self.path, &error))
    }

    /// Removes it, and its side file.
    pub(crate) fn discard(mut self) {
        if self.side.take().is_some()
            && let Err(error) = self.place.remove(&self.names.side)
        {
            tracing::warn!(%error, "{} could not be removed", self.names.side);
        }
    }

    /// Whether the partial name still means the file that was written.
    fn still_there(&self) -> io::Result<bool> {
        same_file(&self.place, &self.names.partial, &self.file)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.settled || self.side.is_some() {
            return;
        }
        if self.still_there().unwrap_or(false)
            && let Err(error) = self.place.remove(&self.names.partial)
        {
            tracing::warn!(%error, "{} could not be removed", self.names.partial);
        }
    }
}

/// Gives what is complete its name, if its partial name still means that.
pub(super) fn give_name(
    place: &Place,
    names: &OwnNames,
    complete: &File,
    path: &SafePath,
    existing: Existing,
) -> Result<(), Failure> {
    let failed = |error: io::Error| could_not("complete", path, &error);
    if !same_file(place, &names.partial, complete).map_err(failed)? {
        let message = format!("somebody removed {path} while it was received");
        return Err(Failure::new(Kind::Local, message));
    }
    match place.rename(&names.partial, existing) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(taken(path)),
        renamed => renamed.map_err(failed),
    }
}

/// Makes and locks the partial file. `None` if somebody else has it, or left something in it.
fn claim(place: &Place, names: &OwnNames) -> io::Result<Option<File>> {
    let file = match place.create_new(&names.partial) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !remove_stale(place, names)? {
                return Ok(None);
            }
            match place.create_new(&names.partial) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                file => file?,
            }
        }
        file => file?,
    };
    if file.try_lock().is_err() {
        return Ok(None);
    }
    // A side file that is there belongs to no file: this one is new. If it cannot be removed, a resumable file finds
    // out, and no other cares.
    let _ = place.remove(&names.side);
    Ok(Some(file))
}

/// Removes what a run left that died, if nobody can resume it. Whether it did.
fn remove_stale(place: &Place, names: &OwnNames) -> io::Result<bool> {
    if place.dir.symlink_metadata(&names.side).is_ok() {
        return Ok(false);
    }
    let Some(file) = place.open_regular(&names.partial, OpenOptions::new().read(true).write(true))? else {
        return Ok(false);
    };
    let stale = file.try_lock().is_ok() && same_file(place, &names.partial, &file)?;
    if stale {
        place.remove(&names.partial)?;
    }
    Ok(stale)
}

/// Whether `name` is the file that is open. Where the system has no numbers for files, it is taken to be.
pub(super) fn same_file(place: &Place, name: &str, file: &File) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use cap_std::fs::MetadataExt as _;
        use std::os::unix::fs::MetadataExt as _;
        let open = file.metadata()?;
        match place.dir.symlink_metadata(name) {
            Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        Ok(place.dir.symlink_metadata(name).is_ok_and(|metadata| metadata.is_file()))
    }
}

#[cfg(unix)]
fn write_all(file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, data, offset)
}

#[cfg(windows)]
fn write_all(file: &File, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, data, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => {
                offset += written as u64;
                data = &data[written..];
            }
        }
    }
    Ok(())
}

/// Writes many pieces with few calls.
fn write_pieces(mut file: &File, offset: u64, pieces: &[Bytes]) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut left = slices.as_mut_slice();
    // Empty ones at the beginning count as no progress.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match file.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until the buffer is full or the file ends.
pub(crate) fn fill(file: &File, mut offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(file, &mut buffer[filled..], offset);
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(file, &mut buffer[filled..], offset);
        match read {
            Ok(0) => break,
            Ok(read) => {
                filled += read;
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
