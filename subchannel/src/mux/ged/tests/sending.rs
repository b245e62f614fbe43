//! What goes out: order, limits, numbers, progress.

use super::*;
use crate::record::{MAX_CHUNK, MAX_CHUNK_ALONE};

#[test]
fn numbers_follow_the_role() {
    for (parity, ids) in [(Parity::Odd, [1, 3]), (Parity::Even, [2, 4])] {
        let mut mux = Mux::new(MuxConfig::default(), parity, Names::default());
        let keys = [(); 2].map(|()| ready(mux.open(&name("p"))));
        assert_eq!(keys.map(|key| mux.describe(key).unwrap().0.0), ids);
        assert_eq!(sent(&mut mux), [], "there is no link yet");
        mux.link_up();
        assert_eq!(sent(&mut mux), [open(ids[0], 0), open(ids[1], 1)]);
    }
}

#[test]
fn subchannels_take_turns_and_small_writes_coalesce() {
    let mut mux = mux();
    let keys = [(); 3].map(|()| ready(mux.open(&name("p"))));
    sent(&mut mux);
    let chunk = vec![0; MAX_CHUNK];
    for key in keys {
        for _ in 0..2 {
            assert_eq!(ready(mux.write(key, &chunk)), MAX_CHUNK);
        }
    }
    for _ in 0..100 {
        ready(mux.write(keys[1], b"more"));
    }
    let order: Vec<_> = sent(&mut mux)
        .into_iter()
        .map(|record| match record {
            Record::Data { id, data, .. } => (id.0, data.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    let full = MAX_CHUNK;
    assert_eq!(order, [(1, full), (3, full), (5, full), (1, full), (3, full), (5, full), (3, 400)]);
}

#[test]
fn a_subchannel_that_nobody_waits_behind_sends_more_at_once() {
    let mut mux = mux();
    let keys = [(); 2].map(|()| ready(mux.open(&name("p"))));
    sent(&mut mux);
    let chunk = Bytes::from(vec![0; MAX_CHUNK]);
    let before = mux.usage().outbox_bytes;
    for key in [keys[0], keys[0], keys[0], keys[1], keys[0], keys[0]] {
        assert_eq!(ready(mux.write_bytes(key, &mut chunk.clone())), MAX_CHUNK);
    }
    let lengths: Vec<_> = sent(&mut mux).iter().map(|record| record.body().len()).collect();
    assert_eq!(lengths, [1, 1, 2, 2].map(|chunks| chunks * MAX_CHUNK), "one turn each, and then two alone");
    // What is charged is what the records cost.
    let used = mux.usage();
    assert_eq!(used.outbox_bytes - before, 6 * MAX_CHUNK + 4 * RECORD_OVERHEAD);
    let last = u32::try_from(used.unacknowledged_records).unwrap() - 1;
    feed(&mut mux, [ack(last)]);
    assert_eq!(mux.usage().outbox_bytes, 0);
}

#[test]
fn messages_keep_their_boundaries_up_to_the_limit() {
    let mut mux = running(MuxConfig { max_data: 200_000, ..MuxConfig::default() });
    let key = ready(mux.open(&name("p")));
    for message in [&b"a"[..], b"", b"bc"] {
        ready(mux.send(key, &Bytes::copy_from_slice(message)));
    }
    ready(mux.send(key, &Bytes::from(vec![0; 200_000])));
    let too_long = mux.send(key, &Bytes::from(vec![0; 200_001]));
    assert_eq!(too_long, Poll::Ready(Err(WriteError::TooLong { len: 200_001, limit: 200_000 })));
    let expected =
        [open(1, 0), data(1, 1, "a"), data(1, 2, ""), data(1, 3, "bc"), data(1, 4, vec![0; 200_000])];
    assert_eq!(sent(&mut mux), expected);
}

#[test]
fn shared_memory_is_cut_at_record_size_and_not_copied() {
    let mut mux = mux();
    let key = ready(mux.open(&name("p")));
    sent(&mut mux);
    let whole = Bytes::from(vec![1; 2 * MAX_CHUNK_ALONE + 10_000]);
    let mut rest = whole.clone();
    assert_eq!(ready(mux.write_bytes(key, &mut rest)), whole.len());
    assert!(rest.is_empty());
    let records = sent(&mut mux);
    assert_eq!(
        records.iter().map(|record| record.body().len()).collect::<Vec<_>>(),
        [MAX_CHUNK_ALONE, MAX_CHUNK_ALONE, 10_000]
    );
    assert_eq!(records[1].body().as_ptr(), whole[MAX_CHUNK_ALONE..].as_ptr());
}

#[test]
fn writes_of_the_usual_sizes_leave_no_remainders() {
    let mut mux = mux();
    let key = ready(mux.open(&name("p")));
    sent(&mut mux);
    for (length, records) in [(32 << 10, 1), (64 << 10, 1), (128 << 10, 1), (1 << 20, 8)] {
        let mut rest = Bytes::from(vec![1; length]);
        assert_eq!(ready(mux.write_bytes(key, &mut rest)), length);
        let sizes: Vec<_> = sent(&mut mux).iter().map(|record| record.body().len()).collect();
        assert_eq!(sizes, vec![length / records; records]);
    }
}

#[test]
fn writers_wait_at_the_limit_and_all_wake_at_half() {
    let limit = 100_000;
    let mut mux = running(MuxConfig { outbox_limit: limit, ..MuxConfig::default() });
    let keys = [(); 3].map(|()| ready(mux.open(&name("p"))));
    sent(&mut mux);
    let bulk = vec![0; MAX_CHUNK];
    while mux.write(keys[0], &bulk).is_ready() {}
    assert!(mux.usage().outbox_bytes <= limit);
    assert!(mux.write(keys[1], b"x").is_pending());
    assert!(mux.send(keys[2], &Bytes::from_static(b"x")).is_pending());
    assert!(mux.open(&name("p")).is_pending());
    let records = sent(&mut mux);
    assert_eq!(events(&mut mux), []);
    let last = records.last().and_then(Record::seq).unwrap();
    // OPENs gone: still above half, and a newcomer does not get in before those who wait.
    feed(&mut mux, [ack(2)]);
    assert!(mux.write(keys[1], b"x").is_pending());
    assert!(!events(&mut mux).iter().any(|event| matches!(event, Event::Writable(_))));
    feed(&mut mux, [Record::Ack { seq: last }]);
    let woken = events(&mut mux);
    for event in [keys[0], keys[1], keys[2]].map(Event::Writable).into_iter().chain([Event::Openable]) {
        assert_eq!(woken.iter().filter(|&other| *other == event).count(), 1, "{event:?} in {woken:?}");
    }
    assert!(mux.write(keys[1], b"x").is_ready());
}

#[test]
fn a_message_above_the_outbox_limit_is_sent_when_there_is_room() {
    let mut mux = running(MuxConfig { outbox_limit: 10_000, ..MuxConfig::default() });
    let key = ready(mux.open(&name("p")));
    let (large, small) = (Bytes::from(vec![0; 50_000]), Bytes::from_static(b"x"));
    ready(mux.send(key, &large));
    assert!(mux.send(key, &small).is_pending());
    assert_eq!(sent(&mut mux).len(), 2);
    feed(&mut mux, [ack(1)]);
    assert!(events(&mut mux).contains(&Event::Writable(key)));
    ready(mux.send(key, &small));
}

#[test]
fn one_subchannel_cannot_take_the_whole_outbox() {
    let mut mux = running(MuxConfig { stream_queue: 1000, ..MuxConfig::default() });
    let keys = [(); 2].map(|()| ready(mux.open(&name("p"))));
    assert_eq!(ready(mux.write(keys[0], &[0; 5000])), 1000);
    assert!(mux.write(keys[0], b"x").is_pending());
    assert!(mux.send(keys[0], &Bytes::from_static(b"x")).is_pending());
    assert_eq!(ready(mux.write(keys[1], b"x")), 1);
    sent(&mut mux);
    assert_eq!(events(&mut mux), [Event::Writable(keys[0])]);
    assert_eq!(ready(mux.write(keys[0], b"x")), 1);
}

#[test]
fn writing_without_a_link_only_waits() {
    let mut mux = Mux::new(MuxConfig::default(), Parity::Even, Names::default());
    let keys: Vec<_> = (0..100).map(|_| ready(mux.open(&name("p")))).collect();
    for _ in 0..200 {
        for key in &keys {
            let _ = mux.write(*key, &[0; 65536]);
        }
    }
    assert!(mux.usage().outbox_bytes <= mux.config().outbox_limit);
}

#[test]
fn sequence_numbers_end_with_a_clear_error() {
    let mut mux = running(MuxConfig { first_seq: u32::MAX - 1, ..MuxConfig::default() });
    let key = ready(mux.open(&name("p")));
    ready(mux.write(key, b"x"));
    assert_eq!(sent(&mut mux), [open(1, u32::MAX - 1), data(1, u32::MAX, "x")]);
    assert!(mux.ended().is_none());
    mux.shutdown(key).unwrap();
    assert_eq!(sent(&mut mux), []);
    let reason = mux.ended().unwrap().clone();
    assert!(reason.message().contains("2^32 records") && reason.kind() == EndKind::Failed);
    assert!(events(&mut mux).contains(&Event::Ended));
    assert_eq!(mux.write(key, b"x"), Poll::Ready(Err(WriteError::Ended(reason))));
}

#[test]
fn identifiers_end_with_a_clear_error() {
    for (parity, last) in [(Parity::Odd, u32::MAX), (Parity::Even, u32::MAX - 1)] {
        let config = MuxConfig { ids_used: (1 << 31) - 2, ..MuxConfig::default() };
        let mut mux = Mux::new(config, parity, Names::default());
        let keys: Vec<_> = std::iter::from_fn(|| match mux.open(&name("p")) {
            Poll::Ready(Ok(key)) => Some(mux.describe(key).unwrap().0.0),
            Poll::Ready(Err(OpenError::IdsExhausted)) => None,
            other => panic!("{other:?}"),
        })
        .collect();
        assert_eq!(keys.last(), Some(&last), "{keys:?}");
        assert!(mux.ended().is_none(), "what is open goes on");
    }
}

#[test]
fn progress_follows_acknowledgements() {
    let mut mux = mux();
    let key = ready(mux.open(&name("p")));
    ready(mux.write(key, b"abc"));
    let after_write = mux.written(key);
    ready(mux.send(key, &Bytes::new()));
    mux.shutdown(key).unwrap();
    let after_close = mux.written(key);
    assert_eq!(sent(&mut mux).len(), 4);
    feed(&mut mux, [ack(0)]);
    assert!(mux.poll_acknowledged(key, after_write).is_pending());
    feed(&mut mux, [ack(1)]);
    assert!(mux.poll_acknowledged(key, after_write).is_ready());
    assert_eq!(mux.bytes_acknowledged(key), 3);
    feed(&mut mux, [ack(2)]);
    assert!(mux.poll_acknowledged(key, after_close).is_pending());
    feed(&mut mux, [ack(3)]);
    assert!(mux.poll_acknowledged(key, after_close).is_ready());
    assert!(events(&mut mux).contains(&Event::Acknowledged(key)));
}

#[test]
fn ten_thousand_idle_subchannels_cost_nothing_per_batch() {
    let mut mux = running(MuxConfig::default());
    let keys: Vec<_> = (0..10_000).map(|_| ready(mux.open(&name("p")))).collect();
    assert_eq!(sent(&mut mux).len(), 10_000);
    feed(&mut mux, [ack(9_999)]);
    events(&mut mux);
    assert!(mux.is_drained());
    ready(mux.write(keys[5_000], b"x"));
    assert_eq!(mux.ready.len(), 1);
    assert_eq!(sent(&mut mux).len(), 1);
    assert!(size_of::<Stream>() <= 320, "{}", size_of::<Stream>());
}
