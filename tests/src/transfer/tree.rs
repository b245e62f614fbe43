//! What lies in a directory or an archive, to be compared.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;

use crate::data::sha256;

/// One thing in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// SHA-256 of what it contains.
        sha256: String,
        /// Whether its owner may run it.
        executable: bool,
    },
    /// Anything else, such as a symbolic link.
    Other,
}

impl Entry {
    /// As it is where nobody may run it.
    pub fn forget_mode(&mut self) {
        if let Self::File { executable, .. } = self {
            *executable = false;
        }
    }
}

/// Everything below a directory. The names have a slash between their components.
pub type Tree = BTreeMap<String, Entry>;

/// A file with `content`.
pub fn file(content: &[u8], executable: bool) -> Entry {
    Entry::File { sha256: sha256(content), executable }
}

/// What is below `directory`.
///
/// # Panics
///
/// If it cannot be read.
pub fn read(directory: &Path) -> Tree {
    let mut tree = Tree::new();
    add(directory, "", &mut tree);
    tree
}

fn add(directory: &Path, prefix: &str, tree: &mut Tree) {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("a directory can be listed").path();
        let name = path.file_name().expect("it was listed").to_string_lossy().into_owned();
        let name = format!("{prefix}{name}");
        let about = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let found = if about.is_dir() {
            add(&path, &format!("{name}/"), tree);
            Entry::Directory
        } else if about.is_file() {
            let content = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            file(&content, is_executable(&about))
        } else {
            Entry::Other
        };
        tree.insert(name, found);
    }
}

#[cfg(unix)]
fn is_executable(about: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    about.permissions().mode() & 0o100 != 0
}

#[cfg(not(unix))]
fn is_executable(_about: &fs::Metadata) -> bool {
    false
}

/// What is in a zip archive.
///
/// # Panics
///
/// If it cannot be read.
pub fn read_zip(path: &Path) -> Tree {
    let archive = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut archive = zip::ZipArchive::new(archive).expect("a zip archive");
    let mut tree = Tree::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).expect("an entry");
        let name = entry.name().expect("a name").trim_end_matches('/').to_owned();
        // Those of an archive may be left out.
        for (end, _) in name.match_indices('/') {
            tree.entry(name[..end].to_owned()).or_insert(Entry::Directory);
        }
        let found = if entry.is_dir() {
            Entry::Directory
        } else {
            let executable = entry.unix_mode().is_some_and(|mode| mode & 0o100 != 0);
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("an entry that is whole");
            file(&content, executable)
        };
        tree.insert(name, found);
    }
    tree
}

/// What is in a tar archive, unpacked by `tar`.
///
/// # Panics
///
/// If it cannot be.
pub fn read_tar(path: &Path) -> Tree {
    let place = tempfile::tempdir().expect("a directory");
    let out =
        Command::new("tar").arg("-xf").arg(path).arg("-C").arg(place.path()).output().expect("tar starts");
    assert!(out.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&out.stderr));
    read(place.path())
}

/// A sentence for each difference.
pub fn differences(expected: &Tree, found: &Tree) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, entry) in expected {
        match found.get(name) {
            Some(same) if same == entry => {}
            Some(other) => differences.push(format!("{name:?} is {other:?} and not {entry:?}")),
            None => differences.push(format!("{name:?} is missing")),
        }
    }
    let more = found.keys().filter(|name| !expected.contains_key(*name));
    differences.extend(more.map(|name| format!("{name:?} is too much")));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_told() {
        let place = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(place.path().join("a/empty")).expect("made");
        fs::write(place.path().join("a/file"), "content").expect("written");
        let found = read(place.path());
        let directory = |name: &str| (name.to_owned(), Entry::Directory);
        let mut expected = Tree::from([directory("a"), directory("a/empty")]);
        expected.insert("a/file".to_owned(), file(b"content", false));
        assert!(differences(&expected, &found).is_empty());

        expected.insert("a/file".to_owned(), file(b"other", false));
        expected.insert("a/missing".to_owned(), Entry::Directory);
        expected.remove("a/empty");
        assert_eq!(differences(&expected, &found).len(), 3);
    }
}
