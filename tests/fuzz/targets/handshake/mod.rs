//! What both targets of handshakes do: a stranger talks to one.

use dilated_transit::{Ephemeral, HandshakeLimits, LinkHandshake, RelayRequest, Role, Stage};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// The most that we say to somebody who has not confirmed the key, in bytes.
const MOST_ANSWERED: usize = 512;

/// One input. First byte: bit 0 makes us the Leader, bit 1 puts a relay between, the upper six bits are the size of the
/// pieces that arrive. The rest is what the stranger sends.
pub(crate) struct Stranger<'a> {
    pub(crate) role: Role,
    has_relay: bool,
    piece: usize,
    sent: &'a [u8],
}

impl<'a> Stranger<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Option<Self> {
        let (flags, sent) = data.split_first()?;
        let role = if flags & 1 == 1 { Role::Leader } else { Role::Follower };
        Some(Self { role, has_relay: flags & 2 == 2, piece: usize::from(flags >> 2) + 1, sent })
    }

    /// Our request, if there is a relay between.
    pub(crate) fn relay<'r>(&self, request: &'r RelayRequest) -> Option<&'r RelayRequest> {
        self.has_relay.then_some(request)
    }

    /// Sends everything, after `before_each` piece; sees that a failure is for good, that little is taken and said, and that
    /// the key is not confirmed.
    pub(crate) fn talk(&self, handshake: &mut LinkHandshake, before_each: impl Fn(&mut LinkHandshake)) {
        let (mut taken, mut answered) = (0, 0);
        for piece in self.sent.chunks(self.piece) {
            before_each(handshake);
            let result = handshake.handle_input(piece);
            while let Some(output) = handshake.poll_output() {
                answered += output.len();
            }
            if let Err(error) = result {
                assert_eq!(handshake.stage(), Stage::Failed);
                assert_eq!(handshake.handle_input(b"more"), Err(error));
                break;
            }
            taken += piece.len();
        }
        assert!(taken <= HandshakeLimits::default().max_bytes, "{taken} bytes taken");
        assert!(answered <= MOST_ANSWERED, "{answered} bytes answered");
        assert!(!handshake.is_confirmed());
    }
}

/// The end of the connection: there is no link.
pub(crate) fn hang_up(mut handshake: LinkHandshake) {
    handshake.handle_eof();
    assert!(handshake.into_pipe().is_none());
}

/// The same each time.
pub(crate) fn ephemeral() -> Ephemeral {
    Ephemeral::generate(&mut StdRng::seed_from_u64(1))
}
