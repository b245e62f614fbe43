//! Threads that read what is sent and write what comes.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    mem,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc as waiting,
    },
    thread,
};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::exit::Failure;

/// Bytes read at once.
pub(super) const PIECE: usize = 256 * 1024;

/// Pieces that may wait between two threads.
const WAITING: usize = 4;

/// What a thread writes, to be read in another one. Dropping it ends the thread that writes.
#[derive(Debug)]
pub(super) struct Feed {
    pieces: mpsc::Receiver<Vec<u8>>,
    current: io::Cursor<Vec<u8>>,
    result: oneshot::Receiver<Result<(), Failure>>,
}

impl Feed {
    /// Starts a thread in which `produce` writes.
    pub(super) fn start(
        produce: impl FnOnce(&Outlet) -> Result<(), Failure> + Send + 'static,
    ) -> Result<Feed, Failure> {
        let (sender, pieces) = mpsc::channel(WAITING);
        let (done, result) = oneshot::channel();
        let run = move || {
            let outlet =
                Outlet(Rc::new(RefCell::new(Collected { sender: Some(sender), buffer: Vec::new() })));
            let produced = produce(&outlet);
            outlet.flush_buffer();
            // Before the stream ends, so that who sees its end finds the reason.
            let _ = done.send(produced);
        };
        spawn("source", run)?;
        Ok(Feed { pieces, current: io::Cursor::default(), result })
    }
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.current.read(buffer)? {
                0 if !buffer.is_empty() => {}
                read => return Ok(read),
            }
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = io::Cursor::new(piece),
                None => return self.result.try_recv().unwrap_or(Ok(())).map(|()| 0).map_err(as_io),
            }
        }
    }
}

/// Where a thread writes what is sent. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Outlet(Rc<RefCell<Collected>>);

#[derive(Debug)]
struct Collected {
    /// Gone when nobody wants more.
    sender: Option<mpsc::Sender<Vec<u8>>>,
    buffer: Vec<u8>,
}

impl Collected {
    fn send(&mut self, piece: Vec<u8>) {
        let taken = self.sender.as_ref().is_some_and(|sender| sender.blocking_send(piece).is_ok());
        if !taken {
            self.sender = None;
        }
    }
}

impl Outlet {
    /// Whether nobody wants more; what is written then is lost, which is no error.
    pub(super) fn is_abandoned(&self) -> bool {
        self.0.borrow().sender.is_none()
    }

    /// Sends nothing any more.
    pub(super) fn abandon(&self) {
        self.0.borrow_mut().sender = None;
    }

    fn flush_buffer(&self) {
        let mut collected = self.0.borrow_mut();
        if !collected.buffer.is_empty() {
            let piece = mem::take(&mut collected.buffer);
            collected.send(piece);
        }
    }
}

impl io::Write for Outlet {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let full = {
            let mut collected = self.0.borrow_mut();
            if collected.sender.is_some() {
                collected.buffer.extend_from_slice(data);
            }
            collected.buffer.len() >= PIECE
        };
        if full {
            self.flush_buffer();
        }
        Ok(data.len())
    }

    /// Small pieces are collected.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads or writes through, and computes the SHA-256.
