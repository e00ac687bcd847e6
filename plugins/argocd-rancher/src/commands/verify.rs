//! `kubectl argocd-rancher verify`: verifies that the token of a cluster Secret works, as Argo CD uses it.

use std::collections::BTreeMap;

use argocd::connection::{self, Connection};
use argocd::rights::SyncAccess;
use argocd::{ClusterConfig, ClusterSecret, ServerUrl, lookup};
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::rotation::leases::LeasedRotations;
use cli::{ExitCode, Failures};
use client::error::Error;
use client::secret::Secret;
use futures::stream::{self, StreamExt as _};
use k8s_openapi::jiff::Timestamp;
use rancher::ClusterId;
use serde::Serialize;

use super::DocumentList;
use crate::address::RancherAddress as _;
use crate::connections::{ARGOCD, Argo, Rancher, RancherFlags};
use crate::controller::{BLIND, SYNC_FAILED};
use crate::hints::Hints;
use crate::inventory::OwnTokens;
use crate::report::Part;
use crate::rotation::ArgocdRancher;
use crate::token_check::{CheckResult, CheckStatus, TokenCheck};
use crate::token_facts::TokenFacts;
use crate::{mark, remedy};

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

Nothing is changed. A disconnected agent takes Rancher half a minute to report. With --rancher-context, the result says more about a token that Rancher rejects.

Exit codes: 0 proven, 1 not proven.";

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenVerification {
    secret: String,
    cluster_name: String,
    cluster: ClusterId,
    token: Option<String>,
    proven: bool,
    /// What a sync may change. `null`: unknown.
    sync: Option<SyncAccess>,
    checks: Vec<CheckResult>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

pub(crate) async fn run(verify: Verify, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let (flags, format) = OutputFlags::of_page(verify.output.as_ref(), "verify")?;
    let argo = Argo::open(global, &context.environment)?;
    let hints = Hints::new(&verify.rancher, global, &argo.namespace);
    let rancher = verify.rancher.open(&argo, global, context).await?;
    let (clusters, rotations, own_tokens, connections) = futures::join!(
        argo.clusters(),
        LeasedRotations::<ArgocdRancher>::read(&argo.server, Some(&argo.namespace), ARGOCD),
        OwnTokens::read(rancher.as_ref()),
        connection::read(&argo.server.client, &argo.namespace),
    );
    let clusters = clusters?;
    let mut unknown = Failures::of(&context.ui, "clusters", verify.targets.len());
    let mut targets = Vec::new();
    for name in &verify.targets {
        let found = super::find_cluster(&clusters, name, &hints);
        targets.extend(unknown.found(name, found)?);
    }
    let command = VerifyCommand {
        argo: &argo,
        rancher: rancher.as_ref(),
        clusters: &clusters,
        rotations: rotations?,
        own_tokens: own_tokens?,
        connections: connections.ok().flatten().unwrap_or_default(),
        hints: &hints,
        now: argo.server.clock.now(),
    };
    // A vector: futures that borrow from a closure's argument are not `Send`.
    let verifications: Vec<_> = targets.into_iter().map(|cluster| command.one(cluster)).collect();
    let items: Vec<Option<TokenVerification>> = stream::iter(verifications).buffered(PARALLEL).collect().await;
    let items: Vec<TokenVerification> = items.into_iter().flatten().collect();
    if command.rotations.unknown {
        context.ui.warn(
            "no permission to list Leases: rotations in progress are unknown, and a call with a token could be mistaken for one of Argo CD",
        );
    }
    let all_proven = items.iter().all(|item| item.proven);
    let document = DocumentList::new("ArgoCDClusterVerificationList", items);
    match format {
        OutputFormat::Table => print(context, &document.items),
        _ => output::print_value(&context.ui, &flags, &document)?,
    }
    unknown.end("verified")?;
    Ok(if all_proven { ExitCode::Done } else { ExitCode::Failed })
}

/// What is the same for every cluster of one command.
struct VerifyCommand<'a> {
    argo: &'a Argo,
    rancher: Option<&'a Rancher>,
    clusters: &'a [ClusterSecret],
    rotations: LeasedRotations<ArgocdRancher>,
    own_tokens: Option<OwnTokens>,
    /// The connection state that Argo CD reports, if it can be read.
    connections: BTreeMap<ServerUrl, Connection>,
    hints: &'a Hints,
    now: Timestamp,
}

