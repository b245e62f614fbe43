//! One face for both dialects.

use std::{
    collections::VecDeque,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Batch, DatagramError, EndReason, Event, ListenError, MuxConfig, NameError, Names, OpenError, OpenRefused,
    Params, Progress, ReadError, StreamKey, UnacknowledgedError, Usage, WriteError, dilated1, ged,
};
use crate::{
    id::{Parity, SubchannelId},
    record::Name,
};

/// What the two sides have agreed to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// That of the Python peers.
    Ged,
    /// That of this project.
    Dilated1 {
        /// What the peer said of itself.
        peer: Params,
    },
}

/// One side of the subchannels of a wormhole, in the dialect that it turns out to speak.
///
/// Names can be listened for from the beginning; opening waits until [`start`](Mux::start). The application's
/// verbs may be called at any time. The driver's are those of the engine, [`as_ged`](Mux::as_ged) or
/// [`as_dilated1`](Mux::as_dilated1), so none can be called in the wrong dialect. After each call drain
/// [`poll_event`](Mux::poll_event). Verbs that return [`Poll::Pending`] did nothing; an event says when to
/// repeat them.
#[derive(Debug)]
pub struct Mux {
    engine: Engine,
    dialect: Option<Dialect>,
    /// What happened before there was an engine to tell it.
    early: VecDeque<Event>,
}

#[derive(Debug)]
enum Engine {
    Waiting(Waiting),
    Ged(Box<ged::Mux>),
    Dilated1(Box<dilated1::Mux>),
}

/// The role, and so the numbers that we may allocate, is not known.
#[derive(Debug)]
struct Waiting {
    config: MuxConfig,
    names: Names,
    openers_wait: bool,
    ended: Option<EndReason>,
}

/// Runs one expression with the engine of either dialect, or another while there is none.
macro_rules! dispatch {
    ($self:expr, $mux:ident => $run:expr, $waiting:ident => $otherwise:expr) => {
        match $self {
            Engine::Ged($mux) => $run,
            Engine::Dilated1($mux) => $run,
            Engine::Waiting($waiting) => $otherwise,
        }
    };
}

/// The life of a wormhole.
impl Mux {
    /// A mux whose role and dialect are not known yet.
    pub fn new(config: MuxConfig) -> Self {
        let waiting = Waiting { config, names: Names::default(), openers_wait: false, ended: None };
        Mux { engine: Engine::Waiting(waiting), dialect: None, early: VecDeque::new() }
    }

    /// The limits that were asked for.
    pub fn config(&self) -> &MuxConfig {
        dispatch!(&self.engine, mux => mux.config(), waiting => &waiting.config)
    }

    /// Roles and dialect are decided; the Leader is odd. Later calls change nothing: a wormhole keeps both.
    pub fn start(&mut self, parity: Parity, dialect: Dialect) {
        let Engine::Waiting(waiting) = &mut self.engine else { return };
        if waiting.ended.is_some() {
            return;
        }
        if std::mem::take(&mut waiting.openers_wait) {
            self.early.push_back(Event::Openable);
        }
        self.dialect = Some(dialect);
        let (config, names) = (waiting.config.clone(), std::mem::take(&mut waiting.names));
        self.engine = match dialect {
            Dialect::Ged => Engine::Ged(Box::new(ged::Mux::new(config, parity, names))),
            Dialect::Dilated1 { peer } => {
                Engine::Dilated1(Box::new(dilated1::Mux::new(config, parity, peer, names)))
            }
        };
    }

    /// The engine, if the dialect is `ged`.
    pub fn as_ged(&self) -> Option<&ged::Mux> {
        if let Engine::Ged(mux) = &self.engine { Some(mux) } else { None }
    }

    /// The engine for its driver, if the dialect is `ged`.
    pub fn as_ged_mut(&mut self) -> Option<&mut ged::Mux> {
        if let Engine::Ged(mux) = &mut self.engine { Some(mux) } else { None }
    }

    /// The engine, if the dialect is `dilated-1`.
    pub fn as_dilated1(&self) -> Option<&dilated1::Mux> {
        if let Engine::Dilated1(mux) = &self.engine { Some(mux) } else { None }
    }

