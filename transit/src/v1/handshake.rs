//! What happens on a connection before its records, as a machine that is fed bytes.

use bytes::{Buf, BytesMut};
use thiserror::Error;

use super::{
    keys::{Part, TransitKey},
    record::{RecordOpener, RecordSealer},
};
use crate::{
    contact::{Contact, http_reply},
    prologue::{Answer, RelayError, read_relay_answer, unfinished_relay_answer},
};

/// How all lines begin that the two sides greet each other with.
const GREETING: &[u8] = b"transit ";
/// The Sender's choice of this connection.
const GO: &[u8] = b"go\n";
/// The Sender's choice of another.
const NEVERMIND: &[u8] = b"nevermind\n";

/// Why a connection cannot carry the transfer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TransitError {
    /// The relay did not join us with the other side.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// Whatever is there is not the other side.
    #[error("the other side does not listen there: {0} answered")]
    NotAPeer(Answer),
    /// Another transfer listens there, or we dialled ourselves.
    #[error("a {0} of another transfer answered, or we dialled ourselves")]
    AnotherTransfer(Part),
    /// The Sender chose another connection.
    #[error("the sender uses another connection")]
    Nevermind,
    /// The Sender said neither go nor nevermind.
    #[error("the sender said something else instead of its choice")]
    NoChoice,
    /// The connection ended while the handshake was in this stage.
    #[error("the connection was closed while {0}")]
    Closed(TransitStage),
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TransitStage {
    /// The relay waits for the other side to come, too. Not to be hurried: that may take long.
    Relay,
    /// Waiting for the other side's line.
    Greeting,
    /// A Receiver waits for the Sender's choice.
    Choice,
    /// A candidate for the Sender, the chosen connection for the Receiver.
    Ready,
    /// It has failed.
    Failed,
}

impl std::fmt::Display for TransitStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TransitStage::Relay => "the relay waited for the other side",
            TransitStage::Greeting => "the other side's greeting was awaited",
            TransitStage::Choice => "the sender's choice was awaited",
            TransitStage::Ready => "the connection was ready",
            TransitStage::Failed => "nothing was expected any more",
        })
    }
}

#[derive(Debug)]
enum State {
    Relay,
    /// `said`: ours is. Somebody who dials us begins: what an HTTP client says first decides in which language we answer.
    Greeting {
        said: bool,
    },
    Choice,
    Ready,
    Failed(TransitError),
}

/// One connection of Transit v1 up to its records, without I/O.
///
/// Send what [`poll_output`](Self::poll_output) gives, feed what arrives to [`handle_input`](Self::handle_input), until the
/// [`stage`](Self::stage) is [`Ready`](TransitStage::Ready); then [`into_pipe`](Self::into_pipe). A Sender that has another
/// connection [refuses](Self::refuse) this one.
#[derive(Debug)]
pub struct TransitHandshake {
    part: Part,
    key: TransitKey,
    input: BytesMut,
    output: BytesMut,
    state: State,
}

impl TransitHandshake {
    /// A handshake on a fresh connection.
    #[must_use]
    pub fn new(part: Part, key: TransitKey, contact: Contact<'_>) -> TransitHandshake {
        let (input, mut output) = (BytesMut::new(), BytesMut::new());
        let state = match contact {
            // The relay calls us impatient if the greeting follows at once.
            Contact::Relay(request) => {
                output.extend_from_slice(request.as_bytes());
                State::Relay
            }
            Contact::Dialled => {
                output.extend_from_slice(&key.greeting(part));
                State::Greeting { said: true }
            }
            Contact::Accepted => State::Greeting { said: false },
        };
        TransitHandshake { part, key, input, output, state }
    }

    /// How far it has come.
    #[must_use]
    pub fn stage(&self) -> TransitStage {
        match self.state {
            State::Relay => TransitStage::Relay,
            State::Greeting { .. } => TransitStage::Greeting,
            State::Choice => TransitStage::Choice,
            State::Ready => TransitStage::Ready,
            State::Failed(_) => TransitStage::Failed,
        }
    }

    /// The bytes to send now, if there are any.
    pub fn poll_output(&mut self) -> Option<BytesMut> {
        (!self.output.is_empty()).then(|| self.output.split())
    }

