//! The vectors of `tests/dilated-1.json`, and what holds for all frames.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entry(received: &Received) -> Value {
    json!([received.id.0, received.received, received.limit])
}

/// A frame as the vectors say it.
fn described(frame: &Frame) -> Value {
    match frame {
        Frame::Padding => json!({"type": "PADDING"}),
        Frame::Ping(id) => json!({"type": "PING", "id": id}),
        Frame::Pong(id) => json!({"type": "PONG", "id": id}),
        Frame::Resume { epoch, more, entries } => {
            let entries: Vec<_> = entries.iter().map(entry).collect();
            json!({"type": "RESUME", "epoch": epoch, "more": u8::from(*more), "entries": entries})
        }
        Frame::Open { id, limit, priority, name } => json!({
            "type": "OPEN", "subchannel": id.0, "limit": limit, "priority": priority, "name": name.as_str(),
        }),
        Frame::Credit(Received { id, received, limit }) => {
            json!({"type": "CREDIT", "subchannel": id.0, "received": received, "limit": limit})
        }
        Frame::LinkCredit(limit) => json!({"type": "LINK_CREDIT", "limit": limit}),
        Frame::MaxSubchannels(count) => json!({"type": "MAX_SUBCHANNELS", "count": count}),
        Frame::Reset { id, code, final_offset } => {
            json!({"type": "RESET", "subchannel": id.0, "code": code, "final": final_offset})
        }
        Frame::Stop { id, code } => json!({"type": "STOP", "subchannel": id.0, "code": code}),
        Frame::Refuse { id, code } => json!({"type": "REFUSE", "subchannel": id.0, "code": code}),
        Frame::Datagram { id, data } => {
            json!({"type": "DATAGRAM", "subchannel": id.0, "data": to_hex(data)})
        }
        Frame::Goodbye { code, reason } => json!({"type": "GOODBYE", "code": code, "reason": reason}),
        Frame::Data { id, offset, mark, fin, data } => json!({
            "type": "DATA", "subchannel": id.0, "offset": offset, "mark": mark.bits(), "fin": u8::from(*fin),
            "data": to_hex(data),
        }),
    }
}

fn encoded(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames {
        let before = out.len();
        frame.encode(&mut out);
        assert_eq!(out.len() - before, frame.encoded_len(), "{frame:?}");
    }
    out
}

fn decoded(bytes: &[u8]) -> (Vec<Frame>, Option<Violation>) {
    let mut frames = Vec::new();
    let mut error = None;
    for frame in Frames::new(Bytes::copy_from_slice(bytes)) {
        assert!(error.is_none(), "nothing follows an error");
        match frame {
            Ok(frame) => frames.push(frame),
            Err(violation) => error = Some(violation),
        }
    }
    (frames, error)
}

#[test]
fn every_vector_decodes_and_encodes() {
    let vectors: Value = serde_json::from_str(include_str!("../../../tests/dilated-1.json")).unwrap();
    let records = vectors["records"].as_array().unwrap();
    assert!(records.len() > 40);
    for vector in records {
        let name = vector["name"].as_str().unwrap();
        let wire = hex(vector["hex"].as_str().unwrap());
        let (frames, error) = decoded(&wire);
        let described: Vec<_> = frames.iter().map(described).collect();
        assert_eq!(Value::from(described), vector["frames"], "{name}");
        assert_eq!(error.as_ref().map(|error| error.code), vector["error"].as_u64(), "{name}");
        // What is longer than needed, or more than counts, is not written that way.
        let odd = ["longer than needed", "above 7"].iter().any(|odd| name.contains(odd));
        if error.is_none() && !odd {
            assert_eq!(encoded(&frames), wire, "{name}");
        }
    }
}

