//! This machine: its addresses, whether it can listen, and what it would tell the other side.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use dilated::DilateConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{Check, Mark, Nat, mailbox::Found};

/// How long this machine may take to connect to itself.
const SELF_CONNECT: Duration = Duration::from_secs(2);

/// From where an address can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Loopback,
    Private,
    Public,
}

impl Scope {
    fn of(address: IpAddr) -> Scope {
        let private = match address.to_canonical() {
            IpAddr::V4(v4) => {
                // 100.64.0.0/10 is what carriers use behind their NAT.
                let carrier = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 0x40;
                v4.is_private() || v4.is_link_local() || carrier
            }
            IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
        };
        match private {
            _ if address.to_canonical().is_loopback() => Scope::Loopback,
            true => Scope::Private,
            false => Scope::Public,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Scope::Loopback => "loopback",
            Scope::Private => "private",
            Scope::Public => "public",
        }
    }
}

/// What was found on this machine.
#[derive(Debug)]
pub(super) struct Local {
    /// What would be advertised if it can be listened on.
    addresses: Vec<IpAddr>,
    /// Nothing, if listening was not wanted.
    listener: Option<Listening>,
}

/// Whether each family can be listened on, and if so, whether this machine failed to reach the listener.
#[derive(Debug)]
struct Listening {
    v4: io::Result<Option<String>>,
    v6: io::Result<Option<String>>,
}

impl Local {
    pub(super) async fn look(config: &DilateConfig) -> Local {
        let addresses = dilated::local_addresses(config.loopback);
        let listener = if config.listen {
            let address = |v4: bool| addresses.iter().copied().find(|address| address.is_ipv4() == v4);
            let (v4, v6) = tokio::join!(
                try_listening(Ipv4Addr::UNSPECIFIED.into(), address(true)),
                try_listening(Ipv6Addr::UNSPECIFIED.into(), address(false)),
            );
            Some(Listening { v4, v6 })
        } else {
            None
        };
        Local { addresses, listener }
    }

    pub(super) fn only_loopback(&self) -> bool {
        self.addresses.iter().all(|address| Scope::of(*address) == Scope::Loopback)
    }

    pub(super) fn checks(&self) -> Vec<Check> {
        vec![self.address_check(), self.listener_check()]
    }

    fn address_check(&self) -> Check {
        let shown: Vec<String> = self.addresses.iter().copied().map(describe).collect();
        let shown = shown.join(", ");
        if self.only_loopback() {
            let text = format!("{shown}: only programs on this machine can reach it; is its network up?");
            return Check::new(Mark::Warn, "addresses", text);
        }
        Check::new(Mark::Ok, "addresses", shown)
    }

    fn listener_check(&self) -> Check {
        let check = |mark, text: String| Check::new(mark, "listener", text);
        let Some(listener) = &self.listener else {
            return check(Mark::Skip, "none is wanted (--no-listen, or a proxy)".to_owned());
        };
        let outside = "; whether a firewall lets others in, only the other side can tell";
        match (&listener.v4, &listener.v6) {
            (Ok(Some(unreached)), _) | (_, Ok(Some(unreached))) => check(
                Mark::Warn,
                format!("it opens, but connecting to it at {unreached}; look for a firewall on this machine"),
            ),
            (Ok(None), Ok(None)) => check(Mark::Ok, format!("can be opened for IPv4 and IPv6{outside}")),
            (Ok(None), Err(error)) => {
                let mark = if self.addresses.iter().any(IpAddr::is_ipv6) { Mark::Warn } else { Mark::Ok };
                check(mark, format!("can be opened for IPv4, not for IPv6 ({error}){outside}"))
            }
            (Err(error), Ok(None)) => {
                check(Mark::Warn, format!("can be opened for IPv6, not for IPv4 ({error}){outside}"))
            }
            (Err(v4), Err(v6)) => check(
                Mark::Warn,
                format!(
                    "cannot be opened (IPv4: {v4}; IPv6: {v6}): look for what forbids it, or use --no-listen and \
                     leave the connecting to this side"
                ),
            ),
        }
    }

