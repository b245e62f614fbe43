//! Embedded servers on loopback, and pairs of wormholes that meet there.

use std::{future::Future, net::SocketAddr, time::Duration};

use dilated::{
    Dialect, DilateConfig, Dilated, RolePreference, Wormhole,
    server::{MailboxServer, Relay, RelayConfig, ServerConfig},
};
use tokio::net::TcpSocket;

/// No test may take longer; it is a guard against hanging, not a measurement.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Fails instead of hanging.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// A port on loopback: while the socket lives, nobody else gets it, and unless we listen there, connections are refused.
pub(crate) fn reserve() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    // So that a listener of ours can have the port, too.
    socket.set_reuseaddr(true).expect("an option that all systems have");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("bind");
    let address = socket.local_addr().expect("bound");
    (socket, address)
}

/// A machine without processor time for seconds is no dead link: where a test counts links, it breaks them itself.
pub(crate) fn patient(config: &mut DilateConfig) {
    let long = PATIENCE / 2;
    (config.liveness.silence, config.liveness.first_silence) = (long, long);
    (config.liveness.ping_timeout, config.liveness.suspicion) = (long, long);
}

/// A mailbox server and a relay that live as long as the test's runtime.
pub(crate) struct Servers {
    pub(crate) mailbox: String,
    pub(crate) relay: String,
    pub(crate) dialect: Dialect,
}

impl Servers {
    /// Those who meet here speak this dialect.
    pub(crate) async fn start(dialect: Dialect) -> Servers {
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let mailbox = MailboxServer::bind(loopback, ServerConfig::default()).await.expect("bind the mailbox");
        let relay = Relay::bind(loopback, RelayConfig::default()).await.expect("bind the relay");
        let servers = Servers { mailbox: mailbox.url(), relay: relay.hint(), dialect };
        tokio::spawn(mailbox.run());
        tokio::spawn(relay.run());
        servers
    }

    pub(crate) fn wormhole(&self) -> Wormhole {
        // `ged` alone is what a peer of another kind offers.
        let dialects = if self.dialect == Dialect::Ged { &[Dialect::Ged][..] } else { &Dialect::ALL };
        let builder = Wormhole::builder("dilated.test/pair").mailbox(&self.mailbox).dialects(dialects);
        builder.build().expect("a valid address")
    }

    /// Two wormholes with the same code; the first allocated it.
    pub(crate) async fn pair(&self) -> (Wormhole, Wormhole) {
        let (a, b) = (self.wormhole(), self.wormhole());
        let code = soon("the code", a.allocate_code(2)).await.expect("a code");
        b.set_code(&code.to_string()).expect("a good code");
        (a, b)
    }

    /// A configuration for peers on one machine.
    pub(crate) fn config(&self, role: RolePreference) -> DilateConfig {
        let mut config = DilateConfig::direct_only();
        config.loopback = true;
        config.role = role;
        patient(&mut config);
        config
    }

    /// Two dilated wormholes, direct, the first as Leader.
    pub(crate) async fn dilated(&self) -> (Wormhole, Dilated, Wormhole, Dilated) {
        let (a, b) = self.pair().await;
        let leader = a.dilate(self.config(RolePreference::Leader)).expect("dilate");
        let follower = b.dilate(self.config(RolePreference::Follower)).expect("dilate");
        (a, leader, b, follower)
    }
}
