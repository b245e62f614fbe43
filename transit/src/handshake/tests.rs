use data_encoding::HEXLOWER;
use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::prologue::{PrologueError, RelayError};

fn machine(role: Role, key: [u8; 32], seed: u64, relay: bool) -> LinkHandshake {
    let key = DilationKey::new(key);
    let request = RelayRequest::new(&key, "0123456789abcdef").unwrap();
    let ephemeral = Ephemeral::generate(&mut StdRng::seed_from_u64(seed));
    LinkHandshake::new(role, key, ephemeral, relay.then_some(&request), HandshakeLimits::default())
}

/// Moves bytes between two machines in pieces of `chunk` bytes until nothing moves, and confirms the Leader's
/// choice as its connector does.
fn run(leader: &mut LinkHandshake, follower: &mut LinkHandshake, chunk: usize) -> Result<(), HandshakeError> {
    let mut chosen = false;
    loop {
        let mut to_follower = leader.poll_output().unwrap_or_default();
        let to_leader = follower.poll_output().unwrap_or_default();
        if let State::Confirmed(pipe) = &mut leader.state
            && !chosen
        {
            pipe.sealer.seal(&[KCM], &mut to_follower).unwrap();
            pipe.sealer.seal(&[b"bundled record"], &mut to_follower).unwrap();
            chosen = true;
        }
        if to_follower.is_empty() && to_leader.is_empty() {
            return Ok(());
        }
        for piece in to_follower.chunks(chunk) {
            follower.handle_input(piece)?;
        }
        for piece in to_leader.chunks(chunk) {
            leader.handle_input(piece)?;
        }
    }
}

#[test]
fn two_machines_agree_however_the_bytes_are_cut() {
    for chunk in (1..60).chain([10_000]) {
        let (mut leader, mut follower) =
            (machine(Role::Leader, [1; 32], 1, false), machine(Role::Follower, [1; 32], 2, false));
        run(&mut leader, &mut follower, chunk).unwrap();
        assert!(leader.is_confirmed() && follower.is_confirmed());
        let (mut sealer, _) = leader.into_pipe().unwrap();
        let (_, mut opener) = follower.into_pipe().unwrap();
        assert_eq!(opener.next_message().unwrap().unwrap(), "bundled record");
        sealer.seal(&[b"next"], opener.buffer()).unwrap();
        assert_eq!(opener.next_message().unwrap().unwrap(), "next");
    }
}

#[test]
fn the_prologue_waits_for_the_relay() {
    let mut machine = machine(Role::Leader, [1; 32], 1, true);
    assert!(machine.poll_output().unwrap().starts_with(b"please relay "));
    assert!(machine.poll_output().is_none());
    machine.handle_input(b"o").unwrap();
    assert_eq!(machine.stage(), Stage::Relay);
    // The relay's answer and the other side's prologue may come together.
    machine.handle_input(b"k\nMagic-Wormhole Dilation Handshake v1 Follower\n\n").unwrap();
    assert_eq!(machine.stage(), Stage::Noise);
    let output = machine.poll_output().unwrap();
    assert!(output.starts_with(b"Magic-Wormhole Dilation Handshake v1 Leader\n\n"));
    assert_eq!(output.len(), 45 + 4 + 48);
}

