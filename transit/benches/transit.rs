//! What a classic transfer costs: from a source in memory to nowhere, over loopback and Transit v1, against a program that sends
//! the same bytes over TCP bare, and against one thread that does nothing but seal and open the same records.
//!
//! ```text
//! cargo bench -p dilated-transit --bench transit              1 GiB, five runs
//! cargo bench -p dilated-transit --bench transit -- --quick   32 MiB, one run
//! ```
//!
//! Runs of all programs alternate, and medians are shown: megabytes a second, on Linux milliseconds of the processor for a
//! megabyte, and the ratio of the rate to that of TCP and of the records.
#![expect(clippy::print_stdout, reason = "the result of a bench is its output")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use dilated_transit::{
    Contact,
    net::v1::{TransitConfig, TransitReceiver, TransitSender},
    v1::{Part, RecordOpener, RecordSealer, TransitHandshake, TransitKey},
};
use sha2::{Digest, Sha256};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of one record, and of one write of the bare program.
const PIECE: usize = 64 * 1024;

/// One way of moving bytes.
#[derive(Clone, Copy)]
enum Program {
    /// TCP and nothing else.
    Bare,
    /// Records, in one thread, which go nowhere.
    Records,
    /// One record at a time.
    Single,
    /// Copied by the task that has the connection, with a hash at both ends.
    Task,
    /// Copied by two threads at each end.
    Threads { hashed: bool },
}

const PROGRAMS: [(&str, Program); 6] = [
    ("TCP", Program::Bare),
    ("records", Program::Records),
    ("send_record", Program::Single),
    ("copy_from, SHA-256", Program::Task),
    ("copy_from_blocking", Program::Threads { hashed: false }),
    ("  with SHA-256", Program::Threads { hashed: true }),
];

/// What one run has shown.
#[derive(Clone, Copy)]
struct Shown {
    rate: f64,
    effort: f64,
}

