//! Two peers with a running transfer, to which something happens.

use std::io::Write as _;
use std::net::SocketAddrV4;
use std::time::Duration;

use dilated::Dialect;
use dilated_tests::{
    lab::{Gap, Host, Implementation, Lab, LabPeer, PeerConfig, RECOVERY, clock},
    process::JsonProcess,
    python::{DEFAULT_PING_INTERVAL, Python, skipped},
};
use tokio::time::timeout;

const SEED: u64 = 5;

/// A steady stream: a piece of so many bytes, every 10 ms.
const PIECE: u64 = 4096;
const PIECES: u64 = 100;

/// Shorter times without any are a steady stream's own.
const GAP: Duration = Duration::from_millis(15);

/// Who the peers are. A is ours, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pairing {
    /// Both are ours.
    ALeads,
    /// Both are ours.
    BLeads,
    /// Both are ours, and speak `ged`.
    GedALeads,
    /// Both are ours, and speak `ged`.
    GedBLeads,
    /// B is Python's.
    PythonFollows,
    /// B is Python's.
    PythonLeads,
}

impl Pairing {
    pub(crate) fn with_python(self) -> bool {
        matches!(self, Pairing::PythonFollows | Pairing::PythonLeads)
    }

    /// Ours could speak `dilated-1` with each other, and may not. With a Python peer it is for them to find out.
    fn is_confined_to_ged(self) -> bool {
        matches!(self, Pairing::GedALeads | Pairing::GedBLeads)
    }

    fn speaks_ged(self) -> bool {
        self.with_python() || self.is_confined_to_ged()
    }

    fn config(self, host: Host) -> PeerConfig {
        let a_leads = matches!(self, Pairing::ALeads | Pairing::GedALeads | Pairing::PythonFollows);
        let leads = (host == Host::A) == a_leads;
        if host == Host::B && self.with_python() {
            return PeerConfig::python(leads);
        }
        let mut config = PeerConfig::new(leads);
        if self.is_confined_to_ged() {
            config.dialects = vec![Dialect::Ged];
        }
        config
    }
}

/// How the peers may meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meeting {
    Direct,
    Relay,
    /// Directly, or at the relay when that is impossible; first directly.
    Either,
    /// The same, but the first link may be either.
    Any,
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transfer {
    /// Who sends.
    pub(crate) from: Host,
    /// Bytes.
    pub(crate) length: u64,
    /// The event happens when so many have arrived…
    pub(crate) event_at: u64,
    /// …and before more than these were written.
    pub(crate) hold: u64,
}

/// Small pieces without end at a steady pace, to be timed with [`Scenario::longest_gap`].
pub(crate) const STEADY: Transfer =
    Transfer { from: Host::A, length: u64::MAX, event_at: PIECE * PIECES / 10, hold: u64::MAX };

impl Transfer {
    fn is_steady(self) -> bool {
        self.length == STEADY.length
    }
}

/// What a scenario is to be built from.
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) pairing: Pairing,
    pub(crate) meeting: Meeting,
    pub(crate) transfer: Transfer,
    /// Changes what the peers are started with.
    pub(crate) adjust: fn(&mut PeerConfig),
}

impl Plan {
    /// A long transfer over a direct link, from A to B.
    pub(crate) fn new(name: &str, pairing: Pairing) -> Self {
        let mib = 1024 * 1024;
        let transfer = Transfer { from: Host::A, length: 32 * mib, event_at: 4 * mib, hold: 16 * mib };
        Self { name: name.to_owned(), pairing, meeting: Meeting::Direct, transfer, adjust: |_| {} }
    }

    /// Python sends where it leads. For losses that TCP tells both ends of. In any other the released Python may wait
    /// for ever: it closes a link that it gave up only after it has sent out what is queued, reads no more from then
    /// on, and if the link comes back to life just so far that the queue drains, it does not even notice that.
    pub(crate) fn python_may_send(mut self) -> Self {
        if self.pairing == Pairing::PythonLeads {
            self.transfer.from = Host::B;
        }
        self
    }

    /// For a link that nothing happens to: a peer that waits for the processor is no dead one.
    pub(crate) fn patient(mut self) -> Self {
        self.adjust = |config| {
            config.patience = Some(Duration::from_secs(60));
            if config.implementation == Implementation::Python {
                config.ping_interval = DEFAULT_PING_INTERVAL;
            }
        };
        self
    }

