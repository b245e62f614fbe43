//! One error type per operation. Faults of the peer ([`RecordError`]), misuse by the caller and the end
//! of the wormhole ([`EndReason`]) are kept apart.

use std::{fmt, io, sync::Arc};

use crate::{frame::Code, id::SeqNum};

/// Whether the end was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndKind {
    /// One of the two sides closed the wormhole.
    Closed,
    /// Something broke.
    Failed,
}

/// Why a wormhole has ended; cheap to clone, given to every operation that is pending or comes later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndReason {
    kind: EndKind,
    message: Arc<str>,
}

impl EndReason {
    /// The wormhole was closed, by us or by the peer. `message` is a sentence for people.
    pub fn closed(message: impl Into<Arc<str>>) -> Self {
        EndReason { kind: EndKind::Closed, message: message.into() }
    }

    /// The wormhole broke. `message` is a sentence for people that says what to do.
    pub fn failed(message: impl Into<Arc<str>>) -> Self {
        EndReason { kind: EndKind::Failed, message: message.into() }
    }

    /// Whether the end was wanted.
    pub fn kind(&self) -> EndKind {
        self.kind
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

impl std::error::Error for EndReason {}

impl From<EndReason> for io::Error {
    fn from(reason: EndReason) -> Self {
        let kind = match reason.kind {
            EndKind::Closed => io::ErrorKind::ConnectionAborted,
            EndKind::Failed => io::ErrorKind::Other,
        };
        io::Error::new(kind, reason)
    }
}

/// A fault of the peer in a record that decodes. The driver must drop the link; if
/// [`is_fatal`](RecordError::is_fatal), it must not reconnect, because the same record would come again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A second KCM on a link that was already chosen.
    #[error("the peer confirmed its key again on a link that is in use; dropping the link")]
    UnexpectedKcm,
    /// A record is missing.
    #[error("record {received} arrived where {expected} was due, so some were lost; dropping the link")]
    Gap {
        /// The number that was due.
        expected: SeqNum,
        /// The number that came.
        received: SeqNum,
    },
    /// DATA above [`MuxConfig::max_data`](super::MuxConfig::max_data).
    #[error("the peer sent {len} bytes in one record, the limit is {limit}; raise `max_data` to accept them")]
    DataTooLarge {
        /// The length of its payload in bytes.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The peer opens subchannels without acknowledging that we refused the ones before.
    #[error("the peer floods us with OPEN and acknowledges nothing; dropping the link")]
    Flood,
}

impl RecordError {
    /// Whether a new link would end in the same error.
    pub fn is_fatal(&self) -> bool {
        matches!(self, RecordError::DataTooLarge { .. })
    }
}

/// A subprotocol name that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The empty string.
    #[error("a subprotocol needs a name of at least one byte")]
    Empty,
    /// Above [`MuxConfig::max_name`](super::MuxConfig::max_name).
    #[error("a subprotocol's name of {len} bytes is too long, use at most {limit}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit.
        limit: usize,
    },
}

/// Why listening was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The name cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// One listener per name.
    #[error("something listens for subprotocol {0:?} already; drop that listener first")]
    InUse(String),
    /// The wormhole is over.
    #[error("cannot listen: {0}")]
    Ended(EndReason),
}

/// Why a subchannel could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// [`MuxConfig::max_subchannels`](super::MuxConfig::max_subchannels) are open.
    #[error("{limit} subchannels are open, which is the limit; close some or raise `max_subchannels`")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// 2³¹ subchannels were opened.
    #[error("all 2^31 subchannel numbers of this side are used up; start a new wormhole to continue")]
    IdsExhausted,
    /// The wormhole is over.
    #[error("cannot open a subchannel: {0}")]
    Ended(EndReason),
}

/// Why a write was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// This direction was shut down by us.
    #[error("this subchannel was shut down for writing; open another to send more")]
    ShutDown,
    /// A message above [`MuxConfig::max_data`](super::MuxConfig::max_data).
    #[error("a message of {len} bytes is too long, the limit is {limit}; split it or write it as a stream")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The peer does not read any more (`dilated-1` only).
    #[error("the peer does not read this subchannel any more ({code}); open another to send more")]
    Stopped {
        /// Why, in the peer's words.
        code: Code,
    },
    /// The peer did not take the subchannel (`dilated-1` only).
    #[error("the peer refused this subchannel ({code}); check the subprotocol's name, or try again later")]
    Refused {
        /// Why, in the peer's words.
        code: Code,
    },
    /// The wormhole is over.
    #[error("cannot write: {0}")]
    Ended(EndReason),
}

/// Why there will be nothing more to read, and what was read may be incomplete.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The wormhole ended before the peer closed the subchannel. Never given while received data is waiting.
    #[error("the subchannel was cut off: {0}")]
    Ended(EndReason),
    /// The peer gave up writing (`dilated-1` only): what was not read before is lost.
    #[error("the peer gave this subchannel up ({code}); what it sent is incomplete, ask for it again")]
    Reset {
        /// Why, in the peer's words.
        code: Code,
    },
    /// The peer did not take the subchannel (`dilated-1` only).
    #[error("the peer refused this subchannel ({code}); check the subprotocol's name, or try again later")]
    Refused {
        /// Why, in the peer's words.
        code: Code,
    },
    /// A message above [`MuxConfig::max_data`](super::MuxConfig::max_data) (`dilated-1` only). The peer was told to stop.
    #[error("the peer sent a message of more than {limit} bytes; raise `max_data` to accept it")]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// The application itself gave up reading with [`stop`](super::dilated1::Mux::stop) (`dilated-1` only).
    #[error("this subchannel was given up for reading; open another to receive more")]
    Stopped,
}

