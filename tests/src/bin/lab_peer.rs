//! What runs in a namespace of the network lab: one of our peers, a mailbox server, a relay, a probe, or a wire.
//!
//! The only argument says which, as JSON. Commands come in on standard input and events go out on standard output,
//! one JSON object a line; `dilated_tests::lab` is the other end. A peer understands some of what `tests/python/peer.py`
//! does, in the same words. It ends when its standard input does.

use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use dilated::{
    Dialect, DilateConfig, Dilated, DilationError, LinkStatus, Listener, RolePreference, Wormhole,
    server::{MailboxServer, Relay, RelayConfig, ServerConfig, StoreKind},
};
use dilated_mailbox::client::ConnectionStatus;
use dilated_tests::{
    data::{BLOCK, Data},
    lab,
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc};

/// How long a probe waits for an answer: inside one machine it comes at once or never, but for the delay of a wire.
const PROBE: Duration = Duration::from_secs(2);

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() {
    if let Err(error) = run().await {
        emit(&json!({"event": "error", "message": error.to_string()}));
        std::process::exit(1);
    }
}

async fn run() -> Result<(), Failure> {
    let options = std::env::args().nth(1).ok_or("say what to run, as JSON, in the first argument")?;
    let options: Value = serde_json::from_str(&options)?;
    let commands = commands();
    match text(&options, "mode")? {
        "mailbox" => mailbox(&options, commands).await,
        "relay" => relay(&options, commands).await,
        "probe" => probe(&options).await,
        #[cfg(target_os = "linux")]
        "wire" => lab::carry(&options, commands, emit).await,
        "peer" => Peer::new(&options)?.run(commands).await,
        mode => Err(format!("there is no mode {mode}").into()),
    }
}

async fn mailbox(options: &Value, commands: Commands) -> Result<(), Failure> {
    let store = StoreKind::Sqlite(text(options, "database")?.into());
    let config = ServerConfig { store, ..ServerConfig::default() };
    let server = MailboxServer::bind(text(options, "listen")?.parse()?, config).await?;
    emit(&json!({"event": "listening"}));
    until_end(commands, server.run()).await
}

async fn relay(options: &Value, commands: Commands) -> Result<(), Failure> {
    let server = Relay::bind(text(options, "listen")?.parse()?, RelayConfig::default()).await?;
    emit(&json!({"event": "listening"}));
    until_end(commands, server.run()).await
}

async fn until_end(
    mut commands: Commands,
    server: impl Future<Output = std::io::Result<()>>,
) -> Result<(), Failure> {
    tokio::select! {
        result = server => Ok(result?),
        _ = commands.recv() => Ok(()),
    }
}

/// Nobody listens at the other end, so a refusal is the answer of a host that was reached.
async fn probe(options: &Value) -> Result<(), Failure> {
    let to: SocketAddr = text(options, "to")?.parse()?;
    let start = now();
    let reach = || async move {
        match tokio::time::timeout(PROBE, tokio::net::TcpStream::connect(to)).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            Err(_) => false,
        }
    };
    let reached = futures::future::join_all((0..number(options, "count")?).map(|_| reach())).await;
    let reached = reached.into_iter().filter(|reached| *reached).count();
    emit(&json!({"event": "probed", "reached": reached, "ms": milliseconds(start)?}));
    Ok(())
}

/// A wormhole and its commands.
struct Peer {
    wormhole: Wormhole,
    config: DilateConfig,
    dilated: Option<Dilated>,
    release: Arc<Notify>,
    /// Whether streams may be cut off.
    closing: Arc<AtomicBool>,
    start: Instant,
}

impl Peer {
    fn new(options: &Value) -> Result<Self, Failure> {
        let mut config = DilateConfig::direct_only();
        if let Some(relay) = options["relay"].as_str() {
            config.relays = vec![relay.parse()?];
        }
        config.listen = options["listen"] == true;
        config.role =
            if options["leader"] == true { RolePreference::Leader } else { RolePreference::Follower };
        config.liveness.ping_interval = seconds(options, "ping_interval")?;
        if !options["patience"].is_null() {
            let patience = seconds(options, "patience")?;
            (config.liveness.silence, config.liveness.first_silence) = (patience, patience);
            (config.liveness.ping_timeout, config.liveness.suspicion) = (patience, patience);
        }
        config.timing.connect_timeout = seconds(options, "connect_timeout")?;
        config.linger = seconds(options, "linger")?;
        config.standby = options["standby"] == true;
        config.connector.better_first = seconds(options, "better_first")?;
        config.connector.better_max = seconds(options, "better_max")?;
        let dialects = options["dialects"].as_array().ok_or("dialects are missing")?;
        let dialects = dialects.iter().filter_map(Value::as_str).filter_map(Dialect::from_name);
        let mut wormhole = Wormhole::builder(text(options, "appid")?).dialects(&Vec::from_iter(dialects));
        for url in options["mailboxes"].as_array().ok_or("mailboxes are missing")? {
            wormhole = wormhole.mailbox(url.as_str().ok_or("a mailbox is no text")?);
        }
        let wormhole = wormhole.build()?;
        Ok(Self {
            wormhole,
            config,
            dilated: None,
            release: Arc::default(),
            closing: Arc::default(),
            start: now(),
        })
    }

