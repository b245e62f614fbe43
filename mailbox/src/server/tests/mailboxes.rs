//! open, add, close.

use super::*;

fn bodies(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["body"].as_str().unwrap()).collect()
}

#[test]
fn open_replays_and_subscribes() {
    on_all_stores(|mut server| {
        let a = server.side("a");
        assert_eq!(server.error(a, json!({ "type": "open" })), "open requires 'mailbox'");
        assert!(server.open(a, "mb").is_empty());
        server.add(a, "pake", "00");
        // The clock goes backwards; the order stays.
        server.now -= 100.0;
        server.add(a, "version", "01");
        let b = server.side("b");
        let replay = server.open(b, "mb");
        assert_eq!(bodies(&replay), ["00", "01"]);
        assert_eq!(replay[0]["side"], "a");
        assert_eq!(replay[0]["phase"], "pake");
        assert_eq!(replay[0]["id"], "1f2e");
        assert_eq!(replay[0]["server_rx"], server.now + 100.0);
        server.add(b, "pake", "02");
        assert_eq!(bodies(&server.take(a)), ["02"]);
        assert_eq!(
            server.error(b, json!({ "type": "open", "mailbox": "mb" })),
            "only one open per connection"
        );
        server.check();
    });
}

#[test]
fn adding_is_not_idempotent() {
    on_all_stores(|mut server| {
        let a = server.side("a");
        server.open(a, "mb");
        (0..3).for_each(|_| server.add(a, "0", "same"));
        let again = server.side("a");
        assert_eq!(server.open(again, "mb").len(), 3);
    });
}

#[test]
fn add_errors() {
    let mut server = Harness::new(ServerConfig::default());
    let a = server.side("a");
    assert_eq!(server.error(a, json!({ "type": "add" })), "must open mailbox before adding");
    server.open(a, "mb");
    assert_eq!(server.error(a, json!({ "type": "add", "body": "b" })), "missing 'phase'");
    assert_eq!(server.error(a, json!({ "type": "add", "phase": "p" })), "missing 'body'");
}

#[test]
fn close_errors() {
    let mut server = Harness::new(ServerConfig::default());
    let a = server.side("a");
    let early = server.error(a, json!({ "type": "close", "mood": "m" }));
    assert_eq!(early, "close without mailbox must follow open");
    server.open(a, "mb1");
    let other = server.error(a, json!({ "type": "close", "mailbox": "mb2" }));
    assert_eq!(other, "open and close must use same mailbox");
    server.close(a, json!({ "type": "close", "mailbox": "mb1", "mood": "m" }));
    assert_eq!(server.error(a, json!({ "type": "close" })), "only one close per connection");
    assert_eq!(
        server.error(a, json!({ "type": "add", "phase": "p", "body": "b" })),
        "must open mailbox before adding"
    );
    let stranger = server.side("stranger");
    server.close(stranger, json!({ "type": "close", "mailbox": "never seen" }));
    assert_eq!(server.mailbox("never seen"), None);
}

#[test]
fn the_last_close_deletes_everything() {
    on_all_stores(|mut server| {
        let (a, b) = (server.side("a"), server.side("b"));
        let mailbox = server.claim(a, "4");
        server.claim(b, "4");
        server.open(a, &mailbox);
        server.open(b, &mailbox);
        server.add(a, "0", "x");
        assert_eq!(server.take(b).len(), 1);
        server.close(a, json!({ "type": "close", "mood": "happy" }));
        assert!(server.mailbox(&mailbox).is_some(), "b has it open");
        let again = server.side("a");
        server.close(again, json!({ "type": "close", "mailbox": mailbox, "mood": "happy" }));
        server.close(b, json!({ "type": "close", "mood": "happy" }));
        assert_eq!(server.mailbox(&mailbox), None);
        assert_eq!(server.nameplate("4"), None, "the nameplate goes with it");
        let late = server.side("a");
        server.close(late, json!({ "type": "close", "mailbox": mailbox, "mood": "happy" }));
        assert!(server.open(late, &mailbox).is_empty(), "a fresh mailbox");
        assert_eq!(server.core.usage().mailboxes.happy, 1);
        server.check();
    });
}

#[test]
fn closing_spares_a_nameplate_that_leads_elsewhere_by_now() {
    on_all_stores(|mut server| {
        let a = server.side("a");
        let old = server.claim(a, "4");
        server.ask(a, json!({ "type": "release" }));
        let b = server.side("b");
        let new = server.claim(b, "4");
        assert_ne!(old, new);
        server.close(a, json!({ "type": "close", "mailbox": old }));
        assert_eq!(server.nameplate("4").unwrap().mailbox, new);
        server.check();
    });
}

