//! `kubectl bootstrap-token generate`: a token that could be used. Nothing is written and no server is asked.

use bootstrap::Token;
use cli::ExitCode;
use cli::app::Context;
use client::error::Error;

/// What is typed after `kubectl bootstrap-token generate`.
#[derive(clap::Args, Clone, Copy, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Generate {}

const EXAMPLES: &str = "\
Examples:
  # Print a token
  kubectl bootstrap-token generate

  # Keep one for later, and make it when it is needed
  kubectl bootstrap-token generate > token
  kubectl bootstrap-token create --token-stdin < token

No server knows the token until `create` makes it. It is drawn from the operating system's random source, over all 36
symbols.";

/// Runs it.
pub(crate) fn run(_: Generate, context: &Context) -> Result<ExitCode, Error> {
    context.ui.out(Token::generate()?.text().expose())?;
    Ok(ExitCode::Done)
}
