//! What goes onto the link, and in which order.

use super::*;

fn ids(frames: &[Frame]) -> Vec<u32> {
    frames
        .iter()
        .filter_map(|frame| if let Frame::Data { id, .. } = frame { Some(id.0) } else { None })
        .collect()
}

/// A Leader with subchannels that the peer gave plenty of credit.
fn with(count: u32) -> (Side, Vec<StreamKey>) {
    let mut side = Side::leader(MuxConfig::default());
    let keys: Vec<_> = (0..count).map(|_| side.open()).collect();
    side.sent();
    for id in (0..count).map(|n| 2 * n + 1) {
        side.take([credit(id, 0, 1 << 40)]);
    }
    side.events();
    (side, keys)
}

#[test]
fn bulk_fills_records_to_the_last_byte() {
    let (mut side, keys) = with(1);
    let mut bulk = Bytes::from(vec![1; 1 << 20]);
    ready(side.mux.write_bytes(keys[0], &mut bulk));
    let mut batch = Batch::new();
    assert!(side.mux.poll_transmit(side.now, 4 * 65_000, &mut batch));
    assert_eq!(batch.len(), 4);
    for record in batch.records() {
        let parts: Vec<_> = record.collect();
        assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), crate::frame::MAX_PLAINTEXT);
        assert_eq!(parts.len(), 2, "one DATA, its payload not copied");
    }
    assert_eq!(frames_of(&batch).len(), 4);
}

#[test]
fn small_messages_share_a_record() {
    let (mut side, keys) = with(1);
    for _ in 0..500 {
        ready(side.mux.send(keys[0], &Bytes::from(vec![7; 100])));
    }
    let mut batch = Batch::new();
    side.mux.poll_transmit(side.now, 1, &mut batch);
    assert_eq!(batch.len(), 1);
    let frames = frames_of(&batch);
    assert_eq!((frames.len(), data_len(&frames)), (500, 50_000));
    assert!(frames.iter().all(|frame| matches!(frame, Frame::Data { mark: Mark::End, .. })));
    batch.clear();
    assert!(!side.mux.poll_transmit(side.now, 1, &mut batch) && batch.is_empty());
}

