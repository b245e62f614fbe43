//! Directories as a zip archive, made while it is sent. Its length is known before: nothing in it is compressed.

use std::{
    fs::File,
    io::{self, Read, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use zip::{
    CompressionMethod, DateTime, ZipWriter,
    result::ZipError,
    write::{ExtendedFileOptions, FileOptions},
};

use super::{
    feed::{Feed, Outlet, PIECE, as_io},
    message::Offer,
    sender::Data,
};
use crate::{
    exit::{Failure, Kind},
    files::{Entry, EntryKind, Item, Meta, Source, Tree},
    show::Total,
};

/// The extra field with the time of modification in seconds since 1970, without a zone.
const TIMESTAMP: u16 = 0x5455;

/// Files and directories, as they are in the archive.
#[derive(Debug, Default)]
struct Archive {
    /// Directories follow what is in them: one that nobody may write to is closed after it was filled.
    members: Vec<Member>,
    bytes: u64,
    files: u64,
}

#[derive(Debug)]
struct Member {
    name: String,
    meta: Meta,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Directory,
    /// A file of a directory, to be opened when it is its turn.
    Entry(Entry, u64),
    Source(Source),
}

impl Member {
    /// In bytes, if it is a file.
    fn size(&self) -> Option<u64> {
        match &self.content {
            Content::Directory => None,
            Content::Entry(_, size) => Some(*size),
            Content::Source(source) => Some(source.size()),
        }
    }
}

impl Archive {
    /// What is in one directory.
    fn of_directory(tree: &Tree) -> Archive {
        let mut archive = Archive::default();
        archive.add_tree(tree, "");
        archive
    }

    /// Several things, each under its name.
    fn of_items(items: Vec<Item>) -> Archive {
        let mut archive = Archive::default();
        for item in items {
            match item {
                Item::File(source) => {
                    let (name, meta) = (source.name().to_owned(), source.meta());
                    archive.add(Member { name, meta, content: Content::Source(source) });
                }
                Item::Directory(tree) => {
                    archive.add_tree(&tree, &format!("{}/", tree.name()));
                    let (name, meta) = (tree.name().to_owned(), tree.meta());
                    archive.add(Member { name, meta, content: Content::Directory });
                }
            }
        }
        archive
    }

    fn add_tree(&mut self, tree: &Tree, prefix: &str) {
        let (directories, files): (Vec<_>, Vec<_>) =
            tree.entries().iter().partition(|entry| entry.kind() == EntryKind::Directory);
        for entry in files.into_iter().chain(directories.into_iter().rev()) {
            let content = match entry.kind() {
                EntryKind::Directory => Content::Directory,
                EntryKind::File(size) => Content::Entry(entry.clone(), size),
            };
            let name = format!("{prefix}{}", entry.components().join("/"));
            self.add(Member { name, meta: entry.meta(), content });
        }
    }

    fn add(&mut self, member: Member) {
        if let Some(size) = member.size() {
            self.bytes += size;
            self.files += 1;
        }
        self.members.push(member);
    }

    /// What is offered and sent, called `name`.
    fn into_data(self, name: String) -> Result<Data, Failure> {
        let archive = self.length()?;
        let offer = Offer::Directory { name: name.clone(), archive, bytes: self.bytes, files: self.files };
        let total = Total { files: self.files, bytes: self.bytes };
        let outflow = Outflow::Archive(Feed::start(move |outlet| self.produce(outlet))?);
        Ok(Data { offer, name, size: archive, total, outflow })
    }

    /// The length of the archive: it is written once, with zeros and to nowhere.
    fn length(&self) -> Result<u64, Failure> {
        let mut counter = Counter(0);
        let zeros = vec![0; PIECE];
        self.write(&mut counter, |_, mut rest, zip| {
            while rest > 0 {
                let length = usize::try_from(rest).map_or(PIECE, |rest| rest.min(PIECE));
                zip.write_all(&zeros[..length]).map_err(|error| failed(error.into()))?;
                rest -= length as u64;
            }
            Ok(())
        })?;
        Ok(counter.0)
    }

    fn produce(&self, outlet: &Outlet) -> Result<(), Failure> {
        self.write(outlet.clone(), |member, _, zip| {
            let copied = match &member.content {
                Content::Directory => Ok(()),
                Content::Entry(entry, _) => entry.open().and_then(|source| copy(&source, outlet, zip)),
                Content::Source(source) => copy(source, outlet, zip),
            };
            // What the archive would still write to be well formed must not look like the rest of it.
            copied.inspect_err(|_| outlet.abandon())
        })
    }

    /// Writes the archive; `fill` writes the content of a file of so many bytes.
    fn write(
        &self,
        output: impl Write,
        mut fill: impl FnMut(&Member, u64, &mut dyn Write) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut zip = ZipWriter::new_stream(output);
        for member in &self.members {
            let options = options(member).map_err(failed)?;
            match member.size() {
                None => zip.add_directory(member.name.as_str(), options).map_err(failed)?,
                Some(size) => {
                    zip.start_file(member.name.as_str(), options).map_err(failed)?;
                    fill(member, size, &mut zip)?;
                }
            }
        }
        zip.finish().map(drop).map_err(failed)
    }
}

/// A file as it is, or a directory as an archive.
pub(in crate::transfer) fn item(item: Item) -> Result<Data, Failure> {
    match item {
        Item::File(source) => Ok(file(source)),
        Item::Directory(tree) => Archive::of_directory(&tree).into_data(tree.name().to_owned()),
    }
}

/// Several things as one archive, called `name`.
pub(in crate::transfer) fn several(items: Vec<Item>, name: String) -> Result<Data, Failure> {
    Archive::of_items(items).into_data(name)
}

/// What was kept in a file of which nobody else knows.
pub(in crate::transfer) fn spooled(spool: File, size: u64, name: String) -> Data {
    plain(name, size, Outflow::Spool(spool))
}

fn file(source: Source) -> Data {
    let (name, size) = (source.name().to_owned(), source.size());
    plain(name, size, Outflow::File { source, offset: 0 })
}

fn plain(name: String, size: u64, outflow: Outflow) -> Data {
    let offer = Offer::File { name: name.clone(), size };
    Data { offer, name, size, total: Total { files: 1, bytes: size }, outflow }
}

/// What is sent, to be read from its beginning.
#[derive(Debug)]
pub(super) enum Outflow {
    File { source: Source, offset: u64 },
    Spool(File),
    Archive(Feed),
}

impl Outflow {
    /// Fails if that was not all.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self {
            Outflow::File { source, .. } => source.unchanged(),
            // As long as it was made.
            Outflow::Spool(_) | Outflow::Archive(_) => Ok(()),
        }
    }
}

