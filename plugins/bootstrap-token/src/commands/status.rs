//! `kubectl bootstrap-token status`: shows one token, why it is invalid, and the rotation in progress.

use bootstrap::cluster_info::Signature;
use bootstrap::{Flaw, ProbeResult, Token, TokenId, TokenSecret, Usage, tokens};
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::rotation::in_progress::RotationStatus;
use cli::rotation::{Commands, leases};
use cli::ui::Ui;
use client::error::Error;
use client::sanitize;
use client::secret::Fingerprint;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::cluster::{self, ClusterConnection};
use crate::join;
use crate::probe;
use crate::report::join::{JoinCheck, checks};
use crate::report::row::{self, State};
use crate::report::target::{self, Rotation};
use crate::report::{self, API_VERSION};
use crate::rotation::BootstrapToken;

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    /// The id of the token
    #[arg(value_name = "ID")]
    pub id: String,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # Show a token, and why it is invalid
  kubectl bootstrap-token status 07401b

  # Print the phase of its rotation
  kubectl bootstrap-token status 07401b -o jsonpath='{.rotation.phase}'

The API server is probed with the token. A revoked token is shown while its rotation is in progress.";

/// The document of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenStatus {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    id: TokenId,
    fingerprint: Option<Fingerprint>,
    /// `None`: the Secret does not exist.
    state: Option<State>,
    /// Why the API server rejects it, in the order of its checks.
    reasons: Vec<String>,
    /// By the API server: `yes`, `no`, `unknown`. `None`: there is no valid token to probe with.
    accepted: Option<&'static str>,
    /// Why `accepted` is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_unknown: Option<String>,
    /// `None`: there is no `cluster-info`, or it cannot be read.
    signature: Option<Signature>,
    /// Whether a node can join, one result for each way of joining.
    joins: Vec<JoinCheck>,
    expires_at: Option<Timestamp>,
    usages: Vec<String>,
    groups: Vec<String>,
    /// The tool that manages its Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(flatten)]
    rotation: RotationStatus,
}

#[derive(Debug, Serialize)]
struct Metadata {
    name: String,
}

pub(crate) async fn run(status: Status, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let (flags, format) = OutputFlags::of_page(status.output.as_ref(), "status")?;
    let id = cluster::id(&status.id, ui, global)?;
    let cluster = ClusterConnection::open(global, context)?;
    let lease = target::lease(&id);
    let (secret, rotation) = futures::join!(
        tokens::get(cluster.client(), &id),
        leases::of::<BootstrapToken>(&cluster.server, &lease)
    );
    let (secret, rotation) = (secret?, rotation?);
    let in_progress = rotation.as_ref().is_some_and(Rotation::in_progress);
    if secret.is_none() && !in_progress {
        return Err(cluster.not_found(&id));
    }
    let commands = Commands::new::<crate::cli::BootstrapToken>(id.as_str(), global);
    let now = cluster.server.clock.now();
    let rotation = RotationStatus::of(rotation.as_ref(), &commands, now);
    let mut document = TokenStatus::new(id, secret.as_ref(), rotation, now);
    if let Some(secret) = &secret {
        document.probe(&cluster, secret).await?;
    }
    let ttl = secret.as_ref().map(|secret| row::ttl(secret.expiration, now));
    match format {
        OutputFormat::Table => ui.write_out(&page(ui, &document, ttl.as_deref(), now)),
        _ => output::print_value(ui, &flags, &document)?,
    }
    Ok(ExitCode::Done)
}

impl TokenStatus {
    fn new(id: TokenId, secret: Option<&TokenSecret>, rotation: RotationStatus, now: Timestamp) -> Self {
        let flaws = secret.map(|secret| secret.flaws(now)).unwrap_or_default();
        let token = secret.and_then(|secret| secret.token.as_ref());
        Self {
            api_version: API_VERSION,
            kind: "BootstrapTokenStatus",
            metadata: Metadata { name: id.to_string() },
            fingerprint: token.map(Token::fingerprint),
            state: secret.map(|secret| row::state(secret, &flaws)),
            reasons: flaws.iter().map(Flaw::to_string).collect(),
            accepted: None,
            accepted_unknown: None,
            signature: None,
            joins: Vec::new(),
            expires_at: secret.and_then(|secret| secret.expiration.at()),
            usages: secret.map(|secret| secret.usages.clone()).unwrap_or_default(),
            groups: secret.map(|secret| secret.groups.clone()).unwrap_or_default(),
            owner: secret.and_then(|secret| secret.owner.as_ref()).map(ToString::to_string),
            rotation,
            id,
        }
    }

    /// Probes the API server with the token, and reads its signature.
    async fn probe(&mut self, cluster: &ClusterConnection, secret: &TokenSecret) -> Result<(), Error> {
        let Some(token) = &secret.token else { return Ok(()) };
        let result = probe::once(&cluster.connection, token).await?;
        let signing = Some(secret.is_for(Usage::Signing));
        let inputs = join::inputs(cluster, token, &secret.groups, (&result).into(), signing).await?;
        self.accepted = Some(report::accepted(&result));
        if let ProbeResult::Unknown(reason) = result {
            self.accepted_unknown = Some(reason);
        }
        self.signature = inputs.discovery.signature();
        self.joins = checks(&inputs);
        Ok(())
    }
}

/// The human-readable page.
fn page(ui: &Ui, status: &TokenStatus, ttl: Option<&str>, now: Timestamp) -> String {
    let print = status.fingerprint.map_or(String::new(), |print| format!(" ({print})"));
    let mut lines = vec![format!("Bootstrap token {}{print}", status.id)];
    let mut line = |label: &str, text: &str| lines.push(format!("  {label:<10}{}", sanitize::cell(text)));
    match status.state {
        None => line("state", "not found: its Secret is deleted"),
        Some(state) => line("state", state.name()),
    }
    status.reasons.iter().for_each(|reason| line("reason", reason));
    if let Some(ttl) = ttl {
        line("ttl", ttl);
    }
    match (status.accepted, &status.accepted_unknown) {
        (_, Some(reason)) => line("accepted", &format!("unknown: {reason}")),
        (Some(accepted), None) => line("accepted", accepted),
        (None, None) => {}
    }
    if let Some(signature) = status.signature {
        line("signature", &format!("{signature} in kube-public/cluster-info"));
    }
    status.joins.iter().for_each(|check| line("join", &check.to_string()));
    if !status.usages.is_empty() {
        line("usages", &status.usages.join(", "));
    }
    if !status.groups.is_empty() {
        line("groups", &status.groups.join(", "));
    }
    if let Some(owner) = &status.owner {
        line("owner", owner);
    }
    lines.extend(status.rotation.page(ui, now));
    lines.join("\n") + "\n"
}