    async fn run(mut self, mut commands: Commands) -> Result<(), Failure> {
        emit(&json!({"event": "ready"}));
        while let Some(command) = commands.recv().await {
            match text(&command, "cmd")? {
                "allocate-code" => {
                    let code = self.wormhole.allocate_code(2).await?;
                    emit(&json!({"event": "code", "code": code.to_string()}));
                }
                "set-code" => self.wormhole.set_code(text(&command, "code")?)?,
                "dilate" => self.dilate(&command["listen"])?,
                "open" => self.source(&command)?,
                "release" => self.release.notify_one(),
                "status" => {
                    let status = self.dilated()?.status();
                    emit(&json!({"event": "status", "generation": status.generation.get()}));
                }
                "abandon-link" => self.dilated()?.abandon_link(),
                "wormhole-close" => self.close(),
                other => return Err(format!("there is no command {other}").into()),
            }
        }
        Ok(())
    }

    /// Beside the commands: whoever waits for the end may still ask for the status.
    fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        let wormhole = self.wormhole.clone();
        task(async move {
            let close = wormhole.close();
            tokio::pin!(close);
            // The request is made by the first poll.
            let early = futures::poll!(&mut close);
            emit(&json!({"event": "wormhole-closing"}));
            let result = match early {
                Poll::Ready(result) => result,
                Poll::Pending => close.await,
            };
            let result = result.map_or_else(|error| error.to_string(), |()| "happy".to_owned());
            emit(&json!({"event": "wormhole-closed", "result": result}));
            Ok(())
        });
    }

    fn dilated(&self) -> Result<&Dilated, Failure> {
        self.dilated.as_ref().ok_or_else(|| "dilate first".into())
    }

    fn dilate(&mut self, sinks: &Value) -> Result<(), Failure> {
        let dilated = self.wormhole.dilate(self.config.clone())?;
        for sink in sinks.as_array().into_iter().flatten() {
            let listener = dilated.listener_for(text(sink, "name")?)?;
            let gap = sink["gap"].as_u64().map(Duration::from_millis);
            self.stream(receive(listener, number(sink, "seed")?, number(sink, "progress")?, gap));
        }
        tell_changes(&dilated, self.start);
        self.dilated = Some(dilated);
        Ok(())
    }

    /// Runs a stream. It fails like any [`task`], but may be cut off when one side has asked for the end.
    fn stream(&self, work: impl Future<Output = Result<(), Failure>> + Send + 'static) {
        let closing = Arc::clone(&self.closing);
        task(async move {
            match work.await {
                Err(error)
                    if closing.load(Ordering::Relaxed)
                        || error.to_string().ends_with(&DilationError::PeerClosed.to_string()) =>
                {
                    emit(&json!({"event": "cut-off", "message": error.to_string()}));
                    Ok(())
                }
                result => result,
            }
        });
    }

    fn source(&self, command: &Value) -> Result<(), Failure> {
        let connector = self.dilated()?.connector_for(text(command, "name")?)?;
        let (data, size) = (Data::new(number(command, "seed")?), number(command, "size")?);
        let (hold, release) = (number(command, "hold")?, Arc::clone(&self.release));
        let chunk = command["chunk"].as_u64().map_or(Ok(BLOCK), usize::try_from)?;
        let pause = Duration::from_secs(1) * u32::try_from(chunk)? / u32::try_from(number(command, "rate")?)?;
        self.stream(async move {
            let mut stream = connector.connect().await?;
            let (mut sent, mut held) = (0, false);
            for piece in data.chunks(size, chunk) {
                if sent >= hold && !std::mem::replace(&mut held, true) {
                    release.notified().await;
                }
                stream.write_all(&piece).await?;
                sent += piece.len() as u64;
                tokio::time::sleep(pause).await;
            }
            stream.shutdown().await?;
            emit(&json!({"event": "sent"}));
            Ok(())
        });
        Ok(())
    }
}

