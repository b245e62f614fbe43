//! Handshakes of `dilated-1`.

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    tests::{bombard, hex},
    *,
};
use crate::pipe::{MAX_NOISE_PLAINTEXT, SealError};

const KEY: [u8; 32] = [1; 32];

/// A handshake message with its length.
const MESSAGE: usize = 4 + 57;

fn offer(generation: u64, linked: bool) -> Offer {
    Offer { generation, linked }
}

fn machine_with(role: Role, key: [u8; 32], ephemeral: Ephemeral, aes: bool, offer: Offer) -> LinkHandshake {
    let limits = HandshakeLimits::default();
    LinkHandshake::dilated1(role, DilationKey::new(key), ephemeral, None, limits, aes, offer)
}

fn machine(role: Role, aes: bool, offer: Offer) -> LinkHandshake {
    let seed = if role == Role::Leader { 1 } else { 2 };
    machine_with(role, KEY, Ephemeral::generate(&mut StdRng::seed_from_u64(seed)), aes, offer)
}

/// Moves bytes in pieces of `chunk` bytes until nothing moves. The Leader does not choose.
fn run(leader: &mut LinkHandshake, follower: &mut LinkHandshake, chunk: usize) -> Result<(), HandshakeError> {
    for _ in 0..10 {
        let to_follower = leader.poll_output().unwrap_or_default();
        let to_leader = follower.poll_output().unwrap_or_default();
        for piece in to_follower.chunks(chunk) {
            follower.handle_input(piece)?;
        }
        for piece in to_leader.chunks(chunk) {
            leader.handle_input(piece)?;
        }
    }
    Ok(())
}

#[test]
fn the_greater_generation_counts_and_each_hears_of_the_other() {
    for (aes, chunk) in [(false, 1), (true, 1), (false, 61), (true, 10_000)] {
        let (ours, theirs) = (offer(4, true), offer(5, false));
        let (mut leader, mut follower) =
            (machine(Role::Leader, aes, ours), machine(Role::Follower, aes, theirs));
        run(&mut leader, &mut follower, chunk).unwrap();
        assert_eq!((leader.peer_offer(), leader.generation()), (Some(theirs), Some(5)));
        // The Leader has not chosen, so nothing of what it said is believed yet.
        assert!(follower.awaits_choice() && follower.is_unhurried());
        assert_eq!((follower.peer_offer(), follower.generation()), (None, None));

        let (mut sealer, mut opener) = leader.into_pipe().unwrap();
        let mut wire = BytesMut::new();
        sealer.seal(&[KCM], &mut wire).unwrap();
        sealer.seal(&[b"bundled"], &mut wire).unwrap();
        follower.handle_input(&wire).unwrap();
        assert_eq!((follower.peer_offer(), follower.generation()), (Some(ours), Some(5)));
        let (mut back, mut from_leader) = follower.into_pipe().unwrap();
        assert_eq!(from_leader.next_message().unwrap().unwrap(), "bundled");
        back.seal(&[b"answer"], opener.buffer()).unwrap();
        assert_eq!(opener.next_message().unwrap().unwrap(), "answer");
    }
}

#[test]
fn a_record_is_one_noise_message() {
    for aes in [false, true] {
        let (mut leader, mut follower) =
            (machine(Role::Leader, aes, offer(0, false)), machine(Role::Follower, aes, offer(0, false)));
        run(&mut leader, &mut follower, 1000).unwrap();
        let (mut sealer, mut opener) = leader.into_pipe().unwrap();
        let mut wire = BytesMut::new();
        let longest = vec![7; MAX_NOISE_PLAINTEXT];
        let too_long = SealError::TooLong { length: MAX_NOISE_PLAINTEXT + 1, limit: MAX_NOISE_PLAINTEXT };
        assert_eq!(sealer.seal(&[&longest, b"x"], &mut wire), Err(too_long));
        sealer.seal(&[&longest], &mut wire).unwrap();
        assert_eq!(wire.len(), 4 + MAX_NOISE_MESSAGE);
        opener.buffer().extend_from_slice(&65_536u32.to_be_bytes());
        let limit = MAX_NOISE_MESSAGE;
        assert_eq!(opener.next_message(), Err(OpenError::TooLong { length: 65_536, limit }));
    }
}

