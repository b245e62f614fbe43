//! The applications: each opens subchannels, writes on those it opened and on those it accepted bytes that can be told
//! from all others, and checks whatever it reads against what the other one did.

mod finish;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    task::Poll,
};

use bytes::Bytes;
use dilated_subchannel::{
    frame::Code,
    id::SubchannelId,
    mux::{DatagramError, Event, Mux, OpenError, OpenRefused, ReadError, StreamKey, WriteError},
    record::Name,
};
use rand::{RngExt, rngs::StdRng};

use crate::book::{Book, Cursor, End, Mode};

/// What the applications of a run do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Subchannels that each side opens.
    pub(crate) opens: usize,
    /// The most bytes that are written on one.
    pub(crate) longest: u64,
    /// The most bytes of one write or message.
    pub(crate) piece: u64,
    /// They also give up, stall, send datagrams and open what nobody expects, as only `dilated-1` can.
    pub(crate) wild: bool,
}

/// Steps for which a stalled reader stalls.
const STALL: u32 = 150;

/// One end of a subchannel.
struct Flow {
    id: SubchannelId,
    to_write: u64,
    writing: bool,
    reading: bool,
    /// The multiplexer had no room, or nothing: an event says when to ask again.
    waits_to_write: bool,
    waits_to_read: bool,
    cursor: Cursor,
    stalled: u32,
    datagrams: u64,
    seen: BTreeSet<u64>,
}

impl Flow {
    fn new(id: SubchannelId, to_write: u64, mode: Mode) -> Flow {
        Flow {
            id,
            to_write,
            writing: true,
            reading: true,
            waits_to_write: false,
            waits_to_read: false,
            cursor: Cursor::new(mode),
            stalled: 0,
            datagrams: 0,
            seen: BTreeSet::new(),
        }
    }
}

/// One side's application.
pub(crate) struct App {
    number: usize,
    load: Load,
    name: Name,
    stray: Name,
    book: Rc<RefCell<Book>>,
    lengths: Vec<u64>,
    opened: usize,
    accepted: usize,
    /// Subchannels that nobody expects there: to be opened, and waiting for the answer, which may have come.
    strays: usize,
    refused: BTreeMap<StreamKey, bool>,
    control: bool,
    /// Something waits to be accepted; opening is worth a try.
    incoming: bool,
    openable: bool,
    /// It has closed its wormhole and writes no more; nothing more happens at all.
    closed: bool,
    over: bool,
    /// It did not want what still came.
    dropped: bool,
    flows: BTreeMap<StreamKey, Flow>,
    /// Those that are over.
    finished: BTreeSet<u32>,
    /// Bytes read in all.
    pub(crate) received: u64,
}

impl App {
    pub(crate) fn new(
        number: usize,
        load: Load,
        book: Rc<RefCell<Book>>,
        mux: &mut Mux,
        rng: &mut StdRng,
    ) -> App {
        let name = mux.check_name("sim").expect("a good name");
        mux.listen(&name).expect("free");
        let stray = mux.check_name("nobody").expect("a good name");
        let lengths = (0..2 * load.opens + 1)
            .map(|_| match rng.random_range(0..4) {
                0 => 0,
                1 => rng.random_range(1..100),
                _ => rng.random_range(100..load.longest),
            })
            .collect();
        App {
            number,
            load,
            name,
            stray,
            book,
            lengths,
            opened: 0,
            accepted: 0,
            strays: if load.wild { rng.random_range(0..3) } else { 0 },
            refused: BTreeMap::new(),
            control: load.wild,
            incoming: false,
            openable: true,
            closed: false,
            over: false,
            dropped: false,
            flows: BTreeMap::new(),
            finished: BTreeSet::new(),
            received: 0,
        }
    }

    /// Whether all subchannels of both sides have ended, in both directions.
    pub(crate) fn is_done(&self) -> bool {
        let all = self.load.opens;
        self.over
            || self.opened == all
                && self.accepted == all
                && self.flows.is_empty()
                && !self.control
                && self.strays == 0
                && self.refused.is_empty()
    }

