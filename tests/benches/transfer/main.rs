//! How fast is a file? `send` and `receive` of every pair of programs.
//!
//! ```text
//! cargo bench -p dilated-tests --bench transfer -- [--quick] [--markdown]
//! ```
//!
//! prints the table of `docs/interop.md`. It takes Linux, and makes a network namespace of its own, in which all of them
//! run. `DILATED_PYTHON` names an interpreter with the packages of `tests/python/requirements.txt`,
//! `DILATED_WORMHOLE_RS` the program of the crate `magic-wormhole-cli`; rows of what is not named are left out.
//! `--quick` sends 64 MiB once instead of 1 GiB three times. `DILATED_BENCH_DIR` is where files are sent from and to.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

mod floor;
mod measure;
mod report;
mod stage;

use std::env;
use std::process::ExitCode;

use dilated_tests::transfer::{Program, Programs};

use crate::stage::Stage;

/// The path of `dilated`, given to this program by itself when it starts again in its namespace.
const INSIDE: &str = "DILATED_TRANSFER_BENCH";

/// Who sends to whom.
const PAIRS: [(Program, Program); 10] = [
    (Program::Dilated, Program::Dilated),
    (Program::DilatedClassic, Program::DilatedClassic),
    (Program::Dilated, Program::Python),
    (Program::Python, Program::Dilated),
    (Program::Dilated, Program::WormholeRs),
    (Program::WormholeRs, Program::Dilated),
    (Program::Python, Program::Python),
    (Program::Python, Program::WormholeRs),
    (Program::WormholeRs, Program::Python),
    (Program::WormholeRs, Program::WormholeRs),
];

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// Bytes of the file.
    size: u64,
    /// Times that it is sent. The median counts.
    rounds: usize,
    /// Seconds that `dilated bench` sends in each direction.
    seconds: u8,
}

impl Extent {
    const WHOLE: Extent = Extent { size: 1 << 30, rounds: 3, seconds: 3 };
    const QUICK: Extent = Extent { size: 64 << 20, rounds: 1, seconds: 1 };
}

fn main() -> ExitCode {
    let has = |wanted: &str| env::args().skip(1).any(|argument| argument == wanted);
    if let Some(odd) = env::args().skip(1).find(|a| !["--bench", "--quick", "--markdown"].contains(&&**a)) {
        println!("{odd} is not known; there are --quick and --markdown");
        return ExitCode::FAILURE;
    }
    // `cargo test --all-targets` runs this, too.
    if !has("--bench") {
        println!("skipped: `cargo bench` measures");
        return ExitCode::SUCCESS;
    }
    let Some(dilated) = env::var_os(INSIDE) else { return stage::enter() };
    let programs = Programs::named().with_dilated(dilated.into());
    let extent = if has("--quick") { Extent::QUICK } else { Extent::WHOLE };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let findings = runtime.expect("a runtime starts").block_on(async {
        let stage = Stage::set(programs, extent.size).await;
        measure::measure(&stage, extent).await
    });
    report::print(&findings, extent, has("--markdown"));
    if findings.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
