//! Opening, accepting, refusing, ending, giving up, letting go, the end of all.

use super::*;
use crate::{
    frame::Code,
    mux::{DatagramError, ListenError, OpenError, OpenRefused, ReadError, UnacknowledgedError, WriteError},
};

#[test]
fn a_subchannel_lives_from_open_to_both_ends() {
    let mut pair = Pair::new(&MuxConfig::default());
    let mine = pair.a.open();
    assert!(pair.a.mux.poll_opened(mine).is_pending());
    let mark = pair.a.mux.written(mine);
    assert!(pair.a.mux.poll_acknowledged(mine, mark).is_pending());
    pair.exchange();
    assert_eq!(pair.a.mux.poll_opened(mine), Poll::Ready(Ok(())));
    assert!(pair.a.events().contains(&Event::Acknowledged(mine)));
    assert_eq!(pair.b.events(), [Event::Incoming(name("p"))]);
    let theirs = pair.b.mux.accept(&name("p")).unwrap();
    assert_eq!(pair.b.mux.describe(theirs), Some((SubchannelId(1), name("p"))));
    ready(pair.a.mux.send(mine, &Bytes::from_static(b"question")));
    pair.a.mux.shutdown(mine).unwrap();
    pair.a.mux.shutdown(mine).unwrap();
    assert_eq!(pair.a.mux.write(mine, b"x"), Poll::Ready(Err(WriteError::ShutDown)));
    let mark = pair.a.mux.written(mine);
    pair.exchange();
    assert_eq!(pair.a.mux.poll_acknowledged(mine, mark), Poll::Ready(Ok(())));
    assert_eq!(pair.a.mux.bytes_acknowledged(mine), 8);
    assert_eq!(pair.b.recv(theirs), "question");
    assert_eq!(ready(pair.b.mux.recv(theirs)), None);
    ready(pair.b.mux.write(theirs, b"answer"));
    pair.b.mux.release(theirs);
    pair.exchange();
    let mut buf = [0; 9];
    assert_eq!(ready(pair.a.mux.read(mine, &mut buf)), 6);
    assert_eq!(ready(pair.a.mux.read(mine, &mut buf)), 0);
    pair.a.mux.release(mine);
    pair.exchange();
    for side in [&pair.a, &pair.b] {
        assert_eq!(side.mux.usage(), Usage::default());
        assert!(side.mux.is_drained() && !side.mux.progress().is_in_flight());
    }
    assert_eq!(pair.a.mux.describe(mine), None);
    assert_eq!(pair.a.mux.write(mine, b"x"), Poll::Ready(Err(WriteError::ShutDown)));
}

#[test]
fn what_nobody_wants_is_refused_with_the_reason() {
    let mut pair = Pair::new(&MuxConfig { pending_opens: 1, ..MuxConfig::default() });
    let unknown = ready(pair.a.mux.open(&name("nobody")));
    ready(pair.a.mux.send(unknown, &Bytes::from_static(b"in vain")));
    let (_waits, busy) = (pair.a.open(), pair.a.open());
    pair.exchange();
    for (key, code) in [(unknown, Code::UNEXPECTED), (busy, Code::BUSY)] {
        assert_eq!(pair.a.mux.poll_opened(key), Poll::Ready(Err(OpenRefused::Refused { code })));
        assert_eq!(failed(pair.a.mux.recv(key)), ReadError::Refused { code });
        assert_eq!(failed(pair.a.mux.write(key, b"x")), WriteError::Refused { code });
        assert_eq!(pair.a.mux.send_datagram(key, Bytes::new()), Err(DatagramError::NotOpen));
        let mark = pair.a.mux.written(key);
        let error = failed(pair.a.mux.poll_acknowledged(key, mark));
        assert_eq!(error, UnacknowledgedError::Stopped { code });
        pair.a.mux.release(key);
    }
    assert_eq!(pair.a.mux.usage().subchannels, 1);
    assert_eq!((pair.a.mux.credit.sent, pair.b.mux.credit.received), (0, 0));
    // An OPEN that comes again is answered with GONE, and the answer to it changes nothing.
    let again = Frame::Open { id: SubchannelId(1), limit: 0, priority: 0, name: name("p") };
    let gone = Frame::Refuse { id: SubchannelId(1), code: Code::GONE.0 };
    assert_eq!(pair.b.feed([again]), std::slice::from_ref(&gone));
    pair.a.take([gone]);
}

