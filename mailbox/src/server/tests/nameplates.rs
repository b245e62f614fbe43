//! list, allocate, claim, release.

use std::collections::BTreeSet;

use super::*;

#[test]
fn allocation_takes_short_numbers_first() {
    let mut server = Harness::new(ServerConfig::default());
    let mut seen = BTreeSet::new();
    let allocate = |server: &mut Harness, seen: &mut BTreeSet<u32>| {
        let id = server.side("side1");
        let answer = server.ask(id, json!({ "type": "allocate" }));
        assert_eq!(answer[0]["type"], "allocated", "{answer:?}");
        let name = answer[0]["nameplate"].as_str().unwrap();
        assert_eq!(server.claims(name), [("side1".into(), true)], "allocating claims");
        assert!(seen.insert(name.parse().unwrap()), "twice: {name}");
    };
    for (count, last) in [(9, 9), (90, 99), (900, 999)] {
        (0..count).for_each(|_| allocate(&mut server, &mut seen));
        assert_eq!(seen, (1..=last).collect());
    }
    (0..20).for_each(|_| allocate(&mut server, &mut seen));
    assert!(seen.range(1000..).all(|number| *number < 1_000_000));
    assert_eq!(seen.len(), 1019);
    server.check();
}

#[test]
fn allocation_is_random() {
    let pick = |seed| {
        let mut server = Harness::new(ServerConfig::default());
        server.rng = StdRng::seed_from_u64(seed);
        let id = server.side("s");
        server.ask(id, json!({ "type": "allocate" }))[0]["nameplate"].as_str().unwrap().to_owned()
    };
    let picks: BTreeSet<String> = (0..50).map(pick).collect();
    assert!(picks.len() > 4, "{picks:?}");
}

#[test]
fn allocate_once_then_claim() {
    on_all_stores(|mut server| {
        let id = server.side("side");
        let name = server.ask(id, json!({ "type": "allocate" }))[0]["nameplate"].as_str().unwrap().to_owned();
        assert_eq!(server.list(id), std::slice::from_ref(&name));
        let again = server.error(id, json!({ "type": "allocate" }));
        assert_eq!(again, "you already allocated one, don't be greedy");
        let mailbox = server.claim(id, &name);
        assert_eq!(mailbox.len(), 13);
        assert!(mailbox.bytes().all(|byte| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte)));
        assert_eq!(server.claims(&name), [("side".into(), true)]);
    });
}

#[test]
fn list_is_sorted_as_strings_and_per_application() {
    on_all_stores(|mut server| {
        let id = server.side("s");
        assert!(server.list(id).is_empty());
        for name in ["10", "9", "2", "123"] {
            let claimer = server.side("s");
            server.claim(claimer, name);
        }
        assert_eq!(server.list(id), ["10", "123", "2", "9"]);
        let other = server.connect();
        server.ask(other, json!({ "type": "bind", "appid": "other", "side": "s" }));
        assert!(server.list(other).is_empty());
    });
    let mut secretive = Harness::new(ServerConfig { allow_list: false, ..ServerConfig::default() });
    let id = secretive.side("s");
    secretive.claim(id, "4");
    assert!(secretive.list(id).is_empty());
}

#[test]
fn claim_errors() {
    on_all_stores(|mut server| {
        let id = server.side("side");
        assert_eq!(server.error(id, json!({ "type": "claim" })), "claim requires 'nameplate'");
        server.claim(id, "1");
        let again = server.error(id, json!({ "type": "claim", "nameplate": "1" }));
        assert_eq!(again, "only one claim per connection");
        let long = server.side("side");
        server.claim(long, &"1234".repeat(10));
    });
}

#[test]
fn release_errors() {
    on_all_stores(|mut server| {
        let id = server.side("side");
        let early = server.error(id, json!({ "type": "release" }));
        assert_eq!(early, "release without nameplate must follow claim");
        server.claim(id, "1");
        let other = server.error(id, json!({ "type": "release", "nameplate": "2" }));
        assert_eq!(other, "release and claim must use same nameplate");
        assert_eq!(server.ask(id, json!({ "type": "release" }))[0]["type"], "released");
        assert_eq!(server.error(id, json!({ "type": "release" })), "only one release per connection");
        let stranger = server.side("stranger");
        let ignored = server.ask(stranger, json!({ "type": "release", "nameplate": "77" }));
        assert_eq!(ignored[0]["type"], "released");
    });
}

