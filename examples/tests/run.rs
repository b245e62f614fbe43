//! Runs every example as two processes that meet at embedded servers, and holds the README to its program.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a failed test may panic and say why")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use dilated::server::{MailboxServer, Relay, RelayConfig, ServerConfig};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStderr, Command},
    time::timeout,
};

/// A guard against hanging, not a measurement.
const PATIENCE: Duration = Duration::from_secs(60);

/// Cargo builds the examples beside the tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("tests are in target/PROFILE/deps");
    let path = profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        path.exists(),
        "{} is missing; `cargo build -p dilated-examples --examples` makes it",
        path.display()
    );
    path
}

struct Servers {
    mailbox: String,
    relay: String,
}

impl Servers {
    async fn start() -> Servers {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mailbox = MailboxServer::bind(loopback, ServerConfig::default()).await.unwrap();
        let relay = Relay::bind(loopback, RelayConfig::default()).await.unwrap();
        let servers = Servers { mailbox: mailbox.url(), relay: relay.hint() };
        tokio::spawn(mailbox.run());
        tokio::spawn(relay.run());
        servers
    }

    fn spawn(&self, name: &str, arguments: &[&str]) -> Child {
        Command::new(example(name))
            .args(arguments)
            .env("DILATED_MAILBOX", &self.mailbox)
            .env("DILATED_RELAY", &self.relay)
            .env("DILATED_LOCAL", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Starts the first side and reads the code that it prints.
    async fn first(&self, name: &str, arguments: &[&str]) -> (Child, String) {
        let mut child = self.spawn(name, arguments);
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        timeout(PATIENCE, lines.read_line(&mut line)).await.expect("a code in time").unwrap();
        let Some(code) = line.trim().strip_prefix("the code is: ") else {
            panic!("{name} did not print a code: {line}{}", rest(lines).await);
        };
        let code = code.to_owned();
        tokio::spawn(async move { eprint!("{}", rest(lines).await) });
        (child, code)
    }
}

async fn rest(mut lines: BufReader<ChildStderr>) -> String {
    let mut rest = String::new();
    let _ = lines.read_to_string(&mut rest).await;
    rest
}

/// Types `input` and ends it.
async fn feed(child: &mut Child, input: &str) {
    let mut stdin = child.stdin.take().expect("fed once");
    stdin.write_all(input.as_bytes()).await.unwrap();
}

/// What it printed; it must have succeeded.
async fn output(name: &str, child: Child) -> String {
    let Output { status, stdout, stderr } =
        timeout(PATIENCE, child.wait_with_output()).await.expect("an end in time").unwrap();
    assert!(status.success(), "{name} failed: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn echo() {
    let servers = Servers::start().await;
    let (first, code) = servers.first("echo", &[]).await;
    let mut second = servers.spawn("echo", &[&code]);
    feed(&mut second, "one\ntwo\n").await;
    assert_eq!(output("the second side", second).await, "one\ntwo\n");
    assert_eq!(output("the first side", first).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_chat() {
    let servers = Servers::start().await;
    let (mut first, code) = servers.first("control_chat", &[]).await;
    let mut second = servers.spawn("control_chat", &[&code]);
    // Whoever ends the input leaves, and takes the other along: so nobody does before everything was said.
    let mut typing = (first.stdin.take().unwrap(), second.stdin.take().unwrap());
    typing.0.write_all(b"good morning\n").await.unwrap();
    typing.1.write_all(b"good evening\nhow are you?\n").await.unwrap();
    let mut shown =
        [&mut first, &mut second].map(|child| BufReader::new(child.stdout.take().unwrap()).lines());
    for (side, expected) in [(0, "them: good evening"), (0, "them: how are you?"), (1, "them: good morning")]
    {
        let line = timeout(PATIENCE, shown[side].next_line()).await.expect("a line in time").unwrap();
        assert_eq!(line.as_deref(), Some(expected));
    }
    drop(typing);
    let (first, second) = tokio::join!(output("the first side", first), output("the second side", second));
    assert_eq!((first, second), (String::new(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn subprotocols() {
    let servers = Servers::start().await;
    let (first, code) = servers.first("subprotocols", &[]).await;
    let second = servers.spawn("subprotocols", &[&code]);
    let (first, second) = tokio::join!(output("the first side", first), output("the second side", second));
    assert_eq!(second, "shout: GOOD MORNING\ncount: 12\n");
    let mut answered: Vec<&str> = first.lines().collect();
    answered.sort_unstable();
    assert_eq!(
        answered,
        ["answered one \"dilated.example/count\"", "answered one \"dilated.example/shout\""]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn send_file() {
    let servers = Servers::start().await;
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("some file");
    let content: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&source, &content).unwrap();
    let target = directory.path().join("received");
    std::fs::create_dir(&target).unwrap();

    let (first, code) = servers.first("send_file", &["send", source.to_str().unwrap()]).await;
    let second = servers.spawn("send_file", &["receive", &code, target.to_str().unwrap()]);
    let (first, second) = tokio::join!(output("the first side", first), output("the second side", second));
    let (sent, received) = (first.strip_prefix("sent ").unwrap(), second.strip_prefix("received ").unwrap());
    assert_eq!(sent, received, "the same name and hash on both sides");
    assert!(std::fs::read(target.join("some file")).unwrap() == content);
}

#[test]
fn the_readme_shows_the_program_that_is_compiled() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = std::fs::read_to_string(folder.join("readme.rs")).unwrap();
    let code = program.split_once("\nuse ").map(|(_, code)| format!("use {code}")).unwrap();
    let readme = std::fs::read_to_string(folder.join("../README.md")).unwrap();
    assert!(readme.contains(&format!("```rust\n{code}```\n")), "copy examples/readme.rs into README.md");
}
