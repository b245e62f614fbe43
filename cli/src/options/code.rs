//! How a side of a transfer gets its code.

use std::{
    fs::File,
    io::{self, Read},
};

use super::Global;
use crate::{
    exit::Failure,
    show::{Role, TransferUri},
};

/// The longest code that is read from a descriptor, in bytes.
const LONGEST: u64 = 4096;

/// How this side gets to its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CodeWish {
    /// The user said it.
    Given(String),
    /// The mailbox server gives a nameplate, and as many random words are added.
    Allocate(u8),
    /// The user is asked for it, while the mailbox server completes what is typed.
    Input,
}

impl CodeWish {
    /// Takes apart a code that is a `wormhole-transfer:` address. This side has the part `role`.
    pub(super) fn resolve(self, global: &mut Global, role: Role) -> Result<CodeWish, Failure> {
        match self {
            CodeWish::Given(text) if TransferUri::is_one(&text) => {
                let uri: TransferUri = text.parse().map_err(Failure::usage)?;
                uri.expect(role)?;
                if let Some(mailbox) = uri.mailbox() {
                    global.mailbox = vec![mailbox];
                }
                Ok(CodeWish::Given(uri.code))
            }
            // Everybody could guess it, and it is used up when it is wrong.
            CodeWish::Given(code)
                if !code.trim_start_matches(|c: char| c.is_ascii_digit()).contains(|c| c != '-') =>
            {
                Err(Failure::usage(format!(
                    "the code {code} has no words; a code looks like 7-purple-sausages"
                )))
            }
            other => Ok(other),
        }
    }
}

/// Reads the code from a file descriptor of this process: its first line. Blocks.
pub(super) fn read(descriptor: u16) -> Result<String, Failure> {
    let cannot = |e: &io::Error| Failure::usage(format!("--code-fd {descriptor} cannot be read: {e}"));
    let mut text = String::new();
    match descriptor {
        0 => first_line(io::stdin().lock(), &mut text),
        _ if cfg!(unix) => {
            File::open(format!("/dev/fd/{descriptor}")).and_then(|file| first_line(file, &mut text))
        }
        _ => Err(io::Error::other("on this system only 0 can be")),
    }
    .map_err(|e| cannot(&e))?;
    Ok(text)
}

/// Byte by byte, because what follows the line belongs to others.
#[expect(
    clippy::unbuffered_bytes,
    reason = "a code has a few bytes, and a buffer would take more than the line"
)]
fn first_line(input: impl Read, text: &mut String) -> io::Result<()> {
    let mut line = Vec::new();
    for byte in input.take(LONGEST).bytes() {
        match byte? {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    text.push_str(std::str::from_utf8(&line).map_err(|_| io::Error::other("it is no text"))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_is_the_code() {
        let mut input = &b"7-a-b\nthe rest"[..];
        let mut text = String::new();
        first_line(&mut input, &mut text).unwrap();
        assert_eq!((text.as_str(), input), ("7-a-b", &b"the rest"[..]));
        let mut text = String::new();
        first_line(&b"7-a-b"[..], &mut text).unwrap();
        assert_eq!(text, "7-a-b", "without an end");
        assert!(first_line(&b"\xff\n"[..], &mut String::new()).is_err());
        let mut text = String::new();
        first_line(io::repeat(b'x'), &mut text).unwrap();
        assert_eq!(text.len() as u64, LONGEST, "it ends");
    }

    #[cfg(unix)]
    #[test]
    fn a_descriptor_is_read() {
        use std::os::fd::AsRawFd;

        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, b"7-from-a-file\n").unwrap();
        let descriptor = u16::try_from(file.as_file().as_raw_fd()).unwrap();
        assert_eq!(read(descriptor).unwrap(), "7-from-a-file");
    }
}
