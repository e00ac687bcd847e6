//! The agent tokens that a user passes, and where a new one goes.

use std::path::{Path, PathBuf};

use cli::rotation::Commands;
use client::error::Error;
use supervisor::{ServerToken, TokenUser, TokenValue};

use crate::private_file;
use crate::server_token::commands::new_value::OutputFlags;
use crate::server_token::session::OutputTarget;

/// The agent token that servers accept.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct AgentTokenFlag {
    /// Read the agent token from this file, which only its owner may access (0600).
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(super) agent_token_file: Option<PathBuf>,
}

impl AgentTokenFlag {
    pub(super) fn token(&self) -> Result<Option<ServerToken>, Error> {
        self.agent_token_file.as_deref().map(read).transpose()
    }

    /// The value of the old one, which a rollback configures again.
    pub(super) fn value(&self) -> Result<Option<TokenValue>, Error> {
        let Some(token) = self.token()? else { return Ok(None) };
        let value = value(token);
        value
            .map(Some)
            .map_err(|error| Error::usage(format!("a rollback could not configure the agent token again: {error}")))
    }

    pub(super) fn path(&self) -> Option<String> {
        self.agent_token_file.as_ref().map(|path| path.display().to_string())
    }
}

/// The new token of `set` and `rotate`.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct NewAgentTokenFlags {
    /// Read the new agent token from this file, which only its owner may access (0600), instead of creating one: 16 characters or more of letters, digits, dots, underscores and dashes
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    new_agent_token_file: Option<PathBuf>,

    #[command(flatten)]
    output: OutputFlags,
}

impl NewAgentTokenFlags {
    pub(super) fn given(&self) -> Result<Option<TokenValue>, Error> {
        let Some(path) = &self.new_agent_token_file else {
            return Ok(None);
        };
        let token = read(path)?;
        let value = TokenValue::supplied(token.password());
        value
            .map(Some)
            .map_err(|error| Error::usage(format!("invalid new agent token in {}: {error}", path.display())))
    }

    pub(super) fn target(&self) -> OutputTarget {
        self.output.target(self.new_agent_token_file.as_ref())
    }

    pub(super) fn typed(&self, commands: Commands) -> Commands {
        let file = self
            .new_agent_token_file
            .as_ref()
            .map(|path| path.display().to_string());
        self.output
            .typed(commands.with_to_rotate("--new-agent-token-file", file.as_deref()))
    }
}

/// An agent token, bare or as `K10<hash>::node:<password>`.
fn read(path: &Path) -> Result<ServerToken, Error> {
    let place = path.display();
    let text = private_file::read(path)?;
    let token = ServerToken::of_line(&text);
    let mut token = token.map_err(|error| Error::usage(format!("invalid agent token in {place}: {error}")))?;
    if token.ca_hash.is_some() && token.user == TokenUser::Server {
        return Err(Error::usage(format!(
            "invalid agent token in {place}: the token is a server token (user \"server\")"
        )));
    }
    token.user = TokenUser::Node;
    Ok(token)
}

/// Its value, if it can be configured again.
pub(super) fn value(mut token: ServerToken) -> Result<TokenValue, supervisor::InvalidToken> {
    token.user = TokenUser::Server;
    token.value()
}
