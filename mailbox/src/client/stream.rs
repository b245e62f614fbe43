//! Brings the messages of a numbered stream into order.

use std::collections::BTreeMap;

use super::ClientLimits;
use crate::error::WormholeError;

/// Messages behind a gap. Each number arrives at most once: the mailbox removes duplicates.
#[derive(Default)]
pub(super) struct Stream {
    next: u64,
    waiting: BTreeMap<u64, Vec<u8>>,
    bytes: usize,
}

impl Stream {
    pub(super) fn insert(
        &mut self,
        number: u64,
        message: Vec<u8>,
        limits: &ClientLimits,
    ) -> Result<(), WormholeError> {
        self.bytes += message.len();
        self.waiting.insert(number, message);
        if self.waiting.contains_key(&self.next) {
            return Ok(());
        }
        self.check(limits)
    }

    /// Fails if too much waits. To be called also when something else than a gap holds messages back.
    pub(super) fn check(&self, limits: &ClientLimits) -> Result<(), WormholeError> {
        if self.waiting.len() > limits.queued_messages {
            return Err(WormholeError::limit("messages that arrived out of order", limits.queued_messages));
        }
        if self.bytes > limits.queued_bytes {
            return Err(WormholeError::limit("bytes that arrived out of order", limits.queued_bytes));
        }
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        let message = self.waiting.remove(&self.next)?;
        self.bytes -= message.len();
        self.next += 1;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_bounds() {
        let limits = ClientLimits { queued_messages: 2, queued_bytes: 10, ..ClientLimits::default() };
        let mut stream = Stream::default();
        stream.insert(2, vec![2], &limits).unwrap();
        stream.insert(1, vec![1], &limits).unwrap();
        assert_eq!(stream.pop(), None);
        stream.insert(0, vec![0], &limits).unwrap();
        assert_eq!(std::iter::from_fn(|| stream.pop()).collect::<Vec<_>>(), [[0], [1], [2]]);
        assert_eq!(stream.bytes, 0);
        assert!(stream.insert(9, vec![0; 11], &limits).is_err());
    }
}
