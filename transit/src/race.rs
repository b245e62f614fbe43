//! The race of one search for a link: which endpoints to dial and when. The first candidate whose key is confirmed wins
//! it, in both roles: the Leader waits for no better path (specification `ged`), and the Follower sees a confirmation only
//! on the link that the Leader chose.
//!
//! | what | when |
//! |---|---|
//! | a direct hint of the peer | at once |
//! | a relay in a message that also had a direct hint, while we listen | 2 s later |
//! | any other relay of the peer | at once |
//! | a relay of ours | after 2 s while we listen, for direct hints may come; else at once |
//! | relays of lower priority | 2 s later per step of priority |
//! | an endpoint that failed | again after 250 ms, 500 ms, 1 s ... at most 10 s, as long as the race lasts |
//! | an endpoint that failed and is named again | 250 ms after its last failure |
//! | a relay in `dilated-1` | once for each token under which the peer may wait there |
//!
//! (Specification `ged`, section "Connection hints".) The retries are ours: the Python implementation dials each
//! hint once and then waits for ever, so that a relay which was down for a moment costs the generation. A peer
//! that has chosen closes its listener and refuses late dials, which these bounds keep harmless.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    hint::{Hint, RelayHint, TcpHint},
    path::Path,
};

/// The rules of a race.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaceConfig {
    /// Whether the peer can dial us.
    pub listen: bool,
    /// Whether the peer's Tor endpoints can be dialled. Default false.
    pub tor: bool,
    /// Most direct endpoints of the peer that are dialled in one generation. Default 32. A peer could make us
    /// attack a third party with dials.
    pub max_direct: usize,
    /// Most relay endpoints of the peer that are dialled in one generation. Default 8. Our own relays do not count.
    pub max_relays: usize,
    /// Most dials that wait for TCP at the same time. Default 16.
    pub max_concurrent: usize,
    /// How long a relay waits for direct paths, and each lower step of priority for the one above. Default 2 s.
    pub relay_delay: Duration,
    /// The same when there was a link before: what lies between two who have met is known to be fast. Default 500 ms.
    pub relay_delay_again: Duration,
    /// The wait before an endpoint that failed is dialled again; it doubles each time. Default 250 ms.
    pub retry_first: Duration,
    /// The wait before an endpoint that failed is dialled again because it is named again, if
    /// [`retry_first`](Self::retry_first) is not shorter. Default 250 ms.
    pub retry_named: Duration,
    /// The longest such wait. Default 10 s.
    pub retry_max: Duration,
    /// How long the first dial of an endpoint may take, name resolution included; it doubles each time. A path that
    /// swallowed the first packets may be open again, and the system repeats them later and later. Default 2 s.
    pub patience_first: Duration,
    /// The longest such patience. Default 20 s.
    pub patience_max: Duration,
    /// How many generations beyond its own the peer may be in: each relay is dialled that many times more, to wait there
    /// under their tokens, too. Default 0.
    pub relays_ahead: u8,
}

impl Default for RaceConfig {
    fn default() -> RaceConfig {
        RaceConfig {
            listen: true,
            tor: false,
            max_direct: 32,
            max_relays: 8,
            max_concurrent: 16,
            relay_delay: Duration::from_secs(2),
            relay_delay_again: Duration::from_millis(500),
            retry_first: Duration::from_millis(250),
            retry_named: Duration::from_millis(250),
            retry_max: Duration::from_secs(10),
            patience_first: Duration::from_secs(2),
            patience_max: Duration::from_secs(20),
            relays_ahead: 0,
        }
    }
}

/// How an endpoint is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// The endpoint is the peer.
    Direct,
    /// The endpoint is a relay.
    Relay,
}

/// Who named an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Our own configuration.
    Own,
    /// The peer, so be careful with it.
    Peer,
}

/// Names one endpoint of a race.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialId(usize);

