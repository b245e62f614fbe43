//! One run: a network with a stream, the event, and what the receiver saw.

use std::net::SocketAddrV4;
use std::time::Duration;

use dilated_tests::{
    lab::{Direction, Gap, Host, Lab, LabPeer, PeerConfig, clock},
    process::JsonProcess,
};
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

use crate::case::{Case, Pairing, Scenario};

/// A run that needs longer is not waited for.
pub(crate) const CAP: Duration = Duration::from_secs(120);

/// An outage has to begin within this time of the event to be its effect. The stream is watched for so long at least.
pub(crate) const WATCHED: Duration = Duration::from_secs(4);

/// The stream: a piece of `CHUNK` bytes, `RATE / CHUNK` times a second.
pub(crate) const CHUNK: u64 = 4096;
pub(crate) const RATE: u64 = 100 * CHUNK;

/// Shorter gaps between arrivals are the stream's own, and not told apart.
pub(crate) const GAP: Duration = Duration::from_millis(15);

/// Shorter outages count with their length, and have to begin at once: when the event was is not known better.
pub(crate) const LONG: Duration = Duration::from_millis(100);

/// Gaps that are told in a story.
const NOTABLE: Duration = Duration::from_millis(30);

/// How long the stream runs before the event.
pub(crate) const RUN_UP: Duration = Duration::from_millis(1500);

/// How long both sleep.
const SLEEP: Duration = Duration::from_secs(5);

/// How long the mailbox is away, or connecting is impossible.
const AWAY: Duration = Duration::from_secs(1);

/// Tries to meet directly when the relay is there too.
const MEETINGS: usize = 5;

const SEED: u64 = 5;

/// What was measured.
pub(crate) struct Outcome {
    /// `None`: not within [`CAP`].
    pub(crate) recovery: Option<Duration>,
    /// What happened, one line each.
    pub(crate) story: Vec<String>,
}

/// A network in which two peers have a link.
pub(crate) struct Network {
    case: Case,
    lab: Lab,
    mailbox: Option<JsonProcess>,
    relay: Option<JsonProcess>,
    a: LabPeer,
    b: LabPeer,
    /// The far end of the link, seen from A.
    far: SocketAddrV4,
}

impl Network {
    /// Builds everything, up to the link.
    pub(crate) async fn prepare(case: Case) -> Network {
        for _ in 0..MEETINGS {
            let network = Self::meet(case).await;
            let relayed = network.lab.relay_hint().ends_with(&network.far.to_string());
            if relayed == case.scenario.is_relayed() {
                return network;
            }
        }
        panic!("the peers met at the wrong place {MEETINGS} times")
    }

    async fn meet(case: Case) -> Network {
        let lab =
            block_in_place(|| Lab::new(env!("CARGO_BIN_EXE_lab_peer"))).expect("there can be labs here");
        let (mailbox, relay) = (lab.mailbox(1).await, lab.relay().await);
        let config = |implementation, leads| {
            let mut config = PeerConfig::released(implementation, leads);
            let scenario = case.scenario;
            config.listen = !scenario.is_relayed();
            config.standby = scenario.has_standby();
            config.relay =
                scenario.is_relayed() || scenario.has_standby() || scenario == Scenario::DirectLost;
            config
        };
        let (a, b) = case.pairing.implementations();
        let mut a = lab.peer(Host::A, &config(a, case.sender_leads())).await;
        let mut b = lab.peer(Host::B, &config(b, !case.sender_leads())).await;
        let code = a.allocate_code().await;
        b.set_code(&code).await;
        a.dilate().await;
        b.dilate_and_time(SEED, RATE / 10, GAP).await;
        let (link, _) = (a.connected().await, b.connected().await);
        a.mailbox(true).await;
        b.mailbox(true).await;
        if case.scenario.has_standby() {
            for peer in [&mut a, &mut b] {
                peer.standby().await;
            }
        }
        let far = link.path.rsplit_once("tcp:").and_then(|(_, far)| far.parse().ok());
        let far = far.unwrap_or_else(|| panic!("no address in {}", link.path));
        Network { case, lab, mailbox: Some(mailbox), relay: Some(relay), a, b, far }
    }

    /// Lets the stream run, and the event happen.
    pub(crate) async fn measure(&mut self) -> Outcome {
        if self.case.scenario.is_alone() {
            kill(&mut self.mailbox).await;
            self.a.mailbox(false).await;
            self.b.mailbox(false).await;
        }
        self.a.send_steadily(SEED, CHUNK, RATE).await;
        self.b.flows_at(clock() + RUN_UP).await;
        let event = self.disturb().await;
        let left = (event + CAP).saturating_sub(clock());
        let recovered = timeout(left, self.b.flows_at(event + WATCHED)).await.is_ok();
        self.b.verify().await;
        let gaps = self.b.gaps();
        let recovery = recovered.then(|| outage(&gaps, event));
        Outcome { recovery, story: self.story(event, &gaps) }
    }

