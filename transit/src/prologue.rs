//! The lines that open a connection: the request to a relay, its answer, and the prologues that tell a dilated
//! wormhole from everything else that listens on TCP (specification `ged`, section "L2 protocol").

use std::fmt;

use data_encoding::HEXLOWER;
use hkdf::Hkdf;
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    contact::is_http_request,
    role::{DilationKey, Role},
};

const PROLOGUE_LEADER: &[u8] = b"Magic-Wormhole Dilation Handshake v1 Leader\n\n";
const PROLOGUE_FOLLOWER: &[u8] = b"Magic-Wormhole Dilation Handshake v1 Follower\n\n";

const RELAY_OK: &[u8] = b"ok\n";
const RELAY_BAD_HANDSHAKE: &[u8] = b"bad handshake\n";
const RELAY_IMPATIENT: &[u8] = b"impatient\n";

/// Most bytes read of an answer that is not the one expected, only to tell what answered.
const MAX_ANSWER: usize = 64;

/// The line that a side sends first on every connection.
pub(crate) fn prologue(role: Role) -> &'static [u8] {
    match role {
        Role::Leader => PROLOGUE_LEADER,
        Role::Follower => PROLOGUE_FOLLOWER,
    }
}

/// The line that asks a relay to join us with the other side: `please relay <token> for side <side>\n`.
///
/// The token is known to the two sides only; it is not printed.
#[derive(Clone)]
pub struct RelayRequest(Zeroizing<Vec<u8>>);

/// A dilation side that a relay would not accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the dilation side must be 16 lower-case hexadecimal digits, or relays refuse it")]
pub struct SideError;

impl RelayRequest {
    /// The request of one side of a wormhole that is dilated in the dialect `ged`. The token is HKDF-SHA256 of the
    /// dilation key with the info `transit_relay_token`.
    ///
    /// # Errors
    ///
    /// [`SideError`] if `side` is not 16 lower-case hexadecimal digits.
    pub fn new(key: &DilationKey, side: &str) -> Result<RelayRequest, SideError> {
        RelayRequest::with_info(key, side, "transit_relay_token")
    }

    /// The same for `dilated-1`, whose token is another for each generation: HKDF-SHA256 of the dilation key with the info
    /// `dilated-1 relay token ` and the generation in decimal.
    ///
    /// # Errors
    ///
    /// [`SideError`] if `side` is not 16 lower-case hexadecimal digits.
    pub fn of_generation(key: &DilationKey, side: &str, generation: u64) -> Result<RelayRequest, SideError> {
        RelayRequest::with_info(key, side, &format!("dilated-1 relay token {generation}"))
    }

    fn with_info(key: &DilationKey, side: &str, info: &str) -> Result<RelayRequest, SideError> {
        RelayRequest::with_token(&derive(key.as_bytes(), info), side)
    }

    pub(crate) fn with_token(token: &[u8; 32], side: &str) -> Result<RelayRequest, SideError> {
        let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if side.len() != 16 || !side.bytes().all(hex) {
            return Err(SideError);
        }
        let token = Zeroizing::new(HEXLOWER.encode(token));
        let line = format!("please relay {} for side {side}\n", token.as_str());
        Ok(RelayRequest(Zeroizing::new(line.into_bytes())))
    }

    /// The bytes to send, the final newline included.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for RelayRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayRequest(..)")
    }
}

/// HKDF-SHA256 of a key without a salt.
pub(crate) fn derive(key: &[u8; 32], info: &str) -> Zeroizing<[u8; 32]> {
    let mut derived = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(None, key)
        .expand(info.as_bytes(), derived.as_mut())
        .expect("32 bytes are within HKDF-SHA256's limit of 8160");
    derived
}

/// What somebody sent who is not what we expected: a guess at what it is, and its first bytes, escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    what: &'static str,
    bytes: String,
}

impl Answer {
    fn new(what: &'static str, bytes: &[u8]) -> Answer {
        let end = bytes.len().min(MAX_ANSWER);
        let line = bytes[..end].split(|b| *b == b'\n').next().unwrap_or_default();
        Answer { what, bytes: line.escape_ascii().to_string() }
    }

