//! The hostile side, as far as the mailbox and the handshakes: it has the code, so it has the key.

use std::{net::SocketAddr, str::FromStr};

use dilated_mailbox::{
    client::{ClientConfig, Event},
    net::{Mailbox, MailboxUrl, client},
};
use dilated_transit::{DilationKey, Ephemeral, HandshakeLimits, KCM, LinkHandshake, Offer, Role, has_aes};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
};

use crate::{
    wire::Wire,
    world::{APPID, soon},
};

pub(crate) struct Hostile {
    mailbox: Mailbox,
    driving: JoinHandle<()>,
    pub(crate) role: Role,
    key: DilationKey,
    /// Where the victim listens.
    pub(crate) victim: SocketAddr,
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

impl Hostile {
    /// Joins the mailbox and says `please`; knows where the victim listens.
    pub(crate) async fn meet(url: &str, code: &str, role: Role) -> Hostile {
        let mut config = ClientConfig::new(APPID);
        config.can_dilate = vec!["dilated-1".to_owned(), "ged".to_owned()];
        let url = MailboxUrl::from_str(url).expect("a good address");
        let (mailbox, mut driver) = client(vec![url], config).expect("an address was given");
        mailbox.set_code(code).expect("a good code");
        let (tell, mut told) = mpsc::unbounded_channel();
        let driving = tokio::spawn(async move {
            loop {
                let event = driver.next().await;
                let over = matches!(event, Event::Closed(_));
                // The tests look at the first few events only.
                let _ = tell.send(event);
                if over {
                    break;
                }
            }
        });
        let (mut key, mut victim) = (None, None);
        while victim.is_none() {
            match told.recv().await.expect("the mailbox stays") {
                Event::Versions(versions) => {
                    assert!(versions.can_dilate.iter().any(|name| name == "dilated-1"), "{versions:?}");
                    key = Some(mailbox.key().expect("it was proved").derive("dilation-v1", 32));
                    say(&mailbox, &please(role));
                }
                Event::Dilate(message) => victim = listener(&message),
                Event::Closed(result) => panic!("the mailbox was closed: {result:?}"),
                _ => {}
            }
        }
        let key: [u8; 32] = key.and_then(|key| key.try_into().ok()).expect("32 bytes were asked for");
        Hostile { mailbox, driving, role, key: DilationKey::new(key), victim: victim.expect("found") }
    }

    /// Says something through the mailbox.
    pub(crate) fn say(&self, message: &Value) {
        say(&self.mailbox, message);
    }

    /// Hints to these addresses, of this generation.
    pub(crate) fn say_hints(&self, hints: &[Value], generation: u64) {
        self.say(&json!({"type": "connection-hints", "hints": hints, "generation": generation}));
    }

    /// A connection to the victim on which nothing was said.
    pub(crate) async fn connect(&self) -> TcpStream {
        let stream = soon("a connection", TcpStream::connect(self.victim)).await.expect("it listens");
        stream.set_nodelay(true).expect("a TCP socket");
        stream
    }

    pub(crate) fn handshake(&self, offer: Offer) -> LinkHandshake {
        let ephemeral = Ephemeral::generate(&mut rand::rng());
        let (key, limits) = (self.key.clone(), HandshakeLimits::default());
        LinkHandshake::dilated1(self.role, key, ephemeral, None, limits, has_aes(), offer)
    }

    /// A link that the Leader has selected.
    pub(crate) async fn link(&self, generation: u64) -> Wire {
        let mut wire = self.deaf_link(generation).await;
        wire.listen();
        wire
    }

    /// A link whose hostile end does not read.
    pub(crate) async fn deaf_link(&self, generation: u64) -> Wire {
        soon("a handshake", self.shake(generation)).await
    }

    async fn shake(&self, generation: u64) -> Wire {
        let mut handshake = self.handshake(Offer { generation, linked: false });
        let mut stream = self.connect().await;
        drive(&mut handshake, &mut stream, LinkHandshake::is_confirmed).await;
        let (sealer, opener) = handshake.into_pipe().expect("confirmed");
        let mut wire = Wire::new(stream, sealer, opener);
        if self.role == Role::Leader {
            wire.record(KCM).await.expect("the victim waits for it");
        }
        wire
    }
}

/// Goes on with an honest handshake until it is `done`.
pub(crate) async fn drive(
    handshake: &mut LinkHandshake,
    stream: &mut TcpStream,
    done: impl Fn(&LinkHandshake) -> bool,
) {
    let mut buffer = [0; 1024];
    while !done(handshake) {
        if let Some(bytes) = handshake.poll_output() {
            stream.write_all(&bytes).await.expect("the victim listens");
            continue;
        }
        let read = stream.read(&mut buffer).await.expect("the victim answers");
        assert!(read > 0, "the victim hung up: {}", handshake.handle_eof());
        handshake.handle_input(&buffer[..read]).expect("the victim is honest");
    }
}

fn say(mailbox: &Mailbox, message: &Value) {
    mailbox.send_dilate(message.to_string().into_bytes()).expect("the mailbox is open");
}

fn please(role: Role) -> Value {
    let side = match role {
        Role::Leader => "ffffffffffffffff",
        Role::Follower => "0000000000000000",
    };
    json!({"type": "please", "side": side, "use-version": "dilated-1",
           "dilated-1": {"aes": has_aes(), "message": 1 << 20, "datagram": 1200}})
}

/// The address on loopback in a message with hints.
fn listener(message: &[u8]) -> Option<SocketAddr> {
    let message: Value = serde_json::from_slice(message).expect("the victim speaks JSON");
    let hints = message.get("hints")?.as_array()?;
    hints.iter().find_map(|hint| {
        let port = hint.get("port")?.as_u64()?;
        (hint.get("hostname")?.as_str()? == "127.0.0.1")
            .then(|| SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).expect("a port"))))
    })
}
