//! `dilated send` and `dilated receive` as any other program's `wormhole` sees them, two processes at a time.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use common::{Pipe, Serve, hash, noise, signal, soon};
use tempfile::TempDir;

/// Two places, and servers between them.
struct World {
    /// Whether both sides are kept from the protocol of our own.
    classic: bool,
    serve: Serve,
    from: TempDir,
    to: TempDir,
}

impl World {
    async fn new() -> World {
        let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        World { classic: true, serve: Serve::start().await, from, to }
    }

    async fn of_our_own() -> World {
        World { classic: false, ..World::new().await }
    }

    fn write(&self, name: &str, data: &[u8]) -> PathBuf {
        let path = self.from.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, data).unwrap();
        path
    }

    fn command(&self, command: &str, arguments: &[&str]) -> tokio::process::Command {
        let mut process = self.serve.dilated();
        if self.classic {
            process.env("DILATED_CLASSIC", "1");
        }
        process.arg(command).args(arguments);
        process
    }

    fn send(&self, arguments: &[&str]) -> Pipe {
        let mut command = self.command("send", arguments);
        command.current_dir(self.from.path());
        Pipe::spawn(command)
    }

    fn receive(&self, arguments: &[&str]) -> Pipe {
        let mut command = self.command("receive", arguments);
        command.current_dir(self.to.path());
        Pipe::spawn(command)
    }

    /// Sends and receives without questions.
    async fn both(&self, send: &[&str], receive: &[&str]) -> (Pipe, Pipe) {
        let sender = self.send(send);
        let code = sender.code().await;
        let receiver = self.receive(&[&["--yes", &code], receive].concat());
        (sender, receiver)
    }

    async fn deliver(&self, send: &[&str], receive: &[&str]) -> (Pipe, Pipe) {
        let (mut sender, mut receiver) = self.both(send, receive).await;
        tokio::join!(sender.succeed(), receiver.succeed());
        (sender, receiver)
    }

    /// What has arrived.
    fn arrived(&self) -> BTreeMap<String, Found> {
        let mut found = BTreeMap::new();
        list(self.to.path(), "", &mut found);
        found
    }

    fn nothing_arrived(&self) {
        assert_eq!(self.arrived(), BTreeMap::new());
    }
}

/// Something in a directory: its mode, and the hash of a file.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    mode: u32,
    hash: Option<String>,
}

fn list(directory: &Path, prefix: &str, found: &mut BTreeMap<String, Found>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        let metadata = fs::symlink_metadata(entry.path()).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        let hash = metadata.is_file().then(|| hash(&fs::read(entry.path()).unwrap()));
        found.insert(name.clone(), Found { mode, hash });
        if metadata.is_dir() {
            list(&entry.path(), &format!("{name}/"), found);
        }
    }
}

#[tokio::test]
async fn a_text() {
    let world = World::new().await;
    let (mut sender, mut receiver) = world.both(&["--text", "two\nlines \u{1b}"], &[]).await;
    assert_eq!(receiver.read().await, "two\nlines \u{1b}\n".as_bytes());
    tokio::join!(sender.succeed(), receiver.succeed());

    let mut sender = world.send(&["--text", "-"]);
    sender.feed("grüße\n");
    let mut receiver = world.receive(&["--only-text", &sender.code().await]);
    assert_eq!(receiver.read().await, "grüße\n\n".as_bytes());
    tokio::join!(sender.succeed(), receiver.succeed());
    world.nothing_arrived();
}

#[tokio::test]
async fn files() {
    let world = World::new().await;
    world.write("empty", b"");
    let data = noise(5_000_003, 1);
    world.write("a large \u{fc} one", &data);
    world.deliver(&["empty"], &[]).await;
    let (sender, receiver) = world.deliver(&["a large \u{fc} one"], &[]).await;
    world.deliver(&["empty"], &["-o", "another name"]).await;
    let arrived = world.arrived();
    assert_eq!(arrived.keys().collect::<Vec<_>>(), ["a large \u{fc} one", "another name", "empty"]);
    assert_eq!(arrived["a large \u{fc} one"].hash, Some(hash(&data)));
    assert_eq!(arrived["empty"].hash, Some(hash(b"")));
    for pipe in [sender, receiver] {
        assert!(pipe.lines.all().contains("connected "), "{}", pipe.lines.all());
    }
}

