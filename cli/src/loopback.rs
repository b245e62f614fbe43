//! Both sides in one process: the servers that they meet at.

use std::net::SocketAddr;

use dilated::{
    DilateConfig, RelayHint, Wormhole,
    server::{MailboxServer, Relay, RelayConfig, ServerConfig},
};

use crate::exit::{Failure, Kind};

/// The servers, in this process, on loopback.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) mailbox: String,
    pub(crate) relay: RelayHint,
}

impl Servers {
    pub(crate) async fn start() -> Result<Servers, Failure> {
        let cannot = |e: std::io::Error| {
            Failure::new(Kind::Server, format!("could not start the servers on this machine: {e}"))
        };
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        let mailbox = MailboxServer::bind(here, ServerConfig::default()).await.map_err(cannot)?;
        let relay = Relay::bind(here, RelayConfig::default()).await.map_err(cannot)?;
        let servers = Servers {
            mailbox: mailbox.url(),
            relay: relay.hint().parse().map_err(|e| cannot(std::io::Error::other(e)))?,
        };
        tokio::spawn(mailbox.run());
        tokio::spawn(relay.run());
        Ok(servers)
    }

    /// Starts a wormhole that meets others here.
    pub(crate) fn wormhole(&self, appid: &str) -> Result<Wormhole, Failure> {
        Ok(Wormhole::builder(appid).mailbox(&self.mailbox).build()?)
    }

    /// How the two dilate: directly, or only through the relay.
    pub(crate) fn config(&self, relayed: bool) -> DilateConfig {
        let mut config = DilateConfig::direct_only();
        config.relays.push(self.relay.clone());
        config.listen = !relayed;
        config.loopback = true;
        config
    }
}
