//! The HTTP request that opens a websocket, and the answers to all others.

use std::{io, net::IpAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::handshake::{
    machine::TryParse,
    server::{Request, create_response, write_response},
};

use super::address::PeerAddress;

/// A request is a few hundred bytes; proxies add some. More is an attack on memory.
const LONGEST_HEAD: usize = 8 << 10;

/// The head of a request, and what the client sent after it.
pub(super) struct Head {
    pub(super) request: Request,
    pub(super) rest: Vec<u8>,
    /// It was `HEAD`, which wants the answer to `GET` without its body.
    pub(super) head_only: bool,
}

/// An answer that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) status: &'static str,
    pub(super) body: &'static str,
}

impl Reply {
    const BAD: Self = Self {
        status: "400 Bad Request",
        body: "This is a mailbox server; it did not understand the request.\n",
    };
    const METHOD: Self = Self { status: "405 Method Not Allowed", body: "Only GET is understood here.\n" };
    const TOO_LARGE: Self =
        Self { status: "431 Request Header Fields Too Large", body: "The request is too large.\n" };
    pub(super) const FULL: Self = Self {
        status: "503 Service Unavailable",
        body: "This server has too many connections; try again later.\n",
    };
    pub(super) const TOO_MANY: Self = Self {
        status: "429 Too Many Requests",
        body: "Your address has too many connections to this server.\n",
    };

    /// The whole reply. `head_only` leaves out the body, as `HEAD` wants it.
    pub(super) fn render(self, head_only: bool) -> String {
        let Self { status, body } = self;
        let len = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len}\r\n\
             Connection: close\r\n\r\n{}",
            if head_only { "" } else { body }
        )
    }
}

/// Reads a request up to its empty line. `Ok(Err(_))` is a request that gets a reply instead.
pub(super) async fn read_head(stream: &mut TcpStream) -> io::Result<Result<Head, Reply>> {
    let mut buffer = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // Such as TLS, which has no lines: waiting for an empty one would let the client wait, too.
        if !matches!(buffer[0], b'\r' | b'\n' | b'!'..=b'~') {
            return Ok(Err(Reply::BAD));
        }
        // Parsing only what is complete keeps a client that sends single bytes from making us parse each time.
        let complete =
            buffer.windows(2).any(|two| two == b"\n\n") || buffer.windows(3).any(|three| three == b"\n\r\n");
        if complete {
            return Ok(parse_head(buffer));
        }
        if buffer.len() > LONGEST_HEAD {
            return Ok(Err(Reply::TOO_LARGE));
        }
    }
}

fn parse_head(mut buffer: Vec<u8>) -> Result<Head, Reply> {
    // The parser is one for websockets and knows nothing but GET.
    let head_only = buffer.starts_with(b"HEAD ");
    if head_only {
        buffer.splice(..5, *b"GET ");
    }
    if !buffer.starts_with(b"GET ") && buffer[0].is_ascii_uppercase() {
        return Err(Reply::METHOD);
    }
    match Request::try_parse(&buffer) {
        Ok(Some((len, request))) => Ok(Head { request, rest: buffer.split_off(len), head_only }),
        Ok(None) | Err(_) => Err(Reply::BAD),
    }
}

/// The response that opens the websocket, or the reply to anything else.
pub(super) fn respond(request: &Request) -> Result<Vec<u8>, Reply> {
    let upgrade = request.headers().contains_key("upgrade");
    match request.uri().path() {
        "/v1" | "/v1/" if upgrade => {
            let mut bytes = Vec::new();
            create_response(request)
                .and_then(|response| write_response(&mut bytes, &response))
                .map(|()| bytes)
                .map_err(|_| Reply {
                    status: "400 Bad Request",
                    body: "This is no websocket request of version 13.\n",
                })
        }
        "/v1" | "/v1/" => Err(Reply {
            status: "426 Upgrade Required",
            body: "This is the mailbox of magic wormholes; it speaks websocket only.\n",
        }),
        "/" if !upgrade => Err(Reply { status: "200 OK", body: "Wormhole Relay\n" }),
        _ => Err(Reply { status: "404 Not Found", body: "There is nothing here; the mailbox is at /v1.\n" }),
    }
}

