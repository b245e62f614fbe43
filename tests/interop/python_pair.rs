//! Two dilating Python peers through our servers.

use dilated_tests::{
    data::Data,
    python::{PeerOptions, PeerRole},
};
use serde_json::json;

use crate::support::{Servers, World};

#[tokio::test]
async fn two_python_peers_dilate_through_our_servers() {
    let Some(world) = World::new(Servers::Ours).await else { return };
    for relayed in [false, true] {
        let mut options = PeerOptions::new(&world.mailbox, PeerRole::Leader);
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