    /// Does what the scenario says, and gives its time.
    async fn disturb(&mut self) -> Duration {
        match self.case.scenario {
            Scenario::OurAddress | Scenario::AloneOurAddress => {
                self.now(|lab, _| lab.change_address(Host::A, 1, 2))
            }
            Scenario::TheirAddress | Scenario::AloneTheirAddress => {
                self.now(|lab, _| lab.change_address(Host::B, 1, 2))
            }
            Scenario::BothAddresses => self.now(|lab, _| {
                std::thread::scope(|scope| {
                    scope.spawn(|| lab.change_address(Host::A, 1, 2));
                    lab.change_address(Host::B, 1, 2);
                });
            }),
            Scenario::DataVanishes => {
                self.now(|lab, far| lab.blackhole_connection(Host::A, far, Direction::From))
            }
            Scenario::AnswersVanish => {
                self.now(|lab, far| lab.blackhole_connection(Host::A, far, Direction::To))
            }
            Scenario::AllVanishes | Scenario::AloneAllVanishes => {
                self.now(|lab, far| lab.blackhole_connection(Host::A, far, Direction::Both))
            }
            Scenario::Reset | Scenario::StandbyReset => self.now(|lab, far| lab.destroy(Host::A, far)),
            Scenario::DirectLost | Scenario::StandbyVanishes => self.now(|lab, _| lab.part(Host::A, Host::B)),
            Scenario::Relay | Scenario::AloneRelay => {
                let event = clock();
                kill(&mut self.relay).await;
                self.relay = Some(self.lab.relay().await);
                event
            }
            Scenario::MailboxGone | Scenario::MailboxBack => {
                kill(&mut self.mailbox).await;
                let event = self.now(|lab, far| lab.destroy(Host::A, far));
                if self.case.scenario == Scenario::MailboxBack {
                    sleep(AWAY).await;
                }
                // Only ours can do without.
                if self.case.scenario == Scenario::MailboxBack || self.case.pairing != Pairing::Ours {
                    self.mailbox = Some(self.lab.mailbox(1).await);
                }
                event
            }
            Scenario::Asleep => {
                self.a.freeze();
                self.b.freeze();
                sleep(SLEEP).await;
                let event = clock();
                self.a.thaw();
                self.b.thaw();
                event
            }
            Scenario::WhileConnecting => {
                self.now(|lab, far| {
                    lab.part_new(Host::A, Host::B);
                    lab.destroy(Host::A, far);
                });
                sleep(AWAY).await;
                self.now(|lab, _| {
                    lab.change_address(Host::A, 1, 2);
                    lab.heal();
                })
            }
        }
    }

    fn now(&self, event: impl FnOnce(&Lab, SocketAddrV4)) -> Duration {
        let time = clock();
        block_in_place(|| event(&self.lab, self.far));
        time
    }

    fn story(&mut self, event: Duration, gaps: &[Gap]) -> Vec<String> {
        let after = |time: Duration| (time.as_secs_f64() - event.as_secs_f64()) * 1e3;
        let mut story = Vec::new();
        for (side, peer) in [("sender", &mut self.a), ("receiver", &mut self.b)] {
            story.extend(
                peer.story_by_clock().into_iter().map(|(time, what)| (time, format!("{side}: {what}"))),
            );
        }
        for gap in gaps.iter().filter(|gap| gap.ended > event && gap.length() > NOTABLE) {
            story.push((gap.ended, format!("receiver: the first byte for {} ms", gap.length().as_millis())));
        }
        story.sort();
        story.into_iter().map(|(time, what)| format!("{:+.0} ms {what}", after(time))).collect()
    }
}

async fn kill(server: &mut Option<JsonProcess>) {
    server.take().expect("it runs").kill().await;
}

/// How long after the event the longest time ended in which nothing arrived.
fn outage(gaps: &[Gap], event: Duration) -> Duration {
    let within = |gap: &Gap| if gap.length() < LONG { LONG } else { WATCHED };
    let effects = gaps.iter().filter(|gap| gap.ended > event && gap.began < event + within(gap));
    match effects.max_by_key(|gap| gap.length()) {
        None => GAP,
        Some(gap) if gap.length() < LONG => gap.ended - gap.began.max(event),
        Some(gap) => gap.ended - event,
    }
}
