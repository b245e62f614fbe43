//! Servers and peers that break the rules.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{ClientLimits, Event};
use super::world::{World, config};
use crate::error::InputError;
use crate::message::Mood;
use crate::{Key, WormholeError};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// A client in an open mailbox, with nobody else there.
fn waiting() -> World {
    waiting_with(ClientLimits::default())
}

fn waiting_with(limits: ClientLimits) -> World {
    let mut config = config();
    config.limits = limits;
    config.can_dilate = vec!["ged".into()];
    let mut w = World::new(vec![config]);
    w.clients[0].set_code("4-x").unwrap();
    w.connect(0);
    w
}

fn message(phase: &str, body: &[u8]) -> Value {
    let body = data_encoding::HEXLOWER.encode(body);
    json!({"type": "message", "side": "peer", "phase": phase, "body": body})
}

/// Plays an honest peer up to the key agreement, and gives the key.
fn agree(w: &mut World) -> Key {
    use crate::pake::Pake;
    let pake = Pake::start(&"4-x".parse().unwrap(), "example.org/test", &mut StdRng::seed_from_u64(9));
    let point = data_encoding::HEXLOWER.encode(pake.message());
    w.tell(0, message("pake", json!({"pake_v1": point}).to_string().as_bytes()));
    w.run();
    let (_, messages) = w.server.mailboxes.values().next().unwrap();
    let body = data_encoding::HEXLOWER.decode(messages[0]["body"].as_str().unwrap().as_bytes()).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let theirs = data_encoding::HEXLOWER.decode(body["pake_v1"].as_str().unwrap().as_bytes()).unwrap();
    pake.finish(&theirs).unwrap()
}

fn sealed(key: &Key, phase: &str, plaintext: &[u8]) -> Value {
    message(phase, &key.phase_key("peer", phase).seal(plaintext, &mut StdRng::seed_from_u64(3)))
}

fn say(w: &mut World, message: Value) {
    w.tell(0, message);
    w.run();
}

fn died(w: &World) -> WormholeError {
    w.closed(0).expect("the wormhole ended").unwrap_err()
}

#[test]
fn messages_before_the_key_wait_for_it() {
    // A server may reorder; the key is known only at the end.
    let mut honest = waiting();
    let key = agree(&mut honest);
    let mut w = waiting();
    for n in (0..3).rev() {
        say(&mut w, sealed(&key, &n.to_string(), &[n]));
    }
    say(&mut w, sealed(&key, "version", b"{}"));
    assert!(!w.events[0].iter().any(|e| matches!(e, Event::Verifier(_))));
    assert_eq!(agree(&mut w), key, "the same seeds agree on the same key");
    assert_eq!(w.messages(0), [[0], [1], [2]]);
    assert!(w.events[0].iter().any(|e| matches!(e, Event::Versions(_))));
}

