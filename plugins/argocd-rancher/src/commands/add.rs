//! `kubectl argocd-rancher add`: issues a token for one cluster, checks it as Argo CD will use it, and writes it to the cluster
//! Secret. No token is issued before the API server has accepted the write in a dry run, and nothing is written before the checks have
//! passed. A token that fails them is revoked.

mod flags;
mod result;

use std::time::Duration;

use argocd::config::Method;
use argocd::lookup::{self, ServerMatch};
use argocd::rights::{SyncAccess, WatchScope};
use argocd::{ClusterConfig, ClusterSecret, NewClusterSecret, ServerUrl, cluster_secret, secret_name};
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::ui::Ui;
use cli::{ExitCode, Failures};
use client::connection::Server;
use client::error::{Error, Kind};
use client::secret::Secret;
use engine::run::RunId;
use rancher::ClusterId;
use rancher::api_token::proof::CallResult;
use rancher::api_token::{self, ApiToken, IssuedToken, NewToken, VisibleCluster};
use rancher::probe::same_certificates;

pub(crate) use self::flags::Add;
use self::flags::{OFFLINE, OWNER, RIGHTS};
use self::result::{AddOutcome, AddResult};
use super::DocumentList;
use crate::connections::{self, ARGOCD, Argo, RANCHER, Rancher, of_argocd};
use crate::hints::Hints;
use crate::token_check::{Calls, Timeouts, TokenCheck, TokenResults};
use crate::{leftovers, mark, remedy};

/// How often a new token is tried before it counts as rejected, and the time in between: each replica of Rancher receives it by
/// itself.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);
/// How often a changed Secret must still hold the new token: Argo CD may write its stale copy back.
const REREADS: u32 = 3;

