//! The cores of both sides on a virtual network with a virtual clock: managers, races, handshakes, pipes, multiplexers
//! and liveness are those of the product, and every byte between them is under control. Links are cut at every record
//! boundary of a fixed conversation, and anywhere in random ones; schedules of random disturbances move, silence, reset
//! and put to sleep whatever there is.
//!
//! The number of random runs of each dialect is `DILATED_SIM_RUNS` (default 1000). A failure prints its seed and its last
//! events; `DILATED_SIM_SEED=n` runs that one alone, or so many from there on if their number is said, too. With `DILATED_SIM_TRACE=n` the last n
//! events are printed in any case.

mod app;
mod audit;
mod book;
mod connector;
mod ledger;
mod link;
mod network;
mod post;
mod python;
mod queue;
mod relay;
mod schedule;
mod side;
mod trace;
mod wires;
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

/// The seeds of one kind of runs, which has so many tenths of those of its dialect.
fn seeds(tenths: u64) -> std::ops::Range<u64> {
    let runs = number("DILATED_SIM_RUNS");
    match number("DILATED_SIM_SEED") {
        Some(first) => first..first + runs.unwrap_or(1),
        None => 0..(runs.unwrap_or(1000) * tenths).div_ceil(10),
    }
}

/// Cuts anywhere, and what they came to.
fn cut(cast: Cast, tenths: u64) {
    let (mut runs, mut cuts, mut bytes) = (0, 0, 0);
    for seed in seeds(tenths) {
        let summary = run(seed, Plan::Cuts(cast));
        runs += 1;
        cuts += summary.cuts;
        bytes += summary.bytes;
    }
    report(&format!(
        "{cast:?}: {runs} runs, {cuts} links cut, {bytes} bytes delivered, nothing lost, doubled or reordered"
    ));
}

#[test]
fn random_cuts_lose_double_and_reorder_nothing() {
    cut(Cast::Ours, 2);
}

#[test]
fn random_cuts_lose_double_and_reorder_nothing_in_dilated1() {
    cut(Cast::Dilated1, 2);
}

#[test]
fn a_cut_at_every_record_boundary_loses_nothing() {
    for (cast, seed) in [Cast::Ours, Cast::Dilated1].into_iter().flat_map(|cast| [(cast, 1), (cast, 2)]) {
        let undisturbed = run(seed, Plan::CutAfterRecord(cast, u64::MAX));
        assert_eq!(undisturbed.cuts, 0);
        assert!(undisturbed.records > 50, "{undisturbed:?}");
        for record in 0..undisturbed.records {
            let summary = run(seed, Plan::CutAfterRecord(cast, record));
            assert!(summary.cuts >= 1, "seed {seed} has no record {record}: {summary:?}");
            assert_eq!(summary.bytes, undisturbed.bytes);
        }
    }
}

#[test]
fn a_run_is_the_same_every_time() {
    for plan in [
        Plan::Cuts(Cast::Ours),
        Plan::Cuts(Cast::Dilated1),
        Plan::Disturbances(Cast::Ours),
        Plan::Disturbances(Cast::Dilated1),
        Plan::Disturbances(Cast::PythonLeads),
    ] {
        assert_eq!(run(77, plan), run(77, plan));
    }
}

/// Random schedules, and what they came to.
fn disturb(plan: Plan, tenths: u64) {
    let mut converged: Vec<(Duration, u64)> = Vec::new();
    let mut all = Summary::default();
    for seed in seeds(tenths) {
        let summary = run(seed, plan);
        converged.push((summary.converged, seed));
        all.add(&summary);
    }
    converged.sort();
    let at = |percent: usize| converged[(converged.len() - 1) * percent / 100].0.as_secs_f32();
    let Summary { links, early, refused, replaced, bytes, events, busiest, calm_links, outages, .. } = all;
    let Summary { activations, generation, at_rest, .. } = all;
    let outage = (all.without_link / outages.max(1)).as_secs_f32();
    report(&format!(
        "{plan:?}: {} schedules, {links} links ({early} early, {refused} refused, {replaced} replaced; {activations} \
         activations in {generation} later generations), {bytes} bytes, {outages} outages of {outage:.2} s in the mean, \
         disturbances included; connected {:.1} s (median), {:.1} s (99 %), {:.1} s (most, seed {}) after the last \
         disturbance, with at most {calm_links} links from then on; {events} events, at most {busiest} in a second, \
         and {at_rest} in half a minute at rest",
        converged.len(),
        at(50),
        at(99),
        at(100),
        converged[converged.len() - 1].1,
    ));
}

/// Closes at any moment, and what they came to.
fn close(cast: Cast, tenths: u64) {
    let mut all = Summary::default();
    let seeds = seeds(tenths);
    let runs = seeds.end - seeds.start;
    for seed in seeds {
        all.add(&run(seed, Plan::Close(cast)));
    }
    let Summary { delivered, gave_up, told, .. } = all;
    report(&format!(
        "{cast:?}: {runs} runs, {delivered} closes delivered everything, {gave_up} gave up at their deadline, {told} \
         sides learnt that the other one had closed"
    ));
    assert!(runs < 20 || gave_up > 0 && told > 0 && delivered > 2 * gave_up, "closes do not deliver");
}

/// Connections that break again and again, and what was done over them.
fn break_young(cast: Cast, tenths: u64) {
    let mut all = Summary::default();
    let seeds = seeds(tenths);
    let runs = seeds.end - seeds.start;
    for seed in seeds {
        all.add(&run(seed, Plan::Young(cast)));
    }
    let Summary { links, bytes, .. } = all;
    report(&format!("{cast:?}: {runs} runs, {bytes} bytes over {links} links that soon broke"));
}

#[test]
fn links_that_die_young_bring_everything() {
    break_young(Cast::Ours, 1);
}

#[test]
fn links_that_die_young_bring_everything_in_dilated1() {
    break_young(Cast::Dilated1, 1);
}

#[test]
fn a_close_delivers_and_ends_in_time() {
    close(Cast::Ours, 2);
}

#[test]
fn a_close_delivers_and_ends_in_time_in_dilated1() {
    close(Cast::Dilated1, 1);
}

#[test]
fn two_of_ours_survive_all_disturbances() {
    disturb(Plan::Disturbances(Cast::Ours), 3);
}

#[test]
fn two_of_ours_survive_all_disturbances_in_dilated1() {
    disturb(Plan::Disturbances(Cast::Dilated1), 3);
}

#[test]
fn two_of_ours_survive_without_the_mailbox() {
    disturb(Plan::WithoutMailbox, 1);
}

#[test]
fn a_direct_link_takes_the_place_of_the_relay_in_the_same_generation() {
    disturb(Plan::Upgrade, 1);
}

#[test]
fn a_link_that_stands_by_takes_over_in_the_same_generation() {
    disturb(Plan::Failover, 1);
}

#[test]
fn we_lead_python_through_all_disturbances() {
    disturb(Plan::Disturbances(Cast::PythonFollows), 1);
}

#[test]
fn we_follow_python_through_all_disturbances() {
    disturb(Plan::Disturbances(Cast::PythonLeads), 1);
}
