//! Two wormholes with traffic between them.

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use dilated::{DilateConfig, Dilated, RelayHint, RolePreference, Usage, Wormhole};
use futures::StreamExt;
use rand::{RngExt, rngs::StdRng};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use crate::{
    journal::Journal,
    traffic::{self, Ledger, Shared, Stage},
    world::World,
};

/// How long everything may take to come to rest on a network that works. A guard against hanging.
const PATIENCE: Duration = Duration::from_secs(90);

/// How the two reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Only through the relay, that is through the proxies.
    Relay,
    /// Only directly.
    Direct,
    /// One side listens; both have the relay.
    Mixed,
}

/// Two wormholes and their tasks.
pub(crate) struct Pair {
    name: String,
    sides: [(Wormhole, Arc<Dilated>); 2],
    ledger: Arc<Ledger>,
    stage: watch::Sender<Stage>,
    openers: JoinSet<()>,
    acceptors: JoinSet<()>,
    watchers: Vec<AbortHandle>,
}

impl Pair {
    /// Lets two wormholes meet and begins the traffic. Nothing may be broken yet: that a server which is not there at
    /// the very first connection ends the wormhole is meant so.
    pub(crate) async fn new(
        name: String,
        route: Route,
        world: &World,
        rng: &mut StdRng,
        journal: &Arc<Journal>,
    ) -> Pair {
        let wormhole = |side: usize| {
            let url = format!("ws://{}/v1", world.mailbox_proxies[side].address());
            Wormhole::builder("dilated.test/soak")
                .mailbox(url)
                .net(|net| {
                    net.backoff_first = Duration::from_millis(20);
                    net.backoff_max = Duration::from_secs(1);
                    net.probe_timeout = Duration::from_millis(300);
                })
                .build()
                .expect("a good address")
        };
        let (a, b) = (wormhole(0), wormhole(1));
        let code = soon("a code", a.allocate_code(2)).await.expect("a code");
        b.set_code(&code.to_string()).expect("a good code");
        let roles = match rng.random_range(0..3) {
            0 => [RolePreference::Leader, RolePreference::Follower],
            1 => [RolePreference::Follower, RolePreference::Leader],
            _ => [RolePreference::Any, RolePreference::Any],
        };
        journal.note(format_args!("{name}: {route:?}, {roles:?}"));
        let (stage, seen) = watch::channel(Stage::Running);
        let ledger = Arc::new(Ledger::default());
        let shared = Shared { streams: traffic::streams(), ledger: Arc::clone(&ledger), stage: seen };
        let (mut openers, mut acceptors, mut watchers) = (JoinSet::new(), JoinSet::new(), Vec::new());
        let mut side = |side: usize, wormhole: Wormhole| {
            let mut dilated = wormhole.dilate(config(side, route, roles[side], world, rng)).expect("dilate");
            let (_, client, server) = dilated.endpoints().expect("first");
            openers.spawn(traffic::open(client, shared.clone(), traffic::fork(rng)));
            acceptors.spawn(traffic::accept(server, shared.clone(), traffic::fork(rng)));
            watchers.push(watch_status(format!("{name}, side {side}"), &dilated, Arc::clone(journal)));
            (wormhole, Arc::new(dilated))
        };
        let sides = [side(0, a), side(1, b)];
        let pair = Pair { name, sides, ledger, stage, openers, acceptors, watchers };
        for (_, dilated) in &pair.sides {
            soon("the first link", dilated.connected()).await.expect("a link");
        }
        pair
    }

    /// Lets one side give its link up.
    pub(crate) fn abandon(&self, side: usize) {
        self.sides[side].1.abandon_link();
    }

    /// Fails if something went wrong, as soon as it did.
    pub(crate) fn check(&mut self) {
        for tasks in [&mut self.openers, &mut self.acceptors] {
            if let Some(ended) = tasks.try_join_next() {
                ended.expect("no task fails");
                panic!("{}: a task ended before the end", self.name);
            }
        }
    }

    /// Links so far.
    pub(crate) fn links(&self) -> u64 {
        self.sides[0].1.status().generation.get() + 1
    }

    /// Bytes so far, all of them right.
    pub(crate) fn checked(&self) -> u64 {
        self.ledger.checked.load(Ordering::Relaxed)
    }

    /// Subchannels so far.
    pub(crate) fn opened(&self) -> u64 {
        self.ledger.opened.load(Ordering::Relaxed)
    }

