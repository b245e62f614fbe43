//! Clients of the relay that send anything: each line of the input is what one connection begins with.

#![no_main]

use dilated_transit::relay::{ClientId, FirstLine, LONGEST_LINE, Rendezvous};
use libfuzzer_sys::fuzz_target;

const WAITING: usize = 4;
const PER_TOKEN: usize = 2;

fuzz_target!(|data: &[u8]| {
    let mut rendezvous = Rendezvous::new(WAITING, PER_TOKEN);
    for (number, sent) in data.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let line = FirstLine::parse(sent);
        match line {
            FirstLine::Incomplete => assert!(sent.len() <= LONGEST_LINE && !sent.ends_with(b"\n")),
            FirstLine::Request(request, used) => {
                assert_eq!(used, sent.len());
                // What follows the line, and how it arrives, changes nothing.
                assert_eq!(FirstLine::parse(&[sent, b"more\n"].concat()), line);
                assert_eq!(FirstLine::parse(&sent[..used - 1]), FirstLine::Incomplete);
                let id = ClientId(number as u64);
                let _ = rendezvous.register(&request, id);
                if number % 3 == 2 {
                    rendezvous.unregister(&request.token, id);
                    assert!(!rendezvous.unregister(&request.token, id), "gone is gone");
                }
                assert!(rendezvous.len() <= WAITING);
            }
            FirstLine::Http | FirstLine::Bad => {
                assert_eq!(FirstLine::parse(&[sent, b"please relay"].concat()), line);
            }
        }
    }
});
