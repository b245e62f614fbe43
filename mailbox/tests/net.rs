//! The websocket driver against a small server over real sockets on loopback.
#![cfg(feature = "tokio")]
#![expect(clippy::unwrap_used, reason = "a test that fails should panic")]

#[path = "support/mini.rs"]
mod mini;
#[path = "../../tests/src/socks.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is the proxy of all tests, which use more of it")]
mod socks;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use dilated_mailbox::WormholeError;
use dilated_mailbox::client::{ClientConfig, ConnectionStatus, Event};
use dilated_mailbox::net::{Dialer, Mailbox, MailboxDriver, MailboxUrl, NetConfig, client, client_with};
use mini::{Conduct, MiniServer};
use socks::Socks;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;
use tokio_socks::tcp::Socks5Stream;

const PATIENCE: Duration = Duration::from_secs(20);

fn config() -> ClientConfig {
    ClientConfig::new("example.org/test")
}

fn join(url: &str) -> (Mailbox, MailboxDriver) {
    client(vec![url.parse().unwrap()], config()).unwrap()
}

/// Drives until an event is the wanted one.
async fn until<T>(driver: &mut MailboxDriver, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = wanted(driver.next().await) {
                return found;
            }
        }
    };
    timeout(PATIENCE, search).await.expect("the event comes in time")
}

async fn message(driver: &mut MailboxDriver) -> Vec<u8> {
    until(driver, |event| if let Event::Message(message) = event { Some(message) } else { None }).await
}

async fn closed(driver: &mut MailboxDriver) -> Result<(), WormholeError> {
    until(driver, |event| if let Event::Closed(result) = event { Some(result) } else { None }).await
}

async fn code(driver: &mut MailboxDriver) -> String {
    until(driver, |event| if let Event::Code(code) = event { Some(code.to_string()) } else { None }).await
}

/// Drives both while waiting for one: neither makes progress by itself.
macro_rules! both {
    ($a:expr, $b:expr) => {
        timeout(PATIENCE, async { tokio::join!($a, $b) }).await.expect("both come in time")
    };
}

/// An address at which connections are refused, and nobody else can listen, for as long as the socket lives.
fn refusing() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("ws://{}", socket.local_addr().unwrap());
    (socket, url)
}

/// The connection stays for a while that is much longer than a server may be silent, in which it is pinged.
async fn is_kept(driver: &mut MailboxDriver, server: &MiniServer, pings: usize) {
    let lost = until(driver, |event| matches!(event, Event::Disconnected { .. }).then_some(()));
    let (mut lost, mut looks) = (std::pin::pin!(lost), 0);
    while looks < 3 || server.pings() < pings {
        looks += 1;
        let end = timeout(Duration::from_secs(1), &mut lost).await;
        assert!(end.is_err(), "a good connection is kept");
    }
}

async fn exchange(server: &MiniServer, make: impl Fn() -> (Mailbox, MailboxDriver)) {
    let ((a, mut a_driver), (b, mut b_driver)) = (make(), make());
    a.allocate_code(2).unwrap();
    b.set_code(&code(&mut a_driver).await).unwrap();
    a.send_message(b"from a".to_vec()).unwrap();
    b.send_message(b"from b".to_vec()).unwrap();
    let (to_a, to_b) = both!(message(&mut a_driver), message(&mut b_driver));
    assert_eq!((&to_a[..], &to_b[..]), (&b"from b"[..], &b"from a"[..]));
    assert_eq!(a.key().unwrap(), b.key().unwrap());
    a.close();
    b.close();
    assert_eq!(both!(closed(&mut a_driver), closed(&mut b_driver)), (Ok(()), Ok(())));
    assert_eq!(a.status().connection, ConnectionStatus::Closed);
    assert_eq!(server.moods(), ["happy", "happy"]);
    let more = timeout(Duration::from_millis(50), a_driver.next()).await;
    assert!(more.is_err(), "nothing follows the end");
}

#[tokio::test]
async fn two_clients_exchange_messages() {
    let server = MiniServer::start(Conduct::default()).await;
    exchange(&server, || join(&server.url())).await;
}

#[tokio::test]
async fn binary_frames_are_text_too() {
    let server = MiniServer::start(Conduct { binary: true, ..Conduct::default() }).await;
    exchange(&server, || join(&server.url())).await;
}

