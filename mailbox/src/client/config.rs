//! What a client is told when it is made.

use std::time::Duration;

use serde_json::{Map, Value};

/// Who we are, what we can do, and how much we accept. Start from [`ClientConfig::new`] and change fields.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// The application: only clients of the same one can meet. Brought to normal form C for the key.
    pub appid: String,
    /// What the application tells its peer in the version message. Default `{}`.
    pub app_versions: Value,
    /// Dilation versions that we speak, best first, such as `["ged"]`. Default none: the version message then
    /// does not mention dilation, and [`send_dilate`](super::Client::send_dilate) is refused.
    pub can_dilate: Vec<String>,
    /// Implementation and version, told to the server. Default this crate's.
    pub client_version: (String, String),
    /// How long closing waits for a server that is away or silent. Then the wormhole ends with the result that
    /// it would have had; the server forgets the mailbox by itself. Default 5 s.
    pub close_timeout: Duration,
    /// Whether to keep trying when the very first connection fails. Default no: a wrong address shows at once.
    pub retry_first: bool,
    /// Bounds on what a hostile server or peer can make us hold.
    pub limits: ClientLimits,
}

impl ClientConfig {
    /// The defaults for an application.
    #[must_use]
    pub fn new(appid: impl Into<String>) -> Self {
        Self {
            appid: appid.into(),
            app_versions: Value::Object(Map::new()),
            can_dilate: Vec::new(),
            client_version: ("dilated".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            close_timeout: Duration::from_secs(5),
            retry_first: false,
            limits: ClientLimits::default(),
        }
    }
}

/// Bounds on what others can make a client hold. Breaking one ends the wormhole with
/// [`WormholeError::Limit`](crate::WormholeError::Limit), except where it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// Bytes in one message of the server, as JSON text. Stops one endless message. The websocket driver
    /// gives up when a frame announces more, before it arrives. Default 4 MiB.
    pub message_bytes: usize,
    /// Bytes in the server's welcome, as JSON text; it is kept whole. Default 64 KiB.
    pub welcome_bytes: usize,
    /// Nameplates in the server's list. Default 65,536.
    pub nameplates: usize,
    /// Bytes in the name of a mailbox, a side or a phase. Default 256.
    pub name_bytes: usize,
    /// Phases that are neither numeric nor dilation's. A peer could invent names for ever, and each must be
    /// remembered to recognise duplicates. Default 64.
    pub other_phases: usize,
    /// Messages that wait: before the key is known, out of order behind a gap (for each stream), or in the
    /// queue of events that the application does not read (application's and dilation's messages). A server
    /// that withholds message 0 and delivers the rest would fill memory. Default 4,096.
    pub queued_messages: usize,
    /// Bytes in each of those queues. Default 16 MiB.
    pub queued_bytes: usize,
    /// Bytes of our own messages, encrypted and as sent, that wait for the server's echo or for the key. At this
    /// limit sending is refused, and the wormhole lives on. Default 16 MiB.
    ///
    /// As many bytes of the newest messages that were echoed are kept, too: a server that forgets the mailbox, as it
    /// does when neither side was connected for a while, gets them again.
    pub unsent_bytes: usize,
    /// Words in an allocated code. More is refused. Default 32.
    pub words: usize,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            message_bytes: 4 << 20,
            welcome_bytes: 64 << 10,
            nameplates: 65_536,
            name_bytes: 256,
            other_phases: 64,
            queued_messages: 4_096,
            queued_bytes: 16 << 20,
            unsent_bytes: 16 << 20,
            words: 32,
        }
    }
}
