//! A zip archive that came from the other side, and may be anything: unpacked within what was offered.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    time::{Duration, UNIX_EPOCH},
};

use zip::{ZipArchive, extra_fields::ExtraField, read::ZipFile, result::ZipError};

use super::feed::{Cancelled, PIECE};
use crate::{
    exit::{Failure, Kind},
    files::{Meta, SafePath, Target},
    quote::printable,
};

/// The table of contents may be this long at least, in bytes.
const TABLE: u64 = 16 << 20;

/// And at most. It is read into memory.
const LONGEST_TABLE: u64 = 512 << 20;

/// For each file that was offered, the table may be so much longer, in bytes.
const TABLE_PER_FILE: u64 = 512;

/// The shortest entry of the table, in bytes.
const SHORTEST_ENTRY: u64 = 46;

const TWICE: &str = "it has two entries of the same name";

/// What the archive may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offered {
    /// Of all files together, in bytes.
    pub(super) bytes: u64,
    pub(super) files: u64,
}

/// Puts everything into `target`, which is new. Whether something got another name than it has in the archive.
pub(super) fn unpack(
    mut archive: File,
    offered: Offered,
    target: &Target,
    cancelled: &Cancelled,
) -> Result<bool, Failure> {
    let length = archive.seek(SeekFrom::End(0)).map_err(|error| cannot_read(&error))?;
    check_end(&mut archive, length, offered).map_err(Fault::into_failure)?;
    let mut archive = ZipArchive::new(BufReader::new(archive)).map_err(not_a_zip)?;
    check_table(&mut archive, offered)?;
    let (mut directories, mut seen) = (Vec::new(), BTreeSet::<SafePath>::new());
    let mut left = offered.bytes;
    for index in 0..archive.len() {
        cancelled.check()?;
        let mut entry = archive.by_index(index).map_err(not_a_zip)?;
        let name = entry.name().map_err(not_a_zip)?.into_owned();
        let path = SafePath::from_zip(&name)
            .map_err(|error| strange(&format!("it has an entry that cannot be written: {error}")))?;
        let meta = meta(&entry);
        if path.as_ref().is_some_and(|path| !seen.insert(path.clone())) {
            return Err(strange(TWICE));
        }
        match path {
            // The directory itself.
            None if entry.is_dir() => {}
            None => return Err(strange("it has a file without a name")),
            Some(path) if entry.is_dir() => {
                target.create_dir(&path)?;
                directories.push((path, meta));
            }
            Some(path) => extract(&mut entry, &path, meta, &mut left, target, cancelled)?,
        }
    }
    // When nothing more is written into them.
    directories.into_iter().try_for_each(|(path, meta)| target.finish_dir(&path, meta))?;
    Ok(seen.iter().any(SafePath::altered))
}

fn extract(
    entry: &mut ZipFile<'_, BufReader<File>>,
    path: &SafePath,
    meta: Meta,
    left: &mut u64,
    target: &Target,
    cancelled: &Cancelled,
) -> Result<(), Failure> {
    let size = entry.size();
    *left = left.checked_sub(size).ok_or_else(more_than_offered)?;
    let mut partial = target.create(path, size)?;
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    loop {
        cancelled.check()?;
        let read = match entry.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(strange(&format!("{path} cannot be unpacked: {error}"))),
        };
        // Refuses more than the size.
        partial.write_at(offset, &piece[..read])?;
        offset += read as u64;
    }
    // Refuses less.
    partial.commit(meta)
}

/// Checks what must hold before anything is done with the table of contents: no entry twice, no byte in two entries,
/// only files and directories, and no more of them than were offered.
fn check_table(archive: &mut ZipArchive<BufReader<File>>, offered: Offered) -> Result<(), Failure> {
    if archive.has_duplicate_names() {
        return Err(strange(TWICE));
    }
    if archive.has_overlapping_files().map_err(not_a_zip)? {
        return Err(strange("its entries overlap"));
    }
    let (mut files, mut bytes) = (0_u64, 0_u64);
    for index in 0..archive.len() {
        let entry = archive.by_index_data(index).map_err(not_a_zip)?;
        let name = || printable(&String::from_utf8_lossy(entry.name_raw()));
        if entry.encrypted() {
            return Err(strange(&format!("{} is encrypted", name())));
        }
        if !is_plain(entry.unix_mode(), entry.is_dir()) {
            return Err(strange(&format!("{} is neither a file nor a directory", name())));
        }
        if !entry.is_dir() {
            files += 1;
            bytes = bytes.saturating_add(entry.size());
        } else if entry.size() > 0 {
            return Err(strange(&format!("the directory {} has content", name())));
        }
    }
    if files > offered.files || bytes > offered.bytes {
        return Err(more_than_offered());
    }
    Ok(())
}

