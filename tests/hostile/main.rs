//! For every limit of `docs/protocol.md` a peer that breaks it.
//!
//! The hostile peer has the code, so it has the key: it joins the mailbox, dials the victim and makes real handshakes, and
//! then sends whatever it likes. The victim is an ordinary wormhole. In the same process an ordinary pair transfers data
//! all the while. Each test sees that the victim does what the specification says, that its memory stays in bounds, and
//! that the neighbours' bytes are right.

mod credit;
mod floods;
mod frames;
mod handshakes;
mod links;
mod memory;
mod neighbour;
mod peer;
mod resume;
mod subchannels;
mod wire;
mod world;
