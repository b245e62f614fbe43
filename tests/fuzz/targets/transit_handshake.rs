//! A stranger at the other end of a fresh Transit connection, or of a relay, who may have heard the greetings of others, and
//! a peer that goes on with anything: how it arrives changes nothing, and strangers cost little.
//!
//! The input: bit 0 of the first byte makes us the Sender, bit 1 lets the other side dial, bit 2 puts a relay between, bit 3 lets
//! the other side be silent at first, the upper four bits are the size of the pieces that arrive. The rest is what comes.

#![no_main]

use bytes::{Bytes, BytesMut};
use dilated_transit::v1::{Part, RecordError, TransitError, TransitHandshake, TransitKey, TransitStage};
use dilated_transit::{Contact, RelayError, RelayRequest};
use libfuzzer_sys::fuzz_target;

/// The transit key of `tests/vectors.json`, so that what is recorded there gets as far as it can.
const KEY: [u8; 32] = [
    0x16, 0x0e, 0xb4, 0x2b, 0xf5, 0x7e, 0xcb, 0xdd, 0xae, 0x88, 0xd4, 0xce, 0x4a, 0x3e, 0xbe, 0xcc, 0x6c,
    0x0d, 0xd8, 0xf9, 0xf4, 0xe8, 0xe3, 0x23, 0xfe, 0xa0, 0x49, 0x95, 0x29, 0x92, 0xae, 0xb6,
];

/// The most that we say before the records, in bytes.
const MOST_SAID: usize = 512;

/// What came of it.
#[derive(Debug, PartialEq)]
enum End {
    /// The connection was closed first, or is none.
    Failed(String),
    /// It has come to its records.
    Ready(Vec<Bytes>, Option<RecordError>),
}

/// How much of an answer was there when it was seen to be the wrong one depends on the pieces.
fn kind(error: &TransitError) -> String {
    match error {
        TransitError::NotAPeer(_) => "not a peer".to_owned(),
        TransitError::Relay(RelayError::NotARelay(_)) => "not a relay".to_owned(),
        error => format!("{error:?}"),
    }
}

struct Input<'a> {
    part: Part,
    contact: Contact<'a>,
    silence: bool,
    sent: &'a [u8],
}

impl Input<'_> {
    /// What comes of it, and what we say, if it arrives in pieces of this size.
    fn run(&self, piece: usize) -> (End, Vec<u8>) {
        let mut handshake = TransitHandshake::new(self.part, TransitKey::new(KEY), self.contact);
        let mut said = Vec::new();
        if self.silence {
            handshake.handle_silence();
        }
        let mut pieces = self.sent.chunks(piece);
        let mut stage = handshake.stage();
        loop {
            said.extend(handshake.poll_output().into_iter().flatten());
            if handshake.stage() == TransitStage::Ready {
                break;
            }
            let Some(piece) = pieces.next() else { break };
            let result = handshake.handle_input(piece);
            assert!(handshake.stage() >= stage, "it goes forward");
            if let Err(error) = result {
                assert_eq!(handshake.handle_input(b"more"), Err(error));
                break;
            }
            stage = handshake.stage();
        }
        said.extend(handshake.poll_output().into_iter().flatten());
        if handshake.stage() != TransitStage::Ready {
            let error = handshake.handle_eof();
            assert!(handshake.poll_output().is_none(), "nobody is there");
            assert!(handshake.into_pipe(&mut BytesMut::new()).is_none());
            return (End::Failed(kind(&error)), said);
        }
        let mut choice = BytesMut::new();
        let (_, mut opener) = handshake.into_pipe(&mut choice).expect("it is ready");
        assert_eq!(choice.is_empty(), self.part == Part::Receiver, "the Sender chooses");
        said.extend(choice);
        let mut records = Vec::new();
        loop {
            match opener.next_record() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => match pieces.next() {
                    Some(piece) => opener.buffer().extend_from_slice(piece),
                    None => return (End::Ready(records, None), said),
                },
                Err(error) => return (End::Ready(records, Some(error)), said),
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((flags, sent)) = data.split_first() else { return };
    let part = if flags & 1 == 1 { Part::Sender } else { Part::Receiver };
    let request: RelayRequest = TransitKey::new(KEY).relay_request("0123456789abcdef").expect("a good side");
    let contact = match flags & 6 {
        0 => Contact::Dialled,
        2 => Contact::Accepted,
        _ => Contact::Relay(&request),
    };
    let input = Input { part, contact, silence: flags & 8 == 8, sent };
    let whole = input.run(usize::MAX);
    assert!(whole.1.len() <= MOST_SAID, "{} bytes said", whole.1.len());
    for piece in [1, usize::from(flags >> 4) + 2] {
        assert_eq!(input.run(piece), whole, "in pieces of {piece}");
    }
});
