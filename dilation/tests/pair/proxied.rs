//! Servers behind proxies that break connections, so that a pair can be offline.

use std::{net::SocketAddr, time::Duration};

use dilated::{Dialect, DilateConfig, Dilated, LinkStatus, RolePreference};

use crate::{
    common::{Servers, soon},
    proxy::{Faults, Proxy},
};

/// A mailbox server and a relay, each behind a proxy; all that the peers know are the proxies.
pub(crate) struct Proxied {
    pub(crate) servers: Servers,
    pub(crate) mailbox: Proxy,
    pub(crate) relay: Proxy,
}

impl Proxied {
    pub(crate) async fn start(dialect: Dialect) -> Proxied {
        let behind = Servers::start(dialect).await;
        let mailbox = Proxy::start(address(&behind.mailbox)).await.expect("a proxy");
        let relay = Proxy::start(address(&behind.relay)).await.expect("a proxy");
        let servers = Servers {
            mailbox: format!("ws://{}/v1", mailbox.address()),
            relay: format!("tcp:{}", relay.address()),
            dialect,
        };
        Proxied { servers, mailbox, relay }
    }

    /// A link through the relay only, and timers that suit a network which lives for seconds.
    pub(crate) fn config(&self, role: RolePreference) -> DilateConfig {
        let mut config = DilateConfig::direct_only();
        config.listen = false;
        config.relays = vec![self.servers.relay.parse().expect("a hint")];
        config.role = role;
        hurry(&mut config);
        config
    }

    /// Everything is reset and nothing can be reached.
    pub(crate) fn shut(&self) {
        self.mailbox.shut();
        self.relay.shut();
    }

    /// The same for all connections.
    pub(crate) fn set(&self, faults: Faults) {
        self.mailbox.set(faults);
        self.relay.set(faults);
    }

    /// Everything works again.
    pub(crate) fn heal(&self) {
        self.set(Faults::default());
    }
}

/// Shortens the timers: dead links are found and made again within a second.
pub(crate) fn hurry(config: &mut DilateConfig) {
    config.liveness.ping_interval = Duration::from_millis(200);
    config.timing.connect_timeout = Duration::from_secs(3);
    config.timing.connect_timeout_max = Duration::from_secs(6);
    config.timing.pause = Duration::from_millis(1);
    config.timing.pause_max = Duration::from_millis(10);
    config.connector.race.relay_delay = Duration::from_millis(50);
    config.connector.race.retry_first = Duration::from_millis(20);
    config.connector.race.retry_max = Duration::from_millis(200);
}

/// Waits until this side knows that it has no link.
pub(crate) async fn lost(dilated: &Dilated) {
    let lost = async {
        while !matches!(dilated.status().link, LinkStatus::Reconnecting { .. }) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the loss of the link", lost).await;
}

/// The `host:port` in `ws://host:port/v1` and in `tcp:host:port`.
fn address(url: &str) -> SocketAddr {
    let text = url.trim_start_matches("ws://").trim_start_matches("tcp:").trim_end_matches("/v1");
    text.parse().expect("the address of an embedded server")
}
