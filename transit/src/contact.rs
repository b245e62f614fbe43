//! How a connection came about, and what the wrong ones are told.

use crate::prologue::RelayRequest;

/// How a connection came about.
#[derive(Debug, Clone, Copy)]
pub enum Contact<'a> {
    /// We dialled the other side.
    Dialled,
    /// The other side dialled us: it speaks first, unless it waits for us to do so.
    Accepted,
    /// We dialled a relay, which first gets this request.
    Relay(&'a RelayRequest),
}

/// What an HTTP client is told that takes us for a web server; `None` for everything else.
pub(crate) fn http_reply(request: &[u8]) -> Option<&'static [u8]> {
    is_http_request(request).then_some(
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 73\r\n\
          Connection: close\r\n\r\nThis is not a web server: a wormhole waits here for its other side only.\n",
    )
}

/// Whether somebody speaks HTTP to us.
pub(crate) fn is_http_request(bytes: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] =
        [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"TRACE "];
    METHODS.iter().any(|method| bytes.starts_with(method))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_is_as_long_as_it_says() {
        let reply = std::str::from_utf8(http_reply(b"GET / HTTP/1.1").unwrap()).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
        assert_eq!(http_reply(b"transit sender"), None);
    }
}
