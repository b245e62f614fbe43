//! How often does a link ask the allocator for memory, and for how much? Like `main.rs`, whose modules and options these are,
//! but with an allocator that counts, in all threads. Counting takes time, so that nothing that is timed is measured here.
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

use std::alloc::System;

use alloc_tracker::Allocator;

use crate::{options::Case, program::Outcome};

#[global_allocator]
static ALLOCATOR: Allocator<System> = Allocator::system();

fn main() -> Outcome<()> {
    program::run(&[Case::Allocations])
}
