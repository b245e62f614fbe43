//! Python's own programs through our servers: `wormhole send` and `receive`, and two dilating Python peers.

use std::path::Path;

use dilated_tests::{data::Data, python::PeerRole};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::support::{Servers, World, soon};

fn wormhole(world: &World, folder: &Path) -> Command {
    let mut command = world.python.tool("wormhole");
    command.args(["--relay-url", &world.mailbox, "--transit-helper", &world.relay]).current_dir(folder);
    command
}

/// Runs `wormhole send ARGS` and `wormhole receive` in two folders; both must succeed.
async fn send_and_receive(world: &World, from: &Path, to: &Path, args: &[&str], relayed: bool) -> String {
    let no_listen: &[&str] = if relayed { &["--no-listen"] } else { &[] };
    let mut sender = wormhole(world, from)
        .arg("send")
        .args(no_listen)
        .args(args)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("wormhole starts");
    let mut lines = BufReader::new(sender.stderr.take().expect("piped")).lines();
    let code = loop {
        let line = soon("a code", lines.next_line()).await.expect("readable").expect("not the end");
        if let Some(code) = line.strip_prefix("Wormhole code is: ") {
            break code.to_owned();
        }
    };
    let drain = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    let mut receive = wormhole(world, to);
    receive
        .stderr(std::process::Stdio::piped())
        .args(["receive", "--accept-file"])
        .args(no_listen)
        .arg(&code);
    let received = soon("receiving", receive.output()).await.expect("wormhole runs");
    assert!(received.status.success(), "{}", String::from_utf8_lossy(&received.stderr));
    assert!(soon("sending", sender.wait()).await.expect("wormhole ran").success());
    soon("its output", drain).await.expect("no panic");
    String::from_utf8_lossy(&received.stdout).into_owned()
}

#[tokio::test]
async fn wormhole_send_and_receive_work_through_our_servers() {
    let Some(world) = World::new(Servers::Ours).await else { return };
    let (from, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));

    let text = send_and_receive(&world, from.path(), to.path(), &["--text", "hello there"], false).await;
    assert!(text.contains("hello there"), "{text}");

    for (name, relayed) in [("direct.bin", false), ("relayed.bin", true)] {
        let content = Data::new(6).at(0, 5_000_000);
        std::fs::write(from.path().join(name), &content).expect("written");
        send_and_receive(&world, from.path(), to.path(), &[name], relayed).await;
        assert!(std::fs::read(to.path().join(name)).expect("received") == content, "{name} differs");
    }

    let folder = from.path().join("folder");
    std::fs::create_dir(&folder).expect("made");
    std::fs::write(folder.join("a"), "A").expect("written");
    send_and_receive(&world, from.path(), to.path(), &["folder"], false).await;
    assert_eq!(std::fs::read(to.path().join("folder/a")).expect("received"), b"A");
}

#[tokio::test]
async fn two_python_peers_dilate_through_our_servers() {
    let Some(world) = World::new(Servers::Ours).await else { return };
    for relayed in [false, true] {
        let mut options = dilated_tests::python::PeerOptions::new(&world.mailbox, PeerRole::Leader);
        options.relay = Some(&world.relay);
        options.listen = !relayed;
        let mut leader = world.python.peer(&options).await;
        options.role = PeerRole::Follower;
        let mut follower = world.python.peer(&options).await;
        leader.send(json!({"cmd": "allocate-code"})).await;
        let code = leader.expect("code").await["code"].clone();
        follower.send(json!({"cmd": "set-code", "code": code})).await;
        leader.send(json!({"cmd": "dilate"})).await;
        follower.send(json!({"cmd": "dilate", "listen": [{"name": "sink", "mode": "sink"}]})).await;
        leader.expect("dilated").await;
        let size = 4_000_000;
        leader
            .send(
                json!({"cmd": "open", "id": "s", "name": "sink", "mode": "source", "size": size, "seed": 9}),
            )
            .await;
        let closed = follower.expect_with("closed", json!({"name": "sink"})).await;
        assert_eq!(closed["sha256"], Data::new(9).sha256(size));
        leader.finish().await;
        follower.finish().await;
    }
}
