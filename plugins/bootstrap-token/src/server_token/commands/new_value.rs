//! Where a new token comes from and goes to: the flags that `rotate` and `recover` share.

use std::path::PathBuf;

use cli::rotation::Commands;
use client::error::Error;
use supervisor::{ServerToken, TokenValue};

use crate::server_token::session::OutputTarget;

#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct NewValueFlags {
    /// Read the new token from this file, which only its owner may access (0600), instead of creating one: 16 characters or more of letters, digits, dots, underscores and dashes
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub new_token_file: Option<PathBuf>,

    #[command(flatten)]
    pub output: OutputFlags,
}

/// Where a new token goes.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct OutputFlags {
    /// Write the new token to this file, which only its owner can read (0600), before any server has it. What the file holds is kept as FILE.1
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with = "print_token")]
    pub write_token: Option<PathBuf>,

    /// Print the new token before any server has it
    #[arg(long, conflicts_with = "output")]
    pub print_token: bool,
}

impl NewValueFlags {
    pub(crate) fn output(&self) -> OutputTarget {
        self.output.target(self.new_token_file.as_ref())
    }

    pub(crate) fn given(&self) -> Result<Option<TokenValue>, Error> {
        let Some(path) = &self.new_token_file else {
            return Ok(None);
        };
        let text = crate::private_file::read(path)?;
        let invalid =
            |error: supervisor::InvalidToken| Error::usage(format!("invalid new token in {}: {error}", path.display()));
        // A resumed run finds it as it was written: in the K10 form.
        let token = ServerToken::of_line(&text).map_err(invalid)?;
        if token.user == supervisor::TokenUser::Node {
            return Err(invalid(supervisor::InvalidToken::AgentToken));
        }
        TokenValue::supplied(token.password()).map(Some).map_err(invalid)
    }

    pub(crate) fn typed(&self, commands: Commands) -> Commands {
        let file = self.new_token_file.as_ref().map(|path| path.display().to_string());
        let (flag, file) = ("--new-token-file", file.as_deref());
        self.output
            .typed(commands.with_to_rotate(flag, file).with_to_recover(flag, file))
    }
}

impl OutputFlags {
    /// `given`: the file of a token that the user has passed.
    pub(crate) fn target(&self, given: Option<&PathBuf>) -> OutputTarget {
        match self.write_token.as_ref().or(given) {
            _ if self.print_token => OutputTarget::Print,
            Some(path) => OutputTarget::File(path.clone()),
            None => OutputTarget::Nowhere,
        }
    }

    pub(crate) fn typed(&self, commands: Commands) -> Commands {
        let file = self.write_token.as_ref().map(|path| path.display().to_string());
        let (flag, file) = ("--write-token", file.as_deref());
        let commands = commands.with_to_rotate(flag, file).with_to_recover(flag, file);
        if self.print_token {
            let flag = "--print-token";
            commands.switched_on_to_rotate(flag).switched_on_to_recover(flag)
        } else {
            commands
        }
    }
}
