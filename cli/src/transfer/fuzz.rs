//! What the fuzz targets in `tests/fuzz` do with the readers of this command. Each function takes one input.

/// A peer that knows the code says anything on the control channel of a session. The messages in `data` have two bytes of
/// length each before them.
///
/// # Panics
///
/// If a message that was read is another one when it is written and read again.
pub fn session_messages(data: &[u8]) {
    super::session::fuzz::messages(data);
}

/// The same peer on the subchannel of a file. Bit 0 of the first byte: whether it is of an item that is resumed; bit 1: whether we
/// are its sender; the upper six bits are the size of the pieces that arrive. What follows is the stream.
///
/// # Panics
///
/// If what was read depends on the pieces, or is something else when it is written and read again.
pub fn session_frames(data: &[u8]) {
    super::session::fuzz::frames(data);
}

/// A peer of the classic transfer that says anything: each line of the input is a message, or the record that follows
/// the data.
///
/// # Panics
///
/// If a message that was read is another one when it is written and read again.
pub fn classic_messages(data: &[u8]) {
    data.split(|byte| *byte == b'\n').for_each(super::classic::fuzz::message);
}
