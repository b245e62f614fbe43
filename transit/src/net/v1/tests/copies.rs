//! Copies by two threads.

use std::{
    io::{Cursor, Read, Write},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;

/// A source that gives these bytes again and again, in reads of changing lengths, and counts them.
struct Trickle {
    given: Arc<AtomicUsize>,
    most: usize,
}

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let before = self.given.load(Ordering::Relaxed);
        let read = buffer.len().min(1 + before % self.most);
        for (at, byte) in buffer[..read].iter_mut().enumerate() {
            *byte = pattern(before + at);
        }
        self.given.fetch_add(read, Ordering::Relaxed);
        Ok(read)
    }
}

fn pattern(at: usize) -> u8 {
    u8::try_from(at % 251).unwrap()
}

fn patterned(length: usize) -> Vec<u8> {
    (0..length).map(pattern).collect()
}

/// What an observer saw, which another thread runs.
type Seen = Arc<Mutex<Vec<u8>>>;

fn seen() -> (Seen, impl FnMut(&[u8]) + Send + 'static) {
    let seen = Seen::default();
    let observed = seen.clone();
    (seen, move |piece: &[u8]| observed.lock().unwrap().extend_from_slice(piece))
}

#[tokio::test]
async fn a_stream_arrives_whole_whatever_its_length_and_its_reads() {
    let (mut sent, mut received) = pair(config(1), config(1)).await;
    for (length, most) in [(0, 1), (1, 1), (65_536, usize::MAX), (262_145, usize::MAX), (3_000_001, 70_001)] {
        let source = Trickle { given: Arc::default(), most };
        let given = source.given.clone();
        let ((out, observe_out), (came, observe_came)) = (seen(), seen());
        let (source, sink) = soon("end of the copy", async {
            tokio::join!(
                sent.writer.copy_from_blocking(source, length as u64, observe_out),
                received.reader.copy_to_blocking(Vec::new(), length as u64, observe_came),
            )
        })
        .await;
        let (mut source, sink) = (source.unwrap(), sink.unwrap());
        assert!(sink == patterned(length), "{length}");
        assert!(*out.lock().unwrap() == sink && *came.lock().unwrap() == sink, "{length}");
        // No byte more was taken, and it can go on.
        assert_eq!(given.load(Ordering::Relaxed), length);
        source.read_exact(&mut [0]).unwrap();
    }
    // Records and other ways of copying may follow.
    sent.writer.send_record(b"done").await.unwrap();
    assert_eq!(received.reader.next_record().await.unwrap().unwrap(), "done");
    let data = patterned(1_000_000);
    let mut copied = Vec::new();
    let (source, length) = (Cursor::new(data.clone()), data.len() as u64);
    let (send, receive) = soon("end of the copy", async {
        tokio::join!(
            sent.writer.copy_from_blocking(source, length, |_| ()),
            received.reader.copy_to(&mut copied, length, |_| ()),
        )
    })
    .await;
    send.unwrap();
    receive.unwrap();
    assert!(copied == data);
}

#[tokio::test]
async fn records_of_any_length_are_taken() {
    let (mut sent, mut received) = pair(config(1), config(1)).await;
    let lengths = [1, 0, 4096, 16_384, 1 << 20, 3, 65_536];
    let all = patterned(lengths.iter().sum());
    let total = all.len() as u64;
    let expected = all.clone();
    let sending = tokio::spawn(async move {
        let mut rest = &all[..];
        for length in lengths {
            let (record, behind) = rest.split_at(length);
            sent.writer.send_record(record).await.unwrap();
            rest = behind;
        }
        sent
    });
    let copied = soon("copy", received.reader.copy_to_blocking(Vec::new(), total, |_| ())).await.unwrap();
    assert!(copied == expected);
    sending.await.unwrap();
}

#[tokio::test]
async fn a_wrong_length_is_an_error_and_nothing_beyond_it_is_written() {
    let (mut sent, mut received) = pair(config(1), config(1)).await;
    let source = Cursor::new(b"short");
    let error = sent.writer.copy_from_blocking(source, 6, |_| ()).await.err().unwrap();
    assert!(matches!(&error, TransferError::Local(e) if e.kind() == io::ErrorKind::UnexpectedEof), "{error}");
    sent.writer.send_record(b"1234").await.unwrap();
    sent.writer.send_record(b"5678").await.unwrap();
    let (written, observe) = seen();
    let error = received.reader.copy_to_blocking(Vec::new(), 6, observe).await.err().unwrap();
    assert!(matches!(error, TransferError::Long { expected: 6 }), "{error}");
    assert_eq!(
        *written.lock().unwrap(),
        b"short",
        "what came before, and no record that goes beyond the end"
    );
    let (mut sent, mut received) = pair(config(1), config(1)).await;
    sent.writer.send_record(b"more").await.unwrap();
    sent.close().await;
    let (written, observe) = seen();
    let error = received.reader.copy_to_blocking(Vec::new(), 10, observe).await.err().unwrap();
    assert!(matches!(error, TransferError::Short { received: 4, expected: 10 }), "{error}");
    assert_eq!(*written.lock().unwrap(), b"more", "what came before has been written when it returns");
}

/// A file on a full disk.
#[derive(Debug)]
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = bytes.len().min(self.0);
        self.0 -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_is_told() {
    let (mut sent, mut received) = pair(config(1), config(1)).await;
    let total = 64 << 20;
    let sending = tokio::spawn(async move {
        sent.writer.copy_from_blocking(io::repeat(1), total, |_| ()).await.err().unwrap()
    });
    let copying = received.reader.copy_to_blocking(Full(1_000_000), total, |_| ());
    let error = soon("end", copying).await.unwrap_err();
    assert!(matches!(&error, TransferError::Local(e) if e.kind() == io::ErrorKind::StorageFull), "{error}");
    // The sender hears of it when the connection ends.
    drop(received);
    let error = soon("end", sending).await.unwrap();
    assert!(matches!(error, TransferError::Network(_)), "{error}");
}

#[tokio::test]
async fn nobody_runs_ahead_of_who_does_not_read_and_a_dropped_copy_ends() {
    let (mut sent, received) = pair(config(1), config(1)).await;
    let source = Trickle { given: Arc::default(), most: usize::MAX };
    let given = source.given.clone();
    let total = 1 << 30;
    let writing =
        tokio::spawn(async move { sent.writer.copy_from_blocking(source, total, |_| ()).await.is_ok() });
    let mut before = 1;
    soon("rest", async {
        while before != given.load(Ordering::Relaxed) {
            before = given.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    assert!(before < 128 << 20, "{before} bytes were read that nobody takes");
    // Its thread waits for room; without the task it must not go on, nor wait for ever: it holds the source.
    writing.abort();
    assert!(writing.await.unwrap_err().is_cancelled());
    soon("end of the thread", async {
        while Arc::strong_count(&given) > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    drop(received);
}
