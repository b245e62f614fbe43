//! Messages through the mailbox that the application has not taken yet.

use std::collections::VecDeque;

use dilated_mailbox::WormholeError;

/// Messages that may wait, in number and bytes. A peer that sends more, to a program that does not read, would
/// otherwise fill its memory; bulk data belongs into subchannels, which have flow control.
const MAX_MESSAGES: usize = 4096;
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The queue, in the order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Inbox {
    pub(crate) fn push(&mut self, message: Vec<u8>) -> Result<(), WormholeError> {
        let full = |what, limit| Err(WormholeError::Limit { what, limit: limit as u64 });
        if self.messages.len() >= MAX_MESSAGES {
            return full("messages that wait for next_message()", MAX_MESSAGES);
        }
        if self.bytes + message.len() > MAX_BYTES {
            return full("bytes of messages that wait for next_message()", MAX_BYTES);
        }
        self.bytes += message.len();
        self.messages.push_back(message);
        Ok(())
    }

    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.len();
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_in_number_and_bytes() {
        let mut inbox = Inbox::default();
        assert!((0..MAX_MESSAGES).all(|_| inbox.push(Vec::new()).is_ok()));
        assert!(inbox.push(Vec::new()).is_err());
        assert_eq!(inbox.pop(), Some(Vec::new()));
        assert!(inbox.push(vec![1; MAX_BYTES]).is_ok());
        assert!((1..MAX_MESSAGES).all(|_| inbox.pop() == Some(Vec::new())));
        assert!(inbox.push(vec![2]).is_err(), "the bytes are used up");
        assert_eq!(inbox.pop().map(|message| message.len()), Some(MAX_BYTES));
        assert!(inbox.push(vec![2]).is_ok());
        assert_eq!((inbox.pop(), inbox.pop()), (Some(vec![2]), None));
    }
}
