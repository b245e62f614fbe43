//! `dilated serve`.

#![cfg(unix)]

mod common;

use common::{Pipe, Serve, dilated, kept_address, signal};

#[tokio::test]
async fn a_restart_with_a_database_is_invisible() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("mailboxes.sqlite");
    let database = database.to_str().unwrap();
    let (_kept, address) = kept_address();
    let serve = Serve::with(&["--no-relay", "--mailbox-listen", &address, "--database", database]).await;
    let mut a = serve.pipe(&[]);
    let code = a.code().await;
    assert!(serve.stop().await.success());
    a.lines.wait_for("the mailbox server is gone").await;

    let serve = Serve::with(&["--no-relay", "--mailbox-listen", &address, "--database", database]).await;
    let mut b = serve.pipe(&[&code]);
    a.feed("through a new server");
    b.feed("");
    assert_eq!(b.read().await, b"through a new server");
    tokio::join!(a.succeed(), b.succeed());
    a.lines.wait_for("the mailbox server is back").await;
}

#[tokio::test]
async fn the_motd_is_shown_and_cannot_drive_a_terminal() {
    let serve =
        Serve::with(&["--no-relay", "--mailbox-listen", "127.0.0.1:0", "--motd", "tea at\x1b[2J five"]).await;
    let a = serve.pipe(&[]);
    let line = a.lines.wait_for("the mailbox server says: tea at").await;
    assert!(!line.contains('\x1b') && line.ends_with("five"), "{line:?}");
}

#[tokio::test]
async fn it_stops_for_both_signals() {
    assert!(Serve::start().await.stop().await.success());
    let mut serve = Serve::start().await;
    signal(&serve.child, "TERM").await;
    assert!(common::soon("the end", serve.child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn what_cannot_start_is_a_sentence() {
    let serve = Serve::start().await;
    let taken = serve.relay.strip_prefix("tcp:").unwrap();
    let mut command = dilated();
    command.args(["serve", "--no-mailbox", "--relay-listen", taken]);
    Pipe::spawn(command).fail(5, "choose another with --relay-listen").await;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("not a database");
    std::fs::write(&file, "something else entirely, and long enough to be looked at").unwrap();
    let mut command = dilated();
    command.args(["serve", "--no-relay", "--mailbox-listen", "127.0.0.1:0", "--database"]).arg(&file);
    Pipe::spawn(command).fail(5, "not a database").await;
}
