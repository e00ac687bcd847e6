//! `kubectl crt version`: the versions of this program, of the management cluster and of Rancher.

use cli::ExitCode;
use cli::app::version::{self, VersionFlags, Versions};
use cli::app::{Context, GlobalFlags};
use client::error::{Doing as _, Error};
use rancher::TokenStorage;
use rancher::token_storage;
use serde::Serialize;

use crate::connections::{MANAGEMENT, Management};

/// The flags of `kubectl crt version`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Version {
    /// The common ones.
    #[command(flatten)]
    flags: VersionFlags,
}

const EXAMPLES: &str = "\
Examples:
  # Print the versions of this program, of the management cluster and of Rancher
  kubectl crt version

  # Print the version of this program only
  kubectl crt version --client";

#[derive(Serialize)]
struct ServerVersions {
    server: ServerVersion,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerVersion {
    kubernetes_version: String,
    rancher_version: Option<String>,
    token_storage: Option<TokenStorage>,
}

impl Versions for ServerVersions {
    fn lines(&self) -> Vec<String> {
        let server = &self.server;
        let rancher = server.rancher_version.as_deref().unwrap_or("<none>");
        let storage = server
            .token_storage
            .map_or_else(String::new, |storage| format!(" (token storage: {storage})"));
        vec![
            format!("Kubernetes Version: {}", server.kubernetes_version),
            format!("Rancher Version: {rancher}{storage}"),
        ]
    }
}

/// Runs it.
pub(crate) async fn run(version: Version, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    version::run(&version.flags, context, MANAGEMENT, server_versions(global, context)).await
}

async fn server_versions(global: &GlobalFlags, context: &Context) -> Result<ServerVersions, Error> {
    let management = Management::open(global, &context.environment)?;
    let client = &management.server.client;
    let kubernetes = async {
        let version = client.apiserver_version().await;
        version.doing(format!("read the version of {MANAGEMENT}"))
    };
    let (kubernetes, settings, storage) =
        futures::join!(kubernetes, management.settings(), token_storage::detect(client));
    let server = ServerVersion {
        kubernetes_version: kubernetes?.git_version,
        rancher_version: settings.ok().and_then(|settings| settings.server_version),
        token_storage: storage.ok(),
    };
    Ok(ServerVersions { server })
}
