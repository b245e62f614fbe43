//! Somebody on the path changes, adds and cuts bytes of an established link: every message comes out as it was
//! sealed or not at all.
//!
//! The input: how many messages, two bytes of length for each, the size of the pieces that arrive, where (two
//! bytes) and with what (one byte) to change the stream, and bytes to insert there.

#![no_main]

use bytes::BytesMut;
use dilated_transit::{
    DilationKey, Ephemeral, HandshakeLimits, KCM, LinkHandshake, Opener, Role, Sealer, frame_length,
};
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;

const MAX_FRAME: usize = 100_000;

/// What the Leader seals, the returned opener opens.
fn link() -> (Sealer, Opener) {
    let mut rng = StdRng::seed_from_u64(1);
    let limits = HandshakeLimits { max_frame: MAX_FRAME, ..HandshakeLimits::default() };
    let mut side = |role| {
        LinkHandshake::new(role, DilationKey::new([7; 32]), Ephemeral::generate(&mut rng), None, limits)
    };
    let (mut leader, mut follower) = (side(Role::Leader), side(Role::Follower));
    while !leader.is_confirmed() {
        while let Some(bytes) = leader.poll_output() {
            follower.handle_input(&bytes).expect("the Leader is honest");
        }
        while let Some(bytes) = follower.poll_output() {
            leader.handle_input(&bytes).expect("the Follower is honest");
        }
    }
    let (mut sealer, _) = leader.into_pipe().expect("confirmed");
    let mut confirmation = BytesMut::new();
    sealer.seal(&[KCM], &mut confirmation).expect("a short message");
    follower.handle_input(&confirmation).expect("the Leader is honest");
    let (_, opener) = follower.into_pipe().expect("confirmed");
    (sealer, opener)
}

fn run(data: &[u8]) -> Option<()> {
    let (mut sealer, mut opener) = link();
    let (count, mut rest) = data.split_first()?;
    let mut stream = BytesMut::new();
    let mut sealed = Vec::new();
    for number in 0..count % 8 {
        let (length, after) = rest.split_first_chunk()?;
        rest = after;
        let message = vec![number; usize::from(u16::from_be_bytes(*length)) + 1];
        let (head, body) = message.split_at(message.len().min(9));
        sealer.seal(&[head, body], &mut stream).expect("short enough");
        // A message counts until the byte where its frame ends.
        sealed.push((stream.len(), message));
    }
    let (piece, rest) = rest.split_first()?;
    let (at, rest) = rest.split_first_chunk()?;
    let (mask, insert) = rest.split_first()?;
    let at = usize::from(u16::from_be_bytes(*at)).min(stream.len());
    let changed = *mask != 0 || !insert.is_empty();
    if let Some(byte) = stream.get_mut(at) {
        *byte ^= mask;
    }
    let tail = stream.split_off(at);
    stream.extend_from_slice(insert);
    stream.extend_from_slice(&tail);

    let mut opened = sealed.iter();
    let mut untouched = 0;
    'link: for piece in stream.chunks(usize::from(*piece) * 16 + 1) {
        opener.buffer().extend_from_slice(piece);
        loop {
            match opener.next_message() {
                Ok(Some(message)) => {
                    let (end, expected) = opened.next().expect("no message that was not sealed");
                    assert!(message == expected, "message {untouched} came out differently");
                    untouched += usize::from(*end <= at);
                }
                Ok(None) => break,
                Err(error) => {
                    assert!(changed, "{error} without a reason");
                    opener.buffer().extend_from_slice(piece);
                    assert_eq!(opener.next_message(), Err(error));
                    break 'link;
                }
            }
        }
        assert!(opener.buffer().len() <= frame_length(MAX_FRAME) + 2 * piece.len());
    }
    let before = sealed.iter().filter(|(end, _)| *end <= at).count();
    assert_eq!(untouched, before, "messages before the change are whole");
    Some(())
}

fuzz_target!(|data: &[u8]| {
    let _ = run(data);
});
