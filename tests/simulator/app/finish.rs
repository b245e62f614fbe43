//! The end of an application's wormhole.

use std::task::Poll;

use dilated_subchannel::mux::{Mux, ReadError};

use super::{App, Flow};
use crate::book::{End, Mode};

impl App {
    /// Writes no more; either reads on, or drops all that it has.
    pub(crate) fn close(&mut self, drops: bool, mux: &mut Mux) {
        self.closed = true;
        if !drops {
            return;
        }
        (self.over, self.dropped) = (true, true);
        for (key, mut flow) in std::mem::take(&mut self.flows) {
            self.drop_flow(&mut flow);
            mux.release(key);
        }
        for key in std::mem::take(&mut self.refused).into_keys() {
            mux.release(key);
        }
    }

    /// The wormhole is over: what was received can still be read.
    pub(crate) fn end(&mut self, mux: &mut Mux) {
        if self.over {
            return;
        }
        self.over = true;
        while let Some(key) = mux.accept(&self.name) {
            let (id, _) = mux.describe(key).expect("just made");
            self.flows.insert(key, Flow::new(id, 0, Mode::Bytes));
        }
        for (key, mut flow) in std::mem::take(&mut self.flows) {
            while flow.reading {
                let whole = flow.cursor.mode() == Mode::Messages;
                let read = if whole { mux.recv(key) } else { mux.read_chunk(key) };
                match read {
                    Poll::Ready(Err(ReadError::Ended(_))) => break,
                    Poll::Ready(read) => self.take(&mut flow, read, whole),
                    Poll::Pending => panic!("subchannel {} waits after the end", flow.id),
                }
            }
            self.flows.insert(key, flow);
        }
    }

    /// Whether everything has come of what the other side had written, and its ends.
    pub(crate) fn check_delivered(&self) {
        if self.dropped {
            return;
        }
        let book = self.book.borrow();
        for (id, direction) in book.directions(1 - self.number) {
            if direction.stop.is_some() || matches!(direction.end, Some(End::Reset(_))) {
                continue;
            }
            let flow = self.flows.values().find(|flow| flow.id == id);
            let Some(flow) = flow else {
                // Taken and read to its end before; or the control channel, which can be taken only before the end.
                let known = self.finished.contains(&id.0) || id.0 == 0;
                assert!(known || direction.bytes == 0, "subchannel {id} was never accepted");
                continue;
            };
            assert_eq!(flow.cursor.bytes(), direction.bytes, "bytes of subchannel {id}");
            let ended = direction.end == Some(End::Fin);
            assert!(!ended || !flow.reading, "the end of subchannel {id} has not come");
        }
    }
}
