//! What is deleted for want of use, and what outlives a restart.

use std::time::Duration;

use super::*;

const PRUNE: f64 = 5.0 * 60.0;

fn prune(server: &mut Harness, after: f64) {
    server.now += after;
    server.core.handle_tick(server.now);
    server.drain();
}

#[test]
fn idle_mailboxes_go_with_their_nameplates_and_messages() {
    on_all_stores(|mut server| {
        let (a, b) = (server.side("a"), server.side("b"));
        let old = server.claim(a, "1");
        server.open(a, &old);
        server.add(a, "0", "x");
        server.leave(a);
        prune(&mut server, PRUNE);
        assert!(server.mailbox(&old).is_some());
        server.now += 300.0;
        let new = server.claim(b, "2");
        server.leave(b);
        prune(&mut server, 61.0);
        assert_eq!((server.mailbox(&old), server.nameplate("1")), (None, None));
        assert!(server.core.registry.store().messages(APP, &old).unwrap().is_empty());
        assert!(server.mailbox(&new).is_some() && server.nameplate("2").is_some());
        let usage = server.core.usage();
        assert_eq!((usage.mailboxes.pruney, usage.nameplates.pruney), (1, 1));
        server.check();
    });
}

#[test]
fn the_matrix() {
    for nameplate in [false, true] {
        for old in [false, true] {
            for subscribed in [false, true] {
                on_all_stores(|mut server| {
                    let a = server.side("a");
                    let id = if nameplate { server.claim(a, "1") } else { "mb".into() };
                    server.open(a, &id);
                    server.add(a, "0", "x");
                    if !subscribed {
                        server.leave(a);
                    }
                    prune(&mut server, if old { 11.0 * 60.0 } else { 10.0 * 60.0 });
                    let survives = !old || subscribed;
                    let what = format!("nameplate {nameplate} old {old} subscribed {subscribed}");
                    assert_eq!(server.mailbox(&id).is_some(), survives, "{what}");
                    assert_eq!(server.nameplate("1").is_some(), survives && nameplate, "{what}");
                    server.check();
                });
            }
        }
    }
}

#[test]
fn every_activity_counts() {
    on_all_stores(|mut server| {
        let updated = |server: &Harness| server.mailbox("mb").unwrap().updated;
        let a = server.side("a");
        server.open(a, "mb");
        assert_eq!(updated(&server), server.now);
        server.now += 1.0;
        let b = server.side("b");
        server.open(b, "mb");
        assert_eq!(updated(&server), server.now);
        server.now += 1.0;
        server.add(b, "0", "x");
        assert_eq!(updated(&server), server.now);
    });
}

#[test]
fn a_restarted_server_gives_clients_time_to_come_back() {
    let mut server = Harness::new(ServerConfig::default());
    let a = server.side("a");
    server.open(a, "mb");
    server.leave(a);
    // The server was off for an hour: the mailbox is old, but so is everybody's.
    let mut store = MemoryStore::new();
    let record = server.mailbox("mb").unwrap();
    store.apply(vec![Change::PutMailbox { app: APP.into(), id: "mb".into(), record }]).unwrap();
    server.core =
        Core::new(Box::new(store) as Box<dyn Store>, ServerConfig::default(), server.now + 3600.0).unwrap();
    server.now += 3600.0;
    prune(&mut server, 100.0);
    assert!(server.mailbox("mb").is_some());
    prune(&mut server, PRUNE);
    assert!(server.mailbox("mb").is_none());
}

#[test]
fn the_times_are_configurable() {
    let config = ServerConfig {
        prune_interval: Duration::from_secs(1),
        prune_idle: Duration::from_secs(2),
        ..ServerConfig::default()
    };
    let mut server = Harness::new(config);
    let a = server.side("a");
    server.open(a, "mb");
    server.leave(a);
    prune(&mut server, 1.5);
    assert!(server.mailbox("mb").is_some());
    prune(&mut server, 1.5);
    assert!(server.mailbox("mb").is_none());
}

#[cfg(feature = "sqlite")]
mod restart {
    use super::*;

    fn reopen(path: &std::path::Path, now: f64) -> Harness {
        let store = SqliteStore::open(path).unwrap();
        let mut server = Harness::with(Box::new(store), ServerConfig::default());
        server.now = now;
        server.check();
        server
    }

    #[test]
    fn everything_survives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mailbox.sqlite");
        let mut server = reopen(&path, 10.5);
        let (a, b, c) = (server.side("a"), server.side("b"), server.side("c"));
        let mailbox = server.claim(a, "4");
        server.claim(b, "4");
        server.open(a, &mailbox);
        server.add(a, "pake", "aa");
        server.add(a, "version", "bb");
        server.error(c, json!({ "type": "claim", "nameplate": "4" }));
        server.ask(b, json!({ "type": "release" }));
        drop(server);

        let mut server = reopen(&path, 20.5);
        assert_eq!(server.claims("4"), [("a".into(), true), ("b".into(), false)]);
        let (a, b, c) = (server.side("a"), server.side("b"), server.side("c"));
        assert_eq!(server.claim(a, "4"), mailbox, "the third side left no ghost in the file either");
        assert_eq!(server.error(b, json!({ "type": "claim", "nameplate": "4" })), "reclaimed");
        let replay = server.open(b, &mailbox);
        assert_eq!(replay.iter().map(|m| m["body"].as_str().unwrap()).collect::<Vec<_>>(), ["aa", "bb"]);
        assert_eq!(replay[0]["server_rx"], 10.5);
        assert_eq!(server.error(c, json!({ "type": "open", "mailbox": mailbox })), "crowded");
        server.close(b, json!({ "type": "close", "mood": "happy" }));
        drop(server);

        let mut server = reopen(&path, 30.5);
        let a = server.side("a");
        server.close(a, json!({ "type": "close", "mailbox": mailbox, "mood": "scary" }));
        assert_eq!(server.core.registry.store().totals().unwrap(), Totals::default());
    }

    #[test]
    fn other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        std::fs::write(&path, "This is not a database, and long enough to be seen as none.".repeat(20))
            .unwrap();
        assert!(SqliteStore::open(&path).is_err());

        let foreign = dir.path().join("foreign.sqlite");
        rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        let error = SqliteStore::open(&foreign).unwrap_err().to_string();
        assert!(error.contains("another program"), "{error}");

        let newer = dir.path().join("newer.sqlite");
        drop(SqliteStore::open(&newer).unwrap());
        rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 9).unwrap();
        let error = SqliteStore::open(&newer).unwrap_err().to_string();
        assert!(error.contains("version 9"), "{error}");
    }

    #[test]
    fn a_failed_change_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mailbox.sqlite");
        let mut server = reopen(&path, 1.5);
        // Somebody breaks the file under the server: the mailbox can be written, the nameplate cannot.
        rusqlite::Connection::open(&path).unwrap().execute_batch("DROP TABLE nameplate_sides").unwrap();
        let id = server.side("a");
        let answer = server.ask(id, json!({ "type": "claim", "nameplate": "4" }));
        assert_eq!(answer[0]["error"], "the server's storage failed; try again later");
        assert_eq!(server.closed, [(id, 1011)]);
        server.check();
        assert_eq!(server.core.registry.counted(), Totals::default());
    }
}