impl Read for Outflow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Outflow::File { source, offset } => {
                let read = source.read_at(*offset, buffer).map_err(as_io)?;
                *offset += read as u64;
                Ok(read)
            }
            Outflow::Spool(spool) => spool.read(buffer),
            Outflow::Archive(feed) => feed.read(buffer),
        }
    }
}

/// Copies a file into the archive, as long as anybody wants it.
fn copy(source: &Source, outlet: &Outlet, zip: &mut dyn Write) -> Result<(), Failure> {
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    while offset < source.size() && !outlet.is_abandoned() {
        let read = source.read_at(offset, &mut piece)?;
        zip.write_all(&piece[..read]).map_err(|error| failed(error.into()))?;
        offset += read as u64;
    }
    source.unchanged()
}

fn options(member: &Member) -> Result<FileOptions<'static, 'static, ExtendedFileOptions>, ZipError> {
    let mut options = FileOptions::<ExtendedFileOptions>::default()
        .compression_method(CompressionMethod::Stored)
        .large_file(member.size().is_some_and(|size| size >= u64::from(u32::MAX)))
        .last_modified_time(DateTime::default())
        // The original gives a file exactly the mode that the archive tells, even none.
        .unix_permissions(member.meta.mode.unwrap_or(if member.size().is_some() { 0o644 } else { 0o755 }));
    if let Some(seconds) = member.meta.modified.and_then(seconds) {
        let mut timestamp = vec![1];
        timestamp.extend_from_slice(&seconds.to_le_bytes());
        options.add_extra_field(TIMESTAMP, timestamp, false)?;
    }
    Ok(options)
}

