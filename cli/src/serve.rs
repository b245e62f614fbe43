//! `dilated serve`: the mailbox server and the relay, on their own.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use dilated::server::{MailboxServer, Relay, RelayConfig, ServerConfig, StoreKind};

use crate::{
    exit::{Failure, Kind},
    options::ServeOptions,
    quote,
    signals::Signals,
    status::Report,
};

/// How long the servers may take to say goodbye to their clients.
const GOODBYE: Duration = Duration::from_secs(5);

/// Runs the command.
pub(crate) async fn run(options: ServeOptions, report: &Report) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let servers = Servers::bind(&options).await?;
    report.output(servers.instructions())?;
    servers.run(&mut signals, report).await
}

/// The servers that run, at least one.
struct Servers {
    mailbox: Option<MailboxServer>,
    relay: Option<Relay>,
}

impl Servers {
    async fn bind(options: &ServeOptions) -> Result<Servers, Failure> {
        let mut servers = Servers { mailbox: None, relay: None };
        if !options.no_mailbox {
            let bound = MailboxServer::bind(options.mailbox_listen, mailbox_config(options)).await;
            servers.mailbox = Some(bound.map_err(|e| {
                cannot_start("mailbox server", options.mailbox_listen, "--mailbox-listen", options, &e)
            })?);
        }
        if !options.no_relay {
            let bound = Relay::bind(options.relay_listen, relay_config(options)).await;
            servers.relay =
                Some(bound.map_err(|e| {
                    cannot_start("relay", options.relay_listen, "--relay-listen", options, &e)
                })?);
        }
        Ok(servers)
    }

    /// Where the servers are, and what both sides type.
    fn instructions(&self) -> String {
        let mailbox = self.mailbox.as_ref().map(MailboxServer::local_addr);
        let relay = self.relay.as_ref().map(Relay::local_addr);
        let mut text = String::new();
        let mut options = String::new();
        if let Some(address) = mailbox {
            let url = format!("ws://{}/v1", reachable(address));
            text.push_str(&format!("mailbox server: {url}\n"));
            options.push_str(&format!(" --mailbox {}", quote::shell(&url)));
        }
        if let Some(address) = relay {
            let hint = format!("tcp:{}", reachable(address));
            text.push_str(&format!("relay:          {hint}\n"));
            options.push_str(&format!(" --relay {}", quote::shell(&hint)));
        }
        let only_here = [mailbox, relay].into_iter().flatten().all(|address| address.ip().is_loopback());
        if only_here {
            options.push_str(" --local");
            text.push_str("\nOnly programs on this machine can reach them. One side runs\n");
        } else {
            text.push_str(
                "\nThe two sides can be anywhere from where this machine is reached. One side runs\n",
            );
        }
        text.push_str(&format!("    dilated{options} pipe\nand gets a code; the other side runs\n"));
        text.push_str(&format!("    dilated{options} pipe CODE\n\nCtrl-C stops the servers."));
        text
    }

    /// Runs until a signal, or until a server fails.
    async fn run(self, signals: &mut Signals, report: &Report) -> Result<(), Failure> {
        let handles =
            (self.mailbox.as_ref().map(MailboxServer::handle), self.relay.as_ref().map(Relay::handle));
        let mailbox = async {
            match self.mailbox {
                Some(server) => server.run().await.map_err(|e| failed("mailbox server", &e)),
                None => Ok(()),
            }
        };
        let relay = async {
            match self.relay {
                Some(server) => server.run().await.map_err(|e| failed("relay", &e)),
                None => Ok(()),
            }
        };
        let running = async { tokio::try_join!(mailbox, relay).map(|_| ()) };
        tokio::pin!(running);
        tokio::select! {
            result = &mut running => return result,
            _ = signals.next() => {}
        }
        report.line("stopping; once more stops at once");
        if let Some(handle) = handles.0 {
            handle.shutdown();
        }
        if let Some(handle) = handles.1 {
            handle.shutdown();
        }
        tokio::select! {
            result = tokio::time::timeout(GOODBYE, running) => result.unwrap_or(Ok(())),
            _ = signals.next() => Ok(()),
        }
    }
}

fn mailbox_config(options: &ServeOptions) -> ServerConfig {
    let mut config = ServerConfig::default();
    if let Some(path) = &options.database {
        config.store = StoreKind::Sqlite(path.clone());
    }
    config.welcome.motd.clone_from(&options.motd);
    config.allow_list = !options.no_list;
    config.trust_real_ip = options.trust_real_ip;
    if let Some(connections) = options.max_connections {
        config.limits.connections = connections;
    }
    if let Some(connections) = options.max_per_address {
        config.limits.connections_per_address = connections;
    }
    config
}

fn relay_config(options: &ServeOptions) -> RelayConfig {
    let mut config = RelayConfig::default();
    if let Some(connections) = options.max_connections {
        config.connections = connections;
    }
    if let Some(connections) = options.max_per_address {
        config.connections_per_address = connections;
    }
    config
}

fn cannot_start(
    what: &str,
    address: SocketAddr,
    option: &str,
    options: &ServeOptions,
    error: &io::Error,
) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => format!("another program listens there; choose another with {option}"),
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no such address; choose one with {option}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("that is not allowed; choose a port above 1023 with {option}")
        }
        _ => match &options.database {
            Some(path) if what == "mailbox server" => format!("{error} (database {})", path.display()),
            _ => error.to_string(),
        },
    };
    Failure::new(Kind::Server, format!("cannot start the {what} on {address}: {advice}"))
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::new(Kind::Server, format!("the {what} failed: {error}"))
}

/// An address that others can use to reach a server that listens on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => outward(Ipv4Addr::LOCALHOST.into()),
        // It listens for IPv4 too, which more of the others have.
        IpAddr::V6(ip) if ip.is_unspecified() => match outward(Ipv4Addr::LOCALHOST.into()) {
            ip if ip.is_loopback() => outward(Ipv6Addr::LOCALHOST.into()),
            ip => ip,
        },
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// This machine's address towards the rest of the world, or `fallback`. Connecting a UDP socket sends nothing, it
/// only chooses a route; the destinations are reserved for documentation.
fn outward(fallback: IpAddr) -> IpAddr {
    let (any, far) = match fallback {
        IpAddr::V4(_) => ("0.0.0.0:0", "192.0.2.1:9"),
        IpAddr::V6(_) => ("[::]:0", "[2001:db8::1]:9"),
    };
    let local = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind(any)?;
        socket.connect(far)?;
        Ok(socket.local_addr()?.ip())
    };
    local().unwrap_or(fallback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_says_where_is_kept() {
        for address in ["127.0.0.1:4000", "[::1]:4000", "192.0.2.7:1"] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(reachable(address), address);
        }
        for address in ["0.0.0.0:4000", "[::]:4000"] {
            let shown = reachable(address.parse().unwrap());
            assert!(!shown.ip().is_unspecified() && shown.port() == 4000, "{shown}");
        }
    }
}
