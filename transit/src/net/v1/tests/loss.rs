//! What a reader says of what was lost, torn, repeated, moved or changed on the way.

use bytes::BytesMut;

use super::*;
use crate::{
    contact::Contact,
    v1::{RecordError, RecordSealer, TransitHandshake, TransitStage},
};

/// A Receiver, and a Sender whose bytes this test makes.
async fn receiver() -> (TransitPipe, TcpStream, RecordSealer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hint = Hint::Direct(TcpHint::from_addr(address.ip(), address.port()));
    let receiving = tokio::spawn(async move {
        let receiver = TransitReceiver::new(deaf(1)).unwrap();
        soon("connection", receiver.connect(&[hint])).await.unwrap()
    });
    let (mut stream, _) = soon("dial", listener.accept()).await.unwrap();
    let mut handshake = TransitHandshake::new(Part::Sender, TransitKey::new([1; 32]), Contact::Accepted);
    while handshake.stage() != TransitStage::Ready {
        let mut input = BytesMut::new();
        assert_ne!(soon("line", stream.read_buf(&mut input)).await.unwrap(), 0);
        handshake.handle_input(&input).unwrap();
    }
    let mut out = handshake.poll_output().unwrap();
    let (sealer, _) = handshake.into_pipe(&mut out).unwrap();
    stream.write_all(&out).await.unwrap();
    (receiving.await.unwrap(), stream, sealer)
}

fn seal(sealer: &mut RecordSealer, plaintext: &[u8]) -> BytesMut {
    let mut wire = BytesMut::new();
    sealer.seal(plaintext, &mut wire);
    wire
}

/// What the reader comes to after the records that are whole, and that it stays so.
async fn verdict(wire: &[u8], mut pipe: TransitPipe, mut stream: TcpStream) -> (usize, TransferError) {
    stream.write_all(wire).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut records = 0;
    loop {
        match soon("record", pipe.reader.next_record()).await {
            Ok(Some(_)) => records += 1,
            Ok(None) => return (records, TransferError::Closed),
            Err(error) => {
                let again = pipe.reader.next_record().await;
                assert!(!matches!(again, Ok(Some(_))), "nothing follows");
                return (records, error);
            }
        }
    }
}

#[tokio::test]
async fn records_are_taken_in_their_order_only() {
    let order = |found, expected| RecordError::OutOfOrder { found, expected };
    let cases: [(&[usize], usize, RecordError); 4] = [
        (&[0, 0, 1], 1, order(0, 1)),
        (&[0, 2, 1], 1, order(2, 1)),
        (&[1, 0], 0, order(1, 0)),
        (&[0, 1, 3], 2, order(3, 2)),
    ];
    for (sequence, whole, expected) in cases {
        let (pipe, stream, mut sealer) = receiver().await;
        let records: Vec<BytesMut> = (0..4).map(|_| seal(&mut sealer, b"some record")).collect();
        let wire: Vec<u8> = sequence.iter().flat_map(|number| records[*number].to_vec()).collect();
        let (came, error) = verdict(&wire, pipe, stream).await;
        assert_eq!(came, whole, "{sequence:?}");
        assert!(matches!(error, TransferError::Record(error) if error == expected), "{sequence:?}: {error}");
    }
}

#[tokio::test]
async fn every_changed_byte_is_noticed() {
    // One of the length, the nonce, the tag, and the first and the last of the ciphertext.
    for at in [0, 3, 4, 27, 28, 43, 44, 48] {
        let (pipe, stream, mut sealer) = receiver().await;
        let mut wire = [seal(&mut sealer, b"first"), seal(&mut sealer, b"12345")].concat();
        let second = wire.len() / 2;
        wire[second + at] ^= 0x80;
        let (came, error) = verdict(&wire, pipe, stream).await;
        assert_eq!(came, 1, "{at}");
        let damage = matches!(error, TransferError::Record(_) | TransferError::Torn);
        assert!(damage, "{at}: {error}");
        assert_eq!(
            matches!(error, TransferError::Record(RecordError::Undecryptable)),
            at >= 28,
            "{at}: {error}"
        );
    }
}

#[tokio::test]
async fn the_end_of_the_connection_is_told_by_where_it_comes() {
    let whole = |cut: usize| async move {
        let (pipe, stream, mut sealer) = receiver().await;
        let wire = [seal(&mut sealer, b"first"), seal(&mut sealer, b"second")].concat();
        verdict(&wire[..cut.min(wire.len())], pipe, stream).await
    };
    let first = 44 + 5;
    for cut in [1, 3, 4, 5, first - 1, first + 1, first + 40] {
        let (came, error) = whole(cut).await;
        assert_eq!(came, usize::from(cut >= first));
        assert!(matches!(error, TransferError::Torn), "{cut}: {error}");
    }
    for (cut, records) in [(0, 0), (first, 1), (usize::MAX, 2)] {
        let (came, error) = whole(cut).await;
        assert!(came == records && matches!(error, TransferError::Closed), "{cut}: {error}");
    }
    // In the middle of a stream, and by a reset.
    let (mut sent, mut received) = pair(config(1), config(1)).await;
    sent.writer.send_record(b"half").await.unwrap();
    sent.close().await;
    let error = received.reader.copy_to(&mut Vec::new(), 8, |_| ()).await.unwrap_err();
    assert!(matches!(error, TransferError::Short { received: 4, expected: 8 }), "{error}");
    let (mut pipe, stream, _) = receiver().await;
    crate::net::dial::reset_on_drop(&stream);
    drop(stream);
    let error = soon("end", pipe.reader.copy_to(&mut Vec::new(), 8, |_| ())).await.unwrap_err();
    assert!(matches!(error, TransferError::Network(_)), "{error}");
}

#[tokio::test]
async fn records_at_their_limits() {
    let (mut sent, mut received) = pair(config(1), config(1)).await;
    for length in [0, 1, crate::v1::MAX_RECORD] {
        let record = vec![7; length];
        let (send, came) = soon("record", async {
            tokio::join!(sent.writer.send_record(&record), received.reader.next_record())
        })
        .await;
        send.unwrap();
        assert!(came.unwrap().unwrap() == record, "{length}");
    }
    let (pipe, stream, _) = receiver().await;
    let (_, error) = verdict(&(40 + (1u32 << 20) + 1).to_be_bytes(), pipe, stream).await;
    assert!(matches!(error, TransferError::Record(RecordError::TooLong { .. })), "{error}");
    let (pipe, stream, _) = receiver().await;
    let (_, error) = verdict(&39u32.to_be_bytes(), pipe, stream).await;
    assert!(matches!(error, TransferError::Record(RecordError::TooShort(39))), "{error}");
}