    /// Takes received bytes. Those behind the handshake wait for the [`RecordOpener`].
    ///
    /// # Errors
    ///
    /// [`TransitError`], which is final: later calls return it again. Send what there is to send, and drop the connection.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<(), TransitError> {
        if let State::Failed(error) = &self.state {
            return Err(error.clone());
        }
        self.input.extend_from_slice(bytes);
        while let Some((taken, next)) = self.step().map_err(|error| self.fail(error))? {
            self.input.advance(taken);
            self.state = next;
        }
        Ok(())
    }

    /// Notes that the other end closed the connection, and says what that means here.
    pub fn handle_eof(&mut self) -> TransitError {
        let error = self.unfinished().unwrap_or(TransitError::Closed(self.stage()));
        self.fail(error)
    }

    /// What is wrong if nothing more comes, as far as what came shows it.
    #[must_use]
    pub fn unfinished(&self) -> Option<TransitError> {
        match &self.state {
            State::Failed(error) => Some(error.clone()),
            State::Relay => unfinished_relay_answer(&self.input).map(TransitError::Relay),
            State::Greeting { .. } if !self.input.is_empty() => {
                Some(TransitError::NotAPeer(Answer::recognize(&self.input)))
            }
            _ => None,
        }
    }

    /// Whether the next byte may take as long as it likes: at a relay until the other side is there, too, and where a
    /// Receiver waits for the choice.
    #[must_use]
    pub fn is_unhurried(&self) -> bool {
        match self.state {
            State::Relay => self.unfinished().is_none(),
            State::Choice => true,
            _ => false,
        }
    }

    /// Whether we wait for the first byte of somebody who dialled us.
    #[must_use]
    pub fn is_reticent(&self) -> bool {
        matches!(self.state, State::Greeting { said: false }) && self.input.is_empty()
    }

    /// Nothing has come for a while: perhaps the other side waits for us to begin, as a Receiver in Go does.
    pub fn handle_silence(&mut self) {
        if self.is_reticent() {
            self.state = self.greet();
        }
    }

    /// Takes the connection. A Sender chooses it by that: what is in `out` is to be sent before all records. `None` unless it
    /// is [ready](TransitStage::Ready).
    #[must_use]
    pub fn into_pipe(self, out: &mut BytesMut) -> Option<(RecordSealer, RecordOpener)> {
        let State::Ready = self.state else { return None };
        if self.part == Part::Sender {
            out.extend_from_slice(GO);
        }
        let sealer = RecordSealer::new(self.key.record_key(self.part));
        let opener = RecordOpener::new(self.key.record_key(self.part.other()), self.input);
        Some((sealer, opener))
    }

    /// What a Sender says on a connection that it does not take, before it closes it.
    #[must_use]
    pub fn refuse(self) -> &'static [u8] {
        match (self.part, self.state) {
            (Part::Sender, State::Ready) => NEVERMIND,
            _ => b"",
        }
    }

    /// How many bytes of the input are done with, and what comes then. `None`: more are needed.
    fn step(&mut self) -> Result<Option<(usize, State)>, TransitError> {
        match self.state {
            State::Relay => {
                let taken = read_relay_answer(&self.input)?;
                Ok(taken.map(|taken| (taken, self.greet())))
            }
            // Nobody of ours begins like anything else.
            State::Greeting { said: false } if self.input.starts_with(&GREETING[..1]) => {
                Ok(Some((0, self.greet())))
            }
            State::Greeting { said } => match self.read_greeting() {
                Ok(taken) => {
                    let next = if self.part == Part::Sender { State::Ready } else { State::Choice };
                    Ok(taken.map(|taken| (taken, next)))
                }
                Err(error) => {
                    if !said && let Some(reply) = http_reply(&self.input) {
                        self.output.extend_from_slice(reply);
                    }
                    Err(error)
                }
            },
            State::Choice => self.read_choice(),
            State::Ready | State::Failed(_) => Ok(None),
        }
    }

    fn greet(&mut self) -> State {
        self.output.extend_from_slice(&self.key.greeting(self.part));
        State::Greeting { said: true }
    }

    /// Looks for the other side's line. A mismatch is reported only when a newline or enough bytes are there, so that the
    /// error can say what answered.
    fn read_greeting(&self) -> Result<Option<usize>, TransitError> {
        let (input, expected) = (&self.input[..], self.key.greeting(self.part.other()));
        if input.starts_with(&expected) {
            return Ok(Some(expected.len()));
        }
        let decided = input.contains(&b'\n') || input.len() >= expected.len();
        if expected.starts_with(input) || !decided {
            return Ok(None);
        }
        let of = |part: &Part| input.starts_with(format!("{}{part} ", GREETING.escape_ascii()).as_bytes());
        Err(match [Part::Sender, Part::Receiver].into_iter().find(of) {
            Some(part) => TransitError::AnotherTransfer(part),
            None => TransitError::NotAPeer(Answer::recognize(input)),
        })
    }

    fn read_choice(&self) -> Result<Option<(usize, State)>, TransitError> {
        let input = &self.input[..];
        match () {
            () if input.starts_with(GO) => Ok(Some((GO.len(), State::Ready))),
            () if input.starts_with(NEVERMIND) => Err(TransitError::Nevermind),
            () if GO.starts_with(input) || NEVERMIND.starts_with(input) => Ok(None),
            () => Err(TransitError::NoChoice),
        }
    }

    fn fail(&mut self, error: TransitError) -> TransitError {
        self.state = State::Failed(error.clone());
        self.input = BytesMut::new();
        error
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::v1::keys::tests::key;

    fn machine(part: Part) -> TransitHandshake {
        TransitHandshake::new(part, key(), Contact::Dialled)
    }

    fn output(machine: &mut TransitHandshake) -> Vec<u8> {
        machine.poll_output().map_or_else(Vec::new, |bytes| bytes.to_vec())
    }

    /// One byte at a time.
    fn feed(machine: &mut TransitHandshake, bytes: &[u8]) -> Result<(), TransitError> {
        bytes.iter().try_for_each(|byte| machine.handle_input(&[*byte]))
    }

    #[test]
    fn two_sides_meet_directly_byte_by_byte() {
        for accepts in [Part::Sender, Part::Receiver] {
            let contact = |part| if part == accepts { Contact::Accepted } else { Contact::Dialled };
            let mut sender = TransitHandshake::new(Part::Sender, key(), contact(Part::Sender));
            let mut receiver = TransitHandshake::new(Part::Receiver, key(), contact(Part::Receiver));
            // Who accepts has nothing to say before the other has begun.
            for _ in 0..2 {
                let (to_receiver, to_sender) = (output(&mut sender), output(&mut receiver));
                feed(&mut receiver, &to_receiver).unwrap();
                feed(&mut sender, &to_sender).unwrap();
            }
            assert_eq!((sender.stage(), receiver.stage()), (TransitStage::Ready, TransitStage::Choice));
            let mut wire = BytesMut::new();
            let (mut seals, _) = sender.into_pipe(&mut wire).unwrap();
            assert_eq!(wire, "go\n");
            seals.seal(b"hello", &mut wire);
            // What is behind the choice is for the records.
            receiver.handle_input(&wire).unwrap();
            assert_eq!(receiver.stage(), TransitStage::Ready);
            let (_, mut opens) = receiver.into_pipe(&mut BytesMut::new()).unwrap();
            assert_eq!(opens.next_record().unwrap().unwrap(), "hello");
        }
    }

    #[test]
    fn every_split_comes_to_the_same() {
        let request = key().relay_request("00112233445566ff").unwrap();
        let mut wire = BytesMut::new();
        let mut sender = machine(Part::Sender);
        sender.handle_input(&key().greeting(Part::Receiver)).unwrap();
        let (mut seals, _) = sender.into_pipe(&mut wire).unwrap();
        seals.seal(b"hello", &mut wire);
        let heard = [&key().greeting(Part::Sender)[..], &wire].concat();
        for contact in [Contact::Dialled, Contact::Accepted, Contact::Relay(&request)] {
            let relayed = matches!(contact, Contact::Relay(_));
            let heard = [if relayed { &b"ok\n"[..] } else { b"" }, &heard].concat();
            for split in 0..=heard.len() {
                let mut receiver = TransitHandshake::new(Part::Receiver, key(), contact);
                let mut said = Vec::new();
                for piece in [&heard[..split], &heard[split..]] {
                    said.extend(output(&mut receiver));
                    receiver.handle_input(piece).unwrap();
                    said.extend(output(&mut receiver));
                }
                let request = if relayed { request.as_bytes() } else { b"" };
                assert_eq!(said, [request, &key().greeting(Part::Receiver)].concat(), "{split}");
                let (_, mut opens) = receiver.into_pipe(&mut BytesMut::new()).unwrap();
                assert_eq!(opens.next_record().unwrap().unwrap(), "hello");
            }
        }
    }

    #[test]
    fn silence_is_broken_once() {
        let mut machine = TransitHandshake::new(Part::Sender, key(), Contact::Accepted);
        assert!(machine.is_reticent() && output(&mut machine).is_empty());
        machine.handle_silence();
        assert_eq!(output(&mut machine), *key().greeting(Part::Sender));
        machine.handle_silence();
        assert!(!machine.is_reticent() && output(&mut machine).is_empty());
        // What came meanwhile is not from a browser any more.
        machine.handle_input(b"GET / HTTP/1.1\r\n").unwrap_err();
        assert!(output(&mut machine).is_empty());
        let mut dialled = self::machine(Part::Sender);
        let _ = output(&mut dialled);
        dialled.handle_silence();
        assert!(output(&mut dialled).is_empty());
    }

    #[test]
    fn a_relay_comes_first() {
        let request = key().relay_request("00112233445566ff").unwrap();
        let mut machine = TransitHandshake::new(Part::Receiver, key(), Contact::Relay(&request));
        assert_eq!(output(&mut machine), request.as_bytes());
        feed(&mut machine, b"ok").unwrap();
        assert_eq!((machine.stage(), output(&mut machine)), (TransitStage::Relay, Vec::new()));
        feed(&mut machine, b"\n").unwrap();
        assert_eq!(output(&mut machine), *key().greeting(Part::Receiver));
        let mut machine = TransitHandshake::new(Part::Receiver, key(), Contact::Relay(&request));
        let error = feed(&mut machine, b"HTTP/1.1 400 Bad Request\r\n").unwrap_err();
        assert!(matches!(error, TransitError::Relay(RelayError::NotARelay(_))), "{error}");
    }

    #[test]
    fn a_connection_that_is_not_chosen() {
        let mut receiver = machine(Part::Receiver);
        receiver.handle_input(&key().greeting(Part::Sender)).unwrap();
        assert_eq!(feed(&mut receiver, b"nevermind\n"), Err(TransitError::Nevermind));
        assert!(receiver.into_pipe(&mut BytesMut::new()).is_none());
        for choice in [&b"go \n"[..], b"go away\n", b"never", b"\n"] {
            let mut receiver = machine(Part::Receiver);
            receiver.handle_input(&key().greeting(Part::Sender)).unwrap();
            let error = feed(&mut receiver, choice).err().unwrap_or_else(|| receiver.handle_eof());
            let closed = TransitError::Closed(TransitStage::Choice);
            assert_eq!(error, if choice == b"never" { closed } else { TransitError::NoChoice });
        }
        let mut sender = machine(Part::Sender);
        assert_eq!(machine(Part::Sender).refuse(), b"", "nobody is there yet");
        sender.handle_input(&key().greeting(Part::Receiver)).unwrap();
        assert_eq!(sender.refuse(), NEVERMIND);
    }

    #[test]
    fn the_error_names_what_answered() {
        for (bytes, what) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], "a web server"),
            (b"220 mail.example ESMTP\r\n", "a mail or FTP server"),
            (b"\x15\x03\x01\x00\x02\x02\n", "a TLS server"),
            (b"Magic-Wormhole Dilation Handshake v1 Leader\n\n", "a dilated wormhole"),
        ] {
            let mut sender = machine(Part::Sender);
            let error = feed(&mut sender, bytes).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
            assert_eq!(sender.handle_input(b"more"), Err(error.clone()), "it is final");
            assert_eq!(sender.handle_eof(), error);
        }
        // A TLS alert has no newline; the end of the connection shows that nothing follows.
        let mut sender = machine(Part::Sender);
        feed(&mut sender, b"\x15\x03\x01\x00\x02\x02").unwrap();
        assert!(sender.handle_eof().to_string().contains("a TLS server"));
        let mut sender = machine(Part::Sender);
        let other = TransitKey::new([3; 32]);
        let error = feed(&mut sender, &other.greeting(Part::Receiver)).unwrap_err();
        assert_eq!(error, TransitError::AnotherTransfer(Part::Receiver));
        let error = feed(&mut machine(Part::Sender), &key().greeting(Part::Sender)).unwrap_err();
        assert_eq!(error, TransitError::AnotherTransfer(Part::Sender), "ourselves");
    }

    #[test]
    fn a_browser_gets_an_answer_it_can_show() {
        let mut machine = TransitHandshake::new(Part::Receiver, key(), Contact::Accepted);
        assert_eq!(machine.poll_output(), None);
        let error = feed(&mut machine, b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").unwrap_err();
        assert!(error.to_string().contains("a web browser"), "{error}");
        let reply = String::from_utf8(output(&mut machine)).unwrap();
        assert!(reply.starts_with("HTTP/1.1 ") && reply.contains("wormhole"), "{reply}");
        // Who was greeted is no browser.
        let mut dialled = TransitHandshake::new(Part::Receiver, key(), Contact::Dialled);
        let _ = output(&mut dialled);
        feed(&mut dialled, b"GET / HTTP/1.1\r\n").unwrap_err();
        assert_eq!(dialled.poll_output(), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_make_it_ready(
            sends in any::<bool>(), accepted in any::<bool>(), honest in 0usize..86,
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6),
        ) {
            let part = if sends { Part::Sender } else { Part::Receiver };
            let contact = if accepted { Contact::Accepted } else { Contact::Dialled };
            let mut machine = TransitHandshake::new(part, key(), contact);
            let _ = machine.handle_input(&key().greeting(part.other())[..honest]);
            let mut failed = None;
            for chunk in chunks {
                let result = machine.handle_input(&chunk);
                if let Some(error) = &failed {
                    prop_assert_eq!(result.as_ref(), Err(error));
                }
                failed = result.err();
                prop_assert!(machine.input.len() < 200, "it keeps no more than it needs");
            }
            machine.handle_eof();
            prop_assert!(machine.into_pipe(&mut BytesMut::new()).is_none());
        }
    }
}
