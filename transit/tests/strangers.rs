//! Those who are not the other side: what they are told, and what we say of them. Links, Transit and the relay alike.
#![cfg(all(feature = "tokio", feature = "relay"))]

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use dilated_transit::{
    Contact, DilationKey, Hint, LinkDialect, RelayHint, Role, TcpHint,
    net::{
        Connector, ConnectorConfig, ConnectorEvent, ConnectorLimits, Search,
        v1::{TransitConfig, TransitReceiver, TransitSender},
    },
    relay::{Relay, RelayConfig},
    v1::{Part, TransitHandshake, TransitKey, TransitStage},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const DIALECTS: [LinkDialect; 2] = [LinkDialect::Ged, LinkDialect::Dilated1 { aes: false }];

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.unwrap_or_else(|_| panic!("no {what}"))
}

/// How long those wait who have to find that nothing more comes.
const SILENCE: Duration = Duration::from_secs(3);

fn link(dialect: LinkDialect) -> ConnectorConfig {
    ConnectorConfig {
        role: Role::Leader,
        dialect,
        key: DilationKey::new([9; 32]),
        side: "0123456789abcdef".to_owned(),
        listen: true,
        loopback: true,
        relays: Vec::new(),
        proxy: None,
        limits: ConnectorLimits::default(),
    }
}

fn transit() -> TransitConfig {
    TransitConfig { loopback: true, ..TransitConfig::new(TransitKey::new([1; 32])) }
}

fn listening(hints: &[Hint]) -> SocketAddr {
    let find = |hint: &Hint| match hint {
        Hint::Direct(hint) if hint.hostname() == "127.0.0.1" => {
            Some((Ipv4Addr::LOCALHOST, hint.port()).into())
        }
        _ => None,
    };
    hints.iter().find_map(find).expect("loopback is advertised")
}

/// A server that says this when it has heard something, or at once, and then nothing, or the end.
async fn server(says: &'static [u8], unasked: bool, closes: bool) -> TcpHint {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if !unasked {
                    let _ = stream.read(&mut [0; 4096]).await;
                }
                let _ = stream.write_all(says).await;
                if closes {
                    let _ = stream.shutdown().await;
                }
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    TcpHint::from_addr(address.ip(), address.port())
}

/// What a search for a link says of the one endpoint that it has.
async fn said_of_link(dialect: LinkDialect, hint: Hint) -> String {
    let mut config = ConnectorConfig { listen: false, ..link(dialect) };
    config.limits.handshake_timeout = SILENCE;
    let mut connector = Connector::new(config).expect("no listener");
    connector.search(Search::default());
    connector.add_peer_hints(vec![hint], true);
    loop {
        if let ConnectorEvent::Failed { reason, .. } = soon("failure", connector.next()).await {
            return reason;
        }
    }
}

async fn said_of_transit(hint: Hint) -> String {
    let mut config = TransitConfig { listen: false, ..transit() };
    // Some are tried until the time is over.
    (config.limits.handshake_timeout, config.limits.timeout) = (SILENCE, 3 * SILENCE);
    let receiver = TransitReceiver::new(config).expect("no listener");
    soon("end", receiver.connect(&[hint])).await.expect_err("a stranger").to_string()
}

