//! The asynchronous handles, over a link in memory that a task drives as a real driver would.

#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

mod dilated1;
mod ged;
mod link;

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::ErrorKind,
    pin::pin,
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use dilated_subchannel::{
    id::Parity,
    io::{Multiplexer, Subchannel},
    mux::{
        Batch, EndReason, ListenError, MuxConfig, NameError, OpenError, ReadError, UnacknowledgedError,
        Usage, WriteError,
    },
};
use futures::{FutureExt, StreamExt};
use link::{Link, PATIENCE, Speak, drained, now, open, pattern, plaintexts, two};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// A link whose task panics would leave everyone waiting.
async fn within_minutes(test: impl Future<Output = ()>) {
    timeout(3 * PATIENCE, test).await.expect("the test hangs");
}

/// Runs a test in both dialects.
macro_rules! in_both {
    ($($test:ident),+ $(,)?) => {
        $(mod $test {
            #[tokio::test]
            async fn ged() {
                super::within_minutes(super::$test(super::Speak::Ged)).await;
            }

            #[tokio::test]
            async fn dilated_1() {
                super::within_minutes(super::$test(super::Speak::Dilated1)).await;
            }
        })+
    };
}

in_both!(
    bytes_and_the_end_arrive_and_half_close_works,
    an_echo_by_copy_bidirectional_over_a_link_that_breaks,
    messages_keep_their_boundaries,
    futures_traits_work_too,
    connecting_waits_for_the_roles_and_not_for_a_link,
    names_and_listeners_are_checked,
    the_end_reaches_everyone_after_what_was_received,
    cancelled_operations_lose_nothing,
    a_cancelled_send_sends_nothing,
    all_blocked_writers_get_their_turn,
    ten_thousand_subchannels,
    a_waker_may_drop_handles,
    batches_of_messages_lose_none,
    large_payloads_are_not_copied,
);

async fn bytes_and_the_end_arrive_and_half_close_works(speak: Speak) {
    let (a, b) = two();
    let _link = Link::new(speak, &a, &b);
    let (mut mine, mut theirs) = open(&a, &b).await;
    mine.write_all(b"request").await.unwrap();
    mine.flush().await.unwrap();
    mine.shutdown().await.unwrap();
    let mut request = String::new();
    theirs.read_to_string(&mut request).await.unwrap();
    assert_eq!(request, "request");
    theirs.write_all(b"response").await.unwrap();
    drop(theirs);
    let mut response = Vec::new();
    mine.read_to_end(&mut response).await.unwrap();
    assert_eq!(response, b"response");
    assert_eq!(mine.write_all(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    drop(mine);
    drained(&a).await;
    drained(&b).await;
    assert_eq!((a.usage(), b.usage()), (Usage::default(), Usage::default()));
}

async fn an_echo_by_copy_bidirectional_over_a_link_that_breaks(speak: Speak) {
    let small = MuxConfig {
        outbox_limit: 256 << 10,
        receive_limit: 64 << 10,
        receive_total: 1 << 20,
        ..MuxConfig::default()
    };
    let (a, b) = (Multiplexer::new(small.clone()), Multiplexer::new(small));
    let link = Link::new(speak, &a, &b);
    let (mine, mut theirs) = open(&a, &b).await;
    // theirs <-> local pipe <-> echo
    let (mut near, mut far) = tokio::io::duplex(16 << 10);
    let proxy = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut theirs, &mut near).await });
    let echo = tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(&mut far);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let (mut read, mut write) = mine.into_split();
    let data = pattern(5_000_000);
    let expected = data.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&data).await.unwrap();
        write.shutdown().await.unwrap();
        write.acknowledged().await.unwrap();
        assert_eq!(write.bytes_acknowledged(), data.len() as u64);
    });
    let reader = tokio::spawn(async move {
        let mut back = Vec::new();
        read.read_to_end(&mut back).await.unwrap();
        back
    });
    let breaker = tokio::spawn(async move {
        let mut link = link;
        loop {
            tokio::time::sleep(Duration::from_millis(3)).await;
            link.cut();
            tokio::task::yield_now().await;
            link = Link::new(speak, &a, &b);
        }
    });
    let back = timeout(PATIENCE, reader).await.unwrap().unwrap();
    assert!(back == expected);
    writer.await.unwrap();
    echo.await.unwrap();
    assert_eq!(proxy.await.unwrap().unwrap(), (5_000_000, 5_000_000));
    breaker.abort();
}

