//! `kubectl bootstrap-token generate`: prints a random token without any request.

use bootstrap::Token;
use cli::ExitCode;
use cli::app::Context;
use client::error::Error;

#[derive(clap::Args, Clone, Copy, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Generate {}

const EXAMPLES: &str = "\
Examples:
  # Print a token
  kubectl bootstrap-token generate

  # Generate a token, and create it later
  kubectl bootstrap-token generate > token
  kubectl bootstrap-token create --token-stdin < token

The token is not valid until `create` creates it. It is drawn from the operating system's random source, over all 36 symbols.";

pub(crate) fn run(_: Generate, context: &Context) -> Result<ExitCode, Error> {
    context.ui.out(Token::generate()?.text().expose());
    Ok(ExitCode::Done)
}