#[test]
fn what_is_expected_waits_for_its_listener() {
    let mut side = Side::leader(MuxConfig::default());
    side.mux.unlisten(&name("p"));
    side.mux.expect(&name("p"));
    side.feed([open(2), data(2, 0, Mark::End, "early")]);
    assert_eq!(side.mux.usage().pending_opens, 1);
    side.mux.listen(&name("p")).unwrap();
    assert_eq!(side.mux.listen(&name("p")), Err(ListenError::InUse("p".into())));
    let key = side.mux.accept(&name("p")).unwrap();
    assert_eq!(side.recv(key), "early");
}

#[test]
fn who_waits_when_the_listener_goes_is_given_up() {
    let mut side = Side::leader(MuxConfig::default());
    side.feed([open(2), data(2, 0, Mark::End, "unread")]);
    side.mux.unlisten(&name("p"));
    let sent = side.sent();
    let code = Code::UNEXPECTED.0;
    let id = SubchannelId(2);
    assert_eq!(sent[..2], [Frame::Reset { id, code, final_offset: 0 }, Frame::Stop { id, code }]);
    side.feed([credit(2, 1, 0), Frame::Reset { id, code, final_offset: 7 }]);
    assert_eq!(side.mux.usage(), Usage::default());
    assert_eq!(side.mux.credit.unread(), 0);
}

#[test]
fn a_reset_is_not_an_end() {
    let mut pair = Pair::new(&MuxConfig::default());
    let (mine, theirs) = pair.open();
    ready(pair.a.mux.send(mine, &Bytes::from_static(b"never read")));
    pair.exchange();
    ready(pair.a.mux.send(mine, &Bytes::from_static(b"never sent")));
    let mark = pair.a.mux.written(mine);
    pair.a.mux.reset(mine, 42);
    pair.exchange();
    assert_eq!(failed(pair.b.mux.recv(theirs)), ReadError::Reset { code: Code(42) });
    assert_eq!(failed(pair.b.mux.read(theirs, &mut [0; 9])), ReadError::Reset { code: Code(42) });
    assert_eq!(failed(pair.a.mux.write(mine, b"x")), WriteError::ShutDown);
    assert_eq!(failed(pair.a.mux.poll_acknowledged(mine, mark)), UnacknowledgedError::Reset);
    assert_eq!(pair.a.mux.usage().outbox_bytes, 0);
    // The other direction goes on.
    ready(pair.b.mux.send(theirs, &Bytes::from_static(b"why?")));
    pair.exchange();
    assert_eq!(pair.a.recv(mine), "why?");
}

#[test]
fn a_stop_reaches_the_writer() {
    let mut pair = Pair::new(&MuxConfig::default());
    let (mine, theirs) = pair.open();
    ready(pair.a.mux.write(mine, &[1; 50_000]));
    pair.exchange();
    pair.b.mux.stop(theirs, 9);
    assert_eq!(failed(pair.b.mux.recv(theirs)), ReadError::Stopped);
    ready(pair.a.mux.write(mine, &[1; 50_000]));
    let mark = pair.a.mux.written(mine);
    let stop = pair.b.sent();
    pair.a.take(stop);
    assert_eq!(failed(pair.a.mux.write(mine, b"x")), WriteError::Stopped { code: Code(9) });
    assert_eq!(pair.a.mux.shutdown(mine), Err(WriteError::Stopped { code: Code(9) }));
    let error = failed(pair.a.mux.poll_acknowledged(mine, mark));
    assert_eq!(error, UnacknowledgedError::Stopped { code: Code(9) });
    pair.exchange();
    assert_eq!((pair.b.mux.credit.unread(), pair.b.mux.usage().receive_bytes), (0, 0));
    assert_eq!(pair.a.mux.credit.sent, pair.b.mux.credit.received);
}

#[test]
fn who_lets_go_still_sends_and_stops_the_peer() {
    let mut pair = Pair::new(&MuxConfig::default());
    let (mine, theirs) = pair.open();
    ready(pair.a.mux.send(mine, &Bytes::from_static(b"last words")));
    pair.a.mux.release(mine);
    ready(pair.b.mux.send(theirs, &Bytes::from_static(b"unwanted")));
    pair.exchange();
    assert_eq!(pair.b.recv(theirs), "last words");
    assert_eq!(ready(pair.b.mux.recv(theirs)), None);
    assert_eq!(failed(pair.b.mux.write(theirs, b"x")), WriteError::Stopped { code: Code::CANCELLED });
    pair.b.mux.release(theirs);
    pair.exchange();
    assert_eq!((pair.a.mux.usage(), pair.b.mux.usage()), (Usage::default(), Usage::default()));
}

