//! `kubectl bootstrap-token`, the program.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::app::run::<kubectl_bootstrap_token::cli::BootstrapToken>()
}
