//! What the server lets its clients make it keep. Every number is a defence against one attack.

use std::time::Duration;

/// Bounds on everything that a client can make the server store, queue or hold open.
///
/// Nobody authenticates to a mailbox server, so each of these is all that stands between one hostile client and
/// every other user of the machine. A request over a bound changes nothing and is answered with an `error`
/// message that names the bound, unless the field says otherwise. Lengths are in bytes of UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Nameplates of one application at a time (10 000). Stops one application from using up the total.
    pub nameplates_per_app: usize,
    /// Nameplates of all applications (100 000). Stops a flood of `claim` under invented applications.
    pub nameplates: usize,
    /// Mailboxes of all applications (100 000). Stops a flood of `open` with invented identifiers.
    pub mailboxes: usize,
    /// Mailboxes that one address may create within [`prune_idle`](super::ServerConfig::prune_idle) (2 000).
    /// Stops one machine from filling `mailboxes` faster than pruning empties it. IPv6 counts per /64.
    pub mailboxes_per_address: usize,
    /// Messages in one mailbox (10 000). Stops small `add`s without end, whose rows cost more than their bytes.
    pub messages_per_mailbox: usize,
    /// The `body` of one message (2 MiB, which is 1 MiB before its hex encoding). Stops huge single rows.
    pub body_bytes: usize,
    /// Everything stored in one mailbox (8 MiB). Stops a mailbox from being used as a file host, and bounds
    /// what one `open` makes the server send.
    pub mailbox_bytes: usize,
    /// Everything stored in all mailboxes (256 MiB). Stops a full disk, or all memory being used.
    pub store_bytes: usize,
    /// Length of an application identifier (256). Stops keys that make every row and index large.
    pub app_id_length: usize,
    /// Length of a side (128). As `app_id_length`.
    pub side_length: usize,
    /// Length of a mailbox identifier (128). As `app_id_length`.
    pub mailbox_id_length: usize,
    /// Length of a phase, and of the `id` of an `add` (128). As `app_id_length`.
    pub phase_length: usize,
    /// Connections of one side that are subscribed to the same mailbox (8). Every message is copied to each, so
    /// this stops amplification. The newest wins: the oldest is closed, because a client that roams leaves dead
    /// connections behind.
    pub subscriptions_per_side: usize,
    /// Nameplates in one answer to `list` (1 000). Stops tiny requests with large answers. The shortest
    /// nameplates are listed, the rest is left out without an error.
    pub list_size: usize,
    /// Connections (10 000). Stops exhaustion of file descriptors. Answered with HTTP status 503.
    pub connections: usize,
    /// Connections of one address, IPv6 per /64 (256). Stops one machine from taking them all. Answered with
    /// HTTP status 429.
    pub connections_per_address: usize,
    /// One websocket message from a client (2 MiB + 64 KiB). Stops memory being used before anything is
    /// parsed. The connection is closed with status 1009 after the error.
    pub websocket_message: usize,
    /// Time for the HTTP request that opens the websocket (10 s). Stops slow requests from holding sockets.
    pub handshake_timeout: Duration,
    /// Time from the welcome to `bind` (60 s). Stops connections that only exist. Closed after the error.
    pub bind_timeout: Duration,
    /// Time without any message on a connection that is bound but not subscribed to a mailbox (1 h). As
    /// `bind_timeout`, but without an `error`, since a client that waits for a human is not wrong: it is closed
    /// with status 1001 and may reconnect.
    pub idle_timeout: Duration,
    /// Bytes queued for one connection (16 MiB). Stops slow readers from collecting messages in memory: the
    /// connection is closed at once. Must hold the replay of a full mailbox, so keep it above `mailbox_bytes`.
    pub outgoing_queue: usize,
    /// Bytes queued for all connections (256 MiB). Stops many slow readers. When it is full, a connection
    /// with more than 64 KiB of its own queued is closed at its next message.
    pub outgoing_total: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            nameplates_per_app: 10_000,
            nameplates: 100_000,
            mailboxes: 100_000,
            mailboxes_per_address: 2_000,
            messages_per_mailbox: 10_000,
            body_bytes: 2 << 20,
            mailbox_bytes: 8 << 20,
            store_bytes: 256 << 20,
            app_id_length: 256,
            side_length: 128,
            mailbox_id_length: 128,
            phase_length: 128,
            subscriptions_per_side: 8,
            list_size: 1_000,
            connections: 10_000,
            connections_per_address: 256,
            websocket_message: (2 << 20) + (64 << 10),
            handshake_timeout: Duration::from_secs(10),
            bind_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(3600),
            outgoing_queue: 16 << 20,
            outgoing_total: 256 << 20,
        }
    }
}
