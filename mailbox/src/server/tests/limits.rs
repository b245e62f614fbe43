//! Each limit, at it and one over it.

use std::time::Duration;

use super::*;

fn claim(server: &mut Harness, id: ConnectionId, name: &str) -> Vec<Value> {
    server.ask(id, json!({ "type": "claim", "nameplate": name }))
}

fn assert_refused(answer: &[Value], words: &str) {
    assert_eq!(answer[0]["type"], "error", "{answer:?}");
    assert!(answer[0]["error"].as_str().unwrap().contains(words), "{answer:?}");
}

#[test]
fn nameplates() {
    let mut server = Harness::limited(|limits| {
        limits.nameplates_per_app = 2;
        limits.nameplates = 3;
    });
    for name in ["1", "2"] {
        let id = server.side("s");
        server.claim(id, name);
    }
    let id = server.side("s");
    assert_refused(&claim(&mut server, id, "3"), "too many nameplates");
    let id = server.side("s");
    server.claim(id, "2");
    let other = |server: &mut Harness| {
        let id = server.connect();
        server.ask(id, json!({ "type": "bind", "appid": "other", "side": "s" }));
        id
    };
    let id = other(&mut server);
    server.claim(id, "1");
    let id = other(&mut server);
    assert_refused(&claim(&mut server, id, "2"), "too many nameplates");
    let allocating = other(&mut server);
    let refused = server.ask(allocating, json!({ "type": "allocate" }));
    assert_refused(&refused, "too many nameplates");
    server.ask(id, json!({ "type": "release", "nameplate": "2" }));
    let id = server.side("s");
    server.ask(id, json!({ "type": "release", "nameplate": "1" }));
    let id = server.side("s");
    server.claim(id, "3");
    server.check();
}

#[test]
fn mailboxes() {
    let mut server = Harness::limited(|limits| limits.mailboxes = 2);
    let (a, b, c) = (server.side("a"), server.side("b"), server.side("c"));
    server.open(a, "1");
    server.claim(b, "7");
    let refused = server.ask(c, json!({ "type": "open", "mailbox": "3" }));
    assert_refused(&refused, "too many mailboxes");
    assert_refused(&claim(&mut server, c, "8"), "too many mailboxes");
    assert_eq!(server.nameplate("8"), None);
    assert!(server.open(c, "1").is_empty());
    server.check();
}

#[test]
fn mailboxes_of_one_address() {
    let mut server = Harness::limited(|limits| limits.mailboxes_per_address = 2);
    let bound = |server: &mut Harness, ip: &str| {
        let id = server.connect_from(ip);
        server.ask(id, json!({ "type": "bind", "appid": APP, "side": "s" }));
        id
    };
    for (ip, name) in [("2001:db8::1", "1"), ("2001:db8::2", "2")] {
        let id = bound(&mut server, ip);
        server.claim(id, name);
    }
    let id = bound(&mut server, "2001:db8::3");
    assert_refused(&claim(&mut server, id, "3"), "your address");
    let id = bound(&mut server, "2001:db8::3");
    server.claim(id, "2");
    let id = bound(&mut server, "2001:db8:0:1::3");
    server.claim(id, "3");
    server.now += 11.0 * 60.0;
    server.core.handle_tick(server.now);
    let id = bound(&mut server, "2001:db8::3");
    server.claim(id, "4");
}

#[test]
fn messages() {
    let mut server = Harness::limited(|limits| {
        limits.messages_per_mailbox = 2;
        limits.body_bytes = 10;
        limits.phase_length = 5;
    });
    let a = server.side("a");
    server.open(a, "mb");
    server.add(a, "12345", "1234567890");
    let add =
        |phase: &str, body: &str, id: &str| json!({ "type": "add", "phase": phase, "body": body, "id": id });
    assert_eq!(server.error(a, add("0", "12345678901", "")), "'body' may have at most 10 bytes");
    assert_eq!(server.error(a, add("123456", "", "")), "'phase' may have at most 5 bytes");
    assert_eq!(server.error(a, add("0", "", "123456")), "'id' may have at most 5 bytes");
    server.add(a, "1", "x");
    assert!(server.error(a, add("2", "x", "")).contains("2 messages"));
    assert!(server.closed.is_empty(), "these are no reason to hang up");
    server.check();
}

