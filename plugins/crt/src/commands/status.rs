//! `kubectl crt status`: one page with a diagnosis of the cluster's registration, and the rotation in progress.

use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::rotation::Commands;
use cli::rotation::in_progress;
use cli::rotation::leases;
use client::error::Error;
use client::sanitize;
use client::secret::Fingerprint;
use k8s_openapi::jiff::Timestamp;
use rancher::TokenStorage;
use serde::Serialize;

use crate::connections::{Connections, DownstreamFlags};
use crate::report::API_VERSION;
use crate::report::diagnosis::{self, CheckResult, CheckStatus};
use crate::report::inputs::{self, DiagnosisInputs};
use crate::report::machines::{self, MachineRow};
use crate::report::rescue::{self, Diagnosis, Means, ReactivatedToken};
use crate::report::rotation::{self, ClusterRotation};
use crate::report::row::ClusterName;

/// The flags of `kubectl crt status`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    /// Cluster id, display name, or namespace/name of the provisioning cluster
    #[arg(value_name = "CLUSTER")]
    target: String,

    /// How to reach the downstream cluster.
    #[command(flatten)]
    downstream: DownstreamFlags,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # Check the agent of a cluster, and what Rancher's next redeploy would change
  kubectl crt status staging

  # Print the phase of the rotation in progress
  kubectl crt status c-x7k2p -o jsonpath='{.rotation.phase}'

  # Reach the cluster without its agent
  kubectl crt status c-x7k2p --downstream-context staging-direct

What your permissions do not allow to read is marked with a question mark.";

/// The document of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterStatus {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    cluster: ClusterName,
    token_storage: Option<TokenStorage>,
    rancher_version: Option<String>,
    /// How the downstream cluster was reached; `null` if it was not.
    path: Option<String>,
    fingerprint: Option<Fingerprint>,
    /// No check has failed. Unknown ones do not count.
    healthy: bool,
    checks: Vec<CheckResult>,
    /// The machines of a cluster that Rancher provisioned: those without a Node first, then the youngest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    machines: Vec<MachineRow>,
    /// What a leaked token means for them.
    #[serde(skip)]
    after_a_leak: Option<String>,
    /// Tokens that a rescue has made valid again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reactivated: Vec<ReactivatedToken>,
    /// What to do about them.
    #[serde(skip)]
    alarms: Vec<String>,
    /// What brings a lost agent back; `None`: nothing is to be rescued.
    #[serde(skip_serializing_if = "Option::is_none")]
    rescue: Option<rescue::Row>,
    /// The rotation of the cluster.
    #[serde(flatten)]
    rotation_status: in_progress::RotationStatus,
}

#[derive(Debug, Serialize)]
struct Metadata {
    name: String,
}

/// Runs it.
pub(crate) async fn run(status: Status, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let (flags, format) = OutputFlags::of_page(status.output.as_ref(), "status")?;
    let connections = Connections::open(global, &status.downstream, context, &status.target).await?;
    let commands = status.downstream.commands(&connections.cluster.id, global);
    let lease = rotation::lease(&connections.cluster.id);
    let (inputs, rotation) = futures::join!(
        Box::pin(DiagnosisInputs::collect(&connections, inputs::TIMEOUT)),
        leases::of(&connections.management, &lease)
    );
    let now = connections.management.clock.now();
    let document = ClusterStatus::of(&connections, &inputs, rotation?.as_ref(), &commands, now);
    match format {
        OutputFormat::Table => context.ui.write_out(&page(context, &document, now)),
        _ => output::print_value(&context.ui, &flags, &document)?,
    }
    Ok(ExitCode::Done)
}

impl ClusterStatus {
    fn of(
        connections: &Connections,
        inputs: &DiagnosisInputs,
        rotation: Option<&ClusterRotation>,
        commands: &Commands,
        now: Timestamp,
    ) -> Self {
        let cluster = &connections.cluster;
        let downstream = connections.downstream.as_ref();
        let checks = diagnosis::all(inputs);
        let machines = machines::rows(inputs.machines.as_deref().unwrap_or_default());
        let provisioning = connections.provisioning.as_ref();
        let means = Means {
            route: downstream.map(|downstream| downstream.route.clone()),
            may_write: true,
            ..Means::default()
        };
        let diagnosis = Diagnosis::of(inputs, &means);
        let reactivated = rescue::reactivated(inputs.tokens.iter().flat_map(|tokens| &tokens.tokens));
        let alarms = reactivated.iter().map(|token| token.alarm(rotation, commands));
        let after_a_leak = provisioning.and_then(|found| machines::after_a_leak(found, &machines, commands, now));
        Self {
            api_version: API_VERSION,
            kind: "ClusterStatus",
            metadata: Metadata {
                name: cluster.id.to_string(),
            },
            cluster: ClusterName::of(cluster),
            token_storage: inputs.storage.as_ref().ok().copied(),
            rancher_version: connections.settings.server_version.clone(),
            path: downstream.map(|downstream| downstream.route.to_string()),
            fingerprint: inputs.token(),
            healthy: checks.iter().all(|check| check.status != CheckStatus::Failed),
            checks,
            machines,
            after_a_leak,
            alarms: alarms.collect(),
            reactivated,
            rescue: diagnosis.is_lost().then(|| rescue::Row::of(&diagnosis, commands)),
            rotation_status: in_progress::RotationStatus::of(rotation, commands, now),
        }
    }
}

fn page(context: &Context, status: &ClusterStatus, now: Timestamp) -> String {
    let name = status.cluster.display_name.as_deref().unwrap_or_default();
    let mut lines = vec![
        format!("Cluster {} ({})", sanitize::cell(name), status.cluster.id),
        about_rancher(status),
        String::new(),
    ];
    lines.extend(status.checks.iter().map(|check| check.line(&context.ui)));
    lines.push(String::new());
    if let Some(text) = &status.after_a_leak {
        lines.extend([text.clone(), String::new()]);
    }
    for alarm in &status.alarms {
        lines.extend([format!("Warning: {alarm}"), String::new()]);
    }
    lines.extend(status.rotation_status.page(&context.ui, now));
    if let (Some(rescue), None) = (&status.rescue, &status.rotation_status.rotation) {
        lines.extend([String::new(), rescue.line()]);
    }
    lines.join("\n") + "\n"
}

fn about_rancher(status: &ClusterStatus) -> String {
    let version = status.rancher_version.as_deref().unwrap_or("<unknown version>");
    let storage = status
        .token_storage
        .map_or_else(|| "<unknown>".to_owned(), |storage| storage.to_string());
    let path = status
        .path
        .as_deref()
        .map_or_else(String::new, |path| format!(", cluster reached {path}"));
    format!("Rancher {}, token storage: {storage}{path}", sanitize::cell(version))
}
