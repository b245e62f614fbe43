//! What a link costs: from `Link` to `Link` over loopback, against a program of two threads that does nothing but seal, send,
//! receive and open records of the same length with the same cipher.
//!
//! ```text
//! cargo bench -p dilated-transit --bench link              512 MiB, seven runs
//! cargo bench -p dilated-transit --bench link -- --quick   16 MiB, one run
//! ```
//!
//! Runs of both alternate, and medians are compared: of the rate, and, on Linux, of the time of the processor, which tells more
//! on a machine that has other things to do. The receiver of a link holds the last messages for a while, as a multiplexer does.
#![expect(clippy::print_stdout, reason = "the result of a bench is its output")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use dilated_transit::{
    DilationKey, Hint, LinkDialect, MAX_NOISE_PLAINTEXT, Role,
    net::{Connector, ConnectorConfig, ConnectorEvent, ConnectorLimits, Link, Search},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const TAG: usize = 16;

/// Messages that the receiver of a link holds.
const HELD: usize = 32;

/// Records sealed before the socket is written.
const BATCHES: [usize; 3] = [4, 8, 16];

/// What is measured in one run.
#[derive(Clone, Copy)]
struct Run {
    records: usize,
    aes: bool,
    batch: usize,
}

/// What one run has shown: megabytes a second, and milliseconds of the processor for a megabyte.
#[derive(Clone, Copy)]
struct Shown {
    rate: f64,
    effort: f64,
}

fn main() -> Result<(), Failure> {
    // `cargo test --all-targets` only wants to see that it runs.
    let quick = std::env::args().any(|argument| argument == "--quick")
        || !std::env::args().any(|argument| argument == "--bench");
    let (records, runs) = if quick { (256, 1) } else { (8192, 7) };
    println!(
        "{:18} {:>5} {:>9} {:>9} {:>6}   {:>8} {:>8} {:>6}",
        "", "batch", "link MB/s", "plain", "ratio", "ms CPU/MB", "plain", "ratio"
    );
    for (name, aes) in [("ChaCha20-Poly1305", false), ("AES-256-GCM", true)] {
        for batch in BATCHES {
            let run = Run { records, aes, batch };
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..runs {
                ours.push(measure(run, link)?);
                theirs.push(measure(run, plain)?);
            }
            let (ours, theirs) = (median(&ours), median(&theirs));
            println!(
                "{name:18} {batch:5} {:9.0} {:9.0} {:6.3}   {:9.3} {:8.3} {:6.3}",
                ours.rate,
                theirs.rate,
                ours.rate / theirs.rate,
                ours.effort,
                theirs.effort,
                ours.effort / theirs.effort
            );
        }
    }
    Ok(())
}

