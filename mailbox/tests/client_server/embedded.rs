//! Embedded servers, and clients whose drivers run by themselves.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use dilated_mailbox::WormholeError;
use dilated_mailbox::client::{ClientConfig, Event};
use dilated_mailbox::net::{Mailbox, NetConfig, client_with};
use dilated_mailbox::server::{MailboxServer, ServerConfig, ServerHandle, StoreKind};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) handle: ServerHandle,
    task: JoinHandle<std::io::Result<()>>,
}

/// A port for a server that is to come back: nobody else gets it for as long as the socket lives.
pub(crate) fn reserve() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    // So that a listener can have the port, too.
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

pub(crate) async fn serve(address: SocketAddr, store: Option<&Path>) -> Running {
    let mut config = ServerConfig::default();
    if let Some(path) = store {
        config.store = StoreKind::Sqlite(path.to_owned());
    }
    serve_with(address, config).await
}

pub(crate) async fn serve_with(address: SocketAddr, config: ServerConfig) -> Running {
    let server = MailboxServer::bind(address, config).await.unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    Running { address, handle, task: tokio::spawn(server.run()) }
}

impl Running {
    pub(crate) async fn stop(self) -> SocketAddr {
        self.handle.shutdown();
        self.task.await.unwrap().unwrap();
        self.address
    }
}

/// A client whose driver runs by itself, as applications have it.
pub(crate) struct Peer {
    pub(crate) mailbox: Mailbox,
    events: mpsc::UnboundedReceiver<Event>,
    /// All messages that were received so far, of the application and of dilation.
    pub(crate) received: [Vec<Vec<u8>>; 2],
}

impl Peer {
    pub(crate) fn join(urls: &[String]) -> Self {
        Self::join_with(urls, NetConfig::default())
    }

    pub(crate) fn join_with(urls: &[String], net: NetConfig) -> Self {
        let mut config = ClientConfig::new("example.org/test");
        config.can_dilate = vec!["ged".to_owned()];
        let urls = urls.iter().map(|url| url.parse().unwrap()).collect();
        let (mailbox, mut driver) = client_with(urls, config, net).unwrap();
        let (sender, events) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let event = driver.next().await;
                let last = matches!(event, Event::Closed(_));
                if sender.send(event).is_err() || last {
                    return;
                }
            }
        });
        Self { mailbox, events, received: Default::default() }
    }

    pub(crate) async fn until<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.events.recv().await.expect("an event");
                match &event {
                    Event::Message(message) => self.received[0].push(message.clone()),
                    Event::Dilate(message) => self.received[1].push(message.clone()),
                    _ => {}
                }
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        timeout(Duration::from_secs(30), search).await.expect("the event comes in time")
    }

    pub(crate) async fn code(&mut self) -> String {
        self.until(|event| if let Event::Code(code) = event { Some(code.to_string()) } else { None }).await
    }

    pub(crate) async fn message(&mut self) -> Vec<u8> {
        self.until(|event| if let Event::Message(message) = event { Some(message) } else { None }).await
    }

    pub(crate) async fn dilate(&mut self) -> Vec<u8> {
        self.until(|event| if let Event::Dilate(message) = event { Some(message) } else { None }).await
    }

    pub(crate) async fn connected(&mut self) {
        self.until(|event| matches!(event, Event::Connected).then_some(())).await;
    }

    pub(crate) async fn met(&mut self) {
        self.until(|event| matches!(event, Event::Versions(_)).then_some(())).await;
    }

    pub(crate) async fn lost(&mut self) -> String {
        self.until(|event| if let Event::Disconnected { reason } = event { Some(reason) } else { None }).await
    }

    pub(crate) async fn closed(&mut self) -> Result<(), WormholeError> {
        self.until(|event| if let Event::Closed(result) = event { Some(result) } else { None }).await
    }

    pub(crate) async fn close(&mut self) -> Result<(), WormholeError> {
        self.mailbox.close();
        self.closed().await
    }
}
