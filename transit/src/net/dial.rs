//! Making TCP connections, and listening for them.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::hint::TcpHint;

/// Addresses of one name that are tried, at the same time.
const MAX_ADDRESSES: usize = 6;

/// Bytes that the system takes beyond those that it can send at once. More of them would only make what is urgent wait behind
/// what is not.
#[cfg(any(target_os = "android", target_os = "linux"))]
const NOT_SENT: u32 = 128 * 1024;

/// Connects to an endpoint, within `timeout` for all of name resolution and TCP.
pub(super) async fn connect(endpoint: &TcpHint, timeout: Duration) -> io::Result<TcpStream> {
    let attempt = async {
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host((endpoint.hostname(), endpoint.port()))
            .await?
            .take(MAX_ADDRESSES)
            .collect();
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
    };
    tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
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