#[test]
fn bad_key_agreement_is_scary() {
    let bad = |body: &[u8]| {
        let mut w = waiting();
        say(&mut w, message("pake", body));
        assert_eq!(w.server.moods, ["scary"]);
        died(&w)
    };
    assert_eq!(bad(b"{}"), WormholeError::WrongPassword);
    assert!(matches!(bad(b"nonsense"), WormholeError::BadPake { .. }));
    assert!(matches!(bad(br#"{"pake_v1":"53"}"#), WormholeError::BadPake { .. }));

    let mut w = waiting();
    let (_, messages) = w.server.mailboxes.values().next().unwrap();
    let mut reflected = messages[0].clone();
    reflected["side"] = "peer".into();
    say(&mut w, reflected);
    assert_eq!(died(&w), WormholeError::Reflection);
}

#[test]
fn a_late_bad_message_is_scary_too() {
    let mut w = waiting();
    let key = agree(&mut w);
    say(&mut w, sealed(&key, "version", b"{}"));
    say(&mut w, sealed(&key, "0", b"fine"));
    say(&mut w, message("1", &[0; 60]));
    assert_eq!(w.messages(0), [b"fine"]);
    assert_eq!(died(&w), WormholeError::WrongPassword);
    assert_eq!(w.server.moods, ["scary"]);
}

#[test]
fn dilation_waits_for_versions() {
    let mut w = waiting();
    let key = agree(&mut w);
    say(&mut w, sealed(&key, "dilate-1", b"b"));
    say(&mut w, sealed(&key, "dilate-0", b"a"));
    assert!(!w.events[0].iter().any(|e| matches!(e, Event::Dilate(_))));
    say(&mut w, sealed(&key, "version", br#"{"can-dilate":["x",1,"ged"]}"#));
    let events = w.events(0);
    let [.., Event::Versions(versions), Event::Dilate(a), Event::Dilate(b)] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((versions.can_dilate.len(), &a[..], &b[..]), (2, &b"a"[..], &b"b"[..]));
}

#[test]
fn unknown_things_are_ignored() {
    let mut w = waiting();
    let key = agree(&mut w);
    say(&mut w, json!({"type": "from-the-future", "x": 1}));
    say(&mut w, sealed(&key, "unknown", b"?"));
    say(&mut w, sealed(&key, "00", b"?"));
    for unasked in ["released", "closed"] {
        say(&mut w, json!({"type": unasked}));
    }
    say(&mut w, json!({"type": "claimed", "mailbox": "another"}));
    say(&mut w, json!({"type": "allocated", "nameplate": "9"}));
    say(&mut w, json!({"type": "nameplates", "nameplates": []}));
    say(&mut w, sealed(&key, "version", b"{}"));
    assert_eq!(w.closed(0), None);
    assert!(w.events[0].iter().any(|e| matches!(e, Event::Versions(_))));
    assert!(w.messages(0).is_empty());
}

#[test]
fn server_errors_end_it() {
    let mut w = waiting();
    say(&mut w, json!({"type": "error", "error": "bad\u{1b}", "orig": {}}));
    assert_eq!(died(&w), WormholeError::Server { message: "bad\u{fffd}".into() });
    assert_eq!(w.server.moods, ["errory"]);
    say(&mut w, json!({"type": "error", "error": "again", "orig": {}}));

    let mut w = waiting();
    say(&mut w, json!({"type": "welcome", "welcome": {"error": "go away"}}));
    assert_eq!(died(&w), WormholeError::Welcome { message: "go away".into() });
    assert_eq!(w.server.moods, ["unwelcome"]);

    let mut w = waiting();
    w.clients[0].handle_text("not JSON");
    w.run();
    assert!(matches!(died(&w), WormholeError::ServerProtocol { .. }));
    assert_eq!(died(&w).mood(), Mood::Errory);

    let mut w = waiting();
    let key = agree(&mut w);
    say(&mut w, sealed(&key, "version", b"[]"));
    assert!(matches!(died(&w), WormholeError::PeerProtocol { .. }));
}

#[test]
fn errors_while_closing_change_nothing() {
    let mut w = waiting();
    w.lose(0);
    w.clients[0].close();
    w.clients[0].handle_open();
    say(&mut w, json!({"type": "error", "error": "late", "orig": {}}));
    assert!(matches!(w.closed(0), None | Some(Err(WormholeError::Lonely))));
}

#[test]
fn one_welcome_for_each_connection() {
    let mut w = waiting();
    for _ in 0..5 {
        say(&mut w, json!({"type": "welcome", "welcome": {}}));
    }
    assert_eq!(w.events(0).iter().filter(|e| matches!(e, Event::Welcome(_))).count(), 1);
}

#[test]
fn floods_are_bounded() {
    let limits =
        ClientLimits { queued_messages: 10, queued_bytes: 1000, other_phases: 5, ..Default::default() };
    let limit = |w: &World| matches!(died(w), WormholeError::Limit { .. });

    let mut w = waiting_with(limits);
    for n in 0..20 {
        say(&mut w, message(&n.to_string(), b"early"));
    }
    assert!(limit(&w));
    let mut w = waiting_with(limits);
    say(&mut w, message("0", &[0; 1001]));
    assert!(limit(&w));

    for stream in ["", "dilate-"] {
        let mut w = waiting_with(limits);
        let key = agree(&mut w);
        for n in 1..20 {
            say(&mut w, sealed(&key, &format!("{stream}{n}"), b"gap"));
        }
        assert!(limit(&w));
    }
    // Dilation without versions, in order.
    let mut w = waiting_with(limits);
    let key = agree(&mut w);
    for n in 0..20 {
        say(&mut w, sealed(&key, &format!("dilate-{n}"), b"x"));
    }
    assert!(limit(&w));

    let mut w = waiting_with(limits);
    let key = agree(&mut w);
    for n in 0..10 {
        say(&mut w, sealed(&key, &format!("x{n}"), b""));
    }
    assert!(limit(&w));

    // An application that never asks.
    let mut w = waiting_with(limits);
    let key = agree(&mut w);
    for n in 0..20 {
        w.tell(0, sealed(&key, &n.to_string(), b"x"));
    }
    w.run();
    assert!(limit(&w));
    assert_eq!(w.messages(0).len(), 11, "what came before is delivered");
}

#[test]
fn sending_too_much_is_refused_and_survived() {
    let limits = ClientLimits { unsent_bytes: 1000, ..Default::default() };
    let mut w = waiting_with(limits);
    w.clients[0].send_message(vec![0; 300]).unwrap();
    assert!(matches!(w.clients[0].send_message(vec![0; 400]), Err(WormholeError::Limit { .. })));
    let key = agree(&mut w);
    say(&mut w, sealed(&key, "version", b"{}"));
    w.clients[0].send_message(vec![0; 400]).unwrap();
    w.run();
    assert_eq!(w.sent(0).iter().filter(|s| *s == "add 0" || *s == "add 1").count(), 2);
}

#[test]
fn helper_refuses_when_closed() {
    let mut w = World::pair();
    w.clients[0].input_code().unwrap();
    w.connect(0);
    assert_eq!(w.clients[0].input_word_completions(""), Err(InputError::MustChooseNameplateFirst));
    w.clients[0].close();
    w.run();
    assert_eq!(w.clients[0].input_choose_nameplate("4"), Err(InputError::Closed));
    assert_eq!(w.clients[0].input_choose_words("4"), Err(InputError::Closed));
    assert_eq!(w.clients[0].input_refresh_nameplates(), Err(InputError::Closed));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the server says, in whatever order, the client neither panics nor hangs.
    #[test]
    fn any_conversation_is_survived(steps in prop::collection::vec((0..14_u8, ".{0,8}", 0..4_u8), 0..40)) {
        let mut w = waiting();
        for (kind, text, n) in steps {
            let phase = ["pake", "version", "0", "dilate-0"][usize::from(n)];
            match kind {
                0 => w.lose(0),
                1 => w.connect(0),
                2 => say(&mut w, json!({"type": "claimed", "mailbox": text})),
                3 => say(&mut w, json!({"type": "released"})),
                4 => say(&mut w, json!({"type": "closed"})),
                5 => say(&mut w, json!({"type": "nameplates", "nameplates": [{"id": text}]})),
                6 => say(&mut w, json!({"type": "allocated", "nameplate": n.to_string()})),
                7 => say(&mut w, message(phase, text.as_bytes())),
                8 => say(&mut w, json!({"type": "welcome", "welcome": {"motd": text}})),
                9 => { let _ = w.clients[0].send_message(text.into_bytes()); }
                10 => { let _ = w.clients[0].send_dilate(text.into_bytes()); }
                11 => w.clients[0].handle_text(&text),
                12 => w.clients[0].close(),
                _ => say(&mut w, json!({"type": text})),
            }
            w.run();
        }
        w.clients[0].close();
        w.clients[0].abandon();
        w.run();
        prop_assert_eq!(w.events[0].iter().filter(|e| matches!(e, Event::Closed(_))).count(), 1);
    }
}
