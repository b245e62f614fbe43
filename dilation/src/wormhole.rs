//! The wormhole: a code, a key, messages through the mailbox, and the way to `dilate`.

use std::sync::{Arc, Mutex, MutexGuard};

use dilated_mailbox::{
    Code, Key, WormholeError,
    client::{ClientConfig, MailboxStatus, PeerVersions, Welcome},
    net::{CodeInput, Dialer, Mailbox, MailboxUrl, NetConfig},
};
use dilated_transit::net::{MonitorConfig, Proxy};
use futures::stream::{BoxStream, StreamExt};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tracing::Instrument;

use crate::{
    config::DilateConfig,
    dialect::Dialect,
    driver::Driver,
    endpoint::{DilateRequest, Dilated},
    error::DilationError,
    inbox::Inbox,
};

/// Builds a [`Wormhole`]. Made by [`Wormhole::builder`].
#[derive(Debug, Clone)]
pub struct WormholeBuilder {
    mailboxes: Vec<String>,
    dialects: Vec<Dialect>,
    client: ClientConfig,
    net: NetConfig,
    monitor: MonitorConfig,
}

impl WormholeBuilder {
    /// Uses this mailbox server, `ws://…` or `wss://…`, instead of the public one. May be called several times, for a
    /// server with several addresses and for others that stand in when it is gone; name the same in the same order on
    /// both sides. [`dilated_mailbox::net::client`] tells what happens then.
    #[must_use]
    pub fn mailbox(mut self, url: impl Into<String>) -> Self {
        self.mailboxes.push(url.into());
        self
    }

    /// What this program tells the peer's about itself, any JSON object; the peer reads it from
    /// [`Wormhole::versions`]. Default: `{}`.
    #[must_use]
    pub fn app_versions(mut self, versions: Value) -> Self {
        self.client.app_versions = versions;
        self
    }

    /// Whether to tell the peer that this side can dilate. Default: yes, in [all dialects](Dialect::ALL).
    #[must_use]
    pub fn dilation(self, enabled: bool) -> Self {
        self.dialects(if enabled { &Dialect::ALL } else { &[] })
    }

    /// The dialects to offer, the best first. Default: [all](Dialect::ALL).
    #[must_use]
    pub fn dialects(mut self, dialects: &[Dialect]) -> Self {
        self.dialects = dialects.to_vec();
        self
    }

    /// Adjusts the limits and timers of the mailbox client.
    #[must_use]
    pub fn client(mut self, adjust: impl FnOnce(&mut ClientConfig)) -> Self {
        adjust(&mut self.client);
        self
    }

    /// Adjusts the timers of the connection to the mailbox server, and which certificates it trusts.
    #[must_use]
    pub fn net(mut self, adjust: impl FnOnce(&mut NetConfig)) -> Self {
        adjust(&mut self.net);
        self
    }

    /// Connects to the mailbox server through this proxy. Links have [a setting of their own](crate::DilateConfig::proxy).
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        let dialer = Dialer::new(move |host, port| {
            let proxy = proxy.clone();
            async move { proxy.dial(&host, port).await }
        });
        self.net.dialer = Some(dialer);
        self
    }

    /// Adjusts how changes of the network and sleep are noticed.
    #[must_use]
    pub fn monitor(mut self, config: MonitorConfig) -> Self {
        self.monitor = config;
        self
    }

    /// Starts the wormhole: a task that connects to the mailbox server. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// A mailbox address that cannot be parsed. Failures of the network come later, from every value that is
    /// awaited.
    pub fn build(mut self) -> Result<Wormhole, WormholeError> {
        if self.mailboxes.is_empty() {
            self.mailboxes.extend(crate::PUBLIC_MAILBOXES.map(str::to_owned));
        }
        let urls =
            self.mailboxes.iter().map(|url| url.parse::<MailboxUrl>()).collect::<Result<Vec<_>, _>>()?;
        self.client.can_dilate = self.dialects.iter().map(|dialect| dialect.name().to_owned()).collect();
        let dilation = !self.dialects.is_empty();
        let (mailbox, mailbox_driver) = dilated_mailbox::net::client_with(urls, self.client, self.net)
            .expect("there is at least the public server");
        let (state_sender, state) = watch::channel(Snapshot::new(mailbox.status()));
        let shared = Arc::new(Shared {
            mailbox: mailbox.clone(),
            requests: Mutex::default(),
            wake: Notify::new(),
            inbox: Mutex::default(),
        });
        // The mailbox side is no secret: the server sees it. It tells several wormholes of a program apart.
        let span = tracing::info_span!("wormhole", side = mailbox.side());
        let driver = Driver::new(
            mailbox_driver,
            mailbox,
            Arc::clone(&shared),
            state_sender,
            self.monitor,
            self.dialects,
        );
        tokio::spawn(driver.run().instrument(span));
        Ok(Wormhole { handle: Arc::new(Handle { shared, state, dilation }) })
    }
}

