//! `kubectl bootstrap-token verify`: probes the API server with a token.

use std::time::Duration;

use bootstrap::cluster_info::Signature;
use bootstrap::{ProbeResult, Token, TokenSecret, Usage, tokens};
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::ui::{Stream, Tone, Ui};
use client::error::Error;
use client::secret::Fingerprint;
use serde::Serialize;

use crate::cluster::{ClusterConnection, TokenArgument, TokenFlags};
use crate::join;
use crate::probe;
use crate::report::join::{JoinCheck, JoinMethod, Possible, checks};
use crate::report::{self, API_VERSION};
use crate::servers::{ServerFlags, Servers, combined};

/// How long a valid token may take to be accepted. The API server learns of a new one within milliseconds.
const ACCEPTANCE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub token: TokenFlags,

    #[command(flatten)]
    pub servers: ServerFlags,

    /// Exit with 0 only if a node can also join in this way
    #[arg(long = "for", value_enum, value_name = "METHOD")]
    pub method: Option<JoinMethod>,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # Verify that the API server accepts a token, and print its user and groups
  kubectl bootstrap-token verify 07401b

  # Verify that `kubeadm join` works with it, which also needs a signature in cluster-info
  kubectl bootstrap-token verify 07401b --for kubeadm

  # Verify any token
  kubectl bootstrap-token verify --token-stdin < token

  # Verify that each API server behind a load balancer accepts it
  kubectl bootstrap-token verify 07401b --api-server https://10.0.0.1:6443 \\
      --api-server https://10.0.0.2:6443

The token is sent only to the API server in the kubeconfig and to the named ones, over TLS that the kubeconfig trusts.

Exit codes: 0 accepted, and sufficient for the way of joining in --for; 1 rejected, not sufficient, or unknown.";

/// The document of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenVerification {
    api_version: &'static str,
    kind: &'static str,
    id: String,
    fingerprint: Option<Fingerprint>,
    /// By the API servers: `yes`, `no`, `unknown`.
    accepted: &'static str,
    user: Option<String>,
    groups: Vec<String>,
    /// `None`: the token is not for signing, or the signature is unknown.
    signature: Option<Signature>,
    /// Whether a node can join, one result for each way of joining.
    joins: Vec<JoinCheck>,
    /// Why the token is rejected, or why the result is unknown.
    reasons: Vec<String>,
}

pub(crate) async fn run(verify: Verify, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let (flags, format) = OutputFlags::of_page(verify.output.as_ref(), "verify")?;
    let ui = &context.ui;
    let token = verify.token.read(ui, global).await?;
    let cluster = ClusterConnection::open(global, context)?;
    let servers = Servers::new(&cluster.connection, &verify.servers);
    let verification = match token {
        TokenArgument::Given(token) => verify_given(&cluster, &servers, token).await?,
        TokenArgument::Id(id) => {
            let secret = cluster.require(&id).await?;
            verify_secret(&cluster, &servers, &secret).await?
        }
    };
    match format {
        OutputFormat::Table => ui.write_out(&page(ui, &verification)),
        _ => output::print_value(ui, &flags, &verification)?,
    }
    let is_sufficient = verify.method.is_none_or(|method| {
        let mut joins = verification.joins.iter();
        joins.any(|check| check.kind == method && check.possible == Possible::Yes)
    });
    Ok(if verification.accepted == "yes" && is_sufficient {
        ExitCode::Done
    } else {
        ExitCode::Failed
    })
}

/// Verifies a token from stdin. Its Secret, if it can be read, explains a rejection.
async fn verify_given(
    cluster: &ClusterConnection,
    servers: &Servers,
    token: Token,
) -> Result<TokenVerification, Error> {
    let result = combined(&servers.probe(&token).await?);
    let authentication = (&result).into();
    let mut verification = TokenVerification::new(token.id.as_str(), Some(&token), result);
    let rejected = verification.accepted == "no";
    let mut signing = None;
    match tokens::get(cluster.client(), &token.id).await {
        Ok(Some(secret)) if secret.token.as_ref() == Some(&token) => {
            signing = Some(secret.is_for(Usage::Signing));
            verification.explain(cluster, &secret);
        }
        Ok(Some(_)) if rejected => verification.add("the token with this id in the cluster has another secret"),
        Ok(None) if rejected => verification.add("there is no token with this id in the cluster"),
        _ => {}
    }
    let inputs = join::inputs(cluster, &token, &verification.groups, authentication, signing).await?;
    verification.signature = inputs.discovery.signature();
    verification.joins = checks(&inputs);
    Ok(verification)
}

