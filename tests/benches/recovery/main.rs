//! How long is a stream interrupted? For each scenario and pairing of peers, in the network lab, the time from the event
//! to the next byte that arrives.
//!
//! ```text
//! cargo bench -p dilated-tests --bench recovery
//! ```
//!
//! writes `docs/recovery.md`. It takes root on Linux, and for the rows of Python `DILATED_PYTHON`, the interpreter of a
//! virtual environment with `tests/python/requirements.txt`. `DILATED_RECOVERY_RUNS` (20) is the number of runs of each,
//! `DILATED_RECOVERY_ONLY` a part of the name of those to be run, as `SCENARIO, PAIRING`; `DILATED_BENCH_SMOKE` runs two
//! scenarios once. Only a whole campaign, with at least 20 runs of each, writes the file.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

mod case;
mod load;
mod report;
mod run;

use std::any::Any;
use std::collections::BTreeMap;
use std::env;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dilated_tests::{
    lab::{Lab, clock},
    python::Python,
};
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use rand::seq::SliceRandom as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::case::{Case, Cell, Pairing, Scenario};
use crate::load::Load;
use crate::run::{Network, Outcome};

/// Networks that are built at the same time. It takes processors; all else is waiting.
const BUILT_AT_ONCE: usize = 3;

/// Networks that exist at the same time, most of them waiting for a peer that does not come back.
const ALIVE: usize = 128;

/// Runs that are measured together: first all are built, then the events happen one after another, and nothing else
/// goes on.
const BATCH: usize = 64;

/// Between the events of a batch: together longer than a Python Leader takes from ping to ping, so that the events find
/// links of all ages.
const STAGGER: Duration = Duration::from_millis(480);

/// How long nothing else goes on. Who needs longer is waited for beside the next batch.
const QUIET: Duration = Duration::from_secs(12);

/// Runs of each that the file has to be written from.
const RUNS: usize = 20;

/// What is to be run.
struct Plan {
    cells: Vec<Cell>,
    runs: usize,
}

impl Plan {
    /// A smoke test unless `cargo bench` runs us, which passes `--bench`: `cargo test --all-targets` wants no more.
    fn from_environment() -> Result<Plan, String> {
        let smoke = env::var_os("DILATED_BENCH_SMOKE").is_some()
            || !env::args().any(|argument| argument == "--bench");
        if smoke {
            let cells = vec![(Scenario::OurAddress, Pairing::Ours), (Scenario::AllVanishes, Pairing::Ours)];
            return Ok(Plan { cells, runs: 1 });
        }
        let runs = env::var("DILATED_RECOVERY_RUNS").map_or(Ok(RUNS), |runs| runs.parse());
        let runs = runs.ok().filter(|runs| *runs > 0).ok_or("DILATED_RECOVERY_RUNS is no number of runs")?;
        let only = env::var("DILATED_RECOVERY_ONLY").unwrap_or_default();
        let mut cells = Vec::new();
        for pairing in Pairing::ALL {
            if pairing.with_python() && Python::named().is_none() {
                println!("skipped: {}: DILATED_PYTHON names no interpreter", pairing.name());
                continue;
            }
            let wanted =
                |scenario: &Scenario| format!("{}, {}", scenario.name(), pairing.name()).contains(&only);
            let scenarios = Scenario::ALL.into_iter().filter(|scenario| scenario.suits(pairing));
            let scenarios = scenarios.filter(wanted);
            cells.extend(scenarios.map(|scenario| (scenario, pairing)));
        }
        Ok(Plan { cells, runs })
    }

    /// All that is to be run. Ours come first, so that no Python peer that is waited for disturbs them.
    fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for python in [false, true] {
            let cells = || self.cells.iter().filter(|(_, pairing)| pairing.with_python() == python);
            for run in 0..self.runs {
                cases.extend(cells().map(|&(scenario, pairing)| Case { scenario, pairing, run }));
            }
        }
        cases
    }

    /// Whether the file may be written from it.
    fn is_whole(&self) -> bool {
        let suiting =
            |pairing| Scenario::ALL.into_iter().filter(move |scenario| scenario.suits(pairing)).count();
        self.runs >= RUNS && self.cells.len() == Pairing::ALL.into_iter().map(suiting).sum::<usize>()
    }
}

/// The outcomes of each cell, and the runs that came to none.
#[derive(Default)]
struct Results {
    outcomes: BTreeMap<Cell, Vec<(Case, Outcome)>>,
    failures: Vec<String>,
    /// While events happened.
    load: Load,
}

