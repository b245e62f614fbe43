//! What goes over subchannels, and over sockets to compare.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dilated::Subchannel;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::{JoinHandle, yield_now},
};

use crate::{
    host::Host,
    measure::{Spent, Stopwatch, now},
    pair::Pair,
    program::Outcome,
};

/// Bytes in one write of bulk.
pub(crate) const CHUNK: usize = 64 * 1024;

/// Bytes of one question and of one answer.
const ECHO: usize = 64;

fn chunk() -> Bytes {
    Bytes::from(vec![0x5a; CHUNK])
}

/// Writes so many bytes, the same `chunk` again and again, which is not copied, and ends the direction.
async fn write(mut subchannel: Subchannel, chunk: Bytes, bytes: u64) -> Outcome<Subchannel> {
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        subchannel.write_bytes(chunk.slice(..length)).await?;
        left -= length as u64;
    }
    subchannel.shutdown().await?;
    Ok(subchannel)
}

/// Reads to the end.
async fn read(mut subchannel: Subchannel, bytes: u64) -> Outcome<()> {
    let mut received = 0;
    while let Some(chunk) = subchannel.read_chunk().await? {
        received += chunk.len() as u64;
    }
    if received != bytes {
        return Err(format!("{received} bytes came of {bytes}").into());
    }
    Ok(())
}

/// Carries `bytes` over `count` new subchannels at once. Opening them and making a task for each end is not part of what is
/// measured: the clock runs from the word that lets the writers begin until the last reader has seen its end.
pub(crate) async fn transfer(pair: &mut Pair, bytes: u64, count: usize) -> Outcome<Spent> {
    let (share, chunk) = (bytes / count as u64, chunk());
    let (begin, begun) = watch::channel(());
    let (mut writers, mut readers) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for (ours, theirs) in pair.open_many(count).await? {
        let (chunk, mut begun) = (chunk.clone(), begun.clone());
        readers.push(read(theirs, share));
        writers.push(async move {
            begun.changed().await?;
            write(ours, chunk, share).await
        });
    }
    let readers = crowd(&pair.b.host, readers).await?;
    let writers = crowd(&pair.a.host, writers).await?;
    let watch = Stopwatch::start()?;
    // From a task there: to wake so many from another thread takes a system call for each.
    pair.a.host.spawn(async move { begin.send_replace(()) });
    readers.await??;
    let spent = watch.stop()?;
    drop(writers.await??);
    pair.settled(0).await?;
    Ok(spent)
}

/// Runs futures as tasks of a host, each of which has been polled once when this returns. The handle gives their results.
async fn crowd<T: Send + 'static>(
    host: &Host,
    futures: Vec<impl Future<Output = Outcome<T>> + Send + 'static>,
) -> Outcome<JoinHandle<Outcome<Vec<T>>>> {
    let (ready, waiting) = oneshot::channel();
    let all = host.spawn(async move {
        let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
        // Comes back when those that are in the queue already have had their turn.
        yield_now().await;
        ready.send(()).map_err(|()| "nobody waits for the tasks")?;
        let mut results = Vec::with_capacity(tasks.len());
        for task in tasks {
            results.push(task.await??);
        }
        Ok(results)
    });
    waiting.await?;
    Ok(all)
}

/// Writes until its task is aborted.
pub(crate) async fn write_for_ever(mut subchannel: Subchannel) -> Outcome<()> {
    let chunk = chunk();
    loop {
        subchannel.write_bytes(chunk.clone()).await?;
    }
}

/// Traffic that goes on until it is dropped.
#[derive(Debug)]
pub(crate) struct Flood {
    tasks: [JoinHandle<Outcome<()>>; 2],
}

impl Flood {
    /// Over a subchannel. Counts in `received` what arrives.
    pub(crate) fn subchannel(
        (from, source): (&Host, Subchannel),
        (to, mut sink): (&Host, Subchannel),
        received: Arc<AtomicU64>,
    ) -> Flood {
        let writing = from.spawn(write_for_ever(source));
        let reading = to.spawn(async move {
            while let Some(chunk) = sink.read_chunk().await? {
                received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
            Ok(())
        });
        Flood { tasks: [writing, reading] }
    }

    /// Over a connection.
    pub(crate) fn tcp((from, mut source): (&Host, TcpStream), (to, mut sink): (&Host, TcpStream)) -> Flood {
        let writing = from.spawn(async move {
            let chunk = chunk();
            loop {
                source.write_all(&chunk).await?;
            }
        });
        let reading = to.spawn(async move {
            let mut buffer = vec![0; 4 * CHUNK];
            while sink.read(&mut buffer).await? > 0 {}
            Ok(())
        });
        Flood { tasks: [writing, reading] }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Asks and waits for the answer, again and again.
pub(crate) async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    trips: usize,
    longest: Duration,
) -> Outcome<Vec<Duration>> {
    // The first ones find cold caches and small windows.
    some_trips(&mut stream, trips / 10, longest / 10).await?;
    let times = some_trips(&mut stream, trips, longest).await?;
    stream.shutdown().await?;
    Ok(times)
}

/// At most so many, and no more when so long has passed.
async fn some_trips(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    trips: usize,
    longest: Duration,
) -> Outcome<Vec<Duration>> {
    let mut buffer = [0x5a; ECHO];
    let mut times = Vec::with_capacity(trips);
    let mut start = now();
    let begin = start;
    while times.len() < trips && start.saturating_duration_since(begin) < longest {
        stream.write_all(&buffer).await?;
        stream.read_exact(&mut buffer).await?;
        let end = now();
        times.push(end.saturating_duration_since(start));
        start = end;
    }
    Ok(times)
}

/// Answers until nobody asks any more.
pub(crate) async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Outcome<()> {
    let mut buffer = [0; ECHO];
    while stream.read_exact(&mut buffer).await.is_ok() {
        stream.write_all(&buffer).await?;
    }
    Ok(())
}

/// A connection between two hosts without a delay for small writes.
pub(crate) async fn tcp(from: &Host, to: &Host) -> Outcome<(TcpStream, TcpStream)> {
    let listening = to.spawn(async { TcpListener::bind("127.0.0.1:0").await });
    let listener = listening.await??;
    let address = listener.local_addr()?;
    let accepting = to.spawn(async move { listener.accept().await });
    let stream = from.spawn(TcpStream::connect(address)).await??;
    let (accepted, _) = accepting.await??;
    stream.set_nodelay(true)?;
    accepted.set_nodelay(true)?;
    Ok((stream, accepted))
}
