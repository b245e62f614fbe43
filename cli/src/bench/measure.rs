//! The measurement itself: one side asks for tasks, the other does them.

use std::{fmt, time::Duration};

use bytes::Bytes;
use dilated::{Client, Dialect, Dilated, DilationStatus, ReadHalf, Server, WriteHalf};
use serde_json::json;
use tokio::{io::AsyncWriteExt, time::timeout};

use super::{
    findings::{Findings, Flow, RoundTrip, duration, micros},
    left,
    task::{Task, hear, tell},
};
use crate::{clock, meeting::Broken, quote::printable, status::Report};

/// Bytes of one write.
const CHUNK: usize = 64 * 1024;

/// Bytes that may be under way before anything was acknowledged.
const FIRST_FLIGHT: u64 = 1024 * 1024;

/// How often to look whether more was acknowledged.
const LOOK: Duration = Duration::from_millis(1);

/// Bytes of a question, and how many are asked at most.
const QUESTION: usize = 64;
const QUESTIONS: usize = 2_000;

/// What was measured.
#[derive(Debug)]
pub(crate) struct Ground {
    path: String,
    dialect: &'static str,
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "path        {}\ndialect     {}", self.path, self.dialect)
    }
}

/// What the link speaks.
fn dialect(status: &DilationStatus) -> &'static str {
    status.dialect.map_or("none yet", Dialect::name)
}

/// One end of the link.
pub(crate) struct Side<'a> {
    pub(crate) dilated: &'a Dilated,
    pub(crate) client: Client,
    pub(crate) server: Server,
    pub(crate) seconds: u8,
    /// Where to tell what is done, if anybody should know.
    pub(crate) report: Option<&'a Report>,
}