#[tokio::test]
async fn tls_with_an_extra_root() {
    let server = MiniServer::start(Conduct { tls: true, ..Conduct::default() }).await;
    let mut net = NetConfig::default();
    net.extra_roots = vec![server.certificate()];
    let url: MailboxUrl = server.url().parse().unwrap();
    exchange(&server, || client_with(vec![url.clone()], config(), net.clone()).unwrap()).await;
}

#[tokio::test]
async fn tls_from_a_stranger_is_refused() {
    let server = MiniServer::start(Conduct { tls: true, ..Conduct::default() }).await;
    let (_mailbox, mut driver) = join(&server.url());
    let error = closed(&mut driver).await.unwrap_err();
    assert!(error.to_string().contains("TLS failed"), "{error}");
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    let mut server = MiniServer::start(Conduct::default()).await;
    let ((a, mut a_driver), (b, mut b_driver)) = (join(&server.url()), join(&server.url()));
    a.set_code("4-x").unwrap();
    b.set_code("4-x").unwrap();
    a.send_message(b"before".to_vec()).unwrap();
    let met = |driver| until(driver, |event| matches!(event, Event::Versions(_)).then_some(()));
    both!(met(&mut a_driver), message(&mut b_driver));
    server.stop().await;
    let lost = |driver| until(driver, |event| matches!(event, Event::Disconnected { .. }).then_some(()));
    both!(lost(&mut a_driver), lost(&mut b_driver));
    a.send_message(b"during".to_vec()).unwrap();
    server.restart().await;
    let (received, ()) = both!(message(&mut b_driver), async {
        a.reconnect_now();
        b.reconnect_now();
        until(&mut a_driver, |event| matches!(event, Event::Connected).then_some(())).await;
        // Until the message is echoed, somebody must turn the machine.
        let _ = timeout(Duration::from_secs(1), a_driver.next()).await;
    });
    assert_eq!(received, b"during");
}

#[tokio::test]
async fn first_failure_is_fatal_unless_patient() {
    let (_unused, url) = refusing();
    let (mailbox, mut driver) = join(&url);
    let Err(WormholeError::Connection { url: named, reason }) = closed(&mut driver).await else { panic!() };
    assert_eq!(named, format!("{url}/v1"));
    assert!(reason.contains("refused"), "{reason}");
    assert_eq!(mailbox.send_message(vec![]), Err(WormholeError::Closed));

    let mut patient = config();
    patient.retry_first = true;
    let (mailbox, mut driver) = client(vec![url.parse().unwrap()], patient).unwrap();
    until(&mut driver, |event| matches!(event, Event::Disconnected { .. }).then_some(())).await;
    mailbox.close();
    assert_eq!(closed(&mut driver).await, Err(WormholeError::Lonely));
}

#[tokio::test]
async fn several_addresses_are_tried_in_turn() {
    let server = MiniServer::start(Conduct::default()).await;
    let (_dead, dead_url) = refusing();
    let urls = vec![dead_url.parse().unwrap(), server.url().parse().unwrap()];
    let (mailbox, mut driver) = client(urls, config()).unwrap();
    until(&mut driver, |event| matches!(event, Event::Connected).then_some(())).await;
    mailbox.close();
    assert_eq!(closed(&mut driver).await, Err(WormholeError::Lonely));
}

#[tokio::test]
async fn what_is_no_websocket_server_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(b"SSH-2.0-OpenSSH_9.0\r\n").await;
        }
    });
    let (_mailbox, mut driver) = join(&url);
    let error = closed(&mut driver).await.unwrap_err().to_string();
    assert!(error.contains("not a websocket server"), "{error}");
}

#[tokio::test]
async fn a_silent_connection_attempt_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: MailboxUrl = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
    let mut net = NetConfig::default();
    net.connect_timeout = Duration::from_millis(200);
    let (_mailbox, mut driver) = client_with(vec![url], config(), net).unwrap();
    let error = closed(&mut driver).await.unwrap_err().to_string();
    assert!(error.contains("no answer"), "{error}");
}

#[tokio::test]
async fn pings_are_sent_and_silence_is_noticed() {
    let server = MiniServer::start(Conduct { silent: true, ..Conduct::default() }).await;
    let mut net = NetConfig::default();
    net.ping_interval = Duration::from_millis(50);
    net.ping_timeout = Duration::from_millis(300);
    let url: MailboxUrl = server.url().parse().unwrap();
    let (_mailbox, mut driver) = client_with(vec![url.clone()], config(), net.clone()).unwrap();
    let reason = until(&mut driver, |event| match event {
        Event::Disconnected { reason } => Some(reason),
        _ => None,
    });
    assert!(reason.await.contains("silent"));

    let server = MiniServer::start(Conduct::default()).await;
    (net.ping_timeout, net.probe_timeout) = (Duration::from_secs(1), Duration::from_secs(1));
    let (_mailbox, mut driver) = client_with(vec![server.url().parse().unwrap()], config(), net).unwrap();
    is_kept(&mut driver, &server, 6).await;
}

