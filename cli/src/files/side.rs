//! The side file: of what a partial file is a part. What is in that, it does not say.

use std::{
    fs::File,
    io::{self, Read, Write},
};

/// What names the content, the same on both sides and in every run.
pub(crate) type Id = [u8; 32];

/// The first line, for those who look into it; also the version of the format.
const TITLE: &[u8] = b"dilated-resume 1\n";

/// The title, the id, the size of the file, and a hash of these.
const LENGTH: usize = TITLE.len() + 32 + 8 + 32;

/// An open side file.
#[derive(Debug)]
pub(super) struct Side(File);

impl Side {
    /// Begins one in an empty file.
    pub(super) fn begin(mut file: File, id: &Id, size: u64) -> io::Result<Side> {
        file.write_all(&content(id, size))?;
        Ok(Side(file))
    }

    /// Reads one; `None` if it is not about that content.
    pub(super) fn read(mut file: File, id: &Id, size: u64) -> io::Result<Option<Side>> {
        let mut found = [0; LENGTH];
        match file.read_exact(&mut found) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        Ok((found == content(id, size)).then_some(Side(file)))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn content(id: &Id, size: u64) -> [u8; LENGTH] {
    let mut content = Vec::with_capacity(LENGTH);
    content.extend_from_slice(TITLE);
    content.extend_from_slice(id);
    content.extend_from_slice(&size.to_le_bytes());
    let hash = blake3::hash(&content);
    content.extend_from_slice(hash.as_bytes());
    content.try_into().expect("the parts make up the whole")
}
