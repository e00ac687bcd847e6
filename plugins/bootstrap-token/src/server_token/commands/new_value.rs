//! Where a new token comes from and goes to: the flags that `rotate` and `recover` share.

use std::path::PathBuf;

use cli::rotation::Commands;
use client::error::Error;
use supervisor::{ServerToken, TokenValue};

use crate::server_token::controller::OutputTarget;

#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct NewValueFlags {
    /// Read the new token from this file, which only its owner may access (0600), instead of creating one: 16 characters or more of letters, digits, dots, underscores and dashes
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub new_token_file: Option<PathBuf>,

    /// Write the new token to this file, which only its owner can read (0600), before any server has it. What the file holds is kept as FILE.1
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with = "print_token")]
    pub write_token: Option<PathBuf>,

    /// Print the new token before any server has it
    #[arg(long, conflicts_with = "output")]
    pub print_token: bool,
}

impl NewValueFlags {
    pub(super) fn output(&self) -> OutputTarget {
        match self.write_token.as_ref().or(self.new_token_file.as_ref()) {
            _ if self.print_token => OutputTarget::Print,
            Some(path) => OutputTarget::File(path.clone()),
            None => OutputTarget::Nowhere,
        }
    }

    pub(super) fn given(&self) -> Result<Option<TokenValue>, Error> {
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

    pub(super) fn typed(&self, commands: Commands) -> Commands {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let files = [
            ("--new-token-file", path(&self.new_token_file)),
            ("--write-token", path(&self.write_token)),
        ];
        let commands = files.into_iter().fold(commands, |commands, (flag, path)| {
            let path = path.as_deref();
            commands.with_to_rotate(flag, path).with_to_recover(flag, path)
        });
        if self.print_token {
            let flag = "--print-token";
            commands.switched_on_to_rotate(flag).switched_on_to_recover(flag)
        } else {
            commands
        }
    }
}
