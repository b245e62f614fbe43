//! What lands, where, and what does not.

#[cfg(unix)]
mod hostile;
mod partial;
mod source;
mod tree;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{Existing, SafePath, Target};

/// A directory with a target in it, and things around the target that must not change.
struct Sandbox {
    root: TempDir,
}

impl Sandbox {
    fn new() -> Sandbox {
        let root = tempfile::tempdir().unwrap();
        for directory in ["target", "target/there", "outside", "outside/inner"] {
            fs::create_dir(root.path().join(directory)).unwrap();
        }
        for file in ["secret", "target/file", "target/there/file", "outside/file", "outside/inner/file"] {
            fs::write(root.path().join(file), file).unwrap();
        }
        Sandbox { root }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    fn target(&self) -> Target {
        Target::open(&self.path("target"), Existing::Keep).unwrap()
    }

    fn replacing(&self) -> Target {
        Target::open(&self.path("target"), Existing::Replace).unwrap()
    }

    /// Everything but the target.
    fn around(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = self.everything();
        all.retain(|path, _| !path.starts_with("target"));
        all
    }

    fn everything(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        snapshot(self.root.path())
    }

    fn names(&self, below: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(below)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// What there is, with the content; symbolic links are not followed.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let content = if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display()).into_bytes()
            } else if kind.is_dir() {
                todo.push(path.clone());
                b"directory".to_vec()
            } else if kind.is_file() {
                fs::read(&path).unwrap()
            } else {
                b"special".to_vec()
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), content);
        }
    }
    found
}

fn name(text: &str) -> SafePath {
    path(&[text])
}

fn path(components: &[&str]) -> SafePath {
    SafePath::relative(&components.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>()).unwrap()
}