#[test]
fn who_was_dialled_lets_the_other_begin() {
    for accepts in [Role::Leader, Role::Follower] {
        let start = |role, seed| {
            let machine = machine(role, [1; 32], seed, false);
            if role == accepts { machine.accepted() } else { machine }
        };
        let (mut leader, mut follower) = (start(Role::Leader, 1), start(Role::Follower, 2));
        let silent = if accepts == Role::Leader { &mut leader } else { &mut follower };
        assert!(silent.is_reticent() && silent.poll_output().is_none());
        run(&mut leader, &mut follower, 1).unwrap();
        assert!(leader.is_confirmed() && follower.is_confirmed());
        // It need not wait for ever.
        let mut silent = start(accepts, 3);
        silent.handle_silence();
        assert_eq!(silent.poll_output().unwrap(), prologue(accepts));
        silent.handle_silence();
        assert!(!silent.is_reticent() && silent.poll_output().is_none(), "said once");
    }
    let mut dialled = machine(Role::Leader, [1; 32], 1, false);
    assert!(!dialled.is_reticent());
    let _ = dialled.poll_output();
    dialled.handle_input(b"GET / HTTP/1.1\r\n").unwrap_err();
    assert!(dialled.poll_output().is_none(), "whom we dial and greet is no browser");
    let mut accepted = machine(Role::Leader, [1; 32], 1, false).accepted();
    let error =
        b"GET / HTTP/1.1\r\n".iter().try_for_each(|byte| accepted.handle_input(&[*byte])).unwrap_err();
    assert!(error.to_string().contains("a web browser"), "{error}");
    assert!(accepted.poll_output().unwrap().starts_with(b"HTTP/1.1 400 "));
    let mut accepted = machine(Role::Leader, [1; 32], 1, false).accepted();
    accepted.handle_input(b"SSH-2.0-x\r\n").unwrap_err();
    assert!(accepted.poll_output().is_none());
}

#[test]
fn refusals_are_typed_and_final() {
    use HandshakeError as E;
    let fails = |relay: bool, bytes: &[u8]| {
        let mut machine = machine(Role::Leader, [1; 32], 1, relay);
        let error = machine.handle_input(bytes).unwrap_err();
        assert_eq!(machine.handle_input(b"ok\n").unwrap_err(), error);
        assert_eq!(machine.handle_eof(), error);
        assert_eq!((machine.stage(), machine.poll_output()), (Stage::Failed, None));
        assert!(machine.into_pipe().is_none());
        error
    };
    assert_eq!(fails(true, b"bad handshake\n"), E::Relay(RelayError::BadHandshake));
    assert_eq!(fails(true, b"impatient\n"), E::Relay(RelayError::Impatient));
    assert!(matches!(fails(true, b"HTTP/1.1 400 Bad Request\r\n"), E::Relay(RelayError::NotARelay(_))));
    assert!(matches!(fails(false, b"SSH-2.0-x\r\n"), E::Prologue(PrologueError::NotAPeer(_))));
    let same = prologue(Role::Leader);
    assert!(matches!(fails(false, same), E::Prologue(PrologueError::SameRole(Role::Leader))));

    let mut long = prologue(Role::Follower).to_vec();
    long.extend_from_slice(&49u32.to_be_bytes());
    assert_eq!(fails(false, &long), E::FrameLength { length: 49, expected: 48 });
    let mut garbage = prologue(Role::Follower).to_vec();
    garbage.extend_from_slice(&48u32.to_be_bytes());
    garbage.extend_from_slice(&[9; 48]);
    assert_eq!(fails(false, &garbage), E::WrongKey);
}

#[test]
fn the_other_key_is_noticed_by_both() {
    let (mut leader, mut follower) =
        (machine(Role::Leader, [1; 32], 1, false), machine(Role::Follower, [2; 32], 2, false));
    assert_eq!(run(&mut leader, &mut follower, 1000), Err(HandshakeError::WrongKey));
}

#[test]
fn only_a_key_confirmation_confirms() {
    for (message, expected) in [
        (&b"\x01"[..], HandshakeError::NoConfirmation),
        (b"\x00\x00", HandshakeError::FrameLength { length: 18, expected: 17 }),
    ] {
        let mut leader = machine(Role::Leader, [1; 32], 1, false);
        leader.handle_input(prologue(Role::Follower)).unwrap();
        let output = leader.poll_output().unwrap();
        let one = &output[prologue(Role::Leader).len() + 4..];
        let ephemeral = Ephemeral::generate(&mut StdRng::seed_from_u64(2));
        let (two, keys) = FollowerStart::new(&DilationKey::new([1; 32]), ephemeral, Cipher::ChaChaPoly)
            .finish(one, &mut [])
            .unwrap();
        leader.handle_input(&[&[0, 0, 0, 48], &two[..]].concat()).unwrap();
        assert_eq!(leader.stage(), Stage::Confirmation);
        let mut frame = BytesMut::new();
        Sealer::new(&keys.send, Cipher::ChaChaPoly, 100).seal(&[message], &mut frame).unwrap();
        assert_eq!(leader.handle_input(&frame), Err(expected));
    }
}