/// Seconds since 1970, as far as the field can tell.
fn seconds(time: SystemTime) -> Option<i32> {
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    i32::try_from(seconds).ok()
}

fn failed(error: ZipError) -> Failure {
    Failure::new(Kind::Local, format!("could not make the archive: {error}"))
}

/// Counts what is written.
#[derive(Debug)]
struct Counter(u64);

impl Write for &mut Counter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0 += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;
    use zip::ZipArchive;

    use super::*;
    use crate::files::{Unsendable, items};

    fn place() -> TempDir {
        let place = TempDir::new().unwrap();
        let inside = |name: &str| place.path().join("dir").join(name);
        fs::create_dir_all(inside("sub/hollow")).unwrap();
        fs::write(inside("a"), "first").unwrap();
        fs::write(inside("sub/gr\u{fc}n"), vec![7; 300_000]).unwrap();
        fs::write(inside("sub/empty"), "").unwrap();
        place
    }

    fn directory(place: &TempDir) -> Data {
        let found = items(&[place.path().join("dir")], Unsendable::Fail).unwrap().remove(0);
        item(found).unwrap()
    }

    fn read_all(mut data: Data) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        data.outflow.read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn the_length_is_known_before_and_every_reader_understands_it() {
        let place = place();
        let data = directory(&place);
        assert_eq!((data.total.files, data.total.bytes), (3, 300_005));
        let Offer::Directory { name, archive, bytes, files } = data.offer.clone() else {
            panic!("no directory")
        };
        assert_eq!((name.as_str(), bytes, files), ("dir", 300_005, 3));
        let size = data.size;
        let all = read_all(data).unwrap();
        assert_eq!((all.len() as u64, archive), (size, size));
        let mut zip = ZipArchive::new(io::Cursor::new(all)).unwrap();
        let mut found = Vec::new();
        for index in 0..zip.len() {
            let mut entry = zip.by_index(index).unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            assert!(entry.unix_mode().is_some_and(|mode| mode & 0o400 != 0));
            found.push((entry.name().unwrap().into_owned(), content.len()));
        }
        // Directories follow what is in them.
        let expected =
            [("a", 5), ("sub/empty", 0), ("sub/gr\u{fc}n", 300_000), ("sub/hollow/", 0), ("sub/", 0)];
        assert_eq!(found, expected.map(|(name, length)| (name.to_owned(), length)));
    }

    #[test]
    fn several_things_keep_their_names() {
        let place = place();
        let paths = [place.path().join("dir/a"), place.path().join("dir/sub")];
        let data = several(items(&paths, Unsendable::Fail).unwrap(), "both".to_owned()).unwrap();
        let zip = ZipArchive::new(io::Cursor::new(read_all(data).unwrap())).unwrap();
        let mut names: Vec<_> = zip.file_names().map(|name| name.unwrap().into_owned()).collect();
        names.sort();
        assert_eq!(names, ["a", "sub/", "sub/empty", "sub/gr\u{fc}n", "sub/hollow/"]);
    }

    #[test]
    fn a_file_that_changes_meanwhile_is_told_and_nothing_looks_like_the_end() {
        let place = place();
        // The thread has begun, but it cannot be further than a few pieces ahead of who reads.
        fs::write(place.path().join("dir/a"), vec![1; 8 * PIECE]).unwrap();
        let mut data = directory(&place);
        fs::write(place.path().join("dir/sub/empty"), "not any more").unwrap();
        let mut all = Vec::new();
        let error = data.outflow.read_to_end(&mut all).unwrap_err();
        assert!(error.to_string().contains("changed"), "{error}");
        assert!((all.len() as u64) < data.size);
    }
}
