//! Looks for one connection that both sides use.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use bytes::BytesMut;
use tokio::{net::TcpStream, sync::mpsc};

use super::{ConnectError, TransitConfig, TransitPipe};
use crate::{
    contact::Contact,
    hint::Hint,
    net::{
        attempt::{Handshake, Refusal, drive},
        attempts::Attempts,
        connector::{accept, sleep_until},
        dial,
        listener::Listener,
        now,
    },
    path::Path,
    prologue::{RelayError, RelayRequest},
    race::{Dial, DialId, Race, Retry, Route},
    v1::{Part, TransitError, TransitHandshake, TransitStage},
};

/// What the tasks tell.
enum Report {
    Connected(DialId),
    Done { dial: Option<DialId>, path: Path, result: Result<Box<Ready>, Refusal> },
}

/// Nobody can come to us, and nothing that we could dial is the other side.
struct Over;

/// A connection whose handshake is finished. If it is a Sender's and is not taken, the other side is told.
pub(super) struct Ready(pub(super) Option<(TcpStream, TransitHandshake)>);

impl Ready {
    fn take(mut self, path: Path) -> TransitPipe {
        let (stream, handshake) = self.0.take().expect("it is taken here only, and this is its end");
        TransitPipe::new(stream, handshake, path)
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        if let Some((stream, handshake)) = self.0.take() {
            // It is short, and the buffer of a new connection takes it.
            let _ = stream.try_write(handshake.refuse());
        }
    }
}

pub(super) struct Search {
    part: Part,
    config: TransitConfig,
    listener: Option<Listener>,
    request: RelayRequest,
    race: Race,
    dials: Attempts,
    inbound: Attempts,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    failures: BTreeMap<Path, String>,
}

impl Search {
    pub(super) fn new(
        part: Part,
        config: TransitConfig,
        listener: Option<Listener>,
        side: &str,
        peer_hints: &[Hint],
    ) -> Result<Search, ConnectError> {
        let request = config.key.relay_request(side).expect("the side was made of 16 hexadecimal digits");
        let mut rules = config.limits.race.clone();
        // Without an address to dial, nothing is gained by keeping the relays waiting.
        rules.tor = config.proxy.is_some();
        rules.listen = peer_hints.iter().any(|hint| match hint {
            Hint::Direct(_) => true,
            Hint::Tor(_) => rules.tor,
            Hint::Relay(_) => false,
        });
        let mut race = Race::new(rules, &config.relays, now());
        race.handle_hints(peer_hints, now());
        if listener.is_none() && race.is_over() {
            return Err(ConnectError::NoWay);
        }
        let (reporter, reports) = mpsc::channel(16);
        let (dials, inbound, failures) = Default::default();
        Ok(Search { part, config, listener, request, race, dials, inbound, reports, reporter, failures })
    }

    pub(super) async fn run(mut self) -> Result<TransitPipe, ConnectError> {
        let timeout = self.config.limits.timeout;
        let found = async {
            loop {
                let (ready, path) = self.find().await?;
                let mut pipe = ready.take(path);
                // The choice has to reach the other side before anything else may happen.
                match pipe.writer.flush().await {
                    Ok(()) => return Ok(pipe),
                    Err(error) => tracing::debug!(%error, "the connection broke when it was chosen"),
                }
            }
        };
        let found = tokio::time::timeout(timeout, found).await;
        let failures = || self.failures.into_iter().collect();
        match found {
            Ok(Ok(pipe)) => Ok(pipe),
            Ok(Err(Over)) => Err(ConnectError::NothingLeft { failures: failures() }),
            Err(_) => Err(ConnectError::Timeout { timeout, failures: failures() }),
        }
    }

