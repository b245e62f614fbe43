use std::{
    fs::{self, File},
    io::Write,
    time::{Duration, SystemTime},
};

use super::{super::*, *};
use crate::exit::Kind;

/// The entries of a tree as text.
fn listed(tree: &Tree) -> Vec<String> {
    let listed = |entry: &Entry| match entry.kind() {
        EntryKind::Directory => format!("{}/", entry.components().join("/")),
        EntryKind::File(size) => format!("{} {size}", entry.components().join("/")),
    };
    tree.entries().iter().map(listed).collect()
}

#[test]
fn a_file_has_the_name_that_was_given_and_the_content() {
    let sandbox = Sandbox::new();
    let source = Source::open(&sandbox.path("target/../target/./file")).unwrap();
    assert_eq!((source.name(), source.size()), ("file", 11));
    let metadata = fs::metadata(sandbox.path("target/file")).unwrap();
    assert_eq!(source.meta().modified, metadata.modified().ok());
    #[cfg(unix)]
    assert_eq!(
        source.meta().mode,
        Some(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777)
    );
    let mut buffer = [0; 20];
    assert_eq!(source.read_at(7, &mut buffer).unwrap(), 4);
    assert_eq!(&buffer[..4], b"file");
    assert_eq!(source.read_at(11, &mut buffer).unwrap(), 0);
    assert_eq!(source.read_at(u64::MAX, &mut buffer).unwrap(), 0);
    source.unchanged().unwrap();
}

#[test]
fn a_file_that_changes_is_not_sent_as_if_it_had_not() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("target/file");
    let sent = |change: &dyn Fn(File)| {
        fs::write(&file, "12345678").unwrap();
        let source = Source::open(&file).unwrap();
        change(File::options().append(true).open(&file).unwrap());
        let mut buffer = [0; 20];
        let read = source.read_at(0, &mut buffer);
        let error = source.unchanged().unwrap_err().to_string();
        match read {
            Ok(read) => assert_eq!((read, &buffer[..8]), (8, &b"12345678"[..]), "never more than there was"),
            Err(failure) => assert_eq!(failure.to_string(), error),
        }
        error.rsplit("file ").next().unwrap().to_owned()
    };
    assert_eq!(sent(&|file| file.set_len(3).unwrap()), "became shorter while it was sent");
    assert_eq!(sent(&|mut file| file.write_all(b"9").unwrap()), "became longer while it was sent");
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    assert_eq!(sent(&|file| file.set_modified(then).unwrap()), "changed while it was sent");
}

