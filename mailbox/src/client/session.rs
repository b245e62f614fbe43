//! The key agreement and what hangs on it: early messages wait for the key, ours wait for its proof.

use std::collections::VecDeque;

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::ClientConfig;
use super::event::KeyStatus;
use crate::error::WormholeError;
use crate::message::{MailboxMessage, Phase};
use crate::pake::{MESSAGE_LEN, Pake};
use crate::{Code, Key};

/// What the session wants done, in order.
#[derive(Debug)]
pub(super) enum Action {
    /// Add a message to the mailbox.
    Add { phase: String, body: Vec<u8> },
    /// A key was computed.
    UnverifiedKey(Key),
    /// The peer proved it.
    Verified { verifier: [u8; 32] },
    /// A message of the peer, decrypted.
    Received { phase: Phase, plaintext: Vec<u8> },
}

enum State {
    /// The code is not known. The peer's key-agreement message may be, if the code is being typed.
    NoCode { peer: Option<Vec<u8>> },
    /// Our message is in the mailbox; the peer's is missing.
    Waiting(Pake),
    /// The peer has not proved the key.
    Unverified(Key),
    /// It has.
    Verified(Key),
    /// The agreement or a decryption failed. Terminal, and told once; the key stays readable if there was one.
    Failed { key: Option<Key>, status: KeyStatus },
}

pub(super) struct Session {
    side: String,
    state: State,
    /// The peer's messages before there is a key.
    early: VecDeque<MailboxMessage>,
    early_bytes: usize,
    /// Ours before the key is proved.
    unsent: VecDeque<(String, Vec<u8>)>,
    unsent_bytes: usize,
    actions: VecDeque<Action>,
}

#[derive(Deserialize)]
struct PakeBody {
    pake_v1: Option<String>,
}

#[derive(Serialize)]
struct Hint {
    r#type: &'static str,
}

#[derive(Serialize)]
struct VersionBody<'a> {
    #[serde(rename = "can-dilate", skip_serializing_if = "<[String]>::is_empty")]
    can_dilate: &'a [String],
    #[serde(rename = "dilation-abilities", skip_serializing_if = "<[Hint]>::is_empty")]
    abilities: &'a [Hint],
    app_versions: &'a Value,
}

impl Session {
    pub(super) fn new(side: String) -> Self {
        Self {
            side,
            state: State::NoCode { peer: None },
            early: VecDeque::new(),
            early_bytes: 0,
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            actions: VecDeque::new(),
        }
    }

    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(super) fn status(&self) -> KeyStatus {
        match self.state {
            State::Unverified(_) => KeyStatus::AllegedSharedKey,
            State::Verified(_) => KeyStatus::ConfirmedKey,
            State::Failed { status, .. } => status,
            State::NoCode { .. } | State::Waiting(_) => KeyStatus::NoKey,
        }
    }