#[tokio::test]
async fn through_the_relay() {
    let world = World::new().await;
    let data = noise(1_000_000, 2);
    world.write("file", &data);
    let mut sender = world.command("send", &["--no-listen", "file"]);
    sender.current_dir(world.from.path());
    let mut sender = Pipe::spawn(sender);
    let mut receiver = world.receive(&["--no-listen", "--yes", &sender.code().await]);
    tokio::join!(sender.succeed(), receiver.succeed());
    assert_eq!(world.arrived()["file"].hash, Some(hash(&data)));
    for pipe in [sender, receiver] {
        assert!(pipe.lines.all().contains("connected ->relay:"), "{}", pipe.lines.all());
    }
}

#[tokio::test]
async fn a_directory_with_odd_names() {
    let world = World::new().await;
    let files = [
        "dir/plain",
        "dir/ two  spaces ",
        "dir/gr\u{fc}\u{df}e/\u{4f60}\u{597d}",
        "dir/-dash",
        "dir/it's \"quoted\" $HOME `x` *",
        "dir/.hidden/.file",
        "dir/a/b/c/d/e/deep",
        "dir/locked/inside",
    ];
    for (index, name) in files.iter().enumerate() {
        world.write(name, &noise(index * 40_000, index as u64));
    }
    let inside = |name: &str| world.from.path().join("dir").join(name);
    fs::create_dir(inside("nothing in it")).unwrap();
    let chmod =
        |name: &str, mode| fs::set_permissions(inside(name), fs::Permissions::from_mode(mode)).unwrap();
    chmod("plain", 0o700);
    chmod("-dash", 0o400);
    chmod("nothing in it", 0o700);
    chmod("locked", 0o500);
    let mut expected = BTreeMap::new();
    list(&inside(""), "dir/", &mut expected);
    world.deliver(&["dir"], &[]).await;
    chmod("locked", 0o700);
    let mut arrived = world.arrived();
    assert!(arrived.remove("dir").is_some());
    // A directory always stays usable for its owner.
    expected.get_mut("dir/locked").unwrap().mode = 0o700;
    assert_eq!(arrived, expected);
}

#[tokio::test]
async fn an_empty_directory() {
    let world = World::new().await;
    fs::create_dir(world.from.path().join("hollow")).unwrap();
    world.deliver(&["hollow"], &[]).await;
    assert_eq!(world.arrived().keys().collect::<Vec<_>>(), ["hollow"]);
}

#[tokio::test]
async fn several_things_at_once() {
    let world = World::new().await;
    world.write("one", b"1");
    world.write("two/three", b"3");
    let (sender, _) = world.deliver(&["one", "two"], &[]).await;
    assert!(sender.lines.all().contains("one thing at a time"), "{}", sender.lines.all());
    let arrived = world.arrived();
    assert_eq!(arrived["one-and-1-more/one"].hash, Some(hash(b"1")));
    assert_eq!(arrived["one-and-1-more/two/three"].hash, Some(hash(b"3")));
}

#[tokio::test]
async fn standard_input() {
    let world = World::new().await;
    let data = noise(700_000, 3);
    let mut sender = world.send(&["--name", "typed", "-"]);
    sender.feed(data.clone());
    let mut receiver = world.receive(&["--yes", &sender.code().await]);
    tokio::join!(sender.succeed(), receiver.succeed());
    assert_eq!(world.arrived()["typed"].hash, Some(hash(&data)));
}

