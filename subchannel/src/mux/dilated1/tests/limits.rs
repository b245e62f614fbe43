//! Windows, long messages, datagrams, memory.

use super::*;
use crate::{
    frame::Code,
    mux::{DatagramError, ReadError, WriteError},
};

fn limit_of(frames: &[Frame], subchannel: u32) -> Option<u64> {
    frames.iter().rev().find_map(|frame| match frame {
        Frame::Credit(Received { id, limit, .. }) if id.0 == subchannel => Some(*limit),
        _ => None,
    })
}

#[test]
fn an_idle_subchannel_is_small() {
    assert!(size_of::<Stream>() <= 104, "{}", size_of::<Stream>());
    let mut pair = Pair::new(&MuxConfig::default());
    let (mine, theirs) = pair.open();
    ready(pair.a.mux.send(mine, &Bytes::from(vec![1; 100_000])));
    pair.exchange();
    assert_eq!(pair.b.recv(theirs).len(), 100_000);
    pair.exchange();
    for (side, key) in [(&pair.a, mine), (&pair.b, theirs)] {
        assert!(side.mux.get(key).unwrap().active.is_none(), "nothing is kept for it");
        assert_eq!((side.mux.usage().outbox_bytes, side.mux.usage().receive_bytes), (0, 0));
    }
}

#[test]
fn the_window_opens_when_it_is_accepted_and_a_quarter_is_consumed() {
    let mut side = Side::leader(MuxConfig::default());
    assert_eq!(limit_of(&side.feed([open(2)]), 2), Some(64 << 10));
    let key = side.mux.accept(&name("p")).unwrap();
    assert_eq!(limit_of(&side.sent(), 2), Some(256 << 10));
    for n in 0..2 {
        side.take([data(2, n * 40_000, Mark::Stream, vec![0; 40_000])]);
    }
    ready(side.mux.read(key, &mut [0; 40_000]));
    assert_eq!(side.sent(), [], "not yet");
    ready(side.mux.read(key, &mut [0; 40_000]));
    assert_eq!(limit_of(&side.sent(), 2), Some((256 << 10) + 80_000));
}

/// Lets the peer send whole windows and reads them, a window in `pace`. Gives the window at the end.
fn window_after(side: &mut Side, key: StreamKey, id: u32, windows: u32, pace: Duration) -> u64 {
    for _ in 0..windows {
        loop {
            let stream = side.mux.get(key).unwrap();
            let (received, granted) = (stream.received, stream.granted);
            let n = (granted - received).min(60_000);
            if n == 0 {
                break;
            }
            side.take([data(id, received, Mark::Stream, vec![0; usize::try_from(n).unwrap()])]);
        }
        side.now += pace;
        while let Poll::Ready(Ok(Some(_))) = side.mux.read_chunk(key) {}
        side.sent();
    }
    let stream = side.mux.get(key).unwrap();
    stream.granted - stream.consumed()
}

#[test]
fn a_window_grows_while_it_is_consumed_within_two_round_trips() {
    let mut side = Side::leader(MuxConfig::default());
    side.mux.set_round_trip(Duration::from_millis(50));
    let (slow, fast) = (side.accepted(2), side.accepted(4));
    assert_eq!(window_after(&mut side, slow, 2, 6, Duration::from_millis(150)), 256 << 10);
    assert_eq!(window_after(&mut side, fast, 4, 8, Duration::from_millis(60)), 16 << 20);
    assert_eq!(side.mux.grown_bytes, (16 << 20) - (256 << 10));
    side.mux.release(fast);
    side.sent();
    side.take([Frame::Reset {
        id: SubchannelId(4),
        code: 0,
        final_offset: side.mux.get(fast).unwrap().received,
    }]);
    side.feed([credit(4, 1, 0)]);
    assert_eq!((side.mux.grown_bytes, side.mux.grown.len()), (0, 0));
}