/// What is the same for every cluster of one command.
struct AddCommand<'a> {
    add: &'a Add,
    argo: &'a Argo,
    rancher: &'a Rancher,
    ui: &'a Ui,
    hints: &'a Hints,
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
    let hints = Hints::new(&add.rancher, global, &argo.namespace);
    let rancher = add.rancher.require(&argo, global, context).await?;
    rancher.whoami().await?;
    let mut failures = Failures::of(&context.ui, "clusters", add.targets.len());
    let clusters = find(&rancher, &add.targets, &mut failures).await?;
    if add.unscoped {
        context.ui.warn(connections::UNSCOPED);
    }
    let command = AddCommand {
        ca: rancher.ca().await?,
        identity: argo.identity().await?,
        tokens: rancher.tokens().await?,
        add: &add,
        argo: &argo,
        rancher: &rancher,
        ui: &context.ui,
        hints: &hints,
    };
    let mut results = DocumentList::new("ArgoCDClusterAdditionList", Vec::new());
    let mut ended = Ok(());
    for cluster in &clusters {
        match command.one(cluster).await {
            Ok(result) => results.items.push(result),
            Err(error) => ended = failures.add(cluster.id.as_str(), error),
        }
        if ended.is_err() {
            break;
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
    ended?;
    failures.end("added")?;
    Ok(ExitCode::Done)
}

async fn find(rancher: &Rancher, names: &[String], failures: &mut Failures<'_>) -> Result<Vec<VisibleCluster>, Error> {
    let mut clusters: Vec<VisibleCluster> = Vec::new();
    for name in names {
        let found = api_token::find_cluster(&rancher.client, name).await;
        if let Some(cluster) = failures.found(name, found.map_err(|error| error.on(RANCHER)))?
            && clusters.iter().all(|known| known.id != cluster.id)
        {
            clusters.push(cluster);
        }
    }
    Ok(clusters)
}

impl AddCommand<'_> {
    async fn one(&self, cluster: &VisibleCluster) -> Result<AddResult, Error> {
        super::check_interrupt(self.ui, &cluster.id)?;
        let added = self.create_or_adopt(cluster).await;
        let added = added.map_err(|error| error.doing(format!("add cluster {}", cluster.id)))?;
        self.warn_about(&added);
        Ok(added)
    }

    /// Warns about a token that cannot sync, and about tokens that interrupted runs have left.
    fn warn_about(&self, added: &AddResult) {
        let (cluster, secret) = (&added.cluster, &added.secret);
        match added.sync {
            Some(SyncAccess::Nothing) => self.ui.warn(format!(
                "Argo CD can watch cluster {cluster}, but cannot sync to it: the token's owner can create nothing there"
            )),
            Some(SyncAccess::Some) => self.ui.warn(format!(
                "Argo CD can sync to cluster {cluster} only the kinds that the token's owner can create"
            )),
            Some(SyncAccess::Everything) | None => {}
        }
        let subject = format!("{}/{secret}", self.argo.namespace);
        let now = self.argo.server.clock.now();
        let is_left = |token: &&ApiToken| {
            let mark = mark::of_ours(token, self.identity.as_deref(), false);
            let is_there =
                added.token.as_deref() == Some(token.name.as_str()) || added.kept.contains(&token.name.to_string());
            mark.is_some_and(|mark| mark.subject == subject) && token.is_valid(now) && !is_there
        };
        // Before there is a token, it is not known which one stays.
        let left = self.tokens.iter().filter(|_| added.token.is_some()).filter(is_left);
        let left: Vec<&str> = left.map(|token| token.name.as_str()).collect();
        if !left.is_empty() {
            self.ui
                .warn(format!("Secret {secret} has left-over tokens: {}", left.join(", ")));
            let remove = self.hints.with_flag("remove", secret, leftovers::FLAG);
            self.ui.hint(format!("{remove} revokes them"));
        }
    }

    async fn create_or_adopt(&self, cluster: &VisibleCluster) -> Result<AddResult, Error> {
        super::refuse(self.rancher.wrong_scope(&cluster.id, self.add.unscoped).await?)?;
        let server = self.rancher.server_of(&cluster.id);
        let clusters = self.argo.clusters().await?;
        match lookup::by_server(&clusters, &server) {
            ServerMatch::One(existing) => self.adopt(cluster, existing).await,
            ServerMatch::NotFound => self.create(cluster, &server, &clusters).await,
            ServerMatch::Several(secrets) => {
                let names: Vec<&str> = secrets.iter().map(|secret| secret.object.name.as_str()).collect();
                let message = format!("the cluster is in several Secrets already: {}", names.join(", "));
                let rotate = self
                    .hints
                    .with_rancher("rotate", names.first().copied().unwrap_or_default());
                Err(Error::failed(message).hint(format!("{rotate} replaces the token of one of them")))
            }
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
        super::require_no_rotation(self.argo, &secret, "create", self.hints).await?;
        let name = self.add.name.clone().unwrap_or_else(|| called(cluster).to_owned());
        if let Some(other) = clusters.iter().find(|other| other.name == name) {
            return Err(Error::failed(format!(
                "Secret {} already has the cluster name {name:?}, and Argo CD would confuse the two",
                other.object.name
            ))
            .hint("choose another name with --name"));
        }
        let new = |config: ClusterConfig| NewClusterSecret {
            secret: secret.clone(),
            name: name.clone(),
            server: server.clone(),
            config,
            labels: self.add.labels.iter().cloned().collect(),
            namespaces: self.add.namespaces.clone(),
            cluster_resources: self.add.cluster_resources,
            project: self.add.project.clone(),
        };
        let (client, scope) = (&self.argo.server.client, self.scope());
        let trial = rancher::Write::by(mark::TOOL).dry_run(true);
        let created =
            cluster_secret::create(client, &self.argo.namespace, &new(ClusterConfig::default()), &trial).await;
        created.map_err(|error| self.not_created(&secret, error))?;
        if self.add.dry_run {
            self.would_prove(&cluster.id, scope).await?;
            return Ok(AddResult::planned(cluster, &secret, AddOutcome::WouldCreate));
        }
        let _hold = self.ui.hold();
        let IssuedToken { token, value } = self.issue(cluster, &secret).await?;
        let config = ClusterConfig::bearing(&value, self.ca.as_deref());
        let check = TokenCheck {
            server,
            config: &config,
            token: &value,
            scope,
            timeouts: Timeouts::LONG,
        };
        let written = async {
            self.prove(check).await?;
            let new = new(config.clone());
            let created = cluster_secret::create(client, &self.argo.namespace, &new, &mark::write(&token)).await;
            created.map(drop).map_err(|error| self.not_created(&secret, error))
        };
        self.or_revoke(&token, written.await).await?;
        let sync = check.sync_access(self.argo, Some(self.rancher)).await.ok();
        let created = AddResult::planned(cluster, &secret, AddOutcome::Created).with(&token);
        Ok(AddResult { sync, ..created })
    }

    fn not_created(&self, secret: &str, error: argocd::Error) -> Error {
        if error.is_not_found() {
            let message = format!("namespace {} not found in {ARGOCD}", self.argo.namespace);
            return Error::new(Kind::NotFound, message).hint("pass the namespace of Argo CD with --namespace");
        }
        let exists = error.is_already_exists();
        let error = of_argocd(error);
        if exists {
            let remove = self.hints.with_rancher("remove", secret);
            error.hint(format!("if its removal was interrupted, {remove} finishes it"))
        } else {
            error
        }
    }

    /// What Argo CD watches in a new cluster.
    fn scope(&self) -> WatchScope<'_> {
        WatchScope {
            namespaces: &self.add.namespaces,
            cluster_resources: self.add.cluster_resources,
        }
    }

    /// Refuses what [`Self::prove`] would refuse. A new token has the same owner as the credential of this command.
    async fn would_prove(&self, cluster: &ClusterId, scope: WatchScope<'_>) -> Result<(), Error> {
        let calls = Calls {
            cluster,
            scope,
            timeouts: Timeouts::LONG,
        };
        let own = Server {
            client: self.rancher.client.clone(),
            ..self.argo.server.clone()
        };
        let results = calls.run(&own, true).await;
        if self.accepts(&results) {
            Ok(())
        } else {
            Err(refused(&results))
        }
    }

    async fn adopt(&self, cluster: &VisibleCluster, existing: &ClusterSecret) -> Result<AddResult, Error> {
        let name = &existing.object.name;
        let config = adoptable(existing, self.hints)?;
        self.add.agrees_with(existing)?;
        super::require_no_rotation(self.argo, name, "adopt", self.hints).await?;
        super::refuse(mark::owned(existing, self.add.force.contains(&OWNER)))?;
        let old = config.bearer_token();
        if let Some(old) = &old
            && let Some(token) = self.working_token(cluster, existing, config, old).await?
        {
            let kept = mark::kept(existing).into_iter().map(str::to_owned).collect();
            let unchanged = AddResult::planned(cluster, name, AddOutcome::Unchanged).with(token);
            return Ok(AddResult { kept, ..unchanged });
        }
        let trial = rancher::Write::by(mark::TOOL).dry_run(true);
        let client = &self.argo.server.client;
        let patched = cluster_secret::patch_config(client, &existing.object, config, &trial).await;
        patched.map_err(of_argocd)?;
        if self.add.dry_run {
            let scope = WatchScope {
                namespaces: &existing.namespaces,
                cluster_resources: existing.cluster_resources,
            };
            self.would_prove(&cluster.id, scope).await?;
            return Ok(AddResult::planned(cluster, name, AddOutcome::WouldAdopt));
        }
        let question = format!(
            "The credential for cluster {} in Secret {name} (namespace {}) will be replaced by a new token.",
            cluster.id, self.argo.namespace
        );
        self.ui.require_confirmation(&question, self.add.yes).await?;
        let (token, sync) = self.replace(cluster, existing, config).await?;
        let replaced_token = match &old {
            Some(old) if self.is_valid(existing, config, old).await => Some(mark::token_name(old)),
            _ => None,
        };
        let kept = mark::kept(existing).into_iter().map(str::to_owned);
        Ok(AddResult {
            kept: kept.chain(old.as_ref().map(mark::token_name)).collect(),
            replaced_token,
            sync,
            ..AddResult::planned(cluster, name, AddOutcome::Adopted).with(&token)
        })
    }

    /// Replaces the credential in an existing Secret by a new token.
    async fn replace(
        &self,
        cluster: &VisibleCluster,
        existing: &ClusterSecret,
        config: &ClusterConfig,
    ) -> Result<(ApiToken, Option<SyncAccess>), Error> {
        let _hold = self.ui.hold();
        let IssuedToken { token, value } = self.issue(cluster, &existing.object.name).await?;
        // The previous token may be used elsewhere.
        let write = match config.bearer_token().as_ref().map(mark::token_name) {
            Some(old) => mark::keeping(mark::write(&token), existing, &old, &self.tokens),
            None => mark::write(&token),
        };
        let config = self.with_right_ca(config.clone().with_bearer(&value));
        let check = TokenCheck::of(existing, &config, &value);
        let written = async {
            self.prove(check).await?;
            let client = &self.argo.server.client;
            let patched = cluster_secret::patch_config(client, &existing.object, &config, &write).await;
            patched.map_err(of_argocd)
        };
        let written = self.or_revoke(&token, written.await).await?;
        self.settle(written, &value, &token).await?;
        let sync = check.sync_access(self.argo, Some(self.rancher)).await.ok();
        Ok((token, sync))
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
            let config = adoptable(&found, self.hints)?.clone();
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

/// The config of a Secret, if its credential can be replaced.
fn adoptable<'a>(existing: &'a ClusterSecret, hints: &Hints) -> Result<&'a ClusterConfig, Error> {
    let name = &existing.object.name;
    let wrong = mark::unchangeable(existing, &[Method::Bearer, Method::Anonymous]);
    match &existing.config {
        Ok(config) if wrong.is_empty() => Ok(config),
        _ => {
            let wrong = wrong.join("; ");
            let message = format!("Secret {name} exists already for this cluster, but cannot be adopted: {wrong}");
            Err(Error::failed(message).hint(hints.repair(name)))
        }
    }
}

fn refused(results: &TokenResults) -> Error {
    let error = Error::failed(format!("Argo CD could not use the new token: {}", results.failures()));
    if results.lack_the_cluster_only() {
        error.hint("--force=offline adds the cluster anyway; the token was checked at Rancher only")
    } else if results.lack_rights_only() {
        error
            .hint(remedy::ROLES)
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