async fn messages_keep_their_boundaries(speak: Speak) {
    let (a, b) = two();
    let _link = Link::new(speak, &a, &b);
    let (mut mine, mut theirs) = open(&a, &b).await;
    for message in ["one", "", "two"] {
        mine.send(Bytes::from_static(message.as_bytes())).await.unwrap();
    }
    let large = Bytes::from(pattern(100_000));
    mine.send(large.clone()).await.unwrap();
    for message in ["one", "", "two"] {
        assert_eq!(theirs.recv().await.unwrap().unwrap(), message);
    }
    assert_eq!(theirs.recv().await.unwrap().unwrap(), large);
    mine.write_bytes(large.clone()).await.unwrap();
    let mut back = Vec::new();
    while back.len() < large.len() {
        back.extend(theirs.read_chunk().await.unwrap().unwrap());
    }
    assert_eq!(back, large);
    let too_long = mine.send(Bytes::from(vec![0; (16 << 20) + 1])).await.unwrap_err();
    assert!(matches!(too_long, WriteError::TooLong { .. }));
    drop(mine);
    while theirs.read_chunk().await.unwrap().is_some() {}
    assert_eq!(theirs.recv().await.unwrap(), None);
}

async fn futures_traits_work_too(speak: Speak) {
    let (a, b) = two();
    let _link = Link::new(speak, &a, &b);
    let (mine, theirs) = open(&a, &b).await;
    let (theirs_read, mut theirs_write) = theirs.into_split();
    let (mut mine_read, mut mine_write) = mine.into_split();
    let copy = tokio::spawn(async move {
        futures::io::copy(theirs_read, &mut theirs_write).await.unwrap();
        futures::AsyncWriteExt::close(&mut theirs_write).await.unwrap();
    });
    futures::AsyncWriteExt::write_all(&mut mine_write, b"hello").await.unwrap();
    futures::AsyncWriteExt::flush(&mut mine_write).await.unwrap();
    futures::AsyncWriteExt::close(&mut mine_write).await.unwrap();
    let mut back = String::new();
    futures::AsyncReadExt::read_to_string(&mut mine_read, &mut back).await.unwrap();
    assert_eq!(back, "hello");
    copy.await.unwrap();
}

async fn connecting_waits_for_the_roles_and_not_for_a_link(speak: Speak) {
    let (a, b) = two();
    let connector = a.connector("p").unwrap();
    let waiting = tokio::spawn({
        let connector = connector.clone();
        async move { connector.connect().await.unwrap() }
    });
    tokio::task::yield_now().await;
    {
        // A cancelled one leaves its place.
        let mut cancelled = pin!(connector.connect());
        assert!(cancelled.as_mut().now_or_never().is_none());
    }
    a.start(Parity::Odd, speak.dialect(&MuxConfig::default()));
    let mut early = waiting.await.unwrap();
    assert_eq!(early.id().0, 1);
    early.write_all(b"before any link").await.unwrap();
    b.expect("p").unwrap();
    let _link = Link::new(speak, &a, &b);
    early.acknowledged().await.unwrap();
    let mut late = b.listen("p").unwrap().accept().await.unwrap();
    drop(early);
    let mut text = String::new();
    late.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "before any link");
}

async fn names_and_listeners_are_checked(speak: Speak) {
    let (a, b) = two();
    assert_eq!(a.connector("").unwrap_err(), NameError::Empty);
    assert!(matches!(a.expect(&"x".repeat(256)), Err(NameError::TooLong { len: 256, limit: 255 })));
    let listener = a.listen("p").unwrap();
    assert!(matches!(a.listen("p"), Err(ListenError::InUse(_))));
    drop(listener);
    let mut listener = a.listen("p").unwrap();
    assert_eq!(listener.subprotocol(), "p");
    // Nobody listens for "q" on the other side.
    let _link = Link::new(speak, &a, &b);
    let mut refused = a.connector("q").unwrap().connect().await.unwrap();
    match (speak, timeout(PATIENCE, refused.recv()).await.unwrap()) {
        (Speak::Ged, received) => assert_eq!(received, Ok(None)),
        (Speak::Dilated1, received) => assert!(matches!(received, Err(ReadError::Refused { .. }))),
    }
    // The listener is a stream, too.
    let opened = b.connector("p").unwrap().connect().await.unwrap();
    assert_eq!(listener.next().await.unwrap().unwrap().id(), opened.id());
    a.fail(EndReason::closed("bye"));
    assert_eq!(listener.next().await.unwrap().unwrap_err().0, EndReason::closed("bye"));
    assert!(listener.next().await.is_none());
}