/// An endpoint to dial now.
#[derive(Debug, Clone, PartialEq)]
pub struct Dial {
    /// To be given back to [`Race::handle_connected`] and [`Race::handle_failed`].
    pub id: DialId,
    /// The endpoint.
    pub endpoint: TcpHint,
    /// What the endpoint is.
    pub route: Route,
    /// Who named it.
    pub origin: Origin,
    /// At a relay, how many generations beyond ours the token is; else 0.
    pub ahead: u8,
    /// How long it may take until TCP is connected.
    pub patience: Duration,
}

impl Dial {
    /// How a link over this dial would be described.
    #[must_use]
    pub fn path(&self) -> Path {
        match self.route {
            Route::Direct => Path::direct(&self.endpoint),
            Route::Relay => Path::relay(&self.endpoint),
        }
    }
}

/// Whether another attempt makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The network failed, or the other side was not there.
    Later,
    /// Whatever is there is not the other side.
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be dialled at `due`, and after `failures` failed attempts not before `earliest`, whatever comes.
    Waiting { due: Instant, earliest: Option<Instant>, failures: u32 },
    /// TCP is connecting.
    Dialing { failures: u32 },
    /// TCP is connected; the handshake runs.
    Connected { failures: u32 },
    /// Not to be dialled again.
    Abandoned,
}

#[derive(Debug)]
struct Target {
    endpoint: TcpHint,
    route: Route,
    origin: Origin,
    ahead: u8,
    state: State,
}

/// One search's race, without I/O and without a clock.
///
/// After each `handle_*`, and when [`poll_timeout`](Self::poll_timeout) has passed, take everything from
/// [`poll_dial`](Self::poll_dial).
#[derive(Debug)]
pub struct Race {
    config: RaceConfig,
    targets: Vec<Target>,
    known: BTreeMap<(Route, u8, (String, u16)), DialId>,
}

impl Race {
    /// Starts a race; our own relays are dialled by it, too.
    #[must_use]
    pub fn new(config: RaceConfig, own_relays: &[RelayHint], now: Instant) -> Race {
        let mut race = Race { config, targets: Vec::new(), known: BTreeMap::new() };
        let delay = if race.config.listen { race.config.relay_delay } else { Duration::ZERO };
        race.add_relays(own_relays.iter(), Origin::Own, now + delay);
        race
    }

    /// Takes the hints of one message of the peer. Hints already known are not dialled twice, hints over the
    /// limits are dropped, and Tor hints are ignored without Tor.
    pub fn handle_hints(&mut self, hints: &[Hint], now: Instant) {
        let mut delay = Duration::ZERO;
        for hint in hints {
            let endpoint = match hint {
                Hint::Direct(endpoint) => endpoint,
                Hint::Tor(endpoint) if self.config.tor => endpoint,
                Hint::Tor(_) | Hint::Relay(_) => continue,
            };
            self.add(endpoint, Route::Direct, 0, Origin::Peer, now);
            if self.config.listen {
                delay = self.config.relay_delay;
            }
        }
        let relays = hints.iter().filter_map(|hint| match hint {
            Hint::Relay(relay) => Some(relay),
            _ => None,
        });
        self.add_relays(relays, Origin::Peer, now + delay);
    }

    /// The next endpoint to dial now, if there is one and the limit on concurrent dials allows it.
    pub fn poll_dial(&mut self, now: Instant) -> Option<Dial> {
        let (due, index) = self.next_due()?;
        if due > now {
            return None;
        }
        let target = self.targets.get_mut(index)?;
        let State::Waiting { failures, .. } = target.state else { return None };
        target.state = State::Dialing { failures };
        Some(Dial {
            id: DialId(index),
            endpoint: target.endpoint.clone(),
            route: target.route,
            origin: target.origin,
            ahead: target.ahead,
            patience: doubled(self.config.patience_first, failures, self.config.patience_max),
        })
    }

