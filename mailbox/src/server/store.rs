//! What the server remembers between connections, and the interface of whatever remembers it.

use serde_json::Value;

/// How a side says that its session went, in `close`. Only for statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Both sides agreed on a key.
    Happy,
    /// Nobody else came.
    Lonely,
    /// The other side had a different code.
    Scary,
    /// Anything else went wrong.
    Errory,
    /// The server's welcome refused the client.
    Unwelcome,
    /// A word that this server does not know. The word itself is not kept.
    Other,
}

impl Mood {
    /// The mood of a `close` message; `None` if it has none.
    pub(super) fn from_json(value: Option<&Value>) -> Option<Self> {
        match value? {
            Value::Null => None,
            Value::String(word) => Some(Self::from_word(word)),
            _ => Some(Self::Other),
        }
    }

    pub(super) fn from_word(word: &str) -> Self {
        match word {
            "happy" => Self::Happy,
            "lonely" => Self::Lonely,
            "scary" => Self::Scary,
            "errory" => Self::Errory,
            "unwelcome" => Self::Unwelcome,
            _ => Self::Other,
        }
    }

    /// The word that stands for it on the wire and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Happy => "happy",
            Self::Lonely => "lonely",
            Self::Scary => "scary",
            Self::Errory => "errory",
            Self::Unwelcome => "unwelcome",
            Self::Other => "other",
        }
    }
}

/// One side's claim on a nameplate.
#[derive(Clone, Debug, PartialEq)]
pub struct NameplateSide {
    /// Who.
    pub side: String,
    /// False after `release`; the row stays, so that the side cannot claim again.
    pub claimed: bool,
    /// When the side first claimed it, in seconds since 1970.
    pub added: f64,
}

/// A nameplate: the short number that leads two sides to one mailbox.
#[derive(Clone, Debug, PartialEq)]
pub struct NameplateRecord {
    /// The mailbox that it leads to.
    pub mailbox: String,
    /// The sides that claimed it: at most two, because a crowded claim is refused before it is written.
    pub sides: Vec<NameplateSide>,
    /// A third side was refused. Only for statistics.
    pub crowded: bool,
}

/// One side of a mailbox.
#[derive(Clone, Debug, PartialEq)]
pub struct MailboxSide {
    /// Who.
    pub side: String,
    /// False after `close`.
    pub opened: bool,
    /// When the side first opened it, in seconds since 1970.
    pub added: f64,
    /// What its `close` said.
    pub mood: Option<Mood>,
}

/// A mailbox, without its messages.
#[derive(Clone, Debug, PartialEq)]
pub struct MailboxRecord {
    /// The nameplate that it was made for. That nameplate may be gone, or lead elsewhere by now.
    pub nameplate: Option<String>,
    /// Last activity, in seconds since 1970. Decides about pruning.
    pub updated: f64,
    /// The sides that opened it: at most two, because a crowded open is refused before it is written.
    pub sides: Vec<MailboxSide>,
    /// A third side was refused. Only for statistics.
    pub crowded: bool,
    /// How many messages are stored.
    pub messages: usize,
    /// The sum of their [`Message::size`].
    pub bytes: usize,
}

/// One stored message. Phase, body and id are whatever JSON scalar the client sent, usually a string.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Who added it.
    pub side: String,
    /// Its `phase`.
    pub phase: Value,
    /// Its `body`.
    pub body: Value,
    /// The `id` of the `add`, or null.
    pub id: Value,
    /// When the server received it, in seconds since 1970.
    pub server_rx: f64,
}

impl Message {
    /// What it costs to keep: its text, and something for the row around it.
    #[must_use]
    pub fn size(&self) -> usize {
        const ROW: usize = 64;
        ROW + self.side.len() + scalar_len(&self.phase) + scalar_len(&self.body) + scalar_len(&self.id)
    }
}

/// The length of a JSON scalar as text. Numbers, booleans and null are all short.
pub(super) fn scalar_len(value: &Value) -> usize {
    value.as_str().map_or(24, str::len)
}

