//! `dilated pipe`, two processes at a time.

#![cfg(unix)]

mod common;

use std::{process::Stdio, time::Duration};

use common::{Pipe, Serve, dilated, hash, kept_address, nobody, noise, signal, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn twenty_megabytes_in_both_directions_at_once() {
    let serve = Serve::start().await;
    let (mut a, mut b) = serve.pair().await;
    let (from_a, from_b) = (noise(20_000_003, 1), noise(20_000_000, 2));
    a.feed(from_a.clone());
    b.feed(from_b.clone());
    let (to_a, to_b) = tokio::join!(a.read(), b.read());
    assert_eq!(hash(&to_a), hash(&from_b));
    assert_eq!(hash(&to_b), hash(&from_a));
    tokio::join!(a.succeed(), b.succeed());
    for line in ["the other side is here", "connected ", "done: sent 20.0 MB, received 20.0 MB"] {
        assert!(a.lines.all().contains(line), "{line:?} is missing in:\n{}", a.lines.all());
    }
}

#[tokio::test]
async fn the_end_of_input_is_passed_on_and_the_answer_still_comes() {
    let serve = Serve::start().await;
    let (mut a, mut b) = serve.pair().await;
    a.feed("a question\n");
    // b's output ends while its input is open: that is the half-close.
    assert_eq!(b.read().await, b"a question\n");
    b.feed("an answer\n");
    assert_eq!(a.read().await, b"an answer\n");
    tokio::join!(a.succeed(), b.succeed());
}

#[tokio::test]
async fn nothing_is_also_delivered() {
    let serve = Serve::start().await;
    let (mut a, mut b) = serve.pair().await;
    a.feed("");
    b.feed("");
    assert!(a.read().await.is_empty());
    assert!(b.read().await.is_empty());
    tokio::join!(a.succeed(), b.succeed());
    assert!(a.lines.all().contains("done: sent 0 bytes, received 0 bytes"), "{}", a.lines.all());
}

#[tokio::test]
async fn small_pieces_arrive_without_waiting_for_more() {
    let serve = Serve::start().await;
    let (mut a, mut b) = serve.pair().await;
    let (mut to_a, mut from_b) = (a.stdin.take().unwrap(), b.stdout.take().unwrap());
    for word in ["one", "two", "\0\r\n\u{ff}"] {
        to_a.write_all(word.as_bytes()).await.unwrap();
        let mut got = vec![0; word.len()];
        soon("the word", from_b.read_exact(&mut got)).await.unwrap();
        assert_eq!(got, word.as_bytes());
    }
    drop((to_a, b.stdin.take()));
    tokio::join!(a.succeed(), b.succeed());
}

#[tokio::test]
async fn a_wrong_code_is_told_to_both() {
    let serve = Serve::start().await;
    let mut a = serve.pipe(&[]);
    let code = a.code().await;
    let mut b = serve.pipe(&[&format!("{code}-or-so")]);
    tokio::join!(a.fail(3, "the codes do not match"), b.fail(3, "the codes do not match"));
    assert!(a.read().await.is_empty());
}

#[tokio::test]
async fn what_is_no_code_is_refused_at_once() {
    let serve = Serve::start().await;
    serve.pipe(&["purple-sausages"]).fail(2, "A code looks like").await;
    serve.pipe(&["7-two words"]).fail(2, "contains spaces").await;
}

#[tokio::test]
async fn a_dead_server_is_a_sentence() {
    let (_nobody, dead) = nobody();
    let mut command = dilated();
    command.args(["--mailbox", &format!("ws://{dead}/v1"), "pipe"]);
    Pipe::spawn(command).fail(5, "could not connect to the mailbox server ws://127.0.0.1").await;
    let mut command = dilated();
    command.args(["--mailbox", "http://127.0.0.1/", "pipe"]);
    Pipe::spawn(command).fail(2, "not a mailbox server's address").await;
}

#[tokio::test]
async fn a_reader_that_leaves_ends_both_sides_soon() {
    let serve = Serve::start().await;
    let (mut a, mut b) = serve.pair().await;
    a.feed(noise(200_000_000, 3));
    let mut output = b.stdout.take().unwrap();
    let mut some = [0; 1000];
    soon("some data", output.read_exact(&mut some)).await.unwrap();
    drop(output);
    assert_eq!(b.status().await, 141, "{}", b.lines.all());
    let last = b.lines.all().lines().last().unwrap().to_owned();
    assert!(last.contains("connected"), "nothing is said about it: {last}");
    a.fail(4, "the other side's output was closed before the end").await;
}

#[tokio::test]
async fn an_interrupted_side_does_not_look_like_the_end_of_data() {
    let serve = Serve::start().await;
    let (mut a, mut b) = serve.pair().await;
    let mut to_a = a.stdin.take().unwrap();
    to_a.write_all(b"the first half").await.unwrap();
    let mut half = [0; 14];
    soon("the half", b.stdout.as_mut().unwrap().read_exact(&mut half)).await.unwrap();
    signal(&a.child, "INT").await;
    tokio::join!(a.fail(130, "interrupted"), b.fail(4, "the other side was interrupted before the end"));
}

#[tokio::test]
async fn an_interrupt_while_nobody_is_there_ends_at_once() {
    let serve = Serve::start().await;
    let mut a = serve.pipe(&[]);
    a.code().await;
    signal(&a.child, "INT").await;
    a.fail(130, "interrupted").await;
    let mut b = serve.pipe(&["99-nobody-there"]);
    b.lines.wait_for("waiting").await;
    signal(&b.child, "TERM").await;
    b.fail(143, "terminated").await;
}

#[tokio::test]
async fn a_second_interrupt_does_not_wait_for_anything() {
    let serve = Serve::start().await;
    let mut a = serve.pipe(&["-vv"]);
    let b = serve.pipe(&[&a.code().await]);
    a.lines.wait_for("connected").await;
    // The other side and the servers are stopped, so nothing is ever acknowledged, and an orderly end takes seconds.
    signal(&b.child, "STOP").await;
    signal(&serve.child, "STOP").await;
    let mut to_a = a.stdin.take().unwrap();
    to_a.write_all(&noise(100_000, 4)).await.unwrap();
    // Two signals that come at once are one, so they are repeated.
    let interrupted = async {
        loop {
            signal(&a.child, "INT").await;
            if let Ok(status) = tokio::time::timeout(Duration::from_millis(100), a.child.wait()).await {
                return status.unwrap();
            }
        }
    };
    assert_eq!(soon("the end", interrupted).await.code(), Some(130));
    a.status().await;
    assert!(!a.lines.all().contains(" the end "), "it ended in order:\n{}", a.lines.all());
    for mut stopped in [b.child, serve.child] {
        signal(&stopped, "CONT").await;
        stopped.kill().await.unwrap();
    }
}

#[tokio::test]
async fn two_sides_that_agreed_on_a_code_meet() {
    let serve = Serve::start().await;
    let (mut a, mut b) = (serve.pipe(&["4711-same-code"]), serve.pipe(&["4711-same-code"]));
    a.feed("from a");
    b.feed("from b");
    assert_eq!(b.read().await, b"from a");
    assert_eq!(a.read().await, b"from b");
    tokio::join!(a.succeed(), b.succeed());
}

#[tokio::test]
async fn either_side_may_open() {
    let serve = Serve::start().await;
    let mut a = serve.pipe(&["--open", "--subprotocol", "mine"]);
    let command = a.lines.wait_for("    dilated ").await;
    assert!(command.contains("pipe --subprotocol mine --listen "), "{command}");
    let mut b = serve.pipe(&["--listen", "--subprotocol", "mine", &a.code().await]);
    a.feed("x");
    b.feed("y");
    assert_eq!(b.read().await, b"x");
    assert_eq!(a.read().await, b"y");
    tokio::join!(a.succeed(), b.succeed());
}

#[tokio::test]
async fn sides_that_cannot_fit_are_told() {
    let serve = Serve::start().await;
    let mut a = serve.pipe(&["--open"]);
    let mut b = serve.pipe(&["--open", &a.code().await]);
    tokio::join!(
        a.fail(2, "both sides were started with --open"),
        b.fail(2, "start one of them with --listen")
    );
    let mut a = serve.pipe(&["--subprotocol", "one"]);
    let mut b = serve.pipe(&["--subprotocol", "two", &a.code().await]);
    tokio::join!(a.fail(2, "the other side uses --subprotocol two"), b.fail(2, "use the same on both"));
}

#[tokio::test]
async fn the_code_may_come_from_the_environment() {
    let serve = Serve::start().await;
    let mut a = serve.pipe(&[]);
    let mut command = serve.dilated();
    command.arg("pipe").env("DILATED_CODE", a.code().await);
    let mut b = Pipe::spawn(command);
    a.feed("secret");
    b.feed("");
    assert_eq!(b.read().await, b"secret");
    tokio::join!(a.succeed(), b.succeed());
}

#[tokio::test]
async fn a_relay_that_dies_and_comes_back_loses_nothing() {
    let mailbox = Serve::with(&["--no-relay", "--mailbox-listen", "127.0.0.1:0"]).await;
    let (_kept, address) = kept_address();
    let mut relay = Serve::with(&["--no-mailbox", "--relay-listen", &address]).await;
    let pipe = |arguments: &[&str]| {
        let mut command = mailbox.dilated();
        command.env("DILATED_RELAY", &relay.relay).args(["--no-listen", "pipe"]).args(arguments);
        Pipe::spawn(command)
    };
    let mut a = pipe(&[]);
    let mut b = pipe(&[&a.code().await]);
    assert!(a.lines.wait_for("connected ").await.contains("->relay:tcp:127.0.0.1:"));

    let data = noise(8_000_000, 5);
    let (head, tail) = data.split_at(3_000_000);
    let mut to_a = a.stdin.take().unwrap();
    let mut from_b = b.stdout.take().unwrap();
    let mut got = vec![0; head.len()];
    let (written, read) = tokio::join!(to_a.write_all(head), soon("the head", from_b.read_exact(&mut got)));
    written.and(read.map(|_| ())).unwrap();
    relay.child.kill().await.unwrap();
    a.lines.wait_for("lost: ").await;
    let tail = tail.to_vec();
    let rest = tokio::spawn(async move { to_a.write_all(&tail).await });
    let relay = Serve::with(&["--no-mailbox", "--relay-listen", &address]).await;
    b.feed("");
    soon("the rest", from_b.read_to_end(&mut got)).await.unwrap();
    soon("the writing", rest).await.unwrap().unwrap();
    assert_eq!(hash(&got), hash(&data));
    tokio::join!(a.succeed(), b.succeed());
    assert!(a.lines.all().contains("back after "), "{}", a.lines.all());
    drop(relay);
}

#[tokio::test]
async fn nobody_can_be_asked_without_a_terminal() {
    let serve = Serve::start().await;
    let mut command = tokio::process::Command::new("setsid");
    command.args(["--wait", env!("CARGO_BIN_EXE_dilated"), "--mailbox", &serve.mailbox, "--verify", "pipe"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Pipe::spawn(command).fail(2, "there is no terminal").await;
}

#[tokio::test]
async fn usage_errors_have_their_own_status() {
    for arguments in
        [&["pipe", "--relay", "nonsense"][..], &["pipe", "--open", "--listen"], &["nonsense"], &[]]
    {
        let output = dilated().args(arguments).output().await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    let help = dilated().args(["pipe", "--help"]).output().await.unwrap();
    assert!(String::from_utf8(help.stdout).unwrap().contains("Exit status:"));
}