    /// A network, where there can be one with these peers.
    pub(crate) fn lab(&self) -> Option<Lab> {
        if self.pairing.with_python() && Python::named().is_none() {
            skipped(&format!("{}: needs the Python packages (.ci/run lab sets them up)", self.name));
            return None;
        }
        Lab::new(env!("CARGO_BIN_EXE_lab_peer"))
    }

    /// Builds everything and waits until the transfer runs. `None` where there can be no lab.
    pub(crate) async fn start(self) -> Option<Scenario> {
        let lab = self.lab()?;
        Some(self.start_in(lab).await)
    }

    /// The same in this network.
    pub(crate) async fn start_in(self, lab: Lab) -> Scenario {
        let mailbox = lab.mailbox(1).await;
        // Where either way is open, the first link is to be direct; a Leader takes what comes first.
        let direct_first = self.meeting == Meeting::Either;
        let mut relay = if direct_first { None } else { Some(lab.relay().await) };
        let config = |host| {
            let mut config = self.pairing.config(host);
            config.listen = self.meeting != Meeting::Relay;
            config.relay = self.meeting != Meeting::Direct;
            (self.adjust)(&mut config);
            config
        };
        let mut a = lab.peer(Host::A, &config(Host::A)).await;
        let mut b = lab.peer(Host::B, &config(Host::B)).await;
        let code = a.allocate_code().await;
        b.set_code(&code).await;
        for (host, peer) in [(Host::A, &mut a), (Host::B, &mut b)] {
            if host == self.transfer.from {
                peer.dilate().await;
            } else if self.transfer.is_steady() {
                peer.dilate_and_time(SEED, self.transfer.event_at, GAP).await;
            } else {
                peer.dilate_and_receive(SEED, self.transfer.event_at).await;
            }
        }
        a.connected().await;
        b.connected().await;
        a.mailbox(true).await;
        b.mailbox(true).await;
        if direct_first {
            relay = Some(lab.relay().await);
        }
        let mut scenario = Scenario {
            name: format!("{}, {:?}", self.name, self.pairing),
            pairing: self.pairing,
            transfer: self.transfer,
            lab,
            a,
            b,
            mailbox: Some(mailbox),
            relay,
        };
        let Transfer { length, hold, .. } = self.transfer;
        if self.transfer.is_steady() {
            scenario.sender().send_steadily(SEED, PIECE, PIECES * PIECE).await;
        } else {
            scenario.sender().send_stream(SEED, length, hold).await;
        }
        scenario.receiver().progress().await;
        scenario
    }
}

/// A lab in which a transfer runs.
pub(crate) struct Scenario {
    pub(crate) lab: Lab,
    pub(crate) a: LabPeer,
    pub(crate) b: LabPeer,
    /// `None` while it is dead.
    pub(crate) mailbox: Option<JsonProcess>,
    /// `None` while it is dead.
    pub(crate) relay: Option<JsonProcess>,
    pub(crate) pairing: Pairing,
    pub(crate) transfer: Transfer,
    name: String,
}

impl Scenario {
    pub(crate) fn sender(&mut self) -> &mut LabPeer {
        if self.transfer.from == Host::A { &mut self.a } else { &mut self.b }
    }

    pub(crate) fn receiver(&mut self) -> &mut LabPeer {
        if self.transfer.from == Host::A { &mut self.b } else { &mut self.a }
    }

    /// How A reached B, the last time that it did.
    pub(crate) fn path(&mut self) -> String {
        self.a.latest_link().path
    }

    /// Resets the connection of the link, and no other.
    pub(crate) fn reset_link(&mut self) {
        let far = self.far();
        self.lab.reset(Host::A, far);
    }

    /// The far end of the link, seen from A.
    pub(crate) fn far(&mut self) -> SocketAddrV4 {
        let path = self.path();
        let far = path.rsplit_once("tcp:").and_then(|(_, far)| far.parse().ok());
        far.unwrap_or_else(|| panic!("no address in {path}"))
    }

    /// Kills the mailbox server, and waits until both sides know.
    pub(crate) async fn kill_mailbox(&mut self) {
        self.mailbox.take().expect("it runs").kill().await;
        self.a.mailbox(false).await;
        self.b.mailbox(false).await;
    }

