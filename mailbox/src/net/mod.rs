//! The websocket driver of the [`Client`], on tokio.
//!
//! [`client`] gives two halves. The [`Mailbox`] is a handle with the application's verbs: none of them waits,
//! so they can be called from anywhere. The [`MailboxDriver`] owns the connection; somebody must poll
//! [`MailboxDriver::next`] for anything to happen, and gets the events from it. It reads from the server only
//! when all events have been taken: an application that is slow to ask slows the server, not the memory.

mod clock;
mod connect;
mod driver;
mod handle;
mod link;
mod url;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::task::AtomicWaker;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

pub use driver::MailboxDriver;
pub use handle::{CodeInput, Mailbox};
pub use url::{MailboxUrl, UrlError};

use crate::WormholeError;
use crate::client::{Client, ClientConfig};

/// How the driver treats the network.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NetConfig {
    /// How long one attempt to connect may take, name resolution and handshakes included. Default 30 s.
    pub connect_timeout: Duration,
    /// How often the server is pinged. Default 30 s.
    pub ping_interval: Duration,
    /// How long the server may be silent. Default 60 s.
    pub ping_timeout: Duration,
    /// How long the server may take to answer when [`Mailbox::reconnect_now`] asks whether the connection is still
    /// good. Default 3 s.
    pub probe_timeout: Duration,
    /// Certificates of authorities to trust for `wss://`, beside those of the system.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(60),
            probe_timeout: Duration::from_secs(3),
            extra_roots: Vec::new(),
        }
    }
}

/// Makes a client of the mailbox server at `urls`. They are several addresses of one server, tried in turn:
/// servers do not share their mailboxes, so two peers who reach different ones never meet.
///
/// # Errors
/// [`WormholeError::Config`] if there is no address.
pub fn client(
    urls: Vec<MailboxUrl>,
    config: ClientConfig,
) -> Result<(Mailbox, MailboxDriver), WormholeError> {
    client_with(urls, config, NetConfig::default())
}

/// [`client`], with a say in how the network is treated.
///
/// # Errors
/// [`WormholeError::Config`] if there is no address.
pub fn client_with(
    urls: Vec<MailboxUrl>,
    config: ClientConfig,
    net: NetConfig,
) -> Result<(Mailbox, MailboxDriver), WormholeError> {
    if urls.is_empty() {
        return Err(WormholeError::Config { reason: "name at least one mailbox server".to_owned() });
    }
    let max_message = config.limits.message_bytes;
    let shared = Arc::new(Shared {
        client: Mutex::new(Client::new(config, rand::make_rng::<StdRng>())),
        driver: AtomicWaker::new(),
        wordlist: watch::Sender::new(Wordlist::Awaited),
        reconnect: std::sync::atomic::AtomicBool::new(false),
    });
    let driver =
        MailboxDriver::new(shared.clone(), urls, net, max_message, StdRng::from_rng(&mut rand::rng()));
    Ok((Mailbox::new(shared), driver))
}

/// Whether the typist's word list is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wordlist {
    Awaited,
    Ready,
    /// The wormhole ended first.
    Never,
}

/// What the handles and the driver share. The lock is held for a step of the machine, never across a wait.
struct Shared {
    client: Mutex<Client>,
    driver: AtomicWaker,
    wordlist: watch::Sender<Wordlist>,
    reconnect: std::sync::atomic::AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Client> {
        // A panic inside the machine leaves it as it was: each step is checked again by the next.
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a verb and lets the driver see what came of it.
    fn with<T>(&self, verb: impl FnOnce(&mut Client) -> T) -> T {
        let result = verb(&mut self.lock());
        self.driver.wake();
        result
    }

    fn publish_wordlist(&self) {
        let state = {
            let client = self.lock();
            match (client.is_closing(), client.has_wordlist()) {
                (true, _) => Wordlist::Never,
                (false, true) => Wordlist::Ready,
                (false, false) => Wordlist::Awaited,
            }
        };
        self.wordlist.send_if_modified(|old| std::mem::replace(old, state) != state);
    }
}
