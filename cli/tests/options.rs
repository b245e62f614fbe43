//! Where options come from, and what is made of them, as a process.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod common;

use std::{fs, path::Path, process::Stdio};

use common::{Pipe, Serve, dilated, noise, soon};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

/// A file in a folder of its own.
fn file(name: &str, data: impl AsRef<[u8]>) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, data).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

/// The standard output of a command that must succeed.
async fn output(mut command: Command) -> String {
    let output = soon("the output", command.stdin(Stdio::null()).output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A command with arguments and variables.
fn with(mut command: Command, arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    command.args(arguments).envs(variables.iter().copied());
    command
}

#[tokio::test]
async fn the_configuration_file_stands_behind_the_environment() {
    let serve = Serve::start().await;
    let nobody = "ws://127.0.0.1:9/v1";
    let text = format!("mailbox = \"{}\"\nrelay = \"none\"\ncode_length = 5\n", serve.mailbox);
    let (_folder, path) = file("config.toml", text);
    let words = |line: &str| line.rsplit(' ').next().unwrap().split('-').count() - 1;
    let pipe = |arguments: &[&str], variables: &[(&str, &str)]| {
        let variables = [&[("DILATED_CONFIG", path.as_str())], variables].concat();
        Pipe::spawn(with(dilated(), &[&["pipe"], arguments].concat(), &variables))
    };
    let configured = pipe(&[], &[]);
    let command = configured.lines.wait_for("    dilated ").await;
    assert!(words(&command) == 5 && command.contains(&serve.mailbox), "{command}");
    assert!(command.contains("--relay none"), "the other side has another file: {command}");
    let command = pipe(&[], &[("DILATED_CODE_LENGTH", "1")]).lines.wait_for("    dilated ").await;
    assert_eq!(words(&command), 1, "{command}");
    pipe(&[], &[("DILATED_MAILBOX", nobody)]).fail(5, nobody).await;
    pipe(&["--mailbox", nobody], &[("DILATED_MAILBOX", &serve.mailbox)]).fail(5, nobody).await;
}

#[tokio::test]
async fn a_wrong_configuration_is_told_before_anything_happens() {
    let (_folder, path) = file("config.toml", "no_listen = true\ncolour = \"green\"\n");
    let run = |command: &str| Pipe::spawn(with(dilated(), &[command], &[("DILATED_CONFIG", &path)]));
    for command in ["pipe", "receive", "doctor", "serve"] {
        run(command).fail(2, "config.toml, line 2: unknown field `colour`").await;
    }
    let absent = format!("{path}.absent");
    Pipe::spawn(with(dilated(), &["pipe"], &[("DILATED_CONFIG", &absent)])).fail(2, "cannot be read").await;
    // What makes completions is no user of it.
    output(with(dilated(), &["completions", "bash"], &[("DILATED_CONFIG", &path)])).await;
}

#[tokio::test]
async fn doctor_says_which_file_is_used() {
    let serve = Serve::start().await;
    let doctor = async |variables: &[(&str, &str)]| {
        let mut command = with(serve.dilated(), &["doctor"], &[]);
        command.env_remove("DILATED_CONFIG").envs(variables.iter().copied());
        let said = output(command).await;
        said.lines().find(|line| line.split_whitespace().nth(1) == Some("config")).unwrap().to_owned()
    };
    let (home, path) = file("dilated/config.toml", "");
    let named = doctor(&[("DILATED_CONFIG", &path)]).await;
    assert!(named.starts_with("ok") && named.contains(&path), "{named}");
    assert!(doctor(&[("DILATED_CONFIG", "")]).await.starts_with("skip"));
    if cfg!(target_os = "linux") {
        let home = home.path().to_str().unwrap();
        let found = doctor(&[("XDG_CONFIG_HOME", home)]).await;
        assert!(found.starts_with("ok") && found.contains(&path), "{found}");
        let empty = tempfile::tempdir().unwrap();
        let missing = doctor(&[("XDG_CONFIG_HOME", empty.path().to_str().unwrap())]).await;
        assert!(missing.starts_with("skip") && missing.contains("does not exist"), "{missing}");
    }
}

#[tokio::test]
async fn the_command_line_replaces_what_it_contradicts_in_the_environment() {
    let serve = Serve::start().await;
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        Pipe::spawn(with(serve.dilated(), arguments, variables))
    };
    let not_a_code = "A code looks like";
    run(&["receive", "nonsense"], &[("DILATED_CODE", "7-a-b"), ("DILATED_CODE_FD", "99")])
        .fail(2, not_a_code)
        .await;
    run(&["receive", "--code", "nonsense"], &[("DILATED_ALLOCATE", "1")]).fail(2, not_a_code).await;
    run(&["receive", "--code-fd", "99"], &[("DILATED_CODE", "7-a-b")])
        .fail(2, "--code-fd 99 cannot be read")
        .await;
    run(&["receive"], &[("DILATED_CODE", "nonsense")]).fail(2, not_a_code).await;
    run(&["receive"], &[("DILATED_CODE", "7-a"), ("DILATED_CODE_FD", "3")])
        .fail(2, "cannot both be used")
        .await;
    run(&["receive", "--allocate"], &[("DILATED_CODE", "7-a-b")]).lines.wait_for(" send --code ").await;
    let (_folder, path) = file("x", "x");
    run(&["send", &path], &[("DILATED_TEXT", "x"), ("DILATED_YES", "0")]).lines.wait_for(" receive ").await;
    run(&["send"], &[]).fail(2, "nothing to send").await;
}

#[tokio::test]
async fn a_code_comes_through_a_descriptor_or_a_pipe() {
    let serve = Serve::start().await;
    for shell in [
        "exec \"$0\" receive --code-fd 3 3<\"$CODE\"",
        "cat \"$CODE\" | \"$0\" receive --code-fd 0",
        "cat \"$CODE\" | \"$0\" receive",
        "cat \"$CODE\" | \"$0\" receive --code-fd 4 4<&0",
    ] {
        let mut sender = serve.run("send", &["--text", "quietly"]);
        let (_folder, path) = file("code", format!("{}\n", sender.code().await));
        let receive = serve.dilated();
        let mut command = Command::new("sh");
        command.args(["-c", shell, receive.as_std().get_program().to_str().unwrap()]);
        command
            .env_clear()
            .envs(receive.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("CODE", &path).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        let mut receiver = Pipe::spawn(command);
        let text = receiver.read().await;
        assert_eq!(String::from_utf8_lossy(&text).trim(), "quietly", "{shell}: {}", receiver.lines.all());
        tokio::join!(sender.succeed(), receiver.succeed());
    }
}

#[tokio::test]
async fn an_address_is_a_code() {
    let serve = Serve::start().await;
    let mut sender = serve.run("send", &["--text", "at the address"]);
    let code = sender.code().await;
    let server = serve.mailbox.strip_suffix("/v1").unwrap();
    let address = format!("wormhole-transfer:{code}?rendezvous={server}&role=follower");
    // Its server is used, not that of the option.
    let mut command = with(serve.dilated(), &["receive", &address], &[]);
    command.env("DILATED_MAILBOX", "ws://127.0.0.1:9/v1");
    let mut receiver = Pipe::spawn(command);
    assert_eq!(String::from_utf8_lossy(&receiver.read().await).trim(), "at the address");
    tokio::join!(sender.succeed(), receiver.succeed());
    serve.run("receive", &["wormhole-transfer:7-a?role=leader"]).fail(2, "asked to send").await;
    serve
        .run("send", &["--text", "x", "--code", "wormhole-transfer:7-a?version=9"])
        .fail(2, "version 9")
        .await;
}

/// The events of a command that was run with `--json`.
async fn events(pipe: &mut Pipe) -> Vec<Value> {
    let output = String::from_utf8(pipe.read().await).unwrap();
    output.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

#[tokio::test]
async fn programs_are_told_what_happens() {
    let serve = Serve::start().await;
    let (folder, path) = file("some file", noise(3_000_000, 5));
    for classic in ["0", "1"] {
        let run = |arguments: &[&str]| {
            let mut command =
                with(serve.dilated(), arguments, &[("DILATED_CLASSIC", classic), ("DILATED_JSON", "1")]);
            command.current_dir(folder.path());
            Pipe::spawn(command)
        };
        let mut sender = run(&["send", &path]);
        let received = format!("received-{classic}");
        let mut receiver = run(&["receive", "--yes", "--output", &received, &sender.code().await]);
        let (sent, got) = tokio::join!(events(&mut sender), events(&mut receiver));
        tokio::join!(sender.succeed(), receiver.succeed());

        let code = named(&sent, "code")[0];
        assert!(code["uri"].as_str().unwrap().starts_with("wormhole-transfer:"), "{code}");
        assert!(code["command"].as_str().unwrap().ends_with(code["code"].as_str().unwrap()), "{code}");
        for (events, from, total) in [(&sent, "us", "sent"), (&got, "them", "received")] {
            assert_eq!(named(events, "peer").len(), 1, "{events:?}");
            assert!(!named(events, "connected").is_empty(), "{events:?}");
            let offer = named(events, "offer")[0];
            assert_eq!((&offer["from"], &offer["bytes"]), (&from.into(), &3_000_000.into()), "{offer}");
            let file = named(events, "file")[0];
            let name = if from == "them" && classic == "0" { &received } else { "some file" };
            assert_eq!((&file["from"], &file["name"]), (&from.into(), &name.into()), "{file}");
            assert_eq!(file["hash"].as_object().unwrap().len(), 1, "{file}");
            let done = events.last().unwrap();
            assert_eq!(
                (&done["event"], &done[total]["bytes"]),
                (&"done".into(), &3_000_000.into()),
                "{done}"
            );
            let progress: Vec<u64> =
                named(events, "progress").iter().map(|event| event["done"].as_u64().unwrap()).collect();
            assert!(progress.is_sorted() && progress.last() == Some(&3_000_000), "{progress:?}");
        }
        assert_eq!(named(&sent, "file")[0]["hash"], named(&got, "file")[0]["hash"]);
        assert!(Path::new(named(&got, "file")[0]["path"].as_str().unwrap()).ends_with(&received), "{got:?}");
        assert_eq!(fs::read(folder.path().join(&received)).unwrap(), fs::read(&path).unwrap());
    }
}

#[tokio::test]
async fn programs_are_told_texts_and_failures() {
    let serve = Serve::start().await;
    let mut sender = serve.run("send", &["--json", "--text", "a\u{1b}[2J\u{202e}b"]);
    let mut receiver = serve.run("receive", &["--json", &sender.code().await]);
    let (sent, got) = tokio::join!(sender.read(), events(&mut receiver));
    tokio::join!(sender.succeed(), receiver.succeed());
    assert_eq!(named(&got, "message")[0]["text"], "a\u{1b}[2J\u{202e}b");
    assert_eq!(named(&got, "message")[0]["from"], "them");
    let sent = String::from_utf8(sent).unwrap();
    assert!(!sent.contains(['\u{1b}', '\u{202e}']), "{sent:?}");

    let mut refused = serve.run("receive", &["--json", "nonsense"]);
    let failed = events(&mut refused).await;
    refused.fail(2, "A code looks like").await;
    assert_eq!(failed.last().unwrap()["event"], "failed");
    assert_eq!(failed.last().unwrap()["status"], 2);
}

#[tokio::test]
async fn a_reader_of_the_events_that_leaves_is_noticed() {
    let serve = Serve::start().await;
    let mut sender = serve.run("send", &["--json", "--text", "x"]);
    drop(sender.stdout.take());
    let mut receiver = serve.run("receive", &[&sender.code().await]);
    receiver.succeed().await;
    assert_eq!(sender.status().await, 141, "{}", sender.lines.all());
}

#[tokio::test]
async fn completions_and_pages_are_printed() {
    let bash = output(with(dilated(), &["completions", "bash"], &[])).await;
    assert!(bash.contains("--ignore-unsendable-files"));
    let page = output(with(dilated(), &["man"], &[])).await;
    assert!(page.contains(".TH") && page.contains("Exit status"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("pages");
    let said = output(with(dilated(), &["man", pages.to_str().unwrap()], &[])).await;
    assert!(said.is_empty() && pages.join("dilated-send.1").exists(), "{said}");
    Pipe::spawn(with(dilated(), &["man", "/dev/null/x"], &[]))
        .fail(1, "could not write the manual pages")
        .await;
    Pipe::spawn(with(dilated(), &["completions", "cobol"], &[])).fail(2, "possible values").await;
}