#[derive(Debug)]
pub(super) struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<T> Hashing<T> {
    pub(super) fn new(inner: T) -> Hashing<T> {
        Hashing { inner, hash: Sha256::new() }
    }

    /// What is inside, and the hash in hexadecimal digits.
    pub(super) fn finish(self) -> (T, String) {
        (self.inner, HEXLOWER.encode(&self.hash.finalize()))
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(data)?;
        self.hash.update(&data[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Something that another thread has, and that has to be gone before its [`Waiting`] is.
#[derive(Debug)]
pub(super) struct Lent<T> {
    // The first to be dropped.
    pub(super) inner: T,
    _gone: waiting::Sender<()>,
}

/// Waits, when it is dropped, until what was lent is gone.
#[derive(Debug)]
pub(super) struct Waiting(waiting::Receiver<()>);

impl<T> Lent<T> {
    pub(super) fn new(inner: T) -> (Lent<T>, Waiting) {
        let (sender, receiver) = waiting::channel();
        (Lent { inner, _gone: sender }, Waiting(receiver))
    }
}

impl<T: Write> Write for Lent<T> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.inner.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Nothing is ever sent: it ends when the other end is gone.
        let _ = self.0.recv();
    }
}

/// A thread that works on files and leaves none behind: whoever drops this waits until it has cleaned up.
#[derive(Debug)]
pub(super) struct Worker<T> {
    result: Option<oneshot::Receiver<Result<T, Failure>>>,
    cancelled: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Whether a [`Worker`] should stop.
#[derive(Debug, Clone, Default)]
pub(super) struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    /// Fails when nobody wants the result any more.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.0.load(Ordering::Relaxed) { Err(Failure::interrupted()) } else { Ok(()) }
    }
}

impl<T: Send + 'static> Worker<T> {
    /// Starts it. `work` looks at its argument between steps that are short.
    pub(super) fn start(
        work: impl FnOnce(&Cancelled) -> Result<T, Failure> + Send + 'static,
    ) -> Result<Worker<T>, Failure> {
        let cancelled = Cancelled::default();
        let shared = cancelled.0.clone();
        let (done, result) = oneshot::channel();
        let run = move || {
            // What nobody takes is dropped here, before the thread ends.
            let _ = done.send(work(&cancelled));
        };
        let thread = spawn("files", run)?;
        Ok(Worker { result: Some(result), cancelled: shared, thread: Some(thread) })
    }

    /// Waits for the result.
    pub(super) async fn finish(mut self) -> Result<T, Failure> {
        match &mut self.result {
            Some(result) => result.await.unwrap_or_else(|_| Err(thread_ended())),
            None => Err(thread_ended()),
        }
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        // A result that comes now is of no use to anybody, and must be gone before the thread is.
        self.result = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A failure of this side on its way through code that knows only errors of the system.
pub(super) fn as_io(failure: Failure) -> io::Error {
    io::Error::other(failure.to_string())
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>, Failure> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(|error| Failure::io("could not start a thread", &error))
}

fn thread_ended() -> Failure {
    Failure::io("could not go on", &io::Error::other("a thread ended early"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Kind;

    #[test]
    fn what_is_written_in_one_thread_is_read_in_the_other() {
        let mut feed = Feed::start(|outlet| {
            let mut outlet = outlet.clone();
            outlet.write_all(b"one ").unwrap();
            outlet.write_all(&vec![b'x'; 3 * PIECE]).unwrap();
            outlet.write_all(b" two").unwrap();
            Ok(())
        })
        .unwrap();
        let mut all = Vec::new();
        feed.read_to_end(&mut all).unwrap();
        assert_eq!(all, [&b"one "[..], &vec![b'x'; 3 * PIECE], b" two"].concat());
    }

    #[test]
    fn the_reason_of_an_early_end_is_told() {
        let mut feed = Feed::start(|_| Err(Failure::new(Kind::Local, "the file shrank"))).unwrap();
        assert_eq!(feed.read(&mut [0; 10]).unwrap_err().to_string(), "the file shrank");
    }

    #[test]
    fn an_outlet_that_nobody_reads_swallows_the_rest() {
        let (done, ended) = waiting::channel();
        let feed = Feed::start(move |outlet| {
            let mut outlet = outlet.clone();
            while !outlet.is_abandoned() {
                outlet.write_all(&[0; 1000]).unwrap();
            }
            outlet.write_all(&[0; 1000]).unwrap();
            done.send(()).unwrap();
            Ok(())
        })
        .unwrap();
        drop(feed);
        ended.recv().unwrap();
    }

    #[test]
    fn hashes_are_of_what_went_through() {
        let expected = HEXLOWER.encode(&Sha256::digest(b"hello"));
        let mut reading = Hashing::new(&b"hello"[..]);
        reading.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(reading.finish().1, expected);
        let mut writing = Hashing::new(Vec::new());
        writing.write_all(b"hello").unwrap();
        assert_eq!(writing.finish(), (b"hello".to_vec(), expected));
    }

    /// Tells when it is gone.
    struct Guard(Arc<AtomicBool>);

    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn whoever_lent_something_waits_until_it_is_gone() {
        let gone = Arc::new(AtomicBool::new(false));
        let (lent, waiting) = Lent::new(Guard(gone.clone()));
        let (go, held) = waiting::channel::<()>();
        let thread = thread::spawn(move || {
            let _ = held.recv();
            drop(lent);
        });
        drop(go);
        drop(waiting);
        assert!(gone.load(Ordering::SeqCst));
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn a_worker_that_nobody_wants_is_stopped_and_waited_for() {
        let gone = Arc::new(AtomicBool::new(false));
        let guard = Guard(gone.clone());
        let worker: Worker<()> = Worker::start(move |cancelled| {
            let _guard = guard;
            loop {
                cancelled.check()?;
                thread::yield_now();
            }
        })
        .unwrap();
        drop(worker);
        assert!(gone.load(Ordering::SeqCst));
        assert_eq!(Worker::start(|_| Ok(7)).unwrap().finish().await, Ok(7));
    }
}
