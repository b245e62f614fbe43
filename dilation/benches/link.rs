//! How fast is one subchannel? On loopback, through the whole stack, against raw TCP and against two Python peers, in
//! one run, so that the machine cancels out of the ratios.
//!
//! ```text
//! cargo bench -p dilated --features server --bench link              256 MiB, three rounds, the median
//! cargo bench -p dilated --features server --bench link -- --quick   8 MiB, one round
//! ```
//!
//! `DILATED_BENCH_SMOKE` is `--quick`, `DILATED_BENCH_MIB` sets the size. The Python row needs `DILATED_PYTHON`, the
//! interpreter of a virtual environment with `tests/python/requirements.txt`, and `DILATED_INTEROP_NETNS=1`, which
//! says that this is a network namespace without a way out: Python peers advertise every address of the machine.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::{
    env,
    error::Error,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use dilated::{
    Client, DilateConfig, RolePreference, Server, Wormhole,
    server::{MailboxServer, ServerConfig},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Bytes in one write, on every path.
const CHUNK: usize = 64 * 1024;

struct Plan {
    bytes: u64,
    rounds: usize,
}

impl Plan {
    /// Quick unless `cargo bench` runs us, which passes `--bench`: `cargo test --all-targets` only wants a smoke.
    fn from_arguments() -> Outcome<Plan> {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
        let smoke = env::var_os("DILATED_BENCH_SMOKE").is_some();
        let quick = smoke || has("--quick") || !has("--bench");
        let (mut mib, rounds) = if quick { (8, 1) } else { (256, 3) };
        if let Ok(wanted) = env::var("DILATED_BENCH_MIB") {
            mib = wanted.parse()?;
        }
        Ok(Plan { bytes: mib << 20, rounds })
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn main() -> Outcome<()> {
    let plan = Plan::from_arguments()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (tcp, ours, python) = runtime.block_on(measure(&plan))?;

    println!("one stream on loopback, {} MiB, median of {}", plan.bytes >> 20, plan.rounds);
    println!("{:<24}{:>10}{:>14}{:>18}", "", "MB/s", "of raw TCP", "of Python–Python");
    for (what, rate) in
        [("raw TCP", Some(tcp)), ("dilated subchannel", Some(ours)), ("Python–Python", python)]
    {
        let Some(rate) = rate else { continue };
        let of_python = python.map_or_else(String::new, |python| format!("{:.1} x", rate / python));
        println!("{what:<24}{rate:>10.0}{:>12.2} x{of_python:>18}", rate / tcp);
    }
    Ok(())
}

/// The rates of raw TCP, of a subchannel, and of Python if it is there, in MB/s (10^6 bytes).
async fn measure(plan: &Plan) -> Outcome<(f64, f64, Option<f64>)> {
    let server =
        MailboxServer::bind("127.0.0.1:0".parse().expect("an address"), ServerConfig::default()).await?;
    let mailbox = server.url();
    tokio::spawn(server.run());

    // The rounds take turns, so that a disturbance hits both.
    let mut pair = Pair::new(&mailbox).await?;
    let (mut tcp, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        tcp.push(raw_tcp(plan.bytes).await?);
        ours.push(pair.transfer(plan.bytes).await?);
    }
    pair.close().await?;
    let python = match python_interpreter() {
        Ok(python) => {
            let (mailbox, bytes) = (mailbox.clone(), plan.bytes);
            Some(tokio::task::spawn_blocking(move || python_to_python(&python, &mailbox, bytes)).await??)
        }
        Err(why) => {
            println!("no Python–Python row: {why}");
            None
        }
    };
    Ok((median(tcp), median(ours), python))
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Bytes over seconds, in MB/s.
fn rate(bytes: u64, start: Instant) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let bytes = bytes as f64;
    bytes / 1e6 / now().saturating_duration_since(start).as_secs_f64()
}

async fn write(mut writer: impl AsyncWrite + Unpin, bytes: u64) -> std::io::Result<()> {
    let chunk = vec![0x5a; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        writer.write_all(&chunk[..length]).await?;
        left -= length as u64;
    }
    writer.shutdown().await
}

/// Reads to the end; the time ends with it.
async fn read(mut reader: impl AsyncRead + Unpin, bytes: u64, start: Instant) -> Outcome<f64> {
    let mut buffer = vec![0; 4 * CHUNK];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer).await? {
            0 => break,
            length => total += length as u64,
        }
    }
    if total != bytes {
        return Err(format!("{total} bytes came of {bytes}").into());
    }
    Ok(rate(bytes, start))
}

async fn raw_tcp(bytes: u64) -> Outcome<f64> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let sender = TcpStream::connect(listener.local_addr()?).await?;
    let (receiver, _) = listener.accept().await?;
    let start = now();
    let writing = tokio::spawn(write(sender, bytes));
    let rate = tokio::spawn(read(receiver, bytes, start)).await??;
    writing.await??;
    Ok(rate)
}

