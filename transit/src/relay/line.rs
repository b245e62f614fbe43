//! The one line with which a client of the relay starts.

use crate::contact::is_http_request;

/// The longest line before its newline, as in the Python relay. A client that sends more without a newline is
/// no client.
pub const LONGEST_LINE: usize = 1024;

/// Names a meeting. Both sides derive it from their shared key, so it tells the relay nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub [u8; 64]);

/// Tells the two sides of a meeting apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Side(pub [u8; 16]);

// A token is what lets a client into a meeting, so it does not belong into logs.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Side(..)")
    }
}

/// What a client asks for: `please relay TOKEN for side SIDE`, or the old `please relay TOKEN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where to meet.
    pub token: Token,
    /// As whom. Old clients do not say; they match everybody.
    pub side: Option<Side>,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstLine {
    /// No whole line yet.
    Incomplete,
    /// A request, and how many bytes it occupies with its newline.
    Request(Request, usize),
    /// An HTTP request: somebody points a browser, or a health check, at the relay.
    Http,
    /// Nothing that a relay understands.
    Bad,
}

impl FirstLine {
    /// Looks at everything that a connection has sent so far.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        match bytes.iter().take(LONGEST_LINE + 1).position(|byte| *byte == b'\n') {
            Some(end) => match parse_request(&bytes[..end]) {
                Some(request) => Self::Request(request, end + 1),
                None if is_http_request(&bytes[..end]) => Self::Http,
                None => Self::Bad,
            },
            None if bytes.len() <= LONGEST_LINE => Self::Incomplete,
            None if is_http_request(bytes) => Self::Http,
            None => Self::Bad,
        }
    }
}

fn parse_request(line: &[u8]) -> Option<Request> {
    let rest = line.strip_prefix(b"please relay ")?;
    let (token, rest) = word::<64>(rest)?;
    let side = if rest.is_empty() {
        None
    } else {
        let (side, rest) = word::<16>(rest.strip_prefix(b" for side ")?)?;
        if !rest.is_empty() {
            return None;
        }
        Some(Side(side))
    };
    Some(Request { token: Token(token), side })
}

/// Exactly `N` letters, digits or underscores: what `\w{N}` means to the Python relay.
fn word<const N: usize>(bytes: &[u8]) -> Option<([u8; N], &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<N>()?;
    let valid = word.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    valid.then_some((*word, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKEN: [u8; 64] = *b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const SIDE: [u8; 16] = *b"fedcba9876543210";

    fn line(text: &str) -> Vec<u8> {
        let text = text.replace("TOKEN", std::str::from_utf8(&TOKEN).unwrap());
        text.replace("SIDE", std::str::from_utf8(&SIDE).unwrap()).into_bytes()
    }

    #[test]
    fn both_forms() {
        let new = line("please relay TOKEN for side SIDE\nrest");
        let request = Request { token: Token(TOKEN), side: Some(Side(SIDE)) };
        assert_eq!(FirstLine::parse(&new), FirstLine::Request(request, new.len() - 4));
        let old = line("please relay TOKEN\n");
        assert_eq!(
            FirstLine::parse(&old),
            FirstLine::Request(Request { token: Token(TOKEN), side: None }, old.len())
        );
        for end in 0..new.len() - 5 {
            assert_eq!(FirstLine::parse(&new[..end]), FirstLine::Incomplete);
        }
    }

    #[test]
    fn bad_lines() {
        let bad = [
            "please DELAY TOKEN\n",
            "please DELAY TOKEN for side SIDE\n",
            "please relay TOKEN \n",
            "please relay TOKEN\r\n",
            "please relay TOKEN for side SIDE\r\n",
            "please relay TOKENa\n",
            "please relay TOKEN for side SIDEa\n",
            "please relay TOKEN for side \n",
            "please relay \n",
            " please relay TOKEN\n",
            "\n",
            "\0\u{1}\u{e0}\u{f}\n\u{ff}",
        ];
        for text in bad {
            assert_eq!(FirstLine::parse(&line(text)), FirstLine::Bad, "{text:?}");
        }
        let mut dashed = line("please relay TOKEN\n");
        dashed[20] = b'-';
        assert_eq!(FirstLine::parse(&dashed), FirstLine::Bad);
        dashed[20] = b'_';
        assert!(matches!(FirstLine::parse(&dashed), FirstLine::Request(..)));
    }

    #[test]
    fn lines_are_at_most_1024_bytes() {
        assert_eq!(FirstLine::parse(&[b'x'; 1024]), FirstLine::Incomplete);
        assert_eq!(FirstLine::parse(&[b'x'; 1025]), FirstLine::Bad);
        let mut late = vec![b'x'; 1025];
        late.push(b'\n');
        assert_eq!(FirstLine::parse(&late), FirstLine::Bad);
    }

    #[test]
    fn http() {
        assert_eq!(FirstLine::parse(b"GET / HTTP/1.1\r\n"), FirstLine::Http);
        assert_eq!(FirstLine::parse(b"GET / HTTP/1.1"), FirstLine::Incomplete);
        assert_eq!(FirstLine::parse(&[b"GET /".as_slice(), &[b'x'; 2000]].concat()), FirstLine::Http);
        assert_eq!(FirstLine::parse(b"GETTING\n"), FirstLine::Bad);
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(bytes: Vec<u8>) {
            let _ = FirstLine::parse(&bytes);
        }
    }
}