impl Side<'_> {
    /// Measures when this side leads, and helps otherwise. Both learn the same.
    pub(crate) async fn measure(self, leads: bool) -> Result<(Ground, Findings), Broken> {
        if leads { self.lead().await } else { self.help().await }
    }

    /// The link as it is now: once both have what they want, it is not for long.
    async fn ground(&self) -> Result<Ground, Broken> {
        let path = self.dilated.connected().await.map_err(|e| Broken::Here(e.into()))?;
        Ok(Ground { path: printable(&path.to_string()), dialect: dialect(&self.dilated.status()) })
    }

    async fn lead(self) -> Result<(Ground, Findings), Broken> {
        let round_trip = self.ask().await?;

        let mut stopwatch = Stopwatch::default();
        stopwatch.start();
        self.tell_user("sending");
        let (mut read, mut write) = self.task(&Task::Take).await?;
        self.flood(&mut write).await?;
        let sent = hear(&mut read, Flow::from_json).await?;

        self.tell_user("receiving");
        let (mut read, _write) = self.task(&Task::Give).await?;
        let received = drain(&mut read).await?;
        stopwatch.stop();

        let ground = self.ground().await?;
        let findings = Findings::new(round_trip, sent, received);
        let note = Task::Note { findings: Box::new(findings), cpu: stopwatch.cpu };
        let (mut read, _write) = self.task(&note).await?;
        let theirs = hear(&mut read, |answer| Some(answer.get("cpu").and_then(duration))).await?;
        Ok((ground, findings.with_cpu(stopwatch.cpu, theirs)))
    }

    async fn help(mut self) -> Result<(Ground, Findings), Broken> {
        let mut stopwatch = Stopwatch::default();
        loop {
            let subchannel = self.server.accept().await.map_err(Broken::wormhole)?;
            let (mut read, mut write) = subchannel.into_split();
            match hear(&mut read, Task::from_json).await? {
                Task::Echo => echo(&mut read, &mut write).await?,
                Task::Take => {
                    self.tell_user("receiving");
                    stopwatch.start();
                    let flow = drain(&mut read).await?;
                    stopwatch.stop();
                    tell(&mut write, &flow.to_json()).await?;
                }
                Task::Give => {
                    self.tell_user("sending");
                    stopwatch.start();
                    self.flood(&mut write).await?;
                    // What was written is not yet sent.
                    write.acknowledged().await.map_err(Broken::wormhole)?;
                    stopwatch.stop();
                }
                Task::Note { findings, cpu } => {
                    let ground = self.ground().await?;
                    tell(&mut write, &json!({ "cpu": stopwatch.cpu.map(micros) })).await?;
                    return Ok((ground, findings.with_cpu(stopwatch.cpu, cpu)));
                }
            }
        }
    }

    fn tell_user(&self, what: &str) {
        if let Some(report) = self.report {
            report.line(format_args!("{what} for {} s", self.seconds));
        }
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// Opens a subchannel for a task.
    async fn task(&self, task: &Task) -> Result<(ReadHalf, WriteHalf), Broken> {
        let subchannel = self.client.connect().await.map_err(Broken::wormhole)?;
        let (read, mut write) = subchannel.into_split();
        tell(&mut write, &task.to_json()).await?;
        Ok((read, write))
    }

    /// Asks small questions one after the other, as many as fit into the time, but at least one.
    async fn ask(&self) -> Result<RoundTrip, Broken> {
        let (mut read, mut write) = self.task(&Task::Echo).await?;
        let question = Bytes::from_static(&[0; QUESTION]);
        let mut trips = Vec::new();
        let begin = clock::now();
        // The first answer may have waited for the link.
        for trip in 0..=QUESTIONS {
            let asked = clock::now();
            write.send(question.clone()).await.map_err(Broken::wormhole)?;
            read.recv().await.map_err(Broken::wormhole)?.ok_or_else(left)?;
            let answered = clock::now();
            match trip {
                0 => self.tell_user("connected; asking small questions, then sending and receiving"),
                _ => trips.push(answered.saturating_duration_since(asked)),
            }
            if trip > 0 && answered.saturating_duration_since(begin) > self.time() {
                break;
            }
        }
        RoundTrip::of(trips).ok_or_else(left)
    }

    /// Sends for the time that was agreed on, and ends the direction. Never is more under way than was acknowledged
    /// before, so that what waits at the end arrives about as fast as the time has passed, however slow the link.
    async fn flood(&self, write: &mut WriteHalf) -> Result<(), Broken> {
        // Whatever it is, encrypted it has no pattern.
        let chunk = Bytes::from(vec![0; CHUNK]);
        let (begin, before) = (clock::now(), write.bytes_acknowledged());
        let mut written = 0;
        loop {
            let left = self.time().saturating_sub(clock::now().saturating_duration_since(begin));
            if left.is_zero() {
                break;
            }
            let acknowledged = write.bytes_acknowledged() - before;
            if written - acknowledged.min(written) > acknowledged.max(FIRST_FLIGHT) {
                tokio::time::sleep(LOOK.min(left)).await;
                continue;
            }
            let mut chunk = chunk.clone();
            while !chunk.is_empty() {
                match timeout(left, write.write_chunk(&mut chunk)).await {
                    Ok(length) => written += length.map_err(Broken::wormhole)? as u64,
                    // The link stands still.
                    Err(_) => break,
                }
            }
        }
        write.shutdown().await.map_err(Broken::wormhole)
    }
}

/// Reads to the end. The first bytes only start the clock.
async fn drain(read: &mut ReadHalf) -> Result<Flow, Broken> {
    let (mut first, mut flow) = (None, Flow { bytes: 0, time: Duration::ZERO });
    while let Some(chunk) = read.read_chunk().await.map_err(Broken::wormhole)? {
        let now = clock::now();
        match first {
            None => first = Some(now),
            Some(first) => {
                flow.bytes += chunk.len() as u64;
                flow.time = now.saturating_duration_since(first);
            }
        }
    }
    Ok(flow)
}

async fn echo(read: &mut ReadHalf, write: &mut WriteHalf) -> Result<(), Broken> {
    while let Some(question) = read.recv().await.map_err(Broken::wormhole)? {
        write.send(question).await.map_err(Broken::wormhole)?;
    }
    Ok(())
}

/// Adds up processor time.
#[derive(Debug, Default)]
struct Stopwatch {
    started: Option<Duration>,
    cpu: Option<Duration>,
}

impl Stopwatch {
    fn start(&mut self) {
        self.started = clock::cpu();
    }

    fn stop(&mut self) {
        if let Some((started, now)) = self.started.take().zip(clock::cpu()) {
            self.cpu = Some(self.cpu.unwrap_or_default() + now.saturating_sub(started));
        }
    }
}