#[tokio::test]
async fn a_connection_in_doubt_shows_life_or_is_replaced() {
    let event = |wanted: fn(&Event) -> bool| move |event: Event| wanted(&event).then_some(event);
    let mut net = NetConfig::default();
    net.probe_timeout = Duration::from_secs(1);

    for doubt in [Mailbox::reconnect_now, Mailbox::network_changed] {
        // As after a change of routes: the websocket looks open, and nothing comes back.
        let server = MiniServer::start(Conduct { silent: true, ..Conduct::default() }).await;
        let url: MailboxUrl = server.url().parse().unwrap();
        let (mailbox, mut driver) = client_with(vec![url], config(), net.clone()).unwrap();
        until(&mut driver, event(|event| matches!(event, Event::Connected))).await;
        doubt(&mailbox);
        let lost = until(&mut driver, event(|event| matches!(event, Event::Disconnected { .. }))).await;
        let Event::Disconnected { reason } = lost else { panic!("{lost:?}") };
        assert!(reason.contains("did not answer"), "{reason}");
        assert_eq!(mailbox.status().last_failure, Some(reason));
        until(&mut driver, event(|event| matches!(event, Event::Connected))).await;

        let server = MiniServer::start(Conduct::default()).await;
        let url: MailboxUrl = server.url().parse().unwrap();
        let (mailbox, mut driver) = client_with(vec![url], config(), net.clone()).unwrap();
        until(&mut driver, event(|event| matches!(event, Event::Connected))).await;
        (0..10).for_each(|_| doubt(&mailbox));
        is_kept(&mut driver, &server, 1).await;
    }
}

#[tokio::test]
async fn an_oversized_message_ends_it() {
    let server = MiniServer::start(Conduct { motd: 100_000, ..Conduct::default() }).await;
    let mut small = config();
    small.limits.message_bytes = 10_000;
    let (_mailbox, mut driver) = client(vec![server.url().parse().unwrap()], small).unwrap();
    assert!(matches!(closed(&mut driver).await, Err(WormholeError::Limit { limit: 10_000, .. })));
}

#[tokio::test]
async fn closing_without_a_server_ends_in_time() {
    let mut server = MiniServer::start(Conduct::default()).await;
    let mut hasty = config();
    hasty.close_timeout = Duration::from_millis(300);
    let (mailbox, mut driver) = client(vec![server.url().parse().unwrap()], hasty).unwrap();
    mailbox.allocate_code(2).unwrap();
    code(&mut driver).await;
    server.stop().await;
    mailbox.close();
    assert_eq!(closed(&mut driver).await, Err(WormholeError::Lonely));
}

#[tokio::test]
async fn typing_a_code() {
    let server = MiniServer::start(Conduct::default()).await;
    let (a, mut a_driver) = join(&server.url());
    a.set_code("4-armistice-baboon").unwrap();
    until(&mut a_driver, |event| matches!(event, Event::Welcome(_)).then_some(())).await;
    let (b, mut b_driver) = join(&server.url());
    let input = b.input_code().unwrap();
    assert_eq!(b.input_code().unwrap_err(), WormholeError::OnlyOneCode);
    let typing = async {
        while input.nameplate_completions("").unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            input.refresh_nameplates().unwrap();
        }
        assert!(input.nameplate_completions("4").unwrap().contains("4-"));
        input.choose_nameplate("4").unwrap();
        input.wait_for_wordlist().await.unwrap();
        assert!(input.word_completions("ar").unwrap().contains("armistice-"));
        input.choose_words("armistice-baboon").unwrap();
    };
    let met = |driver| until(driver, |event| matches!(event, Event::Versions(_)).then_some(()));
    timeout(PATIENCE, async { tokio::join!(typing, met(&mut a_driver), met(&mut b_driver)) }).await.unwrap();
}