    async fn find(&mut self) -> Result<(Box<Ready>, Path), Over> {
        loop {
            if self.listener.is_none() && self.race.is_over() {
                return Err(Over);
            }
            while let Some(dial) = self.race.poll_dial(now()) {
                self.dial(dial);
            }
            let due = self.race.poll_timeout();
            tokio::select! {
                Some(report) = self.reports.recv() => match report {
                    Report::Connected(id) => self.race.handle_connected(id),
                    Report::Done { path, result: Ok(ready), .. } => return Ok((ready, path)),
                    Report::Done { dial, path, result: Err(Refusal { reason, retry }) } => {
                        tracing::debug!(%path, reason, "no connection");
                        if let Some(id) = dial {
                            self.race.handle_failed(id, retry, now());
                            self.failures.insert(path, reason);
                        }
                    }
                },
                (stream, from) = accept(self.listener.as_ref()) => self.accept(stream, from),
                () = self.dials.reap() => {}
                () = self.inbound.reap() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    fn dial(&mut self, dial: Dial) {
        let contact = match dial.route {
            Route::Direct => Contact::Dialled,
            Route::Relay => Contact::Relay(&self.request),
        };
        let handshake = TransitHandshake::new(self.part, self.config.key.clone(), contact);
        let (timeout, reporter) = (self.config.limits.handshake_timeout, self.reporter.clone());
        let proxy = self.config.proxy.clone();
        self.dials.spawn(|_| async move {
            let result = match dial::connect(&dial.endpoint, proxy.as_ref(), dial.patience).await {
                Ok(stream) => {
                    let _ = reporter.send(Report::Connected(dial.id)).await;
                    shake(stream, handshake, timeout).await
                }
                Err(refusal) => Err(refusal),
            };
            let _ = reporter.send(Report::Done { dial: Some(dial.id), path: dial.path(), result }).await;
        });
    }

    fn accept(&mut self, stream: TcpStream, from: SocketAddr) {
        dial::prepare(&stream);
        let handshake = TransitHandshake::new(self.part, self.config.key.clone(), Contact::Accepted);
        let (timeout, reporter) = (self.config.limits.handshake_timeout, self.reporter.clone());
        self.inbound.limit(self.config.limits.inbound.saturating_sub(1));
        self.inbound.spawn(|_| async move {
            let result = shake(stream, handshake, timeout).await;
            let _ = reporter.send(Report::Done { dial: None, path: Path::inbound(from), result }).await;
        });
    }
}

async fn shake(
    mut stream: TcpStream,
    handshake: TransitHandshake,
    timeout: Duration,
) -> Result<Box<Ready>, Refusal> {
    let relayed = handshake.stage() == TransitStage::Relay;
    let mut shaking = Shaking { handshake, relayed };
    drive(&mut stream, &mut shaking, timeout).await?;
    Ok(Box::new(Ready(Some((stream, shaking.handshake)))))
}

/// The handshake, and whether it goes through a relay.
struct Shaking {
    handshake: TransitHandshake,
    relayed: bool,
}

impl Handshake for Shaking {
    type Stage = TransitStage;

    fn poll_output(&mut self) -> Option<BytesMut> {
        self.handshake.poll_output()
    }

    fn handle_input(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.handshake
            .handle_input(bytes)
            .map_err(|error| Refusal { reason: error.to_string(), retry: retry(&error, self.relayed) })
    }

    fn handle_eof(&mut self) -> String {
        self.handshake.handle_eof().to_string()
    }

    fn unfinished(&self) -> Option<String> {
        self.handshake.unfinished().map(|error| error.to_string())
    }

    fn is_reticent(&self) -> bool {
        self.handshake.is_reticent()
    }

    fn handle_silence(&mut self) {
        self.handshake.handle_silence();
    }

    fn stage(&self) -> TransitStage {
        self.handshake.stage()
    }

    fn is_at_relay(&self) -> bool {
        self.handshake.stage() == TransitStage::Relay
    }

    fn is_unhurried(&self) -> bool {
        self.handshake.is_unhurried()
    }

    fn is_done(&self) -> bool {
        self.handshake.stage() == TransitStage::Ready
    }
}

/// Whether what answered so could be the other side another time.
fn retry(error: &TransitError, relayed: bool) -> Retry {
    match error {
        TransitError::Relay(RelayError::BadHandshake) => Retry::Never,
        _ if relayed => Retry::Later,
        // Perhaps we dialled ourselves, under an address that the other side has, too.
        TransitError::AnotherTransfer(_) => Retry::Later,
        // It may have had too many others at the time.
        TransitError::Closed(_) => Retry::Later,
        _ => Retry::Never,
    }
}
