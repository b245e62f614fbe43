//! Records ready to be sealed.

use std::ops::Range;

use bytes::Bytes;

use crate::frame::{Frame, MAX_PLAINTEXT};

/// Payload above this many bytes is shared, below it is copied.
pub(super) const SHARE_ABOVE: usize = 1024;

/// A run of bytes of a record.
#[derive(Clone, Debug)]
enum Part {
    Inline(Range<usize>),
    Shared(usize),
}

/// Records that wait to be sealed: headers and small payloads in one buffer, large payloads as they are. Made to be
/// filled, sealed, [cleared](Batch::clear) and filled again, without allocating.
///
/// Each record has at most [`MAX_PLAINTEXT`] bytes. Frames go into the last one while it has room.
#[derive(Clone, Debug)]
pub struct Batch {
    inline: Vec<u8>,
    shared: Vec<Bytes>,
    parts: Vec<Part>,
    records: Vec<Record>,
    /// Bytes in all records.
    bytes: usize,
    longest: usize,
}

impl Default for Batch {
    fn default() -> Self {
        let (inline, shared, parts, records) = Default::default();
        Batch { inline, shared, parts, records, bytes: 0, longest: MAX_PLAINTEXT }
    }
}

#[derive(Clone, Debug)]
struct Record {
    parts: Range<usize>,
    len: usize,
    /// Nothing may follow in it.
    whole: bool,
}

impl Batch {
    /// An empty one.
    pub fn new() -> Self {
        Batch::default()
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.inline.clear();
        self.shared.clear();
        self.parts.clear();
        self.records.clear();
        self.bytes = 0;
    }

    /// Begins another record when one has so many bytes, between 4,096 and [`MAX_PLAINTEXT`], which is the default. A
    /// frame that cannot be divided may exceed it. Short ones get through where a link does not live long enough for a
    /// long one.
    pub fn set_longest(&mut self, longest: usize) {
        self.longest = longest.clamp(4096, MAX_PLAINTEXT);
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The bytes of plaintext in all records.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The records in their order, each as the parts that make its plaintext.
    pub fn records(&self) -> impl Iterator<Item = impl Iterator<Item = &[u8]> + Clone> {
        self.records.iter().map(|record| {
            self.parts[record.parts.clone()].iter().map(|part| match part {
                Part::Inline(range) => &self.inline[range.clone()],
                Part::Shared(index) => &self.shared[*index][..],
            })
        })
    }

    /// Adds a record of the dialect `ged`: a header, which is copied, and a body, which is shared if it is long.
    pub fn push_record(&mut self, header: &[u8], body: Bytes) {
        self.start_record();
        if let Some(record) = self.records.last_mut() {
            record.whole = true;
        }
        self.put(header);
        self.put_payload(body);
    }

    /// Adds a frame, in a new record if it does not fit into the last.
    ///
    /// # Panics
    ///
    /// If the frame is longer than a record; see [`Frame::resume`] for long lists.
    pub fn push_frame(&mut self, frame: &Frame) {
        let len = frame.encoded_len();
        assert!(len <= MAX_PLAINTEXT, "a frame has to fit into a record");
        if self.room() < len {
            self.start_record();
        }
        self.put_with(|out| frame.encode(out));
    }

    /// How many bytes still fit into the last record.
    pub(super) fn room(&self) -> usize {
        match self.records.last() {
            Some(record) if !record.whole => self.longest.saturating_sub(record.len),
            _ => 0,
        }
    }

    /// What is put from now on goes into a new record.
    pub(super) fn start_record(&mut self) {
        let at = self.parts.len();
        self.records.push(Record { parts: at..at, len: 0, whole: false });
    }

    /// Takes the last record away again if nothing was put into it: no record is empty.
    pub(super) fn trim(&mut self) {
        if self.records.last().is_some_and(|record| record.len == 0) {
            self.records.pop();
        }
    }

    /// Appends to the last record what `encode` writes.
    pub(super) fn put_with(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.inline.len();
        encode(&mut self.inline);
        self.grow(start..self.inline.len());
    }

    /// Appends to the last record.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.put_with(|out| out.extend_from_slice(bytes));
    }

    /// Appends to the last record; copies what is short.
    pub(super) fn put_payload(&mut self, data: Bytes) {
        if data.len() <= SHARE_ABOVE {
            self.put(&data);
            return;
        }
        let len = data.len();
        self.parts.push(Part::Shared(self.shared.len()));
        self.shared.push(data);
        let end = self.parts.len();
        self.count(len, end);
    }

    fn grow(&mut self, range: Range<usize>) {
        let len = range.len();
        let record = self.records.last().expect("a record was started");
        match self.parts.last_mut() {
            // The last part belongs to this record and ends where the new bytes begin.
            Some(Part::Inline(last)) if !record.parts.is_empty() && last.end == range.start => {
                last.end = range.end;
            }
            _ if len > 0 => self.parts.push(Part::Inline(range)),
            _ => {}
        }
        let end = self.parts.len();
        self.count(len, end);
    }

    fn count(&mut self, len: usize, parts: usize) {
        let record = self.records.last_mut().expect("a record was started");
        record.parts.end = parts;
        record.len += len;
        debug_assert!(record.whole || record.len <= MAX_PLAINTEXT, "a record is not overfilled");
        self.bytes += len;
    }
}
