//! What happens to the network and the machines, and when: the events of the network lab, at random.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

/// The disturbances of a schedule begin before this, in milliseconds.
const HORIZON_MS: u64 = 600_000;
const MOST_DISTURBANCES: usize = 12;

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The host has this address now; 0 is none.
    Address(usize, u32),
    /// Nothing that the host sends gets anywhere.
    Mute(usize, bool),
    /// Nothing gets to the host.
    Deaf(usize, bool),
    /// Nothing that the host sends gets to the other side.
    Shun(usize, bool),
    /// A connection is reset by something on the way, the link in use if there is one.
    Reset { clean: bool },
    /// The process of the relay.
    Relay(bool),
    /// The process of the mailbox server.
    Mailbox(bool),
    /// The way of one side to the mailbox server is cut, without a sign.
    Away(usize, bool),
    /// The process stands still; its kernel goes on.
    Freeze(usize),
    /// The machine sleeps.
    Suspend(usize),
    /// It goes on.
    Wake(usize),
    /// The application gives the link up.
    Abandon(usize),
    /// The side makes any of its links the active one, in `dilated-1`.
    Switch(usize),
    /// From now on a connection breaks when it has carried so many bytes one way.
    Life(Option<usize>),
    /// Time passes.
    Nothing,
    /// The application closes its wormhole, and drops what it has, or reads on.
    Close { host: usize, drops: bool },
}

/// Changes with their times since the start, in order.
pub(crate) type Schedule = Vec<(Duration, Change)>;

/// Any of the disturbances, anywhere and into each other.
pub(crate) fn random(rng: &mut StdRng) -> Schedule {
    let mut schedule = Schedule::new();
    let mut at = Duration::ZERO;
    for _ in 0..rng.random_range(0..=MOST_DISTURBANCES) {
        // Many come while the last one is still being dealt with.
        at = if rng.random_bool(0.4) { at + millis(rng, 0, 8000) } else { millis(rng, 0, HORIZON_MS) };
        disturb(at, &mut schedule, rng);
    }
    schedule.sort_by_key(|(at, _)| *at);
    schedule
}

/// Resets and nothing else, while the two sides are busy.
pub(crate) fn cuts(rng: &mut StdRng) -> Schedule {
    let cuts = rng.random_range(0..8);
    let mut schedule: Schedule =
        (0..cuts).map(|_| (millis(rng, 0, 15_000), Change::Reset { clean: rng.random() })).collect();
    schedule.sort_by_key(|(at, _)| *at);
    schedule
}

/// Whatever can be survived without the mailbox: one side stays where it is, or the relay answers.
pub(crate) fn without_mailbox(rng: &mut StdRng) -> Schedule {
    let host = rng.random_range(0..2);
    let kept = |change: &Change| match change {
        Change::Mailbox(_) | Change::Away(..) => false,
        Change::Address(moved, _) => *moved == host,
        _ => true,
    };
    let mut schedule = random(rng);
    schedule.retain(|(_, change)| kept(change));
    // There has to be a link before.
    schedule.iter_mut().for_each(|(at, _)| *at += Duration::from_secs(60));
    schedule
}

/// The two sides do not reach each other at first, but for the relay.
pub(crate) fn upgrade(rng: &mut StdRng) -> Schedule {
    let shun = |at, on| [0, 1].map(|host| (at, Change::Shun(host, on)));
    let mut schedule = Schedule::from(shun(Duration::ZERO, true));
    schedule.extend(shun(millis(rng, 8000, 60_000), false));
    schedule
}

/// The link in use breaks, now and then, when another one has had the time to come.
pub(crate) fn failover(rng: &mut StdRng) -> Schedule {
    let mut schedule = Schedule::new();
    let mut at = Duration::from_secs(60);
    for _ in 0..rng.random_range(1..5) {
        match rng.random_range(0..5) {
            0 => schedule.push((at, Change::Reset { clean: rng.random() })),
            1 => {
                let end = at + millis(rng, 100, 8000);
                for host in [0, 1] {
                    schedule.extend([(at, Change::Shun(host, true)), (end, Change::Shun(host, false))]);
                }
            }
            2 => {
                let (host, end) = (rng.random_range(0..2), at + millis(rng, 100, 8000));
                schedule.extend([(at, Change::Shun(host, true)), (end, Change::Shun(host, false))]);
            }
            3 => schedule.push((at, Change::Abandon(rng.random_range(0..2)))),
            _ => {
                // Both at about the same time, now and then each another one.
                for _ in 0..rng.random_range(1..6) {
                    schedule.push((at + millis(rng, 0, 200), Change::Switch(rng.random_range(0..2))));
                }
            }
        }
        at += millis(rng, 60_000, 120_000);
    }
    schedule.sort_by_key(|(at, _)| *at);
    schedule
}

/// How long connections go on breaking: all must be done by then.
const YOUNG: Duration = Duration::from_secs(400);

/// Connections that carry little more than what goes ahead with caution, or many times that.
pub(crate) fn young(rng: &mut StdRng) -> Schedule {
    let life = rng.random_range(6000..20_000);
    vec![(Duration::ZERO, Change::Life(Some(life))), (YOUNG, Change::Life(None))]
}

