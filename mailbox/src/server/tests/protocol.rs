//! Welcome, ack, bind, ping, and what happens to requests that make no sense.

use super::*;

#[test]
fn the_welcome_says_what_the_operator_wants() {
    let welcome = ServerWelcome {
        motd: Some("hello".into()),
        error: Some("closed".into()),
        current_cli_version: Some("0.24.0".into()),
    };
    let mut server = Harness::new(ServerConfig { welcome, ..ServerConfig::default() });
    let id = ConnectionId(99);
    server.core.handle_connect(id, PeerAddress::new("127.0.0.1".parse().unwrap(), Some(46588)), 12.0);
    let message = server.take(id).remove(0);
    let expected = json!({
        "type": "welcome", "server_tx": 12.0,
        "welcome": {
            "motd": "hello", "error": "closed", "current_cli_version": "0.24.0",
            "your-address": { "port": 46588, "ipv4": "127.0.0.1" },
        },
    });
    assert_eq!(message, expected);
}

#[test]
fn the_welcome_reflects_addresses() {
    let mut server = Harness::new(ServerConfig::default());
    let mut you = |ip: &str, port| {
        let id = ConnectionId(1);
        server.core.handle_connect(id, PeerAddress::new(ip.parse().unwrap(), port), 1.0);
        server.take(id).remove(0)["welcome"]["your-address"].clone()
    };
    assert_eq!(you("::1", Some(53276)), json!({ "ipv6": "::1", "port": 53276 }));
    assert_eq!(you("::ffff:127.0.0.1", Some(53279)), json!({ "ipv4": "127.0.0.1", "port": 53279 }));
    assert_eq!(you("2600::1", None), json!({ "ipv6": "2600::1" }));

    let mut quiet = Harness::new(ServerConfig { your_address: false, ..ServerConfig::default() });
    quiet.core.handle_connect(ConnectionId(1), PeerAddress::new("::1".parse().unwrap(), None), 1.0);
    assert_eq!(quiet.take(ConnectionId(1))[0]["welcome"], json!({}));
}