    /// The engine for its driver, if the dialect is `dilated-1`.
    pub fn as_dilated1_mut(&mut self) -> Option<&mut dilated1::Mux> {
        if let Engine::Dilated1(mux) = &mut self.engine { Some(mux) } else { None }
    }

    /// What is spoken, once that is decided.
    pub fn dialect(&self) -> Option<Dialect> {
        self.dialect
    }

    /// A link was chosen, the first of its kind in `dilated-1`. Changes nothing before [`start`](Mux::start).
    pub fn link_up(&mut self) {
        dispatch!(&mut self.engine, mux => mux.link_up(), _waiting => ());
    }

    /// The link is lost.
    pub fn link_down(&mut self) {
        dispatch!(&mut self.engine, mux => mux.link_down(), _waiting => ());
    }

    /// How far what this side sends has come on the current link, for measuring its round trip.
    pub fn progress(&self) -> Progress {
        dispatch!(&self.engine, mux => mux.progress(), _waiting => Progress { sent: 0, acknowledged: 0 })
    }

    /// Ends the wormhole. Data that was received can still be read, and subchannels that wait still be
    /// accepted; everything else fails with `reason`, now and later. The first reason stays.
    pub fn fail(&mut self, reason: EndReason) {
        dispatch!(&mut self.engine, mux => mux.fail(reason), waiting => {
            if waiting.ended.is_none() {
                waiting.ended = Some(reason);
                self.early.extend(waiting.names.tell_all().map(Event::Incoming));
                if std::mem::take(&mut waiting.openers_wait) {
                    self.early.push_back(Event::Openable);
                }
                self.early.push_back(Event::Ended);
            }
        });
    }

    /// Why the wormhole is over, if it is.
    pub fn ended(&self) -> Option<&EndReason> {
        dispatch!(&self.engine, mux => mux.ended(), waiting => waiting.ended.as_ref())
    }

    /// Fills `out` with records for the link until their plaintexts reach `most` bytes (at least one record, which may
    /// be larger). With `most` 0 no data goes: in `dilated-1` what is not data, in `ged` nothing. Returns whether there
    /// are any.
    pub fn poll_transmit(&mut self, now: Instant, most: usize, out: &mut Batch) -> bool {
        match &mut self.engine {
            Engine::Ged(mux) => mux.fill(most, out),
            Engine::Dilated1(mux) => mux.poll_transmit(now, most, out),
            Engine::Waiting(_) => false,
        }
    }

    /// Whether there is something for the link.
    pub fn wants_transmit(&self) -> bool {
        dispatch!(&self.engine, mux => mux.wants_transmit(), _waiting => false)
    }

    /// When to ask for something to transmit though nothing has happened; `None` in `ged`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.as_dilated1()?.poll_timeout()
    }

    /// Whether the link must not be read now; see [`ged::Mux::read_paused`]. Never in `dilated-1`.
    pub fn read_paused(&self) -> bool {
        self.as_ged().is_some_and(ged::Mux::read_paused)
    }

    /// The round trip of the link as measured, from which `dilated-1` finds how much credit to give.
    pub fn set_round_trip(&mut self, round_trip: Duration) {
        if let Engine::Dilated1(mux) = &mut self.engine {
            mux.set_round_trip(round_trip);
        }
    }

    /// Whether the peer has acknowledged everything that was written, opened and closed. True after the
    /// end, when nothing more can be.
    pub fn is_drained(&self) -> bool {
        dispatch!(&self.engine, mux => mux.is_drained(), _waiting => true)
    }

    /// What has become possible since the last call. At most a few events per subchannel are queued, and
    /// none is lost.
    pub fn poll_event(&mut self) -> Option<Event> {
        dispatch!(&mut self.engine, mux => {
            match self.early.pop_front() {
                Some(event) => Some(event),
                None => mux.poll_event(),
            }
        }, _waiting => self.early.pop_front())
    }

    /// How much of the limits is in use.
    pub fn usage(&self) -> Usage {
        dispatch!(&self.engine, mux => mux.usage(), _waiting => Usage::default())
    }
}

