//! One subchannel: what waits to be sent and what waits to be read.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::outbox::{Payload, release_if_large};
use crate::{
    id::SubchannelId,
    mux::RECORD_OVERHEAD,
    record::{MAX_CHUNK, Name},
};

/// Received chunks below this many bytes are copied: a small one must not keep a whole read buffer alive.
const COPY_BELOW: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: SubchannelId,
    pub(super) name: Name,
    /// Guards a slot against keys of its earlier tenants.
    pub(super) generation: u32,
    pub(super) send: SendSide,
    pub(super) receive: ReceiveSide,
}

impl Stream {
    pub(super) fn new(id: SubchannelId, name: Name, generation: u32) -> Self {
        Stream { id, name, generation, send: SendSide::default(), receive: ReceiveSide::default() }
    }

    /// The next record to send, if any. Stream bytes that were written one after the other become one DATA of `most` bytes.
    pub(super) fn next_payload(&mut self, most: usize) -> Option<Payload> {
        if std::mem::take(&mut self.send.open_due) {
            return Some(Payload::Open(self.name.clone()));
        }
        self.send.next_payload(most)
    }
}

/// Bytes on their way out.
#[derive(Debug)]
enum Chunk {
    /// Stream bytes; later writes may join.
    Tail(BytesMut),
    /// Stream bytes in shared memory.
    Shared(Bytes),
    /// One DATA exactly.
    Message(Bytes),
}