#[test]
fn a_nameplate_lives_until_the_last_release() {
    on_all_stores(|mut server| {
        let (a, b) = (server.side("a"), server.side("b"));
        let mailbox = server.claim(a, "4");
        server.now += 3.0;
        assert_eq!(server.claim(b, "4"), mailbox);
        assert_eq!(server.claims("4"), [("a".into(), true), ("b".into(), true)]);
        let released = server.ask(a, json!({ "type": "release", "nameplate": "4" }));
        assert_eq!(released[0]["type"], "released");
        assert_eq!(server.claims("4"), [("a".into(), false), ("b".into(), true)]);
        assert_eq!(server.list(a), ["4"], "half claimed ones are listed");
        server.ask(b, json!({ "type": "release" }));
        assert_eq!(server.nameplate("4"), None);
        assert!(server.mailbox(&mailbox).is_some(), "the mailbox stays");
        assert_eq!(server.core.usage().nameplates.happy, 1);
        server.check();
    });
}

#[test]
fn interrupted_clients_repeat_themselves() {
    on_all_stores(|mut server| {
        let first = server.side("side");
        let mailbox = server.claim(first, "1");
        let added = server.nameplate("1").unwrap().sides[0].added;
        server.leave(first);
        server.now += 10.0;
        let second = server.side("side");
        assert_eq!(server.claim(second, "1"), mailbox, "claiming again is harmless");
        assert_eq!(server.nameplate("1").unwrap().sides[0].added, added);
        server.leave(second);
        for _ in 0..2 {
            let id = server.side("side");
            let released = server.ask(id, json!({ "type": "release", "nameplate": "1" }));
            assert_eq!(
                released[0]["type"], "released",
                "also without a claim on this connection, also twice"
            );
            assert_eq!(server.nameplate("1"), None);
            server.leave(id);
        }
    });
}

#[test]
fn a_released_nameplate_cannot_be_claimed_again_while_it_exists() {
    on_all_stores(|mut server| {
        let (a, b) = (server.side("a"), server.side("b"));
        let mailbox = server.claim(a, "2");
        server.claim(b, "2");
        server.ask(a, json!({ "type": "release" }));
        let again = server.side("a");
        assert_eq!(server.error(again, json!({ "type": "claim", "nameplate": "2" })), "reclaimed");
        assert_eq!(server.claims("2"), [("a".into(), false), ("b".into(), true)]);
        server.ask(b, json!({ "type": "release" }));
        let fresh = server.side("a");
        assert_ne!(server.claim(fresh, "2"), mailbox, "once it is gone, it is a new one");
    });
}

/// Lesson 28: in the Python server a third side haunts the first two.
#[test]
fn a_crowded_claim_leaves_no_ghost() {
    on_all_stores(|mut server| {
        let (a, b, c) = (server.side("a"), server.side("b"), server.side("c"));
        let mailbox = server.claim(a, "4");
        server.claim(b, "4");
        assert_eq!(server.error(c, json!({ "type": "claim", "nameplate": "4" })), "crowded");
        let opens = server.side("c");
        assert_eq!(server.error(opens, json!({ "type": "open", "mailbox": mailbox })), "crowded");
        assert_eq!(server.error(opens, json!({ "type": "close" })), "crowded");
        let again = server.side("c");
        assert_eq!(server.error(again, json!({ "type": "claim", "nameplate": "4" })), "crowded");
        assert_eq!(server.claims("4").len(), 2);
        assert_eq!(server.mailbox(&mailbox).unwrap().sides.len(), 2);
        for side in ["a", "b"] {
            let back = server.side(side);
            assert_eq!(server.claim(back, "4"), mailbox);
            server.open(back, &mailbox);
        }
        // The two close, and everything goes, with the third side in the statistics only.
        for side in ["a", "b"] {
            let id = server.side(side);
            server.close(id, json!({ "type": "close", "mailbox": mailbox, "mood": "happy" }));
        }
        assert_eq!(server.mailbox(&mailbox), None);
        assert_eq!(server.nameplate("4"), None);
        let usage = server.core.usage();
        assert_eq!((usage.mailboxes.crowded, usage.nameplates.crowded), (1, 1));
        server.check();
    });
}

#[test]
fn a_claim_is_crowded_when_the_mailbox_is() {
    on_all_stores(|mut server| {
        let a = server.side("a");
        let mailbox = server.claim(a, "4");
        let b = server.side("b");
        server.open(b, &mailbox);
        let c = server.side("c");
        assert_eq!(server.error(c, json!({ "type": "claim", "nameplate": "4" })), "crowded");
        assert_eq!(server.claims("4"), [("a".into(), true)]);
        server.claim(b, "4");
    });
}

#[test]
fn a_side_that_released_still_counts() {
    on_all_stores(|mut server| {
        let (a, b, c) = (server.side("a"), server.side("b"), server.side("c"));
        server.claim(a, "4");
        server.ask(a, json!({ "type": "release" }));
        // Released by all: gone. So b's is a new one, which c may join, but then no third.
        server.claim(b, "4");
        server.claim(c, "4");
        server.ask(c, json!({ "type": "release" }));
        let d = server.side("d");
        assert_eq!(server.error(d, json!({ "type": "claim", "nameplate": "4" })), "crowded");
    });
}
