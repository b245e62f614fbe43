//! One test per rule; everything at once, over links that lose what they like, in `lossy`.

mod hostile;
mod life;
mod limits;
mod lossy;
mod resuming;
mod sending;

use std::task::Poll;

use bytes::Bytes;

use super::*;
use crate::frame::{Frame, Frames, Mark, Received};

fn name(text: &str) -> Name {
    Name::from(text)
}

fn ready<T: std::fmt::Debug, E: std::fmt::Debug>(poll: Poll<Result<T, E>>) -> T {
    match poll {
        Poll::Ready(Ok(value)) => value,
        other => panic!("not ready: {other:?}"),
    }
}

fn failed<T: std::fmt::Debug, E: std::fmt::Debug>(poll: Poll<Result<T, E>>) -> E {
    match poll {
        Poll::Ready(Err(error)) => error,
        other => panic!("no error: {other:?}"),
    }
}

/// The frames of a batch, whose records are put together and taken apart.
fn frames_of(batch: &Batch) -> Vec<Frame> {
    batch
        .records()
        .flat_map(|parts| {
            let plaintext = parts.collect::<Vec<_>>().concat();
            assert!(!plaintext.is_empty() && plaintext.len() <= crate::frame::MAX_PLAINTEXT);
            Frames::new(plaintext.into())
        })
        .collect::<Result<_, _>>()
        .unwrap()
}

/// One side, and its time.
struct Side {
    mux: Mux,
    now: Instant,
}

#[expect(clippy::disallowed_methods, reason = "an arbitrary instant to count from")]
fn some_instant() -> Instant {
    Instant::now()
}

impl Side {
    fn new(config: MuxConfig, parity: Parity, peer: Params) -> Self {
        let mut mux = Mux::new(config, parity, peer, Names::default());
        mux.resume();
        mux.link_up();
        mux.listen(&name("p")).unwrap();
        Side { mux, now: some_instant() }
    }

    /// A Leader.
    fn leader(config: MuxConfig) -> Self {
        Side::new(config, Parity::Odd, Params::default())
    }

    /// Everything that it has to send, without what waits for its time.
    fn sent(&mut self) -> Vec<Frame> {
        let mut batch = Batch::new();
        while self.mux.poll_transmit(self.now, 1 << 20, &mut batch) {}
        frames_of(&batch)
    }

    fn take(&mut self, frames: impl IntoIterator<Item = Frame>) {
        for frame in frames {
            self.mux.handle_frame(frame, self.now).unwrap();
        }
    }

    /// Takes frames and gives the answer, with all CREDITs.
    fn feed(&mut self, frames: impl IntoIterator<Item = Frame>) -> Vec<Frame> {
        self.take(frames);
        self.now += Duration::from_millis(30);
        self.sent()
    }

    fn violation(&mut self, frame: Frame) -> u64 {
        self.mux.handle_frame(frame, self.now).unwrap_err().code
    }

    fn open(&mut self) -> StreamKey {
        ready(self.mux.open(&name("p")))
    }

    /// Has the peer open a subchannel, and accepts it.
    fn accepted(&mut self, id: u32) -> StreamKey {
        self.feed([open(id)]);
        let key = self.mux.accept(&name("p")).unwrap();
        self.sent();
        key
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.mux.poll_event()).collect()
    }

    fn recv(&mut self, key: StreamKey) -> Bytes {
        ready(self.mux.recv(key)).unwrap()
    }

    fn is_pending(&mut self, key: StreamKey) -> bool {
        self.mux.recv(key).is_pending()
    }
}

/// Two sides, and a link that loses nothing.
struct Pair {
    a: Side,
    b: Side,
}

impl Pair {
    fn new(config: &MuxConfig) -> Self {
        let params = config.params();
        Pair {
            a: Side::new(config.clone(), Parity::Odd, params),
            b: Side::new(config.clone(), Parity::Even, params),
        }
    }

    /// Exchanges what there is until nothing is left, with all CREDITs. Returns the bytes of DATA that went each way.
    fn exchange(&mut self) -> (usize, usize) {
        let mut bytes = (0, 0);
        for _ in 0..10_000 {
            let there = self.a.feed([]);
            let back = self.b.feed(there.clone());
            self.a.take(back.clone());
            bytes.0 += data_len(&there);
            bytes.1 += data_len(&back);
            if there.is_empty() && back.is_empty() {
                return bytes;
            }
        }
        panic!("this does not come to rest");
    }

    /// A subchannel that the Leader has opened.
    fn open(&mut self) -> (StreamKey, StreamKey) {
        let mine = self.a.open();
        self.exchange();
        let theirs = self.b.mux.accept(&name("p")).unwrap();
        self.exchange();
        (mine, theirs)
    }

    /// The link is lost, with everything on it, and another comes.
    fn relink(&mut self) {
        for side in [&mut self.a, &mut self.b] {
            side.mux.link_down();
            assert_eq!(side.sent(), []);
        }
        let (a, b) = (self.a.mux.resume(), self.b.mux.resume());
        self.a.mux.handle_resume(b, self.a.now).unwrap();
        self.b.mux.handle_resume(a, self.b.now).unwrap();
    }
}

fn data_len(frames: &[Frame]) -> usize {
    frames.iter().map(|frame| if let Frame::Data { data, .. } = frame { data.len() } else { 0 }).sum()
}

fn open(id: u32) -> Frame {
    Frame::Open { id: SubchannelId(id), limit: 1 << 20, priority: 3, name: name("p") }
}

fn data(id: u32, offset: u64, mark: Mark, data: impl Into<Bytes>) -> Frame {
    Frame::Data { id: SubchannelId(id), offset, mark, fin: false, data: data.into() }
}

fn fin(id: u32, offset: u64) -> Frame {
    Frame::Data { id: SubchannelId(id), offset, mark: Mark::Stream, fin: true, data: Bytes::new() }
}

fn credit(id: u32, received: u64, limit: u64) -> Frame {
    Frame::Credit(Received { id: SubchannelId(id), received, limit })
}
