//! What is different in `ged`.

use std::time::Duration;

use dilated_subchannel::{
    io::Multiplexer,
    mux::{DatagramError, MuxConfig, ReadError},
    record::Record,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::link::{Link, PATIENCE, Speak, open, two};

#[tokio::test]
async fn a_reader_that_waits_stops_the_link_and_a_drop_frees_it() {
    let config = MuxConfig { receive_limit: 10_000, ..MuxConfig::default() };
    let (a, b) = (Multiplexer::new(MuxConfig::default()), Multiplexer::new(config));
    let _link = Link::new(Speak::Ged, &a, &b);
    let (mut slow, slow_theirs) = open(&a, &b).await;
    let (mut quick, mut quick_theirs) = open(&a, &b).await;
    slow.write_all(&vec![0; 1 << 20]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(b.usage().read_paused);
    quick.write_all(b"through").await.unwrap();
    drop(slow_theirs);
    let mut buf = [0; 7];
    timeout(PATIENCE, quick_theirs.read_exact(&mut buf)).await.unwrap().unwrap();
    assert_eq!(&buf, b"through");
}

#[tokio::test]
async fn a_wrong_record_is_an_error_and_the_next_link_goes_on() {
    let (a, b) = two();
    let (mut mine, mut theirs) = {
        let _link = Link::new(Speak::Ged, &a, &b);
        open(&a, &b).await
    };
    b.link_up();
    assert!(b.handle([Record::Kcm]).is_err());
    b.link_down();
    let _link = Link::new(Speak::Ged, &a, &b);
    mine.write_all(b"x").await.unwrap();
    assert_eq!(theirs.recv().await.unwrap().unwrap(), "x");
}

#[tokio::test]
async fn what_it_does_not_have_is_said_or_changes_nothing() {
    let (a, b) = two();
    let waiting = tokio::spawn({
        let a = a.clone();
        async move { a.control().await.map(|control| control.is_some()) }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "the dialect is not known");
    let _link = Link::new(Speak::Ged, &a, &b);
    assert_eq!(timeout(PATIENCE, waiting).await.unwrap().unwrap(), Ok(false));
    let (mut mine, mut theirs) = open(&a, &b).await;
    mine.opened().await.unwrap();
    mine.set_priority(7);
    assert_eq!(mine.max_datagram_size(), 0);
    assert_eq!(mine.send_datagram("x".into()), Err(DatagramError::Unsupported));
    assert_eq!(mine.recv_datagram().await, Ok(None));
    assert_eq!(a.next_timeout(), None);
    // A reader that stops gets no more, and its writer does not learn of it.
    mine.write_all(b"for nobody").await.unwrap();
    theirs.stop(1);
    assert_eq!(timeout(PATIENCE, theirs.recv()).await.unwrap(), Err(ReadError::Stopped));
    mine.write_all(b"nor this").await.unwrap();
    mine.acknowledged().await.unwrap();
    assert_eq!(b.usage().receive_bytes, 0);
    // A reset is an end.
    theirs.write_all(b"all of it").await.unwrap();
    theirs.reset(2);
    assert!(theirs.write_all(b"no more").await.is_err());
    let mut text = String::new();
    mine.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "all of it");
}