fn main() -> ExitCode {
    let plan = match Plan::from_environment() {
        Ok(plan) => plan,
        Err(why) => {
            println!("{why}");
            return ExitCode::FAILURE;
        }
    };
    // Says why not.
    if Lab::new(env!("CARGO_BIN_EXE_lab_peer")).is_none() {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    let runtime = runtime.expect("a runtime starts where a lab can be");
    let started = clock();
    let results = runtime.block_on(Campaign::default().run(plan.cases()));
    report::print(&results, clock() - started);
    if plan.is_whole() {
        if let Err(why) = report::write(&results, plan.runs) {
            println!("{why}");
            return ExitCode::FAILURE;
        }
    } else {
        println!("docs/recovery.md is written from a whole campaign only");
    }
    if results.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A network, and its right to exist.
type Held = (Network, OwnedSemaphorePermit);

/// What came of a run, and what is to be torn down when there is time.
type Measured = (Case, Result<Outcome, Failure>, Held);

/// What a panic said.
type Failure = Box<dyn Any + Send>;

struct Campaign {
    results: Results,
    alive: Arc<Semaphore>,
    building: Arc<Semaphore>,
    /// Those that are waited for beside the next batch.
    late: FuturesUnordered<JoinHandle<Measured>>,
}

impl Default for Campaign {
    fn default() -> Self {
        Self {
            results: Results::default(),
            alive: Arc::new(Semaphore::new(ALIVE)),
            building: Arc::new(Semaphore::new(BUILT_AT_ONCE)),
            late: FuturesUnordered::new(),
        }
    }
}

impl Campaign {
    async fn run(mut self, cases: Vec<Case>) -> Results {
        for batch in cases.chunks(BATCH) {
            let networks = self.build(batch).await;
            self.measure(networks).await;
        }
        while let Some(measured) = self.late.next().await {
            self.take(measured);
        }
        self.results
    }

    async fn build(&mut self, cases: &[Case]) -> Vec<(Case, Held)> {
        let mut tasks = JoinSet::new();
        for case in cases.iter().copied() {
            let (alive, building) = (Arc::clone(&self.alive), Arc::clone(&self.building));
            tasks.spawn(async move {
                let alive = alive.acquire_owned().await.expect("never closed");
                let _building = building.acquire().await.expect("never closed");
                let prepared = AssertUnwindSafe(Network::prepare(case)).catch_unwind().await;
                (case, prepared.map(|network| (network, alive)))
            });
        }
        let mut networks = Vec::new();
        loop {
            tokio::select! {
                built = tasks.join_next() => match built.map(|built| built.expect("panics are caught")) {
                    Some((case, Ok(network))) => networks.push((case, network)),
                    Some((case, Err(failure))) => self.fail(case, &failure),
                    None => return networks,
                },
                // They hold the right to exist that others wait for.
                Some(measured) = self.late.next() => self.take(measured),
            }
        }
    }

    async fn measure(&mut self, mut networks: Vec<(Case, Held)>) {
        // The age of a link must not depend on the case.
        networks.shuffle(&mut rand::rng());
        let before = Load::now();
        let mut running = FuturesUnordered::new();
        for (case, (mut network, alive)) in networks {
            running.push(tokio::spawn(async move {
                let outcome = AssertUnwindSafe(network.measure()).catch_unwind().await;
                (case, outcome, (network, alive))
            }));
            sleep(STAGGER).await;
        }
        let mut done = Vec::new();
        let in_time = timeout(QUIET, async {
            while let Some(measured) = running.next().await {
                done.push(measured);
            }
        });
        // Those that are left are waited for beside the next batch.
        let _ = in_time.await;
        self.results.load += Load::now() - before;
        self.late.extend(running);
        for measured in done {
            self.take(measured);
        }
    }

    fn take(&mut self, measured: Result<Measured, JoinError>) {
        let (case, outcome, held) = measured.expect("panics are caught");
        // It takes a dozen programs to tear a network down.
        spawn_blocking(|| drop(held));
        match outcome {
            Ok(outcome) => {
                println!("{case}: {}", report::time(outcome.recovery));
                self.results.outcomes.entry(case.cell()).or_default().push((case, outcome));
            }
            Err(failure) => self.fail(case, &failure),
        }
    }

    fn fail(&mut self, case: Case, failure: &Failure) {
        let text = failure.downcast_ref::<String>().map(String::as_str);
        let text = text.or(failure.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
        println!("{case}: failed: {text}");
        self.results.failures.push(format!("{case}: {text}"));
    }
}
