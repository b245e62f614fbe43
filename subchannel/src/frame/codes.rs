//! Why a wormhole, or a subchannel, is given up.

use std::{borrow::Cow, fmt};

/// A fault of the peer that ends the wormhole, with the code that GOODBYE tells it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Violation {
    /// One of the codes of `docs/protocol.md`, "The end".
    pub code: u64,
    /// A sentence for people.
    pub text: Cow<'static, str>,
}

impl Violation {
    /// The application closed the wormhole.
    pub const CLOSED: u64 = 0;
    /// Something failed that is not the peer's fault.
    pub const INTERNAL: u64 = 1;
    /// A record that cannot be read.
    pub const FRAME: u64 = 2;
    /// More was sent than allowed.
    pub const FLOW_CONTROL: u64 = 3;
    /// More subchannels were opened than allowed.
    pub const SUBCHANNELS: u64 = 4;
    /// A name that is empty or too long.
    pub const NAME: u64 = 5;
    /// Units that leave a gap or are behind the end, or an end that moves.
    pub const OFFSET: u64 = 6;
    /// A frame for a subchannel that was never opened, or an OPEN with a wrong number.
    pub const STATE: u64 = 7;
    /// A datagram longer than allowed.
    pub const DATAGRAM: u64 = 8;
    /// Subchannels are opened and given up faster than allowed.
    pub const RATE: u64 = 9;

    pub(crate) fn new(code: u64, text: impl Into<Cow<'static, str>>) -> Self {
        Violation { code, text: text.into() }
    }

    pub(super) fn cut_off() -> Self {
        Violation::new(Violation::FRAME, "the peer sent a frame that its record cuts off")
    }
}

/// Why a subchannel was reset, stopped or refused: a number below 2³² of the application, or one of ours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u64);

impl Code {
    /// The application dropped its handle.
    pub const CANCELLED: Code = Code(1 << 32);
    /// A message is longer than the receiver takes.
    pub const MESSAGE: Code = Code((1 << 32) + 1);
    /// Nothing listens for the name, nor will.
    pub const UNEXPECTED: Code = Code((1 << 32) + 2);
    /// Too many subchannels wait to be accepted.
    pub const BUSY: Code = Code((1 << 32) + 3);
    /// The subchannel has been there, and is no more.
    pub const GONE: Code = Code((1 << 32) + 4);

    /// The number, if the application gave it.
    pub fn application(self) -> Option<u32> {
        u32::try_from(self.0).ok()
    }
}

impl From<u32> for Code {
    fn from(code: u32) -> Self {
        Code(code.into())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Code::CANCELLED => f.write_str("its application dropped the subchannel"),
            Code::MESSAGE => f.write_str("a message was longer than it takes"),
            Code::UNEXPECTED => f.write_str("nothing listens for this subprotocol there"),
            Code::BUSY => f.write_str("too many subchannels wait to be accepted there"),
            Code::GONE => f.write_str("the subchannel is no more there"),
            Code(code) => write!(f, "code {code}"),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({self})")
    }
}
