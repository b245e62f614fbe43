//! The asynchronous handles, over a link in memory that a task drives as a real driver would.

#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, reason = "a test, helpers included")]

use std::{future::poll_fn, io::ErrorKind, pin::pin, task::Poll, time::Duration};

use bytes::Bytes;
use dilated_subchannel::{
    id::Parity,
    io::{Multiplexer, Subchannel},
    mux::{EndReason, ListenError, MuxConfig, NameError, OpenError, Usage, WriteError},
    record::Record,
};
use futures::{FutureExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
    time::timeout,
};

const SECOND: Duration = Duration::from_secs(1);

/// Moves records both ways until aborted, then the link is down.
struct Link {
    task: JoinHandle<()>,
    sides: [Multiplexer; 2],
}

impl Link {
    fn new(a: &Multiplexer, b: &Multiplexer) -> Self {
        a.start(Parity::Odd);
        b.start(Parity::Even);
        a.link_up();
        b.link_up();
        let sides = [a.clone(), b.clone()];
        let [a, b] = sides.clone();
        let task = tokio::spawn(async move {
            let mut batch = Vec::new();
            loop {
                poll_fn(|cx| {
                    let mut moved = false;
                    for (from, to) in [(&a, &b), (&b, &a)] {
                        if to.poll_read_allowed(cx).is_ready()
                            && from.poll_transmit(cx, 256 << 10, &mut batch).is_ready()
                        {
                            to.handle(batch.drain(..)).unwrap();
                            moved = true;
                        }
                    }
                    if moved { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                tokio::task::yield_now().await;
            }
        });
        Link { task, sides }
    }

    fn cut(self) {}
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
        self.sides.iter().for_each(Multiplexer::link_down);
    }
}

fn two() -> (Multiplexer, Multiplexer) {
    (Multiplexer::new(MuxConfig::default()), Multiplexer::new(MuxConfig::default()))
}

/// A subchannel from `a` to `b`.
async fn open(a: &Multiplexer, b: &Multiplexer) -> (Subchannel, Subchannel) {
    let mut listener = b.listen("p").unwrap();
    let mine = a.connector("p").unwrap().connect().await.unwrap();
    let theirs = listener.accept().await.unwrap();
    assert_eq!((mine.id(), mine.subprotocol()), (theirs.id(), theirs.subprotocol()));
    (mine, theirs)
}

async fn drained(multiplexer: &Multiplexer) {
    timeout(SECOND, poll_fn(|cx| multiplexer.poll_drained(cx))).await.unwrap();
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

#[tokio::test]
async fn bytes_and_the_end_arrive_and_half_close_works() {
    let (a, b) = two();
    let _link = Link::new(&a, &b);
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

#[tokio::test]
async fn an_echo_by_copy_bidirectional_over_a_link_that_breaks() {
    let small = MuxConfig {
        outbox_limit: 256 << 10,
        receive_limit: 64 << 10,
        receive_total: 1 << 20,
        ..MuxConfig::default()
    };
    let (a, b) = (Multiplexer::new(small.clone()), Multiplexer::new(small));
    let link = Link::new(&a, &b);
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
            link = Link::new(&a, &b);
        }
    });
    let back = timeout(30 * SECOND, reader).await.unwrap().unwrap();
    assert!(back == expected);
    writer.await.unwrap();
    echo.await.unwrap();
    assert_eq!(proxy.await.unwrap().unwrap(), (5_000_000, 5_000_000));
    breaker.abort();
}

#[tokio::test]
async fn messages_keep_their_boundaries_and_chunks_are_not_copied() {
    let (a, b) = two();
    let _link = Link::new(&a, &b);
    let (mut mine, mut theirs) = open(&a, &b).await;
    for message in ["one", "", "two"] {
        mine.send(Bytes::from_static(message.as_bytes())).await.unwrap();
    }
    let large = Bytes::from(pattern(100_000));
    mine.send(large.clone()).await.unwrap();
    for message in ["one", "", "two"] {
        assert_eq!(theirs.recv().await.unwrap().unwrap(), message);
    }
    let received = theirs.recv().await.unwrap().unwrap();
    assert_eq!(received.as_ptr(), large.as_ptr(), "the link in memory shares it, so nobody copied");
    mine.write_bytes(large.clone()).await.unwrap();
    let first = theirs.read_chunk().await.unwrap().unwrap();
    assert_eq!(first.as_ptr(), large.as_ptr());
    let too_long = mine.send(Bytes::from(vec![0; (16 << 20) + 1])).await.unwrap_err();
    assert!(matches!(too_long, WriteError::TooLong { .. }));
    drop(mine);
    while theirs.read_chunk().await.unwrap().is_some() {}
    assert_eq!(theirs.recv().await.unwrap(), None);
}

#[tokio::test]
async fn futures_traits_work_too() {
    let (a, b) = two();
    let _link = Link::new(&a, &b);
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

#[tokio::test]
async fn connecting_waits_for_the_roles_and_not_for_a_link() {
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
    a.start(Parity::Odd);
    let mut early = waiting.await.unwrap();
    assert_eq!(early.id().0, 1);
    early.write_all(b"before any link").await.unwrap();
    b.expect("p").unwrap();
    let _link = Link::new(&a, &b);
    early.acknowledged().await.unwrap();
    let mut late = b.listen("p").unwrap().accept().await.unwrap();
    drop(early);
    let mut text = String::new();
    late.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "before any link");
}

#[tokio::test]
async fn names_and_listeners_are_checked() {
    let (a, b) = two();
    assert_eq!(a.connector("").unwrap_err(), NameError::Empty);
    assert!(matches!(a.expect(&"x".repeat(256)), Err(NameError::TooLong { len: 256, limit: 255 })));
    let listener = a.listen("p").unwrap();
    assert!(matches!(a.listen("p"), Err(ListenError::InUse(_))));
    drop(listener);
    let mut listener = a.listen("p").unwrap();
    assert_eq!(listener.subprotocol(), "p");
    // Nobody listens for "q" on the other side.
    let _link = Link::new(&a, &b);
    let mut refused = a.connector("q").unwrap().connect().await.unwrap();
    assert_eq!(timeout(SECOND, refused.recv()).await.unwrap().unwrap(), None);
    // The listener is a stream, too.
    let opened = b.connector("p").unwrap().connect().await.unwrap();
    assert_eq!(listener.next().await.unwrap().unwrap().id(), opened.id());
    a.fail(EndReason::closed("bye"));
    assert_eq!(listener.next().await.unwrap().unwrap_err().0, EndReason::closed("bye"));
    assert!(listener.next().await.is_none());
}

#[tokio::test]
async fn the_end_reaches_everyone_after_what_was_received() {
    let (a, b) = two();
    let link = Link::new(&a, &b);
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
    assert_eq!(acknowledging.await.unwrap().unwrap_err().0, reason);
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

#[tokio::test]
async fn cancelled_operations_lose_nothing() {
    let (a, b) = two();
    let _link = Link::new(&a, &b);
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

#[tokio::test]
async fn a_cancelled_send_sends_nothing() {
    let (a, b) = (Multiplexer::new(MuxConfig { outbox_limit: 4096, ..MuxConfig::default() }), two().1);
    a.start(Parity::Odd);
    let mut mine = a.connector("p").unwrap().connect().await.unwrap();
    mine.send(Bytes::from(vec![1; 4000])).await.unwrap();
    assert!(mine.send(Bytes::from_static(b"lost")).now_or_never().is_none());
    let mut listener = b.listen("p").unwrap();
    let _link = Link::new(&a, &b);
    let mut theirs = listener.accept().await.unwrap();
    mine.send(Bytes::from_static(b"kept")).await.unwrap();
    assert_eq!(theirs.recv().await.unwrap().unwrap().len(), 4000);
    assert_eq!(theirs.recv().await.unwrap().unwrap(), "kept");
}

#[tokio::test]
async fn a_reader_that_waits_stops_the_link_and_a_drop_frees_it() {
    let config = MuxConfig { receive_limit: 10_000, ..MuxConfig::default() };
    let (a, b) = (Multiplexer::new(MuxConfig::default()), Multiplexer::new(config));
    let _link = Link::new(&a, &b);
    let (mut slow, slow_theirs) = open(&a, &b).await;
    let (mut quick, mut quick_theirs) = open(&a, &b).await;
    slow.write_all(&vec![0; 1 << 20]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(b.usage().read_paused);
    quick.write_all(b"through").await.unwrap();
    drop(slow_theirs);
    let mut buf = [0; 7];
    timeout(SECOND, quick_theirs.read_exact(&mut buf)).await.unwrap().unwrap();
    assert_eq!(&buf, b"through");
}

#[tokio::test]
async fn all_blocked_writers_get_their_turn() {
    let (a, b) = (Multiplexer::new(MuxConfig { outbox_limit: 64 << 10, ..MuxConfig::default() }), two().1);
    let link = Link::new(&a, &b);
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
    let _link = Link::new(&a, &b);
    let mut read = 0;
    for _ in 0..20 {
        let mut theirs = listener.accept().await.unwrap();
        let mut data = Vec::new();
        timeout(5 * SECOND, theirs.read_to_end(&mut data)).await.unwrap().unwrap();
        read += data.len();
    }
    assert_eq!(read, 20 * 100_000);
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_subchannels() {
    let (a, b) = two();
    let _link = Link::new(&a, &b);
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
    let theirs = timeout(20 * SECOND, server).await.unwrap().unwrap();
    assert_eq!(a.usage().subchannels, 10_000);
    drop(mine);
    drop(theirs);
    drained(&a).await;
    drained(&b).await;
}

#[tokio::test]
async fn a_waker_may_drop_handles() {
    // The task that waits owns a subchannel, and its last waker is replaced or fired by the mux: dropping
    // the handle from there must not find the lock taken.
    let (a, b) = two();
    let _link = Link::new(&a, &b);
    let (mut mine, theirs) = open(&a, &b).await;
    let (mut read, write) = theirs.into_split();
    let task = tokio::spawn(async move {
        let _write = write;
        let _: Result<_, _> = read.recv().await;
    });
    tokio::task::yield_now().await;
    task.abort();
    mine.write_all(b"x").await.unwrap();
    assert_eq!(timeout(SECOND, mine.recv()).await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_wrong_record_is_an_error_and_the_next_link_goes_on() {
    let (a, b) = two();
    let (mut mine, mut theirs) = {
        let _link = Link::new(&a, &b);
        open(&a, &b).await
    };
    b.link_up();
    assert!(b.handle([Record::Kcm]).is_err());
    b.link_down();
    let _link = Link::new(&a, &b);
    mine.write_all(b"x").await.unwrap();
    assert_eq!(theirs.recv().await.unwrap().unwrap(), "x");
}
