//! What the operator of a relay may choose.

use std::time::Duration;

/// Bounds on what clients can make the relay hold. Nobody authenticates to a relay, so these are all its
/// defences; each says which attack it stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayConfig {
    /// Connections (4 096). Stops exhaustion of file descriptors and memory. One more is told `relay full`.
    pub connections: usize,
    /// Connections of one address, IPv6 per /64 (256). Stops one machine from taking them all.
    pub connections_per_address: usize,
    /// Connections that wait for a partner (2 048). Keeps room for those who have one.
    pub waiting: usize,
    /// Connections that wait with the same token (16). Stops a client in a loop; the oldest is closed.
    pub waiting_per_token: usize,
    /// Time for the first line (30 s). Stops connections that say nothing.
    pub handshake_timeout: Duration,
    /// Time to wait for a partner (24 h). Long, because a human is the other side of this wait.
    pub waiting_timeout: Duration,
    /// Time in which nothing moves between two partners, in either direction (1 h). Stops pairs of dead or
    /// parked connections. Peers who dilate exchange pings twice a minute.
    pub pair_idle: Duration,
    /// Time for the last bytes to reach a partner after the other one is gone (30 s). Stops a reader that
    /// does not read from holding the pair.
    pub flush_timeout: Duration,
    /// Buffer per direction of a pair, in bytes (64 KiB). With a full buffer the relay stops reading, so that
    /// TCP slows the sender down: memory per pair is twice this, whatever happens.
    pub buffer: usize,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 256,
            waiting: 2048,
            waiting_per_token: 16,
            handshake_timeout: Duration::from_secs(30),
            waiting_timeout: Duration::from_secs(24 * 3600),
            pair_idle: Duration::from_secs(3600),
            flush_timeout: Duration::from_secs(30),
            buffer: 64 << 10,
        }
    }
}
