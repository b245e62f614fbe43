//! What the whole-system tests share: test data that Python makes alike, the Python peers and servers
//! as child processes, the network lab, a proxy that breaks connections, and a SOCKS5
//! server.
//!
//! The tests that need Python ask [`python::Python::available`] first. `.ci/run interop` prepares all of it.

pub mod data;
pub mod lab;
pub mod process;
pub mod proxy;
pub mod python;
pub mod socks;
pub mod transfer;
