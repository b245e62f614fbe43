//! A mailbox server, just large enough for the driver's tests, with bad habits to order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_tungstenite::tungstenite::Message;

/// How the server behaves.
#[derive(Clone, Default)]
pub(crate) struct Conduct {
    /// Speaks TLS with a certificate of its own making.
    pub(crate) tls: bool,
    /// Sends binary frames.
    pub(crate) binary: bool,
    /// Never sends anything, not even a pong.
    pub(crate) silent: bool,
    /// Bytes of the message of the day.
    pub(crate) motd: usize,
}

#[derive(Default)]
struct State {
    nameplates: BTreeMap<String, Vec<String>>,
    mailboxes: BTreeMap<String, Vec<Value>>,
    moods: Vec<String>,
    subscribers: Vec<(String, mpsc::UnboundedSender<Value>)>,
}

struct Shared {
    conduct: Conduct,
    state: Mutex<State>,
    pings: AtomicUsize,
    connections: AtomicUsize,
    tls: Option<TlsAcceptor>,
}

pub(crate) struct MiniServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Keeps the port while nobody listens, between a stop and a restart.
    _reserved: TcpSocket,
    tasks: JoinSet<()>,
    certificate: Option<rustls::pki_types::CertificateDer<'static>>,
}

impl MiniServer {
    pub(crate) async fn start(conduct: Conduct) -> Self {
        let mut certificate = None;
        let tls = conduct.tls.then(|| {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            certificate = Some(made.cert.der().clone());
            let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .unwrap();
            TlsAcceptor::from(Arc::new(config))
        });
        let shared = Arc::new(Shared {
            conduct,
            state: Mutex::default(),
            pings: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            tls,
        });
        let reserved = TcpSocket::new_v4().unwrap();
        reserved.set_reuseaddr(true).unwrap();
        reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = reserved.local_addr().unwrap();
        let mut server = Self { shared, address, _reserved: reserved, tasks: JoinSet::new(), certificate };
        server.restart().await;
        server
    }

    fn listen(&mut self, listener: TcpListener) {
        let shared = self.shared.clone();
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let shared = shared.clone();
                connections.spawn(async move {
                    shared.connections.fetch_add(1, Ordering::SeqCst);
                    match &shared.tls {
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                serve(&shared, socket).await;
                            }
                        }
                        None => serve(&shared, socket).await,
                    }
                    shared.connections.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
    }

    pub(crate) async fn stop(&mut self) {
        self.tasks.shutdown().await;
        self.shared.state.lock().unwrap().subscribers.clear();
    }

    pub(crate) async fn restart(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.listen(listener);
    }

    pub(crate) fn url(&self) -> String {
        if self.shared.conduct.tls {
            format!("wss://localhost:{}/v1", self.address.port())
        } else {
            format!("ws://{}/v1", self.address)
        }
    }

    pub(crate) fn certificate(&self) -> rustls::pki_types::CertificateDer<'static> {
        self.certificate.clone().unwrap()
    }

    pub(crate) fn moods(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().moods.clone()
    }

    pub(crate) fn pings(&self) -> usize {
        self.shared.pings.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

async fn serve(shared: &Shared, socket: impl AsyncRead + AsyncWrite + Unpin) {
    let Ok(socket) = tokio_tungstenite::accept_async(socket).await else { return };
    if shared.conduct.silent {
        return std::future::pending().await;
    }
    let (mut out, mut input) = socket.split();
    let (sender, mut outgoing) = mpsc::unbounded_channel::<Value>();
    sender.send(json!({"type": "welcome", "welcome": {"motd": "x".repeat(shared.conduct.motd)}})).unwrap();
    let mut side = String::new();
    loop {
        tokio::select! {
            Some(message) = outgoing.recv() => {
                let text = message.to_string();
                let frame = if shared.conduct.binary { Message::binary(text) } else { Message::text(text) };
                if out.send(frame).await.is_err() {
                    return;
                }
            }
            message = input.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    let message = serde_json::from_str(&text).unwrap();
                    handle(&mut shared.state.lock().unwrap(), &mut side, &message, &sender);
                }
                Some(Ok(Message::Ping(_))) => {
                    shared.pings.fetch_add(1, Ordering::SeqCst);
                    let _ = out.flush().await;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}

fn handle(state: &mut State, side: &mut String, message: &Value, me: &mpsc::UnboundedSender<Value>) {
    let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
    let reply = |value: Value| {
        let _ = me.send(value);
    };
    reply(json!({"type": "ack"}));
    match text("type").as_str() {
        "bind" => *side = text("side"),
        "list" => {
            let listed: Vec<_> = state.nameplates.keys().map(|id| json!({"id": id})).collect();
            reply(json!({"type": "nameplates", "nameplates": listed}));
        }
        "allocate" => {
            let free = (1..).map(|n: u32| n.to_string()).find(|n| !state.nameplates.contains_key(n)).unwrap();
            state.nameplates.insert(free.clone(), vec![side.clone()]);
            reply(json!({"type": "allocated", "nameplate": free}));
        }
        "claim" => {
            let sides = state.nameplates.entry(text("nameplate")).or_default();
            if !sides.contains(side) {
                sides.push(side.clone());
            }
            reply(json!({"type": "claimed", "mailbox": format!("mb{}", text("nameplate"))}));
        }
        "release" => {
            if let Some(sides) = state.nameplates.get_mut(&text("nameplate")) {
                sides.retain(|s| s != side);
            }
            state.nameplates.retain(|_, sides| !sides.is_empty());
            reply(json!({"type": "released"}));
        }
        "open" => {
            state.mailboxes.entry(text("mailbox")).or_default().iter().cloned().for_each(reply);
            state.subscribers.push((text("mailbox"), me.clone()));
        }
        "add" => {
            let open = state.subscribers.iter().find(|(_, sender)| sender.same_channel(me));
            let mailbox = open.expect("clients open before they add").0.clone();
            let stored =
                json!({"type": "message", "side": side, "phase": text("phase"), "body": text("body")});
            for (_, sender) in state.subscribers.iter().filter(|(name, _)| *name == mailbox) {
                let _ = sender.send(stored.clone());
            }
            state.mailboxes.entry(mailbox).or_default().push(stored);
        }
        "close" => {
            state.moods.push(text("mood"));
            state.subscribers.retain(|(_, sender)| !sender.same_channel(me));
            reply(json!({"type": "closed"}));
        }
        "ping" => reply(json!({"type": "pong", "pong": message["ping"]})),
        other => panic!("unknown message {other}"),
    }
}