#[test]
fn windows_grow_within_half_of_the_budget_and_idle_ones_give_way() {
    let config = MuxConfig { receive_total: 4 << 20, max_data: 1 << 20, ..MuxConfig::default() };
    let mut side = Side::leader(config);
    side.mux.set_round_trip(Duration::from_millis(50));
    let keys: Vec<_> = (1..=4).map(|n| side.accepted(2 * n)).collect();
    let pace = Duration::from_millis(60);
    for (n, key) in (1..).zip(&keys[..3]) {
        window_after(&mut side, *key, 2 * n, 6, pace);
    }
    assert_eq!(side.mux.grown.len(), 2, "two of 1 MiB fit into half of 4 MiB");
    assert!(side.mux.grown_bytes <= 2 << 20);
    side.now += Duration::from_secs(10);
    window_after(&mut side, keys[3], 8, 6, pace);
    assert!(side.mux.grown.contains(&keys[3]), "in the place of one that is idle");
    assert!(side.mux.grown_bytes <= 2 << 20);
}

#[test]
fn under_pressure_windows_stay_small() {
    let config = MuxConfig { receive_total: 500_000, max_data: 100_000, ..MuxConfig::default() };
    let mut side = Side::leader(config);
    let stalled = side.accepted(2);
    for n in 0..5 {
        side.take([data(2, n * 50_000, Mark::Stream, vec![0; 50_000])]);
    }
    side.feed([open(4)]);
    side.mux.accept(&name("p")).unwrap();
    assert_eq!(limit_of(&side.sent(), 4), Some(64 << 10));
    let mine = side.open();
    let limit = side.sent().into_iter().find_map(|frame| match frame {
        Frame::Open { limit, .. } => Some(limit),
        _ => None,
    });
    assert_eq!(limit, Some(64 << 10));
    // Others go on, and the link's credit follows what they consume.
    while let Poll::Ready(Ok(Some(_))) = side.mux.read_chunk(stalled) {}
    assert!(side.sent().contains(&Frame::LinkCredit(750_000)));
    side.mux.release(mine);
}

#[test]
fn messages_longer_than_the_window_arrive_whole() {
    let mut pair = Pair::new(&MuxConfig::default());
    let (mine, theirs) = pair.open();
    let long = Bytes::from((0..3_000_000u32).map(|n| n.to_le_bytes()[1]).collect::<Vec<_>>());
    ready(pair.a.mux.send(mine, &long));
    ready(pair.a.mux.send(mine, &Bytes::from_static(b"short")));
    pair.exchange();
    assert!(pair.b.events().contains(&Event::Readable(theirs)));
    assert!(pair.b.is_pending(theirs), "from now on it makes room");
    pair.exchange();
    assert_eq!(pair.b.events(), [Event::Readable(theirs)], "once, when the end is here");
    assert_eq!(pair.b.recv(theirs), long);
    pair.exchange();
    assert_eq!(pair.b.recv(theirs), "short");
    assert_eq!(pair.b.mux.assemblers, 4);
    pair.exchange();
    assert_eq!(pair.b.mux.usage().receive_bytes, 0);
}

#[test]
fn a_reader_who_does_not_ask_for_a_long_message_costs_its_window_only() {
    let mut pair = Pair::new(&MuxConfig::default());
    let (mine, theirs) = pair.open();
    ready(pair.a.mux.send(mine, &Bytes::from(vec![1; 3_000_000])));
    pair.exchange();
    assert_eq!(pair.b.mux.usage().receive_bytes, 256 << 10);
    // As a stream it can be read in any case.
    let mut total = 0;
    for _ in 0..100 {
        while let Poll::Ready(Ok(n)) = pair.b.mux.read(theirs, &mut [0; 10_000]) {
            total += n;
        }
        pair.exchange();
    }
    assert_eq!(total, 3_000_000);
}

#[test]
fn only_a_few_assemble_at_a_time_and_all_come_to_their_end() {
    let config = MuxConfig {
        receive_total: 2_000_000,
        max_data: 1_000_000,
        stream_queue: 2_000_000,
        ..MuxConfig::default()
    };
    let mut pair = Pair::new(&config);
    let keys: Vec<_> = (0..5).map(|_| pair.open()).collect();
    for (mine, _) in &keys {
        ready(pair.a.mux.send(*mine, &Bytes::from(vec![1; 900_000])));
    }
    let mut left: Vec<_> = keys.iter().map(|(_, theirs)| *theirs).collect();
    for _ in 0..200 {
        left.retain(|theirs| match pair.b.mux.recv(*theirs) {
            Poll::Ready(Ok(Some(message))) => {
                assert_eq!(message.len(), 900_000);
                false
            }
            other => {
                assert!(other.is_pending());
                true
            }
        });
        assert!(pair.b.mux.usage().receive_bytes <= 2 * 2_000_000);
        pair.exchange();
    }
    assert_eq!((left.len(), pair.b.mux.assemblers), (0, 2));
    assert_eq!(pair.b.mux.usage().receive_bytes, 0);
}

