//! What is sent, and where what is received lands.
//!
//! Names come from the other side, and the directory in which they land may hold anything. So a name is a [`SafePath`]
//! before it is used at all, and a [`Target`] walks it one component at a time below a directory that it opened once,
//! without ever following a symbolic link. What is being received has a name of its own (`NAME.dilated-partial`)
//! until it is complete.
//!
//! Everything here blocks: it belongs on a thread that may.

mod landing;
mod meta;
mod name;
mod own;
mod partial;
mod partial_tree;
mod side;
mod source;
mod target;
mod tree;

pub(crate) use self::{
    landing::Landing,
    meta::Meta,
    name::{NameError, SafePath},
    partial::{Partial, fill},
    partial_tree::PartialTree,
    side::Id,
    source::{Item, Source, items},
    target::{Existing, Target},
    tree::{Entry, EntryKind, Tree, Unsendable},
};

#[cfg(test)]
mod tests;
