//! `dilated bench`: how good is the link between two machines that both run it?

mod findings;
mod measure;
mod task;

use std::cell::Cell;

use dilated::{DilateConfig, Dilated, Wormhole};
use serde_json::{Value, json};
use tokio::sync::watch;

use self::measure::Side;
use crate::{
    exit::{Failure, Kind},
    loopback::Servers,
    meeting::{self, Broken, Meeting, Purpose},
    options::{APPID, BenchOptions, Global},
    signals::Signals,
    status::Report,
};

/// The table of statuses that `--help` shows.
pub(crate) const HELP: &str = "\
Exit status:
    0  everything was measured
    1  something on this machine failed, such as writing the output
    2  the command was not used right, or the code is malformed
    3  the codes do not match, the verifier was refused, or somebody else took part
    4  the other side left before everything was measured
    5  the mailbox server could not be reached or refused
    6  the other side's program is not `dilated bench`
  130  interrupted (Ctrl-C)
  141  standard output was closed, as by `head`
  143  terminated (SIGTERM)";

/// The application of two sides in one process.
const LOOPBACK_APPID: &str = "dilated.dev/bench";

/// What the two sides say to each other; another number is another language.
const VERSION: u64 = 1;

/// What one side wants, told in its `app_versions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wish {
    seconds: u8,
}

impl Wish {
    fn to_json(self) -> Value {
        json!({ Purpose::Bench.key(): { "version": VERSION, "seconds": self.seconds } })
    }

    /// What both sides do, given what the other one said.
    fn agree(self, theirs: &Value) -> Result<Wish, Failure> {
        let refuse = |what: &str| Err(Failure::new(Kind::PeerProgram, what));
        let Some(theirs) = theirs.get(Purpose::Bench.key()) else {
            return refuse("the other side's program is not `dilated bench`; run that on both");
        };
        if theirs.get("version").and_then(Value::as_u64) != Some(VERSION) {
            return refuse(
                "the other side's `dilated bench` is of another version; use the same version on both",
            );
        }
        let theirs = theirs.get("seconds").and_then(Value::as_u64).and_then(|s| u8::try_from(s).ok());
        match theirs {
            Some(seconds @ 1..=60) => Ok(Wish { seconds: self.seconds.max(seconds) }),
            _ => refuse("the other side wants to send for a time that is not between 1 and 60 seconds"),
        }
    }
}

/// Runs the command.
pub(crate) async fn run(global: &Global, options: BenchOptions, report: &Report) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let wish = Wish { seconds: options.seconds };
    if options.loopback {
        return tokio::select! {
            result = alone(wish, report) => result,
            failure = signals.next() => Err(failure),
        };
    }
    let terminal = meeting::terminal(global)?;
    let wormhole = global.wormhole(APPID, wish.to_json())?;
    let complete = watch::Sender::new(false);
    let meeting = Meeting {
        wormhole: &wormhole,
        purpose: Purpose::Bench,
        complete: &complete,
        messages: Cell::default(),
        report,
    };
    let mut dilated = None;
    let session = async {
        let command = |code: &str| BenchOptions::for_the_other_side(global, code);
        let peer = meeting.meet(&options.join, command).await?;
        let wish = wish.agree(&peer.about)?;
        peer.confirm(terminal, report).await?;
        let config = global.dilate_config()?;
        let side = dilate(&wormhole, config, &mut dilated, wish, report)?;
        let dilated = side.dilated;
        let measured = async {
            let measured = side.measure(meeting::leads(dilated).await).await;
            complete.send_replace(measured.is_ok());
            measured
        };
        let measured = tokio::select! {
            measured = measured => measured,
            never = meeting.narrate_link(dilated.status_changes()) => match never {},
        };
        match measured {
            Ok((ground, findings)) => Ok(format!("{ground}\n{findings}")),
            Err(broken) => Err(meeting::reason(dilated, broken).await),
        }
    };
    let outcome = meeting.guard(session, &mut signals).await;
    let lines = meeting.part(outcome, &mut signals).await?;
    report.output(lines)
}

/// Dilates, and keeps what must outlive an interrupted session in `place`.
fn dilate<'a>(
    wormhole: &Wormhole,
    config: DilateConfig,
    place: &'a mut Option<Dilated>,
    wish: Wish,
    report: &'a Report,
) -> Result<Side<'a>, Failure> {
    let dilated = place.insert(wormhole.dilate(config)?);
    let (_control, client, server) = dilated.endpoints().expect("nobody took them before");
    Ok(Side { dilated, client, server, seconds: wish.seconds, report: Some(report) })
}

/// Both sides in this process.
async fn alone(wish: Wish, report: &Report) -> Result<(), Failure> {
    let servers = Servers::start().await?;
    let (a, b) = (servers.wormhole(LOOPBACK_APPID)?, servers.wormhole(LOOPBACK_APPID)?);
    b.set_code(&a.allocate_code(2).await?.to_string())?;
    let config = servers.config(false);
    let (mut place_a, mut place_b) = (None, None);
    let one = dilate(&a, config.clone(), &mut place_a, wish, report)?;
    let other = dilate(&b, config, &mut place_b, wish, report)?;
    let dilated = one.dilated;
    let leads = meeting::leads(dilated).await;
    // One of them tells what happens.
    let other = Side { report: None, ..other };
    let measured = tokio::try_join!(one.measure(leads), other.measure(!leads));
    let ((ground, findings), _) = match measured {
        Ok(measured) => measured,
        Err(broken) => return Err(meeting::reason(dilated, broken).await),
    };
    tokio::try_join!(a.close(), b.close())?;
    report.output(format_args!("{ground}\n{}", findings.of_one_process()))
}

/// The other side ended what this one still needs.
fn left() -> Broken {
    Broken::Here(Failure::new(
        Kind::PeerLeft,
        "the other side left before the end; the measurement is incomplete",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sides_agree_and_strangers_are_told_apart() {
        let wish = |seconds| Wish { seconds };
        assert_eq!(wish(3).agree(&wish(5).to_json()), Ok(wish(5)));
        assert_eq!(wish(5).agree(&wish(3).to_json()), Ok(wish(5)));
        let refused = |theirs: Value| wish(3).agree(&theirs).unwrap_err();
        for (theirs, sentence) in [
            (json!({}), "is not `dilated bench`"),
            (json!([]), "is not `dilated bench`"),
            (json!({ "bench": { "seconds": 3 } }), "another version"),
            (json!({ "bench": { "version": 2, "seconds": 3 } }), "another version"),
            (json!({ "bench": { "version": 1, "seconds": 61 } }), "not between 1 and 60"),
            (json!({ "bench": { "version": 1, "seconds": "all" } }), "not between 1 and 60"),
        ] {
            let failure = refused(theirs);
            assert_eq!(failure.kind(), Kind::PeerProgram);
            assert!(failure.to_string().contains(sentence), "{failure}");
        }
    }

    #[test]
    fn statuses_are_those_of_every_command() {
        let status = |line: &str| line.split_whitespace().next().map(str::to_owned);
        let statuses = |help: &str| help.lines().skip(1).map(status).collect::<Vec<_>>();
        let mut all = statuses(crate::exit::HELP);
        // Nothing is offered, so nobody declines.
        all.retain(|status| *status != Some(Kind::Declined.status().to_string()));
        assert_eq!(statuses(HELP), all);
    }
}
