//! `kubectl crt`, the program.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_core::app::run::<kubectl_crt::cli::Crt>()
}
