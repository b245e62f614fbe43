//! Everything through a SOCKS5 proxy: Transit and the links of dilations.
#![cfg(all(feature = "tokio", feature = "relay"))]

#[path = "../../tests/src/socks.rs"]
#[allow(unreachable_pub, reason = "it is the proxy of all tests")]
mod socks;

use std::{future::Future, net::SocketAddr, time::Duration};

use dilated_transit::{
    Ability, DilationKey, Hint, LinkDialect, RelayHint, Role, TcpHint,
    net::{
        Connector, ConnectorConfig, ConnectorEvent, ConnectorLimits, Proxy, Search,
        v1::{ConnectError, TransitConfig, TransitPipe, TransitReceiver, TransitSender},
    },
    relay::{Relay, RelayConfig},
    v1::TransitKey,
};
use socks::Socks;

const USER: &str = "somebody";
const PASSWORD: &str = "secret:with@signs";

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.unwrap_or_else(|_| panic!("no {what}"))
}

/// The proxy that `socks` is.
async fn start(socks: &Socks) -> Proxy {
    Proxy::socks5("127.0.0.1", socks.start().await.expect("bind").port()).expect("an endpoint")
}

fn config() -> TransitConfig {
    TransitConfig { loopback: true, ..TransitConfig::new(TransitKey::new([1; 32])) }
}

fn through(proxy: &Proxy) -> TransitConfig {
    TransitConfig { proxy: Some(proxy.clone()), ..config() }
}

fn loopback_address(hints: &[Hint]) -> SocketAddr {
    let find = |hint: &Hint| match hint {
        Hint::Direct(hint) => Some(SocketAddr::new(hint.address()?, hint.port())).filter(SocketAddr::is_ipv4),
        _ => None,
    };
    hints.iter().filter_map(find).find(|address| address.ip().is_loopback()).expect("loopback is advertised")
}

async fn talk(sent: &mut TransitPipe, received: &mut TransitPipe) {
    sent.writer.send_record(b"through the proxy").await.expect("open");
    assert_eq!(received.reader.next_record().await.expect("open").expect("a record"), "through the proxy");
}

async fn meet(sender: TransitConfig, receiver: TransitReceiver, hint: Hint) -> (TransitPipe, TransitPipe) {
    let sender = TransitSender::new(sender).expect("a side");
    let (ours, hints) = (sender.hints(), [hint]);
    let both = async { tokio::join!(sender.connect(&hints), receiver.connect(&ours)) };
    let (sent, received) = soon("connection", both).await;
    (sent.expect("connected"), received.expect("connected"))
}

#[tokio::test]
async fn names_are_the_proxy_s_to_resolve_and_nobody_listens() {
    let socks = Socks::default();
    let proxy = start(&socks).await;
    let receiver = TransitReceiver::new(config()).expect("a listener");
    socks.name("peer.invalid:7", loopback_address(&receiver.hints()));
    let side = TransitSender::new(through(&proxy)).expect("a side");
    assert!(side.hints().is_empty(), "it does not listen");
    assert!(!side.abilities().contains(&Ability::Tor));
    let hint = Hint::Direct("tcp:peer.invalid:7".parse().expect("a hint"));
    let (mut sent, mut received) = meet(through(&proxy), receiver, hint).await;
    talk(&mut sent, &mut received).await;
    assert_eq!(sent.path.to_string(), "->tcp:peer.invalid:7");
    assert_eq!(socks.asked(), ["peer.invalid:7"]);
}

#[tokio::test]
async fn tor_hints_are_dialled_through_tor_and_private_addresses_are_not() {
    let socks = Socks::default();
    let plain = start(&socks).await;
    let tor = Proxy::tor(plain.host(), plain.port()).expect("an endpoint");
    let receiver = TransitReceiver::new(config()).expect("a listener");
    let address = loopback_address(&receiver.hints());
    socks.name("abc.onion:80", address);
    let onion = Hint::Tor("tcp:abc.onion:80".parse().expect("a hint"));
    assert!(TransitSender::new(through(&tor)).expect("a side").abilities().contains(&Ability::Tor));
    let (mut sent, mut received) = meet(through(&tor), receiver, onion.clone()).await;
    talk(&mut sent, &mut received).await;
    // A relay at home and a peer at home: there is nothing else to try, so this does not take until the timeout.
    let relay = RelayHint::new(vec![TcpHint::new("192.168.1.1", 4001).expect("a hint")]);
    let config = TransitConfig { relays: vec![relay], ..through(&tor) };
    let private = [Hint::Direct(TcpHint::from_addr(address.ip(), address.port()))];
    let sender = TransitSender::new(config).expect("a side");
    let error = soon("end", sender.connect(&private)).await.expect_err("nothing left");
    assert!(matches!(&error, ConnectError::NothingLeft { failures } if failures.len() == 2), "{error}");
    assert!(error.to_string().contains("a private address is not dialled through Tor"), "{error}");
    assert_eq!(socks.asked(), ["abc.onion:80"]);
    // Without Tor such a hint leads nowhere.
    let alone = TransitSender::new(TransitConfig { listen: false, ..self::config() }).expect("a side");
    assert_eq!(alone.connect(&[onion]).await.expect_err("no way"), ConnectError::NoWay);
}