impl Chunk {
    /// The bytes, if they are of a stream.
    fn stream(&self) -> Option<&[u8]> {
        match self {
            Chunk::Tail(tail) => Some(tail),
            Chunk::Shared(data) => Some(data),
            Chunk::Message(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SendState {
    #[default]
    Open,
    CloseDue,
    CloseSent,
}

#[derive(Debug, Default)]
pub(super) struct SendSide {
    pub(super) state: SendState,
    /// OPEN is not sent yet.
    pub(super) open_due: bool,
    chunks: VecDeque<Chunk>,
    /// Payload bytes in `chunks`.
    pub(super) queued: usize,
    /// It is in the ready queue.
    pub(super) ready: bool,
    /// The application dropped its writing half.
    pub(super) released: bool,
    /// A writer waits until `queued` has halved.
    pub(super) waits_for_queue: bool,
    /// A writer waits for the outbox and is in the list of those.
    pub(super) waits_for_outbox: bool,
    /// What was written: a byte counts 1, so does each OPEN, CLOSE and empty message.
    pub(super) written: u64,
    /// The same of what the peer acknowledged.
    pub(super) acknowledged: u64,
    /// Payload bytes that the peer acknowledged.
    pub(super) bytes_acknowledged: u64,
    /// An event that tells of `acknowledged` is queued.
    pub(super) event_queued: bool,
}

impl SendSide {
    /// Copies up to one chunk of stream bytes, into the tail chunk first. Returns the overhead incurred.
    pub(super) fn append(&mut self, mut data: &[u8]) -> usize {
        debug_assert!(data.len() <= MAX_CHUNK);
        self.queued += data.len();
        self.written += data.len() as u64;
        if let Some(Chunk::Tail(tail)) = self.chunks.back_mut() {
            let (now, later) = data.split_at(data.len().min(MAX_CHUNK - tail.len()));
            tail.extend_from_slice(now);
            data = later;
        }
        if data.is_empty() {
            return 0;
        }
        // Behind a backlog a chunk will probably be filled; alone it will probably be sent as it is.
        let capacity = if self.chunks.is_empty() { data.len() } else { MAX_CHUNK };
        let mut tail = BytesMut::with_capacity(capacity);
        tail.extend_from_slice(data);
        self.chunks.push_back(Chunk::Tail(tail));
        RECORD_OVERHEAD
    }

    /// Queues stream bytes without copying them. Returns the overhead incurred.
    pub(super) fn share(&mut self, data: Bytes) -> usize {
        self.queued += data.len();
        self.written += data.len() as u64;
        self.chunks.push_back(Chunk::Shared(data));
        RECORD_OVERHEAD
    }

    /// Queues one DATA as it is. Returns the overhead incurred.
    pub(super) fn push(&mut self, message: Bytes) -> usize {
        self.queued += message.len();
        self.written += progress(message.len());
        self.chunks.push_back(Chunk::Message(message));
        RECORD_OVERHEAD
    }

    pub(super) fn has_work(&self) -> bool {
        self.open_due || !self.chunks.is_empty() || self.state == SendState::CloseDue
    }

    fn next_payload(&mut self, most: usize) -> Option<Payload> {
        if let Some(chunk) = self.chunks.pop_front() {
            let data = match chunk {
                Chunk::Tail(tail) => self.join(tail.freeze(), most),
                Chunk::Shared(mut data) if data.len() > most => {
                    let first = data.split_to(most);
                    self.chunks.push_front(Chunk::Shared(data));
                    first
                }
                Chunk::Shared(data) => self.join(data, most),
                Chunk::Message(message) => message,
            };
            if self.chunks.is_empty() {
                release_if_large(&mut self.chunks);
            }
            self.queued -= data.len();
            return Some(Payload::Data(data));
        }
        if self.state == SendState::CloseDue {
            self.state = SendState::CloseSent;
            return Some(Payload::Close);
        }
        None
    }

    /// What the chunks cost in the budget.
    pub(super) fn cost(&self) -> usize {
        self.queued + self.chunks.len() * RECORD_OVERHEAD
    }

    /// Appends what follows in the stream and fits.
    fn join(&mut self, first: Bytes, most: usize) -> Bytes {
        let (mut length, mut others) = (first.len(), 0);
        for next in self.chunks.iter().map_while(Chunk::stream) {
            if length + next.len() > most {
                break;
            }
            length += next.len();
            others += 1;
        }
        if others == 0 {
            return first;
        }
        let mut joined = BytesMut::with_capacity(length);
        joined.extend_from_slice(&first);
        for chunk in self.chunks.drain(..others) {
            joined.extend_from_slice(chunk.stream().unwrap_or_default());
        }
        joined.freeze()
    }

    pub(super) fn retired(&mut self, payload: &Payload) {
        let len = if let Payload::Data(data) = payload { data.len() } else { 0 };
        self.acknowledged += progress(len);
        self.bytes_acknowledged += len as u64;
    }

    /// The wormhole is over: nothing will be sent.
    pub(super) fn clear(&mut self) {
        self.chunks = VecDeque::new();
        self.queued = 0;
        self.open_due = false;
        self.ready = false;
        self.waits_for_queue = false;
        self.waits_for_outbox = false;
    }
}

/// What one record counts in `written` and `acknowledged`.
fn progress(len: usize) -> u64 {
    len.max(1) as u64
}

#[derive(Debug, Default)]
pub(super) struct ReceiveSide {
    chunks: VecDeque<Bytes>,
    /// What `chunks` cost, overhead included.
    pub(super) charge: usize,
    /// `charge` went over its limit and has not halved since.
    pub(super) over: bool,
    /// The peer's CLOSE arrived.
    pub(super) closed: bool,
    /// The application wants no more: what comes is dropped.
    pub(super) discards: bool,
    /// The application dropped its reading half.
    pub(super) released: bool,
    /// An event that tells of data is queued.
    pub(super) event_queued: bool,
}

impl ReceiveSide {
    /// Takes a chunk of the peer; returns its cost.
    pub(super) fn push(&mut self, data: Bytes) -> usize {
        let data = if data.len() < COPY_BELOW { Bytes::copy_from_slice(&data) } else { data };
        let cost = data.len() + RECORD_OVERHEAD;
        self.charge += cost;
        self.chunks.push_back(data);
        cost
    }

    /// Copies out as much as there is and fits.
    pub(super) fn read(&mut self, mut buf: &mut [u8]) -> usize {
        let mut total = 0;
        while let Some(chunk) = self.chunks.front_mut() {
            let n = chunk.len().min(buf.len());
            chunk.copy_to_slice(&mut buf[..n]);
            buf = &mut buf[n..];
            total += n;
            self.charge -= n;
            if !chunk.is_empty() {
                break;
            }
            self.pop();
        }
        total
    }

    /// The rest of the oldest chunk, which is empty if the peer's message was.
    pub(super) fn recv(&mut self) -> Option<Bytes> {
        let chunk = self.chunks.front_mut().map(std::mem::take)?;
        self.charge -= chunk.len();
        self.pop();
        Some(chunk)
    }

    pub(super) fn clear(&mut self) {
        self.chunks = VecDeque::new();
        self.charge = 0;
    }

    /// Drops the front chunk, whose bytes are already off the account.
    fn pop(&mut self) {
        self.chunks.pop_front();
        self.charge -= RECORD_OVERHEAD;
        if self.chunks.is_empty() {
            release_if_large(&mut self.chunks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(send: &mut SendSide) -> Vec<Bytes> {
        std::iter::from_fn(|| send.next_payload(MAX_CHUNK))
            .map(|payload| match payload {
                Payload::Data(data) => data,
                other => panic!("not data: {other:?}"),
            })
            .collect()
    }

    #[test]
    fn small_writes_coalesce_and_messages_do_not() {
        let mut send = SendSide::default();
        let overhead: usize = (0..1000).map(|_| send.append(b"ab")).sum();
        assert_eq!(overhead, RECORD_OVERHEAD);
        send.push(Bytes::from_static(b"one"));
        send.push(Bytes::new());
        send.push(Bytes::from_static(b"two"));
        assert_eq!(send.append(b"tail"), RECORD_OVERHEAD);
        assert_eq!((send.queued, send.written), (2010, 2011));
        let sent = drain(&mut send);
        assert_eq!(sent.iter().map(Bytes::len).collect::<Vec<_>>(), [2000, 3, 0, 3, 4]);
        assert_eq!(send.queued, 0);
        for data in sent {
            send.retired(&Payload::Data(data));
        }
        assert_eq!((send.acknowledged, send.bytes_acknowledged), (2011, 2010));
    }

    #[test]
    fn stream_bytes_are_joined_up_to_the_limit_and_messages_are_not() {
        let mut send = SendSide::default();
        let shared = Bytes::from(vec![1; 30]);
        let mut incurred = send.share(shared.clone()) + send.append(&[2; 40]) + send.share(shared.clone());
        incurred +=
            send.push(Bytes::from_static(b"message")) + send.share(shared.clone()) + send.append(b"end");
        assert_eq!(send.cost(), 140 + incurred);
        let sent: Vec<_> = std::iter::from_fn(|| send.next_payload(100)).collect();
        let lengths: Vec<_> = sent.iter().map(|payload| payload.cost() - RECORD_OVERHEAD).collect();
        assert_eq!(lengths, [100, 7, 33]);
        let Payload::Data(first) = &sent[0] else { panic!("{sent:?}") };
        assert_eq!(first[..], [vec![1; 30], vec![2; 40], vec![1; 30]].concat());
        assert_eq!(send.cost(), 0);

        // What is too long alone or together with the next is cut, and not copied.
        send.share(shared.clone());
        send.share(shared.clone());
        let parts: Vec<_> = std::iter::from_fn(|| send.next_payload(20)).collect();
        let parts = parts.iter().map(|part| match part {
            Payload::Data(data) => (data.as_ptr(), data.len()),
            other => panic!("not data: {other:?}"),
        });
        let (front, back) = ((shared.as_ptr(), 20), (shared[20..].as_ptr(), 10));
        assert_eq!(parts.collect::<Vec<_>>(), [front, back, front, back]);
    }

    #[test]
    fn a_chunk_never_exceeds_its_limit() {
        for step in [1000, MAX_CHUNK - 1, MAX_CHUNK] {
            let mut send = SendSide::default();
            for _ in 0..7 {
                send.append(&vec![7; step]);
            }
            let sent = drain(&mut send);
            let (last, full) = sent.split_last().unwrap();
            assert!(full.iter().all(|chunk| chunk.len() == MAX_CHUNK) && last.len() <= MAX_CHUNK);
            assert_eq!(sent.iter().map(Bytes::len).sum::<usize>(), 7 * step);
        }
    }

    #[test]
    fn reading_crosses_chunks_and_settles_the_account() {
        let mut receive = ReceiveSide::default();
        for text in ["abc", "", "defg"] {
            receive.push(Bytes::from_static(text.as_bytes()));
        }
        assert_eq!(receive.charge, 7 + 3 * RECORD_OVERHEAD);
        let mut buf = [0; 5];
        assert_eq!(receive.read(&mut buf), 5);
        assert_eq!(&buf, b"abcde");
        assert_eq!(receive.charge, 2 + RECORD_OVERHEAD);
        assert_eq!(receive.recv().unwrap(), "fg");
        assert_eq!((receive.charge, receive.recv()), (0, None));
    }

    #[test]
    fn large_chunks_are_shared_and_small_ones_copied() {
        let buffer = Bytes::from(vec![1; 3 * COPY_BELOW]);
        let mut receive = ReceiveSide::default();
        receive.push(buffer.slice(..COPY_BELOW));
        receive.push(buffer.slice(..COPY_BELOW - 1));
        assert_eq!(receive.recv().unwrap().as_ptr(), buffer.as_ptr());
        assert_ne!(receive.recv().unwrap().as_ptr(), buffer.as_ptr());
    }
}
