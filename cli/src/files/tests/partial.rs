use std::{
    fs,
    time::{Duration, SystemTime},
};

use super::{super::*, *};
use crate::{exit::Kind, files::target::Place};

const ID: Id = [7; 32];

fn content() -> Vec<u8> {
    [[1; 1000], [2; 1000], [3; 1000]].concat()
}

/// What a run leaves that received the first 2,000 bytes of [`content`] and died.
fn interrupted(sandbox: &Sandbox) {
    let mut partial = sandbox.target().create_resumable(&name("big"), content().len() as u64, &ID).unwrap();
    partial.write_at(0, &content()[..2000]).unwrap();
    partial.keep().unwrap();
}

fn resume(sandbox: &Sandbox) -> Option<Partial> {
    sandbox.target().resume(&name("big"), content().len() as u64, &ID).unwrap()
}

#[test]
fn a_file_gets_its_name_only_when_it_is_complete() {
    let sandbox = Sandbox::new();
    let mut partial = sandbox.target().create(&path(&["new", "deep", "a.txt"]), 5).unwrap();
    partial.write_at(2, b"llo").unwrap();
    assert_eq!(sandbox.names("target/new/deep"), ["a.txt.dilated-partial"]);
    partial.write_at(0, b"he").unwrap();
    let mut buffer = [0; 9];
    assert_eq!(partial.read_at(1, &mut buffer).unwrap(), 4);
    assert_eq!(&buffer[..4], b"ello");
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    partial.commit(Meta { mode: Some(0o6751), modified: Some(modified) }).unwrap();
    assert_eq!(sandbox.names("target/new/deep"), ["a.txt"]);
    let landed = sandbox.path("target/new/deep/a.txt");
    assert_eq!(fs::read(&landed).unwrap(), b"hello");
    assert_eq!(fs::metadata(&landed).unwrap().modified().unwrap(), modified);
}

#[cfg(unix)]
#[test]
fn a_file_is_private_until_it_is_complete_and_never_set_uid() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let mode = |file: &str| fs::metadata(sandbox.path(file)).unwrap().permissions().mode() & 0o7777;
    let partial = sandbox.target().create_resumable(&name("a"), 0, &ID).unwrap();
    assert_eq!(mode("target/a.dilated-partial"), 0o600);
    assert_eq!(mode("target/a.dilated-resume"), 0o600);
    partial.commit(Meta { mode: Some(0o7700), modified: None }).unwrap();
    assert_eq!(mode("target/a"), 0o700);
    fs::write(sandbox.path("target/usual"), "").unwrap();
    sandbox.target().create(&name("b"), 0).unwrap().commit(Meta::default()).unwrap();
    assert_eq!(mode("target/b"), mode("target/usual"), "without a mode it is that of any new file");
}

#[test]
fn an_absurd_time_or_an_empty_file_is_no_failure() {
    let sandbox = Sandbox::new();
    for (name_, seconds) in [("a", 0), ("b", u64::from(u32::MAX) << 28)] {
        let modified = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let partial = sandbox.target().create(&name(name_), 0).unwrap();
        partial.commit(Meta { mode: None, modified }).unwrap();
        assert_eq!(fs::read(sandbox.path("target").join(name_)).unwrap(), b"");
    }
}

#[test]
fn no_more_and_no_less_than_was_offered() {
    let sandbox = Sandbox::new();
    let before = sandbox.everything();
    let mut partial = sandbox.target().create(&name("a"), 5).unwrap();
    for (offset, data) in [(0, &b"123456"[..]), (5, b"1"), (u64::MAX, b"1"), (u64::MAX - 1, b"12")] {
        assert_eq!(partial.write_at(offset, data).unwrap_err().kind(), Kind::PeerProgram);
    }
    partial.write_at(0, b"1234").unwrap();
    assert_eq!(partial.set_size(6).unwrap_err().kind(), Kind::PeerProgram);
    let failure = partial.commit(Meta::default()).unwrap_err();
    assert_eq!(failure.to_string(), "a is not complete: 4 of 5 bytes are there");
    assert_eq!(sandbox.everything(), before, "nothing is left behind");

    let mut partial = sandbox.target().create(&name("a"), u64::MAX).unwrap();
    partial.write_at(0, b"1234").unwrap();
    partial.set_size(4).unwrap();
    partial.commit(Meta::default()).unwrap();
    assert_eq!(fs::read(sandbox.path("target/a")).unwrap(), b"1234");
}

#[test]
fn what_is_not_committed_is_gone() {
    let sandbox = Sandbox::new();
    let before = sandbox.everything();
    let mut partial = sandbox.target().create(&name("a"), 5).unwrap();
    partial.write_at(0, b"12").unwrap();
    drop(partial);
    assert_eq!(sandbox.everything(), before);
    sandbox.target().create(&name("a"), 5).unwrap().keep().unwrap();
    assert_eq!(sandbox.everything(), before, "what cannot be resumed is not kept");
    sandbox.target().create_resumable(&name("a"), 5, &ID).unwrap().discard();
    assert_eq!(sandbox.everything(), before);
}

