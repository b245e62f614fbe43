//! The Python program of `docs/python.md`, run as it stands there, with one of ours at the other end. Needs the Python
//! packages and a network namespace; `.ci/run interop` sets both up.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a failed test may panic and say why")]

use std::{path::Path, process::Stdio, time::Duration};

use dilated::{
    DilateConfig, Wormhole,
    server::{MailboxServer, ServerConfig},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::Command,
    time::timeout,
};

/// A guard against hanging, not a measurement.
const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/python.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, code) = text.split_once("```python\n").expect("docs/python.md has a program");
    code.split_once("```").expect("the program ends").0.to_owned()
}

#[tokio::test]
async fn the_python_program_of_the_documentation_answers() {
    let private = std::env::var_os("DILATED_INTEROP_NETNS").is_some_and(|value| value == "1");
    let Some(python) = std::env::var_os("DILATED_PYTHON").filter(|_| private) else {
        eprintln!("skipped: needs the Python packages and a private network namespace");
        return;
    };
    let server = MailboxServer::bind("127.0.0.1:0".parse().expect("an address"), ServerConfig::default())
        .await
        .unwrap();
    let url = server.url();
    tokio::spawn(server.run());

    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("shout.py");
    std::fs::write(&script, program()).unwrap();
    let mut child = Command::new(python)
        .arg(script)
        // No relay runs there; the two meet directly.
        .args([&url, "tcp:127.0.0.1:1"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut code = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    timeout(PATIENCE, output.read_line(&mut code)).await.expect("a code in time").unwrap();

    let wormhole = Wormhole::builder("example.com/shout").mailbox(url).build().unwrap();
    wormhole.set_code(code.trim()).unwrap();
    let mut config = DilateConfig::direct_only();
    // The program ends at once. A Python Follower loses the ACKs that it owes for what comes together with the KCM, and
    // is gone before it can be asked for them again: the close waits in vain.
    config.linger = Duration::from_secs(1);
    let mut dilated = wormhole.dilate(config).unwrap();
    let (_control, client, _server) = dilated.endpoints().unwrap();
    let conversation = async {
        let mut subchannel = client.connect().await.unwrap();
        subchannel.write_all(b"good morning").await.unwrap();
        subchannel.shutdown().await.unwrap();
        let mut answer = String::new();
        subchannel.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert_eq!(timeout(PATIENCE, conversation).await.expect("an answer in time"), "GOOD MORNING");
    let status = timeout(PATIENCE, child.wait()).await.expect("an end in time").unwrap();
    assert!(status.success(), "the Python program ended with {status}");
    let closed = timeout(PATIENCE, wormhole.close()).await.expect("an end in time");
    assert_eq!(closed, Ok(()));
}