#[tokio::test]
async fn a_relay_through_a_proxy_with_a_password() {
    let socks = Socks::with_password(USER, PASSWORD);
    let proxy = start(&socks).await;
    let with_password = proxy.clone().with_credentials(USER, PASSWORD).expect("credentials");
    let relay =
        Relay::bind("127.0.0.1:0".parse().expect("an address"), RelayConfig::default()).await.expect("bind");
    socks.name("relay.invalid:4001", relay.local_addr());
    let own: RelayHint = relay.hint().parse().expect("a hint");
    tokio::spawn(relay.run());
    let relays = vec!["tcp:relay.invalid:4001".parse().expect("a hint")];
    let sender = TransitConfig { relays: relays.clone(), ..through(&with_password) };
    let receiver = TransitConfig { listen: false, ..config() };
    let receiver = TransitReceiver::new(receiver).expect("a side");
    // The receiver dials the relay under its own name.
    let sender = TransitSender::new(sender).expect("a side");
    assert_eq!(sender.hints(), [Hint::Relay(relays[0].clone())]);
    let hints = [Hint::Relay(own)];
    let both = async { tokio::join!(sender.connect(&[]), receiver.connect(&hints)) };
    let (sent, received) = soon("connection", both).await;
    talk(&mut sent.expect("connected"), &mut received.expect("connected")).await;
    // Without the password the proxy does nothing for us, and the error says who did not.
    let mut refused = through(&proxy);
    // It is asked again until then.
    refused.limits.timeout = Duration::from_secs(8);
    let refused = TransitSender::new(refused).expect("a side");
    let hint = Hint::Direct("tcp:peer.invalid:7".parse().expect("a hint"));
    let error = soon("end", refused.connect(&[hint])).await.expect_err("refused");
    assert!(error.to_string().contains(&format!("the proxy {proxy} did not connect")), "{error}");
}

#[tokio::test]
async fn a_link_of_a_dilation_through_a_proxy() {
    let socks = Socks::default();
    let proxy = start(&socks).await;
    let config = |role, proxy| ConnectorConfig {
        role,
        dialect: LinkDialect::Ged,
        key: DilationKey::new([9; 32]),
        side: if role == Role::Leader { "ffffffffffffffff" } else { "0000000000000000" }.to_owned(),
        listen: true,
        loopback: true,
        relays: Vec::new(),
        proxy,
        limits: ConnectorLimits::default(),
    };
    let mut follower = Connector::new(config(Role::Follower, None)).expect("a listener");
    let mut leader = Connector::new(config(Role::Leader, Some(proxy))).expect("no listener");
    follower.search(Search::default());
    leader.search(Search::default());
    let ConnectorEvent::LocalHints(hints) = soon("hints", follower.next()).await else {
        panic!("hints first")
    };
    socks.name("abc.onion:80", loopback_address(&hints));
    leader.add_peer_hints(vec![Hint::Tor("tcp:abc.onion:80".parse().expect("a hint"))], true);
    let led = async {
        loop {
            match leader.next().await {
                ConnectorEvent::LocalHints(hints) => panic!("{hints:?}, but it does not listen"),
                // A Leader's choice waits to be written.
                ConnectorEvent::Selected(mut link) => {
                    std::future::poll_fn(|cx| link.writer.poll_flush(cx)).await.expect("open");
                    return link;
                }
                _ => {}
            }
        }
    };
    let followed = async {
        loop {
            if let ConnectorEvent::Selected(link) = follower.next().await {
                return link;
            }
        }
    };
    let (led, followed) = soon("link", async { tokio::join!(led, followed) }).await;
    assert_eq!(led.path.to_string(), "->tcp:abc.onion:80");
    assert!(followed.path.is_inbound());
    assert_eq!(socks.asked(), ["abc.onion:80"]);
}
