//! A peer of the classic file transfer that says anything through the mailbox, and as the last record.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| dilated_cli::fuzz::classic_messages(data));