/// What the wormhole has learnt so far; every value is set once.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) welcome: Option<Welcome>,
    pub(crate) code: Option<Code>,
    pub(crate) key: Option<Key>,
    pub(crate) verifier: Option<[u8; 32]>,
    pub(crate) versions: Option<PeerVersions>,
    pub(crate) status: MailboxStatus,
    /// Messages received so far; they wait in the inbox.
    pub(crate) messages: u64,
    pub(crate) closed: Option<Result<(), WormholeError>>,
}

impl Snapshot {
    fn new(status: MailboxStatus) -> Snapshot {
        Snapshot {
            welcome: None,
            code: None,
            key: None,
            verifier: None,
            versions: None,
            status,
            messages: 0,
            closed: None,
        }
    }
}

/// What the application asks of the driver.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    pub(crate) dilate: Option<DilateRequest>,
    pub(crate) dilated: bool,
    pub(crate) abandon_link: bool,
    pub(crate) close: bool,
    pub(crate) dropped: bool,
    /// Why nobody will look at requests any more.
    pub(crate) ended: Option<WormholeError>,
}

/// Shared by the handles and the driver.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) mailbox: Mailbox,
    requests: Mutex<Requests>,
    wake: Notify,
    inbox: Mutex<Inbox>,
}

impl Shared {
    /// Locks the requests; call [`wake`](Self::wake) afterwards.
    pub(crate) fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}

/// What all clones of a wormhole, and its `Dilated`, keep alive.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    state: watch::Receiver<Snapshot>,
    dilation: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.requests().dropped = true;
        self.shared.wake();
    }
}

/// Something that happened, for programs that prefer a stream to awaiting each value.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The mailbox server said hello.
    Welcome(Welcome),
    /// The code is known: allocated, set or typed.
    Code(Code),
    /// A key was agreed on. Nothing proves yet that the peer has the same.
    UnverifiedKey,
    /// The peer has the same key. Two people may compare this.
    Verifier([u8; 32]),
    /// What the peer's program says about itself.
    Versions(Value),
    /// A message from the peer.
    Message(Vec<u8>),
    /// The state of the mailbox connection, the key or the code changed.
    Status(MailboxStatus),
    /// The wormhole ended; this is the last event.
    Closed(Result<(), WormholeError>),
}

/// One end of a wormhole.
///
/// Clones are handles to the same wormhole and may be used from several tasks. When the last clone and the
/// [`Dilated`] are dropped, the wormhole ends at once and says nothing to the peer; [`close`](Self::close) ends it
/// in order.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let wormhole = dilated::Wormhole::builder("example.com/chat").build()?;
/// println!("the code is {}", wormhole.allocate_code(2).await?);
/// wormhole.send_message("hello")?;
/// println!("the other side says {:?}", wormhole.next_message().await?);
/// wormhole.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Wormhole {
    pub(crate) handle: Arc<Handle>,
}

impl Wormhole {
    /// Starts to build a wormhole of the application `appid`, a string like `example.com/tool`. Only wormholes of
    /// the same application meet.
    pub fn builder(appid: impl Into<String>) -> WormholeBuilder {
        WormholeBuilder {
            mailboxes: Vec::new(),
            dialects: Dialect::ALL.to_vec(),
            client: ClientConfig::new(appid),
            net: NetConfig::default(),
            monitor: MonitorConfig::default(),
        }
    }

    /// Lets the server choose a nameplate, adds `words` random words, and returns the code once it is known.
    ///
    /// # Errors
    ///
    /// [`WormholeError::OnlyOneCode`] when there is a code already, and whatever ends the wormhole meanwhile.
    ///
    /// # Cancel safety
    ///
    /// The allocation goes on when the future is dropped; [`code`](Self::code) has its result.
    pub async fn allocate_code(&self, words: usize) -> Result<Code, WormholeError> {
        self.mailbox().allocate_code(words).map_err(|error| self.reason(error))?;
        self.code().await
    }

    /// Uses a code that people agreed on, or that the other side shows.
    ///
    /// # Errors
    ///
    /// [`WormholeError::KeyFormat`] for what cannot be a code (try again with another), and
    /// [`WormholeError::OnlyOneCode`].
    pub fn set_code(&self, code: &str) -> Result<(), WormholeError> {
        self.mailbox().set_code(code).map_err(|error| self.reason(error))
    }

