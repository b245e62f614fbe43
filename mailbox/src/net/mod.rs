//! The websocket driver of the [`Client`], on tokio.
//!
//! [`client`] gives two halves. The [`Mailbox`] is a handle with the application's verbs: none of them waits,
//! so they can be called from anywhere. The [`MailboxDriver`] owns the connection; somebody must poll
//! [`MailboxDriver::next`] for anything to happen, and gets the events from it. It reads from the server only
//! when all events have been taken: an application that is slow to ask slows the server, not the memory.

mod clock;
mod connect;
mod dialer;
mod driver;
mod handle;
mod link;
mod race;
mod url;
mod wish;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::task::AtomicWaker;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

pub use dialer::Dialer;
pub use driver::MailboxDriver;
pub use handle::{CodeInput, Mailbox};
pub use url::{MailboxUrl, UrlError};

use crate::WormholeError;
use crate::client::{Client, ClientConfig};
use wish::{Wish, Wishes};

/// How the driver treats the network.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NetConfig {
    /// How long an attempt to connect to one address may take, name resolution and handshakes included. Default 30 s.
    pub connect_timeout: Duration,
    /// How long an attempt may be pending before the next address, if there are several, is tried beside it. The first
    /// success counts. Default 2 s.
    pub address_stagger: Duration,
    /// How often the server is pinged. Default 30 s.
    pub ping_interval: Duration,
    /// How long the server may be silent. Default 60 s.
    pub ping_timeout: Duration,
    /// How long the server may take to answer when [`Mailbox::reconnect_now`] or [`Mailbox::network_changed`] asks
    /// whether the connection is still good. Default 3 s.
    pub probe_timeout: Duration,
    /// How long the first pause after a failure is; each is half as much longer than the one before. A change of the
    /// network ends it. Default 1 s.
    pub backoff_first: Duration,
    /// The longest pause. Default 60 s.
    pub backoff_max: Duration,
    /// How long the end of a wormhole waits for the websocket's own farewell. Default 1 s.
    pub farewell: Duration,
    /// Certificates of authorities to trust for `wss://`, beside those of the system.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Makes the TCP connections, for example through a proxy. Default: none, the system makes them.
    pub dialer: Option<Dialer>,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(30),
            address_stagger: Duration::from_secs(2),
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(60),
            probe_timeout: Duration::from_secs(3),
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            farewell: Duration::from_secs(1),
            extra_roots: Vec::new(),
            dialer: None,
        }
    }
}

/// Makes a client of the mailbox server at `urls`. They are several addresses of one server, or of one and those that
/// stand in for it.
///
/// # Several addresses
/// The address that worked last is tried first. One that fails is followed by the next at once, one that is silent by
/// the next beside it after [`NetConfig::address_stagger`]; the first to answer is used, and each has its own
/// [`NetConfig::connect_timeout`]. Only when all have failed is there a pause, which grows from one second to a minute.
/// After the first success this never ends by itself.
///
/// Servers do not share their mailboxes: two peers connected to different ones do not see each other, and neither is
/// told. So name the same addresses in the same order on both sides. If the one in use is gone, both move to the next:
///
/// - With the server's state, as when it moved or is restarted with its file, nothing is noticed.
/// - Without, after the two sides have met, they meet again: both open the mailbox of the same name, which is new
///   there, and each adds its messages again. What the other side has seen before it recognises. The same happens when
///   a server forgot a mailbox in which nobody was for a while. Only the newest
///   [`unsent_bytes`](crate::client::ClientLimits::unsent_bytes) of each side are kept for this; a longer history
///   whose beginning the other side did not read is lost, with a warning in the log. Nor do other implementations do
///   it: what they had said and this side had not read is lost.
/// - Without, before they have met, the code is worthless: the wormhole ends with [`WormholeError::Forgotten`].
/// - A wormhole that is closing leaves only what no server has confirmed.
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
        wishes: Wishes::default(),
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
    wishes: Wishes,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Client> {
        // A panic inside the machine leaves it as it was: each step is checked again by the next.
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wish(&self, wish: Wish) {
        self.wishes.leave(wish);
        self.driver.wake();
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
