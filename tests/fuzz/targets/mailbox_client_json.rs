//! A mailbox server whose clients send anything. The first byte of a line of the input says which client sends
//! the rest of it; lines that begin with `!` are what else happens.

#![no_main]

use std::net::Ipv4Addr;

use dilated_mailbox::server::{ConnectionId, Core, MemoryStore, Output, PeerAddress, ServerConfig};
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;

const CLIENTS: u64 = 4;

fuzz_target!(|data: &[u8]| {
    let mut now = 1000.0;
    let mut rng = StdRng::seed_from_u64(1);
    let mut core =
        Core::new(MemoryStore::new(), ServerConfig::default(), now).expect("memory is always readable");
    let peer = || PeerAddress::new(Ipv4Addr::LOCALHOST.into(), Some(1));
    // A closed connection comes back under a new number, as a real client would.
    let mut ids: Vec<u64> = (0..CLIENTS).collect();
    let mut fresh = CLIENTS;
    for id in &ids {
        core.handle_connect(ConnectionId(*id), peer(), now);
    }
    for line in data.split(|byte| *byte == b'\n') {
        let Some((first, rest)) = line.split_first() else { continue };
        now += 0.01;
        if *first == b'!' {
            match rest.first() {
                Some(b't') => now += 30.0,
                Some(b'p') => now += 3600.0,
                Some(index) => core.handle_disconnect(ConnectionId(ids[usize::from(index % 4)])),
                None => {}
            }
            core.handle_tick(now);
        } else {
            core.handle_message(ConnectionId(ids[usize::from(first % 4)]), rest, now, &mut rng);
        }
        while let Some(output) = core.poll_output() {
            match output {
                Output::Send { text, .. } => {
                    let message: serde_json::Value = serde_json::from_str(&text).expect("we send JSON");
                    assert!(message["type"].is_string() && message["server_tx"].is_f64(), "{text}");
                }
                Output::Close { to, .. } => {
                    let Some(slot) = ids.iter_mut().find(|id| **id == to.0) else { continue };
                    *slot = fresh;
                    fresh += 1;
                    core.handle_connect(ConnectionId(*slot), peer(), now);
                }
            }
        }
    }
});
