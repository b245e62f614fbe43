//! How fast is a link, what does it cost, and how near is that to the least that is possible? Two wormholes in this
//! process, with a direct link on loopback; each figure beside one of a baseline of the same run, so that the machine
//! cancels out of the ratio.
//!
//! ```text
//! cargo bench -p dilated --features server --bench performance                    everything
//! cargo bench -p dilated --features server --bench performance -- bulk echo       these cases
//!     --quick                    smaller, for CI
//!     --markdown                 a table for docs/performance.md
//!     --ged                      in the dialect of the Python peers instead of `dilated-1`
//!     --runtime current|multi|shared   each end in a runtime of one thread (the default), of a thread for each core,
//!                                      or both in one with a thread for each core
//! ```
//!
//! The case `allocations` is a program of its own, `--bench allocations`, with the same options: `allocations.rs` says why.
//! `DILATED_BENCH_SMOKE` only shows that the cases run. `DILATED_BENCH_MIB` sets the size of a transfer. The Python row
//! of `bulk` needs `DILATED_PYTHON`, the interpreter of a virtual environment with `tests/python/requirements.txt`, and
//! `DILATED_INTEROP_NETNS=1`, which says that this is a network namespace without a way out: Python peers advertise
//! every address of the machine. `docs/performance.md` has the method.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

mod affinity;
mod baseline;
mod cases;
mod host;
mod measure;
mod options;
mod pair;
mod program;
mod python;
mod report;
mod traffic;

use crate::{options::Case, program::Outcome};

fn main() -> Outcome<()> {
    program::run(&[
        Case::Bulk,
        Case::Streams,
        Case::Echo,
        Case::Messages,
        Case::Idle,
        Case::Churn,
        Case::Cpu,
        Case::Stalled,
    ])
}
