//! Opening, accepting, closing, dropping, the end.

use super::*;

#[test]
fn records_of_a_subchannel_come_in_order_and_one_ack_answers_a_batch() {
    let mut mux = listening(MuxConfig::default());
    assert_eq!(feed(&mut mux, [open(2, 0), data(2, 1, "he"), data(2, 2, "llo"), close(2, 3)]), [ack(3)]);
    let key = mux.accept(&name("p")).unwrap();
    assert_eq!(text(&mut mux, key), "hello");
    assert_eq!(text(&mut mux, key), "");
    assert_eq!(ready(mux.write(key, b"bye")), 3);
    mux.release(key);
    assert_eq!(sent(&mut mux), [data(2, 0, "bye"), close(2, 1)]);
    assert!(!mux.is_drained());
    assert_eq!(feed(&mut mux, [ack(1)]), []);
    assert!(mux.is_drained() && !mux.is_routed(2));
    assert_eq!(mux.usage(), Usage::default());
}

#[test]
fn each_direction_closes_once_and_nothing_follows() {
    let mut mux = listening(MuxConfig::default());
    let key = accepted(&mut mux, 2, 0);
    mux.shutdown(key).unwrap();
    mux.shutdown(key).unwrap();
    assert_eq!(mux.write(key, b"x"), Poll::Ready(Err(WriteError::ShutDown)));
    assert_eq!(mux.send(key, &Bytes::new()), Poll::Ready(Err(WriteError::ShutDown)));
    assert_eq!(sent(&mut mux), [close(2, 0)]);
    // Half-close: the peer goes on.
    assert_eq!(feed(&mut mux, [data(2, 1, "still"), close(2, 2)]), [ack(2)]);
    assert!(!mux.is_routed(2), "free after both CLOSEs, though it is not read yet");
    assert_eq!(text(&mut mux, key), "still");
    assert_eq!(text(&mut mux, key), "");
    mux.release(key);
    assert_eq!(sent(&mut mux), []);
}

#[test]
fn the_peer_may_close_first_and_reuse_the_number() {
    let mut mux = listening(MuxConfig::default());
    let first = accepted(&mut mux, 2, 0);
    assert_eq!(feed(&mut mux, [close(2, 1), data(2, 2, "late"), close(2, 3)]), [ack(3)]);
    assert_eq!(text(&mut mux, first), "", "data after CLOSE is ignored");
    assert!(mux.is_routed(2));
    assert_eq!(ready(mux.write(first, b"answer")), 6);
    mux.shutdown(first).unwrap();
    assert_eq!(sent(&mut mux), [data(2, 0, "answer"), close(2, 1)]);
    let second = accepted(&mut mux, 2, 4);
    feed(&mut mux, [data(2, 5, "new")]);
    assert_ne!(first, second);
    mux.release(first);
    assert_eq!(text(&mut mux, second), "new");
    assert!(mux.is_routed(2));
}

#[test]
fn a_dropped_subchannel_discards_until_the_peer_closes() {
    let mut mux = listening(MuxConfig { receive_limit: 1000, ..MuxConfig::default() });
    let key = accepted(&mut mux, 2, 0);
    feed(&mut mux, [data(2, 1, vec![0; 900])]);
    assert!(mux.read_paused());
    ready(mux.write(key, b"last"));
    mux.release(key);
    assert!(!mux.read_paused());
    assert_eq!(sent(&mut mux), [ack(1), data(2, 0, "last"), close(2, 1)]);
    assert_eq!(feed(&mut mux, [data(2, 2, vec![0; 5000])]), [ack(2)]);
    assert_eq!((mux.usage().receive_bytes, mux.usage().subchannels), (0, 1));
    // A duplicate OPEN of a number that is still in use changes nothing.
    assert_eq!(feed(&mut mux, [open(2, 3)]), [ack(3)]);
    assert_eq!(mux.accept(&name("p")), None);
    assert_eq!(feed(&mut mux, [close(2, 4)]), [ack(4)]);
    assert!(!mux.is_routed(2));
    assert_eq!(mux.usage().subchannels, 0);
    assert_eq!(mux.write(key, b"x"), Poll::Ready(Err(WriteError::ShutDown)));
}

#[test]
fn halves_are_released_apart() {
    let mut mux = listening(MuxConfig::default());
    let key = accepted(&mut mux, 2, 0);
    mux.release_read(key);
    feed(&mut mux, [data(2, 1, "unwanted")]);
    assert_eq!(mux.usage().receive_bytes, 0);
    assert_eq!(ready(mux.write(key, b"x")), 1);
    assert_eq!(sent(&mut mux), [data(2, 0, "x")]);
    mux.release_write(key);
    assert_eq!(sent(&mut mux), [close(2, 1)]);
}

#[test]
fn what_nobody_wants_is_closed_at_once() {
    let mut mux = mux();
    assert_eq!(feed(&mut mux, [open(2, 0), data(2, 1, "x")]), [ack(1), close(2, 0)]);
    assert_eq!(feed(&mut mux, [close(2, 2), ack(0)]), [ack(2)]);
    assert_eq!(mux.usage(), Usage::default());
}

