mod copies;
mod loss;
mod meeting;

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    hint::{RelayHint, TcpHint},
    v1::TransitKey,
};

fn config(key: u8) -> TransitConfig {
    TransitConfig { loopback: true, ..TransitConfig::new(TransitKey::new([key; 32])) }
}

fn deaf(key: u8) -> TransitConfig {
    TransitConfig { listen: false, ..config(key) }
}

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.unwrap_or_else(|_| panic!("no {what}"))
}

/// Both sides with these configurations, connected.
async fn pair(sender: TransitConfig, receiver: TransitConfig) -> (TransitPipe, TransitPipe) {
    let (sender, receiver) = (TransitSender::new(sender).unwrap(), TransitReceiver::new(receiver).unwrap());
    let (ours, theirs) = (sender.hints(), receiver.hints());
    let (sent, received) =
        soon("connection", async { tokio::join!(sender.connect(&theirs), receiver.connect(&ours)) }).await;
    (sent.unwrap(), received.unwrap())
}

#[tokio::test]
async fn either_side_may_be_the_only_one_that_listens() {
    for (sender, receiver) in [(config(1), config(1)), (config(1), deaf(1)), (deaf(1), config(1))] {
        let (mut sent, mut received) = pair(sender, receiver).await;
        sent.writer.send_record(b"to the receiver").await.unwrap();
        received.writer.send_record(b"").await.unwrap();
        assert_eq!(received.reader.next_record().await.unwrap().unwrap(), "to the receiver");
        assert_eq!(sent.reader.next_record().await.unwrap().unwrap(), "");
        let (closed, end) = tokio::join!(sent.close(), received.reader.next_record());
        assert_eq!(((), None), (closed, end.unwrap()));
    }
}

#[tokio::test]
async fn a_stream_arrives_whole_with_its_progress() {
    let (mut sent, mut received) = pair(config(1), config(1)).await;
    let data: Vec<u8> = (0..=250).cycle().take(5_000_001).collect();
    let (mut out, mut seen, mut copied) = (0, Vec::new(), Vec::new());
    let (length, mut source) = (data.len() as u64, &data[..]);
    let (send, receive) = soon("end of the copy", async {
        tokio::join!(
            sent.writer.copy_from(&mut source, length, |piece| out += piece.len()),
            received.reader.copy_to(&mut copied, length, |piece| seen.extend_from_slice(piece)),
        )
    })
    .await;
    send.unwrap();
    receive.unwrap();
    assert!(copied == data && seen == data && out == data.len());
    sent.writer.copy_from(&mut &b""[..], 0, |_| panic!("nothing")).await.unwrap();
    received.reader.copy_to(&mut copied, 0, |_| panic!("nothing")).await.unwrap();
}

#[tokio::test]
async fn what_does_not_have_the_announced_length_is_refused() {
    let (mut sent, mut received) = pair(config(1), config(1)).await;
    let error = sent.writer.copy_from(&mut &b"short"[..], 6, |_| ()).await.unwrap_err();
    assert!(matches!(&error, TransferError::Local(e) if e.kind() == io::ErrorKind::UnexpectedEof), "{error}");
    // What was read of it goes ahead of this.
    sent.writer.send_record(b"").await.unwrap();
    let mut copied = Vec::new();
    let error = received.reader.copy_to(&mut copied, 4, |_| ()).await.unwrap_err();
    assert!(matches!(error, TransferError::Long { expected: 4 }) && copied.is_empty(), "{error}");
    sent.writer.send_record(b"more").await.unwrap();
    sent.close().await;
    // The empty record carries nothing.
    let error = received.reader.copy_to(&mut copied, 10, |_| ()).await.unwrap_err();
    assert!(matches!(error, TransferError::Short { received: 4, expected: 10 }), "{error}");
    assert_eq!(copied, b"more");
    let (mut sent, _received) = pair(config(1), config(1)).await;
    let error = sent.writer.send_record(&vec![0; (1 << 20) + 1]).await.unwrap_err();
    assert!(matches!(error, TransferError::RecordTooLong(_)), "{error}");
}

