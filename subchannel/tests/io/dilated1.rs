//! What only `dilated-1` has.

use std::{
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use dilated_subchannel::{
    OpenOptions,
    frame::{Code, Frame, Frames},
    id::{Parity, SubchannelId},
    io::Multiplexer,
    mux::{Batch, DatagramError, EndReason, MuxConfig, OpenError, OpenRefused, ReadError, Usage, WriteError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::link::{Link, PATIENCE, Speak, drained, now, open, pattern, plaintexts, two};

fn linked() -> (Multiplexer, Multiplexer, Link) {
    let (a, b) = two();
    let link = Link::new(Speak::Dilated1, &a, &b);
    (a, b, link)
}

#[tokio::test]
async fn the_opener_learns_whether_it_is_wanted() {
    let (a, b, _link) = linked();
    let (mut mine, mut theirs) = open(&a, &b).await;
    timeout(PATIENCE, mine.opened()).await.unwrap().unwrap();
    theirs.opened().await.unwrap();
    let mut refused = a.connector("nobody").unwrap().connect().await.unwrap();
    let code = Code::UNEXPECTED;
    assert_eq!(timeout(PATIENCE, refused.opened()).await.unwrap(), Err(OpenRefused::Refused { code }));
    assert_eq!(refused.send("x".into()).await, Err(WriteError::Refused { code }));
    assert_eq!(refused.recv().await, Err(ReadError::Refused { code }));
    assert_eq!(refused.subprotocol(), "nobody", "it is known as long as it is held");
    let error = refused.write_all(b"x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    drop((mine, theirs, refused));
    drained(&a).await;
    drained(&b).await;
    assert_eq!((a.usage(), b.usage()), (Usage::default(), Usage::default()));
}

#[tokio::test]
async fn an_answer_that_never_comes_ends_with_the_wormhole() {
    let (a, b) = two();
    a.start(Parity::Odd, Speak::Dilated1.dialect(&b.config()));
    let mut mine = a.connector("p").unwrap().connect().await.unwrap();
    let waiting = tokio::spawn(async move { mine.opened().await });
    tokio::task::yield_now().await;
    a.fail(EndReason::closed("bye"));
    let answer = timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(answer, Err(OpenRefused::Ended(EndReason::closed("bye"))));
}

#[tokio::test]
async fn a_writer_that_gives_up_is_told_from_one_that_ends() {
    let (a, b, _link) = linked();
    let (mut mine, mut theirs) = open(&a, &b).await;
    mine.write_all(b"some").await.unwrap();
    let mut buf = [0; 4];
    theirs.read_exact(&mut buf).await.unwrap();
    let (mut read, _write) = theirs.into_split();
    let reader = tokio::spawn(async move { (read.recv().await, read.read(&mut [0; 9]).await) });
    tokio::task::yield_now().await;
    mine.reset(77);
    assert_eq!(mine.send("x".into()).await, Err(WriteError::ShutDown));
    let (message, bytes) = timeout(PATIENCE, reader).await.unwrap().unwrap();
    assert_eq!(message, Err(ReadError::Reset { code: 77.into() }));
    assert_eq!(bytes.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reader_that_gives_up_wakes_its_writer() {
    let (a, b, _link) = linked();
    let (mine, mut theirs) = open(&a, &b).await;
    let (mut read, mut write) = mine.into_split();
    // More than both sides take, so it waits.
    let writer =
        tokio::spawn(
            async move { (write.write_all(&vec![7; 100 << 20]).await, write.send("x".into()).await) },
        );
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(!writer.is_finished());
    theirs.stop(5);
    assert_eq!(theirs.recv().await, Err(ReadError::Stopped));
    let (bytes, message) = timeout(PATIENCE, writer).await.unwrap().unwrap();
    assert_eq!(bytes.unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(message, Err(WriteError::Stopped { code: 5.into() }));
    // The other direction goes on.
    theirs.write_all(b"still").await.unwrap();
    assert_eq!(timeout(PATIENCE, read.recv()).await.unwrap().unwrap().unwrap(), "still");
}

#[tokio::test]
async fn a_reader_that_waits_holds_up_nobody_else() {
    let (a, b, link) = linked();
    let (mine, mut slow) = open(&a, &b).await;
    let data = pattern(3 << 20);
    let (_read, mut write) = mine.into_split();
    let writer = tokio::spawn({
        let data = data.clone();
        async move {
            write.write_all(&data).await.unwrap();
            write.shutdown().await.unwrap();
            timeout(PATIENCE, write.acknowledged()).await.unwrap().unwrap();
        }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let (mut quick, mut quick_theirs) = open(&a, &b).await;
    quick.write_all(&data).await.unwrap();
    quick.shutdown().await.unwrap();
    let mut back = Vec::new();
    timeout(PATIENCE, quick_theirs.read_to_end(&mut back)).await.unwrap().unwrap();
    assert!(back == data);
    assert!(b.usage().receive_bytes < 1 << 20, "a window, not what was written: {:?}", b.usage());
    link.cut();
    let _link = Link::new(Speak::Dilated1, &a, &b);
    back.clear();
    timeout(PATIENCE, slow.read_to_end(&mut back)).await.unwrap().unwrap();
    assert!(back == data);
    writer.await.unwrap();
}

#[tokio::test]
async fn acknowledgements_come_without_other_traffic() {
    let (a, b, _link) = linked();
    let (mut mine, _theirs) = open(&a, &b).await;
    for n in 0..3 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        mine.write_all(b"few").await.unwrap();
        timeout(PATIENCE, mine.acknowledged()).await.expect("the timeout of the peer's driver").unwrap();
        assert_eq!(mine.bytes_acknowledged(), 3 * (n + 1));
    }
}

#[tokio::test]
async fn what_goes_first_is_the_applications_choice() {
    let (a, b) = two();
    a.start(Parity::Odd, Speak::Dilated1.dialect(&b.config()));
    let connector = a.connector("p").unwrap();
    let mut last = connector.connect_with(OpenOptions::default().priority(7)).await.unwrap();
    let mut third = connector.connect().await.unwrap();
    let mut first = connector.connect_with(OpenOptions::default().priority(0)).await.unwrap();
    let mut second = connector.connect().await.unwrap();
    second.set_priority(1);
    let mut all = [&mut last, &mut third, &mut first, &mut second];
    for subchannel in &mut all {
        subchannel.send(Bytes::from(vec![1; 60_000])).await.unwrap();
    }
    a.link_up();
    let mut batch = Batch::new();
    let mut cx = Context::from_waker(Waker::noop());
    while a.poll_transmit(&mut cx, now(), 1 << 20, &mut batch).is_ready() {}
    let mut sent: Vec<_> = plaintexts(&batch)
        .flat_map(Frames::new)
        .filter_map(|frame| if let Frame::Data { id, .. } = frame.unwrap() { Some(id) } else { None })
        .collect();
    sent.dedup();
    assert_eq!(sent, [first.id(), second.id(), third.id(), last.id()]);
}

#[derive(Default)]
struct Calls(AtomicUsize);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn who_was_given_all_is_called_for_more() {
    let (a, b) = two();
    a.start(Parity::Odd, Speak::Dilated1.dialect(&b.config()));
    let connector = a.connector("p").unwrap();
    let mut subchannel = connector.connect().await.unwrap();
    let mut another = connector.connect().await.unwrap();
    a.link_up();
    let calls = Arc::new(Calls::default());
    let waker = Waker::from(calls.clone());
    let mut cx = Context::from_waker(&waker);
    let mut batch = Batch::new();
    let mut transmit = |most| {
        batch.clear();
        a.poll_transmit(&mut cx, now(), most, &mut batch)
    };
    let called = || calls.0.swap(0, Ordering::Relaxed);

    subchannel.send("few".into()).await.unwrap();
    assert_eq!(transmit(1 << 20), Poll::Ready(false));
    assert_eq!(called(), 0);
    subchannel.send("more".into()).await.unwrap();
    assert_eq!(called(), 1);
    // Together more than a record.
    subchannel.send(Bytes::from(vec![1; 40_000])).await.unwrap();
    another.send(Bytes::from(vec![2; 40_000])).await.unwrap();
    assert_eq!((transmit(1000), called()), (Poll::Ready(true), 0), "it has to ask again");
    assert_eq!(transmit(1000), Poll::Ready(false));
    assert_eq!((transmit(1000), called()), (Poll::Pending, 0));
    subchannel.send("last".into()).await.unwrap();
    assert_eq!((called(), transmit(1000)), (1, Poll::Ready(false)));
}

/// Hands over what one side has to say. Returns how many records that are.
fn carry(from: &Multiplexer, to: &Multiplexer) -> usize {
    let mut batch = Batch::new();
    let mut cx = Context::from_waker(Waker::noop());
    if from.poll_transmit(&mut cx, now(), 1 << 20, &mut batch).is_pending() {
        return 0;
    }
    let records: Vec<Bytes> = plaintexts(&batch).collect();
    let count = records.len();
    Speak::Dilated1.hand_over(records.into_iter(), to);
    count
}

#[tokio::test]
async fn a_question_and_its_answer_are_a_record_each() {
    let (a, b) = two();
    let mut listener = b.listen("p").unwrap();
    for (side, parity) in [(&a, Parity::Odd), (&b, Parity::Even)] {
        side.start(parity, Speak::Dilated1.dialect(&MuxConfig::default()));
        side.link_up();
    }
    let mut mine = a.connector("p").unwrap().connect().await.unwrap();
    carry(&a, &b);
    let mut theirs = listener.accept().await.unwrap();
    carry(&b, &a);
    for n in 0..5u8 {
        let text = Bytes::from(vec![n; 64]);
        mine.send(text.clone()).await.unwrap();
        assert_eq!(carry(&a, &b), 1);
        assert_eq!(theirs.recv().await.unwrap().unwrap(), text);
        theirs.send(text.clone()).await.unwrap();
        assert_eq!(carry(&b, &a), 1, "the acknowledgement is in it");
        assert_eq!(mine.recv().await.unwrap().unwrap(), text);
        assert_eq!(mine.bytes_acknowledged(), 64 * (u64::from(n) + 1));
        assert_eq!((carry(&a, &b), carry(&b, &a)), (0, 0));
    }
}

#[tokio::test]
async fn datagrams_arrive_whole_or_not_at_all() {
    let (a, b, link) = linked();
    let (mut mine, mut theirs) = open(&a, &b).await;
    mine.opened().await.unwrap();
    let most = mine.max_datagram_size();
    assert_eq!(most, MuxConfig::default().max_datagram);
    for len in [0, 1, most] {
        mine.send_datagram(Bytes::from(pattern(len))).unwrap();
        assert_eq!(timeout(PATIENCE, theirs.recv_datagram()).await.unwrap().unwrap().unwrap(), pattern(len));
    }
    let long = Bytes::from(pattern(most + 1));
    assert_eq!(mine.send_datagram(long), Err(DatagramError::TooLong { len: most + 1, limit: most }));
    // What waits for a link goes with it, and what is written does not.
    link.cut();
    mine.send_datagram("lost".into()).unwrap();
    mine.send("kept".into()).await.unwrap();
    let _link = Link::new(Speak::Dilated1, &a, &b);
    assert_eq!(timeout(PATIENCE, theirs.recv()).await.unwrap().unwrap().unwrap(), "kept");
    mine.send_datagram("after".into()).unwrap();
    let received = timeout(PATIENCE, theirs.recv_datagram()).await.unwrap().unwrap().unwrap();
    assert!(received == "lost" || received == "after", "{received:?}");
    mine.shutdown().await.unwrap();
    assert_eq!(mine.send_datagram("late".into()), Err(DatagramError::NotOpen));
}

#[tokio::test]
async fn the_control_channel_is_there_once_and_goes_both_ways() {
    let (a, b) = two();
    let waiting = tokio::spawn({
        let a = a.clone();
        async move { a.control().await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "the dialect is not known");
    let _link = Link::new(Speak::Dilated1, &a, &b);
    let mut ours = timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap().unwrap();
    let mut theirs = b.control().await.unwrap().unwrap();
    assert!(a.control().await.unwrap().is_none());
    assert_eq!(ours.id(), SubchannelId(0));
    for n in 0..100u8 {
        ours.send(Bytes::from(vec![n; 1000])).await.unwrap();
        assert_eq!(timeout(PATIENCE, theirs.recv()).await.unwrap().unwrap().unwrap(), vec![n; 1000]);
        theirs.send("ok".into()).await.unwrap();
        assert_eq!(timeout(PATIENCE, ours.recv()).await.unwrap().unwrap().unwrap(), "ok");
    }
    a.fail(EndReason::closed("bye"));
    assert!(matches!(a.control().await, Err(OpenError::Ended(_))));
}
