//! From one link to the next.

use super::*;
use crate::frame::Code;
use crate::mux::ReadError;

#[test]
fn only_what_was_not_received_goes_again() {
    let mut pair = Pair::new(&MuxConfig::default());
    let (mine, theirs) = pair.open();
    for n in 0..100u8 {
        ready(pair.a.mux.send(mine, &Bytes::from(vec![n; 100])));
    }
    let frames = pair.a.sent();
    assert_eq!(data_len(&frames), 10_000);
    // The last forty messages are lost, and all that the peer has to say.
    let (arrived, _) = frames.split_at(60);
    pair.b.take(arrived.to_vec());
    pair.relink();
    assert_eq!(pair.exchange(), (4000, 0));
    for n in 0..100u8 {
        assert_eq!(pair.b.recv(theirs), vec![n; 100]);
    }
    assert!(pair.a.mux.is_drained() && !pair.a.mux.progress().is_in_flight());
    pair.relink();
    assert_eq!(pair.exchange(), (0, 0), "nothing is missing");
}

#[test]
fn half_a_message_is_not_repeated() {
    let mut pair = Pair::new(&MuxConfig::default());
    let (mine, theirs) = pair.open();
    let message = Bytes::from((0..200_000u32).map(|n| n.to_be_bytes()[3]).collect::<Vec<_>>());
    ready(pair.a.mux.send(mine, &message));
    let frames = pair.a.sent();
    let arrived = data_len(&frames[..2]);
    pair.b.take(frames[..2].to_vec());
    assert!(pair.b.is_pending(theirs));
    pair.relink();
    assert_eq!(pair.exchange(), (message.len() - arrived, 0));
    assert_eq!(pair.b.recv(theirs), message);
}

#[test]
fn an_open_that_was_lost_goes_again_with_its_data() {
    let mut pair = Pair::new(&MuxConfig::default());
    let (one, other) = (pair.a.open(), pair.a.open());
    ready(pair.a.mux.send(one, &Bytes::from_static(b"one")));
    ready(pair.a.mux.send(other, &Bytes::from_static(b"other")));
    let frames = pair.a.sent();
    // Only the first OPEN arrives.
    pair.b.take(frames[..1].to_vec());
    pair.relink();
    let again = pair.a.sent();
    assert!(matches!(&again[0], Frame::Open { id: SubchannelId(3), .. }), "{again:?}");
    assert_eq!(data_len(&again), 8);
    pair.b.take(again);
    pair.exchange();
    for text in ["one", "other"] {
        let theirs = pair.b.mux.accept(&name("p")).unwrap();
        assert_eq!(pair.b.recv(theirs), text);
    }
    assert_eq!(pair.a.mux.poll_opened(other), Poll::Ready(Ok(())));
}

#[test]
fn ends_resets_and_stops_that_were_lost_go_again() {
    let mut pair = Pair::new(&MuxConfig::default());
    let (mine, theirs) = pair.open();
    let (second, their_second) = pair.open();
    pair.a.mux.shutdown(mine).unwrap();
    pair.a.mux.reset(second, 7);
    pair.a.mux.stop(second, 8);
    for _ in 0..3 {
        assert!(!pair.a.sent().is_empty());
        assert!(!pair.a.mux.is_drained());
        pair.relink();
    }
    pair.exchange();
    assert_eq!(ready(pair.b.mux.recv(theirs)), None);
    assert_eq!(failed(pair.b.mux.recv(their_second)), ReadError::Reset { code: Code(7) });
    let refused = failed(pair.b.mux.write(their_second, b"x"));
    assert_eq!(refused, crate::mux::WriteError::Stopped { code: Code(8) });
    assert!(pair.a.mux.is_drained() && pair.b.mux.is_drained());
}

#[test]
fn what_the_peer_has_forgotten_is_finished() {
    let mut pair = Pair::new(&MuxConfig::default());
    let (mine, theirs) = pair.open();
    ready(pair.a.mux.send(mine, &Bytes::from_static(b"last")));
    let mark = pair.a.mux.written(mine) + 1;
    pair.a.mux.shutdown(mine).unwrap();
    pair.b.mux.shutdown(theirs).unwrap();
    let to_a = pair.b.feed([]);
    pair.a.take(to_a);
    let to_b = pair.a.feed([]);
    // The peer has everything and forgets it. Its last CREDIT is lost.
    pair.b.feed(to_b);
    assert!(!pair.b.mux.get(theirs).unwrap().flags.has(flag::ROUTED));
    assert!(pair.a.mux.poll_acknowledged(mine, mark).is_pending());
    pair.relink();
    assert_eq!(pair.a.mux.poll_acknowledged(mine, mark), Poll::Ready(Ok(())));
    assert_eq!(pair.a.mux.bytes_acknowledged(mine), 4);
    assert_eq!(pair.exchange(), (0, 0));
    assert!(pair.a.mux.is_drained());
}