/// Compares the first stream that comes with that of `seed`, and tells of times longer than `gap` in which none comes.
async fn receive(
    mut listener: Listener,
    seed: u64,
    progress: u64,
    gap: Option<Duration>,
) -> Result<(), Failure> {
    let mut stream = listener.accept().await?;
    let mut check = Data::new(seed).check();
    let mut last = lab::clock();
    let (mut buffer, mut next) = (vec![0; 256 * 1024], progress);
    loop {
        let n = stream.read(&mut buffer).await?;
        check.push(&buffer[..n]);
        if n == 0 {
            emit(&json!({"event": "closed", "local": false, "bytes": check.received()}));
            return Ok(());
        }
        let now = lab::clock();
        if gap.is_some_and(|gap| now.saturating_sub(last) > gap) {
            emit(&json!({"event": "gap", "began": micros(last)?, "ended": micros(now)?}));
        }
        last = now;
        if check.received() >= next {
            emit(&json!({"event": "progress", "bytes": check.received(), "at": micros(now)?}));
            next = check.received() + progress;
        }
    }
}

fn tell_changes(dilated: &Dilated, start: Instant) {
    let mut changes = dilated.status_changes();
    task(async move {
        let (mut link, mut mailbox, mut standby) = (Value::Null, Value::Null, None);
        while let Some(status) = changes.next().await {
            let mut now = link_event(&status.link);
            now["generation"] = json!(status.generation.get());
            // A generation counts from its link on.
            if now != link && (now["state"] == "connected" || now["state"] != link["state"]) {
                link = now.clone();
                now["ms"] = json!(milliseconds(start)?);
                now["at"] = json!(micros(lab::clock())?);
                emit(&now);
            }
            if status.standby != standby {
                standby = status.standby;
                let path = standby.as_ref().map(ToString::to_string);
                emit(&json!({"event": "standby", "there": path.is_some(), "path": path}));
            }
            let connected = json!(status.mailbox.connection == ConnectionStatus::Connected);
            if connected != mailbox {
                mailbox = connected;
                emit(&json!({"event": "mailbox", "connected": mailbox, "at": micros(lab::clock())?}));
            }
        }
        Ok(())
    });
}

fn link_event(link: &LinkStatus) -> Value {
    match link {
        LinkStatus::Connected { path, recovered } => {
            let (path, recovered) = (path.to_string(), recovered.is_some());
            json!({"event": "link", "state": "connected", "path": path, "recovered": recovered})
        }
        LinkStatus::Reconnecting { reason } => {
            json!({"event": "link", "state": "reconnecting", "reason": reason})
        }
        other => json!({"event": "link", "state": other.to_string()}),
    }
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "times of events, for the reader of a report")]
    Instant::now()
}

fn milliseconds(since: Instant) -> Result<u64, Failure> {
    Ok(u64::try_from(since.elapsed().as_millis())?)
}

/// Runs something beside the commands; its failure, or its panic at a wrong byte, is an `error` event.
fn task(work: impl Future<Output = Result<(), Failure>> + Send + 'static) {
    tokio::spawn(async move {
        let message = match tokio::spawn(work).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        emit(&json!({"event": "error", "message": message}));
    });
}

type Commands = mpsc::UnboundedReceiver<Value>;

fn commands() -> Commands {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(command) =
                line.map_err(|_| ()).and_then(|line| serde_json::from_str(&line).map_err(|_| ()))
            else {
                return;
            };
            if sender.send(command).is_err() {
                return;
            }
        }
    });
    receiver
}

fn emit(event: &Value) {
    // Nobody reads any more when the test has ended.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{event}").and_then(|()| out.flush());
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str, Failure> {
    value[key].as_str().ok_or_else(|| format!("{key} is missing or no text").into())
}

fn number(value: &Value, key: &str) -> Result<u64, Failure> {
    value[key].as_u64().ok_or_else(|| format!("{key} is missing or no number").into())
}

fn seconds(value: &Value, key: &str) -> Result<Duration, Failure> {
    Ok(value[key].as_f64().map(Duration::try_from_secs_f64).ok_or_else(|| format!("{key} is missing"))??)
}

fn micros(clock: Duration) -> Result<u64, Failure> {
    Ok(u64::try_from(clock.as_micros())?)
}
