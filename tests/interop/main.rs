//! Interop with the released Python packages: `magic-wormhole` 0.24, its mailbox server and its transit relay.
//!
//! `.ci/run interop` runs these in a network namespace of their own; elsewhere each says that it is skipped.

mod cuts;
mod mailbox;
mod python_pair;
mod streams;
mod support;
mod transfer;
