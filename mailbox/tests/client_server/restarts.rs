//! Servers that are restarted in the middle.

use std::time::Duration;

use dilated_mailbox::WormholeError;
use dilated_mailbox::client::Event;

use tokio::time::timeout;

use crate::embedded::{Peer, reserve, serve};

const LONG: Duration = Duration::from_secs(30);

fn join(address: std::net::SocketAddr) -> Peer {
    Peer::join(&[format!("ws://{address}")])
}

#[tokio::test]
async fn a_restart_with_a_file_is_invisible() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mailbox.sqlite");
    let (_port, address) = reserve();
    let server = serve(address, Some(&file)).await;
    // Restarted while one side is lonely: its claim and its key-agreement message are in the file.
    let mut a = join(server.address);
    a.mailbox.allocate_code(2).unwrap();
    let code = a.code().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let address = server.stop().await;
    a.lost().await;
    let server = serve(address, Some(&file)).await;
    let mut b = join(address);
    b.mailbox.set_code(&code).unwrap();
    a.mailbox.reconnect_now();
    a.mailbox.send_message(b"one".to_vec()).unwrap();
    assert_eq!(b.message().await, b"one");
    a.until(|event| matches!(event, Event::Versions(_)).then_some(())).await;
    a.mailbox.send_dilate(b"please".to_vec()).unwrap();
    assert_eq!(b.dilate().await, b"please");
    // And again, with words spoken while it is away.
    let address = server.stop().await;
    a.lost().await;
    b.lost().await;
    a.mailbox.send_message(b"two".to_vec()).unwrap();
    b.mailbox.send_message(b"three".to_vec()).unwrap();
    let server = serve(address, Some(&file)).await;
    a.mailbox.reconnect_now();
    b.mailbox.reconnect_now();
    assert_eq!(b.message().await, b"two");
    assert_eq!(a.message().await, b"three");
    assert_eq!((a.close().await, b.close().await), (Ok(()), Ok(())));
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_forgot_everything_still_carries_on() {
    let (_port, address) = reserve();
    let server = serve(address, None).await;
    let (mut a, mut b) = (join(server.address), join(server.address));
    a.mailbox.allocate_code(2).unwrap();
    b.mailbox.set_code(&a.code().await).unwrap();
    a.mailbox.send_message(b"one".to_vec()).unwrap();
    b.mailbox.send_message(b"two".to_vec()).unwrap();
    assert_eq!((b.message().await, a.message().await), (b"one".to_vec(), b"two".to_vec()));
    let address = server.stop().await;
    a.lost().await;
    b.lost().await;
    let server = serve(address, None).await;
    a.mailbox.reconnect_now();
    b.mailbox.reconnect_now();
    a.mailbox.send_message(b"three".to_vec()).unwrap();
    assert_eq!(b.message().await, b"three");
    assert_eq!((a.close().await, b.close().await), (Ok(()), Ok(())));
    server.stop().await;
}

#[tokio::test]
async fn the_third_is_crowded_out() {
    let server = serve("127.0.0.1:0".parse().unwrap(), None).await;
    let (mut a, mut b) = (join(server.address), join(server.address));
    // Two who have not said their words yet keep the nameplate busy, so nobody releases it here.
    for peer in [&mut a, &mut b] {
        let input = peer.mailbox.input_code().unwrap();
        input.choose_nameplate("7").unwrap();
        timeout(LONG, input.wait_for_wordlist()).await.unwrap().unwrap();
    }
    let mut c = join(server.address);
    c.mailbox.set_code("7-x").unwrap();
    let ended = c.until(|event| if let Event::Closed(result) = event { Some(result) } else { None }).await;
    // Either the nameplate or the mailbox behind it is full.
    assert_eq!(ended, Err(WormholeError::Crowded));
    assert_eq!(a.close().await, Err(WormholeError::Lonely));
    assert_eq!(b.close().await, Err(WormholeError::Lonely));
    server.stop().await;
}