    /// Starts to enter a code piece by piece, with completion of nameplates and words.
    ///
    /// # Errors
    ///
    /// [`WormholeError::OnlyOneCode`] when there is a code already.
    pub fn input_code(&self) -> Result<CodeInput, WormholeError> {
        self.mailbox().input_code().map_err(|error| self.reason(error))
    }

    /// The server's welcome.
    ///
    /// # Errors
    ///
    /// What ended the wormhole before it came. The same holds for the other values.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, like the other values: nothing is lost by dropping the future.
    pub async fn welcome(&self) -> Result<Welcome, WormholeError> {
        self.value(|state| state.welcome.clone()).await
    }

    /// The code. Errors and cancel safety as [`welcome`](Self::welcome).
    pub async fn code(&self) -> Result<Code, WormholeError> {
        self.value(|state| state.code.clone()).await
    }

    /// The key, before the peer has proved that it has the same. Errors and cancel safety as
    /// [`welcome`](Self::welcome).
    pub async fn unverified_key(&self) -> Result<Key, WormholeError> {
        self.value(|state| state.key.clone()).await
    }

    /// 32 bytes that are the same on both sides and on no third one, once the peer has proved that it has the
    /// key. Errors and cancel safety as [`welcome`](Self::welcome).
    pub async fn verifier(&self) -> Result<[u8; 32], WormholeError> {
        self.value(|state| state.verifier).await
    }

    /// The peer's `app_versions`. Errors and cancel safety as [`welcome`](Self::welcome).
    pub async fn versions(&self) -> Result<Value, WormholeError> {
        self.value(|state| state.versions.as_ref().map(|versions| versions.app_versions.clone())).await
    }

    /// A key for another purpose, derived from the wormhole's: `length` bytes, at most 8,160. Both sides get the
    /// same for the same purpose.
    ///
    /// # Errors
    ///
    /// [`WormholeError::NoKey`] before there is a key: await [`unverified_key`](Self::unverified_key) or, better,
    /// [`verifier`](Self::verifier) first.
    pub fn derive_key(&self, purpose: &str, length: usize) -> Result<Vec<u8>, WormholeError> {
        let state = self.handle.state.borrow();
        Ok(state.key.as_ref().ok_or(WormholeError::NoKey)?.derive(purpose, length))
    }

    /// Queues a message for the peer. It is sent when the key is verified, and again after a reconnect until the
    /// server has it.
    ///
    /// # Errors
    ///
    /// A message that is too large, too many unsent ones, or the end of the wormhole.
    pub fn send_message(&self, message: impl Into<Vec<u8>>) -> Result<(), WormholeError> {
        self.mailbox().send_message(message.into()).map_err(|error| self.reason(error))
    }

    /// The next message from the peer: in order, each exactly once over all clones and
    /// [`events`](Self::events).
    ///
    /// # Errors
    ///
    /// What ended the wormhole, after the messages that came before.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a message is taken only when it is returned.
    pub async fn next_message(&self) -> Result<Vec<u8>, WormholeError> {
        self.value(|_| self.handle.shared.inbox().pop()).await
    }

