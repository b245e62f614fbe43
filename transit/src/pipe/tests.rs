use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

const KEY: [u8; 32] = [5; 32];

const CIPHERS: [Cipher; 2] = [Cipher::ChaChaPoly, Cipher::AesGcm];

fn pair_of(cipher: Cipher, max_frame: usize) -> (Sealer, Opener) {
    (Sealer::new(&KEY, cipher, max_frame), Opener::new(&KEY, cipher, max_frame, BytesMut::new()))
}

/// As in `ged`, where a sealer does not know what the other side takes.
fn pair() -> (Sealer, Opener) {
    (
        Sealer::new(&KEY, Cipher::ChaChaPoly, u32::MAX as usize),
        pair_of(Cipher::ChaChaPoly, DEFAULT_MAX_FRAME).1,
    )
}

fn bytes_of(length: usize) -> Vec<u8> {
    (0..=250u8).cycle().take(length).collect()
}

#[test]
fn messages_of_every_interesting_length() {
    let (mut sealer, mut opener) = pair();
    let around = 65_509..65_538;
    let lengths =
        (1..20).chain(4_070..4_100).chain(around).chain([131_037, 131_038, 131_039, 200_009, 1 << 20]);
    for length in lengths {
        let message = bytes_of(length);
        let mut frame = BytesMut::new();
        sealer.seal(&[&message[..1], &[], &message[1..]], &mut frame).unwrap();
        assert_eq!(frame.len(), 4 + frame_length(length), "{length}");
        opener.buffer().extend_from_slice(&frame[..frame.len() - 1]);
        assert_eq!(opener.next_message(), Ok(None));
        assert_eq!(opener.missing(), 1);
        opener.buffer().extend_from_slice(&frame[frame.len() - 1..]);
        assert_eq!(opener.missing(), 0);
        assert_eq!(opener.next_message().unwrap().unwrap(), message, "{length}");
        assert_eq!(opener.next_message(), Ok(None));
    }
}

#[test]
fn a_key_that_is_used_up_is_renewed_by_both_sides() {
    for cipher in CIPHERS {
        let (mut sealer, mut opener) = pair_of(cipher, 2 * MAX_NOISE_MESSAGE);
        let mut unchanged = Sealer::new(&KEY, cipher, 2 * MAX_NOISE_MESSAGE);
        sealer.renew_key_after(3);
        opener.renew_key_after(3);
        for number in 0..10u8 {
            let (mut frame, mut other) = (BytesMut::new(), BytesMut::new());
            sealer.seal(&[&[number]], &mut frame).unwrap();
            unchanged.seal(&[&[number]], &mut other).unwrap();
            assert_eq!(frame == other, number < 3, "{number}");
            opener.buffer().unsplit(frame);
            assert_eq!(opener.next_message().unwrap().unwrap(), [number][..]);
        }
    }
}

#[test]
fn vectors_of_renewed_keys() {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/dilated-1-links.json"));
    let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
    let hex = |value: &serde_json::Value| HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap();
    let cases = vectors["renewed_keys"].as_array().unwrap();
    assert_eq!(cases.len(), CIPHERS.len());
    for case in cases {
        let cipher = if case["cipher"] == "AESGCM" { Cipher::AesGcm } else { Cipher::ChaChaPoly };
        let mut sealer = Sealer::new(&hex(&case["key"]).try_into().unwrap(), cipher, MAX_NOISE_MESSAGE);
        sealer.renew_key_after(RECORDS_PER_KEY);
        for record in case["records"].as_array().unwrap() {
            sealer.direction.counter = record["counter"].as_u64().unwrap();
            let mut frame = BytesMut::new();
            sealer.seal(&[&hex(&record["plaintext"])], &mut frame).unwrap();
            assert_eq!(frame, hex(&record["frame"]), "{cipher:?} {}", record["counter"]);
        }
    }
}

