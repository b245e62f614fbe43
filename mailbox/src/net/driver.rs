//! The driver: owns the connection, makes it again, and turns the machine.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rand::rngs::StdRng;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use super::clock::now;
use super::connect::{Connection, connect};
use super::link::{Link, Loss};
use super::race::{Attempt, Race, Step};
use super::wish::{Pace, Wish};
use super::{MailboxUrl, NetConfig, Shared};
use crate::client::{Backoff, Event};
use crate::error::WormholeError;

type Farewell = Pin<Box<dyn Future<Output = ()> + Send>>;

enum State {
    /// Before the next attempt.
    Waiting(Pin<Box<Sleep>>),
    Connecting(Race<Connection>),
    Open(Box<Link>),
    /// The wormhole ended; the websocket is told.
    Leaving(Farewell),
    Gone,
}

/// Owns a wormhole's connection to the mailbox server: connects, re-connects with growing pauses for as long as the
/// wormhole lives, pings.
///
/// Poll [`next`](Self::next) until it has given [`Event::Closed`]. Dropping the driver drops the connection
/// and ends the wormhole for all its handles.
pub struct MailboxDriver {
    shared: Arc<Shared>,
    urls: Vec<MailboxUrl>,
    /// The address in use, or the one that worked last.
    current: usize,
    /// Why addresses failed in the present round, with their place in it.
    failures: Vec<(usize, String)>,
    /// The strongest wish that is not yet heeded.
    wish: Option<Wish>,
    pace: Pace,
    net: NetConfig,
    max_message: usize,
    rng: StdRng,
    backoff: Backoff,
    state: State,
    timer: Option<Pin<Box<Sleep>>>,
}

impl MailboxDriver {
    pub(super) fn new(
        shared: Arc<Shared>,
        urls: Vec<MailboxUrl>,
        net: NetConfig,
        max_message: usize,
        rng: StdRng,
    ) -> Self {
        let mut driver = Self {
            shared,
            urls,
            current: 0,
            failures: Vec::new(),
            wish: None,
            pace: Pace::new(),
            backoff: Backoff::new(net.backoff_first, net.backoff_max),
            net,
            max_message,
            rng,
            state: State::Gone,
            timer: None,
        };
        driver.attempt();
        driver
    }

