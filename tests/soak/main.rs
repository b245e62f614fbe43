//! Two pairs of wormholes that talk all the time while everything between them fails, again and again: connections are
//! reset, stalled in one direction or both, cut after some bytes, slowed down; the mailbox server and the relay are
//! away or restarted; links are abandoned. Every byte is checked.
//!
//! Time is compressed. Timers are several to sixty times shorter than by default, and a fault begins about every half
//! second, where an hour of a bad network would have one every 30 s: 60 s of this are that hour, with its 120
//! faults.
//!
//! * `DILATED_SOAK_SECONDS`: how long (default 5; a long run is 3600).
//! * `DILATED_SOAK_SEED`: repeats the choices of a run. What they meet depends on the machine's timing, so a failure
//!   may take a few repetitions.
//! * `DILATED_SOAK_STORY=1`: prints the last faults and changes of state of every pair, as a failure does.
//!
//! Pairs live for 30 s at most; then the network works again, everything must drain, and both sides close. After that
//! nothing may be left of them: no task, no socket, and at the end no memory. Memory is compared between the first and
//! the last third of the samples, after a warm-up.

mod faults;
mod gauge;
mod journal;
mod pair;
mod traffic;
mod world;

use std::{sync::Arc, time::Duration};

use faults::Fault;
use gauge::{Gauge, Sample, thirds};
use journal::{Journal, PrintOnPanic, report};
use pair::{Pair, Route};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use world::World;

/// The longest life of a pair.
const EPOCH: Duration = Duration::from_secs(30);
/// The longest rest between two faults.
const MAX_REST: Duration = Duration::from_millis(600);
/// KiB by which the resident set may grow between the first and the last third. A leak of one record for each link
/// lost would show within minutes; the allocator's own unrest is about a quarter of this.
const MAX_GROWTH: usize = 8 * 1024;
/// The same for a run below `WARM`, which ends before the allocator has seen everything.
const MAX_WARMING: usize = 16 * 1024;
const WARM: Duration = Duration::from_secs(30);
/// The same for descriptors and tasks: what a few connections more or less make out.
const MAX_UNREST: usize = 40;
/// How long what is dropped may take to be gone.
const PATIENCE: Duration = Duration::from_secs(30);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// What all pairs did.
#[derive(Debug, Default)]
struct Totals {
    faults: u64,
    pairs: u64,
    links: u64,
    subchannels: u64,
    bytes: u64,
    /// From the last fault until everything had arrived and both sides of a pair were closed.
    slowest_rest: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_fails_and_nothing_is_lost() {
    let seed = number("DILATED_SOAK_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    let length = Duration::from_secs(number("DILATED_SOAK_SECONDS").unwrap_or(5));
    report(&format!("soak of {} s; repeat with DILATED_SOAK_SEED={seed}", length.as_secs()));

    let mut rng = StdRng::seed_from_u64(seed);
    let journal = Journal::new(Gauge::new());
    let _print = PrintOnPanic(Arc::clone(&journal));
    let mut world = World::new().await;
    let before = journal.gauge().sample();
    let (mut totals, mut samples) = (Totals::default(), Vec::new());
    while journal.gauge().elapsed() < length {
        let end = length.min(journal.gauge().elapsed() + EPOCH);
        epoch(&mut world, end, &mut rng, &journal, &mut totals, &mut samples).await;
        settle(&journal, before).await;
        if number("DILATED_SOAK_STORY").is_some() {
            journal.print();
        }
    }
    let passed = world.passed();
    report(&format!("{totals:?}; {passed} bytes through the proxies"));
    judge(&samples, if length < WARM { MAX_WARMING } else { MAX_GROWTH });
}

/// One life of two pairs.
async fn epoch(
    world: &mut World,
    end: Duration,
    rng: &mut StdRng,
    journal: &Arc<Journal>,
    totals: &mut Totals,
    samples: &mut Vec<Sample>,
) {
    let other = if rng.random() { Route::Direct } else { Route::Mixed };
    let mut pairs = Vec::new();
    for route in [Route::Relay, other] {
        pairs.push(Pair::new(format!("pair {}", totals.pairs), route, world, rng, journal).await);
        totals.pairs += 1;
    }
    while journal.gauge().elapsed() < end {
        let fault = Fault::random(rng, pairs.len());
        journal.note(fault);
        fault.happen(world, &pairs).await;
        totals.faults += 1;
        tokio::time::sleep(MAX_REST.mul_f64(rng.random())).await;
        pairs.iter_mut().for_each(Pair::check);
        samples.push(journal.gauge().sample());
    }
    journal.note("the network works from now on");
    let healed = journal.gauge().elapsed();
    for pair in pairs {
        totals.links += pair.links();
        totals.subchannels += pair.opened();
        totals.bytes += pair.checked();
        pair.finish().await;
        let rest = journal.gauge().elapsed() - healed;
        journal.note("at rest and closed");
        totals.slowest_rest = totals.slowest_rest.max(rest);
    }
}

/// Waits until nothing is left of the pairs.
async fn settle(journal: &Journal, before: Sample) {
    let settled = async {
        loop {
            let now = journal.gauge().sample();
            if now.tasks <= before.tasks && now.descriptors <= before.descriptors {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, settled).await.is_err() {
        panic!("something is left of closed wormholes: {:?}, before {before:?}", journal.gauge().sample());
    }
}

/// Compares the ends of the run, after a warm-up of a fifth.
fn judge(samples: &[Sample], max_growth: usize) {
    let samples = &samples[samples.len() / 5..];
    for sample in samples.iter().step_by(samples.len().div_ceil(20).max(1)) {
        let Sample { at, resident, descriptors, tasks } = sample;
        report(&format!(
            "{:7.1} s: {resident} KiB, {descriptors} descriptors, {tasks} tasks",
            at.as_secs_f32()
        ));
    }
    let check = |what: &str, value: fn(&Sample) -> usize, allowed: usize| {
        let (first, last) = thirds(samples, value);
        report(&format!("{what}: {first} in the first third, {last} in the last"));
        assert!(last <= first + allowed, "{what} grew from {first} to {last}");
    };
    check("KiB", |sample| sample.resident, max_growth);
    check("descriptors", |sample| sample.descriptors, MAX_UNREST);
    check("tasks", |sample| sample.tasks, MAX_UNREST);
}