    /// What the mailbox servers see of this machine.
    pub(super) fn nat(&self, config: &DilateConfig, mailboxes: &[Found]) -> (Nat, Check) {
        if let Some(proxy) = &config.proxy {
            let text = format!("not checked: the mailbox server sees what is behind the proxy {proxy}");
            return (Nat::Unknown, Check::new(Mark::Skip, "nat", text));
        }
        let mut seen: Vec<IpAddr> =
            mailboxes.iter().filter_map(Found::our_address).map(|ip| ip.to_canonical()).collect();
        seen.sort();
        seen.dedup();
        let (nat, mut parts) = (Nat::Unknown, Vec::new());
        let nat = seen.iter().fold(nat, |nat, address| {
            let (found, text) = self.judge(*address);
            parts.push(text);
            // One address that is translated is enough to count as behind NAT: the peer may have only that family.
            match (nat, found) {
                (Nat::Behind, _) | (_, Nat::Behind) => Nat::Behind,
                (Nat::None, _) | (_, Nat::None) => Nat::None,
                _ => Nat::Unknown,
            }
        });
        let check = match parts.is_empty() {
            true => Check::new(Mark::Skip, "nat", "not checked: no mailbox server told us our address"),
            false if nat == Nat::Unknown => Check::new(Mark::Skip, "nat", parts.join("; ")),
            false => Check::new(Mark::Ok, "nat", parts.join("; ")),
        };
        (nat, check)
    }

    fn judge(&self, address: IpAddr) -> (Nat, String) {
        // With loopback, whatever the options say: the question is what belongs to this machine.
        let ours = self.addresses.contains(&address) || dilated::local_addresses(true).contains(&address);
        match (Scope::of(address), ours) {
            (Scope::Loopback, _) => (
                Nat::Unknown,
                format!("not checked: the mailbox server sees us as {address}, so it is on this machine"),
            ),
            (Scope::Public, true) => (
                Nat::None,
                format!(
                    "the mailbox server sees us as {address}, an address of this machine: there is no NAT"
                ),
            ),
            (Scope::Private, true) => (
                Nat::Unknown,
                format!(
                    "not checked: the mailbox server sees us as {address}, so it is in our own private network"
                ),
            ),
            (_, false) => (
                Nat::Behind,
                format!(
                    "the mailbox server sees us as {address}, not an address of this machine: it is behind NAT, \
                     and others reach it only if the NAT forwards a port"
                ),
            ),
        }
    }

    /// What the other side would be told.
    pub(super) fn hints(&self, config: &DilateConfig) -> Check {
        let usable = |address: &&IpAddr| {
            self.listener.as_ref().is_some_and(|listener| match address {
                IpAddr::V4(_) => listener.v4.is_ok(),
                IpAddr::V6(_) => listener.v6.is_ok(),
            })
        };
        let direct = self.addresses.iter().filter(usable).map(|address| match address {
            IpAddr::V4(address) => format!("tcp:{address}:PORT"),
            IpAddr::V6(address) => format!("tcp:[{address}]:PORT"),
        });
        let hints: Vec<String> =
            direct.chain(config.relays.iter().map(|relay| format!("relay {relay}"))).collect();
        if hints.is_empty() {
            let text = "the other side would be told nothing, so only this side can connect: leave --no-listen \
                        away, or name a relay with --relay";
            return Check::new(Mark::Warn, "hints", text);
        }
        let port = if self.listener.is_some() { "; PORT is another one for each link" } else { "" };
        Check::new(Mark::Ok, "hints", format!("the other side would be told {}{port}", hints.join(", ")))
    }
}

fn describe(address: IpAddr) -> String {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    format!("{address} ({} {family})", Scope::of(address).name())
}

