//! What the figures are compared with: programs that do nothing but what cannot be left out.
//!
//! The main one has two threads with blocking sockets of the standard library. One seals records in place and sends them,
//! the other receives and opens them in place. Nothing is copied, queued, acknowledged or kept.

use std::{
    fmt,
    hint::black_box,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;

use crate::{
    affinity::Core,
    measure::{Spent, Stopwatch},
    program::Outcome,
};

/// Plaintext of one record, in bytes: with its tag it is what Noise allows.
const PLAINTEXT: usize = 65_519;
const HEADER: usize = 2;
const TAG: usize = 16;
const RECORD: usize = HEADER + PLAINTEXT + TAG;

/// Bytes asked of the socket at once.
const READ: usize = 256 * 1024;

/// How records are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cipher {
    ChaCha20Poly1305,
    Aes256Gcm,
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cipher::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            Cipher::Aes256Gcm => "AES-256-GCM",
        })
    }
}

/// The key of one direction, with its counter.
struct Sealing {
    key: LessSafeKey,
    counter: u64,
}

impl Sealing {
    fn new(cipher: Cipher) -> Sealing {
        let algorithm = match cipher {
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Cipher::Aes256Gcm => &AES_256_GCM,
        };
        let key = UnboundKey::new(algorithm, &[7; 32]).expect("both take keys of 32 bytes");
        Sealing { key: LessSafeKey::new(key), counter: 0 }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
        self.counter += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// What is in the records.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    /// The same bytes again and again: where they come from and go to costs nothing.
    Bulk,
    /// Messages of so many bytes behind their length, copied in and copied out one by one.
    Messages(usize),
}

impl Load {
    fn fill(self, plaintext: &mut [u8]) {
        let Load::Messages(length) = self else { return };
        let message = black_box([0x5a; 256]);
        for piece in plaintext.chunks_mut(HEADER + length) {
            let (header, body) = piece.split_at_mut(HEADER.min(piece.len()));
            header.fill(1);
            body.copy_from_slice(&message[..body.len()]);
        }
    }

    fn take(self, plaintext: &[u8]) {
        match self {
            Load::Bulk => {
                black_box(plaintext);
            }
            Load::Messages(length) => {
                for piece in plaintext.chunks_exact(HEADER + length) {
                    black_box(Bytes::copy_from_slice(&piece[HEADER..]));
                }
            }
        }
    }

    /// Bytes of records that carry so many messages.
    pub(crate) fn bytes(self, messages: usize) -> u64 {
        match self {
            Load::Bulk => messages as u64,
            Load::Messages(length) => (messages.div_ceil(PLAINTEXT / (HEADER + length)) * PLAINTEXT) as u64,
        }
    }
}

fn connection() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let sender = TcpStream::connect(listener.local_addr()?)?;
    let (receiver, _) = listener.accept()?;
    sender.set_nodelay(true)?;
    Ok((sender, receiver))
}

/// Carries at least so many bytes of plaintext in sealed records.
pub(crate) fn sealed(bytes: u64, cipher: Cipher, load: Load) -> Outcome<Spent> {
    let records = bytes.div_ceil(PLAINTEXT as u64);
    let (sender, receiver) = connection()?;
    let watch = Stopwatch::start()?;
    let sending = thread::spawn(move || {
        Core::First.keep_this_thread();
        send(sender, records, cipher, load)
    });
    let receiving = thread::spawn(move || {
        Core::Second.keep_this_thread();
        receive(receiver, records, cipher, load)
    });
    receiving.join().map_err(|_| "the receiver panicked")??;
    let spent = watch.stop()?;
    sending.join().map_err(|_| "the sender panicked")??;
    Ok(spent)
}

fn send(mut stream: TcpStream, records: u64, cipher: Cipher, load: Load) -> io::Result<()> {
    let mut sealing = Sealing::new(cipher);
    let mut record = vec![0x5a; RECORD];
    for _ in 0..records {
        record[..HEADER].copy_from_slice(&65_535_u16.to_be_bytes());
        let (plaintext, tag) = record[HEADER..].split_at_mut(PLAINTEXT);
        load.fill(plaintext);
        let nonce = sealing.nonce();
        let sealed = sealing.key.seal_in_place_separate_tag(nonce, Aad::empty(), plaintext);
        tag.copy_from_slice(sealed.expect("a record is shorter than the limit of the cipher").as_ref());
        stream.write_all(&record)?;
    }
    Ok(())
}

fn receive(mut stream: TcpStream, records: u64, cipher: Cipher, load: Load) -> Outcome<()> {
    let mut opening = Sealing::new(cipher);
    let mut buffer = vec![0; READ + RECORD];
    let (mut left, mut filled) = (records, 0);
    while left > 0 {
        filled += match stream.read(&mut buffer[filled..])? {
            0 => return Err("the sender ended early".into()),
            length => length,
        };
        let mut complete = 0;
        for record in buffer[..filled].chunks_exact_mut(RECORD) {
            let nonce = opening.nonce();
            let plaintext = opening
                .key
                .open_in_place(nonce, Aad::empty(), &mut record[HEADER..])
                .map_err(|_| "a record of the baseline could not be opened")?;
            load.take(plaintext);
            complete += RECORD;
            left -= 1;
        }
        buffer.copy_within(complete..filled, 0);
        filled -= complete;
    }
    Ok(())
}

/// Carries so many bytes as they are.
pub(crate) fn raw(bytes: u64) -> Outcome<Spent> {
    let (mut sender, mut receiver) = connection()?;
    let watch = Stopwatch::start()?;
    let sending = thread::spawn(move || -> io::Result<()> {
        Core::First.keep_this_thread();
        let chunk = vec![0x5a; RECORD];
        let mut left = bytes;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(RECORD).min(RECORD);
            sender.write_all(&chunk[..length])?;
            left -= length as u64;
        }
        Ok(())
    });
    let receiving = thread::spawn(move || -> Outcome<()> {
        Core::Second.keep_this_thread();
        let mut buffer = vec![0; READ];
        let mut received = 0;
        while received < bytes {
            match receiver.read(&mut buffer)? {
                0 => return Err("the sender ended early".into()),
                length => received += length as u64,
            }
        }
        Ok(())
    });
    receiving.join().map_err(|_| "the receiver panicked")??;
    let spent = watch.stop()?;
    sending.join().map_err(|_| "the sender panicked")??;
    Ok(spent)
}