#[test]
fn a_closed_connection_says_where() {
    let mut relay = machine(Role::Leader, [1; 32], 1, true);
    assert_eq!(relay.handle_eof(), HandshakeError::Closed(Stage::Relay));
    let mut direct = machine(Role::Leader, [1; 32], 1, false);
    assert_eq!(direct.handle_eof(), HandshakeError::Closed(Stage::Prologue));
    let mut tls = machine(Role::Leader, [1; 32], 1, false);
    tls.handle_input(b"\x15\x03\x01\x00\x02\x02\x46").unwrap();
    assert!(tls.handle_eof().to_string().contains("a TLS server"));
}

#[test]
fn a_flood_before_the_handshake_is_cut_off() {
    let key = DilationKey::new([1; 32]);
    let limits = HandshakeLimits { max_bytes: 8, ..HandshakeLimits::default() };
    let ephemeral = Ephemeral::generate(&mut StdRng::seed_from_u64(1));
    let mut machine = LinkHandshake::new(Role::Leader, key, ephemeral, None, limits);
    assert_eq!(machine.handle_input(b"Magic-Wor"), Err(HandshakeError::TooManyBytes { limit: 8 }));
}

#[test]
fn secrets_are_not_printed() {
    let machine = machine(Role::Leader, [0xab; 32], 1, false);
    let text = format!("{machine:?}");
    assert!(!text.contains("171") && !text.contains("ab, ab"), "{text}");
}

/// What `frames_in_order` leaves out because it is long.
fn long_plaintext(what: &str) -> Vec<u8> {
    let header = |seq: u8| vec![4, 0, 0, 0, 1, 0, 0, 0, seq];
    if what.contains("65510 bytes") {
        [header(2), vec![b'y'; 65_510]].concat()
    } else if what.contains("65511 bytes") {
        [header(3), vec![b'y'; 65_511]].concat()
    } else {
        [header(4), (0..=255u8).cycle().take(200_000).collect()].concat()
    }
}

pub(super) fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

/// Checks `plaintext` against the recorded frame, sealing it with one side and opening it with the other.
fn check_frame(entry: &Value, sealer: &mut Sealer, opener: &mut Opener) {
    let what = entry["what"].as_str().unwrap();
    let plaintext = match entry.get("plaintext") {
        Some(plaintext) => hex(plaintext),
        None => long_plaintext(what),
    };
    assert_eq!(plaintext.len() as u64, entry["plaintext_len"].as_u64().unwrap(), "{what}");
    let mut frame = BytesMut::new();
    sealer.seal(&[&plaintext], &mut frame).unwrap();
    assert_eq!(frame.len() as u64, entry["frame_len"].as_u64().unwrap(), "{what}");
    match entry.get("frame") {
        Some(expected) => assert_eq!(frame, hex(expected), "{what}"),
        None => {
            assert_eq!(Sha256::digest(&plaintext).to_vec(), hex(&entry["plaintext_sha256"]), "{what}");
            assert_eq!(Sha256::digest(&frame).to_vec(), hex(&entry["frame_sha256"]), "{what}");
            assert_eq!(frame[..64], hex(&entry["frame_first64"]), "{what}");
            assert_eq!(frame[frame.len() - 32..], hex(&entry["frame_last32"]), "{what}");
        }
    }
    opener.buffer().extend_from_slice(&frame);
    assert_eq!(opener.next_message().unwrap().unwrap(), plaintext, "{what}");
}

