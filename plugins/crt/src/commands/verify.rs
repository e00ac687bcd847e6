//! `kubectl crt verify`: verifies which token the agent uses and that Rancher accepts it, or whether Rancher accepts a given
//! token.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::ui::Ui;
use client::error::Error;
use client::secret::{Fingerprint, Secret};
use rancher::ClusterId;
use rancher::probe::ProbeResult;
use rancher::token_storage;
use serde::Serialize;

use crate::connections::{Connections, DownstreamFlags, MANAGEMENT, Management};
use crate::report::API_VERSION;
use crate::report::diagnosis::{self, CheckResult};
use crate::report::inputs::{self, DiagnosisInputs};

/// How often Rancher is asked about a given token: behind a load balancer each replica has its own index.
const PROBES: u32 = 3;

/// The flags of `kubectl crt verify`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    /// Cluster id, display name, or namespace/name of the provisioning cluster
    #[arg(value_name = "CLUSTER", required_unless_present = "token_stdin")]
    target: Option<String>,

    /// Verify the token on standard input instead of the agent's
    #[arg(long)]
    token_stdin: bool,

    /// How to reach the downstream cluster.
    #[command(flatten)]
    downstream: DownstreamFlags,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # Verify the token of a cluster's agent
  kubectl crt verify staging

  # Verify any token, and print the cluster that it belongs to
  kubectl crt verify --token-stdin < token.txt

  # Verify that a token belongs to a cluster
  pass show rancher/staging | kubectl crt verify staging --token-stdin

The token is never printed, and nothing is changed. Each check of a token leaves a line in Rancher's log.

Exit codes: 0 proven, 1 not proven.";

/// The document of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verification {
    api_version: &'static str,
    kind: &'static str,
    /// The cluster of the command line, or of the given token.
    cluster: Option<ClusterId>,
    fingerprint: Option<Fingerprint>,
    proven: bool,
    checks: Vec<CheckResult>,
}

impl Verification {
    fn of(cluster: Option<ClusterId>, fingerprint: Option<Fingerprint>, checks: Vec<CheckResult>) -> Self {
        Self {
            api_version: API_VERSION,
            kind: "Verification",
            cluster,
            fingerprint,
            proven: diagnosis::is_proven(&checks),
            checks,
        }
    }
}

/// Runs it.
pub(crate) async fn run(verify: Verify, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let (flags, format) = OutputFlags::of_page(verify.output.as_ref(), "verify")?;
    let verification = match &verify.target {
        _ if verify.token_stdin => given_token(&verify, global, context).await?,
        Some(target) => {
            let connections = Connections::open(global, &verify.downstream, context, target).await?;
            connections.downstream()?;
            let inputs = Box::pin(DiagnosisInputs::collect(&connections, inputs::TIMEOUT)).await;
            let cluster = Some(inputs.cluster.id.clone());
            Verification::of(cluster, inputs.token(), diagnosis::proofs(&inputs))
        }
        None => return Err(Error::usage("name a cluster, or pass a token with --token-stdin")),
    };
    match format {
        OutputFormat::Table => context.ui.write_out(&page(&context.ui, &verification)),
        _ => output::print_value(&context.ui, &flags, &verification)?,
    }
    Ok(if verification.proven {
        ExitCode::Done
    } else {
        ExitCode::Failed
    })
}

/// Verifies the token on stdin. It needs Rancher's public endpoints, and the token storage, which decides whether a rejected token
/// can be sent to all of them.
async fn given_token(verify: &Verify, global: &GlobalFlags, context: &Context) -> Result<Verification, Error> {
    let token: Secret = context.ui.read_secret().await?;
    let management = Management::open(global, &context.environment)?;
    let wanted = match &verify.target {
        Some(target) => Some(management.cluster(target).await?.id),
        None => None,
    };
    let (settings, rancher) = futures::try_join!(management.settings(), management.rancher())?;
    let probe = management.probe(rancher.as_ref(), &settings)?;
    let storage = token_storage::detect(&management.server.client)
        .await
        .map_err(|error| error.on(MANAGEMENT))?;
    let result = probe.check_times(storage, &token, PROBES).await;
    let check = diagnosis::acceptance(&result, token.fingerprint(), wanted.as_ref());
    let owner = match result {
        ProbeResult::Accepted { cluster } => cluster,
        _ => None,
    };
    Ok(Verification::of(
        owner.or(wanted),
        Some(token.fingerprint()),
        vec![check],
    ))
}

fn page(ui: &Ui, verification: &Verification) -> String {
    let Verification { proven, checks, .. } = verification;
    let mut lines: Vec<String> = checks.iter().map(|check| check.line(ui)).collect();
    let token = verification
        .fingerprint
        .map_or_else(|| "its token".to_owned(), |token| token.to_string());
    lines.push(match (&verification.cluster, proven, checks.len()) {
        (_, true, 1) => format!("{token} is valid"),
        (_, false, 1) => format!("{token} is not proven to be valid"),
        (Some(cluster), true, _) => {
            format!("proven: the agent of {cluster} uses {token}, and Rancher accepts it")
        }
        (_, false, _) => "not proven: see the failed checks above".to_owned(),
        (None, true, _) => String::new(),
    });
    lines.join("\n") + "\n"
}
