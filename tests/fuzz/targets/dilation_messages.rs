//! A peer that says anything in its dilation messages: lines of the input are messages, and lines that begin
//! with `!` are what else happens to the manager.

#![no_main]

use std::time::{Duration, Instant};

use dilated::protocol::{DilationMessage, DilationSide, Manager, Parameters, Terms};
use dilated::{Dialect, RolePreference};
use dilated_transit::HintLimits;
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;

fuzz_target!(|data: &[u8]| {
    let limits = HintLimits::default();
    let mut now = Instant::now();
    let mut rng = StdRng::seed_from_u64(1);
    let terms = Terms { dialects: Dialect::ALL.to_vec(), parameters: Parameters::default() };
    let mut manager = Manager::new(limits, Default::default());
    for line in data.split(|byte| *byte == b'\n') {
        now += Duration::from_millis(10);
        match line {
            b"!dilate" => {
                manager.dilate(DilationSide::random(RolePreference::Leader, &mut rng), terms.clone(), now)
            }
            b"!follow" => {
                manager.dilate(DilationSide::random(RolePreference::Follower, &mut rng), terms.clone(), now)
            }
            b"!versions" => manager.handle_versions(&["ged".to_owned()], now),
            b"!own versions" => manager.handle_versions(&["dilated-1".to_owned()], now),
            b"!candidate" => {
                manager.handle_candidate(manager.generation(), false, now);
            }
            b"!next candidate" => {
                manager.handle_candidate(manager.generation().next(), true, now);
            }
            b"!old" => manager.handle_versions(&[], now),
            b"!selected" => {
                manager.handle_selected(now);
            }
            b"!heard" => manager.handle_heard(),
            b"!lost" => manager.handle_link_lost(now, false),
            b"!lost later" => manager.handle_link_lost(now, true),
            b"!hints" => manager.handle_local_hints(Vec::new()),
            b"!moved" => manager.handle_network_change(now),
            b"!mailbox" => manager.handle_mailbox(true),
            b"!no mailbox" => manager.handle_mailbox(false),
            b"!closing" => manager.say_closing(),
            b"!late" => {
                if let Some(at) = manager.poll_timeout() {
                    now = now.max(at);
                }
                manager.handle_timeout(now);
            }
            b"!stop" => manager.stop(),
            message => {
                if let Some(parsed) = DilationMessage::parse(message, &limits) {
                    let again = DilationMessage::parse(&parsed.encode(), &limits);
                    assert_eq!(again, Some(parsed));
                }
                manager.handle_message(message.to_vec(), now);
            }
        }
        let mut actions = 0;
        while manager.poll_action().is_some() {
            actions += 1;
            assert!(actions < 1000, "actions without end");
        }
    }
});
