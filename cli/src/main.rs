//! The `dilated` command.

fn main() {}