#[tokio::test]
async fn a_slow_reader_holds_the_writer_back() {
    let (mut sent, mut received) = pair(config(1), config(1)).await;
    let total = 64 * 1024 * 1024u64;
    let sent_so_far = Arc::new(Mutex::new(0));
    let counter = sent_so_far.clone();
    let writing = tokio::spawn(async move {
        let mut zeros = tokio::io::repeat(0);
        sent.writer.copy_from(&mut zeros, total, |piece| *counter.lock().unwrap() += piece.len()).await
    });
    // Nobody reads: it comes to rest, far from the end.
    let mut before = 1;
    soon("rest", async {
        while before != *sent_so_far.lock().unwrap() {
            before = *sent_so_far.lock().unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    assert!((before as u64) < total, "{before}");
    soon("the rest", received.reader.copy_to(&mut tokio::io::sink(), total, |_| ())).await.unwrap();
    writing.await.unwrap().unwrap();
}

#[tokio::test]
async fn without_any_way_the_error_says_so_at_once() {
    let error = TransitSender::new(deaf(1)).unwrap().connect(&[]).await.unwrap_err();
    assert_eq!(error, ConnectError::NoWay);
}

/// A server that says this to everybody.
async fn server(says: &'static [u8]) -> Hint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(says).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    Hint::Direct(TcpHint::from_addr(address.ip(), address.port()))
}

#[tokio::test]
async fn the_error_names_what_answered() {
    let mut config = deaf(1);
    config.limits.timeout = Duration::from_secs(3);
    let hints =
        [server(b"HTTP/1.1 400 Bad Request\r\n\r\n").await, server(b"220 mail.example ESMTP\r\n").await];
    let error = TransitReceiver::new(config).unwrap().connect(&hints).await.unwrap_err().to_string();
    assert!(error.contains("a web server") && error.contains("a mail or FTP server"), "{error}");
}

#[tokio::test]
async fn who_listens_answers_a_browser_and_goes_on() {
    let receiver = TransitReceiver::new(config(1)).unwrap();
    let hints = receiver.hints();
    let port = hints.iter().find_map(|hint| match hint {
        Hint::Direct(hint) if hint.hostname() == "127.0.0.1" => Some(hint.port()),
        _ => None,
    });
    let address = ("127.0.0.1", port.unwrap());
    let sender = TransitSender::new(deaf(1)).unwrap();
    let connecting = tokio::spawn(async move { receiver.connect(&[]).await });
    let mut browser = TcpStream::connect(address).await.unwrap();
    browser.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut reply = String::new();
    soon("reply", browser.read_to_string(&mut reply)).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
    // Somebody with another key is no more welcome.
    let stranger = TransitSender::new(deaf(2)).unwrap();
    let refused = tokio::spawn({
        let hints = hints.clone();
        async move { stranger.connect(&hints).await }
    });
    soon("connection", sender.connect(&hints)).await.unwrap();
    soon("connection", connecting).await.unwrap().unwrap();
    refused.abort();
}

#[cfg(feature = "relay")]
#[tokio::test]
async fn through_a_relay_of_either_side() {
    use crate::relay::{Relay, RelayConfig};

    for both in [true, false] {
        let relay = Relay::bind("127.0.0.1:0".parse().unwrap(), RelayConfig::default()).await.unwrap();
        let address = relay.local_addr();
        let serving = tokio::spawn(relay.run());
        let hint = RelayHint::new(vec![TcpHint::from_addr(address.ip(), address.port())]);
        let with = |relays| TransitConfig { relays, ..deaf(1) };
        let receiver = with(if both { vec![hint.clone()] } else { Vec::new() });
        let (mut sent, mut received) = pair(with(vec![hint]), receiver).await;
        assert!(!sent.path.is_direct() && !received.path.is_direct());
        sent.writer.send_record(b"relayed").await.unwrap();
        assert_eq!(received.reader.next_record().await.unwrap().unwrap(), "relayed");
        serving.abort();
    }
}