    /// Waits until both sides have a link of a later generation. In `ged` it is the next that there is. In `dilated-1` one
    /// may first take the place of another within the first generation: two that were found at the same moment.
    pub(crate) async fn relinked(&mut self) {
        let may_replace = !self.pairing.speaks_ged();
        for (host, peer) in [("A", &mut self.a), ("B", &mut self.b)] {
            let mut link = peer.connected().await;
            while may_replace && link.number == 0 {
                link = peer.connected().await;
            }
            assert!(link.number > 0, "{host} has a link of the first generation again: {link:?}");
        }
    }

    /// Lets the rest of the transfer go, and sees it arrive to the last byte.
    pub(crate) async fn complete(&mut self) {
        self.sender().release().await;
        self.sender().sent().await;
        let received = self.receiver().received().await;
        assert_eq!(received, self.transfer.length);
        self.report();
    }

    /// Completes the transfer over the link that both sides had from the beginning.
    pub(crate) async fn complete_on_the_first_link(&mut self) {
        self.complete().await;
        let (a, b) = (self.a.link_number().await, self.b.link_number().await);
        assert_eq!((a, b), (0, 0), "the link was given up: {:#?} {:#?}", self.a.story(), self.b.story());
    }

    /// Lets a steady stream run for another second, and sees that what has come is right. Gives the longest time since
    /// `event` in which nothing came.
    pub(crate) async fn longest_gap(&mut self, event: Duration) -> Duration {
        let receiver = self.receiver();
        let flows = timeout(RECOVERY, receiver.flows_at(clock() + Duration::from_secs(1))).await;
        flows.expect("the stream goes on");
        receiver.verify().await;
        let gaps = receiver.gaps();
        let longest = gaps.iter().filter(|gap| gap.ended > event).map(Gap::length).max().unwrap_or(GAP);
        self.report();
        longest
    }

    /// Completes the transfer if it is not, and closes both sides.
    pub(crate) async fn finish(mut self) {
        self.complete().await;
        self.close().await;
    }

    /// Closes both sides, after the transfer.
    pub(crate) async fn close(mut self) {
        if self.mailbox.is_none() && self.pairing.with_python() {
            // Python closes only when the server has said that it did.
            self.mailbox = Some(self.lab.mailbox(1).await);
        }
        self.a.close().await;
        self.b.close().await;
        for mut peer in [self.a, self.b] {
            assert_eq!(peer.closed().await, "happy", "{:?}", peer.implementation());
            peer.finish().await;
        }
    }

    /// What was seen, for people who read the output of the test.
    fn report(&mut self) {
        let path = self.path();
        let mut text = format!("{}: met {path}", self.name);
        for (host, peer) in [("A", &mut self.a), ("B", &mut self.b)] {
            let python = if peer.implementation() == Implementation::Python { " (Python)" } else { "" };
            for line in peer.story() {
                text.push_str(&format!("\n    {host}{python} {line}"));
            }
        }
        say(&text);
    }
}

/// `println!` would be captured by the test harness and never seen.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A module of tests for each scenario, one for each of these pairings.
macro_rules! with_pairings {
    (@ [$($test:ident $pairing:ident),*] $name:ident $scenario:expr) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    ($scenario)(crate::scenario::Pairing::$pairing).await;
                }
            )*
        }
    };
    ($pairings:tt $($name:ident => $scenario:expr;)*) => {
        $(crate::scenario::with_pairings!(@ $pairings $name $scenario);)*
    };
}
pub(crate) use with_pairings;

/// Tests with every pairing.
macro_rules! scenarios {
    ($($scenarios:tt)*) => {
        crate::scenario::with_pairings! {
            [a_leads ALeads, b_leads BLeads, ged_a_leads GedALeads, ged_b_leads GedBLeads, python_follows PythonFollows, python_leads PythonLeads]
            $($scenarios)*
        }
    };
}
pub(crate) use scenarios;

/// Tests of what only our own peers can do.
macro_rules! scenarios_of_ours {
    ($($scenarios:tt)*) => {
        crate::scenario::with_pairings! {
            [a_leads ALeads, b_leads BLeads, ged_a_leads GedALeads, ged_b_leads GedBLeads] $($scenarios)*
        }
    };
}
pub(crate) use scenarios_of_ours;

/// Tests of what only `dilated-1` can do.
macro_rules! scenarios_of_dilated1 {
    ($($scenarios:tt)*) => {
        crate::scenario::with_pairings! { [a_leads ALeads, b_leads BLeads] $($scenarios)* }
    };
}
pub(crate) use scenarios_of_dilated1;
