//! `kubectl bootstrap-token verify`: asks the API server about a token, with the token itself.

use std::time::Duration;

use bootstrap::cluster_info::{self, Signature};
use bootstrap::judge::{self, Usage};
use bootstrap::{Answer, Token, TokenSecret, tokens};
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::ui::{Stream, Tone, Ui};
use client::error::Error;
use client::secret::Fingerprint;
use serde::Serialize;

use crate::proof;
use crate::report::API_VERSION;
use crate::servers::{ServerFlags, Servers, together};
use crate::side::{self, Side};

/// For a token that its Secret says should work: the API server learns of a new one within milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is typed after `kubectl bootstrap-token verify`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    /// The id of a token of this cluster
    #[arg(
        value_name = "ID",
        required_unless_present = "token_stdin",
        conflicts_with = "token_stdin"
    )]
    pub id: Option<String>,

    /// Ask about the token on standard input; no right to read Secrets is needed
    #[arg(long)]
    pub token_stdin: bool,

    /// Whom to ask.
    #[command(flatten)]
    pub servers: ServerFlags,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # Does the API server accept it, and as whom?
  kubectl bootstrap-token verify 07401b

  # Is this one any good?
  kubectl bootstrap-token verify --token-stdin < token

  # Do all three API servers behind the load balancer accept it?
  kubectl bootstrap-token verify 07401b --api-server https://10.0.0.1:6443 --api-server https://10.0.0.2:6443 \
    --api-server https://10.0.0.3:6443

The token is sent to the API server of the kubeconfig in use, and to those that are named, over TLS that this kubeconfig
trusts, and to nobody else.
Exit code 0: it is accepted. 1: it is not, or that could not be found out.";

/// The document of `-o json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verification {
    api_version: &'static str,
    kind: &'static str,
    id: String,
    fingerprint: Option<Fingerprint>,
    /// By the API server's own word: `yes`, `no`, `unknown`.
    accepted: &'static str,
    user: Option<String>,
    groups: Vec<String>,
    /// Of `cluster-info`: `valid`, `stale`, `missing`; `None`: it is not for signing, or that is not known.
    signature: Option<&'static str>,
    /// Why not, by its Secret; or why it is not known.
    reasons: Vec<String>,
}

/// Runs it.
pub(crate) async fn run(verify: Verify, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let (flags, format) = OutputFlags::of_page(verify.output.as_ref(), "verify")?;
    let ui = &context.ui;
    let given = side::token_from_stdin(ui, verify.token_stdin).await?;
    let named = verify.id.as_deref().map(|id| side::id(id, ui)).transpose()?;
    let side = Side::open(global, context)?;
    let servers = Servers::new(&side.connection, &verify.servers);
    let found = match (given, named) {
        (Some(token), _) => of_given(&side, &servers, token).await?,
        (None, Some(id)) => {
            let secret = tokens::require(side.client(), &id).await?;
            of_secret(&side, &servers, &secret).await?
        }
        (None, None) => return Err(Error::usage("name a token by its id, or give one with --token-stdin")),
    };
    match format {
        OutputFormat::Table => ui.write_out(&page(ui, &found))?,
        _ => output::print_value(ui, &flags, &found)?,
    }
    Ok(if found.accepted == "yes" {
        ExitCode::Done
    } else {
        ExitCode::Failed
    })
}

/// A token from elsewhere. Its Secret, where it may be read, tells why it is refused.
async fn of_given(side: &Side, servers: &Servers, token: Token) -> Result<Verification, Error> {
    let answer = together(&servers.look(&token).await?);
    let mut found = Verification::new(&token, answer);
    match tokens::get(side.client(), &token.id).await {
        Ok(None) if found.accepted == "no" => found.reasons.push("this cluster has no token of that id".to_owned()),
        Ok(Some(secret)) if secret.token.as_ref() == Some(&token) => found.explain(side, &secret),
        Ok(Some(_)) if found.accepted == "no" => {
            found
                .reasons
                .push("this cluster has a token of that id, with another secret".to_owned());
        }
        _ => {}
    }
    found.signature = signature(side, &token).await;
    Ok(found)
}