    /// Everything that happens, what already happened first. Messages are shared with
    /// [`next_message`](Self::next_message): each goes to one taker.
    pub fn events(&self) -> BoxStream<'static, Event> {
        let source =
            EventSource { wormhole: self.clone(), state: self.handle.state.clone(), seen: Seen::default() };
        futures::stream::unfold(source, |mut source| async move {
            let event = source.next().await?;
            Some((event, source))
        })
        .boxed()
    }

    /// The state of the mailbox connection, the key and the code at this moment.
    pub fn status(&self) -> MailboxStatus {
        self.handle.state.borrow().status.clone()
    }

    /// Dilates: from now on a link is built, and rebuilt, as soon as the peer dilates too. Returns at once; await
    /// [`Dilated::connected`] or open a subchannel. Call [`Dilated::listener_for`] before the first await, or name
    /// the subprotocols in [`DilateConfig::expected_subprotocols`], so that no early open of the peer is refused.
    ///
    /// # Errors
    ///
    /// [`DilationError::AlreadyDilated`], [`DilationError::Disabled`], [`DilationError::Config`], or the end of the
    /// wormhole.
    pub fn dilate(&self, config: DilateConfig) -> Result<Dilated, DilationError> {
        if !self.handle.dilation {
            return Err(DilationError::Disabled);
        }
        config.check()?;
        let mut requests = self.handle.shared.requests();
        // Under the lock, so that no request is left to a driver that has ended.
        if let Some(ended) = &requests.ended {
            return Err(DilationError::Wormhole(ended.clone()));
        }
        if std::mem::replace(&mut requests.dilated, true) {
            return Err(DilationError::AlreadyDilated);
        }
        let (dilated, request) = Dilated::new(self.clone(), config)?;
        requests.dilate = Some(request);
        drop(requests);
        self.handle.shared.wake();
        Ok(dilated)
    }

    /// Ends the wormhole in order: what was written to subchannels is delivered within
    /// [`linger`](DilateConfig::linger), the mailbox is closed, the link ends. May be called from several tasks;
    /// all get the same answer.
    ///
    /// # Errors
    ///
    /// How it ended, when not happily: [`WormholeError::Lonely`] when no peer was ever heard,
    /// [`WormholeError::WrongPassword`], [`WormholeError::Crowded`], and whatever ended it before.
    ///
    /// # Cancel safety
    ///
    /// The close goes on when the future is dropped.
    pub async fn close(&self) -> Result<(), WormholeError> {
        self.handle.shared.requests().close = true;
        self.handle.shared.wake();
        let mut state = self.handle.state.clone();
        match state.wait_for(|state| state.closed.is_some()).await {
            Ok(state) => state.closed.clone().unwrap_or(Ok(())),
            Err(_) => Err(WormholeError::Closed),
        }
    }

    fn mailbox(&self) -> &Mailbox {
        &self.handle.shared.mailbox
    }

    /// Why the wormhole is closed, where that is all that the mailbox knows.
    fn reason(&self, error: WormholeError) -> WormholeError {
        match &self.handle.state.borrow().closed {
            Some(Err(reason)) if error == WormholeError::Closed => reason.clone(),
            _ => error,
        }
    }

    /// Waits until `get` finds something, or the wormhole has ended.
    async fn value<T>(&self, mut get: impl FnMut(&Snapshot) -> Option<T>) -> Result<T, WormholeError> {
        let mut state = self.handle.state.clone();
        loop {
            {
                let state = state.borrow_and_update();
                if let Some(value) = get(&state) {
                    return Ok(value);
                }
                if let Some(closed) = &state.closed {
                    return Err(closed.clone().err().unwrap_or(WormholeError::Closed));
                }
            }
            if state.changed().await.is_err() {
                return Err(WormholeError::Closed);
            }
        }
    }
}

/// What an event stream has already told.
#[derive(Debug, Default)]
struct Seen {
    welcome: bool,
    code: bool,
    key: bool,
    verifier: bool,
    versions: bool,
    status: Option<MailboxStatus>,
    closed: bool,
}

/// The state behind an event stream: nothing is queued, events are the difference between what is and what was told.
struct EventSource {
    wormhole: Wormhole,
    state: watch::Receiver<Snapshot>,
    seen: Seen,
}

impl EventSource {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.seen.closed {
                return None;
            }
            let state = self.state.borrow_and_update().clone();
            if let Some(event) = self.difference(&state) {
                return Some(event);
            }
            if self.state.changed().await.is_err() {
                return None;
            }
        }
    }

    fn difference(&mut self, state: &Snapshot) -> Option<Event> {
        fn once<T: Clone>(seen: &mut bool, value: Option<&T>) -> Option<T> {
            let value = value.filter(|_| !*seen)?;
            *seen = true;
            Some(value.clone())
        }
        let seen = &mut self.seen;
        if let Some(welcome) = once(&mut seen.welcome, state.welcome.as_ref()) {
            return Some(Event::Welcome(welcome));
        }
        if let Some(code) = once(&mut seen.code, state.code.as_ref()) {
            return Some(Event::Code(code));
        }
        if once(&mut seen.key, state.key.as_ref()).is_some() {
            return Some(Event::UnverifiedKey);
        }
        if let Some(verifier) = once(&mut seen.verifier, state.verifier.as_ref()) {
            return Some(Event::Verifier(verifier));
        }
        if let Some(versions) = once(&mut seen.versions, state.versions.as_ref()) {
            return Some(Event::Versions(versions.app_versions));
        }
        if let Some(message) = self.wormhole.handle.shared.inbox().pop() {
            return Some(Event::Message(message));
        }
        if seen.status.as_ref() != Some(&state.status) {
            seen.status = Some(state.status.clone());
            return Some(Event::Status(state.status.clone()));
        }
        once(&mut seen.closed, state.closed.as_ref()).map(Event::Closed)
    }
}
