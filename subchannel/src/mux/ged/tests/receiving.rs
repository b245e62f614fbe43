//! What comes in: the sequence, links, limits, faults of the peer.

use super::*;
use crate::record::PingId;

#[test]
fn a_new_link_starts_with_the_ack_and_everything_unacknowledged() {
    let mut mux = listening(MuxConfig::default());
    let key = accepted(&mut mux, 2, 0);
    ready(mux.write(key, b"a"));
    assert_eq!(sent(&mut mux), [data(2, 0, "a")]);
    ready(mux.write(key, b"b"));
    assert_eq!(sent(&mut mux), [data(2, 1, "b")]);
    mux.link_down();
    ready(mux.write(key, b"c"));
    assert_eq!(sent(&mut mux), []);
    assert!(!mux.wants_transmit());
    mux.link_up();
    assert!(mux.wants_transmit());
    assert_eq!(sent(&mut mux), [ack(0), data(2, 0, "a"), data(2, 1, "b"), data(2, 2, "c")]);
    // The ACK of the earlier link's records arrives on the next: they are not sent again.
    mux.link_down();
    mux.link_up();
    assert_eq!(feed(&mut mux, [ack(1)]), [ack(0), data(2, 2, "c")]);
}

#[test]
fn a_duplicate_is_acknowledged_and_dropped() {
    let mut mux = listening(MuxConfig::default());
    let key = accepted(&mut mux, 2, 0);
    assert_eq!(feed(&mut mux, [data(2, 1, "x")]), [ack(1)]);
    assert_eq!(feed(&mut mux, [open(2, 0), data(2, 1, "x")]), [ack(1)]);
    assert_eq!(text(&mut mux, key), "x");
    assert!(mux.read(key, &mut [0; 9]).is_pending());
}

#[test]
fn a_gap_is_an_error_and_repetition_closes_it() {
    let mut mux = listening(MuxConfig::default());
    let key = accepted(&mut mux, 2, 0);
    let gap = RecordError::Gap { expected: SeqNum(1), received: SeqNum(2) };
    assert_eq!(mux.handle_record(data(2, 2, "b")), Err(gap.clone()));
    assert!(!gap.is_fatal());
    mux.link_down();
    mux.link_up();
    assert_eq!(feed(&mut mux, [open(2, 0), data(2, 1, "a"), data(2, 2, "b")]), [ack(2)]);
    assert_eq!(text(&mut mux, key), "ab");
}

#[test]
fn records_without_a_link_do_not_count() {
    let mut mux = listening(MuxConfig::default());
    let key = ready(mux.open(&name("p")));
    sent(&mut mux);
    mux.link_down();
    for record in [open(2, 0), ack(0), Record::Ping(PingId::new([1; 4])), Record::Kcm, data(2, 9, "x")] {
        assert_eq!(mux.handle_record(record), Ok(None));
    }
    mux.link_up();
    assert_eq!(sent(&mut mux), [open(1, 0)]);
    assert_eq!(mux.accept(&name("p")), None);
    assert!(mux.poll_acknowledged(key, mux.written(key)).is_pending());
}

#[test]
fn acks_of_the_first_burst_may_be_lost() {
    // The Python Follower loses its answers to what comes bundled with KCM; a later ACK covers all.
    let mut mux = mux();
    let key = ready(mux.open(&name("p")));
    ready(mux.write(key, b"x"));
    assert_eq!(sent(&mut mux).len(), 2);
    ready(mux.write(key, b"y"));
    assert_eq!(feed(&mut mux, [ack(2)]), [data(1, 2, "y")]);
    assert_eq!(feed(&mut mux, [ack(2)]), []);
    assert!(mux.is_drained());
    assert_eq!(mux.bytes_acknowledged(key), 2);
    // An ACK for the future is harmless.
    assert_eq!(feed(&mut mux, [ack(u32::MAX)]), []);
    ready(mux.write(key, b"z"));
    assert_eq!(sent(&mut mux), [data(1, 3, "z")]);
}

#[test]
fn pings_are_answered_on_the_same_link_only_and_the_newest_are_kept() {
    let mut mux = mux();
    let ping = |n: u8| PingId::new([n; 4]);
    assert_eq!(mux.handle_record(Record::Pong(ping(7))), Ok(Some(ping(7))));
    for n in 0..20 {
        mux.handle_record(Record::Ping(ping(n))).unwrap();
    }
    let pongs: Vec<_> = (4..20).map(|n| Record::Pong(ping(n))).collect();
    assert_eq!(sent(&mut mux), pongs);
    mux.handle_record(Record::Ping(ping(1))).unwrap();
    mux.link_down();
    mux.link_up();
    assert_eq!(sent(&mut mux), []);
    assert_eq!(mux.handle_record(Record::Kcm), Err(RecordError::UnexpectedKcm));
}

