//! Two wormholes of ours, through the embedded servers.

mod common;
mod dilation;
mod wormhole;