#[test]
fn parts_may_be_cut_anywhere() {
    let message = bytes_of(150_000);
    for cuts in [[9, 65_519], [65_519, 65_520], [1, 149_999], [65_518, 131_039]] {
        let (mut sealer, mut opener) = pair();
        let parts = [&message[..cuts[0]], &message[cuts[0]..cuts[1]], &message[cuts[1]..]];
        sealer.seal(&parts, opener.buffer()).unwrap();
        assert_eq!(opener.next_message().unwrap().unwrap(), message);
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_before_it_is_there() {
    let mut opener = pair_of(Cipher::ChaChaPoly, 1000).1;
    opener.buffer().extend_from_slice(&1001u32.to_be_bytes());
    assert_eq!(opener.missing(), 0);
    let error = OpenError::TooLong { length: 1001, limit: 1000 };
    assert_eq!(opener.next_message(), Err(error));
    assert!(error.to_string().contains("1001") && error.to_string().contains("1000"));
    let mut opener = pair_of(Cipher::ChaChaPoly, DEFAULT_MAX_FRAME).1;
    opener.buffer().extend_from_slice(&[0xff; 4]);
    assert!(matches!(opener.next_message(), Err(OpenError::TooLong { length: 0xffff_ffff, .. })));
}

#[test]
fn the_default_limit_fits_the_largest_record() {
    let (mut sealer, mut opener) = pair();
    let largest = vec![0; 16 * 1024 * 1024];
    sealer.seal(&[&[4; 9], &largest], opener.buffer()).unwrap();
    assert_eq!(opener.next_message().unwrap().unwrap().len(), 16 * 1024 * 1024 + 9);
    sealer.seal(&[&[4; 10], &largest], opener.buffer()).unwrap();
    assert!(matches!(opener.next_message(), Err(OpenError::TooLong { .. })));
}

#[test]
fn an_empty_message_is_an_error_on_both_sides() {
    let (mut sealer, mut opener) = pair();
    let mut out = BytesMut::new();
    assert_eq!(sealer.seal(&[], &mut out), Err(SealError::Empty));
    assert_eq!(sealer.seal(&[&[], &[]], &mut out), Err(SealError::Empty));
    assert!(out.is_empty());
    opener.buffer().extend_from_slice(&16u32.to_be_bytes());
    assert_eq!(opener.next_message(), Err(OpenError::Empty));
    for length in [0u32, 1, 15] {
        let (_, mut opener) = pair();
        opener.buffer().extend_from_slice(&length.to_be_bytes());
        assert_eq!(opener.next_message(), Err(OpenError::Undecryptable));
    }
}

#[test]
fn garbage_is_final() {
    for (length, cipher) in [20usize, 5000, 65_000].into_iter().flat_map(|n| CIPHERS.map(|c| (n, c))) {
        let (mut sealer, mut opener) = pair_of(cipher, DEFAULT_MAX_FRAME);
        let mut frame = BytesMut::new();
        sealer.seal(&[&bytes_of(length)], &mut frame).unwrap();
        let mut bad = frame.clone();
        *bad.last_mut().unwrap() ^= 1;
        opener.buffer().extend_from_slice(&bad);
        assert_eq!(opener.next_message(), Err(OpenError::Undecryptable));
        opener.buffer().extend_from_slice(&frame);
        assert_eq!(opener.next_message(), Err(OpenError::Undecryptable), "never again, whatever arrives");
    }
}

#[test]
fn frames_cannot_be_replayed_or_swapped() {
    CIPHERS.into_iter().for_each(frames_of_a_cipher_cannot_be_replayed_or_swapped);
}

fn frames_of_a_cipher_cannot_be_replayed_or_swapped(cipher: Cipher) {
    let pair = || pair_of(cipher, DEFAULT_MAX_FRAME);
    let (mut sealer, mut opener) = pair();
    let (mut one, mut two) = (BytesMut::new(), BytesMut::new());
    sealer.seal(&[b"one"], &mut one).unwrap();
    sealer.seal(&[b"two"], &mut two).unwrap();
    opener.buffer().extend_from_slice(&two);
    assert_eq!(opener.next_message(), Err(OpenError::Undecryptable));
    let (_, mut opener) = pair();
    opener.buffer().extend_from_slice(&one);
    opener.buffer().extend_from_slice(&one);
    assert_eq!(opener.next_message().unwrap().unwrap(), "one");
    assert_eq!(opener.next_message(), Err(OpenError::Undecryptable));
}

#[test]
fn nonces_run_out_with_an_error_and_never_wrap() {
    CIPHERS.into_iter().for_each(nonces_of_a_cipher_run_out);
}

fn nonces_of_a_cipher_run_out(cipher: Cipher) {
    let (mut sealer, mut opener) = pair_of(cipher, DEFAULT_MAX_FRAME);
    sealer.direction.counter = u64::MAX - 2;
    opener.direction.counter = u64::MAX - 2;
    let mut out = BytesMut::new();
    assert_eq!(sealer.seal(&[&bytes_of(MAX_NOISE_PLAINTEXT * 2 + 1)], &mut out), Err(SealError::Exhausted));
    assert!(out.is_empty(), "no half frame");
    sealer.seal(&[b"a"], &mut out).unwrap();
    sealer.seal(&[b"b"], &mut out).unwrap();
    let length = out.len();
    for _ in 0..2 {
        assert_eq!(sealer.seal(&[b"c"], &mut out), Err(SealError::Exhausted));
    }
    assert_eq!(out.len(), length);
    opener.buffer().extend_from_slice(&out);
    assert_eq!(opener.next_message().unwrap().unwrap(), "a");
    assert_eq!(opener.next_message().unwrap().unwrap(), "b");
    opener.buffer().extend_from_slice(&out);
    assert_eq!(opener.next_message(), Err(OpenError::Exhausted));
}

#[test]
fn short_messages_do_not_keep_the_buffer_alive() {
    let (mut sealer, mut opener) = pair();
    opener.buffer().reserve(1 << 16);
    let mut kept = Vec::new();
    for _ in 0..4 {
        sealer.seal(&[b"short"], opener.buffer()).unwrap();
        kept.push(opener.next_message().unwrap().unwrap());
    }
    let before = opener.buffer().as_ptr() as usize;
    opener.buffer().reserve((1 << 16) - 16);
    let after = opener.buffer().as_ptr() as usize;
    assert!(before.abs_diff(after) < 1 << 16, "the same memory is used again");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_messages_in_any_chunks(
        lengths in prop::collection::vec(1usize..140_000, 1..4), chunk in 1usize..100_000, aes in any::<bool>(),
    ) {
        let (mut sealer, mut opener) = pair_of(CIPHERS[usize::from(aes)], DEFAULT_MAX_FRAME);
        let mut wire = BytesMut::new();
        for length in &lengths {
            sealer.seal(&[&bytes_of(*length)], &mut wire).unwrap();
        }
        let mut got = Vec::new();
        for chunk in wire.chunks(chunk) {
            opener.buffer().extend_from_slice(chunk);
            while let Some(message) = opener.next_message().unwrap() {
                got.push(message.len());
            }
        }
        prop_assert_eq!(got, lengths);
    }

    #[test]
    fn arbitrary_bytes_never_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8),
                                   zeros in 0usize..4) {
        let (_, mut opener) = pair();
        opener.buffer().extend_from_slice(&[0; 4][..zeros]);
        for chunk in chunks {
            opener.buffer().extend_from_slice(&chunk);
            let first = opener.next_message();
            prop_assert!(!matches!(first, Ok(Some(_))));
            if first.is_err() {
                prop_assert_eq!(opener.next_message(), first);
            }
        }
    }
}

#[test]
fn a_sealer_knows_what_a_frame_takes() {
    for (frame, longest) in [(65_535, 65_519), (65_536, 65_519), (65_552, 65_520), (100, 84), (16, 0)] {
        assert_eq!(longest_plaintext(frame), longest, "{frame}");
        assert!(longest == 0 || frame_length(longest) <= frame);
        assert!(frame_length(longest + 1) > frame);
    }
}