    /// What was `Pending` is done again only when the multiplexer says that it is worth it.
    pub(crate) fn handle_event(&mut self, event: &Event) {
        match event {
            Event::Readable(key) => {
                if let Some(flow) = self.flows.get_mut(key) {
                    flow.waits_to_read = false;
                }
            }
            Event::Writable(key) => {
                if let Some(flow) = self.flows.get_mut(key) {
                    flow.waits_to_write = false;
                }
            }
            Event::Acknowledged(key) => {
                if let Some(answered) = self.refused.get_mut(key) {
                    *answered = true;
                }
            }
            Event::Incoming(name) => self.incoming |= *name == self.name,
            Event::Openable => self.openable = true,
            _ => {}
        }
    }

    /// Opens, accepts, writes, reads or gives up something.
    pub(crate) fn step(&mut self, mux: &mut Mux, rng: &mut StdRng) {
        self.look_at_strays(mux);
        match rng.random_range(0..20) {
            2 => self.accept(mux, rng),
            _ if self.closed => self.with_random_flow(mux, rng, Self::read),
            0 | 1 => self.open(mux, rng),
            3 if self.load.wild => self.with_random_flow(mux, rng, Self::be_wild),
            4..=10 => self.with_random_flow(mux, rng, Self::write),
            _ => self.with_random_flow(mux, rng, Self::read),
        }
    }

    fn accept(&mut self, mux: &mut Mux, rng: &mut StdRng) {
        while self.incoming
            && let Some(key) = mux.accept(&self.name)
        {
            self.accepted += 1;
            self.add(key, mux, self.load.opens + self.accepted - 1, rng);
        }
        self.incoming = false;
    }

    fn open(&mut self, mux: &mut Mux, rng: &mut StdRng) {
        if self.control {
            if !self.openable {
                return;
            }
            self.openable = false;
            if let Poll::Ready(control) = mux.control() {
                self.openable = true;
                let key = control.expect("the wormhole lives").expect("taken once");
                self.control = false;
                self.add(key, mux, 2 * self.load.opens, rng);
            }
            return;
        }
        let stray = self.strays > 0 && rng.random();
        if !stray && self.opened == self.load.opens || !self.openable {
            return;
        }
        let key = match mux.open(if stray { &self.stray } else { &self.name }) {
            Poll::Pending => {
                self.openable = false;
                return;
            }
            Poll::Ready(Err(OpenError::TooMany { .. })) => return,
            Poll::Ready(opened) => opened.expect("within the limits"),
        };
        if stray {
            self.strays -= 1;
            let _ = mux.write(key, b"is anybody there?");
            self.refused.insert(key, false);
        } else {
            self.opened += 1;
            self.add(key, mux, self.opened - 1, rng);
        }
    }

    /// What nobody expects is refused, and never taken.
    fn look_at_strays(&mut self, mux: &mut Mux) {
        self.refused.retain(|key, answered| match mux.poll_opened(*key) {
            _ if !std::mem::take(answered) => true,
            Poll::Pending => true,
            Poll::Ready(answer) => {
                let Err(OpenRefused::Refused { code }) = answer else { panic!("a stray is taken") };
                // The answer to a repeated OPEN does not know why any more.
                assert!(code == Code::UNEXPECTED || code == Code::GONE, "refused with {code}");
                let written = mux.write(*key, b"no");
                assert_eq!(written, Poll::Ready(Err(WriteError::Refused { code })));
                mux.release(*key);
                false
            }
        });
    }

    fn add(&mut self, key: StreamKey, mux: &Mux, number: usize, rng: &mut StdRng) {
        let (id, name) = mux.describe(key).expect("just made");
        assert!(name == self.name || id.0 == 0);
        let mode = [Mode::Bytes, Mode::Messages, Mode::Mixed][rng.random_range(0..3)];
        let flow = Flow::new(id, self.lengths[number], mode);
        assert!(self.flows.insert(key, flow).is_none(), "a key was given twice");
    }