#[test]
fn expected_subchannels_wait_up_to_a_bound() {
    let mut mux = running(MuxConfig { pending_opens: 2, receive_limit: 1000, ..MuxConfig::default() });
    mux.expect(&name("p"));
    assert_eq!(feed(&mut mux, [open(2, 0), open(4, 1), open(6, 2)]), [ack(2), close(6, 0)]);
    feed(&mut mux, [data(4, 3, vec![0; 1000])]);
    assert!(mux.read_paused(), "what waits counts against the receive limit");
    mux.listen(&name("p")).unwrap();
    assert_eq!(mux.listen(&name("p")), Err(ListenError::InUse("p".into())));
    let key = mux.accept(&name("p")).unwrap();
    assert_eq!(mux.describe(key).unwrap().0, SubchannelId(2));
    mux.unlisten(&name("p"));
    assert_eq!(mux.usage().pending_opens, 1, "still expected");
    mux.listen(&name("p")).unwrap();
    assert!(mux.accept(&name("p")).is_some());
}

#[test]
fn a_listener_that_goes_closes_what_waits() {
    let mut mux = listening(MuxConfig::default());
    feed(&mut mux, [open(2, 0), open(4, 1)]);
    assert_eq!(events(&mut mux), [Event::Incoming(name("p"))], "one event until it is polled");
    mux.unlisten(&name("p"));
    assert_eq!(sent(&mut mux), [close(2, 0), close(4, 1)]);
    assert_eq!(feed(&mut mux, [open(6, 2)]), [ack(2), close(6, 2)]);
    assert_eq!(mux.listen(&name("p")), Ok(()));
}

#[test]
fn names_are_checked() {
    let mux = running(MuxConfig { max_name: 3, ..MuxConfig::default() });
    assert_eq!(mux.check_name(""), Err(NameError::Empty));
    assert_eq!(mux.check_name("abcd"), Err(NameError::TooLong { len: 4, limit: 3 }));
    assert_eq!(mux.check_name("abc"), Ok(name("abc")));
}

#[test]
fn the_number_of_subchannels_is_limited() {
    let mut mux = listening(MuxConfig { max_subchannels: 2, ..MuxConfig::default() });
    let ours = ready(mux.open(&name("p")));
    accepted(&mut mux, 2, 0);
    assert_eq!(mux.open(&name("p")), Poll::Ready(Err(OpenError::TooMany { limit: 2 })));
    assert_eq!(feed(&mut mux, [open(4, 1)]), [ack(1), close(4, 1)]);
    mux.release(ours);
    assert_eq!(feed(&mut mux, [close(1, 2)]), [ack(2), close(1, 2)]);
    assert!(mux.open(&name("p")).is_ready());
}

#[test]
fn the_end_delivers_what_came_and_then_the_reason() {
    let mut mux = listening(MuxConfig::default());
    let (cut, whole) = (accepted(&mut mux, 2, 0), accepted(&mut mux, 4, 1));
    feed(&mut mux, [data(2, 2, "half"), data(4, 3, "all"), close(4, 4), open(6, 5)]);
    let mine = ready(mux.open(&name("p")));
    let mark = mux.written(mine);
    events(&mut mux);
    let reason = EndReason::closed("the peer closed the wormhole");
    mux.fail(reason.clone());
    mux.fail(EndReason::failed("second"));
    let woken = events(&mut mux);
    for event in [Event::Ended, Event::Readable(cut), Event::Writable(cut), Event::Incoming(name("p"))] {
        assert!(woken.contains(&event), "{event:?} in {woken:?}");
    }
    assert_eq!(mux.ended(), Some(&reason));
    assert_eq!(text(&mut mux, cut), "half");
    assert_eq!(mux.read(cut, &mut [0; 9]), Poll::Ready(Err(ReadError::Ended(reason.clone()))));
    assert_eq!(mux.recv(cut), Poll::Ready(Err(ReadError::Ended(reason.clone()))));
    assert_eq!(text(&mut mux, whole), "all");
    assert_eq!(text(&mut mux, whole), "", "the peer's CLOSE came: a clean end");
    assert_eq!(mux.write(whole, b"x"), Poll::Ready(Err(WriteError::Ended(reason.clone()))));
    assert_eq!(mux.shutdown(whole), Err(WriteError::Ended(reason.clone())));
    assert_eq!(mux.open(&name("p")), Poll::Ready(Err(OpenError::Ended(reason.clone()))));
    assert_eq!(mux.listen(&name("q")), Err(ListenError::Ended(reason.clone())));
    assert_eq!(mux.poll_acknowledged(mine, mark), Poll::Ready(Err(UnacknowledgedError::Ended(reason))));
    let waiting = mux.accept(&name("p")).unwrap();
    for key in [cut, whole, mine, waiting] {
        mux.release(key);
    }
    mux.link_up();
    assert_eq!(sent(&mut mux), []);
    assert_eq!(mux.usage(), Usage::default());
}