#[test]
fn every_typed_request_is_acknowledged_before_its_answer() {
    let mut server = Harness::new(ServerConfig::default());
    let id = server.connect();
    server.raw(id, br#"{"type":"ping","ping":[1,2],"id":"ab12"}"#);
    let kinds: Vec<Value> = server.sent.drain(..).map(|(_, message)| message).collect();
    assert_eq!(kinds[0], json!({ "type": "ack", "id": "ab12", "server_tx": server.now }));
    assert_eq!(kinds[1], json!({ "type": "pong", "pong": [1, 2], "server_tx": server.now }));
    server.raw(id, br#"{"type":"nonsense"}"#);
    assert_eq!(server.sent[0].1["id"], Value::Null);
    server.sent.clear();
    server.raw(id, b"{}");
    assert_eq!(server.sent.len(), 1, "no ack without a type");
}

#[test]
fn the_errors_are_those_of_the_python_server() {
    let mut server = Harness::new(ServerConfig::default());
    let id = server.connect();
    assert_eq!(server.error(id, json!({})), "missing 'type'");
    assert_eq!(server.error(id, json!({ "type": "ping" })), "ping requires 'ping'");
    for kind in ["list", "allocate", "claim", "release", "open", "add", "close", "nonsense"] {
        assert_eq!(server.error(id, json!({ "type": kind })), "must bind first");
    }
    assert_eq!(server.error(id, json!({ "type": "bind" })), "bind requires 'appid'");
    assert_eq!(server.error(id, json!({ "type": "bind", "appid": APP })), "bind requires 'side'");
    assert!(server.ask(id, json!({ "type": "bind", "appid": APP, "side": "s" })).is_empty());
    assert_eq!(server.error(id, json!({ "type": "bind", "appid": APP, "side": "s" })), "already bound");
    assert_eq!(server.error(id, json!({ "type": "nonsense" })), "unknown type");
    assert_eq!(server.error(id, json!({ "type": 7 })), "unknown type");
    assert!(server.closed.is_empty());
}

#[test]
fn bind_takes_every_kind_of_client_version() {
    let mut server = Harness::new(ServerConfig::default());
    for version in
        [json!(["python", "0.24.0"]), json!(["rust", "1", "junk"]), json!([]), json!(5), Value::Null]
    {
        let id = server.connect();
        let bind = json!({ "type": "bind", "appid": APP, "side": "s", "client_version": version });
        assert!(server.ask(id, bind).is_empty());
        assert!(server.list(id).is_empty());
    }
}

#[test]
fn what_python_aborts_gets_an_error_and_a_close() {
    let requests = [
        json!({ "type": "bind", "appid": 5, "side": "s" }),
        json!({ "type": "bind", "appid": APP, "side": null }),
    ];
    for request in requests {
        let mut server = Harness::new(ServerConfig::default());
        let id = server.connect();
        assert!(server.error(id, request).ends_with("must be a string"));
        assert_eq!(server.closed, [(id, 1008)]);
    }
    let requests = [
        json!({ "type": "claim", "nameplate": 4 }),
        json!({ "type": "claim", "nameplate": "4a" }),
        json!({ "type": "claim", "nameplate": "" }),
        json!({ "type": "claim", "nameplate": "4\n" }),
        json!({ "type": "claim", "nameplate": "1".repeat(41) }),
        json!({ "type": "release", "nameplate": 4 }),
        json!({ "type": "open", "mailbox": 4 }),
        json!({ "type": "close", "mailbox": {} }),
    ];
    for request in requests {
        let mut server = Harness::new(ServerConfig::default());
        let id = server.side("s");
        server.error(id, request.clone());
        assert_eq!(server.closed, [(id, 1008)], "{request}");
        assert!(server.ask(id, json!({ "type": "list" })).is_empty(), "the connection is forgotten");
    }
    for body in [json!({}), json!([])] {
        let mut server = Harness::new(ServerConfig::default());
        let id = server.side("s");
        server.open(id, "mb");
        server.error(id, json!({ "type": "add", "phase": "p", "body": body }));
        assert_eq!(server.closed, [(id, 1008)]);
        assert_eq!(server.mailbox("mb").unwrap().messages, 0);
    }
}

#[test]
fn what_is_no_json_object_gets_an_error_and_a_close() {
    let deep = "[".repeat(100_000);
    let payloads: [&[u8]; 8] = [
        b"",
        b"{",
        b"nonsense",
        b"5",
        b"[]",
        b"null",
        &[b'{', b'"', 0xff, b'"', b':', b'1', b'}'],
        deep.as_bytes(),
    ];
    for payload in payloads {
        let mut server = Harness::new(ServerConfig::default());
        let id = server.connect();
        server.raw(id, payload);
        let answer = server.take(id);
        assert_eq!(answer.len(), 1);
        assert!(answer[0]["error"].as_str().unwrap().starts_with("messages must be JSON"), "{answer:?}");
        assert_eq!(answer[0]["orig"], json!({}), "the Python client insists on `orig`");
        assert_eq!(server.closed.len(), 1);
    }
}

#[test]
fn what_the_driver_cannot_read_is_answered_too() {
    let mut server = Harness::new(ServerConfig::default());
    let (large, broken) = (server.connect(), server.connect());
    server.core.handle_oversized(large, 1.0);
    server.core.handle_malformed(broken, 1.0);
    assert!(server.take(large)[0]["error"].as_str().unwrap().starts_with("a message may have at most"));
    assert_eq!(server.take(broken).len(), 1);
    assert_eq!(server.closed, [(large, 1009), (broken, 1007)]);
    server.core.handle_oversized(large, 1.0);
    assert!(server.take(large).is_empty(), "it is gone");
}

#[test]
fn numbers_and_null_pass_through_a_mailbox_unchanged() {
    on_all_stores(|mut server| {
        let a = server.side("a");
        server.open(a, "mb");
        let echo = server.ask(a, json!({ "type": "add", "phase": 5, "body": null, "id": 1.5 }));
        assert_eq!(
            (&echo[0]["phase"], &echo[0]["body"], &echo[0]["id"]),
            (&json!(5), &Value::Null, &json!(1.5))
        );
        let b = server.side("b");
        let replay = server.open(b, "mb");
        assert_eq!(
            (&replay[0]["phase"], &replay[0]["body"], &replay[0]["id"]),
            (&json!(5), &Value::Null, &json!(1.5))
        );
    });
}