    /// Plaintext bytes that wait for the proof.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    pub(super) fn key(&self) -> Option<&Key> {
        match &self.state {
            State::Unverified(key) | State::Verified(key) => Some(key),
            State::Failed { key, .. } => key.as_ref(),
            State::NoCode { .. } | State::Waiting(_) => None,
        }
    }

    pub(super) fn got_code(
        &mut self,
        code: &Code,
        config: &ClientConfig,
        rng: &mut impl CryptoRng,
    ) -> Result<(), WormholeError> {
        let State::NoCode { peer } = &mut self.state else { return Ok(()) };
        let peer = peer.take();
        let pake = Pake::start(code, &config.appid, rng);
        let message = data_encoding::HEXLOWER.encode(pake.message());
        let body = serde_json::json!({ "pake_v1": message }).to_string().into_bytes();
        self.actions.push_back(Action::Add { phase: "pake".to_owned(), body });
        self.state = State::Waiting(pake);
        peer.map_or(Ok(()), |body| self.got_pake(body, config, rng))
    }

    pub(super) fn got_message(
        &mut self,
        message: MailboxMessage,
        config: &ClientConfig,
        rng: &mut impl CryptoRng,
    ) -> Result<(), WormholeError> {
        if Phase::parse(&message.phase) == Phase::Pake {
            return self.got_pake(message.body, config, rng);
        }
        match &self.state {
            State::NoCode { .. } | State::Waiting(_) => self.queue_early(message, config),
            State::Unverified(_) | State::Verified(_) => self.decrypt(&message, rng),
            State::Failed { .. } => Ok(()),
        }
    }

    fn queue_early(&mut self, message: MailboxMessage, config: &ClientConfig) -> Result<(), WormholeError> {
        let limits = &config.limits;
        self.early_bytes += message.body.len();
        self.early.push_back(message);
        if self.early.len() > limits.queued_messages {
            return Err(WormholeError::limit("messages before the key agreement", limits.queued_messages));
        }
        if self.early_bytes > limits.queued_bytes {
            return Err(WormholeError::limit("bytes before the key agreement", limits.queued_bytes));
        }
        Ok(())
    }

    fn got_pake(
        &mut self,
        body: Vec<u8>,
        config: &ClientConfig,
        rng: &mut impl CryptoRng,
    ) -> Result<(), WormholeError> {
        match &mut self.state {
            State::NoCode { peer } => {
                *peer = Some(body);
                return Ok(());
            }
            State::Waiting(_) => {}
            State::Unverified(_) | State::Verified(_) | State::Failed { .. } => return Ok(()),
        }
        let failed = State::Failed { key: None, status: KeyStatus::NoKey };
        let State::Waiting(pake) = std::mem::replace(&mut self.state, failed) else {
            unreachable!("the state was just seen to be Waiting")
        };
        let key = pake.finish(&peer_point(&body)?)?;
        self.actions.push_back(Action::UnverifiedKey(key.clone()));
        // Before everything else that is sealed: a Python peer must see our versions before dilation.
        let version = version_plaintext(config);
        self.actions.push_back(seal(&key, &self.side, "version".to_owned(), &version, rng));
        self.state = State::Unverified(key);
        self.early_bytes = 0;
        for message in std::mem::take(&mut self.early) {
            self.decrypt(&message, rng)?;
        }
        Ok(())
    }

    fn decrypt(&mut self, message: &MailboxMessage, rng: &mut impl CryptoRng) -> Result<(), WormholeError> {
        let (State::Unverified(key) | State::Verified(key)) = &self.state else { return Ok(()) };
        let Some(plaintext) = key.phase_key(&message.side, &message.phase).open(&message.body) else {
            self.state = State::Failed { key: Some(key.clone()), status: self.status() };
            return Err(WormholeError::WrongPassword);
        };
        if let State::Unverified(key) = &self.state {
            let key = key.clone();
            for (phase, plaintext) in std::mem::take(&mut self.unsent) {
                self.actions.push_back(seal(&key, &self.side, phase, &plaintext, rng));
            }
            self.unsent_bytes = 0;
            self.actions.push_back(Action::Verified { verifier: key.verifier() });
            self.state = State::Verified(key);
        }
        self.actions.push_back(Action::Received { phase: Phase::parse(&message.phase), plaintext });
        Ok(())
    }

    /// Sends a message, or keeps it until the key is proved.
    pub(super) fn send(&mut self, phase: String, plaintext: Vec<u8>, rng: &mut impl CryptoRng) {
        match &self.state {
            State::Verified(key) => {
                let action = seal(key, &self.side, phase, &plaintext, rng);
                self.actions.push_back(action);
            }
            State::NoCode { .. } | State::Waiting(_) | State::Unverified(_) => {
                self.unsent_bytes += plaintext.len();
                self.unsent.push_back((phase, plaintext));
            }
            State::Failed { .. } => {}
        }
    }
}

fn seal(key: &Key, side: &str, phase: String, plaintext: &[u8], rng: &mut impl CryptoRng) -> Action {
    let body = key.phase_key(side, &phase).seal(plaintext, rng);
    Action::Add { phase, body }
}

/// Wire facts, section 2: a message without `pake_v1` counts as a wrong password, as it does for Python.
fn peer_point(body: &[u8]) -> Result<Vec<u8>, WormholeError> {
    let bad = |reason| WormholeError::BadPake { reason };
    let body: PakeBody = serde_json::from_slice(body).map_err(|_| bad("it is not JSON"))?;
    let hex = body.pake_v1.ok_or(WormholeError::WrongPassword)?;
    if hex.len() != 2 * MESSAGE_LEN {
        return Err(bad("its length is wrong"));
    }
    data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).map_err(|_| bad("it is not hexadecimal"))
}

fn version_plaintext(config: &ClientConfig) -> Vec<u8> {
    const ABILITIES: &[Hint] = &[Hint { r#type: "direct-tcp-v1" }, Hint { r#type: "relay-v1" }];
    let abilities = if config.can_dilate.is_empty() { &[] } else { ABILITIES };
    let body = VersionBody { can_dilate: &config.can_dilate, abilities, app_versions: &config.app_versions };
    serde_json::to_vec(&body).expect("a JSON value and strings always serialise")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_message_is_pythons() {
        let mut config = ClientConfig::new("a");
        let text = |config: &ClientConfig| String::from_utf8(version_plaintext(config)).unwrap();
        assert_eq!(text(&config), r#"{"app_versions":{}}"#);
        config.can_dilate = vec!["ged".into()];
        let expected = concat!(
            r#"{"can-dilate":["ged"],"dilation-abilities":"#,
            r#"[{"type":"direct-tcp-v1"},{"type":"relay-v1"}],"app_versions":{}}"#
        );
        assert_eq!(text(&config), expected);
    }

    #[test]
    fn pake_bodies() {
        assert_eq!(peer_point(b"{}"), Err(WormholeError::WrongPassword));
        for bad in [&b""[..], b"[]", b"x", br#"{"pake_v1":1}"#, br#"{"pake_v1":"00"}"#] {
            assert!(matches!(peer_point(bad), Err(WormholeError::BadPake { .. })));
        }
        let body = format!(r#"{{"pake_v1":"{}","more":1}}"#, "53".repeat(33));
        assert_eq!(peer_point(body.as_bytes()).unwrap(), [0x53; 33]);
        let body = format!(r#"{{"pake_v1":"{}"}}"#, "zz".repeat(33));
        assert!(matches!(peer_point(body.as_bytes()), Err(WormholeError::BadPake { .. })));
    }
}