#[test]
fn payload_is_not_copied() {
    let wire = Bytes::from(encoded(&[
        Frame::Padding,
        Frame::Data {
            id: SubchannelId(1),
            offset: 0,
            mark: Mark::Stream,
            fin: false,
            data: Bytes::from(vec![1; 60_000]),
        },
    ]));
    let end = wire.as_ptr().wrapping_add(wire.len());
    match Frames::new(wire).last() {
        Some(Ok(Frame::Data { data, .. })) => assert_eq!(data.as_ptr().wrapping_add(data.len()), end),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_long_list_is_spread_over_records() {
    let entry = |n| Received { id: SubchannelId(n), received: MAX_VARINT, limit: MAX_VARINT };
    let entries: Vec<_> = (0..10_000).map(entry).collect();
    let frames = Frame::resume(7, &entries);
    assert!(frames.len() > 1);
    let mut all = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        assert!(frame.encoded_len() <= MAX_PLAINTEXT);
        let Frame::Resume { epoch: 7, more, entries } = frame else { panic!("{frame:?}") };
        assert_eq!(*more, index + 1 < frames.len());
        all.extend_from_slice(entries);
    }
    assert_eq!(all, entries);
    assert_eq!(Frame::resume(1, &[]), [Frame::Resume { epoch: 1, more: false, entries: Vec::new() }]);
}

#[test]
fn a_reason_is_cut_between_characters() {
    let reason = format!("{}{}", "x".repeat(MAX_REASON - 1), "é".repeat(10));
    let (frames, error) = decoded(&encoded(&[Frame::Goodbye { code: 1, reason }]));
    assert_eq!(error, None);
    assert_eq!(frames, [Frame::Goodbye { code: 1, reason: "x".repeat(MAX_REASON - 1) }]);
}

#[test]
fn debug_does_not_show_payload() {
    let data = Bytes::from_static(b"secret");
    let id = SubchannelId(1);
    let shown = format!(
        "{:?} {:?}",
        Frame::Datagram { id, data: data.clone() },
        Frame::Data { id, offset: 5, mark: Mark::End, fin: true, data }
    );
    assert!(shown.contains("len: 6") && !shown.contains("secret") && !shown.contains("115"), "{shown}");
}

#[test]
fn payload_fills_a_room_as_far_as_it_can() {
    for room in (0..300).chain(16_000..17_000).chain(65_000..65_520) {
        let n = payload_room(room);
        assert!(n == 0 || n + varint_len(n as u64) <= room, "{room}");
        let next = n + 1;
        // The length of a length grows in steps, so that up to two bytes may be left.
        assert!(next + varint_len(next as u64) + 2 > room, "{room}");
    }
}

fn any_varint() -> impl Strategy<Value = u64> {
    prop_oneof![0..100u64, 0..100_000u64, Just(MAX_VARINT), 0..=MAX_VARINT]
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let id = prop_oneof![0..200u32, any::<u32>()].prop_map(SubchannelId);
    let received = (id.clone(), any_varint(), any_varint())
        .prop_map(|(id, received, limit)| Received { id, received, limit })
        .boxed();
    let data = proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
    let mark = prop_oneof![Just(Mark::Stream), Just(Mark::More), Just(Mark::End)];
    prop_oneof![
        Just(Frame::Padding),
        any_varint().prop_map(Frame::Ping),
        any_varint().prop_map(Frame::Pong),
        any_varint().prop_map(Frame::LinkCredit),
        any_varint().prop_map(Frame::MaxSubchannels),
        (any_varint(), any::<bool>(), proptest::collection::vec(received.clone(), 0..9))
            .prop_map(|(epoch, more, entries)| Frame::Resume { epoch, more, entries }),
        (id.clone(), any_varint(), 0..8u8, "\\PC{1,40}").prop_map(|(id, limit, priority, name)| {
            Frame::Open { id, limit, priority, name: (&*name).into() }
        }),
        received.prop_map(Frame::Credit),
        (id.clone(), any_varint(), any_varint()).prop_map(|(id, code, final_offset)| Frame::Reset {
            id,
            code,
            final_offset
        }),
        (id.clone(), any_varint()).prop_map(|(id, code)| Frame::Stop { id, code }),
        (id.clone(), any_varint()).prop_map(|(id, code)| Frame::Refuse { id, code }),
        (id.clone(), data.clone()).prop_map(|(id, data)| Frame::Datagram { id, data }),
        (any_varint(), "\\PC{0,40}").prop_map(|(code, reason)| Frame::Goodbye { code, reason }),
        (id, any_varint(), mark, any::<bool>(), data)
            .prop_filter("a DATA has a unit", |(_, _, mark, fin, data)| {
                *mark == Mark::End || *fin || !data.is_empty()
            })
            .prop_map(|(id, offset, mark, fin, data)| Frame::Data { id, offset, mark, fin, data }),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(frames in proptest::collection::vec(any_frame(), 0..20)) {
        prop_assert_eq!(decoded(&encoded(&frames)), (frames, None));
    }

    #[test]
    fn a_part_of_a_record_is_an_error_or_a_part_of_the_frames(
        frames in proptest::collection::vec(any_frame(), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let wire = encoded(&frames);
        let cut = cut.index(wire.len());
        let (part, error) = decoded(&wire[..cut]);
        prop_assert_eq!(&part[..], &frames[..part.len()]);
        // Whatever was not given back whole is told.
        let whole = encoded(&part).len() == cut;
        prop_assert_eq!(error.map(|error| error.code), (!whole).then_some(Violation::FRAME));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..0x18) {
        decoded(&bytes);
        decoded(&[&[kind][..], &bytes].concat());
    }
}
