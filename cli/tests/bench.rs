//! `dilated bench`, two processes at a time, and alone.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod common;

use common::{Pipe, Serve, dilated, signal, soon};

/// The value of a line of the result.
fn value<'a>(result: &'a str, name: &str) -> &'a str {
    let line = result.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name:?} in:\n{result}")).trim()
}

async fn result(side: &mut Pipe) -> String {
    let result = String::from_utf8(side.read().await).unwrap();
    side.succeed().await;
    result
}

#[tokio::test]
async fn both_sides_learn_the_same() {
    let serve = Serve::start().await;
    let mut a = serve.run("bench", &["--seconds", "1"]);
    let command = a.lines.wait_for("    dilated ").await;
    assert!(command.contains(" bench "), "{command}");
    let mut b = serve.run("bench", &["--seconds", "1", &a.code().await]);
    let (a, b) = tokio::join!(result(&mut a), result(&mut b));
    assert_eq!(value(&a, "round trip"), value(&b, "round trip"));
    assert!(value(&a, "round trip").starts_with("median "), "{a}");
    assert_eq!(value(&a, "sent"), value(&b, "received"));
    assert_eq!(value(&a, "received"), value(&b, "sent"));
    for side in [&a, &b] {
        assert!(value(side, "path").contains("tcp:"), "{side}");
        assert!(!value(side, "dialect").is_empty(), "{side}");
        for flow in ["sent", "received"] {
            assert!(value(side, flow).contains(" MB/s ("), "{side}");
        }
        assert!(value(side, "processor").contains(" s/GB here, "), "{side}");
    }
}

#[tokio::test]
async fn alone_it_needs_no_server() {
    let output = soon("the end", dilated().args(["bench", "--loopback", "--seconds", "1"]).output()).await;
    let output = output.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(value(&said, "one way").contains(" MB/s ("), "{said}");
    assert!(value(&said, "back").contains(" MB/s ("), "{said}");
    assert!(value(&said, "processor").ends_with("both sides together"), "{said}");
}

#[tokio::test]
async fn another_command_at_the_far_end_is_told_to_both() {
    let serve = Serve::start().await;
    let mut a = serve.run("bench", &[]);
    let mut b = serve.pipe(&[&a.code().await]);
    tokio::join!(
        a.fail(6, "the other side runs `dilated pipe`, this side `dilated bench`"),
        b.fail(6, "the other side runs `dilated bench`, this side `dilated pipe`")
    );
    assert!(a.read().await.is_empty(), "there is no result");
}

#[tokio::test]
async fn another_program_at_the_far_end_is_a_sentence() {
    let serve = Serve::start().await;
    let mut a = serve.run("bench", &[]);
    let other = dilated::Wormhole::builder("dilated.dev/pipe").mailbox(&serve.mailbox).build().unwrap();
    other.set_code(&a.code().await).unwrap();
    a.fail(6, "the other side's program is not `dilated bench`; run that on both").await;
}

#[tokio::test]
async fn an_interrupted_side_is_told_to_the_other() {
    let serve = Serve::start().await;
    let mut a = serve.run("bench", &["--seconds", "60"]);
    let mut b = serve.run("bench", &["--seconds", "60", &a.code().await]);
    b.lines.wait_for("for 60 s").await;
    signal(&a.child, "INT").await;
    tokio::join!(
        a.fail(130, "interrupted"),
        // It learns that by the link, and why by the mailbox, which may be too slow.
        b.fail(4, "before the end; the measurement is incomplete")
    );
    assert!(b.read().await.is_empty(), "there is no result");
}

#[tokio::test]
async fn errors_have_the_statuses_of_every_command() {
    let serve = Serve::start().await;
    let mut a = serve.run("bench", &[]);
    let mut b = serve.run("bench", &[&format!("{}-or-so", a.code().await)]);
    tokio::join!(a.fail(3, "the codes do not match"), b.fail(3, "the codes do not match"));
    for arguments in [&["--loopback", "7-a-b"][..], &["--seconds", "0"], &["--seconds", "61"]] {
        let output = dilated().arg("bench").args(arguments).output().await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    let help = dilated().args(["bench", "--help"]).output().await.unwrap();
    assert!(String::from_utf8(help.stdout).unwrap().contains("before everything was measured"));
}
