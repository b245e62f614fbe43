//! `dilated doctor`: checks what a wormhole from this machine would meet, one line per check, and gives advice.

mod local;
mod mailbox;
mod relay;

use std::fmt;

use futures::future::join_all;

use crate::{
    exit::{Failure, Kind},
    options::{ConfigFile, Global},
    quote::printable,
    signals::Signals,
    status::Report,
};

/// The part of the exit statuses that concerns this command.
pub(crate) const HELP: &str = "\
Each line begins with what was found:
    ok    as it should be
    warn  something will not work, but two sides can meet
    fail  two sides cannot meet
    skip  not checked, and why

Exit status:
    0  a mailbox server can be used; there may be warnings
    1  something on this machine failed, such as writing the output
    2  the command was not used right
    5  no mailbox server can be used
  130  interrupted (Ctrl-C)
  141  standard output was closed, as by `head`
  143  terminated (SIGTERM)";

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Ok,
    Warn,
    Fail,
    Skip,
}

/// One line: what was checked, how it is, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    mark: Mark,
    subject: &'static str,
    text: String,
}

impl Check {
    fn new(mark: Mark, subject: &'static str, text: impl Into<String>) -> Check {
        Check { mark, subject, text: text.into() }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.mark {
            Mark::Ok => "ok",
            Mark::Warn => "warn",
            Mark::Fail => "fail",
            Mark::Skip => "skip",
        };
        write!(f, "{mark:<4}  {:<9}  ", self.subject)?;
        // Names and reasons come from options, from the network and from servers. In pieces, because a list of many
        // addresses is no reason to shorten it.
        self.text.split_inclusive(", ").try_for_each(|piece| f.write_str(&printable(piece)))
    }
}

/// Runs the command.
pub(crate) async fn run(global: &Global, report: &Report) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    tokio::select! {
        result = examine(global, report) => result,
        failure = signals.next() => Err(failure),
    }
}

async fn examine(global: &Global, report: &Report) -> Result<(), Failure> {
    let config = global.dilate_config()?;
    let mailboxes = mailbox::start(global)?;
    let relays: Vec<_> = config.relays.iter().flat_map(dilated::RelayHint::hints).collect();
    let remote = futures::future::join(
        join_all(mailboxes.into_iter().map(mailbox::Visit::finish)),
        join_all(
            relays
                .iter()
                .map(|endpoint| relay::try_out(endpoint.hostname(), endpoint.port(), config.proxy.as_ref())),
        ),
    );

    let here = async {
        let local = local::Local::look(&config).await;
        report.output(configuration(&global.config))?;
        for check in local.checks() {
            report.output(check)?;
        }
        Ok::<_, Failure>(local)
    };
    // All at once; what is known about this machine is shown while the servers are still being asked.
    let (local, (mailboxes, relays)) = tokio::join!(here, remote);
    let local = local?;

    for check in mailbox::checks(&mailboxes) {
        report.output(check)?;
    }
    let (nat, check) = local.nat(&config, &mailboxes);
    report.output(check)?;
    report.output(mailbox::clock(&mailboxes, crate::clock::date()))?;
    if relays.is_empty() {
        report.output(Check::new(Mark::Skip, "relay", "there is none, as asked with --relay none"))?;
    }
    for (check, _) in &relays {
        report.output(check)?;
    }
    report.output(local.hints(&config))?;
    let relayed = relays.iter().any(|(_, works)| *works);
    report.output(summary(config.listen, local.only_loopback(), nat, relayed))?;
    if mailboxes.iter().any(mailbox::Found::is_usable) {
        Ok(())
    } else {
        Err(Failure::new(
            Kind::Server,
            "no mailbox server can be used, so two sides cannot meet; name another with --mailbox, or run one \
             with `dilated serve` where both sides reach it",
        ))
    }
}

/// Which file the options may come from.
fn configuration(file: &ConfigFile) -> Check {
    let mark = if matches!(file, ConfigFile::Read(_)) { Mark::Ok } else { Mark::Skip };
    Check::new(mark, "config", file.to_string())
}

/// What is between this machine and the mailbox server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nat {
    Unknown,
    /// The server sees a public address of this machine.
    None,
    Behind,
}

