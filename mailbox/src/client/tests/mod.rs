//! The client against a model server: the rules of wire facts, section 8.

mod hostile;
mod pairs;
mod world;
