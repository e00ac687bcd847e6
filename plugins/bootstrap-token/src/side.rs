//! The cluster: the API server that the kubeconfig leads to, and how a token's id is typed.

use bootstrap::{Token, TokenId, Write};
use cli::app::{Context, GlobalFlags};
use cli::ui::Ui;
use client::connection::{Connection, Server};
use client::error::{Doing as _, Error};
use client::secret::Secret;

/// Who writes, as the API server records it.
pub(crate) const MANAGER: &str = "kubectl-bootstrap-token";

/// The API server, and the way to it, for asking with another identity.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    /// The API server.
    pub server: Server,
    /// How it is reached.
    pub connection: Connection,
}

impl Side {
    /// Finds it. Sends nothing.
    pub(crate) fn open(flags: &GlobalFlags, context: &Context) -> Result<Self, Error> {
        let connection = flags.connection.load(&context.environment)?;
        Ok(Self {
            server: connection.connect()?,
            connection,
        })
    }

    /// The client.
    pub(crate) fn client(&self) -> &kube::Client {
        &self.server.client
    }

    /// Asks for the version, which everybody may. It is also how the server's clock becomes known before anything is
    /// decided by it.
    pub(crate) async fn version(&self) -> Result<String, Error> {
        let answer = self.client().apiserver_version().await;
        Ok(answer.doing("read the version of the cluster")?.git_version)
    }
}

/// A write of ours.
pub(crate) fn write(dry_run: bool) -> Write {
    Write::by(MANAGER).dry_run(dry_run)
}

/// Reads an id as it was typed. A whole token is taken for its id, as kubeadm does; what is wrong is not repeated, for it
/// may be a token with a slip of the finger.
pub(crate) fn id(typed: &str, ui: &Ui) -> Result<TokenId, Error> {
    if let Ok(token) = Token::parse(&Secret::new(typed)) {
        ui.warn("a whole token was typed, and is now in the history of the shell: its id is enough");
        return Ok(token.id);
    }
    typed.parse().map_err(|error: bootstrap::token::NotAnId| {
        Error::usage(error.to_string()).hint("kubectl bootstrap-token list shows the ids")
    })
}

/// Reads a token from stdin, where `--token-stdin` asks for that.
pub(crate) async fn token_from_stdin(ui: &Ui, token_stdin: bool) -> Result<Option<Token>, Error> {
    if !token_stdin {
        return Ok(None);
    }
    let token = Token::parse(&ui.read_secret().await?);
    token
        .map(Some)
        .map_err(|error| Error::usage(format!("invalid token on stdin: {error}")))
}
