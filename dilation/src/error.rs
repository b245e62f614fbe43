//! Why a dilation did not come about, or ended.

use thiserror::Error;

/// Why there is no dilated link, for good. A link that is lost and comes back is not an error; the status tells
/// of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DilationError {
    /// The peer's software cannot dilate, or shares no version of the protocol with us.
    #[error(
        "the other side cannot dilate with us: its program offers {theirs}, ours needs {ours}; \
         both programs must be built for dilated wormholes"
    )]
    PeerCannotDilate {
        /// The versions it offered, for people.
        theirs: String,
        /// Those that we offered.
        ours: String,
    },
    /// The peer's side equals ours.
    #[error(
        "our own dilation message came back to us; somebody reflects messages, start again with a new code"
    )]
    Reflection,
    /// The peer broke the protocol in a way that every new link would repeat.
    #[error("the other side broke the dilation protocol: {0}")]
    Protocol(String),
    /// A counter of the protocol has come to its end. The text says which, and what to do.
    #[error("{0}")]
    Exhausted(String),
    /// The peer said that it closes its wormhole.
    #[error("the other side closed its wormhole")]
    PeerClosed,
    /// The peer ended the link because of an error that it found, in `dilated-1`.
    #[error("the other side ended the link, with code {code}: {reason:?}")]
    Refused {
        /// Which (specification `dilated-1`, section "The end").
        code: u64,
        /// The peer's explanation. Not to be trusted.
        reason: String,
    },
    /// This wormhole was built with `dilation(false)`.
    #[error("this wormhole was built without dilation; build it with `.dilation(true)`")]
    Disabled,
    /// `dilate` may be called once.
    #[error("`dilate` was already called on this wormhole; keep and share the Dilated that it gave")]
    AlreadyDilated,
    /// The wormhole ended.
    #[error("the wormhole ended: {0}")]
    Wormhole(#[from] crate::WormholeError),
    /// The configuration cannot work.
    #[error("the dilation's configuration cannot work: {0}")]
    Config(String),
}
