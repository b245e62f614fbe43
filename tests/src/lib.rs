//! What the whole-system tests share: test data that Python makes alike, and the Python peers and servers
//! as child processes.
//!
//! The tests that need Python ask [`python::Python::available`] first. `.ci/run interop` prepares all of it.

pub mod data;
pub mod process;
pub mod python;
