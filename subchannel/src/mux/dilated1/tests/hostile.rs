//! A peer that breaks each rule, and the code that it gets.

use proptest::prelude::*;

use super::*;
use crate::frame::MAX_VARINT;

const FIRST: u32 = 2;

#[test]
fn more_than_the_credit_of_a_subchannel() {
    let mut side = Side::leader(MuxConfig::default());
    side.feed([open(FIRST)]);
    let window = usize::try_from(credit::SMALL_WINDOW).unwrap();
    side.take([data(FIRST, 0, Mark::Stream, vec![0; window])]);
    assert_eq!(side.violation(data(FIRST, window as u64, Mark::Stream, "x")), Violation::FLOW_CONTROL);

    let mut side = Side::leader(MuxConfig::default());
    side.feed([open(FIRST)]);
    // The end of a message is a unit; the end of the direction needs no credit.
    side.take([data(FIRST, 0, Mark::Stream, vec![0; window])]);
    assert_eq!(side.violation(data(FIRST, window as u64, Mark::End, "")), Violation::FLOW_CONTROL);
    side.take([fin(FIRST, window as u64)]);

    let mut side = Side::leader(MuxConfig::default());
    side.feed([open(FIRST)]);
    let reset = Frame::Reset { id: SubchannelId(FIRST), code: 0, final_offset: window as u64 + 1 };
    assert_eq!(side.violation(reset), Violation::FLOW_CONTROL);
}

#[test]
fn more_than_the_credit_of_the_link() {
    let config = MuxConfig { receive_total: 100_000, max_data: 50_000, ..MuxConfig::default() };
    let mut side = Side::leader(config);
    side.feed([open(2), open(4)]);
    side.take([data(2, 0, Mark::Stream, vec![0; 60_000]), data(4, 0, Mark::Stream, vec![0; 40_000])]);
    // The control channel does not count.
    side.take([data(0, 0, Mark::Stream, vec![0; 60_000])]);
    assert_eq!(side.violation(data(4, 40_000, Mark::Stream, "x")), Violation::FLOW_CONTROL);
}

#[test]
fn more_subchannels_than_allowed() {
    let mut side = Side::leader(MuxConfig { max_subchannels: 3, ..MuxConfig::default() });
    side.take([open(2), open(4), open(6)]);
    assert_eq!(side.violation(open(8)), Violation::SUBCHANNELS);
}

#[test]
fn gaps_ends_that_move_and_units_behind_them() {
    let open_side = || {
        let mut side = Side::leader(MuxConfig::default());
        side.feed([open(FIRST), data(FIRST, 0, Mark::Stream, "abc")]);
        side
    };
    let reset = |final_offset| Frame::Reset { id: SubchannelId(FIRST), code: 7, final_offset };
    assert_eq!(open_side().violation(data(FIRST, 4, Mark::Stream, "x")), Violation::OFFSET);
    assert_eq!(open_side().violation(fin(FIRST, 2)), Violation::OFFSET);
    assert_eq!(open_side().violation(reset(2)), Violation::OFFSET);
    for end in [fin(FIRST, 3), reset(3)] {
        let ended = || {
            let mut side = open_side();
            side.take([end.clone(), end.clone()]);
            side
        };
        assert_eq!(ended().violation(data(FIRST, 3, Mark::Stream, "xy")), Violation::OFFSET);
        assert_eq!(ended().violation(data(FIRST, 4, Mark::Stream, "x")), Violation::OFFSET);
        assert_eq!(ended().violation(fin(FIRST, 2)), Violation::OFFSET);
        assert_eq!(ended().violation(reset(4)), Violation::OFFSET);
        ended().take([data(FIRST, 1, Mark::Stream, "bc"), fin(FIRST, 3), reset(3)]);
    }
    let mut side = open_side();
    assert_eq!(side.violation(credit(FIRST, 1, 9)), Violation::OFFSET, "nothing was sent");
}

