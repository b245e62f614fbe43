//! What two of ours have of `dilated-1`: flow control for each subchannel, codes, datagrams, recovery from either side
//! without the mailbox, two links at a time.

use std::time::Duration;

use bytes::Bytes;
use dilated::{
    Client, ConnectError, Dialect, DilateConfig, Dilated, DilationError, LinkStatus, OpenOptions, ReadError,
    RolePreference, Server, Subchannel, Wormhole, WriteError,
};
use futures::{FutureExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    common::{Servers, patient, soon},
    proxied::{Proxied, hurry},
};

/// A pair, its triples taken.
struct Pair {
    wormholes: (Wormhole, Wormhole),
    leader: Dilated,
    follower: Dilated,
    client: Client,
    server: Server,
}

impl Pair {
    async fn start(servers: &Servers) -> Pair {
        Pair::with(servers, |role| servers.config(role)).await
    }

    async fn with(servers: &Servers, config: impl Fn(RolePreference) -> DilateConfig) -> Pair {
        let (a, b) = servers.pair().await;
        let mut leader = a.dilate(config(RolePreference::Leader)).expect("dilate");
        let mut follower = b.dilate(config(RolePreference::Follower)).expect("dilate");
        let (_, client, _) = leader.endpoints().expect("first time");
        let (_, _, server) = follower.endpoints().expect("first time");
        soon("a link", leader.connected()).await.expect("connected");
        soon("a link", follower.connected()).await.expect("connected");
        Pair { wormholes: (a, b), leader, follower, client, server }
    }

