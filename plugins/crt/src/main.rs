//! `kubectl crt`, the program.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::app::run::<kubectl_crt::cli::Crt>()
}
