//! Names that want out, and directories that lead out.

use std::os::unix::fs::symlink;

use proptest::{prelude::*, sample::select};

use super::{super::*, *};
use crate::{exit::Failure, files::name::tests::hostile};

const ID: Id = [7; 32];

/// What the output option may be, relative to the working directory, which is the target.
const OUTPUTS: [Option<&str>; 16] = [
    None,
    Some("."),
    Some("there"),
    Some("there/"),
    Some("there/."),
    Some("new"),
    Some("there/new"),
    Some("file"),
    Some("nowhere/new"),
    Some("new/"),
    Some("../target"),
    Some("../outside"),
    Some("there/../new"),
    Some("a"),
    Some("link-to-file"),
    Some("dangling"),
];

/// Symbolic links under names that the other side will use, and under those of partial files.
fn plant(sandbox: &Sandbox) {
    for (link, leads_to) in [
        ("a", "../outside"),
        ("b.txt", "../outside/file"),
        ("d", "../outside/inner"),
        ("...", "/"),
        (".ssh", "../nowhere"),
        ("link-to-file", "../outside/file"),
        ("dangling", "../outside/new"),
        ("there/a", "../../outside"),
        ("there/b.txt", "../../outside/new"),
        ("there/d", "../.."),
        ("inside", "there"),
        ("new.dilated-partial", "../outside/file"),
        ("~.dilated-partial", "../outside/new"),
        ("~.dilated-resume", "../outside/file"),
        ("-rf.dilated-resume", "../outside/new"),
        ("there/-rf.dilated-partial", "../../outside"),
    ] {
        symlink(leads_to, sandbox.path("target").join(link)).unwrap();
    }
}

/// Tries everything that the other side can make this one do with two names. Most of it fails; that is fine.
fn receive(landing: &Landing, name: &str, entry: &str) -> Result<(), Failure> {
    let target = landing.target();
    let fill = |mut partial: Partial| {
        partial.write_at(0, b"evil")?;
        partial.commit(Meta { mode: Some(0o7777), modified: None })
    };
    let resumed = |path: &SafePath| -> Result<(), Failure> {
        target.create_resumable(path, 4, &ID)?.keep()?;
        target.resume(path, 4, &ID)?.map_or(Ok(()), fill)
    };
    let directory = |path: &SafePath, below: &SafePath| -> Result<(), Failure> {
        let tree = target.create_tree(path, Some(&ID))?;
        tree.target().create_dir(below)?;
        tree.target().create(&below.join(below)?, 4).and_then(fill)?;
        drop(tree);
        target.resume_tree(path, &ID)?.map_or(Ok(()), |tree| tree.commit(Meta::default()))
    };
    let listed: Vec<String> = entry.split('/').map(str::to_owned).collect();
    let entries = [SafePath::from_zip(entry).ok().flatten(), SafePath::relative(&listed).ok()];
    let path = landing.name(name)?;
    for below in entries.into_iter().flatten() {
        let _ = directory(&path, &below);
        for path in [below.clone(), path.join(&below)?] {
            let _ = target.create(&path, 4).and_then(fill);
            let _ = resumed(&path);
            let _ = target.create_dir(&path);
            let _ = target.finish_dir(&path, Meta { mode: Some(0), modified: None });
            let _ = directory(&path, &below);
        }
    }
    let _ = resumed(&path);
    target.create(&path, 4).and_then(fill)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_outside_changes_whatever_the_names_and_the_output(
        name in hostile(),
        entry in hostile(),
        output in select(&OUTPUTS[..]),
        existing in select(&[Existing::Keep, Existing::Replace][..]),
        planted in any::<bool>(),
    ) {
        let sandbox = Sandbox::new();
        if planted {
            plant(&sandbox);
        }
        let before = sandbox.everything();
        let Ok(landing) = Landing::from(&sandbox.path("target"), output.map(Path::new), existing) else {
            prop_assert_eq!(sandbox.everything(), before);
            return Ok(());
        };
        let root = sandbox.root.path().canonicalize().unwrap();
        let inside = landing.target().path().canonicalize().unwrap();
        let inside = inside.strip_prefix(root).unwrap();
        let _ = receive(&landing, &name, &entry);
        let after = sandbox.everything();
        for (path, content) in &before {
            // What has the name of a side file without a partial file belongs to nothing.
            if path.starts_with(inside) && path.extension().is_some_and(|end| end == "dilated-resume") {
                continue;
            }
            // A symbolic link or a file may be replaced where that was asked for; a directory never.
            if existing == Existing::Keep || !path.starts_with(inside) || content == b"directory" {
                prop_assert_eq!(after.get(path), Some(content), "{:?}", path);
            }
        }
        for path in after.keys() {
            prop_assert!(before.contains_key(path) || path.starts_with(inside), "{:?}", path);
        }
    }
}

