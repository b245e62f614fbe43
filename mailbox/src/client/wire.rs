//! The connection as the machines see it: up or not, and what is to be sent on it.

use std::collections::VecDeque;

use crate::message::ClientMessage;

/// Messages for the present connection. They die with it; the machines repeat what is needed on the next.
#[derive(Default)]
pub(super) struct Wire {
    up: bool,
    queue: VecDeque<ClientMessage>,
}

impl Wire {
    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    pub(super) fn open(&mut self) {
        self.up = true;
        self.queue.clear();
    }

    pub(super) fn lose(&mut self) {
        self.up = false;
        self.queue.clear();
    }

    /// Queues a message if there is a connection; otherwise the caller's state brings it up again in time.
    pub(super) fn send(&mut self, message: ClientMessage) {
        if self.up {
            self.queue.push_back(message);
        }
    }

    pub(super) fn pop(&mut self) -> Option<ClientMessage> {
        self.queue.pop_front()
    }
}