#[test]
fn what_has_become_of_us_meanwhile_is_said_until_our_message_is_made() {
    let mut leader = machine(Role::Leader, false, offer(3, false));
    let mut follower = machine(Role::Follower, false, offer(3, false));
    leader.set_offer(offer(4, true));
    follower.handle_input(&leader.poll_output().unwrap()).unwrap();
    let prologue = follower.poll_output().unwrap();
    follower.set_offer(offer(5, false));
    leader.handle_input(&prologue).unwrap();
    // Too late: it is on its way.
    leader.set_offer(offer(9, false));
    run(&mut leader, &mut follower, 1000).unwrap();
    assert_eq!((leader.peer_offer(), leader.generation()), (Some(offer(5, false)), Some(5)));
    let mut kcm = BytesMut::new();
    leader.into_pipe().unwrap().0.seal(&[KCM], &mut kcm).unwrap();
    follower.handle_input(&kcm).unwrap();
    assert_eq!(follower.peer_offer(), Some(offer(4, true)));
}

#[test]
fn a_repeated_first_message_gets_an_answer_and_nothing_else() {
    let (mut leader, mut follower) =
        (machine(Role::Leader, true, offer(7, false)), machine(Role::Follower, true, offer(7, false)));
    let mut seen = leader.poll_output().unwrap();
    leader.handle_input(&follower.poll_output().unwrap()).unwrap();
    seen.unsplit(leader.poll_output().unwrap());
    follower.handle_input(&seen).unwrap();
    leader.handle_input(&follower.poll_output().unwrap()).unwrap();
    let mut kcm = BytesMut::new();
    leader.into_pipe().unwrap().0.seal(&[KCM], &mut kcm).unwrap();

    // Later somebody sends all of that again.
    let ephemeral = Ephemeral::generate(&mut StdRng::seed_from_u64(3));
    let mut victim = machine_with(Role::Follower, KEY, ephemeral, true, offer(8, false));
    victim.handle_input(&seen).unwrap();
    assert!(victim.awaits_choice());
    assert_eq!((victim.peer_offer(), victim.generation()), (None, None));
    assert_eq!(victim.handle_input(&kcm), Err(HandshakeError::WrongKey));
    assert_eq!((victim.peer_offer(), victim.generation()), (None, None));
}

#[test]
fn those_of_another_dialect_or_cipher_are_refused() {
    use HandshakeError as E;
    let mut leader = machine(Role::Leader, false, offer(0, false));
    let key = DilationKey::new(KEY);
    let ephemeral = Ephemeral::generate(&mut StdRng::seed_from_u64(2));
    let mut ged = LinkHandshake::new(Role::Follower, key, ephemeral, None, HandshakeLimits::default());
    assert_eq!(run(&mut leader, &mut ged, 1000), Err(E::FrameLength { length: 57, expected: 48 }));
    let (mut leader, mut follower) =
        (machine(Role::Leader, true, offer(0, false)), machine(Role::Follower, false, offer(0, false)));
    assert_eq!(run(&mut leader, &mut follower, 1000), Err(E::WrongKey));
    let ephemeral = Ephemeral::generate(&mut StdRng::seed_from_u64(2));
    let mut stranger = machine_with(Role::Follower, [2; 32], ephemeral, true, offer(0, false));
    let mut leader = machine(Role::Leader, true, offer(0, false));
    assert_eq!(run(&mut leader, &mut stranger, 1000), Err(E::WrongKey));
}

#[test]
fn a_leader_is_in_a_hurry_for_the_confirmation() {
    let (mut leader, mut follower) =
        (machine(Role::Leader, false, offer(0, false)), machine(Role::Follower, false, offer(0, false)));
    follower.handle_input(&leader.poll_output().unwrap()).unwrap();
    leader.handle_input(&follower.poll_output().unwrap()).unwrap();
    follower.handle_input(&leader.poll_output().unwrap()).unwrap();
    let answer = follower.poll_output().unwrap();
    leader.handle_input(&answer[..MESSAGE]).unwrap();
    assert_eq!((leader.stage(), leader.is_unhurried()), (Stage::Confirmation, false));
    leader.handle_input(&answer[MESSAGE..]).unwrap();
    assert!(leader.is_confirmed());
}

#[test]
fn a_follower_takes_no_flood_while_it_waits_for_the_choice() {
    let (mut leader, mut follower) =
        (machine(Role::Leader, false, offer(0, false)), machine(Role::Follower, false, offer(0, false)));
    run(&mut leader, &mut follower, 1000).unwrap();
    assert!(follower.awaits_choice());
    let error = follower.handle_input(&[&[0, 0, 0, 17][..], &[0; 2000]].concat()).unwrap_err();
    assert_eq!(error, HandshakeError::WrongKey);
    let (mut leader, mut follower) =
        (machine(Role::Leader, false, offer(0, false)), machine(Role::Follower, false, offer(0, false)));
    run(&mut leader, &mut follower, 1000).unwrap();
    let error = follower.handle_input(&[0, 0, 0, 18]).unwrap_err();
    assert_eq!(error, HandshakeError::FrameLength { length: 18, expected: 17 });
}

