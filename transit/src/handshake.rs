//! Everything that happens on a connection before it is a link, as a machine that is fed bytes.
//!
//! ```text
//!            relay only         both at once               Noise                    key confirmation
//! dialler  please relay.. ->
//!          <- ok             prologue <-> prologue   Leader: message 1 ->      Follower: KCM ->
//!                                                    <- Follower: message 2    <- Leader: KCM, if chosen
//! ```
//!
//! Nothing that arrives before the other side has proven that it knows the key can make this machine keep more
//! than a few hundred bytes (specification `ged`, sections "L2 protocol" and "Noise"; `docs/protocol.md`, "Links").

mod error;

use bytes::{Buf, BufMut, BytesMut};

pub use self::error::{HandshakeError, Stage};

use crate::{
    contact::http_reply,
    dialect::{LinkDialect, Offer},
    noise::{Ephemeral, FollowerStart, HANDSHAKE_OVERHEAD, LeaderStart, LeaderWait, TransportKeys},
    pipe::{
        Cipher, DEFAULT_MAX_FRAME, MAX_NOISE_MESSAGE, OpenError, Opener, RECORDS_PER_KEY, Sealer,
        frame_length,
    },
    prologue::{
        RelayRequest, prologue, read_prologue, read_relay_answer, unfinished_prologue,
        unfinished_relay_answer,
    },
    role::{DilationKey, Role},
};

/// The plaintext of a key confirmation message.
pub const KCM: &[u8] = &[0];

const HEADER: usize = 4;

/// What the frame of a key confirmation announces.
const CONFIRMATION_FRAME: usize = frame_length(KCM.len());

/// Bounds on what somebody may send who has not proven yet to know the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeLimits {
    /// Most bytes taken before the handshake is complete, relay answer included. Default 1024; an honest handshake
    /// needs less than 140.
    pub max_bytes: usize,
    /// Longest frame on the finished link, in bytes. Default [`DEFAULT_MAX_FRAME`]. In `dilated-1` it is
    /// [`MAX_NOISE_MESSAGE`] whatever stands here.
    pub max_frame: usize,
}

impl Default for HandshakeLimits {
    fn default() -> HandshakeLimits {
        HandshakeLimits { max_bytes: 1024, max_frame: DEFAULT_MAX_FRAME }
    }
}

enum State {
    Relay(Secrets),
    Prologue(Secrets),
    NoiseLeader(Box<LeaderWait>),
    NoiseFollower(Box<FollowerStart>),
    Confirmation(Box<Pipe>),
    Confirmed(Box<Pipe>),
    Failed(HandshakeError),
}

/// Both ends have keys.
struct Pipe {
    sealer: Sealer,
    opener: Opener,
    /// What the other side's Noise message said, and what ours did. Not to be believed before the confirmation: message 1
    /// may be a repetition.
    offers: Option<(Offer, Offer)>,
}

/// What is needed once the prologue is right, and not touched before.
struct Secrets {
    key: DilationKey,
    ephemeral: Ephemeral,
}

/// What one step of the machine came to.
enum Step {
    Next(State),
    NeedMore(State),
}

/// One connection's handshake, without I/O.
///
/// Send what [`poll_output`](Self::poll_output) gives, feed what arrives to
/// [`handle_input`](Self::handle_input), until [`is_confirmed`](Self::is_confirmed); then
/// [`into_pipe`](Self::into_pipe).
pub struct LinkHandshake {
    role: Role,
    dialect: LinkDialect,
    /// Ours; none in `ged`.
    offer: Option<Offer>,
    limits: HandshakeLimits,
    received: usize,
    /// Our prologue is said, or the relay comes first. Somebody who dials us begins: what an HTTP client says decides in
    /// which language we answer.
    said: bool,
    input: BytesMut,
    output: BytesMut,
    state: State,
}

impl std::fmt::Debug for LinkHandshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkHandshake").field("role", &self.role).field("stage", &self.stage()).finish()
    }
}

impl LinkHandshake {
    /// A handshake in the dialect `ged` on a fresh connection; with `relay`, on a fresh connection to a relay.
    #[must_use]
    pub fn new(
        role: Role,
        key: DilationKey,
        ephemeral: Ephemeral,
        relay: Option<&RelayRequest>,
        limits: HandshakeLimits,
    ) -> LinkHandshake {
        LinkHandshake::start(role, LinkDialect::Ged, key, ephemeral, relay, limits)
    }

