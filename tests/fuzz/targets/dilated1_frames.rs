//! A peer that knows the key fills a record of `dilated-1` with anything: what can be read means the same when it is
//! written again, and what cannot be read ends the reading.

#![no_main]

use bytes::Bytes;
use dilated_subchannel::frame::{Frame, Frames, MAX_REASON, Violation};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut reader = Frames::new(Bytes::copy_from_slice(data));
    let (mut frames, mut written) = (Vec::new(), Vec::new());
    for frame in reader.by_ref() {
        match frame {
            Ok(frame) => {
                let before = written.len();
                frame.encode(&mut written);
                assert_eq!(written.len() - before, frame.encoded_len(), "{frame:?}");
                if let Frame::Goodbye { reason, .. } = &frame {
                    assert!(reason.len() <= MAX_REASON);
                }
                frames.push(frame);
            }
            Err(violation) => {
                let codes = [Violation::FRAME, Violation::NAME, Violation::STATE];
                assert!(codes.contains(&violation.code), "{violation:?}");
                break;
            }
        }
    }
    assert!(reader.next().is_none(), "nothing follows");
    // The forms that are written are the shortest.
    assert!(written.len() <= data.len());
    let again: Result<Vec<Frame>, Violation> = Frames::new(Bytes::from(written)).collect();
    assert_eq!(again.as_deref(), Ok(&frames[..]));
});
