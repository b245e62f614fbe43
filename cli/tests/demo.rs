//! `dilated demo`.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod common;

use common::{dilated, hash, noise, soon};
use tokio::process::Command;

async fn run(mut command: Command) -> String {
    let output = soon("the end of the demonstration", command.output()).await.unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{errors}");
    // "lost: why" and "back after 3 ms", in two lines or, when that was too quick to see, in one.
    for part in ["the link is cut", "link] lost: ", "back after ", "Ana sent ", "The same: ", " MB/s"] {
        assert!(said.contains(part), "{part:?} is missing in:\n{said}\n{errors}");
    }
    said.into_owned()
}

fn demo(arguments: &[&str]) -> Command {
    let mut command = dilated();
    command.arg("demo").args(arguments);
    command
}

#[tokio::test]
async fn with_a_file_that_is_made_up() {
    let said = run(demo(&["--size", "6MiB"])).await;
    assert!(said.contains("one of 6.2 MB is made up"), "{said}");
}

#[tokio::test]
async fn sizes_without_a_middle() {
    run(demo(&["--size", "0"])).await;
    run(demo(&["--size", "1"])).await;
}

#[tokio::test]
async fn with_a_file_of_the_users_through_the_relay() {
    let folder = tempfile::tempdir().unwrap();
    let (file, keep) = (folder.path().join("holiday photo.jpg"), folder.path().join("kept"));
    let content = noise(5_000_000, 7);
    std::fs::write(&file, &content).unwrap();
    let arguments = ["--relayed", "--keep", keep.to_str().unwrap(), file.to_str().unwrap()];
    let said = run(demo(&arguments)).await;
    assert!(said.contains("holiday photo.jpg") && said.contains(&hash(&content)), "{said}");
    assert!(said.contains("->relay:tcp:127.0.0.1:"), "{said}");
    assert!(std::fs::read(keep.join("holiday photo.jpg")).unwrap() == content);

    let output = soon("the refusal", demo(&arguments).output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing is overwritten"));
    assert!(std::fs::read(keep.join("holiday photo.jpg")).unwrap() == content);
}

#[tokio::test]
async fn a_file_that_is_none_is_a_sentence() {
    let output = soon("the refusal", demo(&["/nowhere/at/all"]).output()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("could not read /nowhere/at/all"));
    let output = soon("the refusal", demo(&["/"]).output()).await.unwrap();
    assert_eq!(output.status.code(), Some(2));
}
