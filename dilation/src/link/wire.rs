//! One connection under a link of `dilated-1`: moves its bytes, seals and opens.

use std::{
    net::SocketAddr,
    task::{Context, Poll, ready},
    time::Instant,
};

use dilated_subchannel::{frame::Frames, mux::Batch};
use dilated_transit::net::{Link, LinkError};

use super::{BATCH, LinkEvent, alarm::Alarm, seal};
use crate::links::{LinkId, Links};

/// Bytes of plaintext after which those who wait for them come first. After fewer the socket is asked once more: mostly it
/// has no more then, and knows so without a system call.
const ENOUGH: usize = BATCH / 4;

#[derive(Debug)]
pub(super) struct Wire {
    pub(super) id: LinkId,
    link: Link,
    pub(super) alarm: Alarm,
    scratch: Vec<u8>,
}

impl Wire {
    pub(super) fn new(id: LinkId, link: Link) -> Wire {
        Wire { id, link, alarm: Alarm::new(), scratch: Vec::new() }
    }

    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        self.link.local_address()
    }

    /// Whether everything that was sealed has left.
    pub(super) fn is_flushed(&self) -> bool {
        self.link.writer.pending() == 0
    }

    /// Whether the socket has taken all, so that more may be sealed; what concerns the link is sealed by this.
    pub(super) fn poll_ready(
        &mut self,
        cx: &mut Context<'_>,
        links: &mut Links,
    ) -> Poll<Result<(), LinkEvent>> {
        loop {
            ready!(self.poll_flush(cx))?;
            self.scratch.clear();
            if !links.poll_transmit(self.id, &mut self.scratch) {
                return Poll::Ready(Ok(()));
            }
            self.link.writer.seal(&[&self.scratch]).map_err(|e| lost(&e))?;
        }
    }

    /// Seals what the multiplexer has to say.
    pub(super) fn seal(&mut self, batch: &mut Batch) -> Result<(), LinkEvent> {
        seal(&mut self.link.writer, batch)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEvent>> {
        self.link.writer.poll_flush(cx).map_err(|e| lost(&e))
    }

    /// Reads and opens what is here, at most about a batch. Returns whether there may be more; if not, the socket wakes the
    /// task.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        links: &mut Links,
        now: Instant,
    ) -> Result<bool, LinkEvent> {
        // First what is already here: records may come bundled with the KCM.
        let mut bytes = self.open_batch(links, now)?;
        while bytes < ENOUGH {
            let Poll::Ready(filled) = self.link.reader.poll_fill(cx) else { return Ok(false) };
            filled.map_err(|e| lost(&e))?;
            links.handle_bytes(self.id, now);
            bytes += self.open_batch(links, now)?;
        }
        Ok(true)
    }

    /// Returns how many bytes of plaintext there were.
    fn open_batch(&mut self, links: &mut Links, now: Instant) -> Result<usize, LinkEvent> {
        let mut bytes = 0;
        while bytes < BATCH {
            let Some(record) = self.link.reader.next_message().map_err(|e| lost(&e))? else { break };
            bytes += record.len();
            links.handle_record(self.id, Frames::new(record), now);
        }
        Ok(bytes)
    }

    pub(super) fn abort(self) {
        self.link.abort();
    }

    /// Writes what the link still has to say; then it can be closed.
    pub(super) async fn flush(mut self, links: &mut Links) -> Option<Link> {
        let said = std::future::poll_fn(|cx| self.poll_ready(cx, links)).await;
        said.is_ok().then_some(self.link)
    }
}

/// Also for a record of a wrong length: whoever is on the path can make one.
fn lost(error: &LinkError) -> LinkEvent {
    LinkEvent::Lost(error.to_string())
}