    /// Drives the connection until something happened. After [`Event::Closed`] it waits for ever.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: all state is in the driver.
    pub async fn next(&mut self) -> Event {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// [`next`](Self::next) as a poll function.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        self.shared.driver.register(cx.waker());
        loop {
            // First send: whoever gets an event may take its time to come back.
            self.send(cx);
            if let Poll::Ready(event) = self.poll_machine(cx) {
                return Poll::Ready(event);
            }
            if self.poll_connection(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Timers and events. The last event waits until the websocket had its farewell.
    fn poll_machine(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let deadline = {
            let mut client = self.shared.lock();
            client.handle_timeout(now().into_std());
            client.poll_timeout(now().into_std()).map(Instant::from_std)
        };
        match (deadline, &mut self.timer) {
            (None, timer) => *timer = None,
            (Some(deadline), timer) => {
                let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
                if timer.as_mut().poll(cx).is_ready() {
                    self.shared.lock().handle_timeout(now().into_std());
                }
            }
        }
        self.shared.publish_wordlist();
        let leaving = self.shared.lock().is_closed() && !matches!(self.state, State::Gone);
        if leaving {
            let state = std::mem::replace(&mut self.state, State::Gone);
            self.state = match state {
                State::Open(link) => State::Leaving(Box::pin(link.close())),
                State::Leaving(farewell) => State::Leaving(farewell),
                State::Waiting(_) | State::Connecting(_) | State::Gone => State::Gone,
            };
        }
        if let State::Leaving(farewell) = &mut self.state {
            if farewell.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.state = State::Gone;
        }
        self.shared.lock().poll_event().map_or(Poll::Pending, Poll::Ready)
    }

    /// Ready if the connection moved, so that the machine must be asked again.
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wish = self.wish.max(self.shared.wishes.take());
        if let Some(wish) = self.wish
            && self.pace.poll_free(cx).is_ready()
        {
            self.wish = None;
            self.heed(wish);
            return Poll::Ready(());
        }
        match &mut self.state {
            State::Waiting(pause) => {
                ready!(pause.as_mut().poll(cx));
                self.attempt();
            }
            State::Connecting(race) => match ready!(race.poll(cx)) {
                Step::Started(place) => self.shared.lock().handle_connecting(&self.url(place).to_string()),
                Step::Failed(place, reason) => {
                    debug!(url = %self.url(place), reason, "no connection to the mailbox server");
                    self.failures.push((place, reason));
                }
                Step::Won(place, connection) => self.connected(place, connection),
                Step::Over => self.attempt_failed(),
            },
            State::Open(link) => {
                let shared = &self.shared;
                let received = link.poll_receive(cx, |text| {
                    let mut client = shared.lock();
                    client.handle_text(text);
                    client.has_event()
                });
                if let Err(loss) = ready!(received) {
                    self.lost(&loss);
                }
            }
            State::Leaving(_) | State::Gone => return Poll::Pending,
        }
        Poll::Ready(())
    }

    fn heed(&mut self, wish: Wish) {
        match &mut self.state {
            State::Open(link) if wish == Wish::NetworkChanged && link.lost_its_address() => {
                self.lost(&Loss::AddressGone);
            }
            State::Open(link) => {
                link.probe();
                self.pace.heeded();
            }
            // What an attempt waits for may be gone with the old network.
            State::Waiting(_) | State::Connecting(_) => {
                if wish == Wish::NetworkChanged {
                    self.backoff.reset();
                }
                self.restart();
            }
            State::Leaving(_) | State::Gone => {}
        }
    }

    fn send(&mut self, cx: &mut Context<'_>) {
        let State::Open(link) = &mut self.state else { return };
        let shared = &self.shared;
        if let Err(loss) = link.poll_send(cx, || shared.lock().poll_transmit()) {
            self.lost(&loss);
        }
    }

    /// The address at this place of a round.
    fn url(&self, place: usize) -> &MailboxUrl {
        &self.urls[(self.current + place) % self.urls.len()]
    }

    /// Begins a round: every address is tried.
    fn attempt(&mut self) {
        let limit = self.net.connect_timeout;
        let attempts = (0..self.urls.len()).map(|place| -> Attempt<Connection> {
            let (url, roots) = (self.url(place).clone(), self.net.extra_roots.clone());
            let connecting = connect(url, roots, self.net.dialer.clone(), self.max_message);
            Box::pin(async move {
                match tokio::time::timeout(limit, connecting).await {
                    Ok(result) => result,
                    Err(_) => Err(format!("no answer within {} s", limit.as_secs_f32())),
                }
            })
        });
        let race = Race::new(attempts.collect::<Vec<_>>(), self.net.address_stagger);
        self.failures.clear();
        self.state = State::Connecting(race);
    }

    /// Begins a round at once, for a reason that may come again soon.
    fn restart(&mut self) {
        self.pace.restarted();
        self.attempt();
    }

    fn connected(&mut self, place: usize, connection: Connection) {
        self.current = (self.current + place) % self.urls.len();
        self.backoff.reset();
        self.pace.reset();
        self.shared.lock().handle_open();
        self.state = State::Open(Box::new(Link::new(connection, &self.net)));
    }

    fn attempt_failed(&mut self) {
        let mut failures = std::mem::take(&mut self.failures);
        // There is an address, and each that is tried and does not win fails.
        let (last, mut reason) = failures.pop().expect("a round ends with a failure");
        for (place, earlier) in failures {
            reason.push_str(&format!("; {}: {earlier}", self.url(place)));
        }
        self.shared.lock().handle_connect_failed(&self.url(last).to_string(), &reason);
        self.wait();
    }

    fn lost(&mut self, loss: &Loss) {
        let (reason, at_once) = match loss {
            Loss::Reason(reason) => (reason.as_str(), false),
            Loss::Doubt => ("the mailbox server did not answer when it was asked for a sign of life", true),
            Loss::AddressGone => ("this machine does not have the connection's address any more", true),
            Loss::TooLarge => ("a message of the mailbox server is too large", false),
        };
        debug!(reason, "connection to the mailbox server lost");
        {
            let mut client = self.shared.lock();
            client.handle_lost(reason);
            if matches!(loss, Loss::TooLarge) {
                client.fail(WormholeError::limit("bytes in a message of the server", self.max_message));
            }
        }
        if at_once { self.restart() } else { self.wait() }
    }

    fn wait(&mut self) {
        let pause = self.backoff.next_delay(&mut self.rng);
        self.state = State::Waiting(Box::pin(sleep_until(now() + pause)));
    }
}

impl Drop for MailboxDriver {
    fn drop(&mut self) {
        // Nobody will turn the machine again: verbs must fail and waiters must wake.
        self.shared.lock().abandon();
        self.shared.publish_wordlist();
    }
}

impl fmt::Debug for MailboxDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailboxDriver").field("urls", &self.urls).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use futures::{FutureExt, SinkExt, StreamExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio::time::timeout;
    use tokio_tungstenite::tungstenite::Message;

    use super::*;
    use crate::client::ClientConfig;
    use crate::net::{Mailbox, client_with};

    const PATIENCE: Duration = Duration::from_secs(20);
    const NEVER: Duration = Duration::from_secs(3600);

    fn join(address: SocketAddr, net: NetConfig) -> (Mailbox, MailboxDriver) {
        let url = format!("ws://{address}").parse().unwrap();
        client_with(vec![url], ClientConfig::new("example.org/test"), net).unwrap()
    }

    async fn next(driver: &mut MailboxDriver) -> Event {
        timeout(PATIENCE, driver.next()).await.expect("an event comes in time")
    }

    /// Events until the connection is up.
    async fn connect(driver: &mut MailboxDriver) -> Vec<Event> {
        let mut events = Vec::new();
        while events.last() != Some(&Event::Connected) {
            events.push(next(driver).await);
        }
        events
    }

    /// Listens, and tells when a connection comes and when it ends.
    async fn listen(websockets: bool) -> (SocketAddr, mpsc::UnboundedReceiver<&'static str>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let _ = sender.send("came");
                    if websockets {
                        let mut socket = tokio_tungstenite::accept_async(socket).await.unwrap();
                        while let Some(Ok(_)) = socket.next().await {}
                    } else {
                        let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
                    }
                    let _ = sender.send("ended");
                });
            }
        });
        (address, receiver)
    }

    #[tokio::test]
    async fn a_connection_whose_address_is_gone_is_replaced_at_once() {
        let (address, mut seen) = listen(true).await;
        // It must not be doubt that ends it.
        let (mailbox, mut driver) = join(address, NetConfig { probe_timeout: NEVER, ..NetConfig::default() });
        connect(&mut driver).await;
        let State::Open(link) = &mut driver.state else { panic!("just connected") };
        assert!(!link.lost_its_address());
        // Reserved for documentation, so it is nobody's.
        link.local = "192.0.2.1:4000".parse().unwrap();
        mailbox.network_changed();
        let events = connect(&mut driver).await;
        let [Event::Disconnected { reason }, Event::Connecting { .. }, Event::Connected] = &events[..] else {
            panic!("{events:?}")
        };
        assert!(reason.contains("address"), "{reason}");
        let mut seen_in_time = async || timeout(PATIENCE, seen.recv()).await.unwrap().unwrap();
        let mut order = [seen_in_time().await, seen_in_time().await, seen_in_time().await];
        order[1..].sort_unstable();
        assert_eq!(order, ["came", "came", "ended"]);
        // The new one has an address of this machine.
        mailbox.network_changed();
        let more = timeout(Duration::from_millis(600), driver.next()).await;
        assert!(more.is_err(), "{more:?}");
        let State::Open(link) = &driver.state else { panic!("still connected") };
        assert!(!link.lost_its_address());
    }

    #[tokio::test]
    async fn what_was_on_its_way_is_no_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut socket = tokio_tungstenite::accept_async(socket).await.unwrap();
            // It never reads, so it never answers.
            while socket.send(Message::text(r#"{"type":"ack"}"#)).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let net = NetConfig { probe_timeout: Duration::from_millis(800), ..NetConfig::default() };
        let (mailbox, mut driver) = join(address, net);
        connect(&mut driver).await;
        mailbox.network_changed();
        let event = next(&mut driver).await;
        assert!(
            matches!(&event, Event::Disconnected { reason } if reason.contains("did not answer")),
            "{event:?}"
        );
    }

    /// The process is stopped, or gets no processor time, while the answer is due.
    #[tokio::test]
    async fn time_in_which_we_did_not_look_is_not_held_against_the_server() {
        let (address, _seen) = listen(true).await;
        let (mailbox, mut driver) = join(address, NetConfig::default());
        connect(&mut driver).await;
        let answered = |driver: &MailboxDriver| match &driver.state {
            State::Open(link) => !link.is_in_doubt(),
            _ => panic!("still connected"),
        };
        for doubt in [true, false] {
            if doubt {
                mailbox.reconnect_now();
            }
            // The ping leaves, and before anybody can answer it, all deadlines are over.
            assert!(driver.next().now_or_never().is_none());
            assert_eq!(answered(&driver), !doubt);
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(3600)).await;
            tokio::time::resume();
            assert!(driver.next().now_or_never().is_none(), "the server gets its time again");
            assert!(!answered(&driver), "but it is asked for a sign of life");
            let answer = async {
                while !answered(&driver) {
                    let event = timeout(Duration::from_millis(10), driver.next()).await;
                    assert!(event.is_err(), "{event:?}");
                }
            };
            timeout(PATIENCE, answer).await.expect("an answer comes in time");
        }
    }

    #[tokio::test]
    async fn an_attempt_is_started_over_and_the_last_call_counts() {
        let (address, mut seen) = listen(false).await;
        let (mailbox, mut driver) =
            join(address, NetConfig { connect_timeout: NEVER, ..NetConfig::default() });
        let driving = tokio::spawn(async move {
            loop {
                driver.next().await;
            }
        });
        let mut seen_in_time = async || timeout(PATIENCE, seen.recv()).await.unwrap().unwrap();
        assert_eq!(seen_in_time().await, "came");
        // Heeded at once.
        mailbox.network_changed();
        let mut both = [seen_in_time().await, seen_in_time().await];
        both.sort_unstable();
        assert_eq!(both, ["came", "ended"]);
        // Heeded, but not each.
        for _ in 0..100 {
            mailbox.network_changed();
            tokio::task::yield_now().await;
        }
        let (mut came, mut ended) = (0, 0);
        while let Ok(Some(event)) = timeout(Duration::from_secs(2), seen.recv()).await {
            *(if event == "came" { &mut came } else { &mut ended }) += 1;
        }
        assert!((1..=10).contains(&came), "{came}");
        assert_eq!(came, ended, "the attempts before the last are dropped");
        driving.abort();
        assert_eq!(timeout(PATIENCE, seen.recv()).await.unwrap(), Some("ended"));
    }

    /// Seconds from the next loss or failure to the attempt that follows it.
    async fn pause_after_failure(driver: &mut MailboxDriver) -> u64 {
        let search = async {
            while !matches!(driver.next().await, Event::Disconnected { .. }) {}
            let failed = now();
            assert!(matches!(driver.next().await, Event::Connecting { .. }));
            (now() - failed).as_secs()
        };
        timeout(NEVER, search).await.expect("a failure comes in time")
    }

    /// The pauses pass on a clock that leaps.
    #[tokio::test]
    async fn it_is_tried_for_ever_and_a_change_of_network_begins_again() {
        let (address, _seen) = listen(true).await;
        let (mailbox, mut driver) = join(address, NetConfig::default());
        connect(&mut driver).await;
        // What is tried from now on is refused, or takes longer than the clock that leaps.
        driver.urls = vec!["ws://127.0.0.1:1".parse().unwrap()];
        let State::Open(link) = &mut driver.state else { panic!("just connected") };
        link.local = "192.0.2.1:4000".parse().unwrap();
        mailbox.network_changed();
        tokio::time::pause();
        let mut pauses = Vec::new();
        while pauses.len() < 1000 {
            pauses.push(pause_after_failure(&mut driver).await);
        }
        // The first, the loss, was followed by an attempt at once, and took no step of the pauses.
        assert_eq!(pauses[0], 0);
        assert!((1..=2).contains(&pauses[1]), "{pauses:?}");
        assert!(pauses[20..].iter().all(|pause| (60..=61).contains(pause)), "{pauses:?}");
        mailbox.network_changed();
        assert!((1..=2).contains(&pause_after_failure(&mut driver).await));
        tokio::time::resume();
        driver.urls = vec![format!("ws://{address}").parse().unwrap()];
        mailbox.network_changed();
        connect(&mut driver).await;
    }
}