async fn of_secret(side: &Side, servers: &Servers, secret: &TokenSecret) -> Result<Verification, Error> {
    let Some(token) = &secret.token else {
        let mut found = Verification::unsendable(secret);
        found.explain(side, secret);
        return Ok(found);
    };
    let works = judge::why_not(secret, side.server.clock.now()).is_empty();
    let patience = if works { PATIENCE } else { Duration::ZERO };
    let answer = proof::until_accepted(servers, token, patience).await?;
    let mut found = Verification::new(token, answer);
    found.explain(side, secret);
    if secret.is_for(Usage::Signing) {
        found.signature = signature(side, token).await.or(found.signature);
    }
    Ok(found)
}

/// `None` where it cannot be told: there is no `cluster-info`, or it may not be read.
async fn signature(side: &Side, token: &Token) -> Option<&'static str> {
    let info = cluster_info::read(side.client()).await.ok()??;
    Some(match info.signature(token) {
        Signature::Valid => "valid",
        Signature::Stale => "stale",
        Signature::Missing => "missing",
    })
}

impl Verification {
    fn new(token: &Token, answer: Answer) -> Self {
        let mut found = Self {
            api_version: API_VERSION,
            kind: "BootstrapTokenVerification",
            id: token.id.to_string(),
            fingerprint: Some(token.fingerprint()),
            accepted: "no",
            user: None,
            groups: Vec::new(),
            signature: None,
            reasons: Vec::new(),
        };
        match answer {
            Answer::Accepted { user, groups } => {
                (found.accepted, found.user, found.groups) = ("yes", user, groups);
            }
            Answer::Refused => {}
            Answer::Unknown(why) => {
                found.accepted = "unknown";
                found.reasons.push(why);
            }
        }
        found
    }

    /// Of a Secret that makes no token: nobody can send it, so nobody is let in.
    fn unsendable(secret: &TokenSecret) -> Self {
        Self {
            api_version: API_VERSION,
            kind: "BootstrapTokenVerification",
            id: secret.title().to_owned(),
            fingerprint: None,
            accepted: "no",
            user: None,
            groups: Vec::new(),
            signature: None,
            reasons: Vec::new(),
        }
    }

    fn explain(&mut self, side: &Side, secret: &TokenSecret) {
        let now = side.server.clock.now();
        let flaws = judge::why_not(secret, now);
        match (self.accepted, flaws.is_empty()) {
            ("yes", false) => self
                .reasons
                .push("it is accepted yet, for up to 10 seconds, because it was used a moment ago".to_owned()),
            ("no", true) => self.reasons.push(
                "nothing is wrong with its Secret: does the API server run with --enable-bootstrap-token-auth?"
                    .to_owned(),
            ),
            _ => {}
        }
        self.reasons.extend(flaws.iter().map(ToString::to_string));
    }
}

fn page(ui: &Ui, found: &Verification) -> String {
    let (tone, word) = match found.accepted {
        "yes" => (Tone::Good, "accepted"),
        "no" => (Tone::Bad, "refused"),
        _ => (Tone::Caution, "unknown"),
    };
    let print = found.fingerprint.map_or(String::new(), |print| format!(" ({print})"));
    let mut lines = vec![format!(
        "token {}{print}: {}",
        found.id,
        ui.paint(Stream::Out, tone, word)
    )];
    if let Some(user) = &found.user {
        lines.push(format!("  user       {user}"));
    }
    if !found.groups.is_empty() {
        lines.push(format!("  groups     {}", found.groups.join(", ")));
    }
    if let Some(signature) = found.signature {
        lines.push(format!("  signature  {signature} in kube-public/cluster-info"));
    }
    lines.extend(found.reasons.iter().map(|reason| format!("  because    {reason}")));
    lines.join("\n") + "\n"
}
