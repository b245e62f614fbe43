//! The side file: which parts of a partial file were verified. What it says is a hint, which is checked.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
};

use blake3::{Hasher, hazmat::HasherExt};

/// The parts that a side file knows, in bytes. The last part of a file may be shorter.
pub(crate) const CHUNK: u64 = 1 << 20;

/// What names the content, the same on both sides and in every run.
pub(crate) type Id = [u8; 32];

/// The hash of the chunk `index`: its node in the BLAKE3 tree of the whole file, of which it is made. So nothing has to be
/// hashed twice. `data` is not empty.
pub(super) fn chunk_hash(index: u64, data: &[u8]) -> Id {
    Hasher::new().set_input_offset(index * CHUNK).update(data).finalize_non_root()
}

/// The first line, for those who look into it; also the version of the format.
const TITLE: &[u8] = b"dilated-resume 1\n";

/// The title, the id, the size of the file, and a hash of these.
const HEADER: usize = TITLE.len() + 32 + 8 + 32;

/// A chunk's number and its hash.
const RECORD: usize = 8 + 32;

/// An open side file.
#[derive(Debug)]
pub(super) struct Side {
    file: File,
}

impl Side {
    /// Begins one in an empty file.
    pub(super) fn begin(mut file: File, id: &Id, size: u64) -> io::Result<Side> {
        file.write_all(&header(id, size))?;
        Ok(Side { file })
    }

    /// Reads one, and gives what it says of chunks that the file can have; `None` if it is not about that content.
    pub(super) fn read(mut file: File, id: &Id, size: u64) -> io::Result<Option<(Side, BTreeMap<u64, Id>)>> {
        let mut found = [0; HEADER];
        match file.read_exact(&mut found) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        if found != header(id, size) {
            return Ok(None);
        }
        let chunks = size.div_ceil(CHUNK);
        let mut claims = BTreeMap::new();
        let mut reader = BufReader::new(&file);
        // No more than there can be: the file may be any file. What is left at the end was not written whole.
        for _ in 0..chunks {
            let mut record = [0; RECORD];
            match reader.read_exact(&mut record) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                read => read?,
            }
            let (index, hash) = record.split_first_chunk().expect("a record has more than 8 bytes");
            let index = u64::from_le_bytes(*index);
            if index < chunks {
                claims.insert(index, hash.try_into().expect("a record has 32 bytes more"));
            }
        }
        Ok(Some((Side { file }, claims)))
    }

    /// Writes down what was found to be true, and nothing else.
    pub(super) fn rewrite(&mut self, verified: &BTreeMap<u64, Id>) -> io::Result<()> {
        self.file.set_len(HEADER as u64)?;
        self.file.seek(SeekFrom::End(0))?;
        let records: Vec<u8> = verified.iter().flat_map(|(index, hash)| record(*index, hash)).collect();
        self.file.write_all(&records)
    }

    /// Adds a chunk.
    pub(super) fn add(&mut self, index: u64, hash: &Id) -> io::Result<()> {
        self.file.write_all(&record(index, hash))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn header(id: &Id, size: u64) -> [u8; HEADER] {
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(TITLE);
    header.extend_from_slice(id);
    header.extend_from_slice(&size.to_le_bytes());
    let hash = blake3::hash(&header);
    header.extend_from_slice(hash.as_bytes());
    header.try_into().expect("the parts make up the header")
}

fn record(index: u64, hash: &Id) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..8].copy_from_slice(&index.to_le_bytes());
    record[8..].copy_from_slice(hash);
    record
}
