//! Several addresses of a server, servers that move, and servers that forget.

use std::time::Duration;

use dilated_mailbox::WormholeError;
use dilated_mailbox::client::Event;
use dilated_mailbox::net::NetConfig;
use dilated_mailbox::server::ServerConfig;

use crate::embedded::{Peer, serve, serve_with};
use crate::gate::{Gate, Way};

const ANYWHERE: &str = "127.0.0.1:0";

/// Two who have met, with the same addresses.
async fn pair(urls: &[String]) -> (Peer, Peer) {
    let (mut a, mut b) = (Peer::join(urls), Peer::join(urls));
    a.mailbox.allocate_code(2).unwrap();
    b.mailbox.set_code(&a.code().await).unwrap();
    a.met().await;
    b.met().await;
    (a, b)
}

/// Sends so many numbers from `from` on to each of the two streams.
fn send(peer: &Peer, from: u8, count: u8) {
    for n in from..from + count {
        peer.mailbox.send_message(vec![n]).unwrap();
        peer.mailbox.send_dilate(vec![n]).unwrap();
    }
}

/// Waits for the number `last` in both streams. All that was received must be all numbers from 0 on, each once and in
/// order.
async fn read_to(peer: &mut Peer, last: u8) {
    let all: Vec<_> = (0..=last).map(|n| vec![n]).collect();
    while peer.received.iter().any(|stream| stream.len() < all.len()) {
        peer.until(|event| matches!(event, Event::Message(_) | Event::Dilate(_)).then_some(())).await;
    }
    assert_eq!(peer.received, [all.clone(), all]);
}

/// Time for a server to store and echo what was just sent. That it did is not visible from outside; if it did not, the
/// test that relies on it is weaker, and still right.
async fn echoed() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn the_first_that_works_is_used_and_kept() {
    let server = serve(ANYWHERE.parse().unwrap(), None).await;
    let (first, second) = (Gate::new(Way::Shut).await, Gate::new(Way::To(server.address)).await);
    let mut peer = Peer::join(&[first.url(), second.url()]);
    peer.connected().await;
    assert_eq!((first.came(), second.came()), (1, 1));
    // The first is back. The second worked last, so it is asked first.
    first.lead(Way::To(server.address));
    second.lead(Way::To(server.address));
    peer.connected().await;
    assert_eq!((first.came(), second.came()), (1, 2));
    // And from there, the round goes on to the first.
    second.lead(Way::Shut);
    peer.connected().await;
    assert_eq!(first.came(), 2);
    assert_eq!(peer.close().await, Err(WormholeError::Lonely));
    server.stop().await;
}

