//! `kubectl argocd-rancher add`: issues a token for one cluster, checks it as Argo CD will use it, and writes it to the cluster
//! Secret. Nothing is written before the checks have passed. A token that fails them is revoked.

use std::time::Duration;

use argocd::config::Method;
use argocd::lookup::{self, ServerMatch};
use argocd::rights::WatchScope;
use argocd::{ClusterConfig, ClusterSecret, NewClusterSecret, ServerUrl, cluster_secret, secret_name};
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::rotation::force;
use cli::ui::Ui;
use client::error::{Error, Kind};
use client::secret::Secret;
use engine::rotation::Check;
use engine::run::RunId;
use k8s_openapi::jiff::Timestamp;
use rancher::api_token::proof::CallResult;
use rancher::api_token::{self, ApiToken, IssuedToken, Lifetime, NewToken, VisibleCluster};
use rancher::probe::{Probe, same_certificates};
use serde::Serialize;

use super::DocumentList;
use crate::connections::{self, Argo, RANCHER, Rancher, RancherFlags, of_argocd};
use crate::mark;
use crate::token_check::{Timeouts, TokenCheck, TokenResults};

/// How often a new token is tried before it counts as rejected, and the time in between: each replica of Rancher receives it by
/// itself.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);
/// How often a changed Secret must still hold the new token: Argo CD may write its stale copy back.
const REREADS: u32 = 3;

/// The flags of `kubectl argocd-rancher add`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Add {
    /// Cluster id or display name in Rancher
    #[arg(value_name = "CLUSTER", required = true)]
    pub targets: Vec<String>,

    /// Name of the cluster in Argo CD; by default its display name in Rancher
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Validity of the token; Rancher may grant less
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = super::lifetime)]
    pub ttl: Lifetime,

    /// Label of the new Secret, for ApplicationSets to select by; can be repeated
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,

    /// Namespace that Argo CD is limited to; can be repeated
    #[arg(long = "only-namespace", value_name = "NAMESPACE")]
    pub namespaces: Vec<String>,

    /// With --only-namespace, include cluster-scoped objects
    #[arg(long, requires = "namespaces")]
    pub cluster_resources: bool,

    /// Issue a token that is not limited to the cluster. Only for cluster local, and only where Rancher redirects Argo CD out of the scope of a limited one (Rancher 2.15.0)
    #[arg(long)]
    pub unscoped: bool,

    /// Argo CD project of the cluster
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,

    /// Override a check; can be repeated
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = force::of(&[OFFLINE, RIGHTS, OWNER]))]
    pub force: Vec<Check>,

    /// Only print what would be done
    #[arg(long)]
    pub dry_run: bool,

    /// Do not ask for confirmation
    #[arg(short = 'y', long)]
    pub yes: bool,

    /// How to reach Rancher.
    #[command(flatten)]
    pub rancher: RancherFlags,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

const OFFLINE: Check = Check {
    name: "offline",
    help: "check the token at Rancher only, where the agent is offline",
};
const RIGHTS: Check = Check {
    name: "rights",
    help: "add the cluster although the token's owner lacks permissions",
};
const OWNER: Check = Check {
    name: "owner",
    help: "change a Secret that a GitOps tool or controller owns",
};

const EXAMPLES: &str = "\
Examples:
  # Print what would be done
  kubectl argocd-rancher add staging --rancher-context rancher --dry-run

  # Add two clusters to Argo CD, each with its own token
  kubectl argocd-rancher add staging c-m-x7k2p9bq --rancher-context rancher

  # Use the token of a service user, and set a label that an ApplicationSet selects by
  pass show rancher/argocd | kubectl argocd-rancher add staging -l env=staging \\
    --rancher-url https://rancher.example.com --rancher-token-stdin

