//! Two peers, both ours or one of them Python's, in networks that change, break and fall silent. `.ci/run lab` runs it.

mod close;
mod nat;
mod network;
mod network_itself;
mod scenario;
mod servers;
mod silence;
mod standby;
mod unaided;
mod wires;