#[test]
fn frames_for_what_was_never_opened_and_wrong_numbers() {
    let id = SubchannelId(FIRST);
    for frame in [
        data(FIRST, 0, Mark::Stream, "x"),
        credit(FIRST, 0, 1),
        Frame::Reset { id, code: 0, final_offset: 0 },
        Frame::Stop { id, code: 0 },
        Frame::Refuse { id, code: 0 },
        Frame::Datagram { id, data: Bytes::new() },
        credit(1, 0, 1),
        Frame::Refuse { id: SubchannelId(1), code: 0 },
        Frame::Refuse { id: SubchannelId(0), code: 0 },
        open(0),
        open(1),
        open(4),
    ] {
        let mut side = Side::leader(MuxConfig::default());
        assert_eq!(side.violation(frame.clone()), Violation::STATE, "{frame:?}");
    }
    // Of our own, one whose OPEN was not sent does not count as opened.
    let mut side = Side::leader(MuxConfig::default());
    side.open();
    assert_eq!(side.violation(credit(1, 0, 1)), Violation::STATE);
    side.sent();
    side.take([credit(1, 0, 1)]);
    let unknown = Received { id: SubchannelId(3), received: 0, limit: 0 };
    assert_eq!(side.mux.handle_resume(vec![unknown], side.now).unwrap_err().code, Violation::STATE);
}

#[test]
fn a_message_that_does_not_end() {
    let after = |frame| {
        let mut side = Side::leader(MuxConfig::default());
        side.feed([open(FIRST), data(FIRST, 0, Mark::More, "abc")]);
        side.violation(frame)
    };
    assert_eq!(after(data(FIRST, 3, Mark::Stream, "x")), Violation::FRAME);
    assert_eq!(after(fin(FIRST, 3)), Violation::FRAME);
}

#[test]
fn long_datagrams() {
    let mut side = Side::leader(MuxConfig { max_datagram: 100, ..MuxConfig::default() });
    side.feed([open(FIRST)]);
    let datagram = |len| Frame::Datagram { id: SubchannelId(FIRST), data: vec![0; len].into() };
    side.take([datagram(100)]);
    assert_eq!(side.violation(datagram(101)), Violation::DATAGRAM);
}

#[test]
fn floods_of_what_nobody_wants() {
    let unwanted = |id| Frame::Open { id: SubchannelId(id), limit: 0, priority: 0, name: name("nobody") };
    let refused = |side: &mut Side, from: u32| {
        let mut count = 0;
        loop {
            match side.mux.handle_frame(unwanted(from + 2 * count), side.now) {
                Ok(()) => count += 1,
                Err(violation) => break (count, violation.code),
            }
            if count % 1000 == 0 {
                side.sent();
            }
        }
    };
    let mut side = Side::leader(MuxConfig::default());
    let (count, code) = refused(&mut side, 2);
    assert_eq!((count, code), (10_000, Violation::RATE));
    // OPEN with a number that is gone counts, too.
    assert_eq!(side.violation(unwanted(2)), Violation::RATE);
    side.now += Duration::from_secs(2);
    side.take((0..2000).map(|_| unwanted(2)));
    assert_eq!(side.violation(unwanted(2)), Violation::RATE);

    let mut side = Side::leader(MuxConfig { pending_opens: 20_000, ..MuxConfig::default() });
    let mut count = 0;
    let code = loop {
        let id = 2 + 2 * count;
        side.take([open(id)]);
        let reset = Frame::Reset { id: SubchannelId(id), code: 0, final_offset: 0 };
        match side.mux.handle_frame(reset, side.now) {
            Ok(()) => count += 1,
            Err(violation) => break violation.code,
        }
    };
    assert_eq!((count, code), (10_000, Violation::RATE));
}

#[test]
fn frames_of_the_link_are_not_for_the_mux() {
    let resume = Frame::Resume { epoch: 1, more: false, entries: Vec::new() };
    for frame in [Frame::Ping(1), Frame::Pong(1), resume, Frame::Goodbye { code: 0, reason: String::new() }] {
        assert_eq!(Side::leader(MuxConfig::default()).violation(frame), Violation::INTERNAL);
    }
}

