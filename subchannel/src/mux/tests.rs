//! What holds before the dialect is known, and that it is the same in both afterwards.

use std::{task::Poll, time::Instant};

use bytes::Bytes;

use super::*;
use crate::{frame::Frames, id::Parity, record::Record};

fn dialects() -> [Dialect; 2] {
    [Dialect::Ged, Dialect::Dilated1 { peer: MuxConfig::default().params() }]
}

fn mux() -> Mux {
    Mux::new(MuxConfig::default())
}

fn events(mux: &mut Mux) -> Vec<Event> {
    std::iter::from_fn(|| mux.poll_event()).collect()
}

#[expect(clippy::disallowed_methods, reason = "any moment will do")]
fn now() -> Instant {
    Instant::now()
}

/// Moves all that `from` has to say.
fn deliver(from: &mut Mux, to: &mut Mux) {
    let mut batch = Batch::default();
    while from.poll_transmit(now(), 1 << 20, &mut batch) {
        for record in batch.records() {
            let plaintext = Bytes::from(record.collect::<Vec<_>>().concat());
            if let Some(ged) = to.as_ged_mut() {
                ged.handle_record(Record::decode(plaintext).unwrap()).unwrap();
            } else {
                let engine = to.as_dilated1_mut().unwrap();
                Frames::new(plaintext).for_each(|frame| engine.handle_frame(frame.unwrap(), now()).unwrap());
            }
        }
        batch.clear();
    }
}

#[test]
fn opening_waits_for_the_start_of_which_there_is_one() {
    for dialect in dialects() {
        for (parity, ids) in [(Parity::Odd, [1, 3]), (Parity::Even, [2, 4])] {
            let (mut mux, name) = (mux(), Name::from("p"));
            assert_eq!(mux.dialect(), None);
            assert!(mux.open(&name).is_pending() && mux.control().is_pending());
            mux.start(parity, dialect);
            for other in dialects() {
                mux.start(parity.peer(), other);
            }
            assert_eq!((mux.dialect(), events(&mut mux)), (Some(dialect), vec![Event::Openable]));
            let keys = [(); 2].map(|()| match mux.open(&name) {
                Poll::Ready(Ok(key)) => key,
                other => panic!("{other:?}"),
            });
            assert_eq!(keys.map(|key| mux.describe(key).unwrap().0.0), ids);
            assert_eq!(mux.as_ged().is_some(), dialect == Dialect::Ged);
            assert_eq!(mux.as_dilated1().is_some(), dialect != Dialect::Ged);
        }
    }
}

#[test]
fn what_is_listened_for_before_the_start_is_taken_after_it() {
    for dialect in dialects() {
        let (mut a, mut b) = (mux(), mux());
        let [listened, expected, dropped] =
            ["listened", "expected", "dropped"].map(|name| b.check_name(name).unwrap());
        b.listen(&listened).unwrap();
        assert!(matches!(b.listen(&listened), Err(ListenError::InUse(_))));
        b.expect(&expected);
        b.listen(&dropped).unwrap();
        b.unlisten(&dropped);
        a.start(Parity::Odd, dialect);
        b.start(Parity::Even, dialect);
        a.link_up();
        b.link_up();
        for name in [&listened, &expected, &dropped] {
            assert!(a.open(name).is_ready());
        }
        deliver(&mut a, &mut b);
        assert_eq!(events(&mut b), [Event::Incoming(listened.clone())]);
        assert!(b.accept(&listened).is_some() && b.accept(&expected).is_some());
        assert_eq!(b.accept(&dropped), None);
    }
}

#[test]
fn the_end_may_come_before_the_start() {
    let (mut mux, name) = (mux(), Name::from("p"));
    mux.listen(&name).unwrap();
    assert!(mux.open(&name).is_pending());
    let reason = EndReason::failed("wrong code");
    mux.fail(reason.clone());
    mux.fail(EndReason::closed("second"));
    assert_eq!(events(&mut mux), [Event::Incoming(name.clone()), Event::Openable, Event::Ended]);
    mux.start(Parity::Odd, Dialect::Ged);
    assert_eq!((mux.dialect(), mux.ended()), (None, Some(&reason)));
    assert_eq!(mux.open(&name), Poll::Ready(Err(OpenError::Ended(reason.clone()))));
    assert_eq!(mux.control(), Poll::Ready(Err(OpenError::Ended(reason.clone()))));
    assert_eq!(mux.listen(&name), Err(ListenError::Ended(reason)));
    assert!(mux.is_drained() && !mux.wants_transmit());
}

#[test]
fn giving_up_ends_both_directions_in_either_dialect() {
    for dialect in dialects() {
        let (mut a, mut b, name) = (mux(), mux(), Name::from("p"));
        b.listen(&name).unwrap();
        for (mux, parity) in [(&mut a, Parity::Odd), (&mut b, Parity::Even)] {
            mux.start(parity, dialect);
            mux.link_up();
        }
        let Poll::Ready(Ok(mine)) = a.open(&name) else { panic!("started") };
        assert!(a.write(mine, b"some").is_ready());
        deliver(&mut a, &mut b);
        let theirs = b.accept(&name).unwrap();
        a.stop(mine, 1);
        a.reset(mine, 2);
        assert_eq!(a.write(mine, b"x"), Poll::Ready(Err(WriteError::ShutDown)));
        assert_eq!(a.recv(mine), Poll::Ready(Err(ReadError::Stopped)));
        deliver(&mut a, &mut b);
        let (read, written) = (b.recv(theirs), b.write(theirs, b"x"));
        if dialect == Dialect::Ged {
            assert_eq!((read, written), (Poll::Ready(Ok(Some("some".into()))), Poll::Ready(Ok(1))));
            assert_eq!(b.recv(theirs), Poll::Ready(Ok(None)));
        } else {
            assert_eq!(read, Poll::Ready(Err(ReadError::Reset { code: 2.into() })));
            assert_eq!(written, Poll::Ready(Err(WriteError::Stopped { code: 1.into() })));
        }
    }
}
