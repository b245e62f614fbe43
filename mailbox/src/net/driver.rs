//! The driver: owns the connection, makes it again, and turns the machine.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use rand::rngs::StdRng;
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::debug;

use super::clock::now;
use super::connect::{Socket, connect};
use super::link::{Link, Loss};
use super::{MailboxUrl, NetConfig, Shared};
use crate::client::{Backoff, Event};
use crate::error::WormholeError;

type Attempt = Pin<Box<dyn Future<Output = Result<Socket, String>> + Send>>;
type Farewell = Pin<Box<dyn Future<Output = ()> + Send>>;

enum State {
    /// Before the next attempt.
    Waiting(Pin<Box<Sleep>>),
    Connecting(Attempt),
    Open(Box<Link>),
    /// The wormhole ended; the websocket is told.
    Leaving(Farewell),
    Gone,
}

/// Owns a wormhole's connection to the mailbox server: connects, re-connects with growing pauses, pings.
///
/// Poll [`next`](Self::next) until it has given [`Event::Closed`]. Dropping the driver drops the connection
/// and ends the wormhole for all its handles.
pub struct MailboxDriver {
    shared: Arc<Shared>,
    urls: Vec<MailboxUrl>,
    /// The address to try next, or the one in use.
    current: usize,
    /// Addresses that failed since the last connection; a full round of them is one failure.
    failed: usize,
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
        Self {
            shared,
            urls,
            current: 0,
            failed: 0,
            net,
            max_message,
            rng,
            backoff: Backoff::default(),
            state: State::Gone,
            timer: None,
        }
        .start()
    }

    fn start(mut self) -> Self {
        self.state = self.attempt();
        self
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
        match &mut self.state {
            State::Waiting(pause) => {
                let hurry = self.shared.reconnect.swap(false, Ordering::AcqRel);
                if !hurry && pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.state = self.attempt();
                Poll::Ready(())
            }
            State::Connecting(_) if self.shared.reconnect.swap(false, Ordering::AcqRel) => {
                // What it waits for may be gone with the old network.
                self.state = self.attempt();
                Poll::Ready(())
            }
            State::Connecting(attempt) => {
                let Poll::Ready(result) = attempt.as_mut().poll(cx) else { return Poll::Pending };
                match result {
                    Ok(socket) => self.connected(socket),
                    Err(reason) => self.attempt_failed(&reason),
                }
                Poll::Ready(())
            }
            State::Open(link) => {
                let shared = &self.shared;
                if shared.reconnect.swap(false, Ordering::AcqRel) {
                    link.probe();
                    return Poll::Ready(());
                }
                let received = link.poll_receive(cx, |text| {
                    let mut client = shared.lock();
                    client.handle_text(text);
                    client.has_event()
                });
                received.map(|result| result.unwrap_or_else(|loss| self.lost(&loss)))
            }
            State::Leaving(_) | State::Gone => Poll::Pending,
        }
    }

    fn send(&mut self, cx: &mut Context<'_>) {
        let State::Open(link) = &mut self.state else { return };
        let shared = &self.shared;
        if let Err(loss) = link.poll_send(cx, || shared.lock().poll_transmit()) {
            self.lost(&loss);
        }
    }

    fn attempt(&mut self) -> State {
        let url = self.urls[self.current].clone();
        self.shared.lock().handle_connecting(&url.to_string());
        let (roots, max_message) = (self.net.extra_roots.clone(), self.max_message);
        let limit = self.net.connect_timeout;
        State::Connecting(Box::pin(async move {
            match tokio::time::timeout(limit, connect(url, roots, max_message)).await {
                Ok(result) => result,
                Err(_) => Err(format!("no answer within {} s", limit.as_secs_f32())),
            }
        }))
    }

    fn connected(&mut self, socket: Socket) {
        self.backoff.reset();
        self.failed = 0;
        self.shared.reconnect.store(false, Ordering::Release);
        self.shared.lock().handle_open();
        self.state = State::Open(Box::new(Link::new(socket, &self.net)));
    }

    fn attempt_failed(&mut self, reason: &str) {
        let url = self.urls[self.current].to_string();
        debug!(%url, reason, "no connection to the mailbox server");
        self.current = (self.current + 1) % self.urls.len();
        self.failed += 1;
        if self.failed < self.urls.len() {
            self.state = self.attempt();
            return;
        }
        self.failed = 0;
        self.shared.lock().handle_connect_failed(&url, reason);
        self.wait();
    }

    fn lost(&mut self, loss: &Loss) {
        let mut client = self.shared.lock();
        match loss {
            Loss::Reason(reason) => {
                debug!(reason, "connection to the mailbox server lost");
                client.handle_lost(reason);
            }
            Loss::Doubt => {
                debug!("the mailbox server did not answer when the connection was in doubt");
                client.handle_lost("the mailbox server did not answer");
                // The doubt had a reason; do not wait.
                self.shared.reconnect.store(true, Ordering::Release);
            }
            Loss::TooLarge => {
                client.handle_lost("a message of the mailbox server is too large");
                client.fail(WormholeError::limit("bytes in a message of the server", self.max_message));
            }
        }
        drop(client);
        self.wait();
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
