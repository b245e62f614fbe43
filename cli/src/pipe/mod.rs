//! `dilated pipe`: standard input and output across a wormhole.

mod agree;
mod transfer;

use std::{cell::Cell, time::Duration};

use dilated::{Dilated, ReadHalf, Subchannel, WriteHalf};
use tokio::sync::watch;

use self::{
    agree::{Opener, Part},
    transfer::Totals,
};
use crate::{
    exit::Failure,
    meeting::{self, Broken, Meeting, Purpose},
    options::{APPID, Global, PipeOptions},
    quote::{bytes, printable},
    signals::Signals,
    status::Report,
};

/// How long a pipe that fails waits for what it has sent to arrive. One that succeeds has waited before.
const LINGER: Duration = Duration::from_secs(2);

/// What must outlive the session when it is interrupted: the direction to the other side, since dropping it would
/// say that the data ends here.
#[derive(Debug, Default)]
struct Stream {
    dilated: Option<Dilated>,
    read: Option<ReadHalf>,
    write: Option<WriteHalf>,
}

/// Runs the command.
pub(crate) async fn run(global: &Global, options: PipeOptions, report: &Report) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let terminal = meeting::terminal(global)?;
    let part = Part {
        opens: if options.open || options.listen { options.open } else { options.join.code().is_some() },
        flexible: !options.open && !options.listen,
        subprotocol: options.subprotocol.clone(),
    };
    let wormhole = global.wormhole(APPID, part.to_json())?;
    let complete = watch::Sender::new(false);
    let meeting = Meeting {
        wormhole: &wormhole,
        purpose: Purpose::Pipe,
        complete: &complete,
        messages: Cell::default(),
        report,
    };
    let mut stream = Stream::default();
    let session = async {
        let peer = meeting.meet(&options.join, |code| options.for_the_other_side(global, code)).await?;
        let opener = part.agree(Part::from_json(&peer.about).as_ref())?;
        peer.confirm(terminal, report).await?;
        let Stream { dilated, read, write } = &mut stream;
        let mut config = global.dilate_config()?;
        config.linger = LINGER;
        config.expected_subprotocols.push(part.subprotocol.clone());
        let dilated = dilated.insert(wormhole.dilate(config)?);
        let carried = async {
            let (reader, writer) = open(opener, &part.subprotocol, dilated).await?.into_split();
            transfer::run(read.insert(reader), write.insert(writer), &complete, report).await
        };
        tokio::select! {
            outcome = carried => match outcome {
                Ok(totals) => Ok(totals),
                Err(broken) => Err(meeting::reason(dilated, broken).await),
            },
            never = meeting.narrate_link(dilated.status_changes()) => match never {},
        }
    };
    let outcome = meeting.guard(session, &mut signals).await;
    // What still comes is discarded, so that it holds nothing up.
    stream.read = None;
    let Totals { sent, received } = meeting.part(outcome, &mut signals).await?;
    report.line(format_args!("done: sent {}, received {}", bytes(sent), bytes(received)));
    Ok(())
}

async fn open(opener: Opener, name: &str, dilated: &Dilated) -> Result<Subchannel, Broken> {
    let refused = |e: &dyn std::error::Error| {
        Broken::Here(Failure::usage(format!("--subprotocol {} cannot be used: {e}", printable(name))))
    };
    let opens = match opener {
        Opener::Us => true,
        Opener::Them => false,
        Opener::Leader => meeting::leads(dilated).await,
    };
    if opens {
        let connector = dilated.connector_for(name).map_err(|e| refused(&e))?;
        connector.connect().await.map_err(Broken::wormhole)
    } else {
        let mut listener = dilated.listener_for(name).map_err(|e| refused(&e))?;
        listener.accept().await.map_err(Broken::wormhole)
    }
}
