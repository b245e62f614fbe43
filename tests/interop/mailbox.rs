//! Codes, keys, values and messages with Python, through both kinds of mailbox server.

use dilated::WormholeError;
use dilated_tests::{data::hex, python::PeerRole};
use serde_json::json;

use crate::support::{Servers, World, soon};

async fn values_agree(servers: Servers, we_allocate: bool) {
    let Some(world) = World::new(servers).await else { return };
    let ours = world.wormhole();
    let mut python = world.python_peer(PeerRole::Any).await;
    if we_allocate {
        let code = soon("a code", ours.allocate_code(2)).await.expect("allocated");
        python.send(json!({"cmd": "set-code", "code": code.to_string()})).await;
    } else {
        python.send(json!({"cmd": "allocate-code"})).await;
        let code = python.expect("code").await["code"].as_str().expect("a string").to_owned();
        ours.set_code(&code).expect("good");
    }
    let verifier = soon("a verifier", ours.verifier()).await.expect("verified");
    assert_eq!(python.expect("verifier").await["hex"], hex(&verifier));
    assert_eq!(soon("versions", ours.versions()).await.expect("versions"), json!({"of": "python"}));
    assert_eq!(python.expect("versions").await["versions"], json!({"of": "rust"}));

    python.send(json!({"cmd": "derive-key", "purpose": "caf\u{e9}", "length": 40})).await;
    let derived = ours.derive_key("cafe\u{301}", 40).expect("a key");
    assert_eq!(python.expect("derived").await["hex"], hex(&derived), "purposes are normalised alike");

    for n in 0..20_u8 {
        ours.send_message(vec![n; 10]).expect("open");
        python.send(json!({"cmd": "send-message", "hex": hex(&[n, 0xff])})).await;
    }
    for n in 0..20_u8 {
        assert_eq!(python.expect("message-received").await["hex"], hex(&[n; 10]));
        assert_eq!(soon("a message", ours.next_message()).await.expect("open"), [n, 0xff]);
    }
    assert_eq!(soon("close", ours.close()).await, Ok(()));
    python.send(json!({"cmd": "wormhole-close"})).await;
    assert_eq!(python.expect("wormhole-closed").await["result"], "happy");
    python.finish().await;
}

#[tokio::test]
async fn values_agree_through_our_server() {
    values_agree(Servers::Ours, true).await;
    values_agree(Servers::Ours, false).await;
}

#[tokio::test]
async fn values_agree_through_the_python_server() {
    values_agree(Servers::Python, true).await;
    values_agree(Servers::Python, false).await;
}

#[tokio::test]
async fn both_sides_notice_a_wrong_code() {
    for servers in [Servers::Ours, Servers::Python] {
        let Some(world) = World::new(servers).await else { return };
        let ours = world.wormhole();
        let mut python = world.python_peer(PeerRole::Any).await;
        let code = soon("a code", ours.allocate_code(2)).await.expect("allocated");
        python.send(json!({"cmd": "set-code", "code": format!("{code}-not")})).await;
        assert_eq!(soon("a verdict", ours.verifier()).await, Err(WormholeError::WrongPassword));
        assert_eq!(python.expect("wormhole-failed").await["kind"], "WrongPasswordError");
        assert_eq!(soon("close", ours.close()).await, Err(WormholeError::WrongPassword));
        python.finish().await;
    }
}

#[tokio::test]
async fn the_python_server_restarts_under_us() {
    let Some(world) = World::new(Servers::Ours).await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("mailbox.sqlite");
    let server = world.python.mailbox_at(0, &database).await;
    let (port, url) = (server.port, server.url());
    let builder = || dilated::Wormhole::builder(crate::support::APPID).mailbox(&url).build().expect("valid");
    let (a, b) = (builder(), builder());
    let code = soon("a code", a.allocate_code(2)).await.expect("allocated").to_string();
    a.send_message("before").expect("queued");
    server.process.kill().await;
    a.send_message("between").expect("queued");
    let server = world.python.mailbox_at(port, &database).await;
    b.set_code(&code).expect("good");
    for expected in ["before", "between"] {
        assert_eq!(soon("a message", b.next_message()).await.expect("open"), expected.as_bytes());
    }
    server.process.kill().await;
    b.send_message("after").expect("queued");
    let _server = world.python.mailbox_at(port, &database).await;
    assert_eq!(soon("a message", a.next_message()).await.expect("open"), b"after");
    let (x, y) = soon("close", async { tokio::join!(a.close(), b.close()) }).await;
    assert_eq!((x, y), (Ok(()), Ok(())));
}

#[tokio::test]
async fn a_server_that_forgot_our_code_is_noticed() {
    let Some(world) = World::new(Servers::Ours).await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let server = world.python.mailbox_at(0, &folder.path().join("before.sqlite")).await;
    let (port, url) = (server.port, server.url());
    let waiting = dilated::Wormhole::builder(crate::support::APPID).mailbox(&url).build().expect("valid");
    soon("a code", waiting.allocate_code(2)).await.expect("allocated");
    // Until the server has stored, and echoed, our half of the key agreement. No status tells of that.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    server.process.kill().await;
    let _server = world.python.mailbox_at(port, &folder.path().join("after.sqlite")).await;
    assert_eq!(soon("a verdict", waiting.verifier()).await, Err(WormholeError::Forgotten));
    assert_eq!(soon("close", waiting.close()).await, Err(WormholeError::Forgotten));
}
