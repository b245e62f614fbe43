//! Any plaintext either decodes to a record that encodes to something that decodes to it again, or is an error.

#![no_main]

use bytes::Bytes;
use dilated_subchannel::record::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(record) = Record::decode(Bytes::copy_from_slice(data)) else { return };
    let encoded = record.to_vec();
    assert_eq!(encoded.len(), record.encoded_len());
    // Tolerance drops trailing bytes, and never adds any.
    assert!(data.starts_with(&encoded));
    assert_eq!(Record::decode(encoded.into()), Ok(record));
});