/// Some disturbances, and a close of one side or both, often in the middle of them.
pub(crate) fn close(rng: &mut StdRng) -> Schedule {
    if rng.random_bool(0.1) {
        return close_alone(rng);
    }
    let mut schedule = Schedule::new();
    let mut at = Duration::ZERO;
    for _ in 0..rng.random_range(0..5) {
        at = if rng.random_bool(0.4) { at + millis(rng, 0, 3000) } else { millis(rng, 0, 30_000) };
        disturb(at, &mut schedule, rng);
    }
    // Who sleeps cannot keep a deadline.
    let asleep = |change: &Change| matches!(change, Change::Freeze(_) | Change::Suspend(_) | Change::Wake(_));
    schedule.retain(|(_, change)| !asleep(change));
    let mut at = millis(rng, 0, 30_000);
    if !schedule.is_empty() && rng.random_bool(0.6) {
        let near = schedule[rng.random_range(0..schedule.len())].0;
        at = (near + millis(rng, 0, 1500)).saturating_sub(Duration::from_millis(500));
    }
    let host = rng.random_range(0..2);
    schedule.push((at, Change::Close { host, drops: rng.random() }));
    if rng.random_bool(0.4) {
        let most = [0, 500, 15_000][rng.random_range(0..3)];
        let at = at + millis(rng, 0, most);
        schedule.push((at, Change::Close { host: 1 - host, drops: rng.random() }));
    }
    schedule.sort_by_key(|(at, _)| *at);
    rest(schedule)
}

/// For a side that was told nothing: it may still notice.
fn rest(mut schedule: Schedule) -> Schedule {
    let last = schedule.last().map_or(Duration::ZERO, |(at, _)| *at);
    schedule.push((last + Duration::from_secs(5), Change::Nothing));
    schedule
}

/// One side is cut off for ever, and the other one closes, a little before that or at any time later.
fn close_alone(rng: &mut StdRng) -> Schedule {
    let (host, at) = (rng.random_range(0..2), millis(rng, 0, 20_000));
    let mut schedule = vec![(at, Change::Mute(1 - host, true)), (at, Change::Deaf(1 - host, true))];
    let close = at + millis(rng, 0, 20_000).saturating_sub(Duration::from_secs(2));
    schedule.push((close, Change::Close { host, drops: rng.random() }));
    schedule.sort_by_key(|(at, _)| *at);
    rest(schedule)
}

fn millis(rng: &mut StdRng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.random_range(from..=to))
}

/// How long something lasts: shorter than any timer, or longer than all that matter.
fn lasting(rng: &mut StdRng) -> Duration {
    match rng.random_range(0..10) {
        0..=3 => millis(rng, 100, 4000),
        4..=7 => millis(rng, 4000, 40_000),
        _ => millis(rng, 40_000, 300_000),
    }
}

fn disturb(at: Duration, schedule: &mut Schedule, rng: &mut StdRng) {
    let host = rng.random_range(0..2);
    let end = at + lasting(rng);
    let mut during = |on: Change, off: Change| schedule.extend([(at, on), (end, off)]);
    match rng.random_range(0..16) {
        0 | 1 => schedule.push((at, moved(host, rng))),
        2 => schedule.extend([(at, moved(0, rng)), (at + millis(rng, 0, 200), moved(1, rng))]),
        3 => {
            // Many changes in a row.
            let mut at = at;
            for _ in 0..rng.random_range(2..8) {
                schedule.push((at, moved(host, rng)));
                at += millis(rng, 0, 1500);
            }
        }
        4 => during(Change::Address(host, 0), moved(host, rng)),
        5 => during(Change::Mute(host, true), Change::Mute(host, false)),
        6 => during(Change::Deaf(host, true), Change::Deaf(host, false)),
        7 => {
            for (when, on) in [(at, true), (end, false)] {
                schedule.extend([(when, Change::Mute(host, on)), (when, Change::Deaf(host, on))]);
            }
        }
        8 => {
            let both = rng.random_bool(0.5);
            for (when, on) in [(at, true), (end, false)] {
                schedule.push((when, Change::Shun(host, on)));
                if both {
                    schedule.push((when, Change::Shun(1 - host, on)));
                }
            }
        }
        9 => schedule.push((at, Change::Reset { clean: rng.random() })),
        10 => during(Change::Relay(false), Change::Relay(true)),
        11 => during(Change::Mailbox(false), Change::Mailbox(true)),
        12 => during(Change::Away(host, true), Change::Away(host, false)),
        13 => {
            during(Change::Mailbox(false), Change::Mailbox(true));
            schedule.push((at + millis(rng, 0, 500), Change::Reset { clean: rng.random() }));
        }
        14 => sleep(at, host, schedule, rng),
        _ => schedule.push((at, Change::Abandon(host))),
    }
}

fn moved(host: usize, rng: &mut StdRng) -> Change {
    // Few addresses, so that a host comes back to a former one now and then.
    Change::Address(host, crate::network::address(host, rng.random_range(1..5)))
}

/// One or both, sometimes for longer than every timer, sometimes to wake somewhere else.
fn sleep(at: Duration, host: usize, schedule: &mut Schedule, rng: &mut StdRng) {
    let both = rng.random_bool(0.4);
    for host in if both { vec![0, 1] } else { vec![host] } {
        let end = at + if rng.random_bool(0.1) { millis(rng, 700_000, 900_000) } else { lasting(rng) };
        let change = if rng.random() { Change::Freeze(host) } else { Change::Suspend(host) };
        schedule.push((at + millis(rng, 0, 300), change));
        if rng.random_bool(0.3) {
            schedule.push((end, moved(host, rng)));
        }
        schedule.push((end.max(at + Duration::from_millis(301)), Change::Wake(host)));
    }
}
