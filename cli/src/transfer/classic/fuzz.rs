//! Any bytes for the readers of a classic transfer.

use std::collections::BTreeSet;

use super::message::{self, Message};

/// One message through the mailbox, or the record of the Receiver.
pub(in crate::transfer) fn message(bytes: &[u8]) {
    const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    if message::check_acknowledgement(bytes, HASH).is_ok() {
        assert_eq!(message::check_acknowledgement(&message::acknowledgement(HASH), HASH), Ok(()));
    }
    let Some(Message { error, transit, offer, answer }) = Message::parse(bytes) else { return };
    let alone = |message: &[u8]| Message::parse(message).expect("what we say can be read");
    if let Some(error) = error {
        let again = alone(&message::error(&error));
        assert_eq!(again, Message { error: Some(error), ..Message::default() });
    }
    if let Some(hints) = transit {
        let again = alone(&message::transit(&BTreeSet::new(), &hints));
        assert_eq!(again.transit, Some(hints));
    }
    if let Some(Ok(offer)) = offer {
        let again = alone(&offer.to_bytes());
        assert_eq!(again, Message { offer: Some(Ok(offer)), ..Message::default() });
    }
    if let Some(answer) = answer {
        assert!(!answer.said.contains('\n'), "it is shown in one line");
    }
}