#[test]
fn what_is_no_file_is_refused() {
    let sandbox = Sandbox::new();
    let why = |path: &str| items(&[sandbox.path(path)], Unsendable::Fail).unwrap_err().to_string();
    assert!(why("no").ends_with("no: there is no such file or directory"), "{}", why("no"));
    assert!(
        Source::open(&sandbox.path("target")).unwrap_err().to_string().ends_with("it is not a regular file")
    );
    assert!(items(&["/".into()], Unsendable::Fail).unwrap_err().to_string().contains("has no name"));
    #[cfg(unix)]
    {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let pipe = sandbox.path("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(why("pipe").ends_with("it is not a regular file"));
        assert!(items(&["/dev/null".into()], Unsendable::Skip).is_err());
        std::os::unix::fs::symlink("no", sandbox.path("broken")).unwrap();
        assert!(why("broken").ends_with("broken: it is a symbolic link that leads nowhere"));
    }
}

#[test]
fn things_of_the_same_name_are_refused() {
    let sandbox = Sandbox::new();
    let items = |paths: &[&str]| {
        items(&paths.iter().map(|path| sandbox.path(path)).collect::<Vec<_>>(), Unsendable::Fail)
    };
    let sent = items(&["target/file", "target/there", "secret"]).unwrap();
    let names: Vec<(&str, u64)> = sent.iter().map(|item| (item.name(), item.size())).collect();
    assert_eq!(names, [("file", 11), ("there", 17), ("secret", 6)]);
    let failure = items(&["target/file", "secret", "outside/file"]).unwrap_err();
    assert_eq!(failure.kind(), Kind::Usage);
    let message = failure.to_string();
    assert!(
        message.contains("target/file and ") && message.contains("outside/file would have the same name")
    );
}

#[test]
fn the_working_directory_has_a_name() {
    let here = std::env::current_dir().unwrap();
    let name = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    for (given, real) in [(".", &*here), ("./", &here), ("src/..", &here), ("..", here.parent().unwrap())] {
        assert_eq!(super::super::source::base_name(given.as_ref()).unwrap(), name(real), "{given}");
    }
}

#[test]
fn a_tree_is_listed_in_order_with_sizes() {
    let sandbox = Sandbox::new();
    for directory in ["target/there/z", "target/there/empty", "target/a"] {
        fs::create_dir(sandbox.path(directory)).unwrap();
    }
    fs::write(sandbox.path("target/there/z/1"), "").unwrap();
    let tree = Tree::walk(&sandbox.path("target"), Unsendable::Fail).unwrap();
    assert_eq!(
        listed(&tree),
        ["a/", "file 11", "there/", "there/empty/", "there/file 17", "there/z/", "there/z/1 0"]
    );
    assert_eq!((tree.name(), tree.files(), tree.size()), ("target", 3, 28));
    assert!(tree.skipped().is_empty());
    assert_eq!(tree.meta().modified, fs::metadata(sandbox.path("target")).unwrap().modified().ok());
    let source = tree.entries()[4].open().unwrap();
    assert_eq!((source.name(), source.size()), ("file", 17));
    fs::write(sandbox.path("target/there/file"), "other").unwrap();
    assert!(tree.entries()[4].open().unwrap_err().to_string().ends_with("changed while it was sent"));
    fs::remove_file(sandbox.path("target/there/file")).unwrap();
    assert!(tree.entries()[4].open().is_err());
}

#[cfg(unix)]
#[test]
fn symbolic_links_are_followed_but_not_in_circles() {
    use std::os::unix::fs::symlink;
    let sandbox = Sandbox::new();
    symlink("../outside", sandbox.path("target/link")).unwrap();
    symlink("../secret", sandbox.path("target/other")).unwrap();
    symlink("inner", sandbox.path("outside/twice")).unwrap();
    let tree = Tree::walk(&sandbox.path("target"), Unsendable::Fail).unwrap();
    assert_eq!(
        listed(&tree),
        [
            "file 11",
            "link/",
            "link/file 12",
            "link/inner/",
            "link/inner/file 18",
            "link/twice/",
            "link/twice/file 18",
            "other 6",
            "there/",
            "there/file 17"
        ]
    );
    // The name is that of the link, not of what it leads to.
    let [Item::Directory(tree)] = &items(&[sandbox.path("target/link/")], Unsendable::Fail).unwrap()[..]
    else {
        panic!("a link to a directory is sent as one");
    };
    assert_eq!((tree.name(), tree.files()), ("link", 3));
    assert_eq!(Source::open(&sandbox.path("target/other")).unwrap().name(), "other");

    symlink("../../target", sandbox.path("outside/inner/circle")).unwrap();
    symlink("self", sandbox.path("target/self")).unwrap();
    let failure = Tree::walk(&sandbox.path("target"), Unsendable::Fail).unwrap_err().to_string();
    let end = "link/inner/circle: it is a symbolic link to a directory that it is in; --ignore-unsendable-files sends \
               the rest";
    assert!(failure.ends_with(end), "{failure}");
    let tree = Tree::walk(&sandbox.path("target"), Unsendable::Skip).unwrap();
    assert_eq!((tree.files(), tree.skipped().len()), (6, 3));
}

#[cfg(unix)]
#[test]
fn what_cannot_be_sent_is_named_or_skipped() {
    use std::os::unix::{ffi::OsStrExt, fs::symlink};
    let sandbox = Sandbox::new();
    let directory = sandbox.path("target/bad");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    type Plant<'a> = &'a dyn Fn(&Path);
    let plants: [(Plant<'_>, &str); 4] = [
        (
            &|at| symlink("no", at.join("broken")).unwrap(),
            "bad/broken: it is a symbolic link that leads nowhere",
        ),
        (
            &|at| {
                rustix::fs::mknodat(rustix::fs::CWD, at.join("p"), rustix::fs::FileType::Fifo, mode, 0)
                    .unwrap();
            },
            "bad/p: it is not a regular file",
        ),
        (
            &|at| fs::write(at.join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap(),
            "its name is not UTF-8",
        ),
        (
            &|at| fs::write(at.join("x.dilated-partial"), "").unwrap(),
            "belongs to a transfer that has not ended",
        ),
    ];
    for (plant, why) in plants {
        fs::create_dir(&directory).unwrap();
        plant(&directory);
        let failure = Tree::walk(&sandbox.path("target"), Unsendable::Fail).unwrap_err().to_string();
        assert!(failure.contains(why) && failure.contains("--ignore-unsendable-files"), "{failure}");
        let tree = Tree::walk(&sandbox.path("target"), Unsendable::Skip).unwrap();
        assert_eq!(listed(&tree), ["bad/", "file 11", "there/", "there/file 17"], "{why}");
        assert!(tree.skipped()[0].to_string().contains(why));
        fs::remove_dir_all(&directory).unwrap();
    }
}

#[test]
fn a_tree_is_no_deeper_than_the_other_side_takes() {
    let sandbox = Sandbox::new();
    let deep = |depth| vec!["d"; depth].join("/");
    fs::create_dir_all(sandbox.path("outside/inner").join(deep(63))).unwrap();
    let tree = Tree::walk(&sandbox.path("outside/inner"), Unsendable::Fail).unwrap();
    let deepest = tree.entries().iter().max_by_key(|entry| entry.components().len()).unwrap();
    name(tree.name()).join(&SafePath::relative(deepest.components()).unwrap()).unwrap();
    assert_eq!(deepest.components().len(), 63);
    fs::create_dir(sandbox.path("outside/inner").join(deep(64))).unwrap();
    let failure = Tree::walk(&sandbox.path("outside/inner"), Unsendable::Fail).unwrap_err().to_string();
    assert!(failure.contains("it is too deep in directories"), "{failure}");
}
