//! What goes wrong, at random.

use std::{fmt, time::Duration};

use dilated_tests::proxy::{Faults, Proxy};
use rand::{RngExt, rngs::StdRng};

use crate::{pair::Pair, world::World};

/// Three unanswered pings, and something for a loaded machine: a stall below this need not cost the link.
const DEATH: Duration = Duration::from_millis(600);

/// Which servers a fault hits.
#[derive(Debug, Clone, Copy)]
enum Way {
    Mailbox,
    Relay,
    Both,
}

/// Whose way to them.
#[derive(Debug, Clone, Copy)]
enum Whose {
    One(usize),
    Everyones,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// All connections are reset.
    Reset,
    /// What is sent vanishes for a while: out, back, or both.
    Stall {
        out: bool,
        back: bool,
    },
    /// Reset, and refused for a while.
    Down,
    /// Connections made in this time carry so many bytes and are reset.
    CutAfter(u64),
    /// A slow network for a while, in bytes in a second.
    Slow(u32),
    RestartMailbox,
    RestartRelay,
    /// One side of a pair gives its link up.
    Abandon {
        pair: usize,
        side: usize,
    },
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    what: What,
    way: Way,
    whose: Whose,
    lasts: Duration,
}

impl Fault {
    pub(crate) fn random(rng: &mut StdRng, pairs: usize) -> Fault {
        let what = match rng.random_range(0..100) {
            0..20 => What::Reset,
            20..45 => match rng.random_range(0..3) {
                0 => What::Stall { out: true, back: false },
                1 => What::Stall { out: false, back: true },
                _ => What::Stall { out: true, back: true },
            },
            45..60 => What::Down,
            60..67 => What::CutAfter(rng.random_range(20_000..600_000)),
            67..74 => What::Slow(rng.random_range(100_000..2_000_000)),
            74..80 => What::RestartMailbox,
            80..85 => What::RestartRelay,
            _ => What::Abandon { pair: rng.random_range(0..pairs), side: rng.random_range(0..2) },
        };
        let way = match rng.random_range(0..4) {
            0 => Way::Mailbox,
            1 | 2 => Way::Relay,
            _ => Way::Both,
        };
        let whose = match rng.random_range(0..3) {
            side @ 0..2 => Whose::One(side),
            _ => Whose::Everyones,
        };
        let death = u64::try_from(DEATH.as_millis()).expect("less than a second");
        let lasts = match rng.random_range(0..4) {
            0..3 => rng.random_range(10..death / 2),
            _ => rng.random_range(death..2 * death),
        };
        Fault { what, way, whose, lasts: Duration::from_millis(lasts) }
    }

    /// Lets it happen, waits until it is over, and repairs what it broke.
    pub(crate) async fn happen(self, world: &mut World, pairs: &[Pair]) {
        let faults = match self.what {
            What::Reset => {
                self.proxies(world).for_each(Proxy::reset_all);
                return;
            }
            What::Abandon { pair, side } => return pairs[pair].abandon(side),
            What::RestartMailbox => return world.restart_mailbox().await,
            What::RestartRelay => return world.restart_relay().await,
            What::Down => {
                self.proxies(world).for_each(Proxy::shut);
                Faults { refuse: true, ..Faults::default() }
            }
            What::Stall { out, back } => Faults { stall_out: out, stall_back: back, ..Faults::default() },
            What::CutAfter(bytes) => {
                // So that there are new connections.
                self.proxies(world).for_each(Proxy::reset_all);
                Faults { cut_after: Some(bytes), ..Faults::default() }
            }
            What::Slow(rate) => Faults { rate: Some(rate), ..Faults::default() },
        };
        self.proxies(world).for_each(|proxy| proxy.set(faults));
        tokio::time::sleep(self.lasts).await;
        self.proxies(world).for_each(|proxy| proxy.set(Faults::default()));
    }

    fn proxies(self, world: &World) -> impl Iterator<Item = &Proxy> {
        let (mailbox, relay) = match self.way {
            Way::Mailbox => (true, false),
            Way::Relay => (false, true),
            Way::Both => (true, true),
        };
        let chosen = move |side: usize| match self.whose {
            Whose::One(one) => one == side,
            Whose::Everyones => true,
        };
        let mailboxes = world.mailbox_proxies.iter().enumerate().filter(move |_| mailbox);
        let relays = world.relay_proxies.iter().enumerate().filter(move |_| relay);
        mailboxes.chain(relays).filter(move |(side, _)| chosen(*side)).map(|(_, proxy)| proxy)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (way, whose, ms) = (self.way, self.whose, self.lasts.as_millis());
        match self.what {
            What::RestartMailbox | What::RestartRelay | What::Abandon { .. } => write!(f, "{:?}", self.what),
            What::Reset => write!(f, "Reset of {way:?}, {whose:?}"),
            what => write!(f, "{what:?} of {way:?}, {whose:?}, for {ms} ms"),
        }
    }
}
