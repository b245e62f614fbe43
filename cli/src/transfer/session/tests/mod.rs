//! Two sides in one process, with servers of their own.

mod hostile;
mod resume;
mod transfers;
mod world;
