//! Two wormholes of ours, through the embedded servers.

mod close;
mod common;
mod dialects;
mod dilated1;
mod dilation;
mod offline;
mod proxied;
#[path = "../../../tests/src/proxy.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "it is the proxy of the whole-system tests, which use more of it"
)]
mod proxy;
mod recovery;
mod scene;
mod wormhole;