/// The client's address as a reverse proxy reports it, if it does.
pub(super) fn real_address(request: &Request) -> Option<PeerAddress> {
    let header = |name: &str| request.headers().get(name)?.to_str().ok().map(str::trim);
    let ip: IpAddr = header("x-real-ip")?.parse().ok()?;
    Some(PeerAddress::new(ip, header("x-real-port").and_then(|port| port.parse().ok())))
}

/// Sends a reply and closes.
pub(super) async fn reply(mut stream: TcpStream, reply: Reply, head_only: bool) {
    let text = reply.render(head_only);
    if let Ok(Ok(())) = timeout(Duration::from_secs(5), stream.write_all(text.as_bytes())).await {
        linger(stream).await;
    }
}

/// Says that nothing more comes, and reads on for a little while. A socket that is closed with unread input
/// resets the connection, which destroys what the client has not read yet.
pub(super) async fn linger(mut stream: TcpStream) {
    const MOST: usize = 16 << 20;
    let drain = async {
        stream.shutdown().await?;
        let mut discard = vec![0; 8 << 10];
        let mut total = 0;
        while total < MOST {
            match stream.read(&mut discard).await? {
                0 => break,
                len => total += len,
            }
        }
        io::Result::Ok(())
    };
    // Whether it worked makes no difference: the connection ends.
    let _ = timeout(Duration::from_secs(2), drain).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Head, Reply> {
        parse_head(text.as_bytes().to_vec())
    }

    fn request(text: &str) -> Request {
        parse(text).unwrap_or_else(|reply| panic!("{reply:?}")).request
    }

    const UPGRADE: &str = "Host: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

    #[test]
    fn routes() {
        let status = |text: &str| respond(&request(text)).unwrap_err();
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), Reply { status: "200 OK", body: "Wormhole Relay\n" });
        assert!(status("GET /v1 HTTP/1.1\r\n\r\n").status.starts_with("426"));
        assert!(status("GET /x HTTP/1.1\r\n\r\n").status.starts_with("404"));
        assert!(status(&format!("GET / HTTP/1.1\r\n{UPGRADE}")).body.contains("/v1"));
        assert!(status("GET /v1 HTTP/1.1\r\nUpgrade: websocket\r\n\r\n").status.starts_with("400"));
        let response = respond(&request(&format!("GET /v1?x HTTP/1.1\r\n{UPGRADE}"))).unwrap();
        assert!(response.starts_with(b"HTTP/1.1 101 "));
    }

    #[test]
    fn methods() {
        let head = parse("HEAD / HTTP/1.1\r\n\r\nrest").unwrap_or_else(|_| panic!());
        assert!(head.head_only);
        assert_eq!(head.rest, b"rest");
        assert_eq!(respond(&head.request).unwrap_err().status, "200 OK");
        let failure = |text: &str| parse(text).err().map(|reply| &reply.status[..3]);
        assert_eq!(failure("POST / HTTP/1.1\r\n\r\n"), Some("405"));
        assert_eq!(failure("please relay\n\n"), Some("400"));
        assert_eq!(failure("GET \n\n"), Some("400"));
        assert_eq!(failure("GET / HTTP/1.1\r\nno colon\r\n\r\n"), Some("400"));
    }

    #[test]
    fn replies_have_the_length_that_they_claim() {
        let text = Reply::FULL.render(false);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        assert!(Reply::FULL.render(true).ends_with("\r\n\r\n"));
    }

    #[test]
    fn real_addresses() {
        let with = |headers: &str| real_address(&request(&format!("GET /v1 HTTP/1.1\r\n{headers}\r\n")));
        let v4 = PeerAddress::new("1.2.3.4".parse().unwrap(), Some(5678));
        assert_eq!(with("X-Real-IP: 1.2.3.4\r\nX-Real-Port: 5678\r\n"), Some(v4));
        assert_eq!(with("X-Real-IP: ::ffff:1.2.3.4\r\nX-Real-Port: 5678\r\n"), Some(v4));
        let v6 = PeerAddress::new("2600::1".parse().unwrap(), None);
        assert_eq!(with("x-real-ip: 2600::1\r\n"), Some(v6));
        assert_eq!(with("x-real-ip: nonsense\r\n"), None);
        assert_eq!(with(""), None);
    }
}
