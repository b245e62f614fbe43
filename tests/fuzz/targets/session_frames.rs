//! The peer of a session that says anything on the subchannel of a file, in both directions.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| dilated_cli::fuzz::session_frames(data));
