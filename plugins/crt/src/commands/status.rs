//! `kubectl crt status`: one page that explains itself, and a rotation under way.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::rotation::Commands;
use cli::rotation::in_progress;
use cli::rotation::leases;
use cli::ui::{Stream, Tone, Ui};
use client::error::Error;
use client::sanitize;
use client::secret::Fingerprint;
use k8s_openapi::jiff::Timestamp;
use rancher::token_storage::TokenStorage;
use serde::Serialize;

use crate::report::API_VERSION;
use crate::report::chain::{self, Link, Standing};
use crate::report::evidence::Evidence;
use crate::report::product::{self, Rotation};
use crate::report::row::ClusterName;
use crate::sides::{DownstreamFlags, Sides};

/// What is typed after `kubectl crt status`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Status {
    /// The cluster by id, display name, or namespace/name of the provisioning cluster
    #[arg(value_name = "CLUSTER")]
    pub subject: String,

    /// The other side.
    #[command(flatten)]
    pub downstream: DownstreamFlags,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # Is the agent of this cluster well, and will it be after Rancher's next redeploy?
  kubectl crt status staging

  # Where a rotation stands, for a script
  kubectl crt status c-x7k2p -o jsonpath='{.rotation.phase}'

  # With a way to the cluster that does not depend on its agent
  kubectl crt status c-x7k2p --downstream-context staging-direct

It shows what the rights at hand allow; what they do not allow is marked with a question mark.";

/// The document of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterStatus {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    cluster: ClusterName,
    era: Option<TokenStorage>,
    rancher_version: Option<String>,
    /// How the downstream side was reached; `null` if it was not.
    path: Option<String>,
    fingerprint: Option<Fingerprint>,
    /// No link of the chain is bad. Links that could not be seen do not count.
    healthy: bool,
    chain: Vec<Link>,
    /// Of its rotation.
    #[serde(flatten)]
    rotation_status: in_progress::RotationStatus,
}

#[derive(Debug, Serialize)]
struct Metadata {
    name: String,
}

/// Runs it.
pub async fn run(status: Status, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let (flags, format) = OutputFlags::of_page(status.output.as_ref(), "status")?;
    let sides = Sides::open(global, &status.downstream, context, &status.subject).await?;
    let commands = status.downstream.commands(&sides.cluster.id, global);
    let lease = product::lease(&sides.cluster.id);
    let (evidence, rotation) = futures::join!(
        Box::pin(Evidence::gather(&sides)),
        leases::of(&sides.management, &lease)
    );
    let now = sides.management.clock.now();
    let document = ClusterStatus::of(&sides, &evidence, rotation?.as_ref(), &commands, now);
    match format {
        OutputFormat::Table => context.ui.write_out(&page(&context.ui, &document, now))?,
        _ => output::print_value(&context.ui, &flags, &document)?,
    }
    Ok(ExitCode::Done)
}

impl ClusterStatus {
    fn of(
        sides: &Sides,
        evidence: &Evidence,
        rotation: Option<&Rotation>,
        commands: &Commands,
        now: Timestamp,
    ) -> Self {
        let cluster = &sides.cluster;
        let chain = chain::chain(evidence);
        Self {
            api_version: API_VERSION,
            kind: "ClusterStatus",
            metadata: Metadata {
                name: cluster.id.to_string(),
            },
            cluster: ClusterName::of(cluster),
            era: evidence.era.as_ref().ok().copied(),
            rancher_version: sides.settings.server_version.clone(),
            path: sides.downstream.as_ref().map(|downstream| downstream.path.to_string()),
            fingerprint: evidence.token(),
            healthy: chain.iter().all(|link| link.status != Standing::Bad),
            chain,
            rotation_status: in_progress::RotationStatus::of(rotation, commands, now),
        }
    }
}

/// The page for people.
fn page(ui: &Ui, status: &ClusterStatus, now: Timestamp) -> String {
    let name = status.cluster.display_name.as_deref().unwrap_or_default();
    let mut lines = vec![
        format!("Cluster {} ({})", sanitize::cell(name), status.cluster.id),
        about_rancher(status),
        String::new(),
    ];
    lines.extend(status.chain.iter().map(|link| line(ui, link)));
    lines.push(String::new());
    lines.extend(status.rotation_status.page(ui, now));
    lines.join("\n") + "\n"
}

fn about_rancher(status: &ClusterStatus) -> String {
    let version = status.rancher_version.as_deref().unwrap_or("of unknown version");
    let era = match status.era {
        Some(TokenStorage::Secret) => "keeps registration tokens in Secrets (era secret)",
        Some(TokenStorage::Status) => "keeps registration tokens in their own objects (era plain)",
        None => "keeps registration tokens in a way that could not be seen",
    };
    let path = status
        .path
        .as_deref()
        .map_or_else(String::new, |path| format!("; the cluster was reached {path}"));
    format!("Rancher {} {era}{path}", sanitize::cell(version))
}

/// One link: a mark, a word and a sentence.
pub(super) fn line(ui: &Ui, link: &Link) -> String {
    let (glyph, plain, tone) = match link.status {
        Standing::Good => ("✔", "+", Tone::Good),
        Standing::Bad => ("✖", "x", Tone::Bad),
        Standing::Caution => ("!", "!", Tone::Caution),
        Standing::Unknown => ("?", "?", Tone::Caution),
        Standing::Skipped => ("–", "-", Tone::Quiet),
    };
    let mark = if ui.terminal().utf8 { glyph } else { plain };
    format!(
        "{} {:<10}{}",
        ui.paint(Stream::Out, tone, mark),
        link.name,
        sanitize::cell(&link.message)
    )
}
