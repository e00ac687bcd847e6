//! `kubectl crt verify`: proves which token the agent runs with and that it is alive, or asks about one given token.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::ui::Ui;
use client::error::Error;
use client::secret::{Fingerprint, Secret};
use rancher::ClusterId;
use rancher::token_storage;
use rancher::probe::ProbeResult;
use serde::Serialize;

use super::status::line;
use crate::report::API_VERSION;
use crate::report::chain::{self, Link};
use crate::report::evidence::Evidence;
use crate::sides::{DownstreamFlags, MANAGEMENT, Management, Sides};

/// How often Rancher is asked about a given token: behind a load balancer each replica has a memory of its own.
const LOOKS: u32 = 3;

/// What is typed after `kubectl crt verify`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Verify {
    /// The cluster by id, display name, or namespace/name of the provisioning cluster
    #[arg(value_name = "CLUSTER", required_unless_present = "token_stdin")]
    pub subject: Option<String>,

    /// Ask Rancher about the token on standard input instead: is it alive, and which cluster's is it?
    #[arg(long)]
    pub token_stdin: bool,

    /// The other side.
    #[command(flatten)]
    pub downstream: DownstreamFlags,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # Which token does the agent run with, and is it alive?
  kubectl crt verify staging

  # Is this token still accepted, and for which cluster? Exit code 0: alive, 1: not.
  kubectl crt verify --token-stdin < token.txt

  # Is it one of this cluster's?
  pass show rancher/staging | kubectl crt verify staging --token-stdin

The token is never printed, and nothing is changed. Each question leaves a line in Rancher's log.
Exit code 0 means proven, 1 means not.";

/// The document of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verification {
    api_version: &'static str,
    kind: &'static str,
    /// The cluster that was asked about, or that the given token belongs to.
    cluster: Option<ClusterId>,
    fingerprint: Option<Fingerprint>,
    proven: bool,
    proofs: Vec<Link>,
}

/// Runs it.
pub async fn run(verify: Verify, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let (flags, format) = OutputFlags::of_page(verify.output.as_ref(), "verify")?;
    let found = match &verify.subject {
        _ if verify.token_stdin => given(&verify, global, context).await?,
        Some(subject) => {
            let sides = Sides::open(global, &verify.downstream, context, subject).await?;
            sides.downstream()?;
            of_agent(&Box::pin(Evidence::gather(&sides)).await)
        }
        None => return Err(Error::usage("name a cluster, or give a token with --token-stdin")),
    };
    match format {
        OutputFormat::Table => context.ui.write_out(&page(&context.ui, &found))?,
        _ => output::print_value(&context.ui, &flags, &found)?,
    }
    Ok(if found.proven { ExitCode::Done } else { ExitCode::Failed })
}

fn of_agent(evidence: &Evidence) -> Verification {
    let proofs = chain::proofs(evidence);
    Verification {
        api_version: API_VERSION,
        kind: "Verification",
        cluster: Some(evidence.cluster.id.clone()),
        fingerprint: evidence.token(),
        proven: chain::is_proven(&proofs),
        proofs,
    }
}

/// Asks about the token on stdin. Only Rancher's public door is needed, and the era, by which it is known which of its
/// doors may be tried with a dead token.
async fn given(verify: &Verify, global: &GlobalFlags, context: &Context) -> Result<Verification, Error> {
    let token: Secret = context.ui.read_secret()?;
    let management = Management::open(global, &context.environment)?;
    let wanted = match &verify.subject {
        Some(subject) => Some(management.cluster(subject).await?.id),
        None => None,
    };
    let (settings, rancher) = futures::try_join!(management.settings(), management.rancher())?;
    let probe = management.probe(rancher.as_ref(), &settings)?;
    let era = token_storage::detect(&management.server.client)
        .await
        .map_err(|error| error.on(MANAGEMENT))?;
    let result = probe.looks(era, &token, LOOKS).await;
    let link = chain::asked("accepted", &result, token.fingerprint(), wanted.as_ref());
    let of = match result {
        ProbeResult::Accepted { cluster } => cluster,
        _ => None,
    };
    let proofs = vec![link];
    Ok(Verification {
        api_version: API_VERSION,
        kind: "Verification",
        cluster: of.or(wanted),
        fingerprint: Some(token.fingerprint()),
        proven: chain::is_proven(&proofs),
        proofs,
    })
}

fn page(ui: &Ui, found: &Verification) -> String {
    let mut lines: Vec<String> = found.proofs.iter().map(|link| line(ui, link)).collect();
    let token = found
        .fingerprint
        .map_or_else(|| "its token".to_owned(), |print| print.to_string());
    lines.push(match (&found.cluster, found.proven, found.proofs.len()) {
        (_, true, 1) => format!("{token} is alive"),
        (_, false, 1) => format!("{token} is not proven to be alive"),
        (Some(cluster), true, _) => format!("proven: the agent of {cluster} runs with {token}, and it is alive"),
        (Some(cluster), false, _) => format!("not proven: see above what of {cluster} is not as it should be"),
        (None, _, _) => String::new(),
    });
    lines.join("\n") + "\n"
}
