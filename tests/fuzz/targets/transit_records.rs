//! Somebody on the path changes, adds, moves and cuts bytes of a Transit connection: every record comes out as it was sealed,
//! in its place, or not at all.
//!
//! The input: how many records (its upper bit: which of the two functions opens them), two bytes of length for each, the size
//! of the pieces that arrive, where (two bytes) and with what (one byte) to change the stream, a number of bytes (two) that are
//! lost there, and bytes to insert.

#![no_main]

use bytes::BytesMut;
use dilated_transit::Contact;
use dilated_transit::v1::{
    MAX_RECORD, Part, RECORD_OVERHEAD, RecordError, RecordOpener, RecordSealer, TransitHandshake, TransitKey,
};
use libfuzzer_sys::fuzz_target;

/// What the Sender seals, the returned opener of the Receiver opens.
fn connection() -> (RecordSealer, RecordOpener) {
    let start = |part| TransitHandshake::new(part, TransitKey::new([7; 32]), Contact::Dialled);
    let (mut sender, mut receiver) = (start(Part::Sender), start(Part::Receiver));
    let (to_receiver, to_sender) = (sender.poll_output(), receiver.poll_output());
    sender.handle_input(&to_sender.expect("a greeting")).expect("the Receiver is honest");
    receiver.handle_input(&to_receiver.expect("a greeting")).expect("the Sender is honest");
    let mut choice = BytesMut::new();
    let (sealer, _) = sender.into_pipe(&mut choice).expect("it is ready");
    receiver.handle_input(&choice).expect("the Sender is honest");
    let (_, opener) = receiver.into_pipe(&mut BytesMut::new()).expect("it is chosen");
    (sealer, opener)
}

fn open(opener: &mut RecordOpener, appending: bool) -> Result<Option<Vec<u8>>, RecordError> {
    if !appending {
        return opener.next_record().map(|record| record.map(|record| record.to_vec()));
    }
    let mut record = b"before".to_vec();
    let length = opener.next_record_into(&mut record);
    let record = record.strip_prefix(b"before").expect("what was there stays").to_vec();
    assert!(matches!(length, Ok(Some(length)) if length == record.len()) || record.is_empty());
    length.map(|length| length.map(|_| record))
}

fn run(data: &[u8]) -> Option<()> {
    let (mut sealer, mut opener) = connection();
    let (count, mut rest) = data.split_first()?;
    let appending = count >> 7 == 1;
    let mut stream = BytesMut::new();
    let mut sealed = Vec::new();
    for number in 0..count % 8 {
        let (length, after) = rest.split_first_chunk()?;
        rest = after;
        let record = vec![number; usize::from(u16::from_be_bytes(*length))];
        sealer.seal(&record, &mut stream);
        // A record counts until the byte where it ends.
        sealed.push((stream.len(), record));
    }
    let (piece, rest) = rest.split_first()?;
    let (at, rest) = rest.split_first_chunk()?;
    let (mask, rest) = rest.split_first()?;
    let (lost, insert) = rest.split_first_chunk()?;
    let at = usize::from(u16::from_be_bytes(*at)).min(stream.len());
    if let Some(byte) = stream.get_mut(at) {
        *byte ^= mask;
    }
    let mut tail = stream.split_off(at);
    let lost = tail.split_to(usize::from(u16::from_be_bytes(*lost)).min(tail.len()));
    let changed = *mask != 0 || !insert.is_empty() || !lost.is_empty();
    stream.extend_from_slice(insert);
    stream.extend_from_slice(&tail);

    let mut opened = sealed.iter();
    let mut untouched = 0;
    'records: for piece in stream.chunks(usize::from(*piece) * 16 + 1) {
        opener.buffer().extend_from_slice(piece);
        loop {
            match open(&mut opener, appending) {
                Ok(Some(record)) => {
                    let (end, expected) = opened.next().expect("no record that was not sealed");
                    assert!(record == *expected, "record {untouched} came out differently");
                    untouched += usize::from(*end <= at);
                }
                Ok(None) => break,
                Err(error) => {
                    assert!(changed, "{error} without a reason");
                    assert_eq!((opener.missing(), opener.buffer().len()), (0, 0), "nothing more is wanted");
                    opener.buffer().extend_from_slice(piece);
                    assert_eq!(open(&mut opener, appending), Err(error));
                    break 'records;
                }
            }
        }
        let most = MAX_RECORD + RECORD_OVERHEAD;
        assert!(opener.missing() <= most && opener.buffer().len() <= most);
    }
    let before = sealed.iter().filter(|(end, _)| *end <= at).count();
    assert_eq!(untouched, before, "records before the change are whole");
    Some(())
}

fuzz_target!(|data: &[u8]| {
    let _ = run(data);
});