#[test]
fn vectors_of_a_whole_session() {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors.json"));
    let vectors: Value = serde_json::from_str(text).unwrap();
    let dilation = &vectors["dilation"];
    assert_eq!(dilation["max_plain_per_noise_message"], crate::pipe::MAX_NOISE_PLAINTEXT);
    assert_eq!(dilation["max_cipher_per_noise_message"], crate::pipe::MAX_NOISE_MESSAGE);
    let session = &dilation["noise_session"];
    let key = || DilationKey::new(hex(&session["psk"]).try_into().unwrap());
    let ephemeral = |name: &str| Ephemeral::fixed(hex(&session[name]).try_into().unwrap());

    let leader = LeaderStart::new(&key(), ephemeral("leader_ephemeral_private"), Cipher::ChaChaPoly);
    let follower = FollowerStart::new(&key(), ephemeral("follower_ephemeral_private"), Cipher::ChaChaPoly);
    let (one, wait) = leader.start(&[]);
    assert_eq!([&[0, 0, 0, 48][..], &one].concat(), hex(&session["msg1_leader_frame"]));
    let (two, follower_keys) = follower.finish(&one, &mut []).unwrap();
    assert_eq!([&[0, 0, 0, 48][..], &two].concat(), hex(&session["msg2_follower_frame"]));
    let leader_keys = wait.finish(&two, &mut []).unwrap();
    for keys in [&leader_keys, &follower_keys] {
        assert_eq!(keys.handshake_hash, hex(&session["handshake_hash"]));
    }
    assert_eq!(leader_keys.send[..], hex(&session["transport_key_leader_to_follower"]));
    assert_eq!(leader_keys.receive[..], hex(&session["transport_key_follower_to_leader"]));

    let pipe = |send: &[u8; 32]| {
        let opener = Opener::new(send, Cipher::ChaChaPoly, DEFAULT_MAX_FRAME, BytesMut::new());
        (Sealer::new(send, Cipher::ChaChaPoly, DEFAULT_MAX_FRAME), opener)
    };
    let (mut to_follower, mut to_leader) = (pipe(&leader_keys.send), pipe(&follower_keys.send));
    let frames = session["frames_in_order"].as_array().unwrap();
    assert_eq!(frames.len(), 13);
    for entry in frames {
        let pipe = if entry["from"] == "leader" { &mut to_follower } else { &mut to_leader };
        check_frame(entry, &mut pipe.0, &mut pipe.1);
    }
}

/// The same session through the machine: both outputs, byte for byte.
#[test]
fn vectors_through_the_machine() {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors.json"));
    let vectors: Value = serde_json::from_str(text).unwrap();
    let session = &vectors["dilation"]["noise_session"];
    let machine = |role, name: &str| {
        let key = DilationKey::new(hex(&session["psk"]).try_into().unwrap());
        let ephemeral = Ephemeral::fixed(hex(&session[name]).try_into().unwrap());
        LinkHandshake::new(role, key, ephemeral, None, HandshakeLimits::default())
    };
    let mut leader = machine(Role::Leader, "leader_ephemeral_private");
    let mut follower = machine(Role::Follower, "follower_ephemeral_private");
    let leader_prologue = leader.poll_output().unwrap();
    leader.handle_input(&follower.poll_output().unwrap()).unwrap();
    let one = leader.poll_output().unwrap();
    assert_eq!(one, hex(&session["msg1_leader_frame"]));
    follower.handle_input(&[leader_prologue, one].concat()).unwrap();
    let kcm = &session["frames_in_order"][0]["frame"];
    assert_eq!(follower.poll_output().unwrap(), [hex(&session["msg2_follower_frame"]), hex(kcm)].concat());
}

/// Says `start` and then `chunks` to the victim, and hangs up: a failure is for good, and nothing is confirmed or believed.
pub(super) fn bombard(mut victim: LinkHandshake, start: &[u8], chunks: &[Vec<u8>]) {
    let mut failed = victim.handle_input(start).err();
    for chunk in chunks {
        let result = victim.handle_input(chunk);
        if let Some(error) = &failed {
            assert_eq!(result.as_ref(), Err(error));
        }
        failed = result.err();
        assert!(!victim.is_confirmed());
        assert_eq!((victim.peer_offer(), victim.generation()), (None, None));
    }
    victim.handle_eof();
    assert!(victim.into_pipe().is_none());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        leader in any::<bool>(), relay in any::<bool>(), honest in 0usize..130,
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..6),
    ) {
        let role = if leader { Role::Leader } else { Role::Follower };
        let victim = machine(role, [1; 32], 1, relay);
        let mut start = if relay { b"ok\n".to_vec() } else { Vec::new() };
        start.extend_from_slice(prologue(role.other()));
        start.extend_from_slice(&[0, 0, 0, 48]);
        start.truncate(honest);
        bombard(victim, &start, &chunks);
    }
}
