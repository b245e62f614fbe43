//! The links under the multiplexer: one for `ged`, up to two at a time for `dilated-1`.

mod alarm;
mod dilated1;
mod ged;
mod wire;

use std::{future::Future, net::SocketAddr, time::Duration};

use dilated_subchannel::mux::Batch;
use dilated_transit::{
    OpenError, Path,
    net::{LinkError, LinkWriter},
};

pub(crate) use self::{dilated1::LinksPump, ged::LinkPump};
pub(crate) use crate::links::LinkEvent;
use crate::links::Links;

/// Plaintext sealed per turn before the socket is written, in bytes: large enough to fill a send buffer with one
/// system call, small enough that an acknowledgement never waits long behind it.
const BATCH: usize = 256 * 1024;

/// Plaintext that goes ahead on a link that may die young. The rest waits for the peer's first bytes, which say what it
/// has already: links would else be spent on sending that again and again.
const FIRST_FLIGHT: usize = 16 * 1024;

/// What runs under the multiplexer.
#[derive(Debug)]
pub(crate) enum Pump {
    Ged(Box<LinkPump>),
    Dilated1(Box<LinksPump>),
}

impl Pump {
    /// Runs until something happened that the driver has to know.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: all state is in `self`.
    pub(crate) fn run(&mut self) -> impl Future<Output = LinkEvent> + '_ {
        std::future::poll_fn(|cx| match self {
            Pump::Ged(pump) => pump.poll(cx),
            Pump::Dilated1(links) => links.poll(cx),
        })
    }

    /// How the peer is reached.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Pump::Ged(pump) => Some(pump.path()),
            Pump::Dilated1(links) => links.path(),
        }
    }

    /// The path of a link that stands by.
    pub(crate) fn standby(&self) -> Option<&Path> {
        match self {
            Pump::Ged(_) => None,
            Pump::Dilated1(links) => links.standing_by().next(),
        }
    }

    /// Gives the active link up. Returns false if no other is left.
    pub(crate) fn abandon(&mut self) -> bool {
        match self {
            Pump::Ged(_) => false,
            Pump::Dilated1(links) => links.abandon(),
        }
    }

    /// Whether anything came from the peer.
    pub(crate) fn heard(&self) -> bool {
        match self {
            Pump::Ged(pump) => pump.heard(),
            Pump::Dilated1(links) => links.heard(),
        }
    }

    /// Whether the peer acknowledged anything.
    pub(crate) fn is_loaded(&self) -> bool {
        match self {
            Pump::Ged(pump) => pump.is_loaded(),
            Pump::Dilated1(links) => links.is_loaded(),
        }
    }

    /// Something happened that may have broken links. Those whose address is gone are given up; the others have to show
    /// soon that they work. Returns false if none is left.
    pub(crate) fn suspect(&mut self, why: &str, has_address: impl Fn(SocketAddr) -> bool) -> bool {
        match self {
            Pump::Ged(pump) => {
                let usable = pump.local_address().is_some_and(has_address);
                if usable {
                    pump.suspect(why.to_owned());
                }
                usable
            }
            Pump::Dilated1(links) => links.suspect(why, has_address),
        }
    }

    /// Lets [`run`](Self::run) tell once everything written has been acknowledged by the peer and our last
    /// acknowledgement has left.
    pub(crate) fn drain(&mut self) {
        match self {
            Pump::Ged(pump) => pump.drain(),
            Pump::Dilated1(links) => links.drain(),
        }
    }

    /// Gives everything up at once; nothing is flushed. Returns what has to be known when there are links again.
    pub(crate) fn abort(self) -> Option<Links> {
        match self {
            Pump::Ged(pump) => {
                pump.abort();
                None
            }
            Pump::Dilated1(links) => Some(links.abort()),
        }
    }

    /// Ends in order: what is sealed is written, then FIN, within `deadline`.
    pub(crate) async fn close(self, deadline: Duration) {
        let closing = async {
            match self {
                Pump::Ged(pump) => pump.close().await,
                Pump::Dilated1(links) => links.close().await,
            }
        };
        if tokio::time::timeout(deadline, closing).await.is_err() {
            tracing::debug!("the link did not close in time; dropped");
        }
    }
}

/// Seals all records of a batch, and empties it.
fn seal(writer: &mut LinkWriter, batch: &mut Batch) -> Result<(), LinkEvent> {
    let sealed = batch.records().try_for_each(|parts| writer.seal_parts(parts));
    batch.clear();
    sealed.map_err(|error| lost(&error))
}

fn lost(error: &LinkError) -> LinkEvent {
    match error {
        LinkError::Open(OpenError::TooLong { length, .. }) => LinkEvent::Unreadable(format!(
            "it sends {length} bytes in one record, more than `MuxConfig::max_data` allows; raise that if it is meant to"
        )),
        _ => LinkEvent::Lost(error.to_string()),
    }
}