async fn verify_secret(
    cluster: &ClusterConnection,
    servers: &Servers,
    secret: &TokenSecret,
) -> Result<TokenVerification, Error> {
    let Some(token) = &secret.token else {
        // Without a valid token nothing can be sent.
        let mut verification = TokenVerification::new(secret.title(), None, ProbeResult::Rejected);
        verification.explain(cluster, secret);
        return Ok(verification);
    };
    let is_valid = secret.flaws(cluster.server.clock.now()).is_empty();
    let timeout = if is_valid { ACCEPTANCE_TIMEOUT } else { Duration::ZERO };
    let result = probe::until_accepted(servers, token, timeout).await?;
    let (authentication, signing) = ((&result).into(), secret.is_for(Usage::Signing));
    let inputs = join::inputs(cluster, token, &secret.groups, authentication, Some(signing)).await?;
    let mut verification = TokenVerification::new(token.id.as_str(), Some(token), result);
    verification.explain(cluster, secret);
    verification.signature = inputs.discovery.signature().filter(|_| signing);
    verification.joins = checks(&inputs);
    Ok(verification)
}

impl TokenVerification {
    fn new(id: &str, token: Option<&Token>, result: ProbeResult) -> Self {
        let accepted = report::accepted(&result);
        let (user, groups, reasons) = match result {
            ProbeResult::Accepted { user, groups } => (user, groups, Vec::new()),
            ProbeResult::Rejected => (None, Vec::new(), Vec::new()),
            ProbeResult::Unknown(reason) => (None, Vec::new(), vec![reason]),
        };
        Self {
            api_version: API_VERSION,
            kind: "BootstrapTokenVerification",
            id: id.to_owned(),
            fingerprint: token.map(Token::fingerprint),
            accepted,
            user,
            groups,
            signature: None,
            joins: Vec::new(),
            reasons,
        }
    }

    fn add(&mut self, reason: &str) {
        self.reasons.push(reason.to_owned());
    }

    fn explain(&mut self, cluster: &ClusterConnection, secret: &TokenSecret) {
        let flaws = secret.flaws(cluster.server.clock.now());
        match (self.accepted, flaws.is_empty()) {
            ("yes", false) => self.add("the API server has it in its cache, for up to 10 seconds after it was used"),
            ("no", true) => {
                self.add("its Secret is valid: check that the API server runs with --enable-bootstrap-token-auth");
            }
            _ => {}
        }
        self.reasons.extend(flaws.iter().map(ToString::to_string));
    }
}

fn page(ui: &Ui, verification: &TokenVerification) -> String {
    let (tone, result) = match verification.accepted {
        "yes" => (Tone::Good, "accepted"),
        "no" => (Tone::Bad, "rejected"),
        _ => (Tone::Caution, "unknown"),
    };
    let result = ui.paint(Stream::Out, tone, result);
    let fingerprint = verification.fingerprint;
    let fingerprint = fingerprint.map_or_else(String::new, |fingerprint| format!(" ({fingerprint})"));
    let mut lines = vec![format!("token {}{fingerprint}: {result}", verification.id)];
    if let Some(user) = &verification.user {
        lines.push(format!("  user       {user}"));
    }
    if !verification.groups.is_empty() {
        lines.push(format!("  groups     {}", verification.groups.join(", ")));
    }
    if let Some(signature) = verification.signature {
        lines.push(format!("  signature  {signature} in kube-public/cluster-info"));
    }
    let joins = verification.joins.iter();
    lines.extend(joins.map(|check| format!("  join       {check}")));
    let reasons = verification.reasons.iter();
    lines.extend(reasons.map(|reason| format!("  reason     {reason}")));
    lines.join("\n") + "\n"
}
