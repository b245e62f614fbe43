//! The least that a classic transfer can be: the same bytes from file to file with the same libraries, and nothing else. One
//! thread reads, hashes, seals and sends; one receives, opens, writes and hashes. Both are blocking, and use the same
//! memory again and again. There is no rendezvous, no handshake, no runtime, no progress and no name to be found.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use dilated_tests::lab::clock;
use dryoc::classic::crypto_secretbox::{
    Key, Nonce, crypto_secretbox_detached, crypto_secretbox_open_detached,
};
use sha2::{Digest, Sha256};

use crate::measure::Run;

/// Bytes of plaintext in a record, as `dilated` sends them.
const PIECE: usize = 64 * 1024;
/// Bytes of its length, its nonce and its tag.
const OVERHEAD: usize = LENGTH + NONCE + TAG;
const LENGTH: usize = 4;
const NONCE: usize = 24;
const TAG: usize = 16;
const RECORD: usize = OVERHEAD + PIECE;
/// Records that are read, sent, received and written at once.
const RECORDS: usize = 4;

const KEY: Key = [1; 32];

/// A file from here to there.
pub(crate) fn transfer(from: &Path, to: &Path, size: u64) -> io::Result<Run> {
    let (out, input) = connection()?;
    let (source, sink) = (File::open(from)?, File::create(to)?);
    let began = clock();
    let receiver = thread::spawn(move || receive(input, sink, size));
    let (sent, sender) = send(source, out)?;
    let (received, receiver) = receiver.join().map_err(|_| io::Error::other("the receiver panicked"))??;
    let took = clock() - began;
    if sent != received {
        return Err(io::Error::other("something else arrived"));
    }
    Ok(Run { took, sender, receiver })
}

fn connection() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let out = TcpStream::connect(listener.local_addr()?)?;
    out.set_nodelay(true)?;
    Ok((out, listener.accept()?.0))
}

/// The hash, and the processor time of this thread.
type Ended = (Vec<u8>, Duration);

fn send(mut source: impl Read, mut out: impl Write) -> io::Result<Ended> {
    let before = processor_time();
    let (mut plain, mut wire) = (vec![0; RECORDS * PIECE], vec![0; RECORDS * RECORD]);
    let (mut hash, mut number) = (Sha256::new(), 0);
    loop {
        let read = source.read(&mut plain)?;
        if read == 0 {
            return Ok((hash.finalize().to_vec(), processor_time() - before));
        }
        hash.update(&plain[..read]);
        let length = seal(&plain[..read], &mut wire, &mut number);
        out.write_all(&wire[..length])?;
    }
}

fn receive(mut input: impl Read, mut sink: impl Write, size: u64) -> io::Result<Ended> {
    let before = processor_time();
    let (mut plain, mut wire) = (vec![0; RECORDS * PIECE], vec![0; RECORDS * RECORD]);
    let (mut hash, mut number, mut rest) = (Sha256::new(), 0, size);
    while rest > 0 {
        let next = usize::try_from(rest).map_or(plain.len(), |rest| rest.min(plain.len()));
        let length = next + next.div_ceil(PIECE) * OVERHEAD;
        input.read_exact(&mut wire[..length])?;
        open(&wire[..length], &mut plain[..next], &mut number)?;
        sink.write_all(&plain[..next])?;
        hash.update(&plain[..next]);
        rest -= next as u64;
    }
    Ok((hash.finalize().to_vec(), processor_time() - before))
}

/// Makes records, and returns how long they are together.
fn seal(plain: &[u8], wire: &mut [u8], number: &mut u64) -> usize {
    for (piece, record) in plain.chunks(PIECE).zip(wire.chunks_mut(RECORD)) {
        let nonce = next_nonce(number);
        let (head, sealed) = record[..OVERHEAD + piece.len()].split_at_mut(OVERHEAD);
        let length = u32::try_from(NONCE + TAG + piece.len()).expect("a record is short");
        head[..LENGTH].copy_from_slice(&length.to_be_bytes());
        head[LENGTH..LENGTH + NONCE].copy_from_slice(&nonce);
        let tag = head.last_chunk_mut().expect("there is room for the tag");
        crypto_secretbox_detached(sealed, tag, piece, &nonce, &KEY).expect("one is as long as the other");
    }
    plain.len() + plain.len().div_ceil(PIECE) * OVERHEAD
}

fn open(wire: &[u8], plain: &mut [u8], number: &mut u64) -> io::Result<()> {
    for (record, piece) in wire.chunks(RECORD).zip(plain.chunks_mut(PIECE)) {
        let nonce = next_nonce(number);
        let (head, sealed) = record.split_at(OVERHEAD);
        let tag = head.last_chunk().expect("there is a tag");
        crypto_secretbox_open_detached(piece, sealed, tag, &nonce, &KEY).map_err(io::Error::other)?;
    }
    Ok(())
}

fn next_nonce(number: &mut u64) -> Nonce {
    let mut nonce: Nonce = [0; NONCE];
    nonce[NONCE - 8..].copy_from_slice(&number.to_be_bytes());
    *number += 1;
    nonce
}

/// What one thread does in a second of one part of it alone, in 10^6 bytes.
pub(crate) fn parts(from: &Path, to: &Path, size: u64) -> io::Result<Vec<(&'static str, f64)>> {
    let (mut plain, mut wire) = (vec![7; RECORDS * PIECE], vec![0; RECORDS * RECORD]);
    let rounds = size / plain.len() as u64;
    let mut parts = Vec::new();
    let mut measure = |name, work: &mut dyn FnMut() -> io::Result<()>| {
        let began = clock();
        for _ in 0..rounds {
            work()?;
        }
        let seconds = (clock() - began).as_secs_f64();
        parts.push((name, (rounds * (RECORDS * PIECE) as u64) as f64 / seconds / 1e6));
        io::Result::Ok(())
    };
    let mut source = File::open(from)?;
    measure("reading the file", &mut || source.read_exact(&mut plain))?;
    let mut hash = Sha256::new();
    measure("SHA-256", &mut || {
        hash.update(&plain);
        Ok(())
    })?;
    std::hint::black_box(hash.finalize());
    measure("sealing", &mut || {
        seal(&plain, &mut wire, &mut 0);
        Ok(())
    })?;
    measure("opening", &mut || open(&wire, &mut plain, &mut 0))?;
    let mut sink = File::create(to)?;
    measure("writing the file", &mut || sink.write_all(&plain))?;
    let (mut out, mut input) = connection()?;
    let total = rounds * wire.len() as u64;
    let receiver = thread::spawn(move || {
        let (mut buffer, mut rest) = (vec![0; RECORDS * RECORD], total);
        while rest > 0 {
            rest -= input.read(&mut buffer)? as u64;
        }
        io::Result::Ok(())
    });
    measure("TCP (two threads)", &mut || out.write_all(&wire))?;
    receiver.join().map_err(|_| io::Error::other("the receiver panicked"))??;
    Ok(parts)
}

/// What this thread has used of the processor so far, to 10 ms.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    // Fields 14 and 15, counted from the name of the thread, which may have spaces: user and system, in 1/100 s.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    Duration::from_millis(fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10)
}