fn vectors() -> Value {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/dilated-1-links.json"));
    serde_json::from_str(text).unwrap()
}

#[test]
fn vectors_of_whole_sessions() {
    let vectors = vectors();
    let sessions = vectors["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    for session in sessions {
        let aes = session["cipher"] == "AESGCM";
        let offer = |name: &str| {
            let value = &session[name];
            offer(value["generation"].as_u64().unwrap(), value["linked"].as_bool().unwrap())
        };
        let machine = |role, offer, ephemeral: &str| {
            let ephemeral = Ephemeral::fixed(hex(&vectors[ephemeral]).try_into().unwrap());
            machine_with(role, hex(&vectors["dilation_key"]).try_into().unwrap(), ephemeral, aes, offer)
        };
        let mut leader = machine(Role::Leader, offer("leader_offer"), "leader_ephemeral_private");
        let mut follower = machine(Role::Follower, offer("follower_offer"), "follower_ephemeral_private");
        follower.handle_input(&leader.poll_output().unwrap()).unwrap();
        leader.handle_input(&follower.poll_output().unwrap()).unwrap();
        let one = leader.poll_output().unwrap();
        assert_eq!(one, hex(&session["message1_frame"]));
        follower.handle_input(&one).unwrap();
        let answer = follower.poll_output().unwrap();
        let records = session["records_in_order"].as_array().unwrap();
        assert_eq!(answer[..MESSAGE], hex(&session["message2_frame"]));
        assert_eq!(answer[MESSAGE..], hex(&records[0]["frame"]), "the Follower's KCM");
        leader.handle_input(&answer).unwrap();
        follower.handle_input(&hex(&records[1]["frame"])).unwrap();
        for machine in [&leader, &follower] {
            assert_eq!(machine.generation(), session["generation"].as_u64());
        }

        let (mut to_follower, mut from_follower) = leader.into_pipe().unwrap();
        let (mut to_leader, mut from_leader) = follower.into_pipe().unwrap();
        to_follower.seal(&[KCM], &mut BytesMut::new()).unwrap();
        for record in &records[2..] {
            let what = &record["what"];
            let plaintext = match record.get("plaintext") {
                Some(plaintext) => hex(plaintext),
                None => (0..=250).cycle().take(MAX_NOISE_PLAINTEXT).collect(),
            };
            let (sealer, opener) = match record["from"].as_str() {
                Some("leader") => (&mut to_follower, &mut from_leader),
                _ => (&mut to_leader, &mut from_follower),
            };
            sealer.seal(&[&plaintext], opener.buffer()).unwrap();
            match record.get("frame") {
                Some(frame) => assert_eq!(opener.buffer(), &hex(frame), "{what}"),
                None => assert_eq!(
                    Sha256::digest(opener.buffer()).to_vec(),
                    hex(&record["frame_sha256"]),
                    "{what}"
                ),
            }
            assert_eq!(opener.next_message().unwrap().unwrap(), plaintext, "{what}");
        }
    }
}

#[test]
fn vectors_of_relay_tokens() {
    let vectors = vectors();
    let key = DilationKey::new(hex(&vectors["dilation_key"]).try_into().unwrap());
    for entry in vectors["relay_tokens"].as_array().unwrap() {
        let generation = entry["generation"].as_u64().unwrap();
        let request = RelayRequest::of_generation(&key, "0123456789abcdef", generation).unwrap();
        let line = format!("please relay {} for side 0123456789abcdef\n", entry["token"].as_str().unwrap());
        assert_eq!(request.as_bytes(), line.as_bytes(), "{generation}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_confirm(
        leader in any::<bool>(), aes in any::<bool>(), honest in 0usize..60,
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..90), 0..6),
    ) {
        let role = if leader { Role::Leader } else { Role::Follower };
        let victim = machine(role, aes, offer(1, false));
        let mut start = prologue(role.other()).to_vec();
        start.extend_from_slice(&[0, 0, 0, 57]);
        start.truncate(honest);
        bombard(victim, &start, &chunks);
    }
}
