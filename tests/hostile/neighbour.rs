//! An ordinary pair in the same process that transfers data while its neighbour is abused.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use dilated::{Dilated, RolePreference, Wormhole};
use dilated_tests::data::Data;
use tokio::{io::AsyncWriteExt, task::JoinHandle};

use crate::world::{APPID, config, soon};

/// Written at a time, and acknowledged at once; then the next is written.
const PIECE: usize = 256 << 10;
/// The transfer has at least this many bytes.
const LEAST: u64 = 1 << 20;

pub(crate) struct Neighbour {
    over: Arc<AtomicBool>,
    sending: JoinHandle<u64>,
    receiving: JoinHandle<u64>,
    /// They live as long as the transfer.
    _pair: [(Wormhole, Dilated); 2],
}

impl Neighbour {
    /// A pair at this mailbox server, whose transfer has begun.
    pub(crate) async fn start(mailbox: &str) -> Neighbour {
        let wormhole = || Wormhole::builder(APPID).mailbox(mailbox).build().expect("a valid address");
        let (a, b) = (wormhole(), wormhole());
        let code = soon("the code", a.allocate_code(2)).await.expect("a code");
        b.set_code(&code.to_string()).expect("a good code");
        let mut leader = a.dilate(config(RolePreference::Leader)).expect("dilate");
        let mut follower = b.dilate(config(RolePreference::Follower)).expect("dilate");
        let (_, client, _) = leader.endpoints().expect("first time");
        let (_, _, mut server) = follower.endpoints().expect("first time");
        soon("a link of the neighbours", leader.connected()).await.expect("connected");
        let mut out = soon("an open", client.connect()).await.expect("open");
        let over = Arc::new(AtomicBool::new(false));
        let data = Data::new(5);
        let mut check = data.check();
        let sending = tokio::spawn({
            let over = over.clone();
            async move {
                let mut sent = 0;
                while sent < LEAST || !over.load(Ordering::Relaxed) {
                    out.write_all(&data.at(sent, PIECE)).await.expect("the neighbours are left alone");
                    out.acknowledged().await.expect("the neighbours are left alone");
                    sent += PIECE as u64;
                }
                out.shutdown().await.expect("the neighbours are left alone");
                sent
            }
        });
        let receiving = tokio::spawn(async move {
            let mut incoming = server.accept().await.expect("listening");
            while let Some(chunk) = incoming.read_chunk().await.expect("the neighbours are left alone") {
                check.push(&chunk);
            }
            check.received()
        });
        Neighbour { over, sending, receiving, _pair: [(a, leader), (b, follower)] }
    }

    /// Lets the transfer come to its end, which has to be the right one.
    pub(crate) async fn finish(self) {
        self.over.store(true, Ordering::Relaxed);
        let sent = soon("the end of the neighbours' transfer", self.sending).await.expect("no panic");
        let received = soon("the end of the neighbours' transfer", self.receiving).await.expect("no panic");
        assert_eq!(received, sent);
    }
}
