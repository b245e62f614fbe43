//! Two Python peers of the released package, to compare with.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use bytes::Bytes;
use dilated::{DilateConfig, Wormhole};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::{affinity::Core, measure::Stopwatch, program::Outcome, traffic::CHUNK};

/// As in `tests/python/peer.py`.
const APPID: &str = "dilated.test/interop";

/// Their rate does not depend on more bytes than these.
pub(crate) const MOST: u64 = 256 << 20;

/// The interpreter, or why there is none.
pub(crate) fn interpreter() -> Result<PathBuf, &'static str> {
    let python = env::var_os("DILATED_PYTHON").ok_or("DILATED_PYTHON does not name an interpreter")?;
    if env::var("DILATED_INTEROP_NETNS").as_deref() != Ok("1") {
        return Err(
            "DILATED_INTEROP_NETNS is not 1, and a Python peer would advertise this machine's addresses",
        );
    }
    Ok(python.into())
}

/// One process of `tests/python/peer.py`: JSON commands in, JSON events out.
struct Peer {
    child: Child,
    commands: ChildStdin,
    events: BufReader<ChildStdout>,
}

impl Peer {
    fn start(python: &Path, mailbox: &str, core: Core) -> Outcome<Peer> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python/peer.py");
        let mut child = Command::new(python)
            .args(["-B", script, "--mailbox", mailbox])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        core.keep_process(child.id());
        let commands = child.stdin.take().ok_or("no standard input")?;
        let events = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        Ok(Peer { child, commands, events })
    }

    #[expect(clippy::needless_pass_by_value, reason = "reads better at the call")]
    fn say(&mut self, command: Value) -> Outcome<()> {
        Ok(writeln!(self.commands, "{command}")?)
    }

    fn wait_for(&mut self, name: &str) -> Outcome<Value> {
        loop {
            let mut line = String::new();
            if self.events.read_line(&mut line)? == 0 {
                return Err(format!("a Python peer ended before its event {name:?}").into());
            }
            let event: Value = serde_json::from_str(&line)?;
            match event["event"].as_str() {
                Some("error" | "wormhole-failed") => {
                    return Err(format!("a Python peer failed: {event}").into());
                }
                Some(seen) if seen == name => return Ok(event),
                _ => {}
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The rate of one subchannel from one Python process to another, in MB/s. The sender produces and the receiver hashes
/// its bytes, which together cost Python far less than the dilation does.
pub(crate) fn transfer(python: &Path, mailbox: &str, bytes: u64) -> Outcome<f64> {
    let mut receiver = Peer::start(python, mailbox, Core::Second)?;
    let mut sender = Peer::start(python, mailbox, Core::First)?;
    receiver.say(json!({"cmd": "allocate-code"}))?;
    let code = receiver.wait_for("code")?["code"].clone();
    sender.say(json!({"cmd": "set-code", "code": code}))?;
    receiver.say(json!({"cmd": "dilate", "listen": [{"name": "bench", "mode": "sink"}]}))?;
    sender.say(json!({"cmd": "dilate"}))?;
    receiver.wait_for("dilated")?;
    sender.wait_for("dilated")?;

    let watch = Stopwatch::start()?;
    sender.say(
        json!({"cmd": "open", "id": "1", "name": "bench", "mode": "source", "size": bytes, "chunk": CHUNK}),
    )?;
    let received = receiver.wait_for("closed")?["bytes"].as_u64();
    if received != Some(bytes) {
        return Err(format!("{received:?} bytes came of {bytes}").into());
    }
    Ok(watch.stop()?.rate(bytes))
}

/// The rates of one subchannel from ours to a Python process, and from it to ours, in MB/s, in `ged`. Ours has one thread,
/// as a Python process has: the wormhole and what it carries take turns on it.
pub(crate) fn with_ours(python: &Path, mailbox: &str, bytes: u64) -> Outcome<[f64; 2]> {
    let ours = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .on_thread_start(|| Core::First.keep_this_thread())
        .enable_all()
        .build()?;
    let mut theirs = Peer::start(python, mailbox, Core::Second)?;
    theirs.say(json!({"cmd": "allocate-code"}))?;
    let code = theirs.wait_for("code")?["code"].as_str().ok_or("no code")?.to_owned();
    let (_wormhole, dilated) = ours.block_on(async {
        let wormhole = Wormhole::builder(APPID).mailbox(mailbox).build()?;
        wormhole.set_code(&code)?;
        let mut config = DilateConfig::direct_only();
        config.loopback = true;
        let dilated = wormhole.dilate(config)?;
        Outcome::Ok((wormhole, dilated))
    })?;
    let mut listener = dilated.listener_for("bench")?;
    theirs.say(json!({"cmd": "dilate", "listen": [{"name": "bench", "mode": "sink"}]}))?;
    theirs.wait_for("dilated")?;

    let connector = dilated.connector_for("bench")?;
    let watch = Stopwatch::start()?;
    let writing = ours.spawn(async move {
        let mut out = connector.connect().await?;
        let piece = Bytes::from(vec![7; CHUNK]);
        for _ in 0..bytes / CHUNK as u64 {
            out.write_bytes(piece.clone()).await?;
        }
        Outcome::Ok(out.shutdown().await?)
    });
    ours.block_on(writing)??;
    let received = theirs.wait_for("closed")?["bytes"].as_u64();
    if received != Some(bytes) {
        return Err(format!("{received:?} bytes came of {bytes}").into());
    }
    let there = watch.stop()?.rate(bytes);

    let watch = Stopwatch::start()?;
    theirs.say(
        json!({"cmd": "open", "id": "1", "name": "bench", "mode": "source", "size": bytes, "chunk": CHUNK}),
    )?;
    let reading = ours.spawn(async move {
        let mut incoming = listener.accept().await?;
        let mut received = 0;
        while let Some(piece) = incoming.read_chunk().await? {
            received += piece.len() as u64;
        }
        Outcome::Ok(received)
    });
    let received = ours.block_on(reading)??;
    if received != bytes {
        return Err(format!("{received} bytes came of {bytes}").into());
    }
    Ok([there, watch.stop()?.rate(bytes)])
}
