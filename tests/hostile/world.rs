//! The stage: servers, the victim, its hostile peer, the neighbours.

use std::{future::Future, time::Duration};

use dilated::{
    Client, DilateConfig, Dilated, DilationError, LinkStatus, RolePreference, Server, Wormhole,
    server::{MailboxServer, ServerConfig},
};
use dilated_transit::Role;
use tokio::sync::{Mutex, MutexGuard};

use crate::{memory::Memory, neighbour::Neighbour, peer::Hostile, wire::Wire};

pub(crate) const APPID: &str = "dilated.test/hostile";

/// No step may take longer; a guard against hanging, not a measurement.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the victim takes on all subchannels together, in bytes.
pub(crate) const RECEIVE_TOTAL: usize = 4 << 20;

/// KiB by which memory may grow: what the victim's limits allow, buffers of sockets and links, and the allocator's waste.
const MAX_GROWTH: usize = 24 << 10;

/// Memory belongs to the whole process, so only one test plays at a time.
static STAGE: Mutex<()> = Mutex::const_new(());

/// Fails instead of hanging.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// Waits until `true`.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// For peers on one machine.
pub(crate) fn config(role: RolePreference) -> DilateConfig {
    let mut config = DilateConfig::direct_only();
    config.loopback = true;
    config.role = role;
    config.mux.receive_total = RECEIVE_TOTAL;
    config.mux.max_window = 1 << 20;
    // Nobody acknowledges what a victim has written when it closes.
    config.linger = Duration::from_millis(200);
    // A machine that is busy with a flood answers late, and a hostile peer no PING at all.
    (config.liveness.silence, config.liveness.first_silence) = (PATIENCE, PATIENCE);
    (config.liveness.ping_timeout, config.liveness.suspicion) = (PATIENCE, PATIENCE);
    config
}

pub(crate) struct World {
    pub(crate) victim: Wormhole,
    pub(crate) dilated: Dilated,
    pub(crate) hostile: Hostile,
    /// Ends of the victim.
    pub(crate) client: Client,
    pub(crate) server: Server,
    neighbour: Neighbour,
    memory: Memory,
    _stage: MutexGuard<'static, ()>,
}

impl World {
    /// Both have each other's `please`; there is no link yet. `role` is that of the hostile side.
    pub(crate) async fn start(role: Role) -> World {
        World::with(role, |_| {}).await
    }

    /// The same, with a victim of another configuration.
    pub(crate) async fn with(role: Role, adjust: impl FnOnce(&mut DilateConfig)) -> World {
        let stage = STAGE.lock().await;
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let server = MailboxServer::bind(loopback, ServerConfig::default()).await.expect("bind the mailbox");
        let url = server.url();
        tokio::spawn(server.run());
        let neighbour = Neighbour::start(&url).await;

        let victim = Wormhole::builder(APPID).mailbox(&url).build().expect("a valid address");
        let code = soon("the code", victim.allocate_code(2)).await.expect("a code");
        let theirs = match role {
            Role::Leader => RolePreference::Follower,
            Role::Follower => RolePreference::Leader,
        };
        let mut config = config(theirs);
        adjust(&mut config);
        let mut dilated = victim.dilate(config).expect("dilate");
        let (_, client, server) = dilated.endpoints().expect("first time");
        let hostile = soon("meeting the hostile side", Hostile::meet(&url, &code.to_string(), role)).await;
        let memory = Memory::watch();
        World { victim, dilated, hostile, client, server, neighbour, memory, _stage: stage }
    }

    /// With a first link, which is active.
    pub(crate) async fn linked(role: Role) -> (World, Wire) {
        World::linked_with(role, |_| {}).await
    }

    /// The same, with a victim of another configuration.
    pub(crate) async fn linked_with(role: Role, adjust: impl FnOnce(&mut DilateConfig)) -> (World, Wire) {
        let world = World::with(role, adjust).await;
        let mut wire = world.hostile.link(0).await;
        wire.activate(1).await;
        world.until_linked(0).await;
        (world, wire)
    }

    pub(crate) async fn until_linked(&self, generation: u64) {
        until("a link", || {
            let status = self.dilated.status();
            matches!(status.link, LinkStatus::Connected { .. }) && status.generation.get() == generation
        })
        .await;
    }

    /// The victim has ended its dilation because of what the peer did, has said so with GOODBYE, and nothing else has
    /// happened.
    pub(crate) async fn refused(self, wire: Wire, code: u64, why: &str) {
        let (said, reason) = wire.goodbye().await;
        assert_eq!(said, code, "GOODBYE said {reason:?}");
        assert!(reason.contains(why), "GOODBYE said {reason:?}");
        let error = self.stopped().await;
        let DilationError::Protocol(text) = &error else { panic!("it ended with {error:?}") };
        assert!(text.contains(why), "it ended with {error:?}");
        self.end().await;
    }

    /// Why the victim's dilation has ended.
    pub(crate) async fn stopped(&self) -> DilationError {
        until("the end of the dilation", || matches!(self.dilated.status().link, LinkStatus::Stopped { .. }))
            .await;
        let LinkStatus::Stopped { error: Some(error) } = self.dilated.status().link else {
            panic!("it ended without an error")
        };
        error
    }

    /// The victim has taken no harm: it answers on this link.
    pub(crate) async fn unharmed(self, mut wire: Wire) {
        wire.ping().await;
        let link = self.dilated.status().link;
        assert!(matches!(link, LinkStatus::Connected { .. }), "{link:?}");
        // It would else wait for this end at the close.
        drop(wire);
        self.end().await;
    }

    /// Memory stayed in its bounds, and the neighbours' transfer comes to its end.
    pub(crate) async fn end(self) {
        let usage = self.dilated.usage();
        assert!(usage.receive_bytes <= RECEIVE_TOTAL, "{usage:?}");
        self.neighbour.finish().await;
        let growth = self.memory.growth();
        assert!(growth <= MAX_GROWTH, "memory grew by {growth} KiB, {usage:?}");
        drop((self.client, self.server));
        soon("the close", self.victim.close()).await.ok();
    }
}
