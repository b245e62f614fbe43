//! Two wormholes of ours with a direct link.

use std::{fmt, fs, sync::Arc, time::Duration};

use dilated::{
    Client, Dialect, DilateConfig, Dilated, RolePreference, Server, Subchannel, Wormhole,
    server::{MailboxServer, ServerConfig},
};
use dilated_transit::has_aes;

use crate::{
    baseline::Cipher,
    host::{Flavour, Host},
    measure::now,
    program::Outcome,
};

/// A mailbox server, at which pairs meet.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) flavour: Flavour,
    pub(crate) dialect: Dialect,
    pub(crate) mailbox: String,
    _server: Host,
}

/// What the links of a run are.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    dialect: Dialect,
    cipher: Cipher,
    flavour: Flavour,
    path: String,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} over {}; {}", self.dialect, self.cipher, self.path, self.flavour)?;
        // What the system's TCP does about congestion that is not there.
        match fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control") {
            Ok(name) => write!(f, "; congestion control {}", name.trim()),
            Err(_) => Ok(()),
        }
    }
}

impl World {
    pub(crate) async fn start(flavour: Flavour, dialect: Dialect) -> Outcome<World> {
        let host = Host::start("servers", Flavour::Current)?;
        let here = "127.0.0.1:0".parse().expect("an address");
        let binding = host.spawn(async move { MailboxServer::bind(here, ServerConfig::default()).await });
        let server = binding.await??;
        let mailbox = server.url();
        host.spawn(server.run());
        Ok(World { flavour, dialect, mailbox, _server: host })
    }

    /// What its links may be sealed with, the one that they use by themselves first.
    pub(crate) fn ciphers(&self) -> &'static [Cipher] {
        const CIPHERS: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];
        match self.dialect {
            Dialect::Dilated1 if has_aes() => &CIPHERS,
            _ => &CIPHERS[1..],
        }
    }

    /// The cipher of [`pair`](World::pair).
    pub(crate) fn cipher(&self) -> Cipher {
        self.ciphers()[0]
    }

    /// A pair with a new link, on hosts of its own.
    pub(crate) async fn pair(&self) -> Outcome<Pair> {
        self.sealed_pair(self.cipher()).await
    }

    /// The same with one of [`ciphers`](World::ciphers).
    pub(crate) async fn sealed_pair(&self, cipher: Cipher) -> Outcome<Pair> {
        let hosts = Host::two(self.flavour)?;
        let wormholes = hosts.each_ref().map(|host| {
            let builder = Wormhole::builder("dilated.bench/performance")
                .mailbox(&self.mailbox)
                .dialects(&[self.dialect]);
            host.spawn(async move { builder.build() })
        });
        let [a, b] = wormholes;
        let (a, b) = (a.await??, b.await??);
        b.set_code(&a.allocate_code(2).await?.to_string())?;
        let [host_a, host_b] = hosts;
        let pair = Pair {
            a: End::new(host_a, a, RolePreference::Leader, cipher)?,
            b: End::new(host_b, b, RolePreference::Follower, cipher)?,
        };
        pair.a.dilated.connected().await?;
        pair.b.dilated.connected().await?;
        Ok(pair)
    }

    /// Looks at a link.
    pub(crate) async fn probe(&self) -> Outcome<Probe> {
        let pair = self.pair().await?;
        let path = pair.a.dilated.connected().await?.to_string();
        pair.close().await?;
        Ok(Probe { dialect: self.dialect, cipher: self.cipher(), flavour: self.flavour, path })
    }
}

/// One end of the link.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) host: Arc<Host>,
    pub(crate) dilated: Dilated,
    pub(crate) client: Client,
    pub(crate) server: Server,
    wormhole: Wormhole,
}

impl End {
    fn new(host: Arc<Host>, wormhole: Wormhole, role: RolePreference, cipher: Cipher) -> Outcome<End> {
        /// More than any case opens: their limits are not what is measured.
        const MANY: usize = 1 << 20;
        let mut config = DilateConfig::direct_only();
        config.loopback = true;
        config.role = role;
        config.aes = cipher == Cipher::Aes256Gcm;
        config.mux.max_subchannels = MANY;
        config.mux.pending_opens = MANY;
        let mut dilated = wormhole.dilate(config)?;
        let (_, client, server) = dilated.endpoints().ok_or("taken")?;
        Ok(End { host, dilated, wormhole, client, server })
    }
}

/// Two ends. Bulk goes from `a` to `b`.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) a: End,
    pub(crate) b: End,
}

impl Pair {
    /// A subchannel, and its other end.
    pub(crate) async fn open(&mut self) -> Outcome<(Subchannel, Subchannel)> {
        Ok((self.a.client.connect().await?, self.b.server.accept().await?))
    }

    /// Many at once.
    pub(crate) async fn open_many(&mut self, count: usize) -> Outcome<Vec<(Subchannel, Subchannel)>> {
        let (client, server) = (&self.a.client, &mut self.b.server);
        let opening = async {
            let mut opened = Vec::with_capacity(count);
            for _ in 0..count {
                opened.push(client.connect().await?);
            }
            Outcome::Ok(opened)
        };
        let accepting = async {
            let mut accepted = Vec::with_capacity(count);
            for _ in 0..count {
                accepted.push(server.accept().await?);
            }
            Outcome::Ok(accepted)
        };
        let (opened, accepted) = tokio::try_join!(opening, accepting)?;
        Ok(opened.into_iter().zip(accepted).collect())
    }

    /// Waits until both ends have forgotten all subchannels but so many.
    pub(crate) async fn settled(&self, alive: usize) -> Outcome<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let start = now();
        loop {
            let left = self.a.dilated.usage().subchannels.max(self.b.dilated.usage().subchannels);
            if left <= alive {
                return Ok(());
            }
            if now().saturating_duration_since(start) > PATIENCE {
                return Err(format!("{left} subchannels are left of which {alive} should be").into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends both wormholes in order.
    pub(crate) async fn close(self) -> Outcome<()> {
        tokio::try_join!(self.a.wormhole.close(), self.b.wormhole.close())?;
        Ok(())
    }
}