/// Why [`progress`](super::Mux::poll_acknowledged) can no longer be waited for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnacknowledgedError {
    /// The wormhole is over.
    #[error("the peer may have missed the last bytes: {0}")]
    Ended(EndReason),
    /// The peer stopped reading, or refused the subchannel (`dilated-1` only).
    #[error("the peer has not taken the last bytes ({code}); send them on another subchannel")]
    Stopped {
        /// Why, in the peer's words.
        code: Code,
    },
    /// The application itself gave up writing with [`reset`](super::dilated1::Mux::reset) (`dilated-1` only).
    #[error("the last bytes were given up before the peer had them")]
    Reset,
}

/// The peer did not take a subchannel (`dilated-1` only), or can no longer do so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenRefused {
    /// The peer said no.
    #[error("the peer refused this subchannel ({code}); check the subprotocol's name, or try again later")]
    Refused {
        /// Why, in the peer's words.
        code: Code,
    },
    /// The wormhole is over.
    #[error("the subchannel was not opened: {0}")]
    Ended(EndReason),
}

/// Why a datagram was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// The dialect has no datagrams, or the peer takes none.
    #[error("the peer takes no datagrams; send a message instead")]
    Unsupported,
    /// Above [`max_datagram`](super::dilated1::Mux::max_datagram).
    #[error("a datagram of {len} bytes is too long, the limit is {limit}; send a message instead")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The subchannel is not open in both directions any more.
    #[error("this subchannel is not open in both directions; open another to send datagrams")]
    NotOpen,
    /// The wormhole is over.
    #[error("cannot send a datagram: {0}")]
    Ended(EndReason),
}

fn ended(reason: &EndReason, error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::Error::from(reason.clone()).kind(), error)
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        match &error {
            OpenError::Ended(reason) => ended(&reason.clone(), error),
            _ => io::Error::new(io::ErrorKind::QuotaExceeded, error),
        }
    }
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        match &error {
            WriteError::Ended(reason) => ended(&reason.clone(), error),
            WriteError::ShutDown => io::Error::new(io::ErrorKind::BrokenPipe, error),
            WriteError::TooLong { .. } => io::Error::new(io::ErrorKind::InvalidInput, error),
            WriteError::Stopped { .. } => io::Error::new(io::ErrorKind::BrokenPipe, error),
            WriteError::Refused { .. } => io::Error::new(io::ErrorKind::ConnectionRefused, error),
        }
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Ended(reason) => ended(&reason.clone(), error),
            ReadError::Reset { .. } => io::Error::new(io::ErrorKind::ConnectionReset, error),
            ReadError::Refused { .. } => io::Error::new(io::ErrorKind::ConnectionRefused, error),
            ReadError::TooLong { .. } => io::Error::new(io::ErrorKind::InvalidData, error),
            ReadError::Stopped => io::Error::new(io::ErrorKind::BrokenPipe, error),
        }
    }
}

impl From<UnacknowledgedError> for io::Error {
    fn from(error: UnacknowledgedError) -> Self {
        match &error {
            UnacknowledgedError::Ended(reason) => ended(&reason.clone(), error),
            _ => io::Error::new(io::ErrorKind::BrokenPipe, error),
        }
    }
}

impl From<OpenRefused> for io::Error {
    fn from(error: OpenRefused) -> Self {
        match &error {
            OpenRefused::Refused { .. } => io::Error::new(io::ErrorKind::ConnectionRefused, error),
            OpenRefused::Ended(reason) => ended(&reason.clone(), error),
        }
    }
}

impl From<DatagramError> for io::Error {
    fn from(error: DatagramError) -> Self {
        match &error {
            DatagramError::Unsupported => io::Error::new(io::ErrorKind::Unsupported, error),
            DatagramError::TooLong { .. } => io::Error::new(io::ErrorKind::InvalidInput, error),
            DatagramError::NotOpen => io::Error::new(io::ErrorKind::NotConnected, error),
            DatagramError::Ended(reason) => ended(&reason.clone(), error),
        }
    }
}

impl From<ListenError> for io::Error {
    fn from(error: ListenError) -> Self {
        match &error {
            ListenError::Ended(reason) => ended(&reason.clone(), error),
            ListenError::Name(_) => io::Error::new(io::ErrorKind::InvalidInput, error),
            ListenError::InUse(_) => io::Error::new(io::ErrorKind::AddrInUse, error),
        }
    }
}

impl From<NameError> for io::Error {
    fn from(error: NameError) -> Self {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

impl From<RecordError> for io::Error {
    fn from(error: RecordError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_keep_the_reason_and_tell_a_close_from_a_failure() {
        let closed = io::Error::from(ReadError::Ended(EndReason::closed("the peer said goodbye")));
        assert_eq!(closed.kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(closed.to_string(), "the subchannel was cut off: the peer said goodbye");
        let failed = io::Error::from(WriteError::Ended(EndReason::failed("wrong code")));
        assert_eq!(failed.kind(), io::ErrorKind::Other);
        let end = failed.get_ref().unwrap().downcast_ref::<WriteError>().unwrap();
        assert_eq!(end, &WriteError::Ended(EndReason::failed("wrong code")));
        assert_eq!(io::Error::from(WriteError::ShutDown).kind(), io::ErrorKind::BrokenPipe);
    }
}