#[tokio::test]
async fn the_error_names_what_answered_and_where() {
    let servers: [(&[u8], bool, bool, &str); 5] = [
        (b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", false, true, "a web server"),
        (b"220 mail.example ESMTP ready\r\n", true, false, "a mail or FTP server"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", true, false, "an SSH server"),
        // Alerts have no newline.
        (b"\x15\x03\x01\x00\x02\x02\x32", false, true, "a TLS server"),
        (b"\x15\x03\x03\x00\x02\x02\x32", false, false, "a TLS server"),
    ];
    let mut searches = JoinSet::new();
    for (says, unasked, closes, what) in servers {
        let endpoint = server(says, unasked, closes).await;
        let direct = Hint::Direct(endpoint.clone());
        let relay = Hint::Relay(RelayHint::new(vec![endpoint]));
        for (hint, whence) in [(direct, "other side does not listen there"), (relay, "no transit relay")] {
            searches.spawn(async move {
                let (ged, dilated1, transit) = tokio::join!(
                    said_of_link(DIALECTS[0], hint.clone()),
                    said_of_link(DIALECTS[1], hint.clone()),
                    said_of_transit(hint),
                );
                for said in [ged, dilated1, transit] {
                    assert!(said.contains(what) && said.contains(whence), "{what}, {whence}: {said}");
                }
            });
        }
    }
    assert_eq!(searches.join_all().await.len(), 10);
}

/// What an HTTP client gets from there, which it can show.
async fn browse(address: SocketAddr, pieces: usize) {
    let request = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(2000));
    let mut browser = TcpStream::connect(address).await.expect("listening");
    browser.set_nodelay(true).expect("a socket");
    for piece in request.as_bytes().chunks(request.len().div_ceil(pieces)) {
        // The answer comes before the end of the request, and nobody listens to the rest for ever.
        if browser.write_all(piece).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut reply = String::new();
    soon("reply", browser.read_to_string(&mut reply)).await.expect("an end in order");
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{reply}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{reply}");
    assert!(body.contains("wormhole") && body.ends_with('\n'), "{reply}");
}

/// Runs a connector for as long as something else takes.
async fn beside<T>(connector: &mut Connector, other: impl Future<Output = T>) -> T {
    let driving = async {
        loop {
            connector.next().await;
        }
    };
    tokio::select! {
        done = other => done,
        () = driving => unreachable!("it never ends"),
    }
}

#[tokio::test]
async fn a_browser_gets_an_answer_it_can_show() {
    for dialect in DIALECTS {
        let mut connector = Connector::new(link(dialect)).expect("a listener");
        connector.search(Search::default());
        let ConnectorEvent::LocalHints(hints) = connector.next().await else { panic!("hints first") };
        beside(&mut connector, async {
            browse(listening(&hints), 1).await;
            browse(listening(&hints), 50).await;
        })
        .await;
    }
    let sender = TransitSender::new(transit()).expect("a listener");
    let address = listening(&sender.hints());
    let connecting = tokio::spawn(async move { drop(sender.connect(&[]).await) });
    browse(address, 1).await;
    browse(address, 50).await;
    connecting.abort();
    let relay =
        Relay::bind("127.0.0.1:0".parse().expect("an address"), RelayConfig::default()).await.expect("bind");
    let address = relay.local_addr();
    tokio::spawn(relay.run());
    browse(address, 1).await;
}

#[tokio::test]
async fn who_dials_us_and_waits_is_greeted() {
    for dialect in DIALECTS {
        let mut connector = Connector::new(link(dialect)).expect("a listener");
        connector.search(Search::default());
        let ConnectorEvent::LocalHints(hints) = connector.next().await else { panic!("hints first") };
        beside(&mut connector, async {
            let mut silent = TcpStream::connect(listening(&hints)).await.expect("listening");
            let expected = b"Magic-Wormhole Dilation Handshake v1 Leader\n\n";
            let mut said = vec![0; expected.len()];
            soon("prologue", silent.read_exact(&mut said)).await.expect("said");
            assert_eq!(said, expected);
        })
        .await;
    }
    // A Receiver written in Go reads the Sender's line before it says its own.
    let sender = TransitSender::new(transit()).expect("a listener");
    let address = listening(&sender.hints());
    let connecting = tokio::spawn(async move { sender.connect(&[]).await });
    let mut stream = TcpStream::connect(address).await.expect("listening");
    let mut receiver = TransitHandshake::new(Part::Receiver, TransitKey::new([1; 32]), Contact::Dialled);
    let greeting = receiver.poll_output().expect("who dials begins");
    let mut said = [0; 87];
    soon("line", stream.read_exact(&mut said)).await.expect("said");
    receiver.handle_input(&said).expect("the Sender's line");
    stream.write_all(&greeting).await.expect("sent");
    let mut choice = [0; 3];
    soon("choice", stream.read_exact(&mut choice)).await.expect("said");
    receiver.handle_input(&choice).expect("the Sender's choice");
    assert_eq!(receiver.stage(), TransitStage::Ready);
    soon("connection", connecting).await.expect("no panic").expect("connected");
}