#[test]
fn what_exists_is_not_replaced() {
    let sandbox = Sandbox::new();
    let before = sandbox.everything();
    for target in [sandbox.target(), sandbox.replacing()] {
        let failure = target.create(&name("there"), 1).unwrap_err();
        assert_eq!(failure.to_string(), "there exists already");
        assert!(target.exists(&name("there")).unwrap() && !target.exists(&name("no")).unwrap());
        assert!(!target.exists(&path(&["no", "no"])).unwrap());
    }
    assert!(sandbox.target().create(&name("file"), 1).is_err());
    assert!(sandbox.target().resume(&name("file"), 1, &ID).is_err());
    assert!(sandbox.target().create(&path(&["file", "below"]), 1).is_err());
    assert_eq!(sandbox.everything(), before);
}

#[test]
fn what_appears_meanwhile_is_not_replaced() {
    let sandbox = Sandbox::new();
    let partial = sandbox.target().create(&name("a"), 0).unwrap();
    fs::write(sandbox.path("target/a"), "mine").unwrap();
    assert_eq!(partial.commit(Meta::default()).unwrap_err().to_string(), "a exists already");
    assert_eq!(fs::read(sandbox.path("target/a")).unwrap(), b"mine");
    assert_eq!(sandbox.names("target"), ["a", "file", "there"]);
}

#[test]
fn every_way_to_rename_leaves_what_exists_alone() {
    let sandbox = Sandbox::new();
    let place = sandbox.target().place(&name("a")).unwrap();
    type Rename = fn(&Place, &str) -> std::io::Result<()>;
    let ways: [Rename; 3] =
        [|place, from| place.rename(from, Existing::Keep), Place::link_new, Place::reserve_new];
    for way in ways {
        fs::write(sandbox.path("target/from"), "from").unwrap();
        fs::write(sandbox.path("target/a"), "mine").unwrap();
        assert_eq!(way(&place, "from").unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(sandbox.path("target/a")).unwrap(), b"mine");
        fs::remove_file(sandbox.path("target/a")).unwrap();
        way(&place, "from").unwrap();
        assert_eq!(fs::read(sandbox.path("target/a")).unwrap(), b"from");
        assert_eq!(sandbox.names("target"), ["a", "file", "there"]);
    }
    // And directories.
    fs::remove_file(sandbox.path("target/a")).unwrap();
    fs::create_dir(sandbox.path("target/a")).unwrap();
    assert!(place.link_new("there").is_err());
    fs::remove_dir(sandbox.path("target/a")).unwrap();
    place.link_new("there").unwrap();
    assert_eq!(sandbox.names("target/a"), ["file"]);
}

#[test]
fn a_file_is_replaced_when_that_was_asked_for_and_only_at_the_end() {
    let sandbox = Sandbox::new();
    let mut partial = sandbox.replacing().create(&name("file"), 3).unwrap();
    partial.write_at(0, b"new").unwrap();
    assert_eq!(fs::read(sandbox.path("target/file")).unwrap(), b"target/file");
    partial.commit(Meta::default()).unwrap();
    assert_eq!(fs::read(sandbox.path("target/file")).unwrap(), b"new");
}

#[test]
fn names_that_were_made_equal_do_not_replace_each_other() {
    let sandbox = Sandbox::new();
    let target = sandbox.replacing();
    target.create(&SafePath::file_name("a\u{1}").unwrap(), 0).unwrap().commit(Meta::default()).unwrap();
    assert!(target.create(&SafePath::file_name("a\u{2}").unwrap(), 0).is_err());
    assert_eq!(sandbox.names("target"), ["a_", "file", "there"]);
}

#[test]
fn what_was_received_is_there_in_the_next_run() {
    let sandbox = Sandbox::new();
    interrupted(&sandbox);
    assert_eq!(sandbox.names("target"), ["big.dilated-partial", "big.dilated-resume", "file", "there"]);
    let mut partial = resume(&sandbox).unwrap();
    assert_eq!(partial.here(), 2000);
    let mut buffer = [0; 4000];
    assert_eq!(partial.read_at(500, &mut buffer).unwrap(), 1500);
    assert_eq!(buffer[..1500], content()[500..2000]);
    partial.write_at(2000, &content()[2000..]).unwrap();
    // Once more, with all of it.
    partial.keep().unwrap();
    let partial = resume(&sandbox).unwrap();
    assert_eq!(partial.here(), 3000);
    partial.commit(Meta::default()).unwrap();
    assert_eq!(sandbox.names("target"), ["big", "file", "there"]);
    assert_eq!(fs::read(sandbox.path("target/big")).unwrap(), content());
}

