//! The hostile end of a link.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use dilated_subchannel::frame::{Frame, Frames, MAX_PLAINTEXT};
use dilated_transit::{Opener, Sealer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Notify,
};

use crate::world::soon;

/// Frames that are remembered; the oldest are forgotten.
const REMEMBERED: usize = 1024;

/// What came from the victim.
#[derive(Default)]
struct Heard {
    frames: VecDeque<Frame>,
    goodbye: Option<(u64, String)>,
    /// A frame that came after GOODBYE.
    afterwards: Option<Frame>,
    ended: bool,
}

#[derive(Default)]
struct Ear {
    heard: Mutex<Heard>,
    news: Notify,
}

impl Ear {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, frame: Frame) {
        let mut heard = self.lock();
        if heard.goodbye.is_some() {
            heard.afterwards = Some(frame);
            return;
        }
        if let Frame::Goodbye { code, reason } = frame {
            heard.goodbye = Some((code, reason));
            return;
        }
        if heard.frames.len() == REMEMBERED {
            heard.frames.pop_front();
        }
        heard.frames.push_back(frame);
    }

    async fn listen(self: Arc<Self>, mut stream: OwnedReadHalf, mut opener: Opener) {
        loop {
            while let Some(record) = opener.next_message().expect("the victim seals well") {
                for frame in Frames::new(record) {
                    self.hear(frame.expect("the victim speaks well"));
                }
            }
            self.news.notify_waiters();
            if !matches!(stream.read_buf(opener.buffer()).await, Ok(read) if read > 0) {
                break;
            }
        }
        self.lock().ended = true;
        self.news.notify_waiters();
    }

    /// Waits until `find` finds something.
    async fn wait<T>(&self, what: &str, mut find: impl FnMut(&mut Heard) -> Option<T>) -> T {
        soon(what, async {
            loop {
                let mut news = std::pin::pin!(self.news.notified());
                news.as_mut().enable();
                if let Some(found) = find(&mut self.lock()) {
                    return found;
                }
                news.await;
            }
        })
        .await
    }
}

pub(crate) struct Wire {
    stream: OwnedWriteHalf,
    sealer: Sealer,
    sealed: BytesMut,
    unheard: Option<(OwnedReadHalf, Opener)>,
    ear: Arc<Ear>,
    pings: u64,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, sealer: Sealer, opener: Opener) -> Wire {
        let (read, write) = stream.into_split();
        let (sealed, ear) = Default::default();
        Wire { stream: write, sealer, sealed, unheard: Some((read, opener)), ear, pings: 1 << 40 }
    }

    /// Reads from now on.
    pub(crate) fn listen(&mut self) {
        if let Some((stream, opener)) = self.unheard.take() {
            tokio::spawn(self.ear.clone().listen(stream, opener));
        }
    }

    /// Sends one record.
    pub(crate) async fn record(&mut self, plaintext: &[u8]) -> io::Result<()> {
        self.sealed.clear();
        self.sealer.seal(&[plaintext], &mut self.sealed).expect("a record of a right length");
        soon("a write", self.stream.write_all(&self.sealed)).await
    }

    /// Sends bytes as they are.
    pub(crate) async fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        soon("a write", self.stream.write_all(bytes)).await
    }

    /// Sends frames, as few records as they need. Fails if the victim has hung up.
    pub(crate) async fn send(&mut self, frames: &[Frame]) -> io::Result<()> {
        let mut plaintext = Vec::new();
        for frame in frames {
            if plaintext.len() + frame.encoded_len() > MAX_PLAINTEXT {
                self.record(&plaintext).await?;
                plaintext.clear();
            }
            frame.encode(&mut plaintext);
        }
        if !plaintext.is_empty() {
            self.record(&plaintext).await?;
        }
        Ok(())
    }

    /// Sends a record again and again. Ends early if the victim hangs up. Returns how often it was sent.
    pub(crate) async fn flood(&mut self, plaintext: &[u8], times: usize) -> usize {
        for sent in 0..times {
            if self.record(plaintext).await.is_err() {
                return sent;
            }
        }
        times
    }

    /// Agrees with the victim on this link as the active one.
    pub(crate) async fn activate(&mut self, number: u64) {
        let resume = Frame::Resume { epoch: number, more: false, entries: Vec::new() };
        self.send(&[resume]).await.expect("the victim listens");
        self.hear("the victim's RESUME", |frame| {
            matches!(frame, Frame::Resume { epoch, more: false, .. } if *epoch == number).then_some(())
        })
        .await;
    }

    /// Waits for a frame, which is forgotten; so are those before it.
    pub(crate) async fn hear<T>(&self, what: &str, mut find: impl FnMut(&Frame) -> Option<T>) -> T {
        self.ear
            .wait(what, |heard| {
                assert!(heard.goodbye.is_none(), "{what} was awaited, the victim said {:?}", heard.goodbye);
                while let Some(frame) = heard.frames.pop_front() {
                    if let Some(found) = find(&frame) {
                        return Some(found);
                    }
                }
                assert!(!heard.ended, "{what} was awaited, the victim hung up");
                None
            })
            .await
    }

    /// The victim answers on this link.
    pub(crate) async fn ping(&mut self) {
        self.listen();
        self.pings += 1;
        let id = self.pings;
        self.send(&[Frame::Ping(id)]).await.expect("the victim listens");
        self.hear("a PONG", |frame| (*frame == Frame::Pong(id)).then_some(())).await;
    }

    /// The victim's GOODBYE, after which it has said nothing and hung up.
    pub(crate) async fn goodbye(mut self) -> (u64, String) {
        self.listen();
        let (goodbye, afterwards) = self
            .ear
            .wait("the end of the link", |heard| {
                heard.ended.then(|| (heard.goodbye.take(), heard.afterwards.take()))
            })
            .await;
        assert_eq!(afterwards, None, "GOODBYE is the last");
        goodbye.expect("the victim says why it ends")
    }

    /// The victim hangs up.
    pub(crate) async fn ended(&mut self) -> Option<(u64, String)> {
        self.listen();
        self.ear.wait("the end of the link", |heard| heard.ended.then(|| heard.goodbye.take())).await
    }

    /// Nothing is written for a moment, so that what was sent is taken in.
    pub(crate) async fn pause() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A varint in the shortest form.
pub(crate) fn varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    Frame::Ping(value).encode(&mut out);
    out.split_off(1)
}