#[test]
fn small_writes_join_and_messages_stay_apart() {
    let (mut side, keys) = with(1);
    for _ in 0..1000 {
        ready(side.mux.write(keys[0], b"ab"));
    }
    ready(side.mux.send(keys[0], &Bytes::from_static(b"one")));
    ready(side.mux.send(keys[0], &Bytes::new()));
    ready(side.mux.write(keys[0], b"tail"));
    side.mux.shutdown(keys[0]).unwrap();
    let sent: Vec<_> = side
        .sent()
        .into_iter()
        .map(|frame| match frame {
            Frame::Data { offset, mark, fin, data, .. } => (offset, mark, fin, data.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        (0, Mark::Stream, false, 2000),
        (2000, Mark::End, false, 3),
        (2004, Mark::End, false, 0),
        (2005, Mark::Stream, true, 4),
    ];
    assert_eq!(sent, expected);
}

#[test]
fn those_of_a_level_take_turns_of_16_kib() {
    let (mut side, keys) = with(2);
    for key in &keys {
        ready(side.mux.write_bytes(*key, &mut Bytes::from(vec![1; 64 << 10])));
    }
    let sent = side.sent();
    let mut most = [0i64; 2];
    let mut lead = 0i64;
    for frame in &sent {
        let Frame::Data { id, data, .. } = frame else { panic!("{frame:?}") };
        let len = i64::try_from(data.len()).unwrap();
        assert!(len <= 16 << 10 || lead.abs() >= 16 << 10, "{len}");
        lead += if id.0 == 1 { len } else { -len };
        most[usize::from(id.0 == 3)] = most[usize::from(id.0 == 3)].max(lead.abs());
    }
    assert!(most.iter().all(|lead| *lead <= 16 << 10), "{most:?}");
    assert_eq!(data_len(&sent), 128 << 10);
}

#[test]
fn opens_then_control_frames_then_the_control_channel_then_levels() {
    let (mut side, keys) = with(3);
    let control = side.mux.control().unwrap();
    side.sent();
    side.mux.set_priority(keys[1], 0);
    side.mux.set_priority(keys[2], 200);
    for key in [keys[2], keys[0], keys[1], control] {
        ready(side.mux.send(key, &Bytes::from_static(b"data")));
    }
    side.open();
    side.mux.stop(keys[0], 1);
    let sent = side.sent();
    assert!(matches!(&sent[0], Frame::Open { id: SubchannelId(7), priority: 3, .. }), "{sent:?}");
    assert!(matches!(&sent[1], Frame::Stop { id: SubchannelId(1), code: 1 }), "{sent:?}");
    assert_eq!(ids(&sent), [0, 3, 1, 5]);
}

#[test]
fn a_change_of_priority_counts_for_what_waits() {
    let (mut side, keys) = with(2);
    for key in &keys {
        ready(side.mux.send(*key, &Bytes::from_static(b"data")));
    }
    side.mux.set_priority(keys[1], 1);
    assert_eq!(ids(&side.sent()), [3, 1]);
}

#[test]
fn credit_of_the_subchannel_stops_it_and_only_it() {
    let mut side = Side::leader(MuxConfig::default());
    let (one, other) = (side.open(), side.open());
    side.take([]);
    side.sent();
    side.take([credit(1, 0, 10), credit(3, 0, 1 << 20)]);
    // What was said of the first CREDIT holds until then.
    ready(side.mux.send(one, &Bytes::from(vec![1; 70_000])));
    ready(side.mux.send(other, &Bytes::from(vec![2; 70_000])));
    side.mux.shutdown(one).unwrap();
    assert_eq!(data_len(&side.sent()), 65_536 + 70_000);
    side.take([credit(1, 65_536, 70_000)]);
    let sent = side.sent();
    assert!(matches!(sent[..], [Frame::Data { mark: Mark::More, fin: false, .. }]), "{sent:?}");
    side.take([credit(1, 70_000, 70_000)]);
    assert_eq!(side.sent(), [], "the end of the message is a unit");
    side.take([credit(1, 70_000, 70_001)]);
    let end =
        Frame::Data { id: SubchannelId(1), offset: 70_000, mark: Mark::End, fin: true, data: Bytes::new() };
    assert_eq!(side.sent(), [end], "the end of the direction needs none");
}

#[test]
fn credit_of_the_link_stops_all_but_the_control_channel() {
    let params = Params { link_credit: 1000, ..Params::default() };
    let mut side = Side::new(MuxConfig::default(), Parity::Odd, params);
    let control = side.mux.control().unwrap();
    let (one, other) = (side.open(), side.open());
    for key in [one, other, control] {
        ready(side.mux.write(key, &[1; 800]));
    }
    let third = side.open();
    side.mux.shutdown(third).unwrap();
    let sent = side.sent();
    assert_eq!(data_len(&sent), 800 + 1000);
    assert!(sent.contains(&fin(5, 0)), "an end needs no credit");
    assert!(!side.mux.wants_transmit());
    // What is sent again does not count again.
    side.mux.resume();
    let entries = [0, 1, 3, 5].map(|id| Received { id: SubchannelId(id), received: 0, limit: 1 << 16 });
    side.mux.handle_resume(entries.to_vec(), side.now).unwrap();
    assert_eq!(data_len(&side.sent()), 800 + 1000);
    side.take([Frame::LinkCredit(1600)]);
    assert_eq!(data_len(&side.sent()), 600);
    // What is refused is taken out of the sum.
    let refused = side.open();
    ready(side.mux.write(refused, &[1; 100]));
    assert_eq!(data_len(&side.sent()), 0);
    side.take([Frame::LinkCredit(1650)]);
    assert_eq!(data_len(&side.sent()), 50);
    side.take([Frame::Refuse { id: SubchannelId(7), code: 1 }]);
    let next = side.open();
    ready(side.mux.write(next, &[1; 100]));
    assert_eq!(data_len(&side.sent()), 50);
}

#[test]
fn acknowledgements_ride_along_or_go_after_a_while() {
    let mut side = Side::leader(MuxConfig::default());
    let key = side.accepted(2);
    side.take([data(2, 0, Mark::End, "hi")]);
    assert_eq!(side.sent(), []);
    assert!(!side.mux.wants_transmit());
    assert_eq!(side.mux.poll_timeout(), Some(side.now + Duration::from_millis(25)));
    ready(side.mux.send(key, &Bytes::from_static(b"answer")));
    let sent = side.sent();
    assert!(
        matches!(sent[..], [Frame::Credit(Received { received: 3, .. }), Frame::Data { .. }]),
        "{sent:?}"
    );
    assert_eq!(side.mux.poll_timeout(), None);
    side.take([data(2, 3, Mark::End, "hi")]);
    side.now += Duration::from_millis(25);
    let sent = side.sent();
    assert!(matches!(sent[..], [Frame::Credit(Received { received: 6, .. })]), "{sent:?}");
    // The end is acknowledged at once.
    side.take([fin(2, 6)]);
    let sent = side.sent();
    assert!(matches!(sent[..], [Frame::Credit(Received { received: 7, .. })]), "{sent:?}");
}

#[test]
fn writers_wait_for_room_and_are_woken_together() {
    let config = MuxConfig { outbox_limit: 10_000, stream_queue: 6000, ..MuxConfig::default() };
    let mut side = Side::leader(config);
    let (one, other) = (side.open(), side.open());
    side.sent();
    side.take([credit(1, 0, 1 << 20), credit(3, 0, 1 << 20)]);
    side.events();
    assert_eq!(ready(side.mux.write(one, &[1; 8000])), 6000);
    assert!(side.mux.write(one, b"x").is_pending(), "its own queue is full");
    assert_eq!(ready(side.mux.write(other, &[1; 8000])), 4000);
    assert!(side.mux.write(other, b"x").is_pending(), "everything is full");
    assert!(side.mux.send(other, &Bytes::from_static(b"x")).is_pending());
    side.sent();
    assert_eq!(side.events(), [Event::Writable(one)], "it may write again as far as its queue goes");
    assert!(side.mux.write(one, b"x").is_pending());
    side.take([credit(1, 4000, 1 << 20)]);
    assert!(!side.events().contains(&Event::Writable(other)), "not before half is free");
    side.take([credit(1, 6000, 1 << 20)]);
    let events = side.events();
    let woken: Vec<_> = events.iter().filter(|event| matches!(event, Event::Writable(_))).collect();
    assert_eq!(woken, [&Event::Writable(other), &Event::Writable(one)]);
    // A message above the limit goes when half is free.
    ready(side.mux.send(one, &Bytes::from(vec![1; 20_000])));
    assert!(side.mux.send(one, &Bytes::from_static(b"x")).is_pending());
}

/// A side whose outbox of 10,000 bytes is full, and so many writers that wait to write 3,000 each.
fn crowded(waiting: u32) -> (Side, StreamKey, Vec<StreamKey>) {
    let mut side = Side::leader(MuxConfig { outbox_limit: 10_000, ..MuxConfig::default() });
    let first = side.open();
    let line: Vec<_> = (0..waiting).map(|_| side.open()).collect();
    side.sent();
    side.take((0..=waiting).map(|index| credit(2 * index + 1, 0, 1 << 20)));
    assert_eq!(ready(side.mux.write(first, &[1; 10_000])), 10_000);
    for key in &line {
        assert!(side.mux.write(*key, &[1; 3000]).is_pending());
    }
    side.sent();
    side.events();
    (side, first, line)
}

fn writable(events: &[Event]) -> Vec<StreamKey> {
    let key = |event: &Event| if let Event::Writable(key) = event { Some(*key) } else { None };
    events.iter().filter_map(key).collect()
}

#[test]
fn of_many_writers_as_many_are_called_as_there_is_room_for() {
    let (mut side, _, line) = crowded(5);
    side.take([credit(1, 6000, 1 << 20)]);
    assert_eq!(writable(&side.events()), line[..2]);
    assert!(side.mux.write(line[4], &[1; 3000]).is_pending(), "it was not called");
    assert_eq!(ready(side.mux.write(line[0], &[1; 3000])), 3000);
    side.take([credit(1, 10_000, 1 << 20)]);
    assert_eq!(writable(&side.events()), [], "one that was called has not come");
    // It comes for less than it wanted; that was the last, and half is free.
    assert_eq!(ready(side.mux.write(line[1], b"x")), 1);
    assert_eq!(writable(&side.events()), line[2..], "there is room for all");
    for key in &line[2..4] {
        assert_eq!(ready(side.mux.write(*key, &[1; 3000])), 3000);
    }
    assert_eq!(ready(side.mux.write(line[4], &[1; 3000])), 999);
}

#[test]
fn who_is_called_writes_its_share_though_others_wait() {
    const OUTBOX: usize = 1 << 20;
    let mut side = Side::leader(MuxConfig { outbox_limit: OUTBOX, ..MuxConfig::default() });
    let line: Vec<_> = (0..7).map(|_| side.open()).collect();
    side.sent();
    side.take((0..7).map(|index| credit(2 * index + 1, 0, 4 << 20)));
    let piece = |length: usize| Bytes::from(vec![1; length]);
    ready(side.mux.write_bytes(line[0], &mut piece(OUTBOX)));
    for key in &line[1..] {
        assert!(side.mux.write_bytes(*key, &mut piece(64 << 10)).is_pending());
    }
    side.sent();
    side.take([credit(1, 600_000, 4 << 20)]);
    // 600,000 bytes are room for the shares of five.
    assert_eq!(writable(&side.events()), line[1..6]);
    assert_eq!(ready(side.mux.write_bytes(line[1], &mut piece(64 << 10))), 64 << 10);
    assert_eq!(
        ready(side.mux.write_bytes(line[1], &mut piece(80 << 10))),
        64 << 10,
        "what is left of its share"
    );
    assert!(side.mux.write_bytes(line[1], &mut piece(1)).is_pending());
    assert!(side.mux.write_bytes(line[6], &mut piece(1)).is_pending(), "it was not called");
    // Who comes next takes the place of the guest; what is left of the former's share is lost.
    ready(side.mux.write_bytes(line[2], &mut piece(64 << 10)));
    ready(side.mux.send(line[3], &piece(100 << 10)));
    assert!(side.mux.write_bytes(line[2], &mut piece(64 << 10)).is_pending());
    assert!(side.mux.send(line[3], &piece(29 << 10)).is_pending(), "more than is left");
}

#[test]
fn who_has_little_goes_before_many_who_have_much() {
    let (mut side, keys) = with(100);
    for key in &keys[..80] {
        ready(side.mux.write_bytes(*key, &mut Bytes::from(vec![1; 150 << 10])));
    }
    let mut batch = Batch::new();
    side.mux.poll_transmit(side.now, 1 << 20, &mut batch);
    for key in &keys[80..] {
        ready(side.mux.write_bytes(*key, &mut Bytes::from(vec![1; 4000])));
    }
    batch.clear();
    side.mux.poll_transmit(side.now, 2 << 20, &mut batch);
    let frames = frames_of(&batch);
    let mut order = ids(&frames);
    order.dedup();
    let id = |index: usize| 2 * u32::try_from(index).unwrap() + 1;
    let brief = |range: std::ops::Range<usize>| range.map(id).collect::<Vec<_>>();
    // After a run of those who have little it is the turn of one of the many, who goes on where its turn was cut.
    assert_eq!(order[..16], brief(80..96));
    assert!(order[16] < id(80), "{order:?}");
    assert_eq!(order[17..21], brief(96..100));
    assert!(order[21..].iter().all(|id| *id < 161), "{order:?}");
}

#[test]
fn what_the_peer_gives_no_credit_for_stops_nobody() {
    let config = MuxConfig { outbox_limit: 10_000, ..MuxConfig::default() };
    let peer = Params { subchannel_credit: 1000, ..Params::default() };
    let mut side = Side::new(config, Parity::Odd, peer);
    let (stalled, other) = (side.open(), side.open());
    side.sent();
    side.take([credit(3, 0, 1 << 20)]);
    side.events();
    assert_eq!(ready(side.mux.write(stalled, &[1; 10_000])), 3750);
    assert!(side.mux.write(stalled, b"x").is_pending());
    assert!(side.mux.usage().writers_wait);
    assert_eq!(ready(side.mux.write(other, &[1; 3000])), 3000, "there is room for it");
    side.sent();
    side.take([credit(1, 1000, 5000)]);
    assert_eq!(writable(&side.events()), [stalled]);
    assert!(!side.mux.usage().writers_wait);
    assert_eq!(ready(side.mux.write(stalled, &[1; 10_000])), 1250, "as much as there is credit for");
    assert!(side.mux.write(stalled, b"x").is_pending());
    side.mux.reset(stalled, 7);
    assert!(!side.mux.usage().writers_wait, "it does not wait any more");
    // Without a link all of the room is for whoever comes.
    side.mux.link_down();
    let late = side.open();
    let free = 10_000 - side.mux.usage().outbox_bytes;
    assert_eq!(ready(side.mux.write(late, &[1; 10_000])), free);
}

#[test]
fn who_is_called_and_has_no_credit_stops_nobody_behind_it() {
    let config = MuxConfig { outbox_limit: 10_000, ..MuxConfig::default() };
    let peer = Params { subchannel_credit: 0, ..Params::default() };
    let mut side = Side::new(config, Parity::Odd, peer);
    let [first, stalled, message, behind] = [(); 4].map(|()| side.open());
    side.sent();
    side.take([1, 5, 7].map(|id| credit(id, 0, 1 << 20)));
    assert_eq!(ready(side.mux.write(first, &[1; 8000])), 8000);
    side.sent();
    // Without a link it stands in line although there is no credit for it.
    side.mux.link_down();
    let text = Bytes::from(vec![1; 2500]);
    assert!(side.mux.send(message, &text).is_pending(), "it does not fit");
    assert!(side.mux.write(stalled, &[1; 10_000]).is_pending());
    assert!(side.mux.write(behind, &[1; 3000]).is_pending());
    side.events();
    side.mux.resume();
    let entries = [(1, 0, 1 << 20), (3, 0, 0), (5, 0, 1 << 20), (7, 0, 1 << 20)];
    let entries = entries.map(|(id, received, limit)| {
        let Frame::Credit(entry) = credit(id, received, limit) else { unreachable!() };
        entry
    });
    side.mux.handle_resume(entries.to_vec(), side.now).unwrap();
    side.take([credit(1, 6000, 1 << 20)]);
    assert_eq!(writable(&side.events()), [message, stalled], "they want all that is free");
    ready(side.mux.send(message, &text));
    assert!(side.mux.write(stalled, &[1; 10_000]).is_pending(), "there is a link again");
    assert_eq!(writable(&side.events()), [behind]);
    assert_eq!(ready(side.mux.write(behind, &[1; 3000])), 3000);
}

#[test]
fn who_is_called_and_does_not_come_stops_nobody() {
    // It gives up.
    let (mut side, _, line) = crowded(5);
    side.take([credit(1, 6000, 1 << 20)]);
    side.events();
    side.mux.reset(line[0], 7);
    assert_eq!(writable(&side.events()), line[..1], "another is awaited");
    side.mux.release(line[1]);
    assert_eq!(writable(&side.events()), line[2..4]);
    // It stays, and does nothing.
    side.sent();
    assert_eq!(side.mux.poll_timeout(), Some(side.now + Duration::from_millis(25)));
    side.now += Duration::from_millis(24);
    side.sent();
    assert_eq!(writable(&side.events()), []);
    side.now += Duration::from_millis(1);
    side.sent();
    assert_eq!(writable(&side.events()), line[4..]);
    assert_eq!(side.mux.poll_timeout(), None);
    // There is no link.
    let (mut side, _, line) = crowded(5);
    side.take([credit(1, 6000, 1 << 20)]);
    side.events();
    side.mux.link_down();
    assert_eq!(writable(&side.events()), line[2..]);
}

#[test]
fn batches_keep_records_of_ged_apart() {
    let mut batch = Batch::new();
    batch.push_record(b"head", Bytes::from(vec![1; 5000]));
    batch.push_record(b"ack", Bytes::new());
    batch.push_frame(&Frame::Ping(1));
    batch.push_frame(&Frame::Ping(2));
    let records: Vec<Vec<u8>> = batch.records().map(|parts| parts.collect::<Vec<_>>().concat()).collect();
    assert_eq!(records.iter().map(Vec::len).collect::<Vec<_>>(), [5004, 3, 4]);
    assert_eq!(records[2], [1, 1, 1, 2]);
    assert_eq!((batch.len(), batch.bytes()), (3, 5011));
    batch.clear();
    assert!(batch.is_empty() && batch.bytes() == 0);
}

#[test]
fn on_a_short_path_little_is_on_its_way_but_what_is_not_data() {
    let (mut side, keys) = with(2);
    side.mux.set_round_trip(Duration::from_millis(1));
    ready(side.mux.write_bytes(keys[0], &mut Bytes::from(vec![1; 4 << 20])));
    let mut batch = Batch::new();
    while side.mux.poll_transmit(side.now, usize::MAX, &mut batch) {}
    let first = data_len(&frames_of(&batch));
    assert!((1 << 20..3 << 20).contains(&first), "{first}");
    assert!(!side.mux.wants_transmit());
    side.mux.stop(keys[1], 1);
    side.mux.set_priority(keys[1], 0);
    ready(side.mux.send(keys[1], &Bytes::from_static(b"urgent")));
    assert!(matches!(side.sent()[..], [Frame::Stop { .. }]), "no data");
    side.take([credit(1, 256 << 10, 1 << 40)]);
    assert!(side.mux.wants_transmit());
    let next = side.sent();
    assert_eq!(ids(&next)[..2], [3, 1], "what is urgent goes first when it goes on");
    assert!(data_len(&next) <= (256 << 10) + 2 * crate::frame::MAX_PLAINTEXT);
    side.take([credit(1, first as u64, 1 << 40)]);
    side.mux.resume();
    side.mux
        .handle_resume(
            vec![Received { id: SubchannelId(1), received: first as u64, limit: 1 << 40 }],
            side.now,
        )
        .unwrap();
    assert!(side.mux.wants_transmit(), "another link, whose path nobody knows");
}

#[test]
fn credits_do_not_wait_when_much_has_come_on_all_subchannels_together() {
    let mut side = Side::leader(MuxConfig::default());
    let ids: Vec<u32> = (1..=5).map(|n| 2 * n).collect();
    for id in &ids {
        side.accepted(*id);
    }
    for (id, last) in ids.iter().zip([false, false, false, false, true]) {
        side.take([data(*id, 0, Mark::Stream, vec![0; 60_000])]);
        assert_eq!(side.mux.wants_transmit(), last, "256 KiB");
    }
    let told = |frame: &Frame| matches!(frame, Frame::Credit(Received { received: 60_000, .. }));
    let sent = side.sent();
    assert_eq!((sent.len(), sent.iter().all(told)), (5, true), "{sent:?}");
}

#[test]
fn turns_divide_records_without_small_remainders() {
    let (mut side, keys) = with(7);
    for key in &keys {
        ready(side.mux.write_bytes(*key, &mut Bytes::from(vec![1; 128 << 10])));
    }
    let sent = side.sent();
    assert_eq!(data_len(&sent), 7 * (128 << 10));
    let lengths = sent.iter().map(|frame| data_len(std::slice::from_ref(frame)));
    let small = lengths.filter(|len| *len < 15 << 10).count();
    assert!(small <= 7 + 1, "the last of each subchannel, and what the end of the batch cuts: {small}");
}

#[test]
fn turns_are_long_in_a_crowd_though_most_of_it_waits_to_write() {
    const TURN: usize = 128 << 10;
    for (waiting, turns) in [(0, 32..=35), (100, 4..=5)] {
        let mut side = Side::leader(MuxConfig { outbox_limit: 4 * TURN, ..MuxConfig::default() });
        let keys: Vec<_> = (0..2 + waiting).map(|_| side.open()).collect();
        side.sent();
        side.take((0..2 + waiting).map(|index| credit(2 * index + 1, 0, 1 << 20)));
        for key in keys[..2].repeat(4) {
            ready(side.mux.write_bytes(key, &mut Bytes::from(vec![1; TURN / 2])));
        }
        for key in &keys[2..] {
            assert!(side.mux.write(*key, &[1; 3000]).is_pending());
        }
        let sent = side.sent();
        let seen = ids(&sent).chunk_by(PartialEq::eq).count();
        assert!(data_len(&sent) > 4 * TURN - 1000, "the outbox is full");
        assert!(turns.contains(&seen), "{waiting} wait: {seen} turns");
    }
}
