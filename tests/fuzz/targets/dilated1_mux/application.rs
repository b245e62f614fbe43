//! The application above one mux.

use std::collections::BTreeMap;
use std::task::Poll;

use bytes::Bytes;
use dilated_subchannel::id::SubchannelId;
use dilated_subchannel::mux::StreamKey;
use dilated_subchannel::mux::dilated1::Mux;
use dilated_subchannel::record::Name;

use crate::Script;

/// The names that something listens for, or that are expected.
pub(crate) const NAMES: [&str; 2] = ["a", "b"];

/// The byte at this place of what one side writes on a subchannel.
fn pattern(id: SubchannelId, offset: u64) -> u8 {
    (u64::from(id.0) * 31 + offset * 7 + offset / 251).to_le_bytes()[0]
}

/// One end of a subchannel.
struct End {
    key: StreamKey,
    id: SubchannelId,
    written: u64,
    read: u64,
}

/// What the application does, one verb at a time.
#[derive(Default)]
pub(crate) struct Application {
    ends: Vec<End>,
    /// Whether what is read is what an application like this wrote.
    checks: bool,
    /// What has become of subchannels: how many bytes were read, and whether their end was.
    pub(crate) finished: BTreeMap<SubchannelId, u64>,
}

impl Application {
    pub(crate) fn new(checks: bool) -> Self {
        Self { checks, ..Self::default() }
    }

    fn adopt(&mut self, mux: &Mux, key: StreamKey) {
        if let Some((id, _)) = mux.describe(key) {
            self.ends.push(End { key, id, written: 0, read: 0 });
        }
    }

    fn end(&mut self, choice: u8) -> Option<&mut End> {
        let count = self.ends.len();
        self.ends.get_mut(usize::from(choice) % count.max(1))
    }

    /// Does something. `None` at the end of the script, or when there is nothing to do it with.
    pub(crate) fn step(&mut self, mux: &mut Mux, op: u8, script: &mut Script<'_>) -> Option<()> {
        match op % 14 {
            0 => {
                let name = Name::from(["a", "b", "nobody listens"][usize::from(script.byte()? % 3)]);
                if let Poll::Ready(Ok(key)) = mux.open(&name) {
                    self.adopt(mux, key);
                }
            }
            1 | 2 => self.accept(mux),
            3 | 4 => {
                let (choice, length) = (script.byte()?, usize::from(script.byte()?) * 40);
                let end = self.end(choice)?;
                let data = piece(end, length);
                if let Poll::Ready(Ok(written)) = mux.write(end.key, &data) {
                    end.written += written as u64;
                }
            }
            5 => {
                let (choice, length) = (script.byte()?, usize::from(script.byte()?) * 8);
                let end = self.end(choice)?;
                let data = piece(end, length);
                if let Poll::Ready(Ok(())) = mux.send(end.key, &Bytes::from(data)) {
                    end.written += length as u64;
                }
            }
            6 => {
                let (choice, length) = (script.byte()?, usize::from(script.byte()?));
                let mut buffer = vec![0; length * 16];
                let index = usize::from(choice) % self.ends.len().max(1);
                let key = self.ends.get(index)?.key;
                if let Poll::Ready(Ok(read)) = mux.read(key, &mut buffer) {
                    self.check(index, &buffer[..read]);
                }
            }
            7 => self.receive(mux, script.byte()?),
            8 => {
                let key = self.end(script.byte()?)?.key;
                let _ = mux.shutdown(key);
            }
            9 => {
                let key = self.end(script.byte()?)?.key;
                mux.reset(key, 7);
            }
            10 => {
                let key = self.end(script.byte()?)?.key;
                mux.stop(key, 9);
            }
            11 => {
                let (choice, length) = (script.byte()?, usize::from(script.byte()?));
                let key = self.end(choice)?.key;
                let _ = mux.send_datagram(key, Bytes::from(vec![1; length]));
                let _ = mux.recv_datagram(key);
            }
            12 => {
                let (choice, level) = (script.byte()?, script.byte()?);
                let key = self.end(choice)?.key;
                mux.set_priority(key, level % 9);
            }
            _ => {
                let choice = script.byte()?;
                if !self.ends.is_empty() {
                    let end = self.ends.swap_remove(usize::from(choice) % self.ends.len());
                    mux.release(end.key);
                }
            }
        }
        Some(())
    }

    pub(crate) fn accept(&mut self, mux: &mut Mux) {
        for name in NAMES {
            while let Some(key) = mux.accept(&Name::from(name)) {
                self.adopt(mux, key);
            }
        }
    }

    /// Reads a message, or what is there of a stream.
    fn receive(&mut self, mux: &mut Mux, choice: u8) {
        let index = usize::from(choice) % self.ends.len().max(1);
        let Some(end) = self.ends.get(index) else { return };
        if let Poll::Ready(Ok(Some(message))) = mux.recv(end.key) {
            self.check(index, &message);
        }
    }

    fn check(&mut self, index: usize, bytes: &[u8]) {
        let end = &mut self.ends[index];
        for byte in bytes {
            if self.checks {
                assert_eq!(*byte, pattern(end.id, end.read), "byte {} of {}", end.read, end.id);
            }
            end.read += 1;
        }
    }

    /// Takes all that is there, and ends everything that can be ended. Returns whether everything was read to its end.
    pub(crate) fn wind_up(&mut self, mux: &mut Mux) -> bool {
        self.accept(mux);
        let mut over = true;
        for index in 0..self.ends.len() {
            let key = self.ends[index].key;
            let _ = mux.shutdown(key);
            let ended = loop {
                match mux.read_chunk(key) {
                    Poll::Ready(Ok(Some(chunk))) => self.check(index, &chunk),
                    Poll::Ready(Ok(None)) => {
                        let end = &self.ends[index];
                        self.finished.insert(end.id, end.read);
                        break true;
                    }
                    Poll::Ready(Err(_)) => break true,
                    Poll::Pending => break false,
                }
            };
            over &= ended;
        }
        over
    }

    /// How much was written on subchannels that still have their handle.
    pub(crate) fn written(&self) -> impl Iterator<Item = (SubchannelId, u64)> + '_ {
        self.ends.iter().map(|end| (end.id, end.written))
    }

    /// Drops every handle.
    pub(crate) fn release(&mut self, mux: &mut Mux) {
        for end in self.ends.drain(..) {
            mux.release(end.key);
        }
    }
}

/// The next `length` bytes.
fn piece(end: &End, length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| pattern(end.id, end.written + n)).collect()
}
