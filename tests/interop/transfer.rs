//! `send` and `receive`: every pair of programs of which at least one is ours, and pairs of the others, which tell
//! whose fault a failure is.

use std::fs;
use std::path::Path;
use std::time::Duration;

use dilated_tests::data::Data;
use dilated_tests::transfer::{
    Meeting, Outcome, Program, Programs, Way, What, give_an_address, transfer,
    tree::{self, Entry, Tree},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::support::our_servers;

/// Far longer than any of these takes.
const PATIENCE: Duration = Duration::from_secs(180);

/// Of a run in which Python's `wormhole` lost its port.
const TRIES: usize = 3;

/// Nothing in it that a terminal obeys, which receivers escape in ways of their own.
const TEXT: &str = "Grüße, “quoted” — 你好 ✓";

/// A thing that is sent, made in the sender's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Text,
    EmptyFile,
    SmallFile,
    Directory,
    /// A directory with names that not every receiver keeps.
    StrangeNames,
}

impl Thing {
    const ALL: [Thing; 5] =
        [Thing::Text, Thing::EmptyFile, Thing::SmallFile, Thing::Directory, Thing::StrangeNames];

    fn name(self) -> &'static str {
        match self {
            Thing::Text => "",
            Thing::EmptyFile => "empty",
            Thing::SmallFile => "-a file, 小さい.bin",
            Thing::Directory => "a directory — ディレクトリ",
            Thing::StrangeNames => "strange names",
        }
    }

    fn what(self) -> What<'static> {
        match self {
            Thing::Text => What::Text(TEXT),
            _ => What::Name(self.name()),
        }
    }

    /// Whether our programs tell what happens as events, and not in sentences.
    fn is_told(self) -> bool {
        self == Thing::SmallFile
    }

    fn make(self, directory: &Path) {
        let path = directory.join(self.name());
        match self {
            Thing::Text => {}
            Thing::EmptyFile => write(&path, b"", false),
            Thing::SmallFile => write(&path, &Data::new(6).at(0, 1_000_001), false),
            Thing::Directory => {
                fs::create_dir_all(path.join("empty one")).expect("made");
                fs::create_dir_all(path.join(".hidden/much/deeper")).expect("made");
                write(&path.join(".hidden/much/deeper/file"), &Data::new(7).at(0, 70_000), false);
                write(&path.join("-dash"), b"-", false);
                write(&path.join("with space "), b" ", false);
                write(&path.join("ünïcödé 名前"), "ü".as_bytes(), false);
                write(&path.join("nothing in it"), b"", false);
                write(&path.join("run.sh"), b"#!/bin/sh\n", true);
            }
            Thing::StrangeNames => {
                fs::create_dir(&path).expect("made");
                write(&path.join("line\nbreak"), b"\n", false);
                write(&path.join("colon: star* question?"), b":", false);
                write(&path.join("NUL.txt"), b"0", false);
            }
        }
    }
}

fn write(path: &Path, content: &[u8], executable: bool) {
    fs::write(path, content).expect("written");
    if executable {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("changed");
    }
}

/// What of one thing has to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// All of it.
    Arrives,
    /// Nothing: one of the two cannot, says so, and neither hangs.
    Refused,
}

fn verdict(sender: Program, receiver: Program, thing: Thing) -> Option<Verdict> {
    match (sender, receiver, thing) {
        // It can send no text, and takes none.
        (Program::WormholeRs, _, Thing::Text) => None,
        (_, Program::WormholeRs, Thing::Text) => Some(Verdict::Refused),
        _ => Some(Verdict::Arrives),
    }
}

/// A pair of programs in one arrangement.
struct Pair {
    programs: Programs,
    sender: Program,
    receiver: Program,
    meeting: Meeting,
    _home: TempDir,
}

impl Pair {
    /// Runs both once, and gives the receiver's directory.
    async fn run(&self, thing: Thing, from: &Path) -> (TempDir, Outcome) {
        let to = tempfile::tempdir().expect("a directory");
        let told = |mut command: Command| {
            if thing.is_told() {
                command.env("DILATED_JSON", "1");
            }
            command
        };
        let sender = told(self.programs.sender(self.sender, &self.meeting, from, thing.what()));
        let receiver =
            |code: &str| told(self.programs.receiver(self.receiver, &self.meeting, to.path(), code));
        let outcome = transfer(sender, receiver, PATIENCE).await;
        (to, outcome)
    }

    /// A sentence for each of ours that went another way, or spoke another protocol, than it has to.
    fn told(&self, outcome: &Outcome) -> Vec<String> {
        let dilate = self.sender == Program::Dilated && self.receiver == Program::Dilated;
        let protocol = if dilate { "dilated" } else { "classic" };
        let sides = [(self.sender, &outcome.sender), (self.receiver, &outcome.receiver)];
        let mut complaints = Vec::new();
        for (program, ended) in sides.into_iter().filter(|(program, _)| program.is_ours()) {
            let events = ended.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let events = Vec::from_iter(events);
            let has = |name: &str, fits: &dyn Fn(&Value) -> bool| {
                events.iter().any(|event| event["event"] == name && fits(event))
            };
            let by_relay = |event: &Value| event["path"].as_str().is_some_and(|path| path.contains("relay:"));
            let relayed = self.meeting.way == Way::Relayed;
            if !has("peer", &|event| event["protocol"] == protocol) {
                complaints.push(format!("{program} does not speak the {protocol} protocol: {ended}"));
            }
            if !has("connected", &|event| by_relay(event) == relayed) {
                complaints.push(format!("{program} says that it is connected otherwise: {ended}"));
            }
        }
        complaints
    }