/// Whether the mode is that of a file or a directory, as the name says. Symbolic links and devices are neither.
fn is_plain(mode: Option<u32>, directory: bool) -> bool {
    const KIND: u32 = 0o170_000;
    const DIRECTORY: u32 = 0o040_000;
    const REGULAR: u32 = 0o100_000;
    match mode.unwrap_or_default() & KIND {
        0 => true,
        REGULAR => !directory,
        DIRECTORY => directory,
        _ => false,
    }
}

fn meta<R: Read>(entry: &ZipFile<'_, R>) -> Meta {
    let modified = entry.extra_data_fields().find_map(|field| match field {
        ExtraField::ExtendedTimestamp(timestamp) => timestamp.mod_time(),
        _ => None,
    });
    let modified = modified.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds.into()));
    // A mode of nothing is none: some programs write it for files of systems without modes.
    Meta { mode: entry.unix_mode().map(|mode| mode & 0o777).filter(|mode| *mode != 0), modified }
}

/// Why the end of the archive is not taken.
#[derive(Debug)]
enum Fault {
    Read(io::Error),
    Strange(&'static str),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::Strange("it ends too early"),
            _ => Fault::Read(error),
        }
    }
}

impl Fault {
    fn into_failure(self) -> Failure {
        match self {
            Fault::Read(error) => cannot_read(&error),
            Fault::Strange(what) => strange(what),
        }
    }
}

/// Checks the records at the end of the archive, before a reader believes them and asks for as much memory as they say:
/// they follow the table, which ends where they begin, and it is neither longer nor has more entries than can be.
fn check_end(archive: &mut File, length: u64, offered: Offered) -> Result<(), Fault> {
    const END: &[u8] = b"PK\x05\x06";
    const END_LENGTH: usize = 22;
    const LOCATOR: &[u8] = b"PK\x06\x07";
    const LOCATOR_LENGTH: u64 = 20;
    const LARGE_END: &[u8] = b"PK\x06\x06";
    const LARGE_END_LENGTH: u64 = 56;
    let tail = length.min(END_LENGTH as u64 + u64::from(u16::MAX));
    let tail = read(archive, length - tail, tail)?;
    let last = tail.windows(END_LENGTH).rposition(|window| window.starts_with(END));
    let at = last.ok_or(Fault::Strange("it has no end"))?;
    let (end, position) = (&tail[at..], length - (tail.len() - at) as u64);
    if end.len() - END_LENGTH != usize::try_from(number(&end[20..22])).unwrap_or(usize::MAX) {
        return Err(Fault::Strange("something follows its end"));
    }
    let mut table = Table {
        entries: number(&end[10..12]),
        length: number(&end[12..16]),
        start: number(&end[16..20]),
        end: position,
    };
    if let Some(locator_at) = position.checked_sub(LOCATOR_LENGTH) {
        let locator = read(archive, locator_at, LOCATOR_LENGTH)?;
        if locator.starts_with(LOCATOR) {
            let large_at = number(&locator[8..16]);
            if large_at.checked_add(LARGE_END_LENGTH).is_none_or(|end| end > locator_at) {
                return Err(Fault::Strange("its end is damaged"));
            }
            let large = read(archive, large_at, LARGE_END_LENGTH)?;
            let rest = number(&large[4..12]).checked_add(12);
            if !large.starts_with(LARGE_END) || rest != Some(locator_at - large_at) {
                return Err(Fault::Strange("its end is damaged"));
            }
            table = Table {
                entries: number(&large[32..40]),
                length: number(&large[40..48]),
                start: number(&large[48..56]),
                end: large_at,
            };
        }
    }
    table.check(offered)
}

/// What the end of the archive says about its table of contents.
#[derive(Debug)]
struct Table {
    entries: u64,
    length: u64,
    start: u64,
    end: u64,
}

impl Table {
    fn check(&self, offered: Offered) -> Result<(), Fault> {
        let longest = offered.files.saturating_mul(TABLE_PER_FILE).clamp(TABLE, LONGEST_TABLE);
        if self.start.checked_add(self.length) != Some(self.end) {
            return Err(Fault::Strange("its table of contents is not where it should be"));
        }
        if self.length > longest || self.entries > self.length / SHORTEST_ENTRY {
            return Err(Fault::Strange("its table of contents is too long"));
        }
        Ok(())
    }
}

fn read(archive: &mut File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    archive.seek(SeekFrom::Start(at))?;
    let mut data = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    archive.read_exact(&mut data)?;
    Ok(data)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn more_than_offered() -> Failure {
    Failure::new(Kind::PeerProgram, "the archive contains more than was offered; nothing of it is kept")
}

fn not_a_zip(error: ZipError) -> Failure {
    match error {
        ZipError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => cannot_read(&error),
        error => strange(&error.to_string()),
    }
}

fn strange(what: &str) -> Failure {
    let what = printable(what);
    Failure::new(Kind::PeerProgram, format!("the archive is not usable: {what}; nothing of it is kept"))
}

fn cannot_read(error: &io::Error) -> Failure {
    Failure::io("could not read the archive", error)
}