/// The results of the calls with a token.
#[derive(Default)]
struct Called {
    checks: Vec<CheckResult>,
    sync: Option<SyncAccess>,
    hint: Option<String>,
}

impl VerifyCommand<'_> {
    /// `None`: it is not reached through Rancher.
    async fn one(&self, cluster: &ClusterSecret) -> Option<TokenVerification> {
        let (_, id) = cluster.server.rancher()?;
        let token = cluster.token();
        let (secret, of_secret) = self.secret(cluster, &id);
        let called = self.call(cluster, &id, token.as_ref()).await;
        let is_called = !called.checks.is_empty();
        // A good connection state proves nothing, because Argo CD reports it for hours after a token was revoked. A bad one does.
        let (argocd, of_argocd) = self.connection_state(cluster).unzip();
        let checks: Vec<CheckResult> = std::iter::once(secret).chain(called.checks).chain(argocd).collect();
        // Argo CD can be meant to watch only.
        let is_passed = |check: &CheckResult| check.status == CheckStatus::Passed || check.name == SYNC;
        Some(TokenVerification {
            secret: cluster.object.name.clone(),
            cluster_name: cluster.name.clone(),
            cluster: id,
            token: token.as_ref().map(mark::token_name),
            proven: is_called && checks.iter().all(is_passed),
            sync: called.sync,
            checks,
            hint: of_secret.or(called.hint).or(of_argocd.flatten()),
        })
    }

    async fn call(&self, cluster: &ClusterSecret, id: &ClusterId, token: Option<&Secret>) -> Called {
        let object = &cluster.object;
        if let Some(part) = self.rotations.of(&object.namespace, &object.name).and_then(Part::of) {
            let why = format!("not called: {part}, and the call could be mistaken for one of Argo CD");
            let status = self.hints.command("status", &object.name);
            return Called {
                checks: vec![CheckResult::new("rancher", CheckStatus::Unknown, why)],
                hint: Some(format!("{status} prints the commands that resume it or roll it back")),
                ..Called::default()
            };
        }
        let (Ok(config), Some(token)) = (&cluster.config, token) else {
            return Called::default();
        };
        // The check of the Secret says what is wrong.
        if !config.flaws().is_empty() {
            return Called::default();
        }
        match self.call_with(cluster, id, config, token).await {
            Ok(called) => called,
            // One bad Secret does not end the command.
            Err(error) => Called {
                checks: vec![CheckResult::new("rancher", CheckStatus::Unknown, error.message)],
                hint: Some(self.hints.repair(&object.name)),
                ..Called::default()
            },
        }
    }

    async fn call_with(
        &self,
        cluster: &ClusterSecret,
        id: &ClusterId,
        config: &ClusterConfig,
        token: &Secret,
    ) -> Result<Called, Error> {
        let check = TokenCheck::of(cluster, config, token);
        let results = check.run(self.argo, self.rancher).await?;
        let mut called = Called {
            checks: results.checks(),
            hint: remedy::of_results(cluster, id, &results, self.hints),
            sync: None,
        };
        if results.rancher.is_rejected() {
            let own = self.own_tokens.as_ref();
            let tokens = own.and_then(|own| own.of(cluster));
            let facts = TokenFacts::of(cluster, Some(token), tokens, own.map(|own| own.user.as_str()));
            let of = (cluster, id, config);
            if let Some(cause) = remedy::cause(self.argo, self.rancher, of, token, &facts, self.now).await {
                let message = format!("Rancher rejects it: {cause}");
                called.checks = vec![CheckResult::new("rancher", CheckStatus::Failed, message)];
            }
        } else if results.missing.is_some() {
            let access = check.sync_access(self.argo, self.rancher).await;
            called.checks.push(sync(&access));
            called.sync = access.ok();
        }
        Ok(called)
    }

    /// Whether Argo CD can use the Secret, and what to do if not.
    fn secret(&self, cluster: &ClusterSecret, id: &ClusterId) -> (CheckResult, Option<String>) {
        let name = &cluster.object.name;
        let mut wrong = cluster.flaws();
        let mut hint = if cluster.flaws_besides_token().is_empty() {
            remedy::replace(id, self.hints)
        } else {
            self.hints.repair(name)
        };
        let config = cluster.config.as_ref();
        if config.is_ok_and(|config| config.bearer_token().is_none() && config.flaws().is_empty()) {
            wrong.push(mark::NO_BEARER_TOKEN.to_owned());
            hint = self.hints.repair(name);
        }
        let duplicates = lookup::duplicates(self.clusters);
        let duplicates: Vec<_> = duplicates
            .iter()
            .filter(|duplicate| duplicate.secrets.contains(name))
            .collect();
        if wrong.is_empty() && !duplicates.is_empty() {
            "delete or rename all but one of these Secrets".clone_into(&mut hint);
        }
        wrong.extend(duplicates.iter().map(ToString::to_string));
        if !wrong.is_empty() {
            let message = format!("Secret {name}: {}", wrong.join("; "));
            return (CheckResult::new("secret", CheckStatus::Failed, message), Some(hint));
        }
        let token = cluster.token();
        let token = token.as_ref().map_or_else(String::new, mark::token_name);
        let message = format!("Secret {name} holds {token}");
        (CheckResult::new("secret", CheckStatus::Passed, message), None)
    }

    /// The connection state that Argo CD reports, and what to do if it is bad.
    fn connection_state(&self, cluster: &ClusterSecret) -> Option<(CheckResult, Option<String>)> {
        let state = self.connections.get(&cluster.server)?;
        let kinds = state
            .kinds
            .map_or_else(String::new, |kinds| format!(", and watches {kinds} kinds"));
        let check = |status, message| CheckResult::new("argocd", status, message);
        Some(match (state.connected?, state.kinds) {
            (true, Some(0)) => (check(CheckStatus::Failed, BLIND.to_owned()), None),
            (true, _) => {
                let message = format!("Argo CD reports that it is connected{kinds}");
                (check(CheckStatus::Passed, message), None)
            }
            (false, _) => {
                let hint = format!("`argocd cluster get {}` says why", cluster.server);
                (check(CheckStatus::Failed, SYNC_FAILED.to_owned()), Some(hint))
            }
        })
    }
}

