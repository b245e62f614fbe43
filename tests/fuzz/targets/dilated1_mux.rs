//! The multiplexer of `dilated-1`, under a script.
//!
//! The first byte chooses. Either one mux is between an application that does anything it may and a peer that sends
//! anything at all: no panic, no more memory than its limits allow, and whatever it says can be read. Or two muxes talk
//! to each other over links that are lost at any time, and on which records come twice: neither ever finds a fault in the
//! other, every byte arrives once and in its order, and both come to an end.

#![no_main]

#[path = "dilated1_mux/abuse.rs"]
mod abuse;
#[path = "dilated1_mux/application.rs"]
mod application;
#[path = "dilated1_mux/pair.rs"]
mod pair;

use libfuzzer_sys::fuzz_target;

/// The input, read as a script.
pub(crate) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Of all sizes, small ones more often.
    pub(crate) fn number(&mut self) -> Option<u64> {
        let (shift, value) = (self.byte()?, self.byte()?);
        Some(u64::from(value) << (shift % 55).saturating_sub(20))
    }
}

fuzz_target!(|data: &[u8]| {
    let mut script = Script(data);
    match script.byte() {
        Some(mode) if mode % 2 == 0 => abuse::run(&mut script),
        Some(_) => pair::run(&mut script),
        None => {}
    }
});
