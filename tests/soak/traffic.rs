//! Checked streams in both directions, long ones and short ones that come and go.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dilated::{
    Client, ReadHalf, Server, Subchannel, SubchannelCode, UnacknowledgedError, WriteError, WriteHalf,
};
use dilated_tests::data::Data;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    task::JoinSet,
};

/// Streams of test data, made once: making one costs more than a short subchannel.
const STREAMS: u8 = 8;
/// Short subchannels that one side has open at a time.
const MAX_SHORT: usize = 12;
/// The most bytes in one write, a little more than a record.
const MAX_WRITE: u32 = 80_000;

/// What two sides and their tasks have done so far.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Subchannels.
    pub(crate) opened: AtomicU64,
    pub(crate) accepted: AtomicU64,
    /// Bytes of long streams. The others are compared with the length that was announced.
    pub(crate) long_written: AtomicU64,
    pub(crate) long_checked: AtomicU64,
    /// Bytes of all streams.
    pub(crate) checked: AtomicU64,
}

/// How far the traffic is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Running,
    /// Nothing new is opened, and long streams end.
    Ending,
    /// Everything that was opened has been accepted.
    AllAccepted,
}

/// What all tasks of a pair share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) streams: Arc<Vec<Data>>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) stage: watch::Receiver<Stage>,
}

pub(crate) fn streams() -> Arc<Vec<Data>> {
    Arc::new((0..STREAMS).map(|seed| Data::new(seed.into())).collect())
}

/// What the opener says first: which streams flow, and how many bytes of each. `LONG` is until the soak ends.
#[derive(Debug, Clone, Copy)]
struct Header {
    stream: u8,
    out: u64,
    back: u64,
}

const LONG: u64 = u64::MAX;

impl Header {
    async fn write(self, write: &mut WriteHalf) {
        let mut bytes = [0; 17];
        bytes[0] = self.stream;
        bytes[1..9].copy_from_slice(&self.out.to_be_bytes());
        bytes[9..].copy_from_slice(&self.back.to_be_bytes());
        write.write_all(&bytes).await.expect("the subchannel is durable");
    }

    async fn read(read: &mut ReadHalf) -> Header {
        let stream = read.read_u8().await.expect("the subchannel is durable");
        let out = read.read_u64().await.expect("the subchannel is durable");
        let back = read.read_u64().await.expect("the subchannel is durable");
        Header { stream, out, back }
    }
}