/// The application's verbs.
impl Mux {
    /// Checks a subprotocol's name against the limits.
    ///
    /// # Errors
    ///
    /// [`NameError`] for an empty or a long one.
    pub fn check_name(&self, name: &str) -> Result<Name, NameError> {
        self.config().check_name(name)
    }

    /// Opens a subchannel. OPEN goes out in its turn; data may be written at once.
    ///
    /// `Pending` until [`start`](Mux::start), and while a limit that the peer will raise is reached; then
    /// [`Event::Openable`] follows.
    ///
    /// # Errors
    ///
    /// [`OpenError`] when a limit is reached or the wormhole is over.
    pub fn open(&mut self, name: &Name) -> Poll<Result<StreamKey, OpenError>> {
        dispatch!(&mut self.engine, mux => mux.open(name), waiting => match &waiting.ended {
            Some(reason) => Poll::Ready(Err(OpenError::Ended(reason.clone()))),
            None => {
                waiting.openers_wait = true;
                Poll::Pending
            }
        })
    }

    /// The control channel of `dilated-1`, once; `None` when it was taken, and in `ged`, which has none.
    /// `Pending` until [`start`](Mux::start); then [`Event::Openable`] follows.
    ///
    /// # Errors
    ///
    /// [`OpenError::Ended`] when the wormhole is over.
    pub fn control(&mut self) -> Poll<Result<Option<StreamKey>, OpenError>> {
        if let Some(reason) = self.ended() {
            return Poll::Ready(Err(OpenError::Ended(reason.clone())));
        }
        match &mut self.engine {
            Engine::Ged(_) => Poll::Ready(Ok(None)),
            Engine::Dilated1(mux) => Poll::Ready(Ok(mux.control())),
            Engine::Waiting(waiting) => {
                waiting.openers_wait = true;
                Poll::Pending
            }
        }
    }

    /// Takes subchannels of this name from now on, those that waited because they were expected first.
    ///
    /// # Errors
    ///
    /// [`ListenError`] if something listens for the name already, or the wormhole is over.
    pub fn listen(&mut self, name: &Name) -> Result<(), ListenError> {
        dispatch!(&mut self.engine, mux => mux.listen(name), waiting => match &waiting.ended {
            Some(reason) => Err(ListenError::Ended(reason.clone())),
            None => waiting.names.listen(name),
        })
    }

    /// Stops listening. What waits is closed, unless the name is expected.
    pub fn unlisten(&mut self, name: &Name) {
        dispatch!(&mut self.engine, mux => mux.unlisten(name), waiting => {
            let waited = waiting.names.unlisten(name);
            debug_assert!(waited.is_empty(), "nothing comes before the start");
        });
    }

    /// Lets subchannels of this name wait for a listener, up to
    /// [`pending_opens`](MuxConfig::pending_opens) of them, instead of refusing them.
    pub fn expect(&mut self, name: &Name) {
        dispatch!(&mut self.engine, mux => mux.expect(name), waiting => waiting.names.expect(name));
    }

    /// The longest waiting subchannel of this name, if any.
    pub fn accept(&mut self, name: &Name) -> Option<StreamKey> {
        dispatch!(&mut self.engine, mux => mux.accept(name), _waiting => None)
    }

    /// The identifier and the name of a subchannel; `None` for an old key.
    pub fn describe(&self, key: StreamKey) -> Option<(SubchannelId, Name)> {
        dispatch!(&self.engine, mux => mux.describe(key), _waiting => None)
    }

    /// Whether the peer has answered our OPEN. Ready at once for a subchannel of the peer, and in `ged`, which has
    /// no answer to OPEN. `Pending` until then; [`Event::Acknowledged`] follows.
    ///
    /// # Errors
    ///
    /// [`OpenRefused`] if the peer does not want it, or the wormhole ended first.
    pub fn poll_opened(&self, key: StreamKey) -> Poll<Result<(), OpenRefused>> {
        self.as_dilated1().map_or(Poll::Ready(Ok(())), |mux| mux.poll_opened(key))
    }

    /// How soon the link carries this subchannel's data: 0 (first) to 7. `ged` knows no priorities: there it
    /// changes nothing.
    pub fn set_priority(&mut self, key: StreamKey, level: u8) {
        if let Engine::Dilated1(mux) = &mut self.engine {
            mux.set_priority(key, level);
        }
    }

