//! Linux: rtnetlink's multicasts, of which only the fixed headers are read.

use std::io;

use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};

use super::source::Changes;

/// The multicast groups, as `linux/rtnetlink.h` has them.
const GROUPS: u32 =
    RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE;
const RTMGRP_LINK: u32 = 0x1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV4_ROUTE: u32 = 0x40;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
const RTMGRP_IPV6_ROUTE: u32 = 0x400;

/// Length of a `nlmsghdr`.
const HEADER: usize = 16;
/// Messages begin at multiples of this.
const ALIGNMENT: usize = 4;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;

/// The table of the addresses of this machine themselves.
const RT_TABLE_LOCAL: u8 = 255;
/// The route follows from an address or an interface, and comes and goes with it.
const RTPROT_KERNEL: u8 = 2;
/// The route is an entry of a cache.
const RTM_F_CLONED: u32 = 0x200;
/// The interface is set up.
const IFF_UP: u32 = 0x1;

/// What is read of one datagram. Its headers are at the front; the attributes behind them may be cut off.
const BUFFER: usize = 8192;
/// Datagrams that are read in one go, so that a flood does not keep other tasks waiting.
const MAX_DRAINED: usize = 256;

/// A socket that the kernel tells of changes to interfaces, addresses and routes.
pub(super) struct Subscription {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

impl Subscription {
    pub(super) fn open() -> io::Result<Subscription> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
        Ok(Subscription { socket, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Waits for news, and gives all that is there. Cancel safe.
    ///
    /// # Errors
    ///
    /// The socket is of no use any more.
    pub(super) async fn changed(&mut self) -> io::Result<Changes> {
        let Subscription { socket, buffer } = self;
        loop {
            buffer.clear();
            let first = socket.recv(buffer).await;
            let changes = drain(first, buffer, |buffer| socket.socket_ref().recv(buffer, 0).map(drop))?;
            if changes != Changes::default() {
                return Ok(changes);
            }
        }
    }
}

/// Reads until nothing waits. An error says that the kernel had no room for some messages, so that everything may have
/// changed; two in a row are of another kind.
fn drain(
    first: io::Result<()>,
    buffer: &mut Vec<u8>,
    mut receive: impl FnMut(&mut Vec<u8>) -> io::Result<()>,
) -> io::Result<Changes> {
    let mut changes = Changes::default();
    let mut failed = false;
    let mut first = Some(first);
    for _ in 0..MAX_DRAINED {
        let received = first.take().unwrap_or_else(|| {
            buffer.clear();
            receive(buffer)
        });
        match received {
            Ok(()) => {
                changes = union(changes, parse(buffer));
                failed = false;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if failed => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "netlink messages were lost");
                changes = Changes { addresses: true, routes: true };
                failed = true;
            }
        }
    }
    Ok(changes)
}

fn union(one: Changes, two: Changes) -> Changes {
    Changes { addresses: one.addresses || two.addresses, routes: one.routes || two.routes }
}

/// What the messages of a datagram tell. A message that is cut off tells what its beginning does; after one that makes
/// no sense nothing more is read.
fn parse(datagram: &[u8]) -> Changes {
    let mut changes = Changes::default();
    let mut rest = datagram;
    while let Some(length) = read_u32(rest, 0).and_then(|length| usize::try_from(length).ok()) {
        let (Some(kind), Some(body)) = (read_u16(rest, 4), rest.get(HEADER..rest.len().min(length))) else {
            break;
        };
        changes = union(changes, parse_message(kind, body));
        let Some(next) = length.checked_next_multiple_of(ALIGNMENT).and_then(|next| rest.get(next..)) else {
            break;
        };
        rest = next;
    }
    changes
}

fn parse_message(kind: u16, body: &[u8]) -> Changes {
    match kind {
        RTM_NEWADDR | RTM_DELADDR => Changes { addresses: true, routes: false },
        // The kernel says nothing of the IPv4 routes that it drops with an interface that is set down.
        RTM_NEWLINK | RTM_DELLINK => Changes { addresses: true, routes: set_up_or_down(body) },
        RTM_NEWROUTE | RTM_DELROUTE => Changes { addresses: false, routes: !accompanies(body) },
        _ => Changes::default(),
    }
}

/// Whether an `ifinfomsg` tells of an interface that was set up or down. One that is made or removed, of which
/// everything counts as changed, is told of separately when it is set up or down.
fn set_up_or_down(ifinfomsg: &[u8]) -> bool {
    read_u32(ifinfomsg, 12).is_some_and(|changed| changed & IFF_UP != 0 && changed != u32::MAX)
}

/// Whether the route of an `rtmsg` merely accompanies an address, or is an entry of a cache.
fn accompanies(rtmsg: &[u8]) -> bool {
    let (table, protocol) = (rtmsg.get(4), rtmsg.get(5));
    table == Some(&RT_TABLE_LOCAL)
        || protocol == Some(&RTPROT_KERNEL)
        || read_u32(rtmsg, 8).is_some_and(|flags| flags & RTM_F_CLONED != 0)
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const NOTHING: Changes = Changes { addresses: false, routes: false };
    const ADDRESSES: Changes = Changes { addresses: true, routes: false };
    const ROUTES: Changes = Changes { addresses: false, routes: true };
    const EVERYTHING: Changes = Changes { addresses: true, routes: true };

    /// A message, padded as inside a datagram.
    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    fn route(table: u8, protocol: u8, flags: u32) -> Vec<u8> {
        let mut body = vec![2, 24, 0, 0, table, protocol, 0, 1];
        body.extend(flags.to_ne_bytes());
        // An attribute that nobody reads.
        body.extend([8, 0, 1, 0, 10, 0, 0, 0]);
        body
    }

    fn link(changed: u32) -> Vec<u8> {
        let mut body = vec![0; 12];
        body.extend(changed.to_ne_bytes());
        body
    }

    const MAIN: u8 = 254;
    const BOOT: u8 = 3;

    #[test]
    fn each_kind_of_message() {
        for (kind, body, expected) in [
            (RTM_NEWADDR, vec![2, 24, 0, 0], ADDRESSES),
            (RTM_DELADDR, vec![], ADDRESSES),
            (RTM_NEWLINK, link(0), ADDRESSES),
            (RTM_NEWLINK, link(IFF_UP), EVERYTHING),
            (RTM_NEWLINK, link(!IFF_UP), ADDRESSES),
            (RTM_NEWLINK, link(u32::MAX), ADDRESSES),
            (RTM_DELLINK, link(u32::MAX), ADDRESSES),
            (RTM_NEWROUTE, route(MAIN, BOOT, 0), ROUTES),
            (RTM_DELROUTE, route(MAIN, BOOT, 0), ROUTES),
            (RTM_NEWROUTE, route(RT_TABLE_LOCAL, BOOT, 0), NOTHING),
            (RTM_DELROUTE, route(MAIN, RTPROT_KERNEL, 0), NOTHING),
            (RTM_NEWROUTE, route(MAIN, BOOT, RTM_F_CLONED), NOTHING),
            (RTM_NEWROUTE, route(MAIN, BOOT, !RTM_F_CLONED), ROUTES),
            // A neighbour, a rule, and the end of a list.
            (28, vec![0; 12], NOTHING),
            (32, vec![0; 12], NOTHING),
            (3, vec![0; 4], NOTHING),
        ] {
            assert_eq!(parse(&message(kind, &body)), expected, "kind {kind}, body {body:?}");
        }
    }

    #[test]
    fn several_messages_of_one_datagram() {
        let skipped = message(RTM_NEWROUTE, &route(RT_TABLE_LOCAL, BOOT, 0));
        let address = message(RTM_NEWADDR, &[2, 24, 0, 0, 9]);
        let route = message(RTM_NEWROUTE, &route(MAIN, BOOT, 0));
        assert_eq!(parse(&[&*skipped, &address].concat()), ADDRESSES);
        assert_eq!(parse(&[&*skipped, &route, &skipped].concat()), ROUTES);
        assert_eq!(parse(&[&*address, &skipped, &route].concat()), EVERYTHING);
    }

    #[test]
    fn a_cut_or_senseless_datagram() {
        let address = message(RTM_NEWADDR, &[0; 8]);
        for end in 0..address.len() {
            let expected = if end < HEADER { NOTHING } else { ADDRESSES };
            assert_eq!(parse(&address[..end]), expected, "the first {end} bytes");
        }
        // Without its table a route is not known to be one to leave out.
        let local = message(RTM_NEWROUTE, &route(RT_TABLE_LOCAL, RTPROT_KERNEL, 0));
        assert_eq!(parse(&local[..HEADER + 4]), ROUTES);
        for length in [0, 1, 15] {
            let mut bytes = address.clone();
            bytes[..4].copy_from_slice(&u32::to_ne_bytes(length));
            assert_eq!(parse(&bytes), NOTHING, "length {length}");
        }
        let mut bytes = [&*address, &message(RTM_NEWROUTE, &route(MAIN, BOOT, 0))].concat();
        bytes[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(parse(&bytes), ADDRESSES);
    }

    fn drained(script: Vec<io::Result<Vec<u8>>>) -> (io::Result<Changes>, usize) {
        let mut script = VecDeque::from(script);
        let mut buffer = Vec::new();
        let mut receive = |buffer: &mut Vec<u8>| match script.pop_front() {
            Some(Ok(bytes)) => {
                assert!(buffer.is_empty());
                *buffer = bytes;
                Ok(())
            }
            Some(Err(error)) => Err(error),
            None => Err(io::ErrorKind::WouldBlock.into()),
        };
        let first = receive(&mut buffer);
        let changes = drain(first, &mut buffer, receive);
        (changes, script.len())
    }

    #[test]
    fn all_that_waits_is_one_change() {
        let address = || Ok(message(RTM_NEWADDR, &[]));
        let route = || Ok(message(RTM_NEWROUTE, &route(MAIN, BOOT, 0)));
        let (changes, left) = drained(vec![address(), address(), Ok(Vec::new())]);
        assert_eq!((changes.unwrap(), left), (ADDRESSES, 0));
        let (changes, left) = drained(vec![route(), address(), route()]);
        assert_eq!((changes.unwrap(), left), (EVERYTHING, 0));
        let (changes, left) = drained((0..MAX_DRAINED + 7).map(|_| route()).collect());
        assert_eq!((changes.unwrap(), left), (ROUTES, 7), "the rest is for the next time");
    }

    #[test]
    fn lost_messages_are_every_change() {
        let lost = || Err(io::Error::other("no buffer space"));
        let nothing = || Ok(message(3, &[]));
        let (changes, left) = drained(vec![lost(), nothing(), lost(), nothing()]);
        assert_eq!((changes.unwrap(), left), (EVERYTHING, 0));
        let (changes, left) = drained(vec![nothing(), lost()]);
        assert_eq!((changes.unwrap(), left), (EVERYTHING, 0));
        // A socket that only fails is given up.
        let (changes, left) = drained(vec![lost(), lost(), nothing()]);
        assert_eq!((changes.unwrap_err().to_string(), left), ("no buffer space".to_owned(), 1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes);
        }

        #[test]
        fn a_datagram_tells_what_its_messages_tell(
            messages in proptest::collection::vec(
                (14u16..30, proptest::collection::vec(any::<u8>(), 0..40)), 0..8,
            ),
        ) {
            let mut datagram = Vec::new();
            let mut expected = NOTHING;
            for (kind, body) in &messages {
                datagram.extend(message(*kind, body));
                expected = union(expected, parse_message(*kind, body));
            }
            prop_assert_eq!(parse(&datagram), expected);
        }
    }
}
