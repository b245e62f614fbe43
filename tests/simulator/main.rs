//! The cores of both sides on a virtual network with a virtual clock: managers, races, handshakes, pipes, multiplexers
//! and liveness are those of the product, and every byte between them is under control. Links are cut at every record
//! boundary of a fixed conversation, and anywhere in random ones; schedules of random disturbances move, silence, reset
//! and put to sleep whatever there is.
//!
//! The number of random runs is `DILATED_SIM_RUNS` (default 300). A failure prints its seed and its last events;
//! `DILATED_SIM_SEED=n` runs that one alone, with `DILATED_SIM_TRACE=n` the last n
//! events are printed in any case.

mod app;
mod connector;
mod link;
mod network;
mod post;
mod python;
mod queue;
mod relay;
mod schedule;
mod side;
mod trace;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Duration,
};

use world::{Cast, Plan, Summary, World};

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// Prints what a passing test's reader should see, too: `println!` would be captured by the test harness.
fn report(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn run(seed: u64, plan: Plan) -> Summary {
    let wanted = number("DILATED_SIM_TRACE").is_some();
    match catch_unwind(AssertUnwindSafe(|| World::new(seed, plan, wanted).run())) {
        Ok(summary) => summary,
        Err(panic) if wanted => resume_unwind(panic),
        Err(_) => {
            report(&format!(
                "the simulation failed: seed {seed}, {plan:?}; repeat with DILATED_SIM_SEED={seed}"
            ));
            // Once more, in words.
            World::new(seed, plan, true).run();
            panic!("the same seed did not fail the second time");
        }
    }
}

fn seeds() -> std::ops::Range<u64> {
    match number("DILATED_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DILATED_SIM_RUNS").unwrap_or(300),
    }
}

#[test]
fn random_cuts_lose_double_and_reorder_nothing() {
    let (mut runs, mut cuts, mut bytes) = (0, 0, 0);
    for seed in seeds() {
        let summary = run(seed, Plan::Cuts);
        runs += 1;
        cuts += summary.cuts;
        bytes += summary.bytes;
    }
    report(&format!(
        "{runs} runs, {cuts} links cut, {bytes} bytes delivered, nothing lost, doubled or reordered"
    ));
}

#[test]
fn a_cut_at_every_record_boundary_loses_nothing() {
    for seed in [1, 2] {
        let undisturbed = run(seed, Plan::CutAfterRecord(u64::MAX));
        assert_eq!(undisturbed.cuts, 0);
        assert!(undisturbed.records > 50, "{undisturbed:?}");
        for record in 0..undisturbed.records {
            let summary = run(seed, Plan::CutAfterRecord(record));
            assert!(summary.cuts >= 1, "seed {seed} has no record {record}: {summary:?}");
            assert_eq!(summary.bytes, undisturbed.bytes);
        }
    }
}

#[test]
fn a_run_is_the_same_every_time() {
    for plan in [Plan::Cuts, Plan::Disturbances(Cast::Ours), Plan::Disturbances(Cast::PythonLeads)] {
        assert_eq!(run(77, plan), run(77, plan));
    }
}

/// Random schedules, and what they came to.
fn disturb(cast: Cast) {
    let mut converged: Vec<(Duration, u64)> = Vec::new();
    let mut all = Summary::default();
    for seed in seeds() {
        let summary = run(seed, Plan::Disturbances(cast));
        converged.push((summary.converged, seed));
        all.links += summary.links;
        all.bytes += summary.bytes;
        all.events += summary.events;
        all.outages += summary.outages;
        all.without_link += summary.without_link;
        all.early += summary.early;
        all.refused += summary.refused;
        all.replaced += summary.replaced;
        all.busiest = all.busiest.max(summary.busiest);
        all.calm_links = all.calm_links.max(summary.calm_links);
    }
    converged.sort();
    let at = |percent: usize| converged[(converged.len() - 1) * percent / 100].0.as_secs_f32();
    let Summary { links, early, refused, replaced, bytes, events, busiest, calm_links, outages, .. } = all;
    let outage = (all.without_link / outages.max(1)).as_secs_f32();
    report(&format!(
        "{cast:?}: {} schedules, {links} links ({early} early, {refused} refused, {replaced} replaced), {bytes} bytes, \
         {outages} outages of {outage:.2} s in the mean, disturbances included; connected {:.1} s (median), {:.1} s (99 %), \
         {:.1} s (most, seed {}) after the last disturbance, with at most {calm_links} links from then on; {events} events, at most \
         {busiest} in a second",
        converged.len(),
        at(50),
        at(99),
        at(100),
        converged[converged.len() - 1].1,
    ));
}

#[test]
fn two_of_ours_survive_all_disturbances() {
    disturb(Cast::Ours);
}

#[test]
fn we_lead_python_through_all_disturbances() {
    disturb(Cast::PythonFollows);
}

#[test]
fn we_follow_python_through_all_disturbances() {
    disturb(Cast::PythonLeads);
}
