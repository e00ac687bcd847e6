//! `kubectl argocd-rancher verify`: verifies that the token of a cluster Secret works, as Argo CD uses it.

use argocd::{ClusterSecret, connection, lookup};
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::rotation::leases::LeasedRotations;
use client::error::Error;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use rancher::ClusterId;
use serde::Serialize;

use super::DocumentList;
use crate::address::RancherAddress as _;
use crate::connections::{ARGOCD, Argo, Rancher, RancherFlags};
use crate::controller::{BLIND, SYNC_FAILED};
use crate::mark;
use crate::report::Part;
use crate::rotation::ArgocdRancher;
use crate::token_check::{CheckResult, CheckStatus, TokenCheck};

/// How many clusters are verified in parallel: a disconnected agent takes half a minute.
const PARALLEL: usize = 8;

/// The flags of `kubectl argocd-rancher verify`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    /// Cluster id, name in Argo CD, or name of the cluster Secret
    #[arg(value_name = "CLUSTER", required = true)]
    pub targets: Vec<String>,

    /// How to reach Rancher.
    #[command(flatten)]
    pub rancher: RancherFlags,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # Verify Argo CD's token for a cluster
  kubectl argocd-rancher verify staging

  # Print the result for a script
  kubectl argocd-rancher verify c-x7k2p -o jsonpath='{.items[0].proven}'

Nothing is changed. A disconnected agent takes Rancher half a minute to report.

Exit codes: 0 proven, 1 not proven.";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenVerification {
    secret: String,
    cluster_name: String,
    cluster: ClusterId,
    token: Option<String>,
    proven: bool,
    checks: Vec<CheckResult>,
}

pub(crate) async fn run(verify: Verify, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let (flags, format) = OutputFlags::of_page(verify.output.as_ref(), "verify")?;
    let argo = Argo::open(global, &context.environment)?;
    let rancher = verify.rancher.open(&argo, global, context).await?;
    let (clusters, rotations) = futures::try_join!(
        argo.clusters(),
        LeasedRotations::<ArgocdRancher>::read(&argo.server, Some(&argo.namespace), ARGOCD)
    )?;
    let targets = verify.targets.iter();
    let targets = targets.map(|name| super::find_cluster(&clusters, name));
    let targets = targets.collect::<Result<Vec<_>, _>>()?;
    // A vector: futures that borrow from a closure's argument are not `Send`.
    let verifications: Vec<_> = targets
        .into_iter()
        .map(|cluster| one(&argo, rancher.as_ref(), cluster, &clusters, &rotations))
        .collect();
    let items: Vec<TokenVerification> = stream::iter(verifications).buffered(PARALLEL).try_collect().await?;
    let all_proven = items.iter().all(|item| item.proven);
    let document = DocumentList::new("ArgoCDClusterVerificationList", items);
    match format {
        OutputFormat::Table => print(context, &document.items),
        _ => output::print_value(&context.ui, &flags, &document)?,
    }
    Ok(if all_proven { ExitCode::Done } else { ExitCode::Failed })
}

async fn one(
    argo: &Argo,
    rancher: Option<&Rancher>,
    cluster: &ClusterSecret,
    clusters: &[ClusterSecret],
    rotations: &LeasedRotations<ArgocdRancher>,
) -> Result<TokenVerification, Error> {
    let token = cluster.token();
    let mut checks = vec![secret(cluster, clusters)];
    let object = &cluster.object;
    if let Some(part) = rotations.of(&object.namespace, &object.name).and_then(Part::of) {
        let why = format!("not called: {part}, and the call could be mistaken for one of Argo CD");
        checks.push(CheckResult::new("rancher", CheckStatus::Unknown, why));
    } else if let (Ok(config), Some(token)) = (&cluster.config, &token) {
        let results = TokenCheck::of(cluster, config, token).run(argo, rancher).await?;
        checks.extend(results.checks());
    }
    let is_called = checks.len() > 1;
    // A good connection state proves nothing, because Argo CD reports it for hours after a token was revoked. A bad one does.
    checks.extend(connection_state(argo, cluster).await);
    let (_, id) = cluster.server.require_rancher()?;
    Ok(TokenVerification {
        secret: object.name.clone(),
        cluster_name: cluster.name.clone(),
        cluster: id,
        token: token.as_ref().map(mark::token_name),
        proven: is_called && checks.iter().all(|check| check.status == CheckStatus::Passed),
        checks,
    })
}

fn secret(cluster: &ClusterSecret, clusters: &[ClusterSecret]) -> CheckResult {
    let name = &cluster.object.name;
    let mut wrong = cluster.flaws();
    let config = cluster.config.as_ref();
    if config.is_ok_and(|config| config.bearer_token().is_none() && config.flaws().is_empty()) {
        wrong.push(mark::NO_BEARER_TOKEN.to_owned());
    }
    let duplicates = lookup::duplicates(clusters);
    let duplicates = duplicates.iter().filter(|duplicate| duplicate.secrets.contains(name));
    wrong.extend(duplicates.map(ToString::to_string));
    if !wrong.is_empty() {
        let message = format!("Secret {name}: {}", wrong.join("; "));
        return CheckResult::new("secret", CheckStatus::Failed, message);
    }
    let token = cluster.token();
    let token = token.as_ref().map_or_else(String::new, mark::token_name);
    CheckResult::new("secret", CheckStatus::Passed, format!("Secret {name} holds {token}"))
}

/// The connection state that Argo CD reports, if it can be read.
async fn connection_state(argo: &Argo, cluster: &ClusterSecret) -> Option<CheckResult> {
    let states = connection::read(&argo.server.client, &argo.namespace).await.ok()??;
    let state = states.get(&cluster.server)?;
    let kinds = state
        .kinds
        .map_or_else(String::new, |kinds| format!(", and watches {kinds} kinds"));
    let check = |status, message| CheckResult::new("argocd", status, message);
    Some(match (state.connected?, state.kinds) {
        (true, Some(0)) => check(CheckStatus::Failed, BLIND.to_owned()),
        (true, _) => check(
            CheckStatus::Passed,
            format!("Argo CD reports that it is connected{kinds}"),
        ),
        (false, _) => check(CheckStatus::Failed, SYNC_FAILED.to_owned()),
    })
}

fn print(context: &Context, items: &[TokenVerification]) {
    let ui = &context.ui;
    for item in items {
        for check in &item.checks {
            ui.out(check.line(ui));
        }
        let (secret, cluster) = (&item.secret, &item.cluster);
        ui.out(if item.proven {
            format!("proven: Argo CD can use cluster {cluster} with Secret {secret}")
        } else {
            format!("not proven: see the failed checks of cluster {cluster} with Secret {secret} above")
        });
    }
}