/// The name of the check of what a sync may change.
const SYNC: &str = "sync";

fn sync(access: &Result<SyncAccess, Error>) -> CheckResult {
    let (status, message) = match access {
        Ok(SyncAccess::Everything) => (CheckStatus::Passed, "its owner can create, patch and delete everything"),
        Ok(SyncAccess::Some) => (
            CheckStatus::Unknown,
            "its owner can create some kinds only: the sync of any other kind fails",
        ),
        Ok(SyncAccess::Nothing) => (CheckStatus::Failed, "its owner can create nothing: every sync fails"),
        Err(error) => (CheckStatus::Unknown, error.message.as_str()),
    };
    CheckResult::new(SYNC, status, message)
}

fn print(context: &Context, items: &[TokenVerification]) {
    let ui = &context.ui;
    for item in items {
        for check in &item.checks {
            ui.out(check.line(ui));
        }
        let (secret, cluster) = (&item.secret, &item.cluster);
        ui.out(match (item.proven, item.sync) {
            (true, Some(SyncAccess::Nothing)) => {
                format!("proven for watching only: Argo CD cannot sync to cluster {cluster} with Secret {secret}")
            }
            (true, _) => format!("proven: Argo CD can use cluster {cluster} with Secret {secret}"),
            (false, _) => format!("not proven: see the failed checks of cluster {cluster} with Secret {secret} above"),
        });
        if let Some(hint) = &item.hint {
            ui.hint(hint);
        }
    }
}