    fn with_random_flow(
        &mut self,
        mux: &mut Mux,
        rng: &mut StdRng,
        act: fn(&mut Self, StreamKey, &mut Flow, &mut Mux, &mut StdRng),
    ) {
        if self.flows.is_empty() {
            return;
        }
        let chosen = rng.random_range(0..self.flows.len());
        let key = *self.flows.keys().nth(chosen).expect("in range");
        let mut flow = self.flows.remove(&key).expect("chosen");
        act(self, key, &mut flow, mux, rng);
        if flow.writing || flow.reading {
            self.flows.insert(key, flow);
        } else {
            self.finished.insert(flow.id.0);
            mux.release(key);
        }
    }

    fn write(&mut self, key: StreamKey, flow: &mut Flow, mux: &mut Mux, rng: &mut StdRng) {
        if !flow.writing || flow.waits_to_write {
            return;
        }
        let written = self.book.borrow().direction(flow.id, self.number).bytes;
        assert!(mux.bytes_acknowledged(key) <= written, "more was acknowledged than written");
        if flow.to_write == 0 {
            let ended = mux.shutdown(key);
            flow.writing = false;
            if self.check_write(flow, ended).is_some() {
                self.note_end(flow, End::Fin);
            }
            return;
        }
        let length = rng.random_range(0..=self.load.piece).min(flow.to_write);
        let mut data = Book::content(flow.id, self.number, written, length);
        match rng.random_range(0..3) {
            0 => {
                let Poll::Ready(sent) = mux.send(key, &data) else {
                    flow.waits_to_write = true;
                    return;
                };
                if self.check_write(flow, sent).is_some() {
                    flow.to_write -= length;
                    self.book.borrow_mut().sent(flow.id, self.number, length);
                }
            }
            n => {
                let taken = if n == 1 { mux.write_bytes(key, &mut data) } else { mux.write(key, &data) };
                let Poll::Ready(taken) = taken else {
                    flow.waits_to_write = true;
                    return;
                };
                if let Some(taken) = self.check_write(flow, taken) {
                    flow.to_write -= taken as u64;
                    self.book.borrow_mut().wrote(flow.id, self.number, taken as u64);
                }
            }
        }
    }