    /// The same in `dilated-1`. `aes`: both sides have said that their processors have instructions for it.
    /// `relay`: one [of a generation](RelayRequest::of_generation).
    #[must_use]
    pub fn dilated1(
        role: Role,
        key: DilationKey,
        ephemeral: Ephemeral,
        relay: Option<&RelayRequest>,
        limits: HandshakeLimits,
        aes: bool,
        offer: Offer,
    ) -> LinkHandshake {
        let limits = HandshakeLimits { max_frame: MAX_NOISE_MESSAGE, ..limits };
        let handshake =
            LinkHandshake::start(role, LinkDialect::Dilated1 { aes }, key, ephemeral, relay, limits);
        LinkHandshake { offer: Some(offer), ..handshake }
    }

    fn start(
        role: Role,
        dialect: LinkDialect,
        key: DilationKey,
        ephemeral: Ephemeral,
        relay: Option<&RelayRequest>,
        limits: HandshakeLimits,
    ) -> LinkHandshake {
        let secrets = Secrets { key, ephemeral };
        let (state, output) = match relay {
            // The relay calls us impatient if the prologue follows at once.
            Some(relay) => (State::Relay(secrets), relay.as_bytes()),
            None => (State::Prologue(secrets), prologue(role)),
        };
        LinkHandshake {
            role,
            dialect,
            offer: None,
            limits,
            received: 0,
            said: true,
            input: BytesMut::new(),
            output: BytesMut::from(output),
            state,
        }
    }

    /// The same on a connection that somebody else has made, who begins: a browser gets an answer that it can show. Not
    /// for one to a relay, and before anything else is called.
    #[must_use]
    pub fn accepted(self) -> LinkHandshake {
        LinkHandshake { said: false, output: BytesMut::new(), ..self }
    }

    /// Whether we wait for the first byte of somebody who dialled us.
    #[must_use]
    pub fn is_reticent(&self) -> bool {
        !self.said && self.input.is_empty() && self.stage() == Stage::Prologue
    }

    /// Nothing has come for a while: perhaps the other side waits for us to begin.
    pub fn handle_silence(&mut self) {
        if self.is_reticent() {
            self.say();
        }
    }

    /// What has become of our offer meanwhile. It counts if our Noise message is not made yet; in `ged` never.
    pub fn set_offer(&mut self, offer: Offer) {
        if matches!(self.state, State::Relay(_) | State::Prologue(_) | State::NoiseFollower(_)) {
            self.offer = self.offer.map(|_| offer);
        }
    }

    /// The bytes to send now, if there are any. Those of the final step, too, must be sent.
    pub fn poll_output(&mut self) -> Option<BytesMut> {
        (!self.output.is_empty()).then(|| self.output.split())
    }