#[tokio::test]
async fn programs_are_told_what_happens() {
    let world = World::new().await;
    world.write("file", b"12345");
    let sender = world.send(&["--json", "file"]);
    let code = sender.code().await;
    let receiver = world.receive(&["--json", "--yes", &code]);
    let mut told = Vec::new();
    for mut pipe in [sender, receiver] {
        let output = String::from_utf8(pipe.read().await).unwrap();
        pipe.succeed().await;
        let events: Vec<serde_json::Value> =
            output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        told.push(events);
    }
    let names = |events: &[serde_json::Value]| {
        let names = events.iter().map(|event| event["event"].as_str().unwrap().to_owned());
        names.filter(|name| name != "progress").collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&told[0]), "offer code peer connected file done");
    assert_eq!(names(&told[1]), "peer offer connected file done");
    for events in &told {
        let find = |name: &str| events.iter().find(|event| event["event"] == name).unwrap();
        assert_eq!(find("peer")["protocol"], "classic");
        assert_eq!(find("file")["hash"]["sha256"], hash(b"12345"));
    }
    assert_eq!(told[1].last().unwrap()["received"]["bytes"], 5);
}

#[tokio::test]
async fn what_exists_stays_unless_told_otherwise() {
    let world = World::new().await;
    world.write("file", b"new");
    fs::write(world.to.path().join("file"), b"old").unwrap();
    let (mut sender, mut receiver) = world.both(&["file"], &[]).await;
    tokio::join!(sender.fail(7, "rejected"), receiver.fail(1, "file exists already"));
    assert_eq!(world.arrived()["file"].hash, Some(hash(b"old")));
    world.deliver(&["file"], &["--overwrite"]).await;
    assert_eq!(world.arrived()["file"].hash, Some(hash(b"new")));
    assert_eq!(world.arrived().len(), 1);
}

#[tokio::test]
async fn a_side_that_may_not_or_cannot_take_it_refuses() {
    let world = World::new().await;
    world.write("file", b"x");
    let (mut sender, mut receiver) = world.both(&["file"], &["--only-text"]).await;
    tokio::join!(sender.fail(7, "rejected"), receiver.fail(2, "leave --only-text away"));

    // Nobody can be asked.
    let mut sender = world.send(&["file"]);
    let mut command = tokio::process::Command::new("setsid");
    command.args([
        "--wait",
        env!("CARGO_BIN_EXE_dilated"),
        "--mailbox",
        &world.serve.mailbox,
        "receive",
        "--classic",
    ]);
    command.arg(sender.code().await).current_dir(world.to.path());
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped()).kill_on_drop(true);
    let mut receiver = Pipe::spawn(command);
    tokio::join!(sender.fail(7, "rejected"), receiver.fail(2, "answer it with --yes"));
    world.nothing_arrived();
}

#[tokio::test]
async fn two_senders_are_told() {
    let world = World::new().await;
    world.write("file", b"x");
    let mut one = world.send(&["file"]);
    let mut two = world.send(&["--code", &one.code().await, "file"]);
    // Whoever hears the other first says so; the other one may hear either.
    let statuses = tokio::join!(one.status(), two.status());
    assert!([statuses.0, statuses.1].contains(&2), "{statuses:?}");
    assert!(format!("{}{}", one.lines.all(), two.lines.all()).contains("one of the two has to receive"));
}

#[tokio::test]
async fn two_of_our_own_that_want_the_same_are_told() {
    let world = World::of_our_own().await;
    world.write("file", b"x");
    for (arguments, sentence) in [
        (&["file"][..], "one of the two has to receive"),
        (&["--text", "x"], "one of the two has to receive"),
    ] {
        let mut one = world.send(arguments);
        let mut two = world.send(&[&["--code", &one.code().await], arguments].concat());
        tokio::join!(one.fail(2, sentence), two.fail(2, sentence));
    }
    let (mut one, mut two) = (world.receive(&["5-both-receive"]), world.receive(&["5-both-receive"]));
    tokio::join!(one.fail(2, "one of the two has to send"), two.fail(2, "one of the two has to send"));
    world.nothing_arrived();
}

