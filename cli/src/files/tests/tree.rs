use std::{
    fs,
    time::{Duration, SystemTime},
};

use super::{super::*, *};

const ID: Id = [7; 32];

fn write(target: &Target, path: &SafePath, data: &[u8]) {
    let mut partial = target.create(path, data.len() as u64).unwrap();
    partial.write_at(0, data).unwrap();
    partial.commit(Meta::default()).unwrap();
}

#[test]
fn a_directory_gets_its_name_modes_and_times_when_it_is_complete() {
    let sandbox = Sandbox::new();
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let meta = Meta { mode: Some(0o7500), modified: Some(then) };
    let tree = sandbox.target().create_tree(&name("tree"), None).unwrap();
    tree.target().create_dir(&path(&["d", "e"])).unwrap();
    write(tree.target(), &path(&["d", "e", "f"]), b"data");
    tree.target().finish_dir(&path(&["d", "e"]), meta).unwrap();
    tree.target().finish_dir(&name("d"), meta).unwrap();
    assert_eq!(sandbox.names("target"), ["file", "there", "tree.dilated-partial"]);
    assert!(tree.target().free_space().unwrap() > 0);
    tree.commit(meta).unwrap();
    assert_eq!(sandbox.names("target"), ["file", "there", "tree"]);
    assert_eq!(fs::read(sandbox.path("target/tree/d/e/f")).unwrap(), b"data");
    for directory in ["target/tree", "target/tree/d", "target/tree/d/e"] {
        let metadata = fs::metadata(sandbox.path(directory)).unwrap();
        assert_eq!(metadata.modified().unwrap(), then, "{directory}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o700, "{directory}");
        }
    }
}

#[test]
fn a_directory_below_another_knows_where_it_is() {
    let sandbox = Sandbox::new();
    let tree = sandbox.target().create_tree(&path(&["there", "tree"]), None).unwrap();
    assert!(tree.target().free_space().unwrap() > 0);
    drop(tree.target().scratch().unwrap());
    tree.commit(Meta::default()).unwrap();
    assert_eq!(sandbox.names("target/there"), ["file", "tree"]);
}

#[test]
fn a_directory_that_is_not_complete_is_gone_with_all_that_is_in_it() {
    let sandbox = Sandbox::new();
    let before = sandbox.everything();
    let tree = sandbox.target().create_tree(&name("tree"), None).unwrap();
    tree.target().create_dir(&name("d")).unwrap();
    write(tree.target(), &path(&["d", "f"]), b"data");
    #[cfg(unix)]
    std::os::unix::fs::symlink("../there", sandbox.path("target/tree.dilated-partial/link")).unwrap();
    drop(tree);
    assert_eq!(sandbox.everything(), before);
}

#[test]
fn a_root_that_was_replaced_is_neither_emptied_nor_removed() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("target/empty")).unwrap();
    for other in ["there", "empty"] {
        let tree = sandbox.target().create_tree(&name("tree"), None).unwrap();
        write(tree.target(), &name("f"), b"data");
        let before = sandbox.names(&format!("target/{other}"));
        let partial = sandbox.path("target/tree.dilated-partial");
        fs::rename(&partial, sandbox.path("target/moved")).unwrap();
        fs::rename(sandbox.path("target").join(other), &partial).unwrap();
        drop(tree);
        assert_eq!(sandbox.names("target/tree.dilated-partial"), before);
        assert!(sandbox.names("target/moved").is_empty(), "what was made is removed");
        fs::rename(&partial, sandbox.path("target").join(other)).unwrap();
        fs::remove_dir(sandbox.path("target/moved")).unwrap();
    }
}

#[test]
fn a_directory_never_replaces_anything() {
    let sandbox = Sandbox::new();
    let before = sandbox.everything();
    for target in [sandbox.target(), sandbox.replacing()] {
        for taken in ["file", "there"] {
            assert!(target.create_tree(&name(taken), None).is_err());
            assert!(target.resume_tree(&name(taken), &ID).is_err());
        }
        let tree = target.create_tree(&name("tree"), None).unwrap();
        fs::create_dir(sandbox.path("target/tree")).unwrap();
        assert_eq!(tree.commit(Meta::default()).unwrap_err().to_string(), "tree exists already");
        fs::remove_dir(sandbox.path("target/tree")).unwrap();
    }
    assert_eq!(sandbox.everything(), before);
}

#[test]
fn a_directory_is_resumed() {
    let sandbox = Sandbox::new();
    let tree = sandbox.target().create_tree(&name("tree"), Some(&ID)).unwrap();
    tree.target().create_dir(&name("d")).unwrap();
    write(tree.target(), &path(&["d", "complete"]), b"data");
    tree.target().create_resumable(&path(&["d", "begun"]), 5, &ID).unwrap().keep().unwrap();
    tree.target().create_resumable(&path(&["d", "unwanted"]), 5, &ID).unwrap().keep().unwrap();
    assert!(sandbox.target().resume_tree(&name("tree"), &ID).unwrap().is_none(), "it is in use");
    drop(tree);
    assert!(sandbox.target().resume_tree(&name("tree"), &[8; 32]).unwrap().is_none());
    assert!(sandbox.target().resume_tree(&name("other"), &ID).unwrap().is_none());

    let tree = sandbox.target().resume_tree(&name("tree"), &ID).unwrap().unwrap();
    let complete = tree.target().read(&path(&["d", "complete"])).unwrap().unwrap();
    assert_eq!(complete.metadata().unwrap().len(), 4);
    tree.target().remove_file(&path(&["d", "complete"])).unwrap();
    assert!(tree.target().read(&path(&["d", "complete"])).unwrap().is_none());
    assert!(tree.target().read(&name("d")).unwrap().is_none(), "a directory is no file");
    let mut begun = tree.target().resume(&path(&["d", "begun"]), 5, &ID).unwrap().unwrap();
    begun.write_at(0, b"12345").unwrap();
    begun.commit(Meta::default()).unwrap();
    tree.commit(Meta::default()).unwrap();
    assert_eq!(sandbox.names("target"), ["file", "there", "tree"]);
    assert_eq!(sandbox.names("target/tree/d"), ["begun"], "nothing unfinished is left in it");
}

#[test]
fn directories_that_exist_are_fine_and_files_are_not() {
    let sandbox = Sandbox::new();
    let target = sandbox.target();
    target.create_dir(&path(&["there", "a", "b"])).unwrap();
    target.create_dir(&path(&["there", "a", "b"])).unwrap();
    let failure = target.create_dir(&path(&["file", "a"])).unwrap_err();
    assert_eq!(failure.to_string(), "could not write file/a: file is not a directory");
    assert_eq!(sandbox.names("target/there"), ["a", "file"]);
}