#[test]
fn unknown_numbers_and_duplicate_opens_are_forgiven() {
    let mut mux = listening(MuxConfig::default());
    assert_eq!(feed(&mut mux, [data(8, 0, "x"), close(8, 1)]), [ack(1)]);
    let key = accepted(&mut mux, 2, 2);
    assert_eq!(feed(&mut mux, [open(2, 3), data(2, 4, "x")]), [ack(4)]);
    assert_eq!(mux.accept(&name("p")), None);
    assert_eq!(text(&mut mux, key), "x");
    // Our own parity, but free: taken, and skipped when we open.
    accepted(&mut mux, 1, 5);
    let ours = ready(mux.open(&name("p")));
    assert_eq!(mux.describe(ours).unwrap().0, SubchannelId(3));
}

#[test]
fn a_flood_of_refused_opens_is_cut_off() {
    let config =
        MuxConfig { outbox_limit: 4096, max_data: 4096, max_subchannels: 10, ..MuxConfig::default() };
    let mut mux = running(config);
    let (mut seq, mut peak) = (0, 0);
    let error = loop {
        match mux.handle_record(open(2, seq)) {
            Ok(_) => seq += 1,
            Err(error) => break error,
        }
        sent(&mut mux);
        peak = peak.max(mux.usage().outbox_bytes);
        assert!(seq < 10_000);
    };
    assert_eq!(error, RecordError::Flood);
    assert!(peak < 200_000, "{peak}");
    // Not counted as received: when the peer has acknowledged, the next link brings it again.
    mux.link_down();
    mux.link_up();
    feed(&mut mux, [ack(seq - 1)]);
    assert_eq!(mux.handle_record(open(2, seq)), Ok(None));
}

#[test]
fn reading_pauses_at_the_limit_and_resumes_at_half() {
    let mut mux = listening(MuxConfig { receive_limit: 10_000, ..MuxConfig::default() });
    let key = accepted(&mut mux, 2, 0);
    feed(&mut mux, [data(2, 1, vec![0; 9000])]);
    assert!(!mux.read_paused());
    assert_eq!(feed(&mut mux, [data(2, 2, vec![0; 9000])]), [], "accepted, but the ACK waits");
    assert!(mux.read_paused());
    assert_eq!(ready(mux.recv(key)).unwrap().len(), 9000);
    assert!(mux.read_paused());
    assert!(!mux.wants_transmit());
    assert_eq!(ready(mux.read(key, &mut [0; 5000])), 5000);
    assert!(!mux.read_paused() && mux.wants_transmit());
    assert_eq!(sent(&mut mux), [ack(2)]);
}

#[test]
fn reading_goes_on_to_the_total_limit_while_a_writer_waits() {
    let config = MuxConfig {
        outbox_limit: 10_000,
        receive_limit: 1000,
        receive_total: 10_000,
        ..MuxConfig::default()
    };
    let mut mux = listening(config);
    let key = accepted(&mut mux, 2, 0);
    assert_eq!(feed(&mut mux, [data(2, 1, vec![0; 2000])]), []);
    assert!(mux.read_paused());
    while mux.write(key, &[0; 1000]).is_ready() {}
    assert!(!mux.read_paused() && mux.usage().writers_wait);
    feed(&mut mux, [data(2, 2, vec![0; 9000])]);
    assert!(mux.read_paused());
    assert_eq!(ready(mux.recv(key)).unwrap().len(), 2000);
    assert_eq!(ready(mux.recv(key)).unwrap().len(), 9000);
    assert!(!mux.read_paused());
}

#[test]
fn tiny_records_and_many_subchannels_are_bounded_too() {
    let mut mux = listening(MuxConfig { receive_total: 100_000, ..MuxConfig::default() });
    let mut seq = 0;
    let keys: Vec<_> = (1..=100)
        .map(|n| {
            seq += 1;
            accepted(&mut mux, 2 * n, seq - 1)
        })
        .collect();
    let mut payload = 0;
    while !mux.read_paused() {
        feed(&mut mux, [data(2 + 2 * (seq % 100), seq, "x")]);
        seq += 1;
        payload += 1;
    }
    assert!(payload < 50_000 / RECORD_OVERHEAD + 2);
    for key in keys {
        mux.release(key);
    }
    assert!(!mux.read_paused());
    assert_eq!(mux.usage().receive_bytes, 0);
}

#[test]
fn too_much_in_one_record_is_fatal() {
    let mut mux = listening(MuxConfig { max_data: 100, ..MuxConfig::default() });
    accepted(&mut mux, 2, 0);
    feed(&mut mux, [data(2, 1, vec![0; 100])]);
    let error = mux.handle_record(data(2, 2, vec![0; 101])).unwrap_err();
    assert_eq!(error, RecordError::DataTooLarge { len: 101, limit: 100 });
    assert!(error.is_fatal());
}

#[test]
fn the_last_sequence_number_of_the_peer_is_accepted() {
    let mut mux = listening(MuxConfig { first_seq: u32::MAX - 1, ..MuxConfig::default() });
    let key = accepted(&mut mux, 2, u32::MAX - 1);
    assert_eq!(feed(&mut mux, [data(2, u32::MAX, "end")]), [ack(u32::MAX)]);
    assert_eq!(feed(&mut mux, [data(2, u32::MAX, "end")]), [ack(u32::MAX)]);
    assert_eq!(text(&mut mux, key), "end");
}
