//! `kubectl bootstrap-token status`: one token, why it can or cannot work, and a rotation in progress.

use bootstrap::cluster_info::{self, Signature};
use bootstrap::judge::{self, Flaw};
use bootstrap::{Answer, TokenId, TokenSecret, tokens};
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

use crate::proof;
use crate::report::API_VERSION;
use crate::report::product::{self, PLUGIN, Rotation};
use crate::report::row::{self, State};
use crate::rotation::BootstrapToken;
use crate::side::{self, Side};

/// What is typed after `kubectl bootstrap-token status`.
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
  # Does this token work, and why not?
  kubectl bootstrap-token status 07401b

  # Where its rotation stands, for a script
  kubectl bootstrap-token status 07401b -o jsonpath='{.rotation.phase}'

The API server is asked with the token itself. A token that is gone is shown as long as its rotation is under way.";

/// The document of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenStatus {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    id: TokenId,
    fingerprint: Option<Fingerprint>,
    /// `None`: there is no Secret.
    state: Option<State>,
    /// Why the API server refuses it, in the order in which it finds out.
    reasons: Vec<String>,
    /// What the API server said: `yes`, `no`, `unknown`; `None` where there is nothing to ask with.
    accepted: Option<&'static str>,
    /// Why that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted_unknown: Option<String>,
    /// Of `cluster-info` with it: `valid`, `stale`, `missing`; `None` where that cannot be seen.
    signature: Option<&'static str>,
    expires_at: Option<Timestamp>,
    usages: Vec<String>,
    groups: Vec<String>,
    /// What else writes its Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// Of its rotation.
    #[serde(flatten)]
    rotation: RotationStatus,
}

#[derive(Debug, Serialize)]
struct Metadata {
    name: String,
}

/// Runs it.
pub(crate) async fn run(status: Status, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let ui = &context.ui;
    let (flags, format) = OutputFlags::of_page(status.output.as_ref(), "status")?;
    let id = side::id(&status.id, ui)?;
    let side = Side::open(global, context)?;
    let lease = product::lease(&id);
    let (secret, rotation) = futures::join!(
        tokens::get(side.client(), &id),
        leases::of::<BootstrapToken>(&side.server, &lease)
    );
    let (secret, rotation) = (secret?, rotation?);
    let in_progress = rotation.as_ref().is_some_and(Rotation::in_progress);
    if secret.is_none() && !in_progress {
        return Err(bootstrap::Error::NoSuchToken(id).into());
    }
    let commands = Commands::new(PLUGIN, id.as_str(), global);
    let now = side.server.clock.now();
    let rotation = RotationStatus::of(rotation.as_ref(), &commands, now);
    let mut document = TokenStatus::new(id, secret.as_ref(), rotation, now);
    if let Some(secret) = &secret {
        document.ask(&side, secret).await?;
    }
    let ttl = secret.as_ref().map(|secret| row::ttl(secret.expiration, now));
    match format {
        OutputFormat::Table => ui.write_out(&page(ui, &document, ttl.as_deref(), now))?,
        _ => output::print_value(ui, &flags, &document)?,
    }
    Ok(ExitCode::Done)
}

impl TokenStatus {
    fn new(id: TokenId, secret: Option<&TokenSecret>, rotation: RotationStatus, now: Timestamp) -> Self {
        let flaws = secret.map(|secret| judge::why_not(secret, now)).unwrap_or_default();
        let token = secret.and_then(|secret| secret.token.as_ref());
        Self {
            api_version: API_VERSION,
            kind: "BootstrapTokenStatus",
            metadata: Metadata { name: id.to_string() },
            fingerprint: token.map(bootstrap::Token::fingerprint),
            state: secret.map(|secret| row::state(secret, &flaws)),
            reasons: flaws.iter().map(Flaw::to_string).collect(),
            accepted: None,
            accepted_unknown: None,
            signature: None,
            expires_at: secret.and_then(|secret| secret.expiration.at()),
            usages: secret.map(|secret| secret.usages.clone()).unwrap_or_default(),
            groups: secret.map(|secret| secret.groups.clone()).unwrap_or_default(),
            owner: secret.and_then(|secret| secret.owner.as_ref()).map(ToString::to_string),
            rotation,
            id,
        }
    }

    /// Asks the API server with the token itself, and looks for its signature.
    async fn ask(&mut self, side: &Side, secret: &TokenSecret) -> Result<(), Error> {
        let Some(token) = &secret.token else { return Ok(()) };
        let (answer, info) = futures::join!(proof::look(&side.connection, token), cluster_info::read(side.client()));
        self.accepted = Some(match answer? {
            Answer::Accepted { .. } => "yes",
            Answer::Refused => "no",
            Answer::Unknown(why) => {
                self.accepted_unknown = Some(why);
                "unknown"
            }
        });
        // Whoever may not read it, or finds none, is told nothing about it.
        let signature = info.ok().flatten().map(|info| info.signature(token));
        self.signature = signature.map(|signature| match signature {
            Signature::Valid => "valid",
            Signature::Stale => "stale",
            Signature::Missing => "missing",
        });
        Ok(())
    }
}

/// The page for people.
fn page(ui: &Ui, status: &TokenStatus, ttl: Option<&str>, now: Timestamp) -> String {
    let print = status.fingerprint.map_or(String::new(), |print| format!(" ({print})"));
    let mut lines = vec![format!("Bootstrap token {}{print}", status.id)];
    let mut line = |label: &str, text: &str| lines.push(format!("  {label:<10}{}", sanitize::cell(text)));
    match status.state {
        None => line("state", "gone: its Secret is deleted"),
        Some(state) => line("state", state.word()),
    }
    status.reasons.iter().for_each(|reason| line("because", reason));
    if let Some(ttl) = ttl {
        line("ends in", ttl);
    }
    match (status.accepted, &status.accepted_unknown) {
        (Some("yes"), _) => line("asked", "the API server accepts it"),
        (Some("no"), _) => line("asked", "the API server refuses it"),
        (_, Some(why)) => line("asked", &format!("not known: {why}")),
        _ => {}
    }
    if let Some(signature) = status.signature {
        line("signature", &format!("{signature} in kube-public/cluster-info"));
    }
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
