//! Making TCP connections, and listening for them.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use super::{
    attempt::Refusal,
    proxy::{self, Proxy},
};
use crate::{hint::TcpHint, race::Retry};

/// Addresses of one name that are tried, at the same time.
const MAX_ADDRESSES: usize = 6;

/// Bytes that the system takes beyond those that it can send at once. More of them would only make what is urgent wait behind
/// what is not.
#[cfg(any(target_os = "android", target_os = "linux"))]
const NOT_SENT: u32 = 128 * 1024;

/// Connects to an endpoint, within `timeout` for all of name resolution and TCP; through a proxy it takes the time that
/// proxies take.
pub(super) async fn connect(
    endpoint: &TcpHint,
    proxy: Option<&Proxy>,
    timeout: Duration,
) -> Result<TcpStream, Refusal> {
    let connected = match proxy {
        None => within(timeout, connect_host((endpoint.hostname(), endpoint.port()))).await,
        Some(proxy) if proxy.refuses(endpoint) => {
            let reason = "a private address is not dialled through Tor".to_owned();
            return Err(Refusal { reason, retry: Retry::Never });
        }
        Some(proxy) => {
            let through = async { proxy.connect(connect_proxy(proxy).await?, endpoint).await };
            within(timeout.max(proxy::PATIENCE), through).await
        }
    };
    connected.map_err(|error| Refusal { reason: error.to_string(), retry: Retry::Later })
}

impl Proxy {
    /// Connects to a host through the proxy, which resolves its name. Takes at most 30 s.
    ///
    /// # Errors
    ///
    /// What the proxy says, or that it cannot be reached. Private addresses are refused if it is [Tor](Self::is_tor).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the connection up.
    pub async fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let to = TcpHint::new(host, port).map_err(io::Error::other)?;
        connect(&to, Some(self), proxy::PATIENCE).await.map_err(|refusal| io::Error::other(refusal.reason))
    }
}

async fn connect_proxy(proxy: &Proxy) -> io::Result<TcpStream> {
    let unreachable =
        |e: io::Error| io::Error::new(e.kind(), format!("the proxy {proxy} cannot be reached: {e}"));
    connect_host(proxy.endpoint()).await.map_err(unreachable)
}

async fn within<T>(timeout: Duration, attempt: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Connects to the first address of a host that answers.
async fn connect_host(host: (&str, u16)) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(host).await?.take(MAX_ADDRESSES).collect();
    let mut attempts = JoinSet::new();
    for address in addresses {
        attempts.spawn(connect_address(address));
    }
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    while let Some(done) = attempts.join_next().await {
        match done {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = error,
            Err(_) => {}
        }
    }
    Err(failure)
}

async fn connect_address(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    let stream = socket.connect(address).await?;
    prepare(&stream);
    Ok(stream)
}

/// Options of every connection of ours; none is worth failing for.
pub(super) fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_keepalive(&keepalive);
    #[cfg(any(target_os = "android", target_os = "linux"))]
    let _ = socket.set_tcp_notsent_lowat(NOT_SENT);
}

/// Ends a connection in order after the last bytes to it, and waits until the other end has them: bytes that nobody reads
/// would turn the end into a reset, which may overtake ours.
pub(crate) async fn linger(stream: &mut TcpStream, most: Duration) {
    let drain = async {
        stream.shutdown().await?;
        let mut discard = vec![0; 8 << 10];
        while stream.read(&mut discard).await? > 0 {}
        io::Result::Ok(())
    };
    // Whether it worked makes no difference: the connection ends.
    let _ = tokio::time::timeout(most, drain).await;
}

/// Makes the kernel throw queued bytes away and send a reset when the stream is dropped.
pub(super) fn reset_on_drop(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// The addresses of this machine that a [`Connector`](super::Connector) tells the peer: those of all interfaces,
/// loopback only when there is nothing else or when `loopback` asks for it. Never empty.
///
/// Link-local addresses are left out, because they mean nothing without a scope that only we know.
#[must_use]
pub fn local_addresses(loopback: bool) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = match if_addrs::get_if_addrs() {
        Ok(interfaces) => interfaces.iter().map(if_addrs::Interface::ip).collect(),
        Err(error) => {
            tracing::debug!(%error, "cannot list the interfaces");
            Vec::new()
        }
    };
    addresses.retain(|address| match address {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_unspecified() && !v6.is_multicast(),
    });
    addresses.sort_by_key(|address| (address.is_loopback(), address.is_ipv6()));
    addresses.dedup();
    if !loopback && addresses.iter().any(|address| !address.is_loopback()) {
        addresses.retain(|address| !address.is_loopback());
    }
    if addresses.is_empty() {
        addresses.push(Ipv4Addr::LOCALHOST.into());
    }
    addresses
}
