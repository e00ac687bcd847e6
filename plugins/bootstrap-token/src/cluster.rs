//! The connection to the cluster, and how a token is named on the command line.

use bootstrap::{Token, TokenId, TokenSecret, Write, tokens};
use cli::app::{Context, GlobalFlags};
use cli::rotation::Commands;
use cli::ui::Ui;
use client::connection::{Connection, Server};
use client::error::{Doing as _, Error};
use client::secret::Secret;
use supervisor::token::without_ca_hash;

pub(crate) const MANAGER: &str = "kubectl-bootstrap-token";

#[derive(Clone, Debug)]
pub(crate) struct ClusterConnection {
    pub server: Server,
    /// How it is reached, to connect with another credential.
    pub connection: Connection,
    /// The commands in hints.
    commands: Commands,
}

impl ClusterConnection {
    /// Loads the kubeconfig. Sends no request.
    pub(crate) fn open(flags: &GlobalFlags, context: &Context) -> Result<Self, Error> {
        let connection = flags.connection.load(&context.environment)?;
        Ok(Self {
            server: connection.connect()?,
            connection,
            commands: commands(flags),
        })
    }

    /// Another command of this plugin for the same cluster, for a hint. `target`: a token, or empty.
    pub(crate) fn command(&self, verb: &str, target: &str) -> String {
        self.commands.on(verb, target)
    }

    /// The command that lets a group of tokens join, for a hint.
    pub(crate) fn rbac_apply(&self, group: &str) -> String {
        let commands = self.commands.clone().with("--group", Some(group));
        commands.on("rbac apply", "")
    }

    /// The token with this id.
    pub(crate) async fn require(&self, id: &TokenId) -> Result<TokenSecret, Error> {
        let found = tokens::get(self.client(), id).await?;
        found.ok_or_else(|| self.not_found(id))
    }

    /// There is no token with this id.
    pub(crate) fn not_found(&self, id: &TokenId) -> Error {
        let list = self.command("list", "");
        let error = Error::from(bootstrap::Error::NotFound(id.clone()));
        error.hint(format!("`{list}` lists the tokens; Kubernetes deletes expired ones"))
    }

    pub(crate) fn client(&self) -> &kube::Client {
        &self.server.client
    }

    /// Requests the version, which needs no permission. The response also sets the server's clock.
    pub(crate) async fn version(&self) -> Result<String, Error> {
        let version = self.client().apiserver_version().await;
        Ok(version.doing("read the version of the cluster")?.git_version)
    }

    /// The kubeconfig leads through Rancher's proxy. It carries requests of Rancher's own users to the API server only, and has Rancher's
    /// certificate authority.
    pub(crate) fn is_through_rancher(&self) -> bool {
        self.connection.server().path().contains("/k8s/clusters/")
    }

    /// The certificate authority by which agents of K3s and RKE2 verify the server. `None`: not known, as behind Rancher's proxy.
    pub(crate) async fn authority_of_supervisor(&self) -> Option<String> {
        if self.is_through_rancher() {
            return None;
        }
        let served = supervisor::ca::served_by_api_server(self.client()).await;
        served.or_else(|| self.connection.authority().map(str::to_owned))
    }
}

pub(crate) fn write(dry_run: bool) -> Write {
    Write::by(MANAGER).dry_run(dry_run)
}

fn commands(flags: &GlobalFlags) -> Commands {
    Commands::new::<crate::cli::BootstrapToken>("", flags)
}

/// Parses an id. A whole token counts as its id, as with kubeadm. An error does not quote the text, which may be a mistyped token.
pub(crate) fn id(text: &str, ui: &Ui, flags: &GlobalFlags) -> Result<TokenId, Error> {
    if let Ok(token) = Token::parse(&Secret::new(text)) {
        ui.warn("the command line contains a whole token, which is now in the history of the shell; pass only its id");
        return Ok(token.id);
    }
    text.parse().map_err(|error: bootstrap::token::NotAnId| {
        let list = commands(flags).on("list", "");
        Error::usage(error.to_string()).hint(format!("`{list}` lists the ids"))
    })
}

/// Reads the token of `--token-stdin`, if the flag is set.
pub(crate) async fn token_from_stdin(ui: &Ui, token_stdin: bool) -> Result<Option<Token>, Error> {
    if !token_stdin {
        return Ok(None);
    }
    let token = Token::parse(&without_ca_hash(&ui.read_secret().await?));
    token
        .map(Some)
        .map_err(|error| Error::usage(format!("invalid token on stdin: {error}")))
}

/// A token that a command is about.
pub(crate) enum TokenArgument {
    /// On stdin.
    Given(Token),
    Id(TokenId),
}

/// The flags that name a token.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TokenFlags {
    /// The id of the token
    #[arg(
        value_name = "ID",
        required_unless_present = "token_stdin",
        conflicts_with = "token_stdin"
    )]
    id: Option<String>,

    /// Read the token from standard input; this needs no permission to read Secrets
    #[arg(long)]
    token_stdin: bool,
}

impl TokenFlags {
    pub(crate) async fn read(&self, ui: &Ui, flags: &GlobalFlags) -> Result<TokenArgument, Error> {
        match (token_from_stdin(ui, self.token_stdin).await?, &self.id) {
            (Some(token), _) => Ok(TokenArgument::Given(token)),
            (None, Some(text)) => id(text, ui, flags).map(TokenArgument::Id),
            (None, None) => Err(Error::usage("name a token by its id, or pass one with --token-stdin")),
        }
    }
}
