//! The `dilated` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    dilated_cli::run()
}