    pub(crate) fn recognize(bytes: &[u8]) -> Answer {
        let what = match bytes {
            [] => "nothing",
            [b'H', b'T', b'T', b'P', b'/', ..] | [b'<', ..] => "a web server",
            // A handshake record or an alert, then the version 3.x.
            [0x15 | 0x16, 0x03, ..] => "a TLS server",
            [b'S', b'S', b'H', b'-', ..] => "an SSH server",
            [b'2', b'2', b'0', b' ' | b'-', ..] => "a mail or FTP server",
            [b'+', b'O', b'K', ..] | [b'*', b' ', b'O', b'K', ..] => "a mail server",
            _ if is_http_request(bytes) => "a web browser",
            _ if bytes.starts_with(b"Magic-Wormhole Dilation") => "a dilated wormhole",
            _ if bytes.starts_with(b"transit ") => "a file transfer (Transit v1)",
            _ if bytes.starts_with(b"please relay") => "a client of a transit relay",
            _ if RELAY_BAD_HANDSHAKE.starts_with(bytes) || RELAY_IMPATIENT.starts_with(bytes) => {
                "a transit relay"
            }
            _ => "something else",
        };
        Answer::new(what, bytes)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        if self.bytes.is_empty() { Ok(()) } else { write!(f, ", which said `{}`", self.bytes) }
    }
}

/// Why a relay did not join us with the other side.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The relay could not parse our request.
    #[error("the relay refused the request as a bad handshake; it may speak another version of the protocol")]
    BadHandshake,
    /// The relay saw bytes of ours before it said `ok`.
    #[error("the relay closed the connection because something was sent before it answered")]
    Impatient,
    /// Whatever listens there is no relay.
    #[error("no transit relay listens there: {0} answered; check the relay's host and port")]
    NotARelay(Answer),
}

/// Why the prologue of the other side was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PrologueError {
    /// The other end says that it has our role; perhaps we dialled ourselves.
    #[error("the other end claims to be the {0}, too; it is not the other side of this wormhole")]
    SameRole(Role),
    /// Whatever is there does not speak the dilation protocol.
    #[error("the other side does not listen there: {0} answered")]
    NotAPeer(Answer),
}

/// Looks for the relay's `ok`. Returns how many bytes it took, or `None` while it is incomplete.
pub(crate) fn read_relay_answer(buffer: &[u8]) -> Result<Option<usize>, RelayError> {
    if buffer.starts_with(RELAY_OK) {
        return Ok(Some(RELAY_OK.len()));
    }
    if buffer.starts_with(RELAY_BAD_HANDSHAKE) {
        return Err(RelayError::BadHandshake);
    }
    if buffer.starts_with(RELAY_IMPATIENT) {
        return Err(RelayError::Impatient);
    }
    if buffer.contains(&b'\n') || buffer.len() >= MAX_ANSWER {
        return Err(RelayError::NotARelay(Answer::recognize(buffer)));
    }
    Ok(None)
}

/// What a relay's answer that has not ended yet shows so far: nothing, or that it is none.
pub(crate) fn unfinished_relay_answer(buffer: &[u8]) -> Option<RelayError> {
    let may_become = |answer: &&[u8]| answer.starts_with(buffer);
    let known = [RELAY_OK, RELAY_BAD_HANDSHAKE, RELAY_IMPATIENT].iter().any(may_become);
    (!known).then(|| RelayError::NotARelay(Answer::recognize(buffer)))
}

/// Looks for the prologue of `role`. Returns how many bytes it took, or `None` while it is incomplete.
///
/// Like Python, a mismatch is reported only when a newline or enough bytes are there, so that the error can say
/// what answered.
pub(crate) fn read_prologue(buffer: &[u8], role: Role) -> Result<Option<usize>, PrologueError> {
    let expected = prologue(role);
    if buffer.starts_with(expected) {
        return Ok(Some(expected.len()));
    }
    if expected.starts_with(buffer) {
        return Ok(None);
    }
    let ours = prologue(role.other());
    if buffer.starts_with(ours) {
        return Err(PrologueError::SameRole(role.other()));
    }
    let on_track = ours.starts_with(buffer);
    if (buffer.contains(&b'\n') && !on_track) || buffer.len() >= expected.len().max(ours.len()) {
        return Err(PrologueError::NotAPeer(Answer::recognize(buffer)));
    }
    Ok(None)
}