#[test]
fn close_before_anybody_else_came() {
    on_all_stores(|mut server| {
        let a = server.side("a");
        let name = server.ask(a, json!({ "type": "allocate" }))[0]["nameplate"].as_str().unwrap().to_owned();
        let mailbox = server.claim(a, &name);
        server.open(a, &mailbox);
        server.close(a, json!({ "type": "close", "mood": "lonely" }));
        assert_eq!(server.nameplate(&name), None);
        assert_eq!(server.core.usage().mailboxes.lonely, 1);
        server.check();
    });
}

#[test]
fn after_a_close_the_same_connection_may_open_again() {
    on_all_stores(|mut server| {
        let (a, b) = (server.side("a"), server.side("b"));
        server.open(a, "mb");
        server.open(b, "mb");
        server.close(a, json!({ "type": "close" }));
        server.add(b, "0", "x");
        assert!(server.take(a).is_empty(), "not subscribed any more");
        assert_eq!(server.open(a, "mb").len(), 1);
        server.add(b, "1", "y");
        assert_eq!(server.take(a).len(), 1);
    });
}

#[test]
fn a_crowded_open_leaves_no_ghost() {
    on_all_stores(|mut server| {
        let (a, b) = (server.side("a"), server.side("b"));
        server.open(a, "mb");
        server.open(b, "mb");
        let c = server.side("c");
        assert_eq!(server.error(c, json!({ "type": "open", "mailbox": "mb" })), "crowded");
        let closes = server.side("c");
        assert_eq!(server.error(closes, json!({ "type": "close", "mailbox": "mb" })), "crowded");
        assert_eq!(server.mailbox("mb").unwrap().sides.len(), 2);
        server.add(a, "0", "x");
        assert_eq!(server.take(b).len(), 1);
        assert!(server.take(c).is_empty());
        for side in ["a", "b"] {
            let back = server.side(side);
            assert_eq!(server.open(back, "mb").len(), 1);
        }
    });
}

#[test]
fn interrupted_clients_open_and_close_again() {
    on_all_stores(|mut server| {
        let other = server.side("b");
        server.open(other, "mb");
        server.add(other, "phase", "body");
        let first = server.side("a");
        assert_eq!(server.open(first, "mb").len(), 1);
        server.leave(first);
        server.add(other, "phase2", "body2");
        assert!(server.take(first).is_empty());
        let second = server.side("a");
        assert_eq!(server.open(second, "mb").len(), 2);
        server.close(second, json!({ "type": "close", "mood": "mood" }));
        server.leave(second);
        let third = server.side("a");
        server.close(third, json!({ "type": "close", "mailbox": "mb", "mood": "mood" }));
        assert_eq!(server.mailbox("mb").unwrap().sides.iter().filter(|row| row.opened).count(), 1);
    });
}

#[test]
fn a_mailbox_that_another_connection_deleted_is_not_open_any_more() {
    on_all_stores(|mut server| {
        let (here, there) = (server.side("a"), server.side("a"));
        server.open(here, "mb");
        server.open(there, "mb");
        server.close(there, json!({ "type": "close" }));
        let add = json!({ "type": "add", "phase": "p", "body": "b" });
        assert_eq!(server.error(here, add), "must open mailbox before adding");
        assert!(server.open(here, "mb").is_empty());
    });
}

#[test]
fn moods_decide_about_the_statistics() {
    let run = |moods: &[Option<&str>]| {
        let mut server = Harness::new(ServerConfig::default());
        let sides: Vec<ConnectionId> = (0..moods.len()).map(|n| server.side(&n.to_string())).collect();
        sides.iter().for_each(|id| drop(server.open(*id, "mb")));
        for (id, mood) in sides.iter().zip(moods) {
            server.close(*id, json!({ "type": "close", "mood": mood }));
        }
        server.core.usage().mailboxes
    };
    assert_eq!(run(&[None]).lonely, 1);
    assert_eq!(run(&[Some("lonely")]).lonely, 1);
    assert_eq!(run(&[Some("errory")]).errory, 1);
    assert_eq!(run(&[Some("happy"), Some("happy")]).happy, 1);
    assert_eq!(run(&[Some("unwelcome"), Some("some other word")]).happy, 1);
    assert_eq!(run(&[Some("errory"), Some("happy")]).errory, 1);
    assert_eq!(run(&[Some("happy"), Some("errory")]).errory, 1);
    assert_eq!(run(&[Some("scary"), Some("happy")]).scary, 1);
    assert_eq!(run(&[Some("scary"), Some("errory")]).scary, 1);
    assert_eq!(run(&[Some("lonely"), Some("happy")]).lonely, 1);
}