#[test]
fn the_control_channel_is_there_for_both_and_taken_once() {
    let mut pair = Pair::new(&MuxConfig::default());
    let (a, b) = (pair.a.mux.control().unwrap(), pair.b.mux.control().unwrap());
    assert_eq!(pair.a.mux.control(), None);
    assert_eq!(pair.a.mux.poll_opened(a), Poll::Ready(Ok(())));
    ready(pair.a.mux.send(a, &Bytes::from_static(b"from a")));
    ready(pair.b.mux.send(b, &Bytes::from_static(b"from b")));
    pair.exchange();
    assert_eq!((pair.a.recv(a), pair.b.recv(b)), (Bytes::from("from b"), Bytes::from("from a")));
    assert_eq!(pair.a.mux.credit.sent, 0, "it does not count");
    assert_eq!(pair.a.mux.usage(), Usage::default());
}

#[test]
fn opening_waits_for_the_peer_and_has_limits() {
    let params = Params { subchannels: 1, ..Params::default() };
    let mut side = Side::new(MuxConfig { max_subchannels: 2, ..MuxConfig::default() }, Parity::Odd, params);
    side.open();
    assert!(side.mux.open(&name("p")).is_pending());
    side.take([Frame::MaxSubchannels(5)]);
    assert_eq!(side.events(), [Event::Openable]);
    side.open();
    assert_eq!(failed(side.mux.open(&name("p"))), OpenError::TooMany { limit: 2 });
    let used = MuxConfig { ids_used: u32::MAX / 2, ..MuxConfig::default() };
    let mut side = Side::leader(used);
    side.open();
    assert_eq!(failed(side.mux.open(&name("p"))), OpenError::IdsExhausted);
}

#[test]
fn the_peer_may_open_more_when_some_are_gone() {
    let mut pair = Pair::new(&MuxConfig { max_subchannels: 4, ..MuxConfig::default() });
    for _ in 0..20 {
        let (mine, theirs) = pair.open();
        pair.a.mux.release(mine);
        pair.b.mux.release(theirs);
        pair.exchange();
    }
    assert_eq!(pair.b.mux.opened.peer, 20);
    assert!(pair.a.mux.routes.get(SubchannelId(1)).is_none());
}

#[test]
fn after_the_end_what_came_is_read_and_the_rest_fails() {
    let mut side = Side::leader(MuxConfig::default());
    let (cut, ended) = (side.accepted(2), side.accepted(4));
    side.feed([data(2, 0, Mark::End, "kept"), data(4, 0, Mark::End, "kept"), fin(4, 5), open(6)]);
    let mine = side.open();
    let mark = side.mux.written(mine);
    ready(side.mux.write(mine, b"never sent"));
    side.events();
    let reason = EndReason::failed("broken");
    side.mux.fail(reason.clone());
    side.mux.fail(EndReason::closed("too late"));
    assert_eq!(side.mux.ended(), Some(&reason));
    let events = side.events();
    for event in [Event::Readable(mine), Event::Writable(mine), Event::Incoming(name("p")), Event::Ended] {
        assert!(events.contains(&event), "{event:?}");
    }
    for key in [cut, ended] {
        assert_eq!(side.recv(key), "kept");
    }
    assert_eq!(failed(side.mux.recv(cut)), ReadError::Ended(reason.clone()));
    assert_eq!(ready(side.mux.recv(ended)), None);
    assert_eq!(failed(side.mux.write(mine, b"x")), WriteError::Ended(reason.clone()));
    assert_eq!(failed(side.mux.poll_acknowledged(mine, mark)), UnacknowledgedError::Ended(reason.clone()));
    assert_eq!(side.mux.poll_opened(mine), Poll::Ready(Err(OpenRefused::Ended(reason.clone()))));
    assert_eq!(failed(side.mux.open(&name("p"))), OpenError::Ended(reason.clone()));
    assert_eq!(side.mux.listen(&name("q")), Err(ListenError::Ended(reason)));
    assert!(side.mux.is_drained() && side.sent().is_empty());
    let waiting = side.mux.accept(&name("p")).unwrap();
    for key in [cut, ended, mine, waiting] {
        side.mux.release(key);
    }
    assert_eq!(side.mux.usage(), Usage::default());
}