    /// A write may fail for one reason: the other one does not read any more.
    fn check_write<T>(&mut self, flow: &mut Flow, result: Result<T, WriteError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(WriteError::Stopped { code }) => {
                let stop = self.book.borrow().direction(flow.id, self.number).stop;
                assert_eq!(Some(code), stop, "nobody stopped subchannel {} with that", flow.id);
                flow.writing = false;
                None
            }
            Err(error) => panic!("subchannel {}: {error}", flow.id),
        }
    }

    fn note_end(&mut self, flow: &Flow, end: End) {
        self.book.borrow_mut().end(flow.id, self.number, end);
    }

    fn read(&mut self, key: StreamKey, flow: &mut Flow, mux: &mut Mux, rng: &mut StdRng) {
        if !flow.reading || flow.waits_to_read {
            return;
        }
        self.read_datagrams(key, flow, mux);
        if flow.stalled > 0 {
            flow.stalled -= 1;
            return;
        }
        let whole = match flow.cursor.mode() {
            Mode::Bytes => false,
            Mode::Messages => true,
            Mode::Mixed => rng.random(),
        };
        let read = if whole {
            mux.recv(key)
        } else if rng.random_bool(0.3) {
            mux.read_chunk(key)
        } else {
            let mut buffer = vec![0; rng.random_range(1..4000)];
            mux.read(key, &mut buffer).map_ok(|n| {
                buffer.truncate(n);
                (n > 0).then(|| Bytes::from(buffer))
            })
        };
        match read {
            Poll::Ready(read) => self.take(flow, read, whole),
            Poll::Pending => flow.waits_to_read = true,
        }
    }

    fn take(&mut self, flow: &mut Flow, read: Result<Option<Bytes>, ReadError>, whole: bool) {
        let book = self.book.borrow();
        let direction = book.direction(flow.id, 1 - self.number);
        match read {
            Ok(Some(bytes)) => {
                self.received += bytes.len() as u64;
                flow.cursor.take(&bytes, whole, flow.id, 1 - self.number, &direction);
            }
            Ok(None) => {
                assert_eq!(direction.end, Some(End::Fin), "subchannel {} ended by itself", flow.id);
                flow.cursor.check_end(&direction, flow.id);
                flow.reading = false;
            }
            Err(ReadError::Reset { code }) => {
                assert_eq!(direction.end, Some(End::Reset(code)), "subchannel {}", flow.id);
                flow.reading = false;
            }
            Err(error) => panic!("subchannel {}: {error}", flow.id),
        }
    }

    fn read_datagrams(&mut self, key: StreamKey, flow: &mut Flow, mux: &mut Mux) {
        while self.load.wild
            && flow.reading
            && let Poll::Ready(Ok(Some(data))) = mux.recv_datagram(key)
        {
            let number = u64::from_be_bytes(data[..8].try_into().expect("a datagram of ours"));
            let sent = self.book.borrow().direction(flow.id, 1 - self.number).datagrams;
            assert!(number < sent, "a datagram that was never sent");
            assert!(flow.seen.insert(number), "a datagram came twice");
            let expected = Book::content(flow.id, 1 - self.number, number, data.len() as u64 - 8);
            assert_eq!(data[8..], expected, "a datagram was changed");
        }
    }

    /// Stalls, gives up, sends datagrams.
    fn be_wild(&mut self, key: StreamKey, flow: &mut Flow, mux: &mut Mux, rng: &mut StdRng) {
        match rng.random_range(0..20) {
            0..=3 => flow.stalled = rng.random_range(0..STALL),
            4..=6 => mux.set_priority(key, rng.random_range(0..9)),
            7 if flow.writing => {
                let code: u32 = rng.random();
                mux.reset(key, code);
                flow.writing = false;
                self.note_end(flow, End::Reset(code.into()));
            }
            8 if flow.reading => {
                let code: u32 = rng.random();
                self.stop(flow, code.into());
                mux.stop(key, code);
                assert!(matches!(mux.read(key, &mut [0]), Poll::Ready(Err(_) | Ok(0))));
            }
            9 => {
                self.drop_flow(flow);
            }
            _ if flow.writing => {
                let mut data = flow.datagrams.to_be_bytes().to_vec();
                let length = rng.random_range(0..1100);
                data.extend(Book::content(flow.id, self.number, flow.datagrams, length));
                match mux.send_datagram(key, data.into()) {
                    Ok(()) => {
                        flow.datagrams += 1;
                        self.book.borrow_mut().sent_datagram(flow.id, self.number);
                    }
                    Err(DatagramError::NotOpen) => {}
                    Err(error) => panic!("subchannel {}: {error}", flow.id),
                }
            }
            _ => {}
        }
    }

    /// It is dropped as it is: what was written and the end still go.
    fn drop_flow(&mut self, flow: &mut Flow) {
        if flow.reading {
            self.stop(flow, Code::CANCELLED);
        }
        if std::mem::take(&mut flow.writing) {
            self.note_end(flow, End::Fin);
        }
    }

    fn stop(&mut self, flow: &mut Flow, code: Code) {
        flow.reading = false;
        self.book.borrow_mut().stop(flow.id, 1 - self.number, code);
    }

    /// What the other side must have received when all is done and nobody gave up.
    pub(crate) fn sent(&self) -> u64 {
        self.lengths.iter().take(2 * self.load.opens).sum()
    }
}
