//! Without a link for long, and on links that die young: memory stays bounded, and there is progress.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use dilated::{Dialect, Dilated, ReadHalf, RolePreference, Wormhole, WriteHalf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    common::soon,
    dialects::in_both_dialects,
    proxied::{Proxied, lost},
    proxy::Faults,
};

/// Bytes of a numbered block.
const BLOCK: usize = 65_536;
/// The outbox of the side that produces.
const LIMIT: usize = 2 << 20;
/// By how much the limit may be exceeded: a record and what it costs besides its bytes.
const RECORD: usize = BLOCK + 1024;
/// The `other` side's answer, which waits to be read during the outage.
const ANSWER: usize = 128 << 10;

/// A stream of blocks, each of which has its number in front, so that a lost, doubled or moved one shows.
struct Blocks {
    template: Vec<u8>,
}

impl Blocks {
    fn new() -> Blocks {
        let words = 0..BLOCK as u64 / 8;
        let template = words.flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()).collect();
        Blocks { template }
    }

    fn block(&self, number: u64) -> Vec<u8> {
        let mut block = self.template.clone();
        block[..8].copy_from_slice(&number.to_be_bytes());
        block
    }

    async fn write(&self, write: &mut WriteHalf, count: u64) {
        for number in 0..count {
            write.write_all(&self.block(number)).await.expect("an outage is no error");
        }
        write.shutdown().await.expect("an outage is no error");
    }

    /// Reads `count` blocks and the end.
    async fn check(&self, read: &mut ReadHalf, count: u64) {
        let mut block = vec![0; BLOCK];
        for number in 0..count {
            soon("a block", read.read_exact(&mut block)).await.expect("the stream is durable");
            assert!(block == self.block(number), "block {number} is wrong");
        }
        assert_eq!(soon("the end", read.read(&mut block)).await.expect("a clean end"), 0);
    }
}

/// MiB that the producer writes, unless `DILATED_OFFLINE_MIB` says otherwise: a gigabyte once, less in the other role.
fn mebibytes(role: RolePreference) -> u64 {
    match std::env::var("DILATED_OFFLINE_MIB") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("DILATED_OFFLINE_MIB is no number: {text}")),
        Err(_) if role == RolePreference::Leader => 1024,
        Err(_) => 128,
    }
}

fn assert_bounded(dilated: &Dilated) {
    let usage = dilated.usage();
    assert!(usage.outbox_bytes <= LIMIT + RECORD, "{usage:?}");
}

/// Two sides with one subchannel. The first writes.
struct Stream {
    net: Proxied,
    wormholes: [Wormhole; 2],
    producer: Arc<Dilated>,
    consumer: Arc<Dilated>,
    out: (ReadHalf, WriteHalf),
    incoming: (ReadHalf, WriteHalf),
}

impl Stream {
    /// Connects the two, with `limit` for the outbox of the producer.
    async fn new(dialect: Dialect, producer_role: RolePreference, limit: usize) -> Stream {
        let net = Proxied::start(dialect).await;
        let (a, b) = net.servers.pair().await;
        let consumer_role = match producer_role {
            RolePreference::Leader => RolePreference::Follower,
            _ => RolePreference::Leader,
        };
        let mut config = net.config(producer_role);
        config.mux.outbox_limit = limit;
        config.mux.stream_queue = limit;
        let mut producer = a.dilate(config).expect("dilate");
        let mut consumer = b.dilate(net.config(consumer_role)).expect("dilate");
        let (_, client, _) = producer.endpoints().expect("first");
        let (_, _, mut server) = consumer.endpoints().expect("first");
        let out = soon("an open", client.connect()).await.expect("open").into_split();
        let incoming = soon("an incoming one", server.accept()).await.expect("open").into_split();
        Stream {
            net,
            wormholes: [a, b],
            producer: Arc::new(producer),
            consumer: Arc::new(consumer),
            out,
            incoming,
        }
    }
}

async fn close([a, b]: [Wormhole; 2]) {
    let (x, y) = soon("close", async { tokio::join!(a.close(), b.close()) }).await;
    assert_eq!((x, y), (Ok(()), Ok(())));
}