#[test]
fn a_plain_name_lands_where_the_output_says() {
    let land = |output: Option<&str>, existing| {
        let sandbox = Sandbox::new();
        let landing = Landing::from(&sandbox.path("target"), output.map(Path::new), existing)?;
        let before = sandbox.everything();
        let mut partial = landing.target().create(&landing.name("../evil/plain")?, 4)?;
        partial.write_at(0, b"evil")?;
        partial.commit(Meta::default())?;
        let mut changed = sandbox.everything();
        changed.retain(|path, content| before.get(path) != Some(content));
        Ok::<_, Failure>(changed.into_keys().map(|path| path.display().to_string()).collect::<Vec<_>>())
    };
    for (output, landed) in [
        (None, "target/plain"),
        (Some("."), "target/plain"),
        (Some("there"), "target/there/plain"),
        (Some("there/"), "target/there/plain"),
        (Some("../outside"), "outside/plain"),
        (Some("new"), "target/new"),
        (Some("there/new"), "target/there/new"),
    ] {
        assert_eq!(land(output, Existing::Keep), Ok(vec![landed.to_owned()]), "{output:?}");
    }
    assert_eq!(land(Some("file"), Existing::Replace), Ok(vec!["target/file".to_owned()]));
    for output in ["file", "new/", "nowhere/new", "file/new", "file/."] {
        assert!(land(Some(output), Existing::Keep).is_err(), "{output}");
    }
}

#[test]
fn a_symbolic_link_is_named_and_not_followed() {
    let sandbox = Sandbox::new();
    plant(&sandbox);
    let before = sandbox.everything();
    let target = sandbox.target();
    for (link, path) in [
        ("a", path(&["a", "new"])),
        ("a", path(&["there", "a", "new"])),
        ("inside", path(&["inside", "new"])),
    ] {
        let failure = target.create(&path, 0).unwrap_err();
        assert_eq!(
            failure.to_string(),
            format!("could not write {path}: {link} is a symbolic link, and those are not followed")
        );
        assert!(target.exists(&path).is_err());
        assert!(target.create_dir(&path).is_err());
        assert!(target.create_tree(&path, None).is_err());
        assert!(target.read(&path).is_err());
        assert!(target.remove_file(&path).is_err());
    }
    for link in ["a", "b.txt", ".ssh"] {
        assert!(target.exists(&name(link)).unwrap(), "{link}");
        assert!(target.create(&name(link), 0).is_err(), "{link}");
        assert!(target.create_dir(&name(link)).is_err(), "{link}");
        assert!(matches!(target.read(&name(link)), Ok(None)), "{link}");
    }
    assert_eq!(sandbox.everything(), before);
    // Replaced is the link, not what it leads to.
    sandbox.replacing().create(&name("b.txt"), 0).unwrap().commit(Meta::default()).unwrap();
    assert_eq!(fs::read(sandbox.path("target/b.txt")).unwrap(), b"");
    assert_eq!(fs::read(sandbox.path("outside/file")).unwrap(), b"outside/file");
}

