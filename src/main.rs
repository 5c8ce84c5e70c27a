//! The `fanwire` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    fanwire::cli::main()
}