fn median(shown: &[Shown]) -> Shown {
    let middle = |value: fn(&Shown) -> f64| {
        let mut values: Vec<f64> = shown.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Shown { rate: middle(|shown| shown.rate), effort: middle(|shown| shown.effort) }
}

/// Runs one of the programs, which says when its first bytes came.
fn measure(run: Run, program: fn(Run) -> Result<Instant, Failure>) -> Result<Shown, Failure> {
    let before = processor_time();
    let since = program(run)?;
    let megabytes = (run.records * MAX_NOISE_PLAINTEXT) as f64 / 1e6;
    let effort = (processor_time() - before).as_secs_f64() * 1e3 / megabytes;
    Ok(Shown { rate: megabytes / since.elapsed().as_secs_f64(), effort })
}

/// What this process has used of the processor so far, to 10 ms; nothing where there is no `/proc`.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, counted from the name of the program, which may have spaces: user and system, in 1/100 s.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// A link of ours: each end has a thread with a runtime of its own.
fn link(Run { records, aes, batch }: Run) -> Result<Instant, Failure> {
    let (hints, told) = mpsc::channel();
    let receiver = thread::spawn(move || -> Result<Instant, Failure> {
        runtime()?.block_on(async {
            let mut connector = connector(Role::Follower, aes)?;
            let mut link = meet(&mut connector, |local| {
                let _ = hints.send(local);
            })
            .await;
            let (mut received, mut since) = (0, None);
            let mut held = VecDeque::new();
            while received < records * MAX_NOISE_PLAINTEXT {
                poll_fn(|cx| link.reader.poll_fill(cx)).await?;
                since.get_or_insert_with(Instant::now);
                while let Some(message) = link.reader.next_message()? {
                    received += message.len();
                    held.push_back(message);
                    if held.len() > HELD {
                        held.pop_front();
                    }
                }
            }
            since.ok_or_else(|| "nothing came".into())
        })
    });
    runtime()?.block_on(async {
        let mut connector = connector(Role::Leader, aes)?;
        connector.add_peer_hints(told.recv()?, true);
        let mut link = meet(&mut connector, |_| {}).await;
        let payload = vec![7; MAX_NOISE_PLAINTEXT - 9];
        for record in 1..=records {
            link.writer.seal(&[&[1; 9], &payload])?;
            if record % batch == 0 {
                poll_fn(|cx| link.writer.poll_flush(cx)).await?;
            }
        }
        poll_fn(|cx| link.writer.poll_flush(cx)).await?;
        receiver.join().map_err(|_| "the receiver panicked")?
    })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn connector(role: Role, aes: bool) -> io::Result<Connector> {
    let mut connector = Connector::new(ConnectorConfig {
        role,
        dialect: LinkDialect::Dilated1 { aes },
        key: DilationKey::new([9; 32]),
        side: "0123456789abcdef".to_owned(),
        listen: role == Role::Follower,
        loopback: true,
        relays: Vec::new(),
        proxy: None,
        limits: ConnectorLimits::default(),
    })?;
    connector.search(Search::default());
    Ok(connector)
}

async fn meet(connector: &mut Connector, mut tell: impl FnMut(Vec<Hint>)) -> Link {
    loop {
        match connector.next().await {
            ConnectorEvent::LocalHints(hints) => {
                let loopback = |hint: &Hint| matches!(hint, Hint::Direct(to) if to.hostname() == "127.0.0.1");
                tell(hints.into_iter().filter(loopback).collect());
            }
            ConnectorEvent::Candidate(candidate) => return candidate.select(),
            _ => {}
        }
    }
}

fn key(aes: bool) -> Result<LessSafeKey, Failure> {
    let algorithm: &'static Algorithm = if aes { &AES_256_GCM } else { &CHACHA20_POLY1305 };
    Ok(LessSafeKey::new(UnboundKey::new(algorithm, &[7; 32])?))
}

fn nonce(number: usize) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[4..].copy_from_slice(&(number as u64).to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// The same without anything of ours.
fn plain(Run { records, aes, .. }: Run) -> Result<Instant, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut out = TcpStream::connect(listener.local_addr()?)?;
    let (mut stream, _) = listener.accept()?;
    for stream in [&out, &stream] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    }
    let receiver = thread::spawn(move || -> Result<Instant, Failure> {
        let key = key(aes)?;
        let mut since = None;
        let mut record = vec![0; 4 + MAX_NOISE_PLAINTEXT + TAG];
        for number in 0..records {
            stream.read_exact(&mut record)?;
            since.get_or_insert_with(Instant::now);
            key.open_in_place(nonce(number), Aad::empty(), &mut record[4..])?;
        }
        since.ok_or_else(|| "nothing came".into())
    });
    let key = key(aes)?;
    let mut record = vec![7; 4 + MAX_NOISE_PLAINTEXT + TAG];
    let end = 4 + MAX_NOISE_PLAINTEXT;
    for number in 0..records {
        let tag = key.seal_in_place_separate_tag(nonce(number), Aad::empty(), &mut record[4..end])?;
        record[end..].copy_from_slice(tag.as_ref());
        out.write_all(&record)?;
    }
    receiver.join().map_err(|_| "the receiver panicked")?
}