    async fn subchannel(&mut self) -> (Subchannel, Subchannel) {
        let mut out = soon("an open", self.client.connect()).await.expect("open");
        let incoming = soon("an incoming one", self.server.accept()).await.expect("listening");
        soon("the answer", out.opened()).await.expect("accepted");
        (out, incoming)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_ours_speak_it_unless_one_does_not_offer_it() {
    let servers = Servers::start(Dialect::Dilated1).await;
    let pair = Pair::start(&servers).await;
    assert_eq!(pair.leader.status().dialect, Some(Dialect::Dilated1));
    assert_eq!(pair.follower.status().dialect, Some(Dialect::Dilated1));

    let old = Wormhole::builder("dilated.test/pair").mailbox(&servers.mailbox).dialects(&[Dialect::Ged]);
    let (a, b) = (servers.wormhole(), old.build().expect("a valid address"));
    let code = soon("the code", a.allocate_code(2)).await.expect("a code");
    b.set_code(&code.to_string()).expect("a good code");
    let ours = a.dilate(servers.config(RolePreference::Leader)).expect("dilate");
    let theirs = b.dilate(servers.config(RolePreference::Follower)).expect("dilate");
    soon("a link", ours.connected()).await.expect("connected");
    soon("a link", theirs.connected()).await.expect("connected");
    assert_eq!((ours.status().dialect, theirs.status().dialect), (Some(Dialect::Ged), Some(Dialect::Ged)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stalls_costs_nobody_else_anything() {
    let servers = Servers::start(Dialect::Dilated1).await;
    let mut pair = Pair::start(&servers).await;
    let (mut stalled, _unread) = pair.subchannel().await;
    let filling = tokio::spawn(async move { while stalled.write_all(&[1; 65_536]).await.is_ok() {} });
    for _ in 0..20 {
        let (mut out, mut incoming) = pair.subchannel().await;
        let sending = async {
            out.write_all(&vec![2; 1 << 20]).await.expect("written");
            out.shutdown().await.expect("ended");
        };
        let mut bytes = Vec::new();
        let (_, read) =
            soon("a megabyte", async { tokio::join!(sending, incoming.read_to_end(&mut bytes)) }).await;
        assert_eq!(read.expect("a clean end"), 1 << 20);
    }
    assert!(!filling.is_finished(), "the stalled one waits");
    assert!(pair.follower.usage().receive_bytes < 1 << 20, "{:?}", pair.follower.usage());
    filling.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_up_says_why() {
    let servers = Servers::start(Dialect::Dilated1).await;
    let mut pair = Pair::start(&servers).await;
    let (mut out, mut incoming) = pair.subchannel().await;
    out.write_all(b"some").await.expect("written");
    out.reset(7);
    let reset = loop {
        match soon("the reset", incoming.recv()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a reset is no clean end"),
            Err(error) => break error,
        }
    };
    let ReadError::Reset { code } = reset else { panic!("another error: {reset}") };
    assert_eq!(code.application(), Some(7));

    let (mut out, mut incoming) = pair.subchannel().await;
    incoming.stop(9);
    let stopped = soon("the stop", async {
        loop {
            if let Err(error) = out.send(Bytes::from_static(b"more")).await {
                break error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let WriteError::Stopped { code } = stopped else { panic!("another error: {stopped}") };
    assert_eq!(code.application(), Some(9));

    let mut nobody =
        pair.leader.connector_for("nobody listens").expect("a name").connect().await.expect("open");
    assert!(soon("the answer", nobody.opened()).await.is_err());
    let refused = soon("the end", nobody.recv()).await;
    assert!(matches!(refused, Err(ReadError::Refused { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_keep_their_ends_and_urgent_ones_overtake() {
    let servers = Servers::start(Dialect::Dilated1).await;
    let mut pair = Pair::start(&servers).await;
    let (mut out, mut incoming) = pair.subchannel().await;
    let messages: Vec<Bytes> =
        [0, 1, 100, 65_536, 3 << 20, 0, 7].into_iter().map(|n| Bytes::from(vec![7; n])).collect();
    let sending = async {
        for message in &messages {
            out.send(message.clone()).await.expect("sent");
        }
    };
    let receiving = async {
        for message in &messages {
            assert_eq!(incoming.recv().await.expect("open").as_ref(), Some(message));
        }
    };
    soon("the messages", async { tokio::join!(sending, receiving) }).await;

    let connector = pair.leader.connector_for("stream").expect("a name");
    let urgent: Result<Subchannel, ConnectError> =
        connector.connect_with(OpenOptions::default().priority(0)).await;
    let mut urgent = urgent.expect("open");
    urgent.send(Bytes::from_static(b"first")).await.expect("sent");
    let mut incoming = soon("the urgent one", pair.server.accept()).await.expect("listening");
    assert_eq!(soon("its word", incoming.recv()).await.expect("open").as_deref(), Some(&b"first"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_channel_needs_nobody_to_open_it() {
    let servers = Servers::start(Dialect::Dilated1).await;
    let (_a, mut leader, _b, mut follower) = servers.dilated().await;
    let (control, ..) = follower.endpoints().expect("first time");
    // The Follower speaks before the Leader's program has even asked for its end.
    let mut theirs = soon("control", control.connect()).await.expect("there");
    theirs.send(Bytes::from_static(b"hello")).await.expect("sent");
    soon("the acknowledgement", theirs.acknowledged()).await.expect("acknowledged");
    let (control, ..) = leader.endpoints().expect("first time");
    let mut ours = soon("control", control.connect()).await.expect("there");
    assert_eq!(soon("a message", ours.recv()).await.expect("open").as_deref(), Some(&b"hello"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_arrive_whole() {
    let servers = Servers::start(Dialect::Dilated1).await;
    let mut pair = Pair::start(&servers).await;
    let (mut out, mut incoming) = pair.subchannel().await;
    let largest = out.max_datagram_size();
    for length in [0, 1, largest] {
        let arrival = async {
            // One is lost when a link takes the place of another, so it is sent until it gets through.
            let mut again = tokio::time::interval(Duration::from_millis(200));
            loop {
                tokio::select! {
                    _ = again.tick() => out.send_datagram(Bytes::from(vec![3; length])).expect("it fits"),
                    came = incoming.recv_datagram() => {
                        let came = came.expect("open").expect("not ended");
                        assert!(came.len() <= length && came.iter().all(|byte| *byte == 3));
                        if came.len() == length {
                            return;
                        }
                    }
                }
            }
        };
        soon("a datagram", arrival).await;
    }
    out.send_datagram(Bytes::from(vec![3; largest + 1])).expect_err("too long");
}

/// A chunk goes across, whatever happens to links.
async fn converse(out: &mut Subchannel, incoming: &mut Subchannel, what: &'static [u8]) {
    out.send(Bytes::from_static(what)).await.expect("sent");
    assert_eq!(soon("a message", incoming.recv()).await.expect("open").as_deref(), Some(what));
}

/// Waits for a link of this generation.
async fn linked_in(side: &Dilated, generation: u64) {
    let mut changes = side.status_changes();
    let linked = async {
        while let Some(status) = changes.next().await {
            let connected = matches!(status.link, LinkStatus::Connected { .. });
            if connected && status.generation.get() == generation {
                return;
            }
            assert!(status.generation.get() <= generation, "{status:?}");
        }
    };
    soon("a link", linked).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_starts_the_next_generation_and_no_mailbox_is_needed() {
    let servers = Proxied::start(Dialect::Dilated1).await;
    for relayed in [false, true] {
        let mut pair = Pair::with(&servers.servers, |role| {
            let mut config = if relayed { servers.config(role) } else { servers.servers.config(role) };
            hurry(&mut config);
            patient(&mut config);
            config
        })
        .await;
        let (mut out, mut incoming) = pair.subchannel().await;
        converse(&mut out, &mut incoming, b"one").await;
        servers.mailbox.shut();
        for (generation, leader_gives_up) in [(1, true), (2, false), (3, true), (4, false)] {
            let gives_up = if leader_gives_up { &pair.leader } else { &pair.follower };
            gives_up.abandon_link();
            for side in [&pair.leader, &pair.follower] {
                linked_in(side, generation).await;
            }
            converse(&mut out, &mut incoming, b"again").await;
            converse(&mut incoming, &mut out, b"and back").await;
        }
        servers.heal();
    }
}

/// Waits until both sides have a link that stands by.
async fn two_links(pair: &Pair) {
    soon("a second link", async {
        while pair.leader.status().standby.is_none() || pair.follower.status().standby.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_stands_by_takes_over_within_the_generation() {
    let servers = Proxied::start(Dialect::Dilated1).await;
    let mut pair = Pair::with(&servers.servers, |role| {
        let mut config = servers.config(role);
        config.listen = true;
        config.loopback = true;
        config.standby = true;
        config
    })
    .await;
    let (mut out, mut incoming) = pair.subchannel().await;
    // A side may take a link for one that stands by which the other has closed already; then both are lost. That is rare,
    // and costs a generation.
    let mut within = 0;
    for _ in 0..20 {
        two_links(&pair).await;
        let before = [&pair.leader, &pair.follower].map(|side| side.status().generation);
        let mut changes = pair.follower.status_changes();
        pair.leader.abandon_link();
        converse(&mut out, &mut incoming, b"still here").await;
        converse(&mut incoming, &mut out, b"so are we").await;
        if [&pair.leader, &pair.follower].map(|side| side.status().generation) == before {
            within += 1;
            while let Some(Some(status)) = changes.next().now_or_never() {
                assert!(matches!(status.link, LinkStatus::Connected { .. }), "{status:?}");
            }
        }
    }
    assert!(within > 0, "each time the link that stood by was not used");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_closes_says_goodbye() {
    let servers = Servers::start(Dialect::Dilated1).await;
    let mut pair = Pair::start(&servers).await;
    let (mut out, mut incoming) = pair.subchannel().await;
    out.send(Bytes::from_static(b"last")).await.expect("sent");
    soon("the close", pair.wormholes.0.close()).await.expect("in order");
    assert_eq!(soon("the last word", incoming.recv()).await.expect("open").as_deref(), Some(&b"last"[..]));
    assert!(matches!(soon("the end", incoming.recv()).await, Err(ReadError::Ended(_))));
    soon("the end", async {
        while !matches!(pair.follower.status().link, LinkStatus::Stopped { .. }) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let LinkStatus::Stopped { error } = pair.follower.status().link else { panic!("it ended") };
    assert_eq!(error, Some(DilationError::PeerClosed));
}
