//! The command `version` of every plugin: the version of the client, and those of the servers that respond in time.

use std::time::Duration;

use client::error::Error;
use serde::Serialize;

use super::Context;
use crate::ExitCode;
use crate::output::{self, OutputFlags, OutputFormat};

/// How long to wait for the versions of the servers.
const PATIENCE: Duration = Duration::from_secs(10);

/// The flags of `version`. Flatten them into the command.
#[derive(clap::Args, Clone, Debug)]
pub struct VersionFlags {
    /// If true, shows client version only (no server required)
    #[arg(long)]
    pub client: bool,

    /// Output format: json, yaml
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

/// The versions of the servers. `Serialize` returns the fields next to `clientVersion`.
pub trait Versions: Serialize {
    /// A line for each: `Kubernetes Version: v1.36.3`.
    fn lines(&self) -> Vec<String>;
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionReport<V> {
    client_version: &'static str,
    #[serde(flatten)]
    servers: Option<V>,
}

/// Prints the version of this program and those that `ask` returns. `ask` has ten seconds, and is not polled with
/// `--client`. The error after a timeout names `who` ("the cluster"). As with kubectl, the known versions are printed
/// before an error.
pub async fn run<V: Versions>(
    flags: &VersionFlags,
    context: &Context,
    who: &str,
    ask: impl Future<Output = Result<V, Error>>,
) -> Result<ExitCode, Error> {
    let output = OutputFlags {
        output: flags.output.clone(),
        ..OutputFlags::default()
    };
    let format = output.format()?;
    let asked = if flags.client {
        Ok(None)
    } else {
        in_time(who, Box::pin(ask)).await.map(Some)
    };
    let (servers, failed) = match asked {
        Ok(servers) => (servers, None),
        Err(error) => (None, Some(error)),
    };
    let report = VersionReport {
        client_version: concat!("v", env!("CARGO_PKG_VERSION")),
        servers,
    };
    if let OutputFormat::Table = format {
        context.ui.out(format!("Client Version: {}", report.client_version));
        for line in report.servers.iter().flat_map(V::lines) {
            context.ui.out(line);
        }
    } else {
        output::print_value(&context.ui, &output, &report)?;
    }
    failed.map_or(Ok(ExitCode::Done), Err)
}

async fn in_time<V>(who: &str, ask: impl Future<Output = Result<V, Error>>) -> Result<V, Error> {
    let answer = tokio::time::timeout(PATIENCE, ask).await;
    answer.unwrap_or_else(|_| {
        let seconds = PATIENCE.as_secs();
        Err(Error::failed(format!("no response from {who} within {seconds}s")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::{Captured, Terminal, Ui, UiFlags};
    use client::connection::Environment;

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Cluster {
        kubernetes_version: &'static str,
    }

    impl Versions for Cluster {
        fn lines(&self) -> Vec<String> {
            vec![format!("Kubernetes Version: {}", self.kubernetes_version)]
        }
    }

    const OURS: &str = concat!("Client Version: v", env!("CARGO_PKG_VERSION"), "\n");

    async fn printed(
        client: bool,
        output: Option<&str>,
        ask: impl Future<Output = Result<Cluster, Error>>,
    ) -> (Result<ExitCode, Error>, Captured) {
        let (ui, captured) = Ui::buffered(Terminal::default(), UiFlags::default(), "");
        let environment = Environment::silent();
        let flags = VersionFlags {
            client,
            output: output.map(str::to_owned),
        };
        let outcome = run(&flags, &Context { ui, environment }, "the cluster", ask).await;
        (outcome, captured)
    }

    fn cluster() -> impl Future<Output = Result<Cluster, Error>> {
        std::future::ready(Ok(Cluster {
            kubernetes_version: "v1.36.3",
        }))
    }

    #[tokio::test]
    async fn what_the_servers_say_stands_beside_our_own_version() {
        let (outcome, captured) = printed(false, None, cluster()).await;
        outcome.unwrap();
        assert_eq!(captured.out(), format!("{OURS}Kubernetes Version: v1.36.3\n"));
        let (_, captured) = printed(false, Some("jsonpath={.clientVersion} {.kubernetesVersion}"), cluster()).await;
        assert_eq!(captured.out(), concat!("v", env!("CARGO_PKG_VERSION"), " v1.36.3"));
    }

    #[tokio::test]
    async fn no_server_is_asked_for_our_own() {
        let (outcome, captured) = printed(true, None, async { panic!("asked") }).await;
        outcome.unwrap();
        assert_eq!(captured.out(), OURS);
    }

    #[tokio::test(start_paused = true)]
    async fn known_versions_are_printed_before_an_error() {
        let (outcome, captured) = printed(false, None, std::future::pending()).await;
        assert_eq!(outcome.unwrap_err().message, "no response from the cluster within 10s");
        assert_eq!(captured.out(), OURS);
    }
}