fn main() -> Result<(), Failure> {
    // `cargo test --all-targets` only wants to see that it runs.
    let quick = std::env::args().any(|argument| argument == "--quick")
        || !std::env::args().any(|argument| argument == "--bench");
    let (length, runs) = if quick { (32 << 20, 1) } else { (1 << 30, 5) };
    let mut shown = vec![Vec::new(); PROGRAMS.len()];
    for _ in 0..runs {
        for (shown, (_, program)) in shown.iter_mut().zip(PROGRAMS) {
            shown.push(measure(program, length)?);
        }
    }
    let medians: Vec<Shown> = shown.iter().map(|shown| median(shown)).collect();
    println!("{:20} {:>7} {:>10} {:>7} {:>9}", "", "MB/s", "ms CPU/MB", "to TCP", "to record");
    for ((name, _), median) in PROGRAMS.iter().zip(&medians) {
        let Shown { rate, effort } = median;
        let (to_tcp, to_records) = (rate / medians[0].rate, rate / medians[1].rate);
        println!("{name:20} {rate:7.0} {effort:10.3} {to_tcp:7.3} {to_records:9.3}");
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

fn measure(program: Program, length: u64) -> Result<Shown, Failure> {
    let before = processor_time();
    let took = match program {
        Program::Bare => bare(length)?,
        Program::Records => records(length)?,
        _ => transit(program, length)?,
    };
    let megabytes = length as f64 / 1e6;
    let effort = (processor_time() - before).as_secs_f64() * 1e3 / megabytes;
    Ok(Shown { rate: megabytes / took.as_secs_f64(), effort })
}

/// What this process has used of the processor so far, to 10 ms; nothing where there is no `/proc`.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, counted from the name of the program, which may have spaces: user and system, in 1/100 s.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn bare(length: u64) -> Result<Duration, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut out = TcpStream::connect(listener.local_addr()?)?;
    let (mut stream, _) = listener.accept()?;
    let receiver = thread::spawn(move || -> Result<Instant, Failure> {
        let mut buffer = vec![0; 4 * PIECE];
        let mut received = 0;
        while received < length {
            match stream.read(&mut buffer)? {
                0 => return Err("it ended early".into()),
                read => received += read as u64,
            }
        }
        Ok(Instant::now())
    });
    let since = Instant::now();
    let (mut source, mut piece) = (Memory::new(length), vec![0; 4 * PIECE]);
    while let read @ 1.. = source.read(&mut piece)? {
        out.write_all(&piece[..read])?;
    }
    Ok(receiver.join().map_err(|_| "the receiver panicked")?? - since)
}

/// Both ends of a connection that has only records.
fn ends() -> Result<(RecordSealer, RecordOpener), Failure> {
    let start = |part| TransitHandshake::new(part, TransitKey::new([1; 32]), Contact::Dialled);
    let (mut sender, mut receiver) = (start(Part::Sender), start(Part::Receiver));
    sender.handle_input(&receiver.poll_output().ok_or("no line")?)?;
    receiver.handle_input(&sender.poll_output().ok_or("no line")?)?;
    let mut choice = BytesMut::new();
    let (sealer, _) = sender.into_pipe(&mut choice).ok_or("not ready")?;
    receiver.handle_input(&choice)?;
    let (_, opener) = receiver.into_pipe(&mut BytesMut::new()).ok_or("not chosen")?;
    Ok((sealer, opener))
}

fn records(length: u64) -> Result<Duration, Failure> {
    let (mut sealer, mut opener) = ends()?;
    let piece = vec![7; PIECE];
    let since = Instant::now();
    for _ in 0..length / PIECE as u64 {
        sealer.seal(&piece, opener.buffer());
        opener.next_record()?.ok_or("no record")?;
    }
    Ok(since.elapsed())
}

/// Each end has a thread with a runtime of its own.
fn transit(program: Program, length: u64) -> Result<Duration, Failure> {
    let config = || TransitConfig { loopback: true, ..TransitConfig::new(TransitKey::new([1; 32])) };
    let (hints, told) = mpsc::channel();
    let receiver = thread::spawn(move || -> Result<Instant, Failure> {
        runtime()?.block_on(async {
            let receiver = TransitReceiver::new(config())?;
            hints.send(receiver.hints())?;
            let mut pipe = receiver.connect(&[]).await?;
            match program {
                Program::Single => {
                    let mut received = 0;
                    while received < length {
                        received += pipe.reader.next_record().await?.ok_or("it ended early")?.len() as u64;
                    }
                }
                Program::Task => {
                    let mut hash = Sha256::new();
                    pipe.reader.copy_to(&mut tokio::io::sink(), length, |piece| hash.update(piece)).await?;
                }
                _ => {
                    pipe.reader.copy_to_blocking(io::sink(), length, observer(program)).await?;
                }
            }
            Ok(Instant::now())
        })
    });
    runtime()?.block_on(async {
        let config = TransitConfig { listen: false, ..config() };
        let mut pipe = TransitSender::new(config)?.connect(&told.recv()?).await?;
        let since = Instant::now();
        match program {
            Program::Single => {
                let piece = vec![7; PIECE];
                for _ in 0..length / PIECE as u64 {
                    pipe.writer.send_record(&piece).await?;
                }
            }
            Program::Task => {
                let mut hash = Sha256::new();
                let source = vec![7; PIECE];
                for _ in 0..length / PIECE as u64 {
                    let observe = |piece: &[u8]| hash.update(piece);
                    pipe.writer.copy_from(&mut &source[..], PIECE as u64, observe).await?;
                }
            }
            _ => {
                pipe.writer.copy_from_blocking(Memory::new(length), length, observer(program)).await?;
            }
        }
        Ok(receiver.join().map_err(|_| "the receiver panicked")?? - since)
    })
}

fn observer(program: Program) -> impl FnMut(&[u8]) + Send + 'static {
    let hash = Arc::new(Mutex::new(Sha256::new()));
    move |piece: &[u8]| {
        if let (Program::Threads { hashed: true }, Ok(mut hash)) = (program, hash.lock()) {
            hash.update(piece);
        }
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// A file that the system has in memory.
struct Memory {
    data: Vec<u8>,
    rest: u64,
}

impl Memory {
    fn new(length: u64) -> Memory {
        Memory { data: vec![7; 8 * PIECE], rest: length }
    }
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.data.len());
        let read = usize::try_from(self.rest).map_or(most, |rest| rest.min(most));
        buffer[..read].copy_from_slice(&self.data[..read]);
        self.rest -= read as u64;
        Ok(read)
    }
}
