//! TCP connections that somebody else makes.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::net::TcpStream;

type Dial = dyn Fn(String, u16) -> BoxFuture<'static, io::Result<TcpStream>> + Send + Sync;

/// Makes the TCP connections to mailbox servers in place of the system. It is given the host as it stands in the
/// address, so that it resolves names, too.
#[derive(Clone)]
pub struct Dialer(Arc<Dial>);

impl Dialer {
    /// Calls `dial` with the host and the port for each connection. Its error is told as the reason; the time it may take
    /// is bounded by [`NetConfig::connect_timeout`](super::NetConfig::connect_timeout).
    pub fn new<F, Connecting>(dial: F) -> Self
    where
        F: Fn(String, u16) -> Connecting + Send + Sync + 'static,
        Connecting: Future<Output = io::Result<TcpStream>> + Send + 'static,
    {
        Self(Arc::new(move |host, port| Box::pin(dial(host, port))))
    }

    pub(super) async fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        (self.0)(host.to_owned(), port).await
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer(..)")
    }
}
