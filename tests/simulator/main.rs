//! The cores of both sides on a virtual network: managers, multiplexers, handshakes and pipes, with every byte of every
//! link under control. Links are cut at every record boundary of a fixed conversation, and anywhere in random ones.
//!
//! The number of random runs is `DILATED_SIM_RUNS` (default 300). A failure prints its seed; `DILATED_SIM_SEED=n` runs
//! that one alone.

mod app;
mod side;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use world::{Plan, World};

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

fn run(seed: u64, plan: Plan) -> world::Summary {
    match catch_unwind(AssertUnwindSafe(|| World::new(seed, plan).run())) {
        Ok(summary) => summary,
        Err(panic) => {
            report(&format!(
                "the simulation failed: seed {seed}, {plan:?}; repeat with DILATED_SIM_SEED={seed}"
            ));
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn random_cuts_lose_double_and_reorder_nothing() {
    let seeds = match number("DILATED_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("DILATED_SIM_RUNS").unwrap_or(300),
    };
    let (mut runs, mut cuts, mut bytes) = (0, 0, 0);
    for seed in seeds {
        let summary = run(seed, Plan::Random);
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
    assert_eq!(run(77, Plan::Random), run(77, Plan::Random));
}