/// How a link will come about.
fn summary(listen: bool, only_loopback: bool, nat: Nat, relayed: bool) -> Check {
    let text = |relayed: bool| -> &'static str {
        match (listen, only_loopback, nat, relayed) {
            (false, _, _, true) => {
                "nobody can connect to this side (--no-listen, or a proxy): a link is direct if the other side can be \
                 reached, and goes through the relay otherwise"
            }
            (false, _, _, false) => {
                "nobody can connect to this side (--no-listen, or a proxy), and no relay can be used: there is a link only \
                 if the other side can be reached directly; leave --no-listen away, or name a relay with --relay"
            }
            (true, true, _, true) => {
                "this machine has only loopback addresses: a direct link reaches programs on this machine only; \
                 the relay will carry the link to any other"
            }
            (true, true, _, false) => {
                "this machine has only loopback addresses and no relay can be used: a link is possible only to \
                 programs on this machine; check its network"
            }
            (true, false, Nat::None, true) => {
                "the other side can reach this machine directly unless a firewall forbids it; then the relay \
                 will carry the link"
            }
            (true, false, Nat::None, false) => {
                "no relay can be used: only direct links, which reach this machine unless a firewall forbids it"
            }
            (true, false, _, true) => {
                "a link is direct if both sides are in one network or the other side can be reached; with both \
                 sides behind NAT, the relay will carry the link"
            }
            (true, false, _, false) => {
                "no relay can be used: only direct links, so with both sides behind NAT there is none; name a \
                 relay that both sides reach with --relay"
            }
        }
    };
    Check::new(if relayed { Mark::Ok } else { Mark::Warn }, "summary", text(relayed))
}

/// What may help when a connection failed for `reason`.
fn advice(reason: &str) -> &'static str {
    let reason = reason.to_ascii_lowercase();
    let says = |part: &str| reason.contains(part);
    if says("certificate") {
        "the server's certificate is not accepted; check its name, this machine's clock and its trusted \
         certificates"
    } else if says("tls failed") {
        "the port does not seem to speak TLS; without TLS the address begins with ws://"
    } else if says("not a websocket server") {
        "something else listens there; check the port and the path, and with TLS the address begins with wss://"
    } else if says("lookup") || says("resolve") || says("no address") {
        "the name cannot be resolved; check its spelling and this machine's DNS"
    } else if says("refused") {
        "nothing listens there; check the address and the port"
    } else if says("within") || says("timed out") {
        "a firewall may drop the connection, or something else listens there; try another network or server"
    } else if says("unreachable") || says("no route") {
        "there is no way to it; check this machine's network"
    } else {
        "check the address and your network"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_drive_the_terminal() {
        let check = Check::new(Mark::Warn, "motd", "a\x1b[2Jb\nok    all is well");
        assert_eq!(check.to_string(), "warn  motd       a\\u{1b}[2Jb\\u{a}ok    all is well");
        let many = Check::new(Mark::Ok, "addresses", vec!["2001:db8::1"; 100].join(", "));
        assert!(!many.to_string().contains('…'));
    }

    #[test]
    fn without_a_relay_the_summary_warns() {
        for listen in [false, true] {
            for only_loopback in [false, true] {
                for nat in [Nat::Unknown, Nat::None, Nat::Behind] {
                    let with = summary(listen, only_loopback, nat, true);
                    let without = summary(listen, only_loopback, nat, false);
                    assert!(with.mark == Mark::Ok && with.text.contains("the relay"), "{with}");
                    assert!(without.mark == Mark::Warn && without.text.contains("no relay"), "{without}");
                    assert!(!without.to_string().ends_with('…'), "{without}");
                }
            }
        }
        assert!(summary(true, false, Nat::Behind, true).text.contains("both sides behind NAT"));
    }

    #[test]
    fn advice_fits_the_reason() {
        assert!(advice("Connection refused (os error 111)").contains("nothing listens"));
        assert!(advice("failed to lookup address information: Name or service not known").contains("DNS"));
        assert!(advice("TLS failed: invalid peer certificate: UnknownIssuer").contains("certificate"));
        assert!(advice("TLS failed: received corrupt message").contains("ws://"));
        assert!(advice("no answer within 15 s").contains("firewall"));
        assert!(advice("what").contains("your network"));
    }
}