/// The error for a connection on which a prologue began and nothing follows. None if nothing came.
pub(crate) fn unfinished_prologue(buffer: &[u8]) -> Option<PrologueError> {
    (!buffer.is_empty()).then(|| PrologueError::NotAPeer(Answer::recognize(buffer)))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn vectors() {
        let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors.json"));
        let vectors: Value = serde_json::from_str(text).unwrap();
        let dilation = &vectors["dilation"];
        let string = |name: &str| dilation[name].as_str().unwrap();
        let key = HEXLOWER.decode(string("dilation_key").as_bytes()).unwrap();
        let key = DilationKey::new(key.try_into().unwrap());
        let request = RelayRequest::new(&key, string("relay_side")).unwrap();
        assert_eq!(request.as_bytes(), string("relay_handshake").as_bytes());
        assert!(string("relay_handshake").contains(string("relay_token")));
        assert!(!format!("{request:?}").contains(string("relay_token")));
        assert_eq!(prologue(Role::Leader), string("prologue_leader").as_bytes());
        assert_eq!(prologue(Role::Follower), string("prologue_follower").as_bytes());
    }

    #[test]
    fn a_side_that_relays_refuse_is_refused_here() {
        let key = DilationKey::new([1; 32]);
        for side in ["", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcde\n"] {
            assert_eq!(RelayRequest::new(&key, side).unwrap_err(), SideError);
        }
    }

    #[test]
    fn relay_answers() {
        for n in 0..3 {
            assert_eq!(read_relay_answer(&b"ok\n"[..n]), Ok(None));
        }
        assert_eq!(read_relay_answer(b"ok\nMagic"), Ok(Some(3)));
        assert_eq!(read_relay_answer(b"bad handshake\n"), Err(RelayError::BadHandshake));
        assert_eq!(read_relay_answer(b"impatient\n"), Err(RelayError::Impatient));
        let error = read_relay_answer(b"HTTP/1.1 400 Bad Request\r\n").unwrap_err().to_string();
        assert!(error.contains("a web server") && error.contains("400 Bad Request"), "{error}");
        assert!(read_relay_answer(&[b'x'; 63]).unwrap().is_none());
        assert!(read_relay_answer(&[b'x'; 64]).is_err());
    }

    #[test]
    fn the_error_names_what_answered() {
        for (bytes, what) in [
            (&b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n"[..], "a web server"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "an SSH server"),
            (b"220 mail.example ESMTP\r\n", "a mail or FTP server"),
            (b"\x15\x03\x01\x00\x02\x02\n", "a TLS server"),
            (b"transit sender 00\n", "a file transfer"),
            (b"\x1b[31mhello\n", "something else, which said `\\x1b[31mhello`"),
        ] {
            let error = read_prologue(bytes, Role::Leader).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        assert!(unfinished_prologue(b"\x15\x03").unwrap().to_string().contains("a TLS server"));
        assert_eq!(unfinished_prologue(b""), None);
        assert!(unfinished_relay_answer(b"\x15\x03").unwrap().to_string().contains("a TLS server"));
        for begun in [&b""[..], b"o", b"ok", b"bad hand", b"imp"] {
            assert_eq!(unfinished_relay_answer(begun), None);
        }
    }

    #[test]
    fn prologues() {
        for role in [Role::Leader, Role::Follower] {
            let expected = prologue(role);
            for n in 0..expected.len() {
                assert_eq!(read_prologue(&expected[..n], role), Ok(None), "{n}");
            }
            assert_eq!(read_prologue(expected, role), Ok(Some(expected.len())));
            assert_eq!(
                read_prologue(prologue(role.other()), role),
                Err(PrologueError::SameRole(role.other()))
            );
            assert!(matches!(read_prologue(b"Magic-Wormhole\n", role), Err(PrologueError::NotAPeer(_))));
            assert!(matches!(read_prologue(&[0; 4096], role), Err(PrologueError::NotAPeer(_))));
        }
    }
}