    /// On a network that works: all streams end, all is delivered, and both sides close.
    pub(crate) async fn finish(mut self) {
        self.stage.send_replace(Stage::Ending);
        let patient = tokio::time::timeout(PATIENCE, self.settle()).await;
        assert!(patient.is_ok(), "{}: {:?}", self.name, self.standing());
        let Ledger { long_written, long_checked, .. } = &*self.ledger;
        assert_eq!(
            long_written.load(Ordering::Relaxed),
            long_checked.load(Ordering::Relaxed),
            "{}",
            self.name
        );
        let [(a, dilated_a), (b, dilated_b)] = self.sides;
        let (x, y) = soon("close", async { tokio::join!(a.close(), b.close()) }).await;
        assert_eq!((x, y), (Ok(()), Ok(())), "{}", self.name);
        drop((dilated_a, dilated_b));
        self.watchers.iter().for_each(AbortHandle::abort);
    }

    /// Waits for the end of all traffic, and until nothing of it is left in memory.
    async fn settle(&mut self) {
        while let Some(ended) = self.openers.join_next().await {
            ended.expect("an opener");
        }
        let Ledger { opened, accepted, .. } = &*self.ledger;
        while accepted.load(Ordering::Relaxed) < opened.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.stage.send_replace(Stage::AllAccepted);
        while let Some(ended) = self.acceptors.join_next().await {
            ended.expect("an acceptor");
        }
        let at_rest = Usage::default();
        while self.sides.iter().any(|(_, dilated)| dilated.usage() != at_rest) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// For the message of a failure.
    fn standing(&self) -> impl std::fmt::Debug {
        let side = |side: usize| (self.sides[side].1.status(), self.sides[side].1.usage());
        (side(0), side(1), Arc::clone(&self.ledger), self.openers.len(), self.acceptors.len())
    }
}

/// Keeps a side's changes of state in the journal.
fn watch_status(name: String, dilated: &Dilated, journal: Arc<Journal>) -> AbortHandle {
    let mut changes = dilated.status_changes();
    let watching = tokio::spawn(async move {
        while let Some(status) = changes.next().await {
            let (generation, mailbox) = (status.generation, status.mailbox.connection);
            journal.note(format_args!("{name}: {generation} {}, mailbox {mailbox:?}", status.link));
        }
    });
    watching.abort_handle()
}

fn config(side: usize, route: Route, role: RolePreference, world: &World, rng: &mut StdRng) -> DilateConfig {
    let mut config = DilateConfig::direct_only();
    let relay: RelayHint =
        format!("tcp:{}", world.relay_proxies[side].address()).parse().expect("a good hint");
    config.role = role;
    config.loopback = true;
    config.listen = match route {
        Route::Relay => false,
        Route::Direct => true,
        Route::Mixed => side == 0,
    };
    if route != Route::Direct {
        config.relays = vec![relay];
    }
    // Small, so that memory in use is not taken for memory lost.
    config.mux.outbox_limit = rng.random_range(128 << 10..512 << 10);
    config.mux.receive_limit = rng.random_range(64 << 10..256 << 10);
    // Twice what the peer may have under way and what may wait for our readers.
    config.mux.receive_total = 2 << 20;
    hurry(&mut config);
    config
}

/// The timers, shortened about as much as the faults are.
fn hurry(config: &mut DilateConfig) {
    config.liveness.ping_interval = Duration::from_millis(200);
    config.liveness.ping_timeout = Duration::from_millis(300);
    config.liveness.silence = Duration::from_millis(300);
    config.liveness.first_silence = Duration::from_millis(600);
    config.liveness.longest = Duration::from_secs(2);
    config.timing.connect_timeout = Duration::from_secs(1);
    config.timing.connect_timeout_max = Duration::from_secs(4);
    config.timing.short_lived = Duration::from_millis(50);
    config.timing.pause = Duration::from_millis(10);
    config.timing.pause_max = Duration::from_millis(200);
    config.connector.race.patience_first = Duration::from_millis(250);
    config.connector.race.patience_max = Duration::from_secs(1);
    config.connector.handshake_timeout = Duration::from_secs(1);
    config.connector.race.relay_delay = Duration::from_millis(50);
    config.connector.race.relay_delay_again = Duration::from_millis(20);
    config.connector.race.retry_first = Duration::from_millis(50);
    config.connector.race.retry_max = Duration::from_millis(400);
}

/// Fails instead of hanging.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}
