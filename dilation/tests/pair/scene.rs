//! A wormhole and its peer, each on a runtime of its own, at a wanted moment of their lives, and everything that can
//! wait there.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use dilated::{
    Dialect, DilateConfig, Dilated, LinkStatus, MuxConfig, RolePreference, Subchannel, Wormhole, WriteError,
};
use futures::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
    task::JoinHandle,
};

use crate::{
    common::soon,
    proxied::{Proxied, lost},
    proxy::Faults,
};

/// What a close waits for a peer that does not read.
pub(crate) const LINGER: Duration = Duration::from_millis(300);

/// Where a wormhole is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The mailbox server says nothing; a code is being typed.
    Typing,
    /// There is a code, and nobody has entered it.
    NoPeer,
    /// Both have the key; the peer does not dilate.
    KeyKnown,
    /// Both dilate; no link comes about.
    Dilating,
    /// On a link whose other end does not read.
    Connected,
    /// The link is lost, and no other comes about.
    Reconnecting,
    /// As `Connected`, with a close under way.
    Closing,
}

impl Phase {
    pub(crate) fn has_peer(self) -> bool {
        !matches!(self, Phase::Typing | Phase::NoPeer)
    }

    /// Subchannels can be opened.
    pub(crate) fn has_role(self) -> bool {
        self.has_peer() && self != Phase::KeyKnown
    }
}

/// How the two reach each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// Through the relay, behind its proxy.
    Relay,
    /// Directly. Such a link cannot be cut from outside.
    Direct,
}