#[test]
fn a_list_older_than_a_subchannel_does_not_end_it() {
    let mut pair = Pair::new(&MuxConfig::default());
    pair.b.mux.resume();
    let mine = pair.a.open();
    ready(pair.a.mux.send(mine, &Bytes::from_static(b"kept")));
    let opened = pair.a.sent();
    // The peer's list was made before the OPEN came; something it says later overtakes the list.
    pair.a.take([credit(1, 0, 1 << 20)]);
    pair.a.mux.resume();
    let control = Received { id: SubchannelId(0), received: 0, limit: 1 << 16 };
    pair.a.mux.handle_resume(vec![control], pair.a.now).unwrap();
    assert_eq!(data_len(&pair.a.sent()), 4, "everything above what is known goes again");
    assert!(!pair.a.mux.is_drained());
    drop(opened);
}

#[test]
fn nothing_is_sent_between_our_list_and_the_peers() {
    let mut pair = Pair::new(&MuxConfig::default());
    let (mine, _) = pair.open();
    pair.a.mux.resume();
    ready(pair.a.mux.send(mine, &Bytes::from_static(b"later")));
    assert_eq!(pair.a.sent(), []);
    assert!(!pair.a.mux.wants_transmit() && pair.a.mux.poll_timeout().is_none());
    let list = pair.b.mux.resume();
    pair.a.mux.handle_resume(list, pair.a.now).unwrap();
    let sent = pair.a.sent();
    assert_eq!(data_len(&sent), 5);
    assert!(sent.iter().any(|frame| matches!(frame, Frame::LinkCredit(_))));
    assert!(sent.iter().any(|frame| matches!(frame, Frame::MaxSubchannels(_))));
}

#[test]
fn the_first_list_repeats_nothing() {
    let params = MuxConfig::default().params();
    let mut a = Side::new(MuxConfig::default(), Parity::Odd, params);
    let key = a.open();
    ready(a.mux.send(key, &Bytes::from_static(b"early")));
    assert_eq!(data_len(&a.sent()), 5);
    // The peer's RESUME was sent when nothing of it had arrived.
    let control = Received { id: SubchannelId(0), received: 0, limit: 1 << 16 };
    a.mux.handle_resume(vec![control], a.now).unwrap();
    assert!(a.sent().iter().all(|frame| !matches!(frame, Frame::Open { .. } | Frame::Data { .. })));
}

#[test]
fn what_comes_twice_changes_nothing() {
    let mut pair = Pair::new(&MuxConfig::default());
    let (mine, theirs) = pair.open();
    ready(pair.a.mux.send(mine, &Bytes::from_static(b"")));
    ready(pair.a.mux.send(mine, &Bytes::from_static(b"abc")));
    ready(pair.a.mux.write(mine, b"tail"));
    pair.a.mux.shutdown(mine).unwrap();
    let frames = pair.a.sent();
    for _ in 0..3 {
        pair.b.take(frames.clone());
    }
    pair.b.take([data(1, 2, Mark::End, "bc"), data(1, 3, Mark::End, "c"), data(1, 4, Mark::End, "")]);
    for text in ["", "abc", "tail"] {
        assert_eq!(pair.b.recv(theirs), text);
    }
    assert_eq!(ready(pair.b.mux.recv(theirs)), None);
}

#[test]
fn datagrams_do_not_survive_their_link() {
    let mut pair = Pair::new(&MuxConfig::default());
    let (mine, theirs) = pair.open();
    pair.a.mux.send_datagram(mine, Bytes::from_static(b"lost")).unwrap();
    pair.relink();
    pair.exchange();
    assert!(pair.b.mux.recv_datagram(theirs).is_pending());
    pair.a.mux.send_datagram(mine, Bytes::from_static(b"arrives")).unwrap();
    pair.exchange();
    assert_eq!(ready(pair.b.mux.recv_datagram(theirs)).unwrap(), "arrives");
}