async fn the_end_reaches_everyone_after_what_was_received(speak: Speak) {
    let (a, b) = two();
    let link = Link::new(speak, &a, &b);
    let (mut mine, mut theirs) = open(&a, &b).await;
    mine.write_all(b"last words").await.unwrap();
    drained(&a).await;
    link.cut();
    let mut listener = b.listen("q").unwrap();
    let accepting = tokio::spawn(async move { listener.accept().await.map(|_| ()) });
    let (other_read, mut other_write) = b.connector("r").unwrap().connect().await.unwrap().into_split();
    let acknowledging = tokio::spawn(async move { other_write.acknowledged().await });
    let filling = tokio::spawn({
        let mut filled = b.connector("r").unwrap().connect().await.unwrap();
        async move { filled.write_all(&vec![0; 40 << 20]).await }
    });
    let ended = tokio::spawn({
        let b = b.clone();
        async move { poll_fn(|cx| b.poll_ended(cx)).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let reason = EndReason::closed("the peer closed the wormhole");
    b.fail(reason.clone());
    let mut buf = vec![0; 100];
    assert_eq!(theirs.read(&mut buf).await.unwrap(), 10);
    for error in [theirs.read(&mut buf).await.unwrap_err(), theirs.write(b"x").await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        assert!(error.to_string().contains("the peer closed the wormhole"), "{error}");
    }
    assert!(theirs.shutdown().await.is_err() && theirs.flush().await.is_err());
    assert_eq!(accepting.await.unwrap().unwrap_err().0, reason);
    assert_eq!(acknowledging.await.unwrap().unwrap_err(), UnacknowledgedError::Ended(reason.clone()));
    assert_eq!(filling.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert_eq!(ended.await.unwrap(), reason);
    let connected = b.connector("r").unwrap().connect().await.map(|_| ());
    assert_eq!(connected, Err(OpenError::Ended(reason.clone())));
    assert!(matches!(b.listen("z"), Err(ListenError::Ended(_))));
    drained(&b).await;
    drop((theirs, other_read));
    assert_eq!(b.usage(), Usage::default());
    // Who waits to connect before the roles are known is told, too.
    let c = Multiplexer::new(MuxConfig::default());
    let connector = c.connector("p").unwrap();
    let waiting = tokio::spawn(async move { connector.connect().await.map(|_| ()) });
    tokio::task::yield_now().await;
    c.fail(EndReason::failed("wrong code"));
    assert_eq!(waiting.await.unwrap(), Err(OpenError::Ended(EndReason::failed("wrong code"))));
}

async fn cancelled_operations_lose_nothing(speak: Speak) {
    let (a, b) = two();
    let _link = Link::new(speak, &a, &b);
    let (mut mine, mut theirs) = open(&a, &b).await;
    let writer = tokio::spawn(async move {
        for n in 0..200u32 {
            mine.send(Bytes::copy_from_slice(&n.to_be_bytes())).await.unwrap();
            tokio::task::yield_now().await;
        }
        mine
    });
    let mut next = 0u32;
    while next < 200 {
        // Given up at once, most of the time.
        let Some(message) = theirs.recv().now_or_never() else {
            tokio::task::yield_now().await;
            continue;
        };
        assert_eq!(message.unwrap().unwrap(), next.to_be_bytes()[..]);
        next += 1;
    }
    drop(writer.await.unwrap());
    assert_eq!(theirs.recv().await.unwrap(), None);
}

async fn a_cancelled_send_sends_nothing(speak: Speak) {
    let small = MuxConfig { outbox_limit: 4096, ..MuxConfig::default() };
    let (a, b) = (Multiplexer::new(small), two().1);
    a.start(Parity::Odd, speak.dialect(&MuxConfig::default()));
    let mut mine = a.connector("p").unwrap().connect().await.unwrap();
    mine.send(Bytes::from(vec![1; 4096])).await.unwrap();
    assert!(mine.send(Bytes::from_static(b"lost")).now_or_never().is_none());
    let mut listener = b.listen("p").unwrap();
    let _link = Link::new(speak, &a, &b);
    let mut theirs = listener.accept().await.unwrap();
    mine.send(Bytes::from_static(b"kept")).await.unwrap();
    assert_eq!(theirs.recv().await.unwrap().unwrap().len(), 4096);
    assert_eq!(theirs.recv().await.unwrap().unwrap(), "kept");
}

async fn all_blocked_writers_get_their_turn(speak: Speak) {
    let small = MuxConfig { outbox_limit: 64 << 10, ..MuxConfig::default() };
    let (a, b) = (Multiplexer::new(small), two().1);
    let link = Link::new(speak, &a, &b);
    let mut listener = b.listen("p").unwrap();
    let connector = a.connector("p").unwrap();
    let mut writers = Vec::new();
    for _ in 0..20 {
        let mut mine = connector.connect().await.unwrap();
        writers.push(tokio::spawn(async move {
            mine.write_all(&vec![0; 100_000]).await.unwrap();
            mine.shutdown().await.unwrap();
            mine
        }));
    }
    link.cut();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(a.usage().outbox_bytes <= (64 << 10) + 20 * 128);
    let _link = Link::new(speak, &a, &b);
    let mut read = 0;
    for _ in 0..20 {
        let mut theirs = listener.accept().await.unwrap();
        let mut data = Vec::new();
        timeout(PATIENCE, theirs.read_to_end(&mut data)).await.unwrap().unwrap();
        read += data.len();
    }
    assert_eq!(read, 20 * 100_000);
    for writer in writers {
        writer.await.unwrap();
    }
}

async fn ten_thousand_subchannels(speak: Speak) {
    let (a, b) = two();
    let _link = Link::new(speak, &a, &b);
    let mut listener = b.listen("p").unwrap();
    let server = tokio::spawn(async move {
        let mut held = Vec::new();
        while held.len() < 10_000 {
            let mut theirs = listener.accept().await.unwrap();
            theirs.write_all(&theirs.id().0.to_be_bytes()).await.unwrap();
            held.push(theirs);
        }
        held
    });
    let connector = a.connector("p").unwrap();
    let mut mine = Vec::new();
    for n in 0..10_000 {
        // As many as may wait to be accepted, not more.
        if n % 200 == 199 {
            let last: &mut Subchannel = mine.last_mut().unwrap();
            let mut buf = [0; 4];
            last.read_exact(&mut buf).await.unwrap();
            assert_eq!(buf, last.id().0.to_be_bytes());
        }
        mine.push(connector.connect().await.unwrap());
    }
    let theirs = timeout(PATIENCE, server).await.unwrap().unwrap();
    assert_eq!(a.usage().subchannels, 10_000);
    drop(mine);
    drop(theirs);
    drained(&a).await;
    drained(&b).await;
}

async fn a_waker_may_drop_handles(speak: Speak) {
    // The task that waits owns a subchannel, and its last waker is replaced or fired by the mux: dropping
    // the handle from there must not find the lock taken.
    let (a, b) = two();
    let _link = Link::new(speak, &a, &b);
    let (mut mine, theirs) = open(&a, &b).await;
    let (mut read, write) = theirs.into_split();
    let task = tokio::spawn(async move {
        let _write = write;
        let _: Result<_, _> = read.recv().await;
    });
    tokio::task::yield_now().await;
    task.abort();
    mine.write_all(b"x").await.unwrap();
    assert_eq!(timeout(PATIENCE, mine.recv()).await.unwrap().unwrap(), None);
}

async fn batches_of_messages_lose_none(speak: Speak) {
    let (a, b) = two();
    let mut link = Link::new(speak, &a, &b);
    let (mut mine, mut theirs) = open(&a, &b).await;
    let writer = tokio::spawn(async move {
        let mut next = 0..100_000u32;
        loop {
            let mut some: VecDeque<_> =
                next.by_ref().take(1000).map(|n| Bytes::from(n.to_be_bytes().to_vec())).collect();
            if some.is_empty() {
                return;
            }
            mine.send_many(&mut some).await.unwrap();
            assert!(some.is_empty());
        }
    });
    let mut received = Vec::new();
    let mut batches = 0;
    loop {
        let before = received.len();
        let n = timeout(PATIENCE, theirs.recv_many(&mut received, 700)).await.unwrap().unwrap();
        assert!(n <= 700 && received.len() == before + n);
        if n == 0 {
            break;
        }
        batches += 1;
        if batches % 50 == 0 {
            link.cut();
            tokio::task::yield_now().await;
            link = Link::new(speak, &a, &b);
        }
    }
    assert!(received.iter().eq((0..100_000u32).map(|n| n.to_be_bytes().to_vec()).collect::<Vec<_>>().iter()));
    assert!(batches < 50_000, "{batches} batches were no batches");
    writer.await.unwrap();
}

async fn large_payloads_are_not_copied(speak: Speak) {
    let (a, b) = two();
    for (side, parity) in [(&a, Parity::Odd), (&b, Parity::Even)] {
        side.start(parity, speak.dialect(&MuxConfig::default()));
        side.link_up();
    }
    let mut listener = b.listen("p").unwrap();
    let mut mine = a.connector("p").unwrap().connect().await.unwrap();
    let data = Bytes::from(pattern(60_000));
    mine.write_bytes(data.clone()).await.unwrap();
    let (mut batch, mut cx) = (Batch::new(), Context::from_waker(Waker::noop()));
    assert!(a.poll_transmit(&mut cx, now(), 1 << 20, &mut batch).is_ready());
    assert!(
        batch.records().flatten().any(|part| part.as_ptr() == data.as_ptr()),
        "it is sealed from where it was"
    );
    let wire: Vec<_> = plaintexts(&batch).collect();
    speak.hand_over(wire.clone().into_iter(), &b);
    let mut theirs = listener.accept().await.unwrap();
    let received = theirs.read_chunk().await.unwrap().unwrap();
    assert_eq!(received, data);
    assert!(
        wire.iter().any(|record| record.as_ptr_range().contains(&received.as_ptr())),
        "it is read from where it was decrypted"
    );
}
