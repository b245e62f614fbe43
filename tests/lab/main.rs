//! Our peers in networks that change, break and fall silent. `.ci/run lab` runs it.

mod network;
mod network_itself;
mod scenario;
mod servers;
mod silence;
