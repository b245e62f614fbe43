//! `dilated send` and `dilated receive` when one of them is killed, and both are started again.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod common;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};

use common::{Pipe, Serve, hash, soon};
use tempfile::TempDir;

/// Bytes of the file: so many that nobody is done before it is killed.
const LENGTH: u64 = 256 << 20;

/// Bytes that are there before that.
const ENOUGH: u64 = 16 << 20;

/// A large file whose parts differ.
fn make(path: &Path) {
    let file = File::create_new(path).expect("it works");
    file.set_len(LENGTH).expect("it works");
    for offset in (0..LENGTH).step_by(300_000) {
        file.write_at(&offset.to_le_bytes(), offset).expect("it works");
    }
}

fn start(serve: &Serve, directory: &Path, command: &str, arguments: &[&str]) -> Pipe {
    let mut process = serve.dilated();
    process.current_dir(directory).arg(command).args(arguments);
    Pipe::spawn(process)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("it is there");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("it works").file_name().into_string().expect("it works")).collect();
    names.sort();
    names
}

async fn pair(serve: &Serve, from: &TempDir, to: &TempDir) -> (Pipe, Pipe) {
    let sender = start(serve, from.path(), "send", &["film"]);
    let code = sender.code().await;
    (sender, start(serve, to.path(), "receive", &["--yes", &code]))
}

async fn killed_and_resumed(receiver_dies: bool, damage: impl FnOnce(&File, u64)) {
    let serve = Serve::start().await;
    let (from, to) = (TempDir::new().expect("it works"), TempDir::new().expect("it works"));
    make(&from.path().join("film"));
    let (mut sender, mut receiver) = pair(&serve, &from, &to).await;
    let partial = to.path().join("film.dilated-partial");
    soon("a part of the file", async {
        while fs::metadata(&partial).map_or(0, |metadata| metadata.len()) < ENOUGH {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // Without a chance to do anything. The other one is given up by its user then.
    let (first, then) =
        if receiver_dies { (&mut receiver, &mut sender) } else { (&mut sender, &mut receiver) };
    first.child.kill().await.expect("it works");
    then.child.kill().await.expect("it works");
    assert_eq!(names(to.path()), ["film.dilated-partial", "film.dilated-resume"]);

    let left = File::options().write(true).open(&partial).expect("it is there");
    damage(&left, left.metadata().expect("it works").len());

    let (mut sender, mut receiver) = pair(&serve, &from, &to).await;
    tokio::join!(sender.succeed(), receiver.succeed());
    receiver.lines.wait_for("parts of it are here already").await;
    for side in [&sender, &receiver] {
        side.lines.wait_for("comparing what is there already").await;
    }
    assert_eq!(names(to.path()), ["film"]);
    let read = |directory: &TempDir| hash(&fs::read(directory.path().join("film")).expect("it is there"));
    assert_eq!(read(&from), read(&to));
}

#[tokio::test]
async fn a_receiver_that_was_killed_goes_on_later() {
    killed_and_resumed(true, |_, _| ()).await;
}

#[tokio::test]
async fn a_sender_that_was_killed_goes_on_later() {
    killed_and_resumed(false, |_, _| ()).await;
}

#[tokio::test]
async fn what_a_machine_lost_when_it_died_comes_again() {
    // Zeros instead of the end, and something else before it.
    killed_and_resumed(true, |partial, length| {
        partial.write_all_at(b"damaged", length / 2).expect("it works");
        partial.set_len(length - 5000).expect("it works");
        partial.set_len(length).expect("it works");
    })
    .await;
}