    /// Writes stream bytes; returns how many were taken. Small writes join.
    ///
    /// `Pending` while the outbox, or this subchannel's part of it, is full; then [`Event::Writable`]
    /// follows.
    ///
    /// # Errors
    ///
    /// [`WriteError`] after [`shutdown`](Mux::shutdown), after the peer's STOP, and after the end.
    pub fn write(&mut self, key: StreamKey, data: &[u8]) -> Poll<Result<usize, WriteError>> {
        dispatch!(&mut self.engine, mux => mux.write(key, data), waiting => waiting.no_write())
    }

    /// Like [`write`](Mux::write), without copying: takes what it can from the front of `data`.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Mux::write).
    pub fn write_bytes(&mut self, key: StreamKey, data: &mut Bytes) -> Poll<Result<usize, WriteError>> {
        dispatch!(&mut self.engine, mux => mux.write_bytes(key, data), waiting => waiting.no_write())
    }

    /// Sends `data` as exactly one message.
    ///
    /// `Pending` as for [`write`](Mux::write).
    ///
    /// # Errors
    ///
    /// Those of [`write`](Mux::write), and [`WriteError::TooLong`] above
    /// [`max_data`](MuxConfig::max_data) or what the peer takes.
    pub fn send(&mut self, key: StreamKey, data: &Bytes) -> Poll<Result<(), WriteError>> {
        dispatch!(&mut self.engine, mux => mux.send(key, data), waiting => waiting.no_write())
    }

    /// Ends our direction after what was written. Repeated calls change nothing.
    ///
    /// # Errors
    ///
    /// [`WriteError`] when the end cannot be sent any more.
    pub fn shutdown(&mut self, key: StreamKey) -> Result<(), WriteError> {
        dispatch!(&mut self.engine, mux => mux.shutdown(key), waiting => waiting.check())
    }

    /// Gives our direction up: the peer's reader gets `code` instead of what it has not read. `ged` has no such
    /// thing: there it is a [`shutdown`](Mux::shutdown), which loses nothing and says nothing of the code.
    pub fn reset(&mut self, key: StreamKey, code: u32) {
        match &mut self.engine {
            Engine::Dilated1(mux) => mux.reset(key, code),
            // After the end there is nothing to shut down.
            Engine::Ged(mux) => drop(mux.shutdown(key)),
            Engine::Waiting(_) => {}
        }
    }

    /// Gives the peer's direction up: its writer gets `code`, and reading is an error from now on. `ged` has no such
    /// thing: there the rest is discarded, and the peer goes on writing.
    pub fn stop(&mut self, key: StreamKey, code: u32) {
        match &mut self.engine {
            Engine::Dilated1(mux) => mux.stop(key, code),
            Engine::Ged(mux) => mux.discard(key),
            Engine::Waiting(_) => {}
        }
    }

    /// Copies received bytes out, as many as there are and fit; 0 (for a buffer that is not empty) is the
    /// end of the stream, which is the peer's and nothing else.
    ///
    /// `Pending` while there are none; then [`Event::Readable`] follows.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when the peer gave its direction up or the wormhole ended before.
    pub fn read(&mut self, key: StreamKey, buf: &mut [u8]) -> Poll<Result<usize, ReadError>> {
        dispatch!(&mut self.engine, mux => mux.read(key, buf), waiting => waiting.no_read(0))
    }

    /// The next received chunk as shared memory, `None` at the end of the stream. Never empty: messages
    /// without bytes are skipped.
    ///
    /// # Errors
    ///
    /// As [`read`](Mux::read).
    pub fn read_chunk(&mut self, key: StreamKey) -> Poll<Result<Option<Bytes>, ReadError>> {
        dispatch!(&mut self.engine, mux => mux.read_chunk(key), waiting => waiting.no_read(None))
    }

