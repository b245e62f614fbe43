//! One test per rule. The lossy link is in `tests/pair.rs`.

mod life;
mod receiving;
mod sending;

use std::task::Poll;

use bytes::Bytes;

use super::*;
use crate::mux::{
    EndKind, ListenError, NameError, OpenError, RECORD_OVERHEAD, ReadError, RecordError, UnacknowledgedError,
    WriteError,
};

fn name(text: &str) -> Name {
    Name::from(text)
}

fn running(config: MuxConfig) -> Mux {
    let mut mux = Mux::new(config, Parity::Odd, Names::default());
    mux.link_up();
    mux
}

fn mux() -> Mux {
    running(MuxConfig::default())
}

fn listening(config: MuxConfig) -> Mux {
    let mut mux = running(config);
    mux.listen(&name("p")).unwrap();
    mux
}

fn ready<T: std::fmt::Debug, E: std::fmt::Debug>(poll: Poll<Result<T, E>>) -> T {
    match poll {
        Poll::Ready(Ok(value)) => value,
        other => panic!("not ready: {other:?}"),
    }
}

fn open(id: u32, seq: u32) -> Record {
    Record::Open { id: SubchannelId(id), seq: SeqNum(seq), subprotocol: name("p") }
}

fn data(id: u32, seq: u32, data: impl Into<Bytes>) -> Record {
    Record::Data { id: SubchannelId(id), seq: SeqNum(seq), data: data.into() }
}

fn close(id: u32, seq: u32) -> Record {
    Record::Close { id: SubchannelId(id), seq: SeqNum(seq) }
}

fn ack(seq: u32) -> Record {
    Record::Ack { seq: SeqNum(seq) }
}

fn sent(mux: &mut Mux) -> Vec<Record> {
    std::iter::from_fn(|| mux.poll_transmit()).collect()
}

fn events(mux: &mut Mux) -> Vec<Event> {
    std::iter::from_fn(|| mux.poll_event()).collect()
}

/// Takes records in and returns what goes out.
fn feed(mux: &mut Mux, records: impl IntoIterator<Item = Record>) -> Vec<Record> {
    for record in records {
        mux.handle_record(record).unwrap();
    }
    sent(mux)
}

fn accepted(mux: &mut Mux, id: u32, seq: u32) -> StreamKey {
    feed(mux, [open(id, seq)]);
    mux.accept(&name("p")).unwrap()
}

fn text(mux: &mut Mux, key: StreamKey) -> String {
    let mut buf = [0; 100];
    let n = ready(mux.read(key, &mut buf));
    String::from_utf8(buf[..n].to_vec()).unwrap()
}