#[tokio::test]
async fn a_name_that_the_user_chose_is_for_one_thing() {
    let world = World::of_our_own().await;
    world.write("file", b"x");
    world.write("dir/file", b"x");
    let (_, receiver) = world.deliver(&["file"], &["--output", "mine"]).await;
    let said = receiver.lines.all();
    assert!(said.contains("offers the file file, 1 byte; here it is called mine"), "{said}");
    let (mut sender, mut receiver) = world.both(&["file", "dir"], &["--output", "mine"]).await;
    tokio::join!(sender.fail(7, "rejected"), receiver.fail(2, "--output has to be a directory that exists"));
    assert_eq!(world.arrived().keys().collect::<Vec<_>>(), ["mine"]);
}

#[tokio::test]
async fn each_side_is_told_why_the_other_one_failed() {
    let world = World::of_our_own().await;
    let file = world.write("file", &noise(5_000_000, 5));
    let mut sender = world.send(&["file"]);
    let code = sender.code().await;
    fs::File::options().write(true).open(file).unwrap().set_len(100).unwrap();
    let mut receiver = world.receive(&["--yes", &code]);
    let why = "the other side failed: file became shorter while it was sent";
    tokio::join!(sender.fail(1, "file became shorter while it was sent"), receiver.fail(4, why));
}

#[tokio::test]
async fn names_that_were_altered_are_told() {
    let told = |output: Vec<u8>, name: &str| {
        let output = String::from_utf8(output).unwrap();
        let events = output.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let files: Vec<_> = events.filter(|event| event["event"] == "file").collect();
        let file =
            files.iter().find(|file| file["path"] == name).unwrap_or_else(|| panic!("{name}: {output}"));
        file["altered"].as_bool().unwrap()
    };
    for classic in [false, true] {
        let world = World { classic, ..World::new().await };
        world.write("b\u{7}ell", b"x");
        world.write("plain", b"x");
        world.write("dir/in\u{7}side", b"x");
        fs::create_dir_all(world.from.path().join("hollow/deep\u{7}")).unwrap();
        let directory = if classic { "dir" } else { "dir/in_side" };
        for (sent, path, altered) in
            [("b\u{7}ell", "b_ell", true), ("plain", "plain", false), ("dir", directory, true)]
        {
            let (mut sender, mut receiver) = world.both(&[sent], &["--json"]).await;
            assert_eq!(told(receiver.read().await, path), altered);
            tokio::join!(sender.succeed(), receiver.succeed());
            assert_eq!(receiver.lines.all().contains("not safe"), altered, "{}", receiver.lines.all());
        }
        let (_, receiver) = world.deliver(&["hollow"], &[]).await;
        assert!(receiver.lines.all().contains("not safe"), "{}", receiver.lines.all());
        assert!(world.arrived().contains_key("hollow/deep_"));
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_said_before_anybody_waits() {
    let world = World::new().await;
    world.write("a/file", b"x");
    world.write("b/file", b"y");
    for (arguments, status, sentence) in [
        (&["absent"][..], 1, "there is no such file"),
        (&["a/file", "b/file"], 2, "the same name"),
        (&["--text", "x", "a"], 2, "--text cannot be sent together"),
        (&["-", "a"], 2, "has to be sent alone"),
    ] {
        world.send(arguments).fail(status, sentence).await;
    }
}

#[tokio::test]
async fn two_of_our_own_do_more() {
    let world = World::of_our_own().await;
    let (mut sender, mut receiver) = world.both(&["--text", "hello \u{1b}"], &[]).await;
    assert_eq!(receiver.read().await, "hello \u{1b}\n".as_bytes());
    tokio::join!(sender.succeed(), receiver.succeed());

    let data = noise(3_000_000, 4);
    let file = world.write("file", &data);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o750)).unwrap();
    world.write("dir/inside/deep", b"deep");
    fs::create_dir(world.from.path().join("dir/hollow")).unwrap();
    world.write("empty", b"");
    let (sender, receiver) = world.deliver(&["file", "dir", "empty"], &[]).await;
    let mut expected = BTreeMap::new();
    list(world.from.path(), "", &mut expected);
    assert_eq!(world.arrived(), expected);
    for (pipe, end) in [(sender, "done: sent 3.0 MB"), (receiver, "done: sent 0 bytes, received 3.0 MB")] {
        assert!(pipe.lines.all().contains(end), "{}", pipe.lines.all());
    }

    let mut sender = world.send(&["--name", "typed", "-"]);
    sender.feed(data.clone());
    let mut receiver = world.receive(&["--yes", &sender.code().await]);
    tokio::join!(sender.succeed(), receiver.succeed());
    assert_eq!(world.arrived()["typed"].hash, Some(hash(&data)));

    let (mut sender, mut receiver) = world.both(&["file"], &[]).await;
    tokio::join!(sender.fail(7, "something has the name"), receiver.fail(1, "it exists already"));
    world.deliver(&["file"], &["--overwrite"]).await;
}