/// One step of a [`Store::apply`].
#[derive(Clone, Debug)]
pub enum Change {
    /// Create or replace a nameplate.
    PutNameplate {
        /// Application.
        app: String,
        /// Its digits.
        name: String,
        /// The new content.
        record: NameplateRecord,
    },
    /// Forget a nameplate.
    DeleteNameplate {
        /// Application.
        app: String,
        /// Its digits.
        name: String,
    },
    /// Create or replace a mailbox; its messages stay.
    PutMailbox {
        /// Application.
        app: String,
        /// Identifier.
        id: String,
        /// The new content.
        record: MailboxRecord,
    },
    /// Forget a mailbox and its messages.
    DeleteMailbox {
        /// Application.
        app: String,
        /// Identifier.
        id: String,
    },
    /// Append a message to a mailbox.
    AddMessage {
        /// Application.
        app: String,
        /// Identifier of the mailbox.
        id: String,
        /// What to append.
        message: Message,
    },
    /// Note activity in a mailbox.
    Touch {
        /// Application.
        app: String,
        /// Identifier.
        id: String,
        /// Seconds since 1970.
        updated: f64,
    },
}

/// What a store holds in total. The server counts on from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Nameplates of each application that has any.
    pub nameplates: Vec<(String, usize)>,
    /// Mailboxes.
    pub mailboxes: usize,
    /// The sum of [`MailboxRecord::bytes`].
    pub bytes: usize,
}

/// The store failed; the disk is full or broken, or somebody else changed the file.
#[derive(Debug, thiserror::Error)]
#[error("the mailbox store failed: {0}")]
pub struct StoreError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl StoreError {
    /// Wraps what went wrong.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// Where nameplates, mailboxes and messages live. The rules are the server's; a store only remembers.
///
/// A store belongs to one server at a time. Calls may block: the driver gives it a thread of its own.
pub trait Store: Send {
    /// Makes all the changes, or none of them if it fails. They are durable when it returns.
    ///
    /// # Errors
    /// When they could not be written.
    fn apply(&mut self, changes: Vec<Change>) -> Result<(), StoreError>;

    /// Finds a nameplate.
    ///
    /// # Errors
    /// When the store could not be read. So for the methods below.
    fn nameplate(&self, app: &str, name: &str) -> Result<Option<NameplateRecord>, StoreError>;

    /// Up to `limit` nameplates of an application, the shortest first.
    ///
    /// # Errors
    /// As [`nameplate`](Self::nameplate).
    fn nameplates(&self, app: &str, limit: usize) -> Result<Vec<String>, StoreError>;

    /// The nameplates of an application that have exactly this many digits.
    ///
    /// # Errors
    /// As [`nameplate`](Self::nameplate).
    fn nameplates_of_length(&self, app: &str, digits: usize) -> Result<Vec<String>, StoreError>;

    /// Finds a mailbox.
    ///
    /// # Errors
    /// As [`nameplate`](Self::nameplate).
    fn mailbox(&self, app: &str, id: &str) -> Result<Option<MailboxRecord>, StoreError>;

    /// The messages of a mailbox in the order in which they were added.
    ///
    /// # Errors
    /// As [`nameplate`](Self::nameplate).
    fn messages(&self, app: &str, id: &str) -> Result<Vec<Message>, StoreError>;

    /// Application and identifier of the mailboxes last updated at `before` (seconds since 1970) or earlier.
    ///
    /// # Errors
    /// As [`nameplate`](Self::nameplate).
    fn idle_mailboxes(&self, before: f64) -> Result<Vec<(String, String)>, StoreError>;

    /// Counts everything.
    ///
    /// # Errors
    /// As [`nameplate`](Self::nameplate).
    fn totals(&self) -> Result<Totals, StoreError>;
}

impl<S: Store + ?Sized> Store for Box<S> {
    fn apply(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        (**self).apply(changes)
    }
    fn nameplate(&self, app: &str, name: &str) -> Result<Option<NameplateRecord>, StoreError> {
        (**self).nameplate(app, name)
    }
    fn nameplates(&self, app: &str, limit: usize) -> Result<Vec<String>, StoreError> {
        (**self).nameplates(app, limit)
    }
    fn nameplates_of_length(&self, app: &str, digits: usize) -> Result<Vec<String>, StoreError> {
        (**self).nameplates_of_length(app, digits)
    }
    fn mailbox(&self, app: &str, id: &str) -> Result<Option<MailboxRecord>, StoreError> {
        (**self).mailbox(app, id)
    }
    fn messages(&self, app: &str, id: &str) -> Result<Vec<Message>, StoreError> {
        (**self).messages(app, id)
    }
    fn idle_mailboxes(&self, before: f64) -> Result<Vec<(String, String)>, StoreError> {
        (**self).idle_mailboxes(before)
    }
    fn totals(&self) -> Result<Totals, StoreError> {
        (**self).totals()
    }
}