    /// Sends `thing`, and gives a sentence for everything that is not as it has to be.
    async fn complaints(&self, thing: Thing, verdict: Verdict) -> Vec<String> {
        let from = tempfile::tempdir().expect("a directory");
        thing.make(from.path());
        let (mut to, mut outcome) = self.run(thing, from.path()).await;
        for _ in 1..TRIES {
            if outcome.lost_its_port() {
                (to, outcome) = self.run(thing, from.path()).await;
            }
        }
        match verdict {
            Verdict::Refused => {
                let mut complaints = tree::differences(&Tree::new(), &tree::read(to.path()));
                for (side, ended) in [("sender", &outcome.sender), ("receiver", &outcome.receiver)] {
                    if ended.status.is_none() || ended.is_success() {
                        complaints.push(format!("the {side} has to fail: {outcome}"));
                    }
                }
                complaints
            }
            Verdict::Arrives if !outcome.is_success() => vec![outcome.to_string()],
            Verdict::Arrives if thing == Thing::Text => {
                let printed = &outcome.receiver.stdout;
                let arrived = printed.lines().any(|line| line == TEXT);
                Vec::from_iter((!arrived).then(|| format!("the text is not what was printed: {printed:?}")))
            }
            Verdict::Arrives => {
                let expected = self.expected(tree::read(from.path()));
                let mut complaints = tree::differences(&expected, &self.received(to.path(), thing));
                if thing.is_told() {
                    complaints.extend(self.told(&outcome));
                }
                complaints
            }
        }
    }

    /// What becomes of `sent`.
    fn expected(&self, mut sent: Tree) -> Tree {
        if self.sender == Program::WormholeRs {
            // It tells nobody what may be run.
            for entry in sent.values_mut() {
                entry.forget_mode();
            }
        } else if self.receiver.is_ours() {
            // Names with which a terminal could be deceived are changed.
            let harmless = |name: String| name.replace(char::is_control, "_");
            sent = sent.into_iter().map(|(name, entry)| (harmless(name), entry)).collect();
        }
        sent
    }

    /// What arrived. `wormhole-rs` sends a directory as a tar archive, and keeps the zip archive that it receives.
    fn received(&self, to: &Path, thing: Thing) -> Tree {
        let found = tree::read(to);
        let is_directory = matches!(thing, Thing::Directory | Thing::StrangeNames);
        if !is_directory || (self.sender != Program::WormholeRs && self.receiver != Program::WormholeRs) {
            return found;
        }
        let archived = |extension: &str| {
            let name = format!("{}.{extension}", thing.name());
            (found.len() == 1 && found.contains_key(&name)).then(|| to.join(name))
        };
        match (archived("tar"), archived("zip")) {
            (Some(tar), _) => tree::read_tar(&tar),
            // Its names are relative to the directory.
            (None, Some(zip)) => {
                let inside = tree::read_zip(&zip);
                let named = |(name, entry)| (format!("{}/{name}", thing.name()), entry);
                let directory = (thing.name().to_owned(), Entry::Directory);
                inside.into_iter().map(named).chain([directory]).collect()
            }
            (None, None) => found,
        }
    }
}

/// Sends everything between two programs, both ways that they can meet, and fails with all that went wrong.
async fn exchange(sender: Program, receiver: Program) {
    let Some(programs) = Programs::available(&[sender, receiver]) else { return };
    give_an_address();
    let (mailbox, relay) = our_servers().await;
    let mut failures = Vec::new();
    for way in [Way::Direct, Way::Relayed] {
        let home = tempfile::tempdir().expect("a directory");
        let (mailbox, relay) = (mailbox.clone(), relay.clone());
        let meeting = Meeting { mailbox, relay, way, home: home.path().to_owned() };
        let pair = Pair { programs: programs.clone(), sender, receiver, meeting, _home: home };
        for thing in Thing::ALL {
            let Some(verdict) = verdict(sender, receiver, thing) else { continue };
            let complaints = pair.complaints(thing, verdict).await;
            failures.extend(complaints.into_iter().map(|complaint| format!("{thing:?}, {way}: {complaint}")));
        }
    }
    assert!(failures.is_empty(), "from {sender} to {receiver}:\n  {}", failures.join("\n  "));
}

#[tokio::test]
async fn dilated_to_dilated() {
    exchange(Program::Dilated, Program::Dilated).await;
}

#[tokio::test]
async fn dilated_to_dilated_that_speaks_only_the_classic_protocol() {
    exchange(Program::Dilated, Program::DilatedClassic).await;
}

#[tokio::test]
async fn dilated_that_speaks_only_the_classic_protocol_to_dilated() {
    exchange(Program::DilatedClassic, Program::Dilated).await;
}

#[tokio::test]
async fn dilated_to_wormhole() {
    exchange(Program::Dilated, Program::Python).await;
}

#[tokio::test]
async fn wormhole_to_dilated() {
    exchange(Program::Python, Program::Dilated).await;
}

#[tokio::test]
async fn dilated_to_wormhole_rs() {
    exchange(Program::Dilated, Program::WormholeRs).await;
}

#[tokio::test]
async fn wormhole_rs_to_dilated() {
    exchange(Program::WormholeRs, Program::Dilated).await;
}

#[tokio::test]
async fn wormhole_to_wormhole() {
    exchange(Program::Python, Program::Python).await;
}

#[tokio::test]
async fn wormhole_to_wormhole_rs() {
    exchange(Program::Python, Program::WormholeRs).await;
}

#[tokio::test]
async fn wormhole_rs_to_wormhole() {
    exchange(Program::WormholeRs, Program::Python).await;
}

#[tokio::test]
async fn wormhole_rs_to_wormhole_rs() {
    exchange(Program::WormholeRs, Program::WormholeRs).await;
}