#[test]
fn messages_that_are_too_long_are_refused_on_both_sides() {
    let params = Params { message: 1000, ..Params::default() };
    let mut side = Side::new(MuxConfig::default(), Parity::Odd, params);
    let key = side.open();
    let error = failed(side.mux.send(key, &Bytes::from(vec![1; 1001])));
    assert_eq!(error, WriteError::TooLong { len: 1001, limit: 1000 });

    let mut side = Side::leader(MuxConfig { max_data: 1000, ..MuxConfig::default() });
    let key = side.accepted(2);
    side.take([data(2, 0, Mark::End, vec![0; 1000]), data(2, 1001, Mark::More, vec![0; 600])]);
    side.take([data(2, 1601, Mark::More, vec![0; 401])]);
    assert_eq!(failed(side.mux.recv(key)), ReadError::TooLong { limit: 1000 });
    let stop = Frame::Stop { id: SubchannelId(2), code: Code::MESSAGE.0 };
    assert!(side.sent().contains(&stop));
    side.take([Frame::Reset { id: SubchannelId(2), code: Code::MESSAGE.0, final_offset: 2002 }]);
    assert_eq!(failed(side.mux.recv(key)), ReadError::TooLong { limit: 1000 });
    assert_eq!(side.mux.credit.unread(), 0);
}

#[test]
fn small_pieces_do_not_keep_large_buffers_alive() {
    let mut side = Side::leader(MuxConfig::default());
    let key = side.accepted(2);
    let record = Bytes::from(vec![1; 60_000]);
    side.take([
        data(2, 0, Mark::Stream, record.slice(..20_000)),
        data(2, 20_000, Mark::Stream, record.slice(..9)),
    ]);
    assert_eq!(side.recv(key).as_ptr(), record.as_ptr(), "a large one is shared");
    let small = side.recv(key);
    drop(side);
    assert_eq!(small.len(), 9);
    assert!(record.is_unique(), "a small one is copied");
}

#[test]
fn datagrams_have_limits_and_the_oldest_goes() {
    let mut pair = Pair::new(&MuxConfig::default());
    let (mine, theirs) = pair.open();
    assert_eq!(pair.a.mux.max_datagram(), 1200);
    let long = pair.a.mux.send_datagram(mine, vec![0; 1201].into());
    assert_eq!(long, Err(DatagramError::TooLong { len: 1201, limit: 1200 }));
    for n in 0..70u8 {
        pair.a.mux.send_datagram(mine, vec![n; 1200].into()).unwrap();
    }
    pair.exchange();
    for n in 6..70u8 {
        assert_eq!(ready(pair.b.mux.recv_datagram(theirs)).unwrap(), vec![n; 1200]);
    }
    assert!(pair.b.mux.recv_datagram(theirs).is_pending());
    assert_eq!((pair.a.mux.datagram_bytes, pair.b.mux.datagram_bytes), (0, 0));
    pair.a.mux.send_datagram(mine, Bytes::from_static(b"before the end")).unwrap();
    pair.a.mux.shutdown(mine).unwrap();
    assert_eq!(pair.a.mux.send_datagram(mine, Bytes::new()), Err(DatagramError::NotOpen));
    pair.exchange();
    assert_eq!(ready(pair.b.mux.recv_datagram(theirs)).unwrap(), "before the end");
    assert_eq!(ready(pair.b.mux.recv_datagram(theirs)), None);
    let none = Params { datagram: 0, ..Params::default() };
    let mut side = Side::new(MuxConfig::default(), Parity::Odd, none);
    let key = side.open();
    assert_eq!(side.mux.send_datagram(key, Bytes::new()), Err(DatagramError::Unsupported));
}
