//! Gates before servers, which can be shut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What a gate does with those who come.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    To(SocketAddr),
    /// Turns them away at once.
    Shut,
    /// Takes them in and never says a word.
    Nowhere,
}

/// An address on loopback that leads where the test wants it to.
pub(crate) struct Gate {
    address: SocketAddr,
    way: watch::Sender<Way>,
    came: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Gate {
    pub(crate) async fn new(way: Way) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (way, ways) = watch::channel(way);
        let came = Arc::new(AtomicUsize::new(0));
        let counter = came.clone();
        let task = tokio::spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                passing.spawn(pass(socket, ways.clone()));
            }
        });
        Self { address, way, came, task }
    }

    /// Sets the way for those who come from now on, and drops those who are there.
    pub(crate) fn lead(&self, way: Way) {
        self.way.send_replace(way);
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/v1", self.address)
    }

    /// How many have come.
    pub(crate) fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut socket: TcpStream, mut ways: watch::Receiver<Way>) {
    let way = *ways.borrow_and_update();
    let through = async {
        match way {
            Way::To(address) => {
                if let Ok(mut server) = TcpStream::connect(address).await {
                    let _ = tokio::io::copy_bidirectional(&mut socket, &mut server).await;
                }
            }
            Way::Shut => {}
            Way::Nowhere => std::future::pending().await,
        }
    };
    tokio::select! {
        () = through => {}
        _ = ways.changed() => {}
    }
}