/// Two dilated wormholes with a direct link.
struct Pair {
    wormholes: [Wormhole; 2],
    client: Client,
    server: Option<Server>,
}

impl Pair {
    async fn new(mailbox: &str) -> Outcome<Pair> {
        let [a, b] = [(); 2].map(|()| Wormhole::builder("dilated.bench/link").mailbox(mailbox).build());
        let (a, b) = (a?, b?);
        b.set_code(&a.allocate_code(2).await?.to_string())?;
        let config = |role| {
            let mut config = DilateConfig::direct_only();
            config.loopback = true;
            config.role = role;
            config
        };
        let mut leader = a.dilate(config(RolePreference::Leader))?;
        let mut follower = b.dilate(config(RolePreference::Follower))?;
        let (_, client, _) = leader.endpoints().ok_or("taken")?;
        let (_, _, server) = follower.endpoints().ok_or("taken")?;
        println!("the link of the pair: {}", leader.connected().await?);
        Ok(Pair { wormholes: [a, b], client, server: Some(server) })
    }

    async fn transfer(&mut self, bytes: u64) -> Outcome<f64> {
        let mut server = self.server.take().ok_or("an earlier round failed")?;
        let start = now();
        let receiving = tokio::spawn(async move {
            let subchannel = server.accept().await?;
            let rate = read(subchannel, bytes, start).await?;
            Outcome::Ok((server, rate))
        });
        let sending = tokio::spawn(write(self.client.connect().await?, bytes));
        let (server, rate) = receiving.await??;
        sending.await??;
        self.server = Some(server);
        Ok(rate)
    }

    async fn close(self) -> Outcome<()> {
        let [a, b] = &self.wormholes;
        tokio::try_join!(a.close(), b.close())?;
        Ok(())
    }
}

fn python_interpreter() -> Result<PathBuf, &'static str> {
    let python = env::var_os("DILATED_PYTHON").ok_or("DILATED_PYTHON does not name an interpreter")?;
    if env::var("DILATED_INTEROP_NETNS").as_deref() != Ok("1") {
        return Err(
            "DILATED_INTEROP_NETNS is not 1, and a Python peer would advertise this machine's addresses",
        );
    }
    Ok(python.into())
}

/// One process of `tests/python/peer.py`: JSON commands in, JSON events out.
struct PythonPeer {
    child: Child,
    commands: ChildStdin,
    events: BufReader<ChildStdout>,
}

impl PythonPeer {
    fn start(python: &PathBuf, mailbox: &str) -> Outcome<PythonPeer> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/python/peer.py");
        let mut child = Command::new(python)
            .args(["-B", script, "--mailbox", mailbox])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let commands = child.stdin.take().ok_or("no standard input")?;
        let events = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        Ok(PythonPeer { child, commands, events })
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

impl Drop for PythonPeer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One subchannel from one Python process to another, both of the released package. The sender produces and the
/// receiver hashes its bytes, which together cost Python far less than the dilation does.
fn python_to_python(python: &PathBuf, mailbox: &str, bytes: u64) -> Outcome<f64> {
    let mut receiver = PythonPeer::start(python, mailbox)?;
    let mut sender = PythonPeer::start(python, mailbox)?;
    receiver.say(json!({"cmd": "allocate-code"}))?;
    let code = receiver.wait_for("code")?["code"].clone();
    sender.say(json!({"cmd": "set-code", "code": code}))?;
    receiver.say(json!({"cmd": "dilate", "listen": [{"name": "bench", "mode": "sink"}]}))?;
    sender.say(json!({"cmd": "dilate"}))?;
    receiver.wait_for("dilated")?;
    sender.wait_for("dilated")?;

    let start = now();
    sender.say(
        json!({"cmd": "open", "id": "1", "name": "bench", "mode": "source", "size": bytes, "chunk": CHUNK}),
    )?;
    let received = receiver.wait_for("closed")?["bytes"].as_u64();
    if received != Some(bytes) {
        return Err(format!("{received:?} bytes came of {bytes}").into());
    }
    Ok(rate(bytes, start))
}