#[tokio::test]
async fn an_address_that_swallows_everything_does_not_hold_up_the_next() {
    let server = serve(ANYWHERE.parse().unwrap(), None).await;
    let (first, second) = (Gate::new(Way::Nowhere).await, Gate::new(Way::To(server.address)).await);
    let mut net = NetConfig::default();
    net.connect_timeout = Duration::from_secs(3600);
    net.address_stagger = Duration::from_millis(50);
    let mut peer = Peer::join_with(&[first.url(), second.url()], net);
    peer.connected().await;
    assert_eq!((first.came(), second.came()), (1, 1));
    assert_eq!(peer.close().await, Err(WormholeError::Lonely));
    server.stop().await;
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_passed_over() {
    let server = serve(ANYWHERE.parse().unwrap(), None).await;
    let good = Gate::new(Way::To(server.address)).await;
    // A label may have 63 characters, so nobody is asked about this one.
    let unknown = format!("ws://{}:4000/v1", "x".repeat(64));
    let mut peer = Peer::join(&[unknown.clone(), good.url()]);
    peer.connected().await;
    assert_eq!(peer.close().await, Err(WormholeError::Lonely));

    // The error tells about each address.
    good.lead(Way::Shut);
    let error = Peer::join(&[unknown.clone(), good.url()]).closed().await.unwrap_err();
    let WormholeError::Connection { url, reason } = error else { panic!("{error:?}") };
    assert_eq!(url, good.url());
    assert!(reason.contains(&unknown) && reason.contains("cannot be resolved"), "{reason}");
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_moves_with_its_state_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mailbox.sqlite");
    let server = serve(ANYWHERE.parse().unwrap(), Some(&file)).await;
    let (old, new) = (Gate::new(Way::To(server.address)).await, Gate::new(Way::Shut).await);
    let (mut a, mut b) = pair(&[old.url(), new.url()]).await;
    send(&a, 0, 2);
    send(&b, 0, 2);
    echoed().await;
    old.lead(Way::Shut);
    server.stop().await;
    a.lost().await;
    b.lost().await;
    send(&a, 2, 3);
    send(&b, 2, 3);
    let server = serve(ANYWHERE.parse().unwrap(), Some(&file)).await;
    new.lead(Way::To(server.address));
    a.mailbox.network_changed();
    b.mailbox.network_changed();
    a.connected().await;
    b.connected().await;
    send(&a, 5, 1);
    send(&b, 5, 1);
    read_to(&mut a, 5).await;
    read_to(&mut b, 5).await;
    assert_eq!((a.close().await, b.close().await), (Ok(()), Ok(())));
    server.stop().await;
}

#[tokio::test]
async fn another_server_without_the_state_is_told_everything_again() {
    let first = serve(ANYWHERE.parse().unwrap(), None).await;
    let second = serve(ANYWHERE.parse().unwrap(), None).await;
    // Each has its own way to the first server.
    let (a_gate, b_gate) = (Gate::new(Way::To(first.address)).await, Gate::new(Way::To(first.address)).await);
    let fallback = format!("ws://{}", second.address);
    let (mut a, mut b) =
        (Peer::join(&[a_gate.url(), fallback.clone()]), Peer::join(&[b_gate.url(), fallback.clone()]));
    a.mailbox.allocate_code(2).unwrap();
    b.mailbox.set_code(&a.code().await).unwrap();
    a.met().await;
    b.met().await;
    // One has moved already while the other speaks to the first server, which echoes it.
    b_gate.lead(Way::Shut);
    b.connected().await;
    send(&a, 0, 3);
    send(&b, 0, 3);
    echoed().await;
    a_gate.lead(Way::Shut);
    a.connected().await;
    send(&a, 3, 1);
    send(&b, 3, 1);
    read_to(&mut b, 3).await;
    read_to(&mut a, 3).await;
    assert_eq!((a.close().await, b.close().await), (Ok(()), Ok(())));
    assert_eq!(second.handle.stats().usage.mailboxes.happy, 1);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn another_server_before_the_two_have_met_is_the_end_of_the_code() {
    let first = serve(ANYWHERE.parse().unwrap(), None).await;
    let second = serve(ANYWHERE.parse().unwrap(), None).await;
    let gate = Gate::new(Way::To(first.address)).await;
    let mut peer = Peer::join(&[gate.url(), format!("ws://{}", second.address)]);
    peer.mailbox.allocate_code(2).unwrap();
    peer.code().await;
    echoed().await;
    gate.lead(Way::Shut);
    assert_eq!(peer.closed().await, Err(WormholeError::Forgotten));
    first.stop().await;
    second.stop().await;
}

/// Both machines sleep longer than the server keeps a mailbox in which nobody is.
#[tokio::test]
async fn two_who_slept_too_long_find_each_other_again() {
    let config = ServerConfig {
        prune_interval: Duration::from_millis(100),
        prune_idle: Duration::from_millis(1500),
        ..ServerConfig::default()
    };
    let server = serve_with(ANYWHERE.parse().unwrap(), config).await;
    let open = Way::To(server.address);
    let (a_gate, b_gate) = (Gate::new(open).await, Gate::new(open).await);
    let (mut a, mut b) = (Peer::join(&[a_gate.url()]), Peer::join(&[b_gate.url()]));
    a.mailbox.allocate_code(2).unwrap();
    b.mailbox.set_code(&a.code().await).unwrap();
    a.met().await;
    b.met().await;
    for round in 0..2 {
        let first = round * 3;
        // One falls asleep, the other speaks, the server echoes it, and then nobody is there.
        b_gate.lead(Way::Shut);
        b.lost().await;
        send(&a, first, 1);
        echoed().await;
        a_gate.lead(Way::Shut);
        a.lost().await;
        let pruned = || server.handle.stats().usage.mailboxes.pruney;
        for _ in 0..1000 {
            if pruned() > u64::from(round) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(pruned(), u64::from(round) + 1);
        send(&b, first, 1);
        a_gate.lead(open);
        b_gate.lead(open);
        a.mailbox.network_changed();
        b.mailbox.network_changed();
        a.connected().await;
        b.connected().await;
        send(&a, first + 1, 2);
        send(&b, first + 1, 2);
        read_to(&mut a, first + 2).await;
        read_to(&mut b, first + 2).await;
    }
    assert_eq!((a.close().await, b.close().await), (Ok(()), Ok(())));
    server.stop().await;
}