#[test]
fn a_partial_file_that_is_too_long_is_cut() {
    let sandbox = Sandbox::new();
    interrupted(&sandbox);
    let file = sandbox.path("target/big.dilated-partial");
    fs::write(&file, [content(), vec![9; 5000]].concat()).unwrap();
    assert_eq!(resume(&sandbox).unwrap().here(), content().len() as u64);
    assert_eq!(fs::read(&file).unwrap(), content());
}

#[test]
fn a_side_file_of_something_else_is_ignored() {
    let sandbox = Sandbox::new();
    interrupted(&sandbox);
    let target = sandbox.target();
    let size = content().len() as u64;
    assert!(target.resume(&name("big"), size, &[8; 32]).unwrap().is_none(), "another content");
    assert!(target.resume(&name("big"), size + 1, &ID).unwrap().is_none(), "another size");
    let side = sandbox.path("target/big.dilated-resume");
    let good = fs::read(&side).unwrap();
    for bad in [&b""[..], b"dilated-resume 1\n", &[0; 4000], &good[..80], &good[1..]] {
        fs::write(&side, bad).unwrap();
        assert!(resume(&sandbox).is_none(), "{} bytes", bad.len());
    }
    fs::write(&side, [&good[..], b"more"].concat()).unwrap();
    assert!(resume(&sandbox).is_some(), "what follows may be of a later version");
}

#[test]
fn unfinished_transfers_of_one_name_do_not_touch_each_other() {
    let sandbox = Sandbox::new();
    interrupted(&sandbox);
    let before = fs::read(sandbox.path("target/big.dilated-partial")).unwrap();
    let other = sandbox.target().create_resumable(&name("big"), 1, &[8; 32]).unwrap();
    assert!(sandbox.names("target").contains(&"big.2.dilated-partial".to_owned()));
    assert!(sandbox.target().resume(&name("big"), 1, &[8; 32]).unwrap().is_none(), "it is in use");
    other.keep().unwrap();
    assert_eq!(fs::read(sandbox.path("target/big.dilated-partial")).unwrap(), before);
    assert!(sandbox.target().resume(&name("big"), 1, &[8; 32]).unwrap().is_some());
    assert_eq!(resume(&sandbox).unwrap().here(), 2000);
}

#[test]
fn what_a_dead_run_left_is_replaced_but_not_what_is_in_use() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("target/a.dilated-partial"), "left").unwrap();
    // A side file without its file.
    fs::write(sandbox.path("target/a.2.dilated-resume"), "left").unwrap();
    let first = sandbox.target().create(&name("a"), 0).unwrap();
    let second = sandbox.target().create(&name("a"), 0).unwrap();
    assert_eq!(sandbox.names("target"), ["a.2.dilated-partial", "a.dilated-partial", "file", "there"]);
    second.commit(Meta::default()).unwrap();
    drop(first);
    assert_eq!(sandbox.names("target"), ["a", "file", "there"]);
}

#[test]
fn there_is_an_end_to_unfinished_transfers() {
    let sandbox = Sandbox::new();
    let all: Vec<Partial> = (0..9).map(|_| sandbox.target().create(&name("a"), 0).unwrap()).collect();
    let failure = sandbox.target().create(&name("a"), 0).unwrap_err();
    assert!(failure.to_string().starts_with("there are 9 unfinished transfers of a;"), "{failure}");
    drop(all);
    assert_eq!(sandbox.names("target"), ["file", "there"]);
}

#[test]
fn a_long_name_has_a_partial_file_too() {
    let sandbox = Sandbox::new();
    let long = "ü".repeat(127);
    sandbox.target().create_resumable(&name(&long), 0, &ID).unwrap().keep().unwrap();
    sandbox.target().resume(&name(&long), 0, &ID).unwrap().unwrap().commit(Meta::default()).unwrap();
    assert_eq!(sandbox.names("target"), ["file", "there", &long]);
}

#[test]
fn space_is_asked_for() {
    let target = Sandbox::new().target();
    // The directory is gone by now, so nobody knows.
    assert!(target.free_space().is_err());
    let sandbox = Sandbox::new();
    let target = sandbox.target();
    assert!(target.free_space().unwrap() > 0);
    target.require_space(1).unwrap();
    let failure = target.require_space(u64::MAX).unwrap_err().to_string();
    assert!(failure.contains("are needed") && failure.contains("are free"), "{failure}");
}

#[test]
fn a_scratch_file_has_no_name() {
    use std::io::{Read, Seek, Write};
    let sandbox = Sandbox::new();
    let mut scratch = sandbox.target().scratch().unwrap();
    scratch.write_all(b"zip").unwrap();
    scratch.rewind().unwrap();
    let mut read = String::new();
    scratch.read_to_string(&mut read).unwrap();
    assert_eq!(read, "zip");
    assert_eq!(sandbox.names("target"), ["file", "there"]);
}
