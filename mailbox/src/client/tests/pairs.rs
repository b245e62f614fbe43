//! Two clients and an honest server.

use std::time::{Duration, Instant};

use super::super::{Client, CodeStatus, ConnectionStatus, Event, KeyStatus};
use super::world::{World, config};
use crate::WormholeError;
use rand::SeedableRng;
use rand::rngs::StdRng;

fn epoch() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any instant will do, and there is no other way to one")]
    Instant::now()
}

fn met(code: &str) -> World {
    let mut w = World::pair();
    w.connect(0);
    w.connect(1);
    for n in 0..2 {
        w.clients[n].set_code(code).unwrap();
        w.run();
    }
    w
}

#[test]
fn the_whole_life_of_a_wormhole() {
    let mut w = World::pair();
    w.clients[0].allocate_code(2).unwrap();
    w.connect(0);
    assert_eq!(w.sent(0), ["bind", "allocate", "claim", "open", "add pake"]);
    let events = w.events(0);
    let [Event::Connected, Event::Welcome(welcome), Event::Code(code)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(welcome.motd.as_deref(), Some("hello"));
    assert_eq!(w.clients[0].status().code, CodeStatus::AllocatedCode);
    w.connect(1);
    w.clients[1].set_code(code.as_str()).unwrap();
    w.run();
    assert_eq!(w.sent(1), ["bind", "claim", "open", "add pake", "release", "add version"]);
    assert_eq!(w.sent(0), ["release", "add version"]);
    let (a, b) = (w.events(0), w.events(1));
    let [Event::UnverifiedKey(key), Event::Verifier(verifier), Event::Versions(_)] = &a[..] else {
        panic!("{a:?}")
    };
    assert_eq!(b[3..], a[..]);
    assert_eq!(key.verifier(), *verifier);
    assert_eq!(w.clients[1].key().unwrap(), key);
    w.clients[0].send_message(b"hello".to_vec()).unwrap();
    w.clients[1].send_message(b"one".to_vec()).unwrap();
    w.clients[1].send_message(b"two".to_vec()).unwrap();
    w.run();
    assert_eq!(w.messages(1), [b"hello"]);
    assert_eq!(w.messages(0), [b"one", b"two"]);
    for n in 0..2 {
        assert_eq!(w.clients[n].status().key, KeyStatus::ConfirmedKey);
        assert_eq!(w.clients[n].status().code, CodeStatus::ConsumedCode);
        w.clients[n].close();
        w.run();
        assert_eq!(w.closed(n), Some(Ok(())));
        assert_eq!(w.clients[n].status().connection, ConnectionStatus::Closed);
    }
    assert_eq!(w.server.moods, ["happy", "happy"]);
    assert!(w.server.nameplates.is_empty());
}

#[test]
fn messages_sent_before_anything_arrive_in_order() {
    let mut w = World::pair();
    for n in 0..2 {
        for text in ["a", "b", "c"] {
            w.clients[n].send_message(text.into()).unwrap();
        }
        w.clients[n].set_code("4-x").unwrap();
    }
    w.connect(0);
    w.connect(1);
    for n in 0..2 {
        assert_eq!(w.messages(n), [b"a", b"b", b"c"]);
        let sent = w.sent(n);
        let version = sent.iter().position(|s| s == "add version").unwrap();
        assert_eq!(sent[version + 1..].iter().filter(|s| s.starts_with("add")).count(), 3);
    }
}

#[test]
fn nothing_is_released_before_the_peers_proof() {
    // The flush of queued messages waits for the first good decryption.
    let mut w = World::pair();
    w.clients[0].send_message(b"secret".to_vec()).unwrap();
    w.clients[0].set_code("4-right").unwrap();
    w.clients[1].set_code("4-wrong").unwrap();
    w.connect(0);
    w.connect(1);
    assert!(!w.sent(0).contains(&"add 0".to_owned()));
}

#[test]
fn wrong_password_scares_both_once() {
    let mut w = World::pair();
    w.connect(0);
    w.connect(1);
    w.clients[0].set_code("4-right").unwrap();
    w.run();
    w.clients[1].set_code("4-wrong").unwrap();
    w.run();
    for n in 0..2 {
        assert_eq!(w.closed(n), Some(Err(WormholeError::WrongPassword)));
        assert!(w.events[n].iter().any(|e| matches!(e, Event::UnverifiedKey(_))));
        assert!(!w.events[n].iter().any(|e| matches!(e, Event::Verifier(_))));
        assert_eq!(w.clients[n].status().key, KeyStatus::AllegedSharedKey);
        assert!(w.clients[n].key().is_ok(), "the unverified key stays readable");
        w.clients[n].close();
        assert_eq!(w.clients[n].send_message(vec![]), Err(WormholeError::Closed));
        w.run();
        assert_eq!(w.events[n].iter().filter(|e| matches!(e, Event::Closed(_))).count(), 1);
    }
    assert_eq!(w.server.moods, ["scary", "scary"]);
}

#[test]
fn a_doubled_world_is_harmless() {
    let mut w = World::pair();
    w.copies = 3;
    for n in 0..2 {
        w.clients[n].set_code("4-x").unwrap();
        w.clients[n].send_message(b"a".to_vec()).unwrap();
        w.connect(n);
    }
    for round in 1..5 {
        w.lose(round % 2);
        w.connect(round % 2);
        w.clients[round % 2].send_message(vec![0]).unwrap();
        w.run();
    }
    for n in 0..2 {
        assert_eq!(w.messages(n).len(), 3);
        for kind in [|e: &Event| matches!(e, Event::Versions(_)), |e: &Event| matches!(e, Event::Verifier(_))]
        {
            assert_eq!(w.events[n].iter().filter(|e| kind(e)).count(), 1);
        }
    }
}

#[test]
fn a_lonely_sender_reconnects() {
    let mut w = World::pair();
    w.clients[0].set_code("4-x").unwrap();
    w.connect(0);
    w.sent(0);
    w.lose(0);
    assert_eq!(w.clients[0].status().connection, ConnectionStatus::Disconnected);
    assert_eq!(w.clients[0].status().last_failure.as_deref(), Some("cut"));
    w.clients[0].handle_connecting("ws://x/v1");
    w.clients[0].handle_connect_failed("ws://x/v1", "refused");
    w.clients[0].handle_connecting("ws://x/v1");
    assert_eq!(w.clients[0].status().connection, ConnectionStatus::Connecting { url: "ws://x/v1".into() });
    assert_eq!(w.clients[0].status().last_failure.as_deref(), Some("refused"));
    w.connect(0);
    assert_eq!(w.clients[0].status().last_failure, None);
    assert_eq!(w.sent(0), ["bind", "open", "ping"]);
    w.clients[1].set_code("4-x").unwrap();
    w.connect(1);
    assert!(w.events(0).iter().any(|e| matches!(e, Event::Versions(_))));
}

#[test]
fn a_lonely_sender_learns_that_the_server_forgot_its_code() {
    let mut w = World::pair();
    w.clients[0].set_code("4-x").unwrap();
    w.connect(0);
    w.lose(0);
    w.server.nameplates.clear();
    w.server.mailboxes.clear();
    w.connect(0);
    assert_eq!(w.closed(0), Some(Err(WormholeError::Forgotten)));
    assert_eq!(w.server.moods, ["errory"]);
}

#[test]
fn messages_survive_outages_and_a_server_that_forgot() {
    let mut w = met("4-x");
    w.lose(1);
    // The server has this one, and forgets it before the peer is back.
    w.clients[0].send_message(b"a".to_vec()).unwrap();
    w.run();
    w.lose(0);
    w.server.mailboxes.clear();
    w.clients[0].send_message(b"b".to_vec()).unwrap();
    w.clients[1].send_message(b"c".to_vec()).unwrap();
    w.sent(0);
    w.connect(0);
    w.connect(1);
    assert_eq!(w.sent(0), ["bind", "open", "ping", "add 1", "add pake", "add version", "add 0"]);
    assert_eq!(w.messages(0), [b"c"]);
    assert_eq!(w.messages(1), [b"a", b"b"]);
    // Back once more, there is nothing to add.
    w.lose(0);
    w.connect(0);
    assert_eq!(w.sent(0), ["bind", "open", "ping"]);
}

#[test]
fn closing_is_repeated_on_the_next_connection() {
    let mut w = met("4-x");
    w.lose(0);
    w.sent(0);
    w.clients[0].close();
    w.run();
    assert_eq!(w.closed(0), None);
    w.connect(0);
    assert_eq!(w.sent(0), ["bind", "close happy"]);
    assert_eq!(w.closed(0), Some(Ok(())));
}

#[test]
fn closing_waits_only_so_long() {
    let mut w = met("4-x");
    w.lose(0);
    let start = epoch();
    assert_eq!(w.clients[0].poll_timeout(start), None);
    w.clients[0].close();
    let deadline = w.clients[0].poll_timeout(start).unwrap();
    assert_eq!(deadline, start + Duration::from_secs(5));
    assert_eq!(w.clients[0].poll_timeout(start + Duration::from_secs(1)), Some(deadline));
    w.clients[0].handle_timeout(deadline - Duration::from_millis(1));
    w.run();
    assert_eq!(w.closed(0), None);
    w.clients[0].handle_timeout(deadline);
    w.run();
    assert_eq!(w.closed(0), Some(Ok(())));
    assert_eq!(w.clients[0].poll_timeout(deadline), None);
}

#[test]
fn closing_early_is_lonely() {
    for connected in [false, true] {
        let mut w = World::pair();
        if connected {
            w.connect(0);
        }
        w.clients[0].close();
        w.clients[0].close();
        w.run();
        assert_eq!(w.closed(0), Some(Err(WormholeError::Lonely)));
        assert_eq!(w.clients[0].set_code("4-x"), Err(WormholeError::Closed));
        assert_eq!(w.clients[0].key().unwrap_err(), WormholeError::NoKey);
    }
    let mut w = World::pair();
    w.connect(0);
    w.clients[0].set_code("4-x").unwrap();
    w.run();
    w.clients[0].close();
    w.run();
    assert_eq!(w.closed(0), Some(Err(WormholeError::Lonely)));
    assert_eq!(w.server.moods, ["lonely"]);
}

#[test]
fn a_protocol_above_may_end_it() {
    let mut w = met("4-x");
    w.clients[0].fail(WormholeError::PeerProtocol { reason: "it spoke nonsense".into() });
    w.clients[0].close();
    w.run();
    assert!(matches!(w.closed(0), Some(Err(WormholeError::PeerProtocol { .. }))));
    assert_eq!(w.server.moods, ["errory"]);
}

#[test]
fn one_code_only_and_bad_codes_may_be_retried() {
    let mut client = Client::new(config(), StdRng::seed_from_u64(1));
    assert!(matches!(client.set_code("4 x"), Err(WormholeError::KeyFormat(_))));
    assert!(matches!(client.set_code("x-4"), Err(WormholeError::KeyFormat(_))));
    assert!(matches!(client.set_code(&"4".repeat(41)), Err(WormholeError::KeyFormat(_))));
    assert!(matches!(client.allocate_code(1000), Err(WormholeError::Limit { .. })));
    client.set_code("4-x").unwrap();
    assert_eq!(client.set_code("5-x"), Err(WormholeError::OnlyOneCode));
    assert_eq!(client.allocate_code(2), Err(WormholeError::OnlyOneCode));
    assert_eq!(client.input_code(), Err(WormholeError::OnlyOneCode));
    assert!(matches!(client.set_code("5 x"), Err(WormholeError::KeyFormat(_))));
}

#[test]
fn typed_code_meets_a_peer_who_was_there_first() {
    let mut w = World::pair();
    w.clients[0].set_code("4-armistice-baboon").unwrap();
    w.connect(0);
    w.clients[1].input_code().unwrap();
    w.connect(1);
    assert_eq!(w.sent(1), ["bind", "list"]);
    assert_eq!(w.clients[1].input_complete_line("").unwrap(), ["4-"]);
    assert_eq!(w.clients[1].input_complete_line("4-ar").unwrap(), [""; 0]);
    w.run();
    // The peer's key-agreement message is here before the words are.
    assert!(w.clients[1].has_wordlist());
    assert_eq!(w.clients[1].input_complete_line("4-ar").unwrap(), ["4-armistice-", "4-article-"]);
    assert!(w.clients[1].input_complete_line("5-ar").is_err());
    assert!(w.clients[1].input_complete_line("4").is_err());
    assert!(w.clients[1].input_finish_line("4").is_err());
    assert!(w.clients[1].input_finish_line("4-a b").is_err());
    w.clients[1].input_finish_line("4-armistice-baboon").unwrap();
    w.run();
    for n in 0..2 {
        assert!(w.events[n].iter().any(|e| matches!(e, Event::Versions(_))));
    }
}

#[test]
fn dilation_only_with_those_who_can() {
    let mut able = config();
    able.can_dilate = vec!["dilated-1".into(), "ged".into()];
    let mut other = config();
    other.can_dilate = vec!["ged".into()];
    let mut w = World::new(vec![able.clone(), other]);
    assert_eq!(w.clients[0].send_dilate(vec![]), Err(WormholeError::CannotDilate));
    for n in 0..2 {
        w.clients[n].set_code("4-x").unwrap();
        w.connect(n);
    }
    w.clients[0].send_dilate(b"please".to_vec()).unwrap();
    w.run();
    assert!(w.events(1).contains(&Event::Dilate(b"please".to_vec())));
    let adds: Vec<_> = w.sent(0).into_iter().filter(|s| s.starts_with("add")).collect();
    assert_eq!(adds, ["add pake", "add version", "add dilate-0"]);

    let mut w = World::new(vec![able, config()]);
    for n in 0..2 {
        w.clients[n].set_code("4-x").unwrap();
        w.connect(n);
    }
    assert!(w.clients[0].peer_versions().unwrap().can_dilate.is_empty());
    assert_eq!(w.clients[0].send_dilate(vec![]), Err(WormholeError::CannotDilate));
}

#[test]
fn versions_travel_both_ways() {
    let (mut a, mut b) = (config(), config());
    a.app_versions = serde_json::json!({"from": "a"});
    b.app_versions = serde_json::json!({"from": "b"});
    let mut w = World::new(vec![a, b]);
    for n in 0..2 {
        w.clients[n].set_code("4-x").unwrap();
        w.connect(n);
    }
    assert_eq!(w.clients[0].peer_versions().unwrap().app_versions["from"], "b");
    assert_eq!(w.clients[1].peer_versions().unwrap().app_versions["from"], "a");
}

#[test]
fn the_third_is_told_crowded() {
    let mut w = World::new(vec![config(), config(), config()]);
    // The nameplate is kept busy by two who never release it.
    w.server.nameplates.insert("4".into(), ("m".into(), vec!["x".into(), "y".into()]));
    w.clients[2].set_code("4-x").unwrap();
    w.connect(2);
    assert_eq!(w.closed(2), Some(Err(WormholeError::Crowded)));
}

#[test]
fn first_connection_failure_is_fatal_and_later_ones_are_not() {
    let mut client = Client::new(config(), StdRng::seed_from_u64(1));
    client.handle_connecting("ws://x/v1");
    client.handle_connect_failed("ws://x/v1", "refused");
    let events: Vec<_> = std::iter::from_fn(|| client.poll_event()).collect();
    let [Event::Connecting { .. }, Event::Closed(Err(error))] = &events[..] else { panic!("{events:?}") };
    assert!(error.to_string().contains("ws://x/v1: refused"), "{error}");

    let mut w = World::pair();
    w.connect(0);
    w.lose(0);
    w.clients[0].handle_connect_failed("ws://x/v1", "refused");
    w.run();
    assert_eq!(w.closed(0), None);

    let mut patient = config();
    patient.retry_first = true;
    let mut client = Client::new(patient, StdRng::seed_from_u64(1));
    client.handle_connect_failed("ws://x/v1", "refused");
    assert!(!client.is_closed());
}

/// Cuts either connection at random moments, and has the server forget everything when nobody is there; every message
/// arrives once and in order. The seed is printed.
#[test]
fn random_outages_lose_nothing() {
    use rand::RngExt;
    let mut forgotten = 0;
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut w = World::pair();
        w.copies = rng.random_range(1..3);
        let (mut up, mut count) = ([false; 2], [0_u8; 2]);
        w.clients.iter_mut().for_each(|client| client.set_code("4-x").unwrap());
        for _ in 0..60 {
            let n = usize::from(rng.random_bool(0.5));
            match rng.random_range(0..3) {
                0 if up[n] => w.lose(n),
                0 => w.connect(n),
                1 => {
                    w.clients[n].send_message(vec![count[n]]).unwrap();
                    count[n] += 1;
                    if rng.random_bool(0.5) {
                        w.run();
                    }
                    continue;
                }
                // Before both know the mailbox, forgetting is the end.
                _ if up == [false; 2] && w.clients.iter().all(|client| client.peer_versions().is_some()) => {
                    w.server.mailboxes.clear();
                    forgotten += 1;
                    continue;
                }
                _ => continue,
            }
            up[n] = !up[n];
        }
        (0..2).filter(|n| !up[*n]).for_each(|n| w.connect(n));
        w.run();
        for n in 0..2 {
            let expected: Vec<_> = (0..count[1 - n]).map(|byte| vec![byte]).collect();
            assert_eq!(w.messages(n), expected, "seed {seed}");
        }
    }
    assert!(forgotten > 100, "the servers forgot {forgotten} times");
}