#[test]
fn tiny_messages_cost_hardly_more_than_their_credit() {
    let mut side = Side::leader(MuxConfig::default());
    side.feed([open(FIRST)]);
    let key = side.mux.accept(&name("p")).unwrap();
    side.sent();
    for offset in 0..60_000 {
        side.take([data(FIRST, offset, Mark::End, "")]);
    }
    let active = side.mux.get(key).unwrap().active.as_ref().unwrap();
    assert!(active.receive.list_len() <= 60_000);
    assert_eq!(side.mux.usage().receive_bytes, 60_000);
    for _ in 0..60_000 {
        assert_eq!(side.recv(key), "");
    }
    assert!(side.is_pending(key));
    assert_eq!(side.mux.usage().receive_bytes, 0);
}

fn any_hostile() -> impl Strategy<Value = Frame> {
    let id = (0u32..8).prop_map(SubchannelId);
    let number = || prop_oneof![0..40u64, 65_500..65_600u64, Just(MAX_VARINT), 0..=MAX_VARINT];
    let bytes = (0usize..200).prop_map(|n| Bytes::from(vec![5; n]));
    let mark = prop_oneof![Just(Mark::Stream), Just(Mark::More), Just(Mark::End)];
    prop_oneof![
        4 => (id.clone(), number(), mark, any::<bool>(), bytes.clone())
            .prop_map(|(id, offset, mark, fin, data)| Frame::Data { id, offset, mark, fin, data }),
        3 => (id.clone(), number(), 0u8..8, prop_oneof![Just("p"), Just("nobody")])
            .prop_map(|(id, limit, priority, text)| Frame::Open { id, limit, priority, name: name(text) }),
        2 => (id.clone(), number(), number())
            .prop_map(|(id, received, limit)| Frame::Credit(Received { id, received, limit })),
        1 => number().prop_map(Frame::LinkCredit),
        1 => number().prop_map(Frame::MaxSubchannels),
        1 => (id.clone(), number(), number())
            .prop_map(|(id, code, final_offset)| Frame::Reset { id, code, final_offset }),
        1 => (id.clone(), number()).prop_map(|(id, code)| Frame::Stop { id, code }),
        1 => (id.clone(), number()).prop_map(|(id, code)| Frame::Refuse { id, code }),
        1 => (id, bytes).prop_map(|(id, data)| Frame::Datagram { id, data }),
    ]
}

proptest! {
    #[test]
    fn no_sequence_of_frames_panics(
        steps in proptest::collection::vec((any_hostile(), 0u8..12), 1..120),
        entries in proptest::collection::vec((0u32..8, 0..100u64, 0..100u64), 0..8),
    ) {
        let mut side = Side::leader(MuxConfig { receive_total: 200_000, ..MuxConfig::default() });
        let mut keys = Vec::from_iter(side.mux.control());
        for (frame, verb) in steps {
            // A real driver stops here; the mux must bear to go on.
            let _refused: Result<(), Violation> = side.mux.handle_frame(frame, side.now);
            let key = keys.last().copied();
            match (verb, key) {
                (0, _) => keys.push(side.open()),
                (1, _) => keys.extend(side.mux.accept(&name("p"))),
                (2, _) => drop(side.feed([])),
                (3, Some(key)) => drop(side.mux.recv(key)),
                (4, Some(key)) => drop(side.mux.send(key, &Bytes::from_static(b"message"))),
                (5, Some(key)) => side.mux.reset(key, 1),
                (6, Some(key)) => side.mux.stop(key, 2),
                (7, Some(key)) => {
                    side.mux.release(key);
                    keys.pop();
                }
                (8, Some(_)) => keys.rotate_left(1),
                (9, _) => {
                    side.mux.resume();
                    let list = entries.iter().map(|&(id, received, limit)| {
                        Received { id: SubchannelId(id), received, limit }
                    });
                    let _refused: Result<(), Violation> = side.mux.handle_resume(list.collect(), side.now);
                }
                _ => {}
            }
            side.events();
        }
        side.mux.fail(EndReason::failed("hostile"));
        for key in keys {
            side.mux.release(key);
        }
        prop_assert_eq!(side.mux.usage().outbox_bytes, 0);
        prop_assert!(side.mux.is_drained());
    }
}