    /// Takes received bytes. Bytes behind the key confirmation belong to the link and wait in its [`Opener`].
    ///
    /// # Errors
    ///
    /// [`HandshakeError`], which is final: later calls return it again. Send what there is to send, and drop the connection.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        match &mut self.state {
            State::Failed(error) => return Err(error.clone()),
            State::Confirmed(pipe) => {
                pipe.opener.buffer().extend_from_slice(bytes);
                return Ok(());
            }
            _ => {}
        }
        self.received = self.received.saturating_add(bytes.len());
        self.input.extend_from_slice(bytes);
        loop {
            // While a step runs the state is gone; a step that fails leaves its error here.
            let state = std::mem::replace(&mut self.state, State::Failed(HandshakeError::NoConfirmation));
            let step = self.step(state).map_err(|error| self.fail(error))?;
            match step {
                Step::Next(State::Confirmed(pipe)) => {
                    self.state = State::Confirmed(pipe);
                    return Ok(());
                }
                Step::Next(state) => self.state = state,
                Step::NeedMore(state) => {
                    self.state = state;
                    break;
                }
            }
        }
        if self.received > self.limits.max_bytes {
            return Err(self.fail(HandshakeError::TooManyBytes { limit: self.limits.max_bytes }));
        }
        Ok(())
    }

    /// Notes that the other end closed the connection, and says what that means here.
    pub fn handle_eof(&mut self) -> HandshakeError {
        if let State::Failed(error) = &self.state {
            return error.clone();
        }
        let error = self.unfinished().unwrap_or(HandshakeError::Closed(self.stage()));
        self.fail(error)
    }

    /// What is wrong if nothing more comes, as far as what came shows it.
    #[must_use]
    pub fn unfinished(&self) -> Option<HandshakeError> {
        match &self.state {
            State::Failed(error) => Some(error.clone()),
            State::Relay(_) => unfinished_relay_answer(&self.input).map(HandshakeError::Relay),
            State::Prologue(_) => unfinished_prologue(&self.input).map(HandshakeError::Prologue),
            _ => None,
        }
    }

    /// How far the handshake has come.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.state {
            State::Relay(_) => Stage::Relay,
            State::Prologue(_) => Stage::Prologue,
            State::NoiseLeader(_) | State::NoiseFollower(_) => Stage::Noise,
            State::Confirmation(_) => Stage::Confirmation,
            State::Confirmed(_) => Stage::Confirmed,
            State::Failed(_) => Stage::Failed,
        }
    }

    /// Whether the other side has confirmed its key.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.stage() == Stage::Confirmed
    }

    /// Whether it may take as long as it likes until the next byte comes: at a relay until the other side is there, too,
    /// and where a Follower waits for the Leader's choice. (A Leader in `ged` gives a Follower's confirmation the same
    /// time; it follows at once.)
    #[must_use]
    pub fn is_unhurried(&self) -> bool {
        match self.stage() {
            Stage::Relay => self.unfinished().is_none(),
            Stage::Confirmation => self.awaits_choice() || self.dialect == LinkDialect::Ged,
            _ => false,
        }
    }

    /// Whether a Follower has done all that it can: the Leader's choice is missing, or that this is the one.
    #[must_use]
    pub fn awaits_choice(&self) -> bool {
        self.stage() == Stage::Confirmation && self.role == Role::Follower
    }

    /// What the other side offers, once it has confirmed its key; before that, and in `ged`, `None`.
    #[must_use]
    pub fn peer_offer(&self) -> Option<Offer> {
        Some(self.offers()?.0)
    }

    /// The generation of the link, once the other side has confirmed its key: the greater of the two that were offered.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        let (theirs, ours) = self.offers()?;
        Some(theirs.generation.max(ours.generation))
    }

    fn offers(&self) -> Option<(Offer, Offer)> {
        match &self.state {
            State::Confirmed(pipe) => pipe.offers,
            _ => None,
        }
    }

    /// The two ends of the pipe, once the other side has confirmed its key; before that, `None`.
    ///
    /// A Leader that chooses this connection seals a [`KCM`] first.
    #[must_use]
    pub fn into_pipe(self) -> Option<(Sealer, Opener)> {
        match self.state {
            State::Confirmed(pipe) => Some((pipe.sealer, pipe.opener)),
            _ => None,
        }
    }

    fn fail(&mut self, error: HandshakeError) -> HandshakeError {
        self.state = State::Failed(error.clone());
        self.output.clear();
        if !self.said
            && let Some(reply) = http_reply(&self.input)
        {
            self.output.extend_from_slice(reply);
        }
        self.input = BytesMut::new();
        error
    }

    fn step(&mut self, state: State) -> Result<Step, HandshakeError> {
        match state {
            State::Relay(secrets) => self.step_relay(secrets),
            State::Prologue(secrets) => self.step_prologue(secrets),
            State::NoiseLeader(wait) => match self.frame()? {
                None => Ok(Step::NeedMore(State::NoiseLeader(wait))),
                Some(message) => {
                    let mut payload = self.payload();
                    let keys = wait.finish(&message, &mut payload).map_err(|_| HandshakeError::WrongKey)?;
                    Ok(Step::Next(self.transport(&keys, &payload)))
                }
            },
            State::NoiseFollower(start) => match self.frame()? {
                None => Ok(Step::NeedMore(State::NoiseFollower(start))),
                Some(message) => {
                    let mut payload = self.payload();
                    let (answer, keys) =
                        start.finish(&message, &mut payload).map_err(|_| HandshakeError::WrongKey)?;
                    self.send_frame(&answer);
                    Ok(Step::Next(self.transport(&keys, &payload)))
                }
            },
            State::Confirmation(pipe) => self.step_confirmation(pipe),
            state @ (State::Confirmed(_) | State::Failed(_)) => Ok(Step::NeedMore(state)),
        }
    }

    fn step_relay(&mut self, secrets: Secrets) -> Result<Step, HandshakeError> {
        let Some(taken) = read_relay_answer(&self.input)? else {
            return Ok(Step::NeedMore(State::Relay(secrets)));
        };
        self.input.advance(taken);
        self.output.extend_from_slice(prologue(self.role));
        Ok(Step::Next(State::Prologue(secrets)))
    }

    fn say(&mut self) {
        self.said = true;
        self.output.extend_from_slice(prologue(self.role));
    }

    fn step_prologue(&mut self, secrets: Secrets) -> Result<Step, HandshakeError> {
        // Nobody of ours begins like anything else.
        if !self.said && self.input.first() == prologue(self.role).first() {
            self.say();
        }
        let Some(taken) = read_prologue(&self.input, self.role.other())? else {
            return Ok(Step::NeedMore(State::Prologue(secrets)));
        };
        self.input.advance(taken);
        let Secrets { key, ephemeral } = secrets;
        Ok(Step::Next(match self.role {
            Role::Leader => {
                let start = LeaderStart::new(&key, ephemeral, self.cipher());
                let (message, wait) = start.start(&self.payload());
                self.send_frame(&message);
                State::NoiseLeader(Box::new(wait))
            }
            Role::Follower => {
                State::NoiseFollower(Box::new(FollowerStart::new(&key, ephemeral, self.cipher())))
            }
        }))
    }

    fn step_confirmation(&mut self, mut pipe: Box<Pipe>) -> Result<Step, HandshakeError> {
        let opener = &mut pipe.opener;
        opener.buffer().extend_from_slice(&self.input.split());
        // The limit on frames holds for those who have proven to know the key; here only one length is right.
        if let Some(length) = opener.announced()
            && length != CONFIRMATION_FRAME
        {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            return Err(HandshakeError::FrameLength { length, expected: CONFIRMATION_FRAME });
        }
        match opener.next_message() {
            Ok(None) => Ok(Step::NeedMore(State::Confirmation(pipe))),
            Ok(Some(message)) if message == KCM => Ok(Step::Next(State::Confirmed(pipe))),
            Ok(Some(_)) => Err(HandshakeError::NoConfirmation),
            Err(OpenError::Undecryptable) => Err(HandshakeError::WrongKey),
            Err(_) => Err(HandshakeError::NoConfirmation),
        }
    }

    /// The next handshake frame, or `None` while it is incomplete. Its length is known beforehand, so that nobody
    /// can make us wait for a longer one.
    fn frame(&mut self) -> Result<Option<Vec<u8>>, HandshakeError> {
        let Some(header) = self.input.first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_be_bytes(*header);
        let expected = HANDSHAKE_OVERHEAD + self.payload().len();
        if usize::try_from(length) != Ok(expected) {
            return Err(HandshakeError::FrameLength { length, expected });
        }
        let message = self.input[HEADER..].get(..expected).map(<[u8]>::to_vec);
        if message.is_some() {
            self.input.advance(HEADER + expected);
        }
        Ok(message)
    }

    fn send_frame(&mut self, message: &[u8]) {
        self.output.put_u32(u32::try_from(message.len()).expect("a handshake message is short"));
        self.output.extend_from_slice(message);
    }

    fn cipher(&self) -> Cipher {
        match self.dialect {
            LinkDialect::Dilated1 { aes: true } => Cipher::AesGcm,
            LinkDialect::Ged | LinkDialect::Dilated1 { aes: false } => Cipher::ChaChaPoly,
        }
    }

    /// That of our Noise message; the other side's has the same length.
    fn payload(&self) -> Vec<u8> {
        self.offer.map_or_else(Vec::new, |offer| offer.encode().to_vec())
    }

    /// Both sides have keys. The Follower confirms at once; the Leader only the link it chooses.
    fn transport(&mut self, keys: &TransportKeys, peer: &[u8]) -> State {
        let cipher = self.cipher();
        let most = match self.dialect {
            // What the other side takes is not known.
            LinkDialect::Ged => usize::try_from(u32::MAX).unwrap_or(usize::MAX),
            LinkDialect::Dilated1 { .. } => MAX_NOISE_MESSAGE,
        };
        let mut sealer = Sealer::new(&keys.send, cipher, most);
        let mut opener = Opener::new(&keys.receive, cipher, self.limits.max_frame, self.input.split());
        if let LinkDialect::Dilated1 { .. } = self.dialect {
            sealer.renew_key_after(RECORDS_PER_KEY);
            opener.renew_key_after(RECORDS_PER_KEY);
        }
        if self.role == Role::Follower {
            sealer.seal(&[KCM], &mut self.output).expect("one byte is neither empty nor too long");
        }
        let offers = Offer::decode(peer).zip(self.offer);
        State::Confirmation(Box::new(Pipe { sealer, opener, offers }))
    }
}

#[cfg(test)]
mod dilated1_tests;
#[cfg(test)]
mod tests;
