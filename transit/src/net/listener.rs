//! Where the peer can reach us.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::dial;
use crate::hint::{Hint, TcpHint};

/// Listeners of both families, on one port. It is bound to no address of the machine, so it outlives their change.
#[derive(Debug)]
pub(super) struct Listener {
    v4: Option<TcpListener>,
    v6: Option<TcpListener>,
}

impl Listener {
    /// Listens; the family that the machine does not have is left out.
    pub(super) fn bind() -> io::Result<Listener> {
        let v4 = bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let port = v4
            .as_ref()
            .ok()
            .and_then(|listener| listener.local_addr().ok())
            .map_or(0, |address| address.port());
        let v6 = bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
            .or_else(|_| bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))));
        match (v4, v6) {
            (Err(error), Err(_)) => Err(error),
            (v4, v6) => Ok(Listener { v4: v4.ok(), v6: v6.ok() }),
        }
    }

    /// What the peer may dial, with the addresses that the machine has now.
    pub(super) fn hints(&self, loopback: bool) -> Vec<Hint> {
        let port = |listener: &Option<TcpListener>| Some(listener.as_ref()?.local_addr().ok()?.port());
        let (v4, v6) = (port(&self.v4), port(&self.v6));
        dial::local_addresses(loopback)
            .into_iter()
            .filter_map(|address| {
                let port = if address.is_ipv4() { v4 } else { v6 };
                Some(Hint::Direct(TcpHint::from_addr(address, port?)))
            })
            .collect()
    }

    /// The next connection of somebody. Errors, of a connection or of the machine, do not end it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no accepted connection is lost.
    pub(super) async fn accept(&self) -> (TcpStream, SocketAddr) {
        loop {
            let accepted = tokio::select! {
                accepted = accept(self.v4.as_ref()) => accepted,
                accepted = accept(self.v6.as_ref()) => accepted,
            };
            match accepted {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::debug!(%error, "could not accept a connection");
                    // Out of descriptors, perhaps: trying at once would only burn the processor.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // IPv4 has a listener of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(64)?;
    TcpListener::from_std(socket.into())
}