/// Opens a listener on `any`, and connects to it by `address` if there is one. Gives what failed about the latter: the
/// address is advertised nevertheless, because a firewall may well treat others differently.
async fn try_listening(any: IpAddr, address: Option<IpAddr>) -> io::Result<Option<String>> {
    let listener = TcpListener::bind((any, 0)).await?;
    let Some(address) = address else { return Ok(None) };
    let target = SocketAddr::new(address, listener.local_addr()?.port());
    Ok(match timeout(SELF_CONNECT, TcpStream::connect(target)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(format!("{target} fails: {error}")),
        Err(_) => Some(format!("{target} gets no answer")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(addresses: &[&str]) -> Local {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Local { addresses, listener: Some(Listening { v4: Ok(None), v6: Err(io::Error::other("no IPv6")) }) }
    }

    #[test]
    fn scopes() {
        let scope = |address: &str| Scope::of(address.parse().unwrap()).name();
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(scope(address), "loopback", "{address}");
        }
        for address in ["10.1.2.3", "172.16.0.1", "192.168.0.1", "100.64.0.1", "100.127.255.255", "fd00::1"] {
            assert_eq!(scope(address), "private", "{address}");
        }
        for address in ["8.8.8.8", "100.63.0.1", "100.128.0.1", "172.32.0.1", "2a00::1", "::ffff:8.8.8.8"] {
            assert_eq!(scope(address), "public", "{address}");
        }
    }

    #[test]
    fn nat_is_told_from_what_the_server_sees() {
        let machine = local(&["192.168.7.7", "8.8.4.4"]);
        let config = DilateConfig::direct_only();
        let nat = |seen: &str| machine.nat(&config, &[Found::seeing(seen.parse().unwrap())]);
        assert_eq!(nat("8.8.4.4").0, Nat::None);
        assert_eq!(nat("::ffff:8.8.4.4").0, Nat::None);
        let (behind, check) = nat("8.8.8.8");
        assert!(behind == Nat::Behind && check.text.contains("behind NAT"), "{check}");
        for unknown in ["127.0.0.1", "192.168.7.7"] {
            let (nat, check) = nat(unknown);
            assert!(nat == Nat::Unknown && check.mark == Mark::Skip, "{check}");
        }
        assert_eq!(machine.nat(&config, &[]).1.mark, Mark::Skip);
        let mut proxied = DilateConfig::direct_only();
        proxied.proxy = Some("localhost:1".parse().unwrap());
        let (nat, check) = machine.nat(&proxied, &[Found::seeing("8.8.4.4".parse().unwrap())]);
        assert!(nat == Nat::Unknown && check.text.contains("behind the proxy"), "{check}");
    }

    #[test]
    fn only_what_can_be_listened_on_is_advertised() {
        let config = DilateConfig::direct_only();
        let hints = local(&["192.168.7.7", "2a00::1"]).hints(&config);
        assert_eq!(
            hints.text,
            "the other side would be told tcp:192.168.7.7:PORT; PORT is another one for each link"
        );
        let silent = Local { listener: None, ..local(&["192.168.7.7"]) };
        assert_eq!(silent.hints(&config).mark, Mark::Warn);
        assert_eq!(silent.checks()[1].mark, Mark::Skip);
    }

    #[tokio::test]
    async fn a_listener_is_tried() {
        assert_eq!(try_listening(Ipv4Addr::LOCALHOST.into(), None).await.unwrap(), None);
        let reached = try_listening(Ipv4Addr::UNSPECIFIED.into(), Some(Ipv4Addr::LOCALHOST.into())).await;
        assert_eq!(reached.unwrap(), None);
        // It listens at one loopback address, and the other has nobody.
        let unreached = try_listening(Ipv4Addr::LOCALHOST.into(), Some("127.0.0.2".parse().unwrap())).await;
        let machine =
            Local { listener: Some(Listening { v4: unreached, v6: Ok(None) }), ..local(&["192.168.7.7"]) };
        let check = machine.listener_check();
        assert!(check.mark == Mark::Warn && check.text.contains("at 127.0.0.2:"), "{check}");
        assert!(try_listening("192.0.2.77".parse().unwrap(), None).await.is_err());
        assert!(machine.hints(&DilateConfig::direct_only()).text.contains("192.168.7.7"));
    }

    #[test]
    fn a_machine_without_a_network_is_told() {
        let check = local(&["127.0.0.1"]).address_check();
        assert!(check.mark == Mark::Warn && check.text.contains("is its network up"), "{check}");
        assert_eq!(local(&["127.0.0.1", "10.0.0.1"]).address_check().mark, Mark::Ok);
    }
}