#[tokio::test]
async fn dropping_the_driver_ends_the_wormhole() {
    let server = MiniServer::start(Conduct::default()).await;
    let (mailbox, mut driver) = join(&server.url());
    until(&mut driver, |event| matches!(event, Event::Welcome(_)).then_some(())).await;
    let input = mailbox.input_code().unwrap();
    let waiter = tokio::spawn(async move { input.wait_for_wordlist().await });
    tokio::task::yield_now().await;
    drop(driver);
    assert!(timeout(PATIENCE, waiter).await.unwrap().unwrap().is_err());
    assert_eq!(mailbox.send_message(vec![]), Err(WormholeError::Closed));
    let gone = async {
        while server.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the connection leaks");
}

#[tokio::test]
async fn next_may_be_cancelled_at_any_time() {
    let server = MiniServer::start(Conduct::default()).await;
    let ((a, mut a_driver), (b, mut b_driver)) = (join(&server.url()), join(&server.url()));
    a.set_code("4-x").unwrap();
    b.set_code("4-x").unwrap();
    for n in 0..50_u8 {
        a.send_message(vec![n; 3000]).unwrap();
    }
    let mut received = Vec::new();
    let search = async {
        while received.len() < 50 {
            let _ = timeout(Duration::from_micros(200), a_driver.next()).await;
            if let Ok(Event::Message(message)) = timeout(Duration::from_micros(200), b_driver.next()).await {
                received.push(message[0]);
            }
        }
    };
    timeout(PATIENCE, search).await.unwrap();
    assert_eq!(received, (0..50).collect::<Vec<u8>>());
}

const HIDDEN: &str = "mailbox.invalid:4000";

/// Connects through a SOCKS5 proxy.
fn through(proxy: SocketAddr) -> NetConfig {
    let mut net = NetConfig::default();
    net.dialer = Some(Dialer::new(move |host, port| async move {
        let connected = Socks5Stream::connect(proxy, (host, port)).await;
        connected.map(Socks5Stream::into_inner).map_err(io::Error::other)
    }));
    net
}

/// Where the server listens, whatever it is called.
fn address(server: &MiniServer) -> SocketAddr {
    let port = server.url().rsplit(':').next().and_then(|end| end.strip_suffix("/v1")?.parse().ok());
    SocketAddr::from(([127, 0, 0, 1], port.unwrap()))
}

#[tokio::test]
async fn a_proxy_resolves_names_and_makes_every_connection() {
    let socks = Socks::default();
    let net = through(socks.start().await.unwrap());
    let url: MailboxUrl = format!("ws://{HIDDEN}/v1").parse().unwrap();
    let join = || client_with(vec![url.clone()], config(), net.clone()).unwrap();
    let mut server = MiniServer::start(Conduct::default()).await;
    socks.name(HIDDEN, address(&server));
    exchange(&server, join).await;
    assert_eq!(socks.asked(), [HIDDEN, HIDDEN]);
    // Those that replace lost ones, too.
    let (mailbox, mut driver) = join();
    until(&mut driver, |event| matches!(event, Event::Connected).then_some(())).await;
    server.stop().await;
    until(&mut driver, |event| matches!(event, Event::Disconnected { .. }).then_some(())).await;
    server.restart().await;
    mailbox.reconnect_now();
    until(&mut driver, |event| matches!(event, Event::Connected).then_some(())).await;
    let asked = socks.asked();
    assert!(asked.len() > 3 && asked.iter().all(|asked| asked == HIDDEN), "{asked:?}");
}

#[tokio::test]
async fn tls_through_a_proxy() {
    let socks = Socks::default();
    let server = MiniServer::start(Conduct { tls: true, ..Conduct::default() }).await;
    // The name in the certificate, at a port where nobody is.
    socks.name("localhost:1", address(&server));
    let mut net = through(socks.start().await.unwrap());
    net.extra_roots = vec![server.certificate()];
    let url: MailboxUrl = "wss://localhost:1/v1".parse().unwrap();
    exchange(&server, || client_with(vec![url.clone()], config(), net.clone()).unwrap()).await;
    assert_eq!(socks.asked(), ["localhost:1", "localhost:1"]);
}

#[tokio::test]
async fn a_proxy_that_does_not_connect_is_the_reason() {
    let url: MailboxUrl = format!("ws://{HIDDEN}/v1").parse().unwrap();
    let knows_nothing = through(Socks::default().start().await.unwrap());
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut says_nothing = through(silent.local_addr().unwrap());
    says_nothing.connect_timeout = Duration::from_millis(200);
    for (net, why) in [(knows_nothing, "unreachable"), (says_nothing, "no answer")] {
        let (_mailbox, mut driver) = client_with(vec![url.clone()], config(), net).unwrap();
        let error = closed(&mut driver).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
