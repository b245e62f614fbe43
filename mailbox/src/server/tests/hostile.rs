//! Whatever comes, nothing panics and the counters stay true.

use proptest::prelude::*;

use super::*;

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(".{0,8}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Requests that mean something, over few names, so that they meet.
fn request() -> impl Strategy<Value = Value> {
    let kind = prop_oneof![
        Just("bind"),
        Just("list"),
        Just("allocate"),
        Just("claim"),
        Just("release"),
        Just("open"),
        Just("add"),
        Just("close"),
        Just("ping"),
    ];
    (kind, 0..4_u8, any::<bool>(), proptest::option::weighted(0.1, json_value())).prop_map(
        |(kind, n, named, odd)| {
            let mut request =
                json!({ "type": kind, "appid": "app", "side": n.to_string(), "phase": "p", "body": "b" });
            if named {
                request["nameplate"] = n.to_string().into();
                request["mailbox"] = n.to_string().into();
            }
            if let Some(odd) = odd {
                let keys = ["type", "appid", "side", "nameplate", "mailbox", "phase", "body", "mood", "id"];
                request[keys[usize::from(n) * 2]] = odd;
            }
            request
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    Connect,
    Leave(u8),
    Ask(u8, Value),
    Raw(u8, Vec<u8>),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Connect),
        1 => (0..6_u8).prop_map(Step::Leave),
        12 => (0..6_u8, request()).prop_map(|(id, request)| Step::Ask(id, request)),
        1 => (0..6_u8, json_value()).prop_map(|(id, value)| Step::Ask(id, value)),
        1 => (0..6_u8, any::<Vec<u8>>()).prop_map(|(id, bytes)| Step::Raw(id, bytes)),
        1 => (0..900_u16).prop_map(Step::Wait),
    ]
}

fn run(mut server: Harness, steps: &[Step]) {
    for step in steps {
        match step.clone() {
            Step::Connect => drop(server.connect()),
            Step::Leave(id) => server.leave(ConnectionId(id.into())),
            Step::Ask(id, request) => server.raw(ConnectionId(id.into()), request.to_string().as_bytes()),
            Step::Raw(id, bytes) => server.raw(ConnectionId(id.into()), &bytes),
            Step::Wait(seconds) => {
                server.now += f64::from(seconds);
                server.core.handle_tick(server.now);
            }
        }
        server.drain();
        server.check();
        for name in 0..4 {
            let sides = server.mailbox(&name.to_string()).map_or(0, |mailbox| mailbox.sides.len());
            let claims = server.nameplate(&name.to_string()).map_or(0, |nameplate| nameplate.sides.len());
            assert!(sides <= 2 && claims <= 2, "a third side got in");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_harmless(payload: Vec<u8>) {
        let mut server = Harness::new(ServerConfig::default());
        let id = server.connect();
        server.raw(id, &payload);
    }

    #[test]
    fn any_json_is_harmless(value in json_value()) {
        let mut server = Harness::new(ServerConfig::default());
        let id = server.side("s");
        server.raw(id, value.to_string().as_bytes());
    }

    #[test]
    fn any_session_keeps_the_books(steps in proptest::collection::vec(step(), 0..60)) {
        run(Harness::new(ServerConfig::default()), &steps);
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn any_session_keeps_the_books_in_sqlite(steps in proptest::collection::vec(step(), 0..30)) {
        run(Harness::with(Box::new(SqliteStore::open(":memory:").unwrap()), ServerConfig::default()), &steps);
    }
}

#[test]
fn large_requests_are_not_echoed() {
    let mut server = Harness::new(ServerConfig::default());
    let id = server.side("s");
    let request = json!({ "type": "nonsense", "id": "1", "body": "x".repeat(100_000) });
    let answer = server.ask(id, request);
    assert_eq!(answer[0]["orig"], json!({ "type": "nonsense", "id": "1" }));
}