#[test]
fn planted_partial_and_side_files_are_neither_written_nor_believed() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("outside/content"), "good").unwrap();
    sandbox.target().create_resumable(&name("x"), 4, &ID).unwrap().keep().unwrap();
    let target = sandbox.target();
    let around = sandbox.around();
    for own in ["x.dilated-partial", "x.dilated-resume"] {
        let (own, kept) = (sandbox.path("target").join(own), sandbox.path("kept"));
        fs::rename(&own, &kept).unwrap();
        let plants: [&dyn Fn(); 4] = [
            &|| symlink("../kept", &own).unwrap(),
            &|| fs::hard_link(sandbox.path("outside/content"), &own).unwrap(),
            &|| fs::create_dir(&own).unwrap(),
            &|| {
                let mode = rustix::fs::Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(rustix::fs::CWD, &own, rustix::fs::FileType::Fifo, mode, 0).unwrap();
            },
        ];
        for plant in plants {
            plant();
            assert!(target.resume(&name("x"), 4, &ID).unwrap().is_none());
            target.create(&name("x"), 0).unwrap().commit(Meta::default()).unwrap();
            fs::remove_file(sandbox.path("target/x")).unwrap();
            if own.is_dir() { fs::remove_dir(&own).unwrap() } else { fs::remove_file(&own).unwrap() }
        }
        fs::rename(&kept, &own).unwrap();
        assert!(target.resume(&name("x"), 4, &ID).unwrap().is_some());
        assert_eq!(sandbox.around(), around);
    }
}

#[test]
fn what_is_swapped_under_our_hands_leads_nowhere() {
    let sandbox = Sandbox::new();
    let around = sandbox.around();
    let target = sandbox.target();
    let mut partial = target.create(&path(&["there", "new"]), 4).unwrap();
    let tree = target.create_tree(&path(&["there", "tree"]), None).unwrap();
    fs::rename(sandbox.path("target/there"), sandbox.path("target/moved")).unwrap();
    symlink("../outside", sandbox.path("target/there")).unwrap();
    partial.write_at(0, b"good").unwrap();
    partial.commit(Meta::default()).unwrap();
    tree.target().create_dir(&name("d")).unwrap();
    tree.commit(Meta::default()).unwrap();
    assert_eq!(sandbox.names("target/moved"), ["file", "new", "tree"], "it is the directory that was opened");
    assert_eq!(sandbox.around(), around);

    // The partial file itself, for a link and for another file.
    for own in ["../outside/file", "file"] {
        let partial = target.create(&name("x"), 0).unwrap();
        fs::remove_file(sandbox.path("target/x.dilated-partial")).unwrap();
        symlink(own, sandbox.path("target/x.dilated-partial")).unwrap();
        let failure = partial.commit(Meta::default()).unwrap_err();
        assert_eq!(failure.to_string(), "somebody removed x while it was received");
        assert!(sandbox.path("target/x.dilated-partial").is_symlink(), "it is not ours to remove");
        fs::remove_file(sandbox.path("target/x.dilated-partial")).unwrap();
        assert!(!target.exists(&name("x")).unwrap());
    }
    assert_eq!(sandbox.around(), around);
}

/// A directory and a symbolic link change places all the time, as fast as the system can.
#[cfg(target_os = "linux")]
#[test]
fn a_race_is_not_won() {
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{CWD, RenameFlags, renameat_with};

    let sandbox = Sandbox::new();
    symlink("../outside", sandbox.path("target/link")).unwrap();
    let around = sandbox.around();
    let (there, link) = (sandbox.path("target/there"), sandbox.path("target/link"));
    let target = sandbox.target();
    let stop = AtomicBool::new(false);
    let (mut made, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &there, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        for round in 0..20_000 {
            let path = path(&["there", "deep", &format!("{round}")]);
            match target.create(&path, 0).and_then(|partial| partial.commit(Meta::default())) {
                Ok(()) => made += 1,
                Err(_) => refused += 1,
            }
            if made >= 200 && refused >= 200 {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(made > 0, "the directory was never there");
    assert_eq!(sandbox.around(), around, "{made} made, {refused} refused");
}