The token belongs to the Rancher user of this command, and only this user can list or revoke it. In an existing Secret only the token is replaced, and only if it does not work.";

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label must be KEY=VALUE")?;
    if key.contains("cattle.io/") {
        // Rancher deletes unknown objects with its own labels.
        return Err(format!("label {key} is reserved for Rancher"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// The result for one cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AddResult {
    cluster: rancher::ClusterId,
    display_name: String,
    secret: String,
    result: AddOutcome,
    token: Option<String>,
    /// `null`: it never expires, or there is no token yet.
    expires_at: Option<Timestamp>,
    /// The previous token, if it is still valid.
    replaced_token: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum AddOutcome {
    Created,
    Adopted,
    Unchanged,
    WouldCreate,
    WouldAdopt,
}

/// What is the same for every cluster of one command.
struct AddCommand<'a> {
    add: &'a Add,
    argo: &'a Argo,
    rancher: &'a Rancher,
    ui: &'a Ui,
    /// The CA of Rancher's certificate. `None`: it is publicly trusted.
    ca: Option<String>,
    /// The tokens of the Rancher user.
    tokens: Vec<ApiToken>,
    /// The identity of Argo CD, for the marks of tokens.
    identity: Option<String>,
}

pub(crate) async fn run(add: Add, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let (flags, format) = OutputFlags::of_page(add.output.as_ref(), "add")?;
    if add.name.is_some() && add.targets.len() > 1 {
        return Err(Error::usage("--name cannot be used with several clusters"));
    }
    let argo = Argo::open(global, &context.environment)?;
    let rancher = add.rancher.require(&argo, global, context).await?;
    rancher.whoami().await?;
    let clusters = find(&rancher, &add.targets).await?;
    if add.unscoped {
        context.ui.warn(connections::UNSCOPED);
    }
    let command = AddCommand {
        ca: ca(&rancher).await?,
        identity: argo.identity().await?,
        tokens: rancher.tokens().await?,
        add: &add,
        argo: &argo,
        rancher: &rancher,
        ui: &context.ui,
    };
    let mut results = DocumentList::new("ArgoCDClusterAdditionList", Vec::new());
    let mut failed = None;
    for cluster in &clusters {
        match command.one(cluster).await {
            Ok(result) => results.items.push(result),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    // The results are printed before the error.
    match format {
        OutputFormat::Table => results
            .items
            .iter()
            .for_each(|result| context.ui.out(result.sentence())),
        _ => output::print_value(&context.ui, &flags, &results)?,
    }
    failed.map_or(Ok(ExitCode::Done), Err)
}

async fn find(rancher: &Rancher, names: &[String]) -> Result<Vec<VisibleCluster>, Error> {
    let mut clusters: Vec<VisibleCluster> = Vec::new();
    for name in names {
        let found = api_token::find_cluster(&rancher.client, name).await;
        let cluster = found.map_err(|error| error.on(RANCHER))?;
        if clusters.iter().all(|known| known.id != cluster.id) {
            clusters.push(cluster);
        }
    }
    Ok(clusters)
}

/// The CA of Rancher's certificate, from Rancher's public endpoint. `None`: it is publicly trusted.
async fn ca(rancher: &Rancher) -> Result<Option<String>, Error> {
    let pem = Probe::new(rancher.public()?).ca_certificates().await;
    pem.map_err(|error| error.on(RANCHER))
}

impl AddCommand<'_> {
    async fn one(&self, cluster: &VisibleCluster) -> Result<AddResult, Error> {
        super::check_interrupt(self.ui, &cluster.id)?;
        let added = self.create_or_adopt(cluster).await;
        added.map_err(|error| error.doing(format!("add cluster {}", cluster.id)))
    }

    async fn create_or_adopt(&self, cluster: &VisibleCluster) -> Result<AddResult, Error> {
        super::refuse(self.rancher.wrong_scope(&cluster.id, self.add.unscoped).await?)?;
        let server = self.rancher.server_of(&cluster.id);
        let clusters = self.argo.clusters().await?;
        match lookup::by_server(&clusters, &server) {
            ServerMatch::One(existing) => self.adopt(cluster, existing).await,
            ServerMatch::NotFound => self.create(cluster, &server, &clusters).await,
            ServerMatch::Ambiguous(secrets) => {
                // The error for a Secret that Argo CD cannot use has a better hint.
                if let Some(flawed) = secrets.iter().find(|secret| !secret.flaws_besides_token().is_empty()) {
                    return self.adopt(cluster, flawed).await;
                }
                let names: Vec<&str> = secrets.iter().map(|secret| secret.object.name.as_str()).collect();
                Err(Error::failed(format!(
                    "namespace {} has other Secrets for the same URL already: {}",
                    self.argo.namespace,
                    names.join(", ")
                ))
                .hint(format!(
                    "Argo CD confuses such Secrets: delete all but one, and set its server to exactly {server}"
                )))
            }
        }
    }

    async fn create(
        &self,
        cluster: &VisibleCluster,
        server: &ServerUrl,
        clusters: &[ClusterSecret],
    ) -> Result<AddResult, Error> {
        let secret = secret_name(server.as_str()).map_err(|error| Error::failed(error.to_string()))?;
        let name = self.add.name.clone().unwrap_or_else(|| called(cluster).to_owned());
        if let Some(other) = clusters.iter().find(|other| other.name == name) {
            return Err(Error::failed(format!(
                "Secret {} already has the cluster name {name:?}, and Argo CD would confuse the two",
                other.object.name
            ))
            .hint("choose another name with --name"));
        }
        if self.add.dry_run {
            return Ok(AddResult::planned(cluster, &secret, AddOutcome::WouldCreate));
        }
        let _hold = self.ui.hold();
        let IssuedToken { token, value } = self.issue(cluster, &secret).await?;
        let config = ClusterConfig::bearing(&value, self.ca.as_deref());
        let check = TokenCheck {
            server,
            config: &config,
            token: &value,
            scope: WatchScope {
                namespaces: &self.add.namespaces,
                cluster_resources: self.add.cluster_resources,
            },
            timeouts: Timeouts::LONG,
        };
        let written = async {
            self.prove(check).await?;
            let new = NewClusterSecret {
                secret: secret.clone(),
                name,
                server: server.clone(),
                config: config.clone(),
                labels: self.add.labels.iter().cloned().collect(),
                namespaces: self.add.namespaces.clone(),
                cluster_resources: self.add.cluster_resources,
                project: self.add.project.clone(),
            };
            let client = &self.argo.server.client;
            let created = cluster_secret::create(client, &self.argo.namespace, &new, &mark::write(&token)).await;
            created.map(drop).map_err(of_argocd)
        };
        self.or_revoke(&token, written.await).await?;
        Ok(AddResult::planned(cluster, &secret, AddOutcome::Created).with(&token))
    }

    async fn adopt(&self, cluster: &VisibleCluster, existing: &ClusterSecret) -> Result<AddResult, Error> {
        let name = &existing.object.name;
        let config = adoptable(existing)?;
        self.add.agrees_with(existing)?;
        super::require_no_rotation(self.argo, existing, "adopt").await?;
        super::refuse(mark::owned(existing, self.add.force.contains(&OWNER)))?;
        let old = config.bearer_token();
        if let Some(old) = &old
            && let Some(token) = self.working_token(cluster, existing, config, old).await?
        {
            return Ok(AddResult::planned(cluster, name, AddOutcome::Unchanged).with(token));
        }
        if self.add.dry_run {
            return Ok(AddResult::planned(cluster, name, AddOutcome::WouldAdopt));
        }
        let question = format!(
            "The credential for cluster {} in Secret {name} (namespace {}) will be replaced by a new token.",
            cluster.id, self.argo.namespace
        );
        self.ui.require_confirmation(&question, self.add.yes).await?;
        let token = self.replace(cluster, existing, config).await?;
        let replaced_token = match &old {
            Some(old) if self.is_valid(existing, config, old).await => Some(mark::token_name(old)),
            _ => None,
        };
        Ok(AddResult {
            replaced_token,
            ..AddResult::planned(cluster, name, AddOutcome::Adopted).with(&token)
        })
    }

    /// Replaces the credential in an existing Secret by a new token.
    async fn replace(
        &self,
        cluster: &VisibleCluster,
        existing: &ClusterSecret,
        config: &ClusterConfig,
    ) -> Result<ApiToken, Error> {
        let _hold = self.ui.hold();
        let IssuedToken { token, value } = self.issue(cluster, &existing.object.name).await?;
        let config = self.with_right_ca(config.clone().with_bearer(&value));
        let written = async {
            self.prove(TokenCheck::of(existing, &config, &value)).await?;
            let client = &self.argo.server.client;
            let patched = cluster_secret::patch_config(client, &existing.object, &config, &mark::write(&token)).await;
            patched.map_err(of_argocd)
        };
        let written = self.or_revoke(&token, written.await).await?;
        self.settle(written, &value, &token).await?;
        Ok(token)
    }

    /// The token of the Secret, if it can stay: it belongs to this user, has the right scope, and works with the right CA.
    async fn working_token(
        &self,
        cluster: &VisibleCluster,
        existing: &ClusterSecret,
        config: &ClusterConfig,
        value: &Secret,
    ) -> Result<Option<&ApiToken>, Error> {
        let credential = api_token::Credential::of(value);
        let own = |token: &&ApiToken| Some(&token.name) == credential.api_token();
        let Some(token) = self.tokens.iter().find(own) else {
            return Ok(None);
        };
        let is_scoped = match &token.cluster {
            Some(scope) => *scope == cluster.id,
            None => self.add.unscoped,
        };
        if !is_scoped || !self.has_right_ca(config) {
            return Ok(None);
        }
        let check = TokenCheck::of(existing, config, value);
        let results = check.run(self.argo, Some(self.rancher)).await?;
        Ok(self.accepts(&results).then_some(token))
    }

    async fn is_valid(&self, existing: &ClusterSecret, config: &ClusterConfig, value: &Secret) -> bool {
        let check = TokenCheck::of(existing, config, value);
        let result = check.at_rancher(self.argo, Some(self.rancher)).await;
        result.is_ok_and(|result| result.is_valid())
    }

    /// Whether the certificate is not verified, or with Rancher's present CA.
    fn has_right_ca(&self, config: &ClusterConfig) -> bool {
        config.insecure() || same_certificates(config.ca().as_deref(), self.ca.as_deref())
    }

    /// The config with Rancher's present CA.
    fn with_right_ca(&self, config: ClusterConfig) -> ClusterConfig {
        if self.has_right_ca(&config) {
            config
        } else {
            config.with_ca(self.ca.as_deref())
        }
    }

    async fn issue(&self, cluster: &VisibleCluster, secret: &str) -> Result<IssuedToken, Error> {
        let run = RunId::draw().to_string();
        let new = NewToken {
            cluster: Some(cluster.id.clone()).filter(|_| !self.add.unscoped),
            lifetime: self.add.ttl,
            mark: mark::of_run(&run, &self.argo.namespace, secret, self.identity.as_deref()),
        };
        let issued = self.rancher.issue(&new).await?;
        self.ui
            .status(format!("issued token {} for cluster {}", issued.token.name, cluster.id));
        if let Some(shortened) = mark::shortened(&issued.token, self.add.ttl, self.argo.server.clock.now()) {
            self.ui.warn(shortened);
        }
        Ok(issued)
    }

    /// Refuses a token that Argo CD could not use.
    async fn prove(&self, check: TokenCheck<'_>) -> Result<(), Error> {
        let results = tokio::select! {
            results = self.try_until_accepted(check) => results?,
            () = self.ui.interrupt().cancelled() => {
                return Err(Error::new(Kind::Interrupted, "interrupted before the Secret was written"));
            }
        };
        if self.accepts(&results) {
            Ok(())
        } else {
            Err(refused(&results))
        }
    }

    async fn try_until_accepted(&self, check: TokenCheck<'_>) -> Result<TokenResults, Error> {
        for _ in 1..TRIES {
            let results = check.run(self.argo, Some(self.rancher)).await?;
            let is_rejected = CallResult::is_rejected;
            if !is_rejected(&results.rancher) && !results.proxy.as_ref().is_some_and(is_rejected) {
                return Ok(results);
            }
            tokio::time::sleep(PAUSE).await;
        }
        check.run(self.argo, Some(self.rancher)).await
    }

    fn accepts(&self, results: &TokenResults) -> bool {
        let forces = |check| self.add.force.contains(&check);
        results.all_passed() || results.are_overridden(forces(OFFLINE), forces(RIGHTS))
    }

    /// Revokes a token that was not written to a Secret.
    async fn or_revoke<T>(&self, token: &ApiToken, result: Result<T, Error>) -> Result<T, Error> {
        let Err(error) = result else { return result };
        match self.rancher.revoke(&token.name).await {
            Ok(()) => self.ui.status(format!("revoked token {}", token.name)),
            Err(_) => self.ui.warn(format!(
                "token {} could not be revoked, and is in no Secret",
                token.name
            )),
        }
        Err(error)
    }

    /// Writes the token again until it stays. Argo CD may write its stale copy back after us, without a conflict (in 11 of 150 swaps on
    /// Argo CD 3.5.1).
    async fn settle(&self, mut written: ClusterSecret, value: &Secret, token: &ApiToken) -> Result<(), Error> {
        let client = &self.argo.server.client;
        let mut unchanged = 0;
        for _ in 0..REREADS * 4 {
            tokio::time::sleep(PAUSE).await;
            let (namespace, name) = (&written.object.namespace, &written.object.name);
            let found = cluster_secret::get(client, namespace, name).await;
            let gone = || Error::new(Kind::NotFound, format!("Secret {name} was deleted meanwhile"));
            let found = found.map_err(of_argocd)?.ok_or_else(gone)?;
            let config = adoptable(&found)?.clone();
            if config.bearer_token().as_ref() == Some(value) {
                unchanged += 1;
                if unchanged == REREADS {
                    return Ok(());
                }
                continue;
            }
            unchanged = 0;
            let config = self.with_right_ca(config.with_bearer(value));
            match cluster_secret::patch_config(client, &found.object, &config, &mark::write(token)).await {
                Ok(patched) => written = patched,
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(of_argocd(error)),
            }
        }
        Err(Error::failed(format!(
            "another writer keeps changing the token in Secret {}",
            written.object.name
        ))
        .hint("check whether a GitOps tool or another controller manages it"))
    }
}

impl Add {
    /// Refuses flags that would change anything but the token in an existing Secret.
    fn agrees_with(&self, existing: &ClusterSecret) -> Result<(), Error> {
        let has = |(key, value): &(String, String)| existing.labels.get(key) == Some(value);
        let differs = [
            ("--name", self.name.as_ref().is_some_and(|name| *name != existing.name)),
            ("--label", !self.labels.iter().all(has)),
            (
                "--only-namespace",
                !self.namespaces.is_empty() && self.namespaces != existing.namespaces,
            ),
            (
                "--cluster-resources",
                self.cluster_resources && !existing.cluster_resources,
            ),
            ("--project", self.project.is_some() && self.project != existing.project),
        ];
        let Some((flag, _)) = differs.into_iter().find(|(_, differs)| *differs) else {
            return Ok(());
        };
        let name = &existing.object.name;
        Err(Error::failed(format!(
            "Secret {name} exists already for this cluster, and differs from {flag}"
        ))
        .hint(format!(
            "omit {flag}, or change Secret {name} first: `add` replaces only its token"
        )))
    }
}

/// The config of a Secret, if its credential can be replaced.
fn adoptable(existing: &ClusterSecret) -> Result<&ClusterConfig, Error> {
    let name = &existing.object.name;
    let wrong = mark::unchangeable(existing, &[Method::Bearer, Method::Anonymous]);
    match &existing.config {
        Ok(config) if wrong.is_empty() => Ok(config),
        _ => {
            let wrong = wrong.join("; ");
            let message = format!("Secret {name} exists already for this cluster, but cannot be adopted: {wrong}");
            Err(Error::failed(message).hint(mark::repair_hint(name)))
        }
    }
}

fn refused(results: &TokenResults) -> Error {
    let error = Error::failed(format!("Argo CD could not use the new token: {}", results.failures()));
    if results.lack_the_cluster_only() {
        error.hint("--force=offline adds the cluster anyway; the token was checked at Rancher only")
    } else if results.lack_rights_only() {
        error
            .hint(
                "Argo CD lists and watches every kind: give the user the role cluster-owner, or one with get, list and watch \
                 on everything",
            )
            .hint("--only-namespace limits what Argo CD watches; --force=rights adds the cluster anyway")
    } else {
        error
    }
}

/// The display name, or else the id.
fn called(cluster: &VisibleCluster) -> &str {
    if cluster.name.is_empty() {
        cluster.id.as_str()
    } else {
        &cluster.name
    }
}

impl AddResult {
    fn planned(cluster: &VisibleCluster, secret: &str, result: AddOutcome) -> Self {
        Self {
            cluster: cluster.id.clone(),
            display_name: cluster.name.clone(),
            secret: secret.to_owned(),
            result,
            token: None,
            expires_at: None,
            replaced_token: None,
        }
    }

    fn with(self, token: &ApiToken) -> Self {
        Self {
            token: Some(token.name.to_string()),
            expires_at: token.expiry.at(),
            ..self
        }
    }

    fn sentence(&self) -> String {
        let what = match self.result {
            AddOutcome::Created => "created",
            AddOutcome::Adopted => "adopted",
            AddOutcome::Unchanged => "unchanged",
            AddOutcome::WouldCreate => "would be created",
            AddOutcome::WouldAdopt => "would be adopted, its token replaced",
        };
        let token = match (&self.token, self.expires_at) {
            (Some(token), Some(at)) => format!(" (token {token}, valid until {at})"),
            (Some(token), None) => format!(" (token {token})"),
            (None, _) => String::new(),
        };
        let replaced = self.replaced_token.as_ref().map_or_else(String::new, |old| {
            format!("; the previous token {old} is still valid: revoke it if nothing else uses it")
        });
        format!(
            "secret/{} {what} for cluster {}{token}{replaced}",
            self.secret, self.cluster
        )
    }
}