    /// Whether nothing is dialled any more, now or later: there is no endpoint, or none of them is what it was taken for.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.targets.iter().all(|target| target.state == State::Abandoned)
    }

    /// When [`poll_dial`](Self::poll_dial) will have something, if nothing else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_due().map(|(due, _)| due)
    }

    /// TCP is connected; the dial no longer counts as concurrent.
    pub fn handle_connected(&mut self, id: DialId) {
        if let Some(target) = self.targets.get_mut(id.0)
            && let State::Dialing { failures } = target.state
        {
            target.state = State::Connected { failures };
        }
    }

    /// A dial or its handshake failed.
    pub fn handle_failed(&mut self, id: DialId, retry: Retry, now: Instant) {
        let (first, named, max) = (self.config.retry_first, self.config.retry_named, self.config.retry_max);
        let Some(target) = self.targets.get_mut(id.0) else { return };
        let (State::Dialing { failures } | State::Connected { failures }) = target.state else { return };
        target.state = match retry {
            Retry::Never => State::Abandoned,
            Retry::Later => {
                let wait = doubled(first, failures, max);
                State::Waiting {
                    due: now + wait,
                    earliest: Some(now + first.min(named)),
                    failures: failures.saturating_add(1),
                }
            }
        };
    }

    /// The earliest target that may be dialled, with its time.
    fn next_due(&self) -> Option<(Instant, usize)> {
        let dialing = self.targets.iter().filter(|t| matches!(t.state, State::Dialing { .. })).count();
        if dialing >= self.config.max_concurrent {
            return None;
        }
        let waiting = self.targets.iter().enumerate().filter_map(|(index, target)| match target.state {
            State::Waiting { due, .. } => Some((due, index)),
            _ => None,
        });
        waiting.min()
    }

    fn add_relays<'a>(&mut self, relays: impl Iterator<Item = &'a RelayHint>, origin: Origin, at: Instant) {
        let endpoints: Vec<&TcpHint> = relays.flat_map(RelayHint::hints).collect();
        let tier = |hint: &TcpHint| Tier(hint.priority());
        let tiers: Vec<Tier> =
            endpoints.iter().map(|hint| tier(hint)).collect::<BTreeSet<_>>().into_iter().rev().collect();
        for endpoint in endpoints {
            let steps = tiers.iter().position(|t| *t == tier(endpoint)).unwrap_or(0);
            let steps = u32::try_from(steps).unwrap_or(u32::MAX);
            let delay = self.config.relay_delay.saturating_mul(steps);
            for ahead in 0..=self.config.relays_ahead {
                self.add(endpoint, Route::Relay, ahead, origin, at + delay);
            }
        }
    }

    fn add(&mut self, endpoint: &TcpHint, route: Route, ahead: u8, origin: Origin, due: Instant) {
        let key = (route, ahead, endpoint.endpoint());
        if let Some(id) = self.known.get(&key) {
            // Named again: the earlier time counts, for the peer may listen only now. But not at once after a failure, or
            // a peer could make us dial as often as it likes by repeating itself.
            if let Some(target) = self.targets.get_mut(id.0)
                && let State::Waiting { due: before, earliest, failures } = target.state
            {
                target.state = State::Waiting {
                    due: due.min(before).max(earliest.unwrap_or(before.min(due))),
                    earliest,
                    failures,
                };
            }
            return;
        }
        let limit = match route {
            Route::Direct => self.config.max_direct,
            Route::Relay => self.config.max_relays,
        };
        let alike = |t: &&Target| (t.route, t.ahead, t.origin) == (route, ahead, Origin::Peer);
        let alike = self.targets.iter().filter(alike).count();
        if origin == Origin::Peer && alike >= limit {
            return;
        }
        self.known.insert(key, DialId(self.targets.len()));
        let state = State::Waiting { due, earliest: None, failures: 0 };
        self.targets.push(Target { endpoint: endpoint.clone(), route, origin, ahead, state });
    }
}

/// `base · 2^times`, at most `max`.
fn doubled(base: Duration, times: u32, max: Duration) -> Duration {
    base.saturating_mul(2u32.saturating_pow(times)).min(max)
}

/// A priority that can be sorted: it is always finite, and 0 and -0 are the same step.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tier(f64);

impl Eq for Tier {}

impl PartialOrd for Tier {
    fn partial_cmp(&self, other: &Tier) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Tier {
    fn cmp(&self, other: &Tier) -> std::cmp::Ordering {
        // Adding 0 turns -0 into 0.
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

#[cfg(test)]
mod tests;