#[test]
fn bytes() {
    let mut server = Harness::limited(|limits| {
        limits.mailbox_bytes = 1000;
        limits.store_bytes = 1500;
    });
    let (a, b) = (server.side("a"), server.side("b"));
    server.open(a, "1");
    server.open(b, "2");
    let add = |body: &str| json!({ "type": "add", "phase": "0", "body": body });
    let large = "x".repeat(800);
    server.add(a, "0", &large);
    assert!(server.error(a, add(&large)).contains("1000 bytes"));
    assert!(server.error(b, add(&large)).contains("storage is full"));
    server.close(a, json!({ "type": "close" }));
    server.add(b, "0", &large);
    server.check();
}

#[test]
fn lengths() {
    let mut server = Harness::limited(|limits| {
        limits.app_id_length = 5;
        limits.side_length = 4;
        limits.mailbox_id_length = 3;
    });
    let id = server.connect();
    let bind = |app: &str, side: &str| json!({ "type": "bind", "appid": app, "side": side });
    assert_eq!(server.error(id, bind("123456", "s")), "'appid' may have at most 5 bytes");
    assert_eq!(server.error(id, bind("12345", "12345")), "'side' may have at most 4 bytes");
    assert!(server.ask(id, bind("12345", "1234")).is_empty());
    let open = |mailbox: &str| json!({ "type": "open", "mailbox": mailbox });
    assert_eq!(server.error(id, open("1234")), "'mailbox' may have at most 3 bytes");
    assert!(server.ask(id, open("123")).is_empty());
}

#[test]
fn the_list_shows_the_shortest() {
    let mut server = Harness::limited(|limits| limits.list_size = 3);
    for name in ["100", "5", "40", "7", "1000"] {
        let id = server.side("s");
        server.claim(id, name);
    }
    let id = server.side("s");
    assert_eq!(server.list(id), ["40", "5", "7"]);
}

#[test]
fn the_newest_subscription_of_a_side_wins() {
    let mut server = Harness::limited(|limits| limits.subscriptions_per_side = 2);
    let mine: Vec<ConnectionId> = (0..3).map(|_| server.side("a")).collect();
    let peer = server.side("b");
    server.open(peer, "mb");
    mine.iter().for_each(|id| drop(server.open(*id, "mb")));
    assert_eq!(server.closed, [(mine[0], 1000)]);
    server.add(peer, "0", "x");
    assert!(server.take(mine[0]).is_empty());
    assert_eq!((server.take(mine[1]).len(), server.take(mine[2]).len()), (1, 1));
}

#[test]
fn connections_that_do_nothing_are_closed() {
    let mut server = Harness::limited(|limits| {
        limits.bind_timeout = Duration::from_secs(10);
        limits.idle_timeout = Duration::from_secs(100);
    });
    let silent = server.connect();
    let (listing, open) = (server.side("a"), server.side("b"));
    server.open(open, "mb");
    let tick = |server: &mut Harness, after: f64| {
        server.now += after;
        server.core.handle_tick(server.now);
        server.drain();
    };
    tick(&mut server, 9.0);
    assert!(server.closed.is_empty());
    tick(&mut server, 1.0);
    assert_eq!(server.closed, [(silent, 1008)]);
    assert_eq!(server.take(silent)[0]["type"], "error");
    server.list(listing);
    tick(&mut server, 99.0);
    assert_eq!(server.closed.len(), 1);
    tick(&mut server, 1.0);
    assert_eq!(server.closed[1..], [(listing, 1001)], "one that has a mailbox open may wait for ever");
    assert!(server.take(listing).is_empty(), "no error: the client may come back");
}
