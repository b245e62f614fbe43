//! `send` and `receive` of every program that speaks the file transfer of magic-wormhole, run in pairs.

mod programs;
mod run;
pub mod tree;

pub use self::programs::{Meeting, Program, Programs, Way, What, built, give_an_address};
pub use self::run::{Ended, Outcome, transfer};
