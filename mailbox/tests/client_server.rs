//! Our client through our server, restarted in the middle.
#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test that fails should panic")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use dilated_mailbox::WormholeError;
use dilated_mailbox::client::{ClientConfig, Event};
use dilated_mailbox::net::{Mailbox, client};
use dilated_mailbox::server::{MailboxServer, ServerConfig, ServerHandle, StoreKind};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

struct Running {
    address: SocketAddr,
    handle: ServerHandle,
    task: JoinHandle<std::io::Result<()>>,
}

async fn serve(address: SocketAddr, store: Option<&Path>) -> Running {
    let mut config = ServerConfig::default();
    if let Some(path) = store {
        config.store = StoreKind::Sqlite(path.to_owned());
    }
    let server = MailboxServer::bind(address, config).await.unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    Running { address, handle, task: tokio::spawn(server.run()) }
}

impl Running {
    async fn stop(self) -> SocketAddr {
        self.handle.shutdown();
        self.task.await.unwrap().unwrap();
        self.address
    }
}

/// A client whose driver runs by itself, as applications have it.
struct Peer {
    mailbox: Mailbox,
    events: mpsc::UnboundedReceiver<Event>,
}

fn join(address: SocketAddr) -> Peer {
    let mut config = ClientConfig::new("example.org/test");
    config.can_dilate = vec!["ged".to_owned()];
    let (mailbox, mut driver) = client(vec![format!("ws://{address}").parse().unwrap()], config).unwrap();
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
    Peer { mailbox, events }
}

impl Peer {
    async fn until<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let search = async {
            loop {
                if let Some(found) = wanted(self.events.recv().await.expect("an event")) {
                    return found;
                }
            }
        };
        timeout(Duration::from_secs(30), search).await.expect("the event comes in time")
    }

    async fn code(&mut self) -> String {
        self.until(|event| if let Event::Code(code) = event { Some(code.to_string()) } else { None }).await
    }

    async fn message(&mut self) -> Vec<u8> {
        self.until(|event| if let Event::Message(message) = event { Some(message) } else { None }).await
    }

    async fn dilate(&mut self) -> Vec<u8> {
        self.until(|event| if let Event::Dilate(message) = event { Some(message) } else { None }).await
    }

    async fn lost(&mut self) {
        self.until(|event| matches!(event, Event::Disconnected { .. }).then_some(())).await;
    }

    async fn close(&mut self) -> Result<(), WormholeError> {
        self.mailbox.close();
        self.until(|event| if let Event::Closed(result) = event { Some(result) } else { None }).await
    }
}

#[tokio::test]
async fn a_restart_with_a_file_is_invisible() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mailbox.sqlite");
    let server = serve("127.0.0.1:0".parse().unwrap(), Some(&file)).await;
    // Restarted while one side is lonely: its claim and its key-agreement message are in the file.
    let mut a = join(server.address);
    a.mailbox.allocate_code(2).unwrap();
    let code = a.code().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let address = server.stop().await;
    a.lost().await;
    let server = serve(address, Some(&file)).await;
    let mut b = join(address);
    b.mailbox.set_code(&code).unwrap();
    a.mailbox.reconnect_now();
    a.mailbox.send_message(b"one".to_vec()).unwrap();
    assert_eq!(b.message().await, b"one");
    a.until(|event| matches!(event, Event::Versions(_)).then_some(())).await;
    a.mailbox.send_dilate(b"please".to_vec()).unwrap();
    assert_eq!(b.dilate().await, b"please");
    // And again, with words spoken while it is away.
    let address = server.stop().await;
    a.lost().await;
    b.lost().await;
    a.mailbox.send_message(b"two".to_vec()).unwrap();
    b.mailbox.send_message(b"three".to_vec()).unwrap();
    let server = serve(address, Some(&file)).await;
    a.mailbox.reconnect_now();
    b.mailbox.reconnect_now();
    assert_eq!(b.message().await, b"two");
    assert_eq!(a.message().await, b"three");
    assert_eq!((a.close().await, b.close().await), (Ok(()), Ok(())));
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_forgot_everything_still_carries_on() {
    let server = serve("127.0.0.1:0".parse().unwrap(), None).await;
    let (mut a, mut b) = (join(server.address), join(server.address));
    a.mailbox.allocate_code(2).unwrap();
    b.mailbox.set_code(&a.code().await).unwrap();
    a.mailbox.send_message(b"one".to_vec()).unwrap();
    b.mailbox.send_message(b"two".to_vec()).unwrap();
    assert_eq!((b.message().await, a.message().await), (b"one".to_vec(), b"two".to_vec()));
    let address = server.stop().await;
    a.lost().await;
    b.lost().await;
    let server = serve(address, None).await;
    a.mailbox.reconnect_now();
    b.mailbox.reconnect_now();
    a.mailbox.send_message(b"three".to_vec()).unwrap();
    assert_eq!(b.message().await, b"three");
    assert_eq!((a.close().await, b.close().await), (Ok(()), Ok(())));
    server.stop().await;
}

#[tokio::test]
async fn the_third_is_crowded_out() {
    let server = serve("127.0.0.1:0".parse().unwrap(), None).await;
    let (mut a, mut b) = (join(server.address), join(server.address));
    // Two who chose different words keep the nameplate busy until they notice, so nobody releases it here.
    a.mailbox.set_code("7-x").unwrap();
    a.until(|event| matches!(event, Event::Welcome(_)).then_some(())).await;
    b.mailbox.input_code().unwrap().choose_nameplate("7").unwrap();
    b.until(|event| matches!(event, Event::Welcome(_)).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut c = join(server.address);
    c.mailbox.set_code("7-x").unwrap();
    let ended = c.until(|event| if let Event::Closed(result) = event { Some(result) } else { None }).await;
    // Either the nameplate or the mailbox behind it is full.
    assert_eq!(ended, Err(WormholeError::Crowded));
    assert_eq!(a.close().await, Err(WormholeError::Lonely));
    assert_eq!(b.close().await, Err(WormholeError::Lonely));
    server.stop().await;
}