    /// The next message, or what earlier reads left of it; `None` at the end of the stream. A message may be
    /// empty.
    ///
    /// # Errors
    ///
    /// As [`read`](Mux::read).
    pub fn recv(&mut self, key: StreamKey) -> Poll<Result<Option<Bytes>, ReadError>> {
        dispatch!(&mut self.engine, mux => mux.recv(key), waiting => waiting.no_read(None))
    }

    /// Sends `data` once, if the link has room soon; it may be lost.
    ///
    /// # Errors
    ///
    /// [`DatagramError`] for one that is too long, and always in `ged`.
    pub fn send_datagram(&mut self, key: StreamKey, data: Bytes) -> Result<(), DatagramError> {
        match &mut self.engine {
            Engine::Dilated1(mux) => mux.send_datagram(key, data),
            Engine::Ged(_) | Engine::Waiting(_) => Err(DatagramError::Unsupported),
        }
    }

    /// The next datagram of the peer; `None` when none will come, which is always so in `ged`.
    ///
    /// `Pending` while there is none; then [`Event::Readable`] follows.
    ///
    /// # Errors
    ///
    /// As [`read`](Mux::read).
    pub fn recv_datagram(&mut self, key: StreamKey) -> Poll<Result<Option<Bytes>, ReadError>> {
        match &mut self.engine {
            Engine::Dilated1(mux) => mux.recv_datagram(key),
            Engine::Ged(_) | Engine::Waiting(_) => Poll::Ready(Ok(None)),
        }
    }

    /// The longest datagram that the peer takes, in bytes; 0 if it takes none, as in `ged`.
    pub fn max_datagram(&self) -> usize {
        self.as_dilated1().map_or(0, dilated1::Mux::max_datagram)
    }

    /// How far the subchannel was written: a mark for [`poll_acknowledged`](Mux::poll_acknowledged).
    pub fn written(&self, key: StreamKey) -> u64 {
        dispatch!(&self.engine, mux => mux.written(key), _waiting => 0)
    }

    /// Payload bytes of this subchannel that the peer has acknowledged.
    pub fn bytes_acknowledged(&self, key: StreamKey) -> u64 {
        dispatch!(&self.engine, mux => mux.bytes_acknowledged(key), _waiting => 0)
    }

    /// `Ready` when the peer has acknowledged everything up to `mark`, which [`written`](Mux::written)
    /// gave. That says that the peer's wormhole has the bytes, not that its application has read them.
    ///
    /// `Pending` until then; [`Event::Acknowledged`] follows each step.
    ///
    /// # Errors
    ///
    /// [`UnacknowledgedError`] when that will not happen.
    pub fn poll_acknowledged(&self, key: StreamKey, mark: u64) -> Poll<Result<(), UnacknowledgedError>> {
        dispatch!(&self.engine, mux => mux.poll_acknowledged(key, mark), _waiting => Poll::Ready(Ok(())))
    }

    /// The application will not read any more: what waits and what comes is discarded. The key stays valid
    /// for writing.
    pub fn release_read(&mut self, key: StreamKey) {
        dispatch!(&mut self.engine, mux => mux.release_read(key), _waiting => ());
    }

    /// The application will not write any more: [`shutdown`](Mux::shutdown), if that was not done. The
    /// key stays valid for reading.
    pub fn release_write(&mut self, key: StreamKey) {
        dispatch!(&mut self.engine, mux => mux.release_write(key), _waiting => ());
    }

    /// Lets go of a subchannel: what was written is still sent, then its end; what comes is discarded.
    pub fn release(&mut self, key: StreamKey) {
        dispatch!(&mut self.engine, mux => mux.release(key), _waiting => ());
    }
}

/// There are no subchannels yet, so any key is an old one.
impl Waiting {
    fn check(&self) -> Result<(), WriteError> {
        self.ended.as_ref().map_or(Ok(()), |reason| Err(WriteError::Ended(reason.clone())))
    }

    fn no_write<T>(&self) -> Poll<Result<T, WriteError>> {
        Poll::Ready(Err(self.check().err().unwrap_or(WriteError::ShutDown)))
    }

    fn no_read<T>(&self, end: T) -> Poll<Result<T, ReadError>> {
        Poll::Ready(self.ended.as_ref().map_or(Ok(end), |reason| Err(ReadError::Ended(reason.clone()))))
    }
}
