//! `kubectl crt version`: of this program, and, where it answers, of the other end.

use cli::ExitCode;
use cli::app::version::{self, VersionFlags, Versions};
use cli::app::{Context, GlobalFlags};
use client::error::{Doing as _, Error};
use rancher::token_storage::{self, TokenStorage};
use serde::Serialize;

use crate::sides::{MANAGEMENT, Management};

/// What is typed after `kubectl crt version`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Version {
    /// Of whom, and in which form.
    #[command(flatten)]
    pub flags: VersionFlags,
}

const EXAMPLES: &str = "\
Examples:
  # This program, the management cluster, Rancher, and how that keeps its tokens
  kubectl crt version

  # Without asking any server
  kubectl crt version --client";

#[derive(Serialize)]
struct Told {
    server: Server,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    kubernetes_version: String,
    rancher_version: Option<String>,
    era: Option<TokenStorage>,
}

impl Versions for Told {
    fn lines(&self) -> Vec<String> {
        let server = &self.server;
        let rancher = server.rancher_version.as_deref().unwrap_or("<none>");
        let era = server
            .era
            .map_or_else(String::new, |era| format!(" (registration tokens: {era})"));
        vec![
            format!("Kubernetes Version: {}", server.kubernetes_version),
            format!("Rancher Version: {rancher}{era}"),
        ]
    }
}

/// Runs it.
pub async fn run(version: Version, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    version::run(&version.flags, context, MANAGEMENT, ask(global, context)).await
}

async fn ask(global: &GlobalFlags, context: &Context) -> Result<Told, Error> {
    let management = Management::open(global, &context.environment)?;
    let client = &management.server.client;
    let kubernetes = async {
        let answer = client.apiserver_version().await;
        answer.doing(format!("read the version of {MANAGEMENT}"))
    };
    let (kubernetes, settings, era) = futures::join!(kubernetes, management.settings(), token_storage::detect(client));
    let server = Server {
        kubernetes_version: kubernetes?.git_version,
        rancher_version: settings.ok().and_then(|settings| settings.server_version),
        era: era.ok(),
    };
    Ok(Told { server })
}