#[tokio::test]
async fn two_of_our_own_part_when_one_is_interrupted() {
    let world = World::of_our_own().await;
    // The other one learns that by the link, and why by the mailbox, which may be too slow.
    let incomplete = "before the end; the transfer is incomplete";
    let (mut sender, mut receiver) = interrupted(&world).await;
    let partial = world.to.path().join("endless.dilated-partial");
    soon("a part of the file", async {
        while fs::metadata(&partial).map_or(0, |metadata| metadata.len()) < 16_000_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    signal(&sender.child, "INT").await;
    tokio::join!(sender.fail(130, "interrupted"), receiver.fail(4, incomplete));
    assert!(receiver.lines.all().contains("goes on from there"), "{}", receiver.lines.all());
    let (mut sender, mut receiver) = interrupted(&world).await;
    signal(&receiver.child, "INT").await;
    tokio::join!(receiver.fail(130, "interrupted"), sender.fail(4, incomplete));
    assert!(!world.arrived().contains_key("endless"));
}

#[tokio::test]
async fn one_side_without_our_protocol_is_enough_for_the_other_one() {
    let mut world = World::of_our_own().await;
    world.write("file", b"x");
    let mut sender = world.send(&["file"]);
    world.classic = true;
    let mut receiver = world.receive(&["--yes", &sender.code().await]);
    tokio::join!(sender.succeed(), receiver.succeed());
    assert!(receiver.lines.all().contains("; receiving 1 byte"), "{}", receiver.lines.all());
}

/// Sends so much that nobody is finished before the interrupt comes.
async fn interrupted(world: &World) -> (Pipe, Pipe) {
    let file = fs::File::create(world.from.path().join("endless")).unwrap();
    file.set_len(2_000_000_000).unwrap();
    let (sender, receiver) = world.both(&["endless"], &[]).await;
    sender.lines.wait_for("connected ").await;
    receiver.lines.wait_for("connected ").await;
    (sender, receiver)
}

#[tokio::test]
async fn a_sender_that_is_interrupted_says_so() {
    let world = World::new().await;
    let (mut sender, mut receiver) = interrupted(&world).await;
    signal(&sender.child, "INT").await;
    tokio::join!(sender.fail(130, "interrupted"), receiver.fail(4, "gave up: transfer cancelled"));
    world.nothing_arrived();
}

#[tokio::test]
async fn a_receiver_that_is_interrupted_says_so_and_leaves_nothing() {
    let world = World::new().await;
    let (mut sender, mut receiver) = interrupted(&world).await;
    signal(&receiver.child, "INT").await;
    tokio::join!(receiver.fail(130, "interrupted"), sender.fail(4, "gave up: transfer cancelled"));
    world.nothing_arrived();
}

#[tokio::test]
async fn a_side_that_dies_is_noticed() {
    let world = World::new().await;
    let (mut sender, mut receiver) = interrupted(&world).await;
    signal(&sender.child, "KILL").await;
    sender.status().await;
    receiver.fail(4, "the other side").await;
    world.nothing_arrived();
}