/// An operation that waits, and the words with which it ends.
pub(crate) type Waiting = (&'static str, JoinHandle<String>);

pub(crate) fn waiting<F, T, E>(name: &'static str, future: F) -> Waiting
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    E: std::error::Error,
{
    let task = tokio::spawn(async move {
        match future.await {
            Ok(_) => "it succeeded".to_owned(),
            Err(error) => error.to_string(),
        }
    });
    (name, task)
}

/// A wormhole on a runtime of its own, and its peer on another.
pub(crate) struct Scene {
    pub(crate) net: Proxied,
    route: Route,
    pub(crate) runtime: Runtime,
    pub(crate) peer_runtime: Runtime,
    pub(crate) wormhole: Wormhole,
    pub(crate) dilated: Option<Dilated>,
    pub(crate) peer: Option<(Wormhole, Option<Dilated>)>,
    pub(crate) code: Option<String>,
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

impl Scene {
    /// Brings a wormhole of `role` into `phase`, on a stage of its own.
    pub(crate) async fn new(dialect: Dialect, phase: Phase, role: RolePreference) -> Scene {
        let net = Proxied::start(dialect).await;
        Scene::begin(net, [runtime(), runtime()], Route::Relay, phase, role).await
    }

    /// The same, between these servers and on these runtimes.
    pub(crate) async fn begin(
        net: Proxied,
        [runtime, peer_runtime]: [Runtime; 2],
        route: Route,
        phase: Phase,
        role: RolePreference,
    ) -> Scene {
        if phase == Phase::Typing {
            net.mailbox.set(Faults { stall_out: true, stall_back: true, ..Faults::default() });
        }
        let wormhole = on(&runtime, || net.servers.wormhole());
        let mut scene =
            Scene { net, route, runtime, peer_runtime, wormhole, dilated: None, peer: None, code: None };
        scene.advance(phase, role).await;
        scene
    }

    async fn advance(&mut self, phase: Phase, role: RolePreference) {
        if phase != Phase::Typing {
            let code = soon("a code", self.wormhole.allocate_code(2)).await.expect("a code");
            self.code = Some(code.to_string());
        }
        if phase == Phase::Dilating {
            self.net.relay.shut();
        }
        self.dilated = Some(self.wormhole.dilate(self.config(role)).expect("dilate"));
        if !phase.has_peer() {
            return;
        }
        let peer = on(&self.peer_runtime, || self.net.servers.wormhole());
        peer.set_code(self.code.as_deref().expect("allocated above")).expect("a good code");
        soon("the key", self.wormhole.verifier()).await.expect("the same code");
        let other =
            if role == RolePreference::Leader { RolePreference::Follower } else { RolePreference::Leader };
        let dilated = phase.has_role().then(|| peer.dilate(self.config(other)).expect("dilate"));
        let ours = self.dilated.as_ref().expect("made above");
        match phase {
            Phase::Dilating => {
                let mut changes = ours.status_changes();
                while soon("roles", changes.next()).await.expect("alive").link != LinkStatus::Connecting {}
            }
            Phase::Connected | Phase::Closing | Phase::Reconnecting => {
                soon("a link", ours.connected()).await.expect("a link");
            }
            _ => {}
        }
        if phase == Phase::Reconnecting {
            self.net.relay.shut();
            lost(ours).await;
        }
        self.peer = Some((peer, dilated));
    }

    pub(crate) fn config(&self, role: RolePreference) -> DilateConfig {
        let mut config = self.net.config(role);
        if self.route == Route::Direct {
            config.listen = true;
            config.loopback = true;
            config.relays.clear();
        }
        config.linger = LINGER;
        // Of the names that are opened here, so that they wait instead of being closed.
        config.expected_subprotocols = vec!["wait".to_owned()];
        config.mux = MuxConfig {
            receive_limit: 64 << 10,
            receive_total: 256 << 10,
            outbox_limit: 4 << 20,
            ..config.mux
        };
        config
    }

    /// Everything that can wait in this phase, without a handle of the wormhole. At the end of it the outbox is full,
    /// if there can be one.
    pub(crate) async fn wait_without_handles(&self, phase: Phase) -> Vec<Waiting> {
        let dilated = self.dilated.as_ref().expect("made before");
        let mut all = Vec::new();
        let mut listener = dilated.listener_for("nobody opens this").expect("free");
        all.push(waiting("accept", async move { listener.accept().await }));
        let mut changes = dilated.status_changes();
        let ended = async move {
            let mut last = None;
            while let Some(status) = changes.next().await {
                last = Some(status.link);
            }
            // As an error, because that is what the others end with; the last state has the reason.
            Err::<(), _>(std::io::Error::other(format!("{:?}", last.expect("a first state"))))
        };
        all.push(waiting("status_changes", ended));
        let connector = dilated.connector_for("wait").expect("a good name");
        if phase.has_role() {
            let mut open = Vec::new();
            for _ in 0..5 {
                open.push(soon("an open", connector.connect()).await.expect("there is room"));
            }
            let [mut read, mut recv, write, send, mut acknowledged] =
                <[_; 5]>::try_from(open).expect("five were opened");
            all.push(waiting("read", async move { read.read_u8().await }));
            all.push(waiting("recv", async move { recv.recv().await }));
            // More than the peer reads, so that its last byte is not acknowledged.
            acknowledged.write_all(&vec![1; 1 << 20]).await.expect("there is room");
            all.push(waiting("acknowledged", async move { acknowledged.acknowledged().await }));
            all.push(waiting("write", write_for_ever(write)));
            all.push(waiting("send", send_for_ever(send)));
            self.full(dilated).await;
        }
        all.push(waiting("connect", async move { connector.connect().await }));
        all
    }

    /// Waits until writers wait, and nothing moves any more.
    pub(crate) async fn full(&self, dilated: &Dilated) {
        let (mut before, mut still) = (0, 0);
        let full = async {
            while still < 10 {
                let usage = dilated.usage();
                still = if usage.writers_wait && usage.outbox_bytes == before { still + 1 } else { 0 };
                before = usage.outbox_bytes;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon("a full outbox", full).await;
    }
}

async fn write_for_ever(mut subchannel: Subchannel) -> std::io::Result<()> {
    loop {
        subchannel.write_all(&[2; 65_536]).await?;
    }
}

async fn send_for_ever(mut subchannel: Subchannel) -> Result<(), WriteError> {
    loop {
        subchannel.send(Bytes::from_static(&[3; 65_536])).await?;
    }
}

/// Builds something whose task runs on another runtime.
pub(crate) fn on<T>(runtime: &Runtime, build: impl FnOnce() -> T) -> T {
    let _guard = runtime.enter();
    build()
}
