//! The relays: two connections of our own must meet there.

use std::{io, time::Duration};

use data_encoding::HEXLOWER;
use dilated::Proxy;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{Check, Mark, advice};
use crate::{clock, quote};

/// For name resolution and TCP.
const CONNECT: Duration = Duration::from_secs(10);

/// For the answer to a request that has its partner.
const ANSWER: Duration = Duration::from_secs(5);

/// What a relay says to two sides that met.
const MET: &[u8] = b"ok\n";

/// The most that is read of what something else says.
const LONGEST_ANSWER: u64 = 512;

/// Tries a relay, and tells whether it can be used.
pub(super) async fn try_out(host: &str, port: u16, proxy: Option<&Proxy>) -> (Check, bool) {
    let name = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let since = clock::now();
    match meet(host, port, proxy).await {
        Ok(()) => {
            let time = quote::duration(clock::now().saturating_duration_since(since));
            (Check::new(Mark::Ok, "relay", format!("tcp:{name}: two sides met there, after {time}")), true)
        }
        Err(reason) => (Check::new(Mark::Warn, "relay", format!("tcp:{name}: {reason}")), false),
    }
}

/// Lets two connections with a fresh token meet. Silence to a single one would prove less: everything that waits for
/// its client to speak first is silent.
async fn meet(host: &str, port: u16, proxy: Option<&Proxy>) -> Result<(), String> {
    let token = HEXLOWER.encode(&rand::random::<[u8; 32]>());
    let mut first = ask(host, port, proxy, &token).await?;
    let mut second = ask(host, port, proxy, &token).await?;
    // Either may be refused, and the one that is not would then wait for ever.
    let both = async { tokio::try_join!(answer(&mut first), answer(&mut second)).map(|_| ()) };
    timeout(ANSWER, both).await.unwrap_or_else(|_| {
        Err(format!(
            "it takes connections, but did not bring two sides together within {} s; it is no transit relay, or \
             overloaded",
            ANSWER.as_secs()
        ))
    })
}

/// Connects, and asks for the meeting `token` as a new side.
async fn ask(host: &str, port: u16, proxy: Option<&Proxy>, token: &str) -> Result<TcpStream, String> {
    let failed = |reason: String| format!("{reason}; {}", advice(&reason));
    let connecting = async {
        match proxy {
            Some(proxy) => proxy.dial(host, port).await,
            None => TcpStream::connect((host, port)).await,
        }
    };
    let mut stream = match timeout(CONNECT, connecting).await {
        Ok(stream) => stream.map_err(|error| failed(error.to_string()))?,
        Err(_) => return Err(failed(format!("no answer within {} s", CONNECT.as_secs()))),
    };
    let side = HEXLOWER.encode(&rand::random::<[u8; 8]>());
    let request = format!("please relay {token} for side {side}\n");
    // A few bytes fit into any new connection; a peer that is gone already is told by reading.
    let _: io::Result<()> = stream.write_all(request.as_bytes()).await;
    Ok(stream)
}

/// Waits for the answer that two sides get which met.
async fn answer(stream: &mut TcpStream) -> Result<(), String> {
    let mut said = Vec::new();
    let mut stream = stream.take(LONGEST_ANSWER);
    while said != MET {
        // A reset is an end as well.
        let ended = stream.read_buf(&mut said).await.map_or(true, |count| count == 0);
        let refused = said.contains(&b'\n') && said != MET;
        if ended || refused {
            return Err(refusal(&said));
        }
    }
    Ok(())
}

/// What an answer means that is not the relay's consent.
fn refusal(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        "it closed the connection without a word; it is no transit relay, or does not serve this address"
            .to_owned()
    } else if line.starts_with("HTTP/") || line.starts_with('<') {
        format!("a web server answers there ({line}); check the port of the relay")
    } else if line.starts_with("bad handshake") {
        "it does not understand the request (bad handshake); it is no relay of this protocol".to_owned()
    } else if line.starts_with("relay full") {
        "it is full; try again later, or name another with --relay".to_owned()
    } else {
        format!("something else than a relay answers there ({line}); check the address and the port")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_explained() {
        assert!(refusal(b"HTTP/1.1 400 Bad Request\r\n\r\n").contains("(HTTP/1.1 400 Bad Request)"));
        assert!(refusal(b"").contains("without a word"));
        assert!(refusal(b"bad handshake\n").contains("bad handshake"));
        assert!(refusal(b"SSH-2.0-OpenSSH\r\n").contains("something else"));
        assert!(refusal(b"relay full").contains("try again later"));
    }
}
