//! The mailbox servers: whether they can be reached, and what they say. And what that tells about the clock.

use std::{
    net::IpAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use dilated::{PUBLIC_MAILBOXES, Welcome, Wormhole, WormholeError};
use tokio::time::timeout;

use super::{Check, Mark, advice};
use crate::{
    clock,
    exit::Failure,
    options::{APPID, Global},
    quote,
};

/// For name resolution, TCP, TLS, the websocket and the welcome together.
const PATIENCE: Duration = Duration::from_secs(15);

/// For the farewell.
const GOODBYE: Duration = Duration::from_secs(2);

/// No release of this program is older, so no right clock shows an earlier year.
const EARLIEST_YEAR: u64 = 2025;

/// A connection to a mailbox server that is being made.
pub(super) struct Visit {
    url: String,
    wormhole: Wormhole,
    since: Instant,
}

/// What came of it.
pub(super) struct Found {
    url: String,
    result: Result<(Welcome, Duration), String>,
}

/// Starts to connect to all of them. Fails for what is no address of a mailbox server.
pub(super) fn start(global: &Global) -> Result<Vec<Visit>, Failure> {
    let mut urls: Vec<&str> = global.mailboxes().collect();
    if urls.is_empty() {
        urls.extend(PUBLIC_MAILBOXES);
    }
    urls.into_iter()
        .map(|url| {
            let since = clock::now();
            // One each: a wormhole with several addresses is content with the first that answers.
            let wormhole = global.builder(APPID).mailbox(url).build()?;
            Ok(Visit { url: url.to_owned(), wormhole, since })
        })
        .collect()
}

impl Visit {
    pub(super) async fn finish(self) -> Found {
        let result = match timeout(PATIENCE, self.wormhole.welcome()).await {
            Ok(Ok(welcome)) => Ok((welcome, clock::now().saturating_duration_since(self.since))),
            Ok(Err(error)) => Err(reason(&error)),
            Err(_) => {
                let reason = format!("no welcome within {} s", PATIENCE.as_secs());
                Err(format!("{reason}; {}", advice(&reason)))
            }
        };
        // It never got a code, so it ends lonely, which is no news.
        let _ = timeout(GOODBYE, self.wormhole.close()).await;
        Found { url: self.url, result }
    }
}

/// Why a server cannot be used, and what to do.
fn reason(error: &WormholeError) -> String {
    match error {
        WormholeError::Connection { reason, .. } => format!("{reason}; {}", advice(reason)),
        // The other errors are sentences with their advice.
        error => error.to_string(),
    }
}

impl Found {
    pub(super) fn is_usable(&self) -> bool {
        self.result.is_ok()
    }

    /// Ours, as this server sees it.
    pub(super) fn our_address(&self) -> Option<IpAddr> {
        let (welcome, _) = self.result.as_ref().ok()?;
        welcome.your_address.map(|address| address.ip())
    }

    fn is_tls(&self) -> bool {
        self.url.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("wss:"))
    }

    #[cfg(test)]
    pub(super) fn seeing(address: IpAddr) -> Found {
        let mut welcome = Welcome::default();
        welcome.your_address = Some((address, 1).into());
        Found { url: "ws://h/v1".to_owned(), result: Ok((welcome, Duration::ZERO)) }
    }
}

/// A line for each server, and one for what it wants users to read.
pub(super) fn checks(found: &[Found]) -> Vec<Check> {
    let any = found.iter().any(Found::is_usable);
    let mut checks = Vec::new();
    for Found { url, result } in found {
        match result {
            Ok((welcome, time)) => {
                let time = quote::duration(*time);
                checks.push(Check::new(Mark::Ok, "mailbox", format!("{url}: welcome after {time}")));
                if let Some(motd) = &welcome.motd {
                    let motd = quote::printable(motd);
                    checks.push(Check::new(Mark::Ok, "motd", format!("the mailbox server says: {motd}")));
                }
            }
            // Another one can be used, though not by a far end that knows only this one.
            Err(reason) if any => checks.push(Check::new(Mark::Warn, "mailbox", format!("{url}: {reason}"))),
            Err(reason) => checks.push(Check::new(Mark::Fail, "mailbox", format!("{url}: {reason}"))),
        }
    }
    checks
}

/// The protocol has no time of day; certificates have one, and TLS needs a clock that is not far off.
pub(super) fn clock(found: &[Found], date: SystemTime) -> Check {
    const AVERAGE_YEAR: u64 = 31_556_952;
    let check = |mark, text: String| Check::new(mark, "clock", text);
    let year = 1970 + date.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) / AVERAGE_YEAR;
    if year < EARLIEST_YEAR {
        return check(
            Mark::Warn,
            format!("this machine believes that it is {year}: set its clock, because TLS fails without"),
        );
    }
    let untimely = |found: &Found| {
        let reason = found.result.as_ref().err().map(|reason| reason.to_ascii_lowercase());
        let says = |part| reason.as_ref().is_some_and(|reason| reason.contains(part));
        found.is_tls() && (says("expired") || says("not valid yet") || says("notvalidyet"))
    };
    if let Some(found) = found.iter().find(|found| untimely(found)) {
        return check(
            Mark::Warn,
            format!(
                "the certificate of {} is not valid now: set this machine's clock if it is wrong",
                found.url
            ),
        );
    }
    match found.iter().find(|found| found.is_tls() && found.is_usable()) {
        Some(found) => {
            check(Mark::Ok, format!("good enough for TLS: the certificate of {} is valid", found.url))
        }
        None => check(
            Mark::Skip,
            "not compared: no server here tells the time; only TLS (wss://) needs a clock that is right"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(url: &str, result: Result<(), &str>) -> Found {
        let result = result.map(|()| (Welcome::default(), Duration::ZERO)).map_err(str::to_owned);
        Found { url: url.to_owned(), result }
    }

    #[test]
    fn the_clock_is_judged_by_certificates() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let mark = |found: Found| clock(&[found], now).mark;
        assert_eq!(mark(found("wss://h", Ok(()))), Mark::Ok);
        assert_eq!(mark(found("ws://h", Ok(()))), Mark::Skip);
        assert_eq!(mark(found("wss://h", Err("Connection refused"))), Mark::Skip);
        let expired = "TLS failed: invalid peer certificate: certificate expired: verified at time 1";
        assert_eq!(mark(found("WSS://h", Err(expired))), Mark::Warn);
        let epoch = clock(&[found("wss://h", Ok(()))], UNIX_EPOCH);
        assert!(epoch.mark == Mark::Warn && epoch.text.contains("1970"), "{epoch}");
    }

    #[test]
    fn one_server_is_enough() {
        let marks = |all: &[Found]| checks(all).iter().map(|check| check.mark).collect::<Vec<_>>();
        assert_eq!(marks(&[found("ws://a", Err("x")), found("ws://b", Ok(()))]), [Mark::Warn, Mark::Ok]);
        assert_eq!(marks(&[found("ws://a", Err("x")), found("ws://b", Err("y"))]), [Mark::Fail, Mark::Fail]);
    }
}
