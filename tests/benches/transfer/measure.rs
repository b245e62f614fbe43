//! Runs the pairs.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use dilated_tests::data::Data;
use dilated_tests::transfer::{Outcome, Program, What, transfer};

use crate::stage::{LARGE, SEED, SMALL, SMALL_SIZE, Stage};
use crate::{Extent, PAIRS, floor, report};

/// A transfer that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(300);

/// Of a run in which Python's `wormhole` lost its port.
const TRIES: usize = 3;

/// One transfer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// From the start of the receiver to the end of both.
    pub(crate) took: Duration,
    /// Processor time of the sender.
    pub(crate) sender: Duration,
    /// Processor time of the receiver.
    pub(crate) receiver: Duration,
}

/// The medians of a pair.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Medians {
    pub(crate) large: Run,
    pub(crate) small: Run,
}

impl Medians {
    /// 10^6 bytes in a second of what the large file takes longer than the small one. `None` if it does not.
    pub(crate) fn rate(&self, size: u64) -> Option<f64> {
        let time = self.large.took.checked_sub(self.small.took)?.as_secs_f64();
        (time > 0.0).then(|| size as f64 / time / 1e6)
    }
}

/// One pair.
pub(crate) struct Row {
    pub(crate) sender: Program,
    pub(crate) receiver: Program,
    /// Or how it failed, or what is missing.
    pub(crate) measured: Result<Medians, Failure>,
}

/// Why a pair has no figures.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// It did not work.
    Failed(String),
    /// It cannot be run here.
    Missing(&'static str),
}

/// What nobody can be faster than here.
pub(crate) struct Floor {
    /// Of the whole.
    pub(crate) run: Run,
    /// What is done in it, each alone, in 10^6 bytes a second.
    pub(crate) parts: Vec<(&'static str, f64)>,
}

impl Floor {
    /// 10^6 bytes in a second.
    pub(crate) fn rate(&self, size: u64) -> f64 {
        size as f64 / self.run.took.as_secs_f64() / 1e6
    }
}

/// All that was measured.
pub(crate) struct Findings {
    pub(crate) rows: Vec<Row>,
    /// The [`floor`] of the classic protocol, or how it failed.
    pub(crate) floor: Result<Floor, String>,
    /// What `dilated bench` sent, in 10^6 bytes a second, or how it failed.
    pub(crate) link: Result<f64, String>,
    /// Whether the files were in memory.
    pub(crate) in_memory: bool,
}

impl Findings {
    pub(crate) fn is_success(&self) -> bool {
        self.link.is_ok()
            && self.floor.is_ok()
            && !self.rows.iter().any(|row| matches!(row.measured, Err(Failure::Failed(_))))
    }
}

/// Measures everything.
pub(crate) async fn measure(stage: &Stage, extent: Extent) -> Findings {
    let link = link(stage, extent).await;
    let floor = least(stage, extent).map_err(|error| error.to_string());
    let mut rows = Vec::new();
    for (sender, receiver) in PAIRS {
        let missing = [sender, receiver].into_iter().find_map(|program| stage.programs.lacks(program));
        let measured = match missing {
            Some(why) => Err(Failure::Missing(why)),
            None => medians(stage, extent, sender, receiver).await.map_err(Failure::Failed),
        };
        println!("{sender} to {receiver}: {}", report::sentence(&measured, extent));
        rows.push(Row { sender, receiver, measured });
    }
    Findings { rows, floor, link, in_memory: stage.in_memory }
}

async fn medians(
    stage: &Stage,
    extent: Extent,
    sender: Program,
    receiver: Program,
) -> Result<Medians, String> {
    let (mut large, mut small) = (Vec::new(), Vec::new());
    for _ in 0..extent.rounds {
        large.push(send(stage, sender, receiver, LARGE, extent.size).await?);
        small.push(send(stage, sender, receiver, SMALL, SMALL_SIZE).await?);
    }
    Ok(Medians { large: median(large), small: median(small) })
}

fn median(mut runs: Vec<Run>) -> Run {
    runs.sort_by_key(|run| run.took);
    runs[runs.len() / 2]
}

/// Measures the floor.
fn least(stage: &Stage, extent: Extent) -> io::Result<Floor> {
    let from = stage.from.join(LARGE);
    let to = tempfile::tempdir_in(stage.place.path())?;
    let copy = to.path().join(LARGE);
    let mut runs = Vec::new();
    for _ in 0..extent.rounds {
        runs.push(floor::transfer(&from, &copy, extent.size)?);
        std::fs::remove_file(&copy)?;
    }
    Ok(Floor { run: median(runs), parts: floor::parts(&from, &copy, extent.size)? })
}

/// Sends a file once, and compares what arrived.
async fn send(
    stage: &Stage,
    sender: Program,
    receiver: Program,
    name: &str,
    size: u64,
) -> Result<Run, String> {
    let mut tries = 0;
    loop {
        let to = tempfile::tempdir_in(stage.place.path()).expect("a directory");
        let sending = stage.programs.sender(sender, &stage.meeting, &stage.from, What::Name(name));
        let receiving = |code: &str| stage.programs.receiver(receiver, &stage.meeting, to.path(), code);
        let outcome = transfer(sending, receiving, PATIENCE).await;
        tries += 1;
        if outcome.lost_its_port() && tries < TRIES {
            continue;
        }
        if !outcome.is_success() {
            return Err(outcome.to_string());
        }
        compare(&to.path().join(name), size)?;
        let Outcome { sender, receiver, took } = outcome;
        return Ok(Run { took, sender: sender.processor, receiver: receiver.processor });
    }
}

fn compare(path: &Path, size: u64) -> Result<(), String> {
    let said = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = File::open(path).map_err(said)?;
    let (mut check, mut buffer) = (Data::new(SEED).check(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(said)? {
            0 if check.received() == size => return Ok(()),
            0 => return Err(format!("{} of {size} bytes arrived", check.received())),
            length => check.push(&buffer[..length]),
        }
    }
}

/// What the link alone can carry, from `dilated bench`.
async fn link(stage: &Stage, extent: Extent) -> Result<f64, String> {
    let measurer = |code: Option<&str>| stage.programs.measurer(&stage.meeting, extent.seconds, code);
    let outcome = transfer(measurer(None), |code| measurer(Some(code)), PATIENCE).await;
    let rate = outcome.sender.stdout.lines().find_map(|line| {
        let (rate, _) = line.strip_prefix("sent")?.trim().split_once(" MB/s")?;
        rate.parse().ok()
    });
    rate.filter(|_| outcome.is_success()).ok_or_else(|| outcome.to_string())
}
