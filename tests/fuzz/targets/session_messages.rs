//! A peer that says anything on the control channel of a session of `dilated send` and `dilated receive`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| dilated_cli::fuzz::session_messages(data));