/// Looks at the producer's memory until it has stood still, with a writer that waits, for a while.
async fn blocked(producer: &Dilated) {
    let (mut before, mut still) = (0, 0);
    let blocked = async {
        while still < 30 {
            assert_bounded(producer);
            let usage = producer.usage();
            still = if usage.writers_wait && usage.outbox_bytes == before { still + 1 } else { 0 };
            before = usage.outbox_bytes;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the end of the room", blocked).await;
    // Wakers are called at half, but a writer goes on as long as there is room for a record.
    assert!(before + RECORD > LIMIT, "the writer waits although there is room: {before}");
}

/// How the network goes away.
enum Outage {
    /// With a reset, and new connections are refused.
    Reset,
    /// Without a sign: what is sent vanishes, until it is over.
    Silence,
}

async fn an_outage_costs_the_limit_and_no_more(
    dialect: Dialect,
    producer_role: RolePreference,
    outage: Outage,
) {
    let Stream { net, wormholes, producer, consumer, out, incoming } =
        Stream::new(dialect, producer_role, LIMIT).await;
    let (mut out_read, mut out_write) = out;
    let (mut in_read, mut in_write) = incoming;
    let blocks = Arc::new(Blocks::new());
    let count = mebibytes(producer_role) << 20 >> BLOCK.trailing_zeros();

    // Something that has arrived at the producer and is not read before the outage.
    let answer = blocks.block(0).repeat(ANSWER / BLOCK);
    in_write.write_all(&answer).await.expect("written");
    soon("the arrival", in_write.acknowledged()).await.expect("acknowledged");

    let before = producer.status().generation;
    match outage {
        Outage::Reset => net.shut(),
        Outage::Silence => net.set(Faults { stall_out: true, stall_back: true, ..Faults::default() }),
    }
    tokio::join!(lost(&producer), lost(&consumer));
    let writer = tokio::spawn({
        let blocks = Arc::clone(&blocks);
        async move {
            blocks.write(&mut out_write, count).await;
            out_write
        }
    });
    blocked(&producer).await;
    assert!(!writer.is_finished());
    let mut received = vec![0; ANSWER];
    soon("a read while offline", out_read.read_exact(&mut received)).await.expect("it was here before");
    assert!(received == answer, "what was received before the outage is damaged");

    net.heal();
    let watch = tokio::spawn({
        let producer = Arc::clone(&producer);
        async move {
            loop {
                assert_bounded(&producer);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    blocks.check(&mut in_read, count).await;
    let mut out_write = soon("the writer", writer).await.expect("no panic");
    soon("the last ACK", out_write.acknowledged()).await.expect("acknowledged");
    assert!(!watch.is_finished(), "{:?}", watch.await);
    watch.abort();
    assert_eq!(producer.usage().outbox_bytes, 0);
    assert!(producer.status().generation > before);
    drop((out_read, out_write, in_read, in_write));
    close(wormholes).await;
}

async fn a_leader_that_produces_while_offline_waits_at_the_limit_and_resumes(dialect: Dialect) {
    an_outage_costs_the_limit_and_no_more(dialect, RolePreference::Leader, Outage::Reset).await;
}

async fn a_follower_that_produces_while_offline_waits_at_the_limit_and_resumes(dialect: Dialect) {
    an_outage_costs_the_limit_and_no_more(dialect, RolePreference::Follower, Outage::Silence).await;
}

/// Fills the outbox with `total` bytes in records of `record` bytes while there is no link, then lets every connection
/// carry `cut_after` bytes and no more. Returns how many links it took.
///
/// A record is acknowledged whole, so no `cut_after` below a record and a handshake can ever make progress.
async fn replay_on_short_links(
    dialect: Dialect,
    producer_role: RolePreference,
    total: usize,
    record: usize,
    cut_after: u64,
) -> u64 {
    let Stream { net, wormholes, producer, consumer, out, incoming } =
        Stream::new(dialect, producer_role, total + (1 << 20)).await;
    let ((out_read, mut out_write), (mut in_read, in_write)) = (out, incoming);
    net.relay.shut();
    tokio::join!(lost(&producer), lost(&consumer));
    let blocks = Blocks::new();
    let data: Vec<u8> = (0..(total / BLOCK) as u64).flat_map(|number| blocks.block(number)).collect();
    for message in data.chunks(record) {
        // A message is a record of its own, where small writes would join into larger ones.
        out_write.send(Bytes::copy_from_slice(message)).await.expect("there is room");
    }
    out_write.shutdown().await.expect("there is room");
    assert!(producer.usage().outbox_bytes >= total, "{:?}", producer.usage());
    let before = producer.status().generation.get();
    net.relay.set(Faults { cut_after: Some(cut_after), ..Faults::default() });
    blocks.check(&mut in_read, (total / BLOCK) as u64).await;
    let links = producer.status().generation.get() - before;
    net.heal();
    soon("the last ACK", out_write.acknowledged()).await.expect("acknowledged");
    drop((out_read, out_write, in_read, in_write));
    close(wormholes).await;
    links
}

/// What a connection carries besides records: the requests to the relay, the handshake, ACKs.
const OVERHEAD: usize = 4096;

async fn a_replay_makes_progress(dialect: Dialect, producer_role: RolePreference) {
    for (total, record, cut_after) in [
        (4 << 20, 65_000, 300_000),
        (4 << 20, 65_000, 1_000_000),
        (1 << 20, 65_000, 140_000),
        (512 << 10, 16_384, 40_000),
    ] {
        let links = replay_on_short_links(dialect, producer_role, total, record, cut_after as u64).await;
        // A link may end before its ACKs are back, which then come first on the next, or while it is made.
        let fewest = total.div_ceil(cut_after - OVERHEAD - record) as u64;
        assert!(links > 1, "the cuts of {cut_after} bytes did nothing");
        assert!(links <= 3 * fewest + 10, "{links} links of {cut_after} bytes, where {fewest} would do");
    }
}

async fn a_leader_gets_its_replay_through_on_links_that_die_before_its_end(dialect: Dialect) {
    a_replay_makes_progress(dialect, RolePreference::Leader).await;
}

async fn a_follower_gets_its_replay_through_on_links_that_die_before_its_end(dialect: Dialect) {
    a_replay_makes_progress(dialect, RolePreference::Follower).await;
}

in_both_dialects!(
    a_leader_that_produces_while_offline_waits_at_the_limit_and_resumes,
    a_follower_that_produces_while_offline_waits_at_the_limit_and_resumes,
    a_leader_gets_its_replay_through_on_links_that_die_before_its_end,
    a_follower_gets_its_replay_through_on_links_that_die_before_its_end,
);