/// Opens one long subchannel and short ones all the time, until the stage changes; then waits for all of them.
pub(crate) async fn open(client: Client, shared: Shared, mut rng: StdRng) {
    let mut tasks = JoinSet::new();
    let start = |header: Header, rng: &mut StdRng, tasks: &mut JoinSet<()>| {
        shared.ledger.opened.fetch_add(1, Ordering::Relaxed);
        tasks.spawn(converse(client.clone(), header, shared.clone(), fork(rng)));
    };
    start(Header { stream: rng.random_range(0..STREAMS), out: LONG, back: LONG }, &mut rng, &mut tasks);
    let mut stage = shared.stage.clone();
    loop {
        while let Some(ended) = tasks.try_join_next() {
            ended.expect("a stream");
        }
        let pause = Duration::from_millis(rng.random_range(1..60));
        tokio::select! {
            _ = stage.wait_for(|stage| *stage != Stage::Running) => break,
            () = tokio::time::sleep(pause) => {}
        }
        if tasks.len() <= MAX_SHORT {
            let length = 1 << rng.random_range(0..18_u32);
            let (out, back) = (rng.random_range(0..=length), rng.random_range(0..=length));
            start(Header { stream: rng.random_range(0..STREAMS), out, back }, &mut rng, &mut tasks);
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a stream");
    }
}

/// Answers what the other side opens, until everything was accepted; then waits for the answers to end.
pub(crate) async fn accept(mut server: Server, shared: Shared, mut rng: StdRng) {
    let mut tasks = JoinSet::new();
    let mut stage = shared.stage.clone();
    loop {
        tokio::select! {
            _ = stage.wait_for(|stage| *stage == Stage::AllAccepted) => break,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => ended.expect("an answer"),
            accepted = server.accept() => {
                shared.ledger.accepted.fetch_add(1, Ordering::Relaxed);
                tasks.spawn(answer(accepted.expect("the wormhole lives"), shared.clone(), fork(&mut rng)));
            }
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("an answer");
    }
}

/// The opener's part. One conversation in eight drops the subchannel without reading the answer.
async fn converse(client: Client, header: Header, shared: Shared, mut rng: StdRng) {
    let (mut read, mut write) = client.connect().await.expect("the wormhole lives").into_split();
    header.write(&mut write).await;
    if header.out != LONG && rng.random_range(0..8) == 0 {
        drop(read);
        return produce(write, header.stream, header.out, &shared, &mut rng).await;
    }
    let mut reading = fork(&mut rng);
    tokio::join!(
        produce(write, header.stream, header.out, &shared, &mut rng),
        consume(&mut read, header.stream + 1, header.back, &shared, &mut reading),
    );
}

async fn answer(subchannel: Subchannel, shared: Shared, mut rng: StdRng) {
    let (mut read, write) = subchannel.into_split();
    let header = Header::read(&mut read).await;
    let mut reading = fork(&mut rng);
    tokio::join!(
        produce(write, header.stream + 1, header.back, &shared, &mut rng),
        consume(&mut read, header.stream, header.out, &shared, &mut reading),
    );
}

/// Writes `length` bytes of a stream, in pieces and with pauses, and the end.
async fn produce(mut write: WriteHalf, stream: u8, length: u64, shared: &Shared, rng: &mut StdRng) {
    let data = data(shared, stream);
    let mut offset = 0;
    while offset < length && !(length == LONG && *shared.stage.borrow() != Stage::Running) {
        let size = (rng.random_range(1..=MAX_WRITE) >> rng.random_range(0..12)).max(1);
        let size = usize::try_from(u64::from(size).min(length - offset)).expect("below MAX_WRITE");
        let piece = data.at(offset, size);
        let written = match rng.random_range(0..3) {
            0 => write.write_all(&piece).await,
            1 => write.write_bytes(piece).await.map_err(io::Error::from),
            _ => write.send(piece).await.map_err(io::Error::from),
        };
        if is_unwanted(&written) {
            return;
        }
        written.expect("the subchannel is durable");
        offset += size as u64;
        if length == LONG {
            shared.ledger.long_written.fetch_add(size as u64, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..8_000))).await;
    }
    let ended = write.shutdown().await;
    if is_unwanted(&ended) {
        return;
    }
    ended.expect("the subchannel is durable");
    if rng.random_range(0..4) == 0 {
        match write.acknowledged().await {
            // The reader has dropped its end meanwhile.
            Ok(()) | Err(UnacknowledgedError::Stopped { .. }) => {}
            Err(error) => panic!("the wormhole lives: {error}"),
        }
    }
}

/// Whether the reader has dropped its end, and said so.
fn is_unwanted(result: &io::Result<()>) -> bool {
    let error = result.as_ref().err().and_then(io::Error::get_ref);
    let error = error.and_then(|error| error.downcast_ref::<WriteError>());
    matches!(error, Some(WriteError::Stopped { code }) if *code == SubchannelCode::CANCELLED)
}

/// Checks every byte of a stream to its end, now and then too slowly for its writer.
async fn consume(read: &mut ReadHalf, stream: u8, length: u64, shared: &Shared, rng: &mut StdRng) {
    let mut check = data(shared, stream).check();
    let mut buffer = vec![0; 1 << rng.random_range(10..17_u32)];
    loop {
        let n = read.read(&mut buffer).await.expect("the subchannel is durable");
        if n == 0 {
            break;
        }
        check.push(&buffer[..n]);
        shared.ledger.checked.fetch_add(n as u64, Ordering::Relaxed);
        if rng.random_range(0..600) == 0 {
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..300))).await;
        }
    }
    match length {
        LONG => drop(shared.ledger.long_checked.fetch_add(check.received(), Ordering::Relaxed)),
        length => assert_eq!(check.received(), length, "a stream that was to be whole"),
    }
}

fn data(shared: &Shared, stream: u8) -> &Data {
    &shared.streams[usize::from(stream % STREAMS)]
}

pub(crate) fn fork(rng: &mut StdRng) -> StdRng {
    StdRng::seed_from_u64(rng.random())
}
