//! `kubectl argocd-rancher add`: a token for one cluster is minted, proven as Argo CD will use it, and written where Argo
//! CD looks for it. Nothing is written before the proof, and a token that fails it is ended again.

use std::collections::BTreeMap;
use std::time::Duration;

use argocd::config::Method;
use argocd::lookup::{self, Found};
use argocd::rights::Extent;
use argocd::{ClusterConfig, ClusterSecret, NewClusterSecret, ServerUrl, cluster_secret, secret_name};
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::output::{self, OutputFlags, OutputFormat};
use cli::rotation::leases;
use cli::ui::Ui;
use client::error::{Error, Kind};
use client::secret::Secret;
use engine::run::RunId;
use k8s_openapi::jiff::Timestamp;
use rancher::api_token::proof::CallResult;
use rancher::api_token::{self, ApiToken, IssuedToken, Lifetime, NewToken, VisibleCluster};
use rancher::probe::{Probe, same_certificates};
use serde::Serialize;

use crate::mark::{self, API_VERSION};
use crate::proof::{Patience, Proofs, Trial};
use crate::report::product;
use crate::rotation::ArgocdRancher;
use crate::sides::{self, Argo, RANCHER, Rancher, RancherFlags, of_argocd};

/// How often a new token is tried, and how far apart, before it counts as refused: each replica of Rancher learns of it by
/// itself.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);
/// How often a token that was put into an existing Secret is looked at again: Argo CD may write its old copy over it.
const LOOKS: u32 = 3;

/// What is typed after `kubectl argocd-rancher add`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Add {
    /// Clusters of Rancher by id or display name
    #[arg(value_name = "CLUSTER", required = true)]
    pub subjects: Vec<String>,

    /// What Argo CD shall call the cluster; by default its display name in Rancher
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// How long the token shall live; Rancher may grant less
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = super::lifetime)]
    pub ttl: Lifetime,

    /// A label for the new Secret, which ApplicationSets select by; can be repeated
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,

    /// The only namespaces that Argo CD shall look at; can be repeated
    #[arg(long = "only-namespace", value_name = "NAMESPACE")]
    pub namespaces: Vec<String>,

    /// Cluster-scoped objects too, with --only-namespace
    #[arg(long, requires = "namespaces")]
    pub cluster_resources: bool,

    /// Issue a token that is not limited to the cluster. Only for cluster local, and only where Rancher redirects Argo CD out
    /// of the scope of a limited one (Rancher 2.15.0)
    #[arg(long)]
    pub unscoped: bool,

    /// The project that the cluster shall belong to
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,

    /// Go on although this check failed
    #[arg(long, value_enum, value_name = "CHECK", value_delimiter = ',')]
    pub force: Vec<Check>,

    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Do not ask before a token that is there already is replaced
    #[arg(short = 'y', long)]
    pub yes: bool,

    /// The other side.
    #[command(flatten)]
    pub rancher: RancherFlags,

    /// Output format: json, yaml, jsonpath=TEMPLATE, custom-columns=SPEC
    #[arg(short = 'o', long, value_name = "FORMAT", help_heading = "Output options")]
    pub output: Option<String>,
}

/// What may be overridden.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// The cluster's agent is offline; the token is then proven at Rancher alone
    Offline,
    /// The token's owner may not look at everything that Argo CD looks at
    Rights,
    /// Something else, such as GitOps, manages the Secret that is there already
    Owner,
}

const EXAMPLES: &str = "\
Examples:
  # What would be done
  kubectl argocd-rancher add staging --rancher-context rancher --dry-run

  # Give Argo CD two clusters, each with a token for that cluster alone
  kubectl argocd-rancher add staging c-m-x7k2p9bq --rancher-context rancher

  # With the token of a service user, and a label that an ApplicationSet selects by
  pass show rancher/argocd | kubectl argocd-rancher add staging -l env=staging \\
    --rancher-url https://rancher.example.com --rancher-token-stdin

The token belongs to the user that Rancher is called as, and only that user can list or end it later. A Secret that is
there already for the cluster is adopted: its token and nothing else is replaced, and only if it does not serve.";

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    if key.contains("cattle.io/") {
        // Rancher deletes objects that carry its own labels and that it does not know.
        return Err(format!("the label {key} is Rancher's own"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Results {
    api_version: &'static str,
    kind: &'static str,
    items: Vec<Added>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Added {
    cluster: rancher::ClusterId,
    display_name: String,
    secret: String,
    result: Outcome,
    token: Option<String>,
    /// `null`: never, or there is no token yet.
    expires_at: Option<Timestamp>,
    /// A token that was in the Secret before, and is alive.
    replaced_token: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Created,
    Adopted,
    Unchanged,
    WouldCreate,
    WouldAdopt,
}

/// What all clusters of one call share.
struct Work<'a> {
    add: &'a Add,
    argo: &'a Argo,
    rancher: &'a Rancher,
    ui: &'a Ui,
    /// By which Rancher's certificate is trusted; `None`: publicly.
    ca: Option<String>,
    /// Our own tokens.
    tokens: Vec<ApiToken>,
    /// What tells this Argo CD from others.
    identity: Option<String>,
}

/// Runs it.
pub(crate) async fn run(add: Add, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let (flags, format) = OutputFlags::of_page(add.output.as_ref(), "add")?;
    if add.name.is_some() && add.subjects.len() > 1 {
        return Err(Error::usage("--name is for one cluster"));
    }
    let argo = Argo::open(global, &context.environment)?;
    let rancher = add.rancher.require(&argo, global, context).await?;
    rancher.whoami().await?;
    let clusters = find(&rancher, &add.subjects).await?;
    if add.unscoped {
        context.ui.warn(sides::UNSCOPED);
    }
    let work = Work {
        ca: ca(&rancher).await?,
        identity: argo.identity().await?,
        tokens: api_token::list(&rancher.client.0)
            .await
            .map_err(|error| error.on(RANCHER))?,
        add: &add,
        argo: &argo,
        rancher: &rancher,
        ui: &context.ui,
    };
    let mut results = Results {
        api_version: API_VERSION,
        kind: "ArgoCDClusterAdditionList",
        items: Vec::new(),
    };
    let mut failed = None;
    for cluster in &clusters {
        if context.ui.interrupt().is_cancelled() {
            failed = Some(Error::new(
                Kind::Interrupted,
                format!("interrupted before cluster {}", cluster.id),
            ));
            break;
        }
        match work.one(cluster).await {
            Ok(added) => results.items.push(added),
            Err(error) => {
                failed = Some(error.doing(format!("add cluster {}", cluster.id)));
                break;
            }
        }
    }
    match format {
        OutputFormat::Table => results
            .items
            .iter()
            .try_for_each(|added| context.ui.out(added.sentence()))?,
        _ => output::print_value(&context.ui, &flags, &results)?,
    }
    // What was done is told before what failed.
    failed.map_or(Ok(ExitCode::Done), Err)
}

async fn find(rancher: &Rancher, subjects: &[String]) -> Result<Vec<VisibleCluster>, Error> {
    let mut clusters: Vec<VisibleCluster> = Vec::new();
    for asked in subjects {
        let found = api_token::find_cluster(&rancher.client.0, asked).await;
        let cluster = found.map_err(|error| error.on(RANCHER))?;
        if clusters.iter().all(|known| known.id != cluster.id) {
            clusters.push(cluster);
        }
    }
    Ok(clusters)
}

/// The authority behind Rancher's certificate, as Rancher gives it to anybody: none behind a publicly trusted one.
async fn ca(rancher: &Rancher) -> Result<Option<String>, Error> {
    let pem = Probe::new(rancher.public()?).ca_certificates().await;
    pem.map_err(|error| error.on(RANCHER))
}

impl Work<'_> {
    async fn one(&self, cluster: &VisibleCluster) -> Result<Added, Error> {
        if let Some((reason, hint)) = self.rancher.wrong_scope(&cluster.id, self.add.unscoped).await? {
            return Err(Error::failed(reason).hint(hint));
        }
        let server = self.rancher.server_of(&cluster.id);
        let clusters = self.argo.clusters().await?;
        match lookup::by_server(&clusters, &server) {
            Found::One(existing) => self.adopt(cluster, existing).await,
            Found::Nothing => self.create(cluster, &server, &clusters).await,
            Found::Several(several) => {
                // One that Argo CD cannot use is named with its cure.
                if let Some(flawed) = several.iter().find(|secret| !secret.flaws().is_empty()) {
                    return self.adopt(cluster, flawed).await;
                }
                let names: Vec<&str> = several.iter().map(|secret| secret.object.name.as_str()).collect();
                Err(Error::failed(format!(
                    "in namespace {} there are Secrets for the same place already: {}",
                    self.argo.namespace,
                    names.join(", ")
                ))
                .hint("Argo CD mixes such Secrets up; delete all but one, whose server is exactly:")
                .hint(server.to_string()))
            }
        }
    }

    async fn create(
        &self,
        cluster: &VisibleCluster,
        server: &ServerUrl,
        clusters: &[ClusterSecret],
    ) -> Result<Added, Error> {
        let secret = secret_name(server.as_str()).map_err(|error| Error::failed(error.to_string()))?;
        let name = self.add.name.clone().unwrap_or_else(|| cluster.called().to_owned());
        if let Some(other) = clusters.iter().find(|other| other.name == name) {
            return Err(Error::failed(format!(
                "Secret {} calls its cluster {name:?} already, and Argo CD would confuse the two",
                other.object.name
            ))
            .hint("give another name with --name"));
        }
        if self.add.dry_run {
            return Ok(Added::planned(cluster, &secret, Outcome::WouldCreate));
        }
        let _hold = self.ui.hold();
        let IssuedToken { token, value } = self.mint(cluster, &secret).await?;
        let config = ClusterConfig::bearing(&value, self.ca.as_deref());
        let extent = Extent {
            namespaces: &self.add.namespaces,
            cluster_resources: self.add.cluster_resources,
        };
        let written = async {
            self.prove(server, &config, &value, extent).await?;
            let mut new = NewClusterSecret::new(secret.clone(), name, server.clone(), config.clone());
            new.labels = self.add.labels.iter().cloned().collect::<BTreeMap<_, _>>();
            new.namespaces.clone_from(&self.add.namespaces);
            new.cluster_resources = self.add.cluster_resources;
            new.project.clone_from(&self.add.project);
            let client = &self.argo.server.client;
            let made = cluster_secret::create(client, &self.argo.namespace, &new, &mark::write(&token)).await;
            made.map(drop).map_err(of_argocd)
        };
        self.or_end(&token, written.await).await?;
        Ok(Added::planned(cluster, &secret, Outcome::Created).with(&token))
    }

    async fn adopt(&self, cluster: &VisibleCluster, existing: &ClusterSecret) -> Result<Added, Error> {
        let name = &existing.object.name;
        let config = adoptable(existing)?;
        self.add.agrees_with(existing)?;
        self.is_free(existing).await?;
        let old = config.bearer_token();
        if let Some(old) = &old
            && self.serves(cluster, existing, config, old).await?
        {
            let added = Added::planned(cluster, name, Outcome::Unchanged);
            return Ok(match self.own(old) {
                Some(token) => added.with(token),
                None => added,
            });
        }
        if self.add.dry_run {
            return Ok(Added::planned(cluster, name, Outcome::WouldAdopt));
        }
        let question = format!(
            "Secret {name} in namespace {} has a login for cluster {} already: it will be replaced by a new token.",
            self.argo.namespace, cluster.id
        );
        if !self.ui.confirm(&question, self.add.yes).await? {
            return Err(Error::failed("nothing was changed"));
        }
        let token = self.replace(cluster, existing, config).await?;
        let replaced = match &old {
            Some(old) if self.is_alive(existing, config, old).await => Some(mark::shown(old)),
            _ => None,
        };
        Ok(Added {
            replaced_token: replaced,
            ..Added::planned(cluster, name, Outcome::Adopted).with(&token)
        })
    }

    /// Nothing else writes the Secret: neither a rotation nor its owner.
    async fn is_free(&self, existing: &ClusterSecret) -> Result<(), Error> {
        let name = &existing.object.name;
        let rotation = leases::of::<ArgocdRancher>(&self.argo.server, &product::lease(existing)).await?;
        if let Some(part) = rotation.as_ref().and_then(product::Part::of) {
            return Err(
                Error::failed(format!("Secret {name} is not adopted: {part}")).hint(format!(
                    "`kubectl argocd-rancher status {name}` gives the commands that finish or undo it"
                )),
            );
        }
        match mark::owned(existing).filter(|_| !self.add.force.contains(&Check::Owner)) {
            Some((reason, hint)) => Err(Error::failed(reason).hint(hint)),
            None => Ok(()),
        }
    }

    /// Puts a new token, once it is proven, in the place of whatever is there.
    async fn replace(
        &self,
        cluster: &VisibleCluster,
        existing: &ClusterSecret,
        config: &ClusterConfig,
    ) -> Result<ApiToken, Error> {
        let _hold = self.ui.hold();
        let IssuedToken { token, value } = self.mint(cluster, &existing.object.name).await?;
        let config = self.trusting(config.clone().with_bearer(&value));
        let extent = Extent {
            namespaces: &existing.namespaces,
            cluster_resources: existing.cluster_resources,
        };
        let written = async {
            self.prove(&existing.server, &config, &value, extent).await?;
            let client = &self.argo.server.client;
            let patched = cluster_secret::patch_config(client, &existing.object, &config, &mark::write(&token)).await;
            patched.map_err(of_argocd)
        };
        let written = self.or_end(&token, written.await).await?;
        self.settle(written, &value, &token).await?;
        Ok(token)
    }

    /// One of our own tokens.
    fn own(&self, value: &Secret) -> Option<&ApiToken> {
        let credential = api_token::Credential::of(value);
        let name = credential.api_token()?;
        self.tokens.iter().find(|token| token.name == *name)
    }

    /// Whether what is there serves as it is: ours, for this cluster alone, trusted by the right authority, and proven.
    async fn serves(
        &self,
        cluster: &VisibleCluster,
        existing: &ClusterSecret,
        config: &ClusterConfig,
        value: &Secret,
    ) -> Result<bool, Error> {
        let scoped = self.own(value).is_some_and(|token| match &token.cluster {
            Some(scope) => *scope == cluster.id,
            None => self.add.unscoped,
        });
        let trusts = config.insecure() || same_certificates(config.ca().as_deref(), self.ca.as_deref());
        if !scoped || !trusts {
            return Ok(false);
        }
        let trial = Trial::of(existing, config, value);
        let proofs = trial.run(self.argo, Some(self.rancher)).await?;
        Ok(proofs.are_good() || self.forgives(&proofs))
    }

    async fn is_alive(&self, existing: &ClusterSecret, config: &ClusterConfig, value: &Secret) -> bool {
        let standing = Trial::of(existing, config, value)
            .alone(self.argo, Some(self.rancher))
            .await;
        standing.is_ok_and(|standing| standing.is_valid())
    }

    /// With Rancher's present authority, where the certificate is checked at all.
    fn trusting(&self, config: ClusterConfig) -> ClusterConfig {
        if config.insecure() || same_certificates(config.ca().as_deref(), self.ca.as_deref()) {
            config
        } else {
            config.with_ca(self.ca.as_deref())
        }
    }

    async fn mint(&self, cluster: &VisibleCluster, secret: &str) -> Result<IssuedToken, Error> {
        let new = NewToken {
            cluster: Some(cluster.id.clone()).filter(|_| !self.add.unscoped),
            lifetime: self.add.ttl,
            mark: mark::of_run(
                &RunId::draw().to_string(),
                &self.argo.namespace,
                secret,
                self.identity.as_deref(),
            ),
        };
        let minted = api_token::issue(&self.rancher.client.0, &new)
            .await
            .map_err(|error| error.on(RANCHER))?;
        self.ui
            .status(format!("token {} for cluster {} minted", minted.token.name, cluster.id));
        self.warn_if_cut_short(&minted.token);
        Ok(minted)
    }

    fn warn_if_cut_short(&self, token: &ApiToken) {
        if let Some(short) = mark::cut_short(token, self.add.ttl, self.argo.server.clock.now()) {
            self.ui.warn(short);
        }
    }

    /// Refuses a token that would not serve Argo CD.
    async fn prove(
        &self,
        server: &ServerUrl,
        config: &ClusterConfig,
        token: &Secret,
        extent: Extent<'_>,
    ) -> Result<(), Error> {
        let trial = Trial {
            server,
            config,
            token,
            extent,
            patience: Patience::LONG,
        };
        let proofs = tokio::select! {
            proofs = self.tried(trial) => proofs?,
            () = self.ui.interrupt().cancelled() => {
                return Err(Error::new(Kind::Interrupted, "interrupted before Argo CD was told of the cluster"));
            }
        };
        if proofs.are_good() || self.forgives(&proofs) {
            return Ok(());
        }
        Err(refused(&proofs))
    }

    async fn tried(&self, trial: Trial<'_>) -> Result<Proofs, Error> {
        for _ in 1..TRIES {
            let proofs = trial.run(self.argo, Some(self.rancher)).await?;
            let dead = proofs.alone.is_rejected() || proofs.proxy.as_ref().is_some_and(CallResult::is_rejected);
            if !dead {
                return Ok(proofs);
            }
            tokio::time::sleep(PAUSE).await;
        }
        trial.run(self.argo, Some(self.rancher)).await
    }

    fn forgives(&self, proofs: &Proofs) -> bool {
        let forced = |check: Check| self.add.force.contains(&check);
        forced(Check::Offline) && proofs.lack_the_cluster_only() || forced(Check::Rights) && proofs.lack_rights_only()
    }

    /// Ends a token that did not get to where it was for.
    async fn or_end<T>(&self, token: &ApiToken, result: Result<T, Error>) -> Result<T, Error> {
        let Err(error) = result else { return result };
        match api_token::delete(&self.rancher.client.0, &token.name).await {
            Ok(_) => self.ui.status(format!("token {} ended again", token.name)),
            Err(_) => self.ui.warn(format!(
                "token {} could not be ended again; it is in no Secret",
                token.name
            )),
        }
        Err(error)
    }

    /// Argo CD may write the config from its old copy a moment after us, without a conflict. Seen on Argo CD 3.5.1: in 11
    /// of 150 swaps.
    async fn settle(&self, mut written: ClusterSecret, value: &Secret, token: &ApiToken) -> Result<(), Error> {
        let client = &self.argo.server.client;
        let mut calm = 0;
        for _ in 0..LOOKS * 4 {
            tokio::time::sleep(PAUSE).await;
            let (namespace, name) = (&written.object.namespace, &written.object.name);
            let found = cluster_secret::get(client, namespace, name).await;
            let gone = || {
                Error::new(
                    Kind::NotFound,
                    format!("Secret {name} was deleted by somebody meanwhile"),
                )
            };
            let found = found.map_err(of_argocd)?.ok_or_else(gone)?;
            let config = adoptable(&found)?.clone();
            if config.bearer_token().as_ref() == Some(value) {
                calm += 1;
                if calm == LOOKS {
                    return Ok(());
                }
                continue;
            }
            calm = 0;
            let config = self.trusting(config.with_bearer(value));
            match cluster_secret::patch_config(client, &found.object, &config, &mark::write(token)).await {
                Ok(again) => written = again,
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(of_argocd(error)),
            }
        }
        Err(Error::failed(format!(
            "somebody keeps writing another token into Secret {}",
            written.object.name
        ))
        .hint("is it kept in Git, or synced from elsewhere?"))
    }
}

impl Add {
    /// What is not ours stays as it is in a Secret that is there already: flags that would change it are refused, not
    /// passed over.
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
            "Secret {name} is there for this cluster already, and says otherwise than {flag}"
        ))
        .hint(format!(
            "leave {flag} out, or change Secret {name} first; only its login is replaced here"
        )))
    }
}

/// The config of a Secret whose login may be replaced.
fn adoptable(existing: &ClusterSecret) -> Result<&ClusterConfig, Error> {
    let name = &existing.object.name;
    let refuse = |why: &str| {
        let error = Error::failed(format!("Secret {name} is there already for this cluster, and {why}"));
        Err(error.hint(mark::cure(name)))
    };
    if existing.deleting {
        return refuse("it is being deleted");
    }
    if existing.immutable {
        return refuse("it is immutable");
    }
    let flaws = existing.flaws();
    if !flaws.is_empty() {
        return refuse(&flaws.join("; "));
    }
    match &existing.config {
        Err(bad) => refuse(&bad.to_string()),
        Ok(config) => match config.method() {
            Method::Bearer | Method::Anonymous => Ok(config),
            _ => refuse("Argo CD does not log in with a token there"),
        },
    }
}

fn refused(proofs: &Proofs) -> Error {
    let error = Error::failed(format!("the new token does not serve: {}", proofs.against()));
    if proofs.lack_the_cluster_only() {
        error.hint("--force=offline gives it to Argo CD all the same, proven at Rancher alone")
    } else if proofs.lack_rights_only() {
        error
            .hint(
                "Argo CD lists and watches every kind: give the user the role cluster-owner, or one of your own with \
                 get, list and watch on everything",
            )
            .hint("--only-namespace limits what Argo CD looks at; --force=rights goes on all the same")
    } else {
        error
    }
}

trait Called {
    fn called(&self) -> &str;
}

impl Called for VisibleCluster {
    /// The display name, or the id of a cluster that has none.
    fn called(&self) -> &str {
        if self.name.is_empty() {
            self.id.as_str()
        } else {
            &self.name
        }
    }
}

impl Added {
    fn planned(cluster: &VisibleCluster, secret: &str, result: Outcome) -> Self {
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
            Outcome::Created => "created",
            Outcome::Adopted => "adopted",
            Outcome::Unchanged => "unchanged",
            Outcome::WouldCreate => "would be created",
            Outcome::WouldAdopt => "would be adopted, its token replaced",
        };
        let token = match (&self.token, self.expires_at) {
            (Some(token), Some(at)) => format!(" (token {token}, until {at})"),
            (Some(token), None) => format!(" (token {token})"),
            (None, _) => String::new(),
        };
        let replaced = self.replaced_token.as_ref().map_or_else(String::new, |old| {
            format!("; {old}, which was there before, is alive: end it where it came from")
        });
        format!(
            "secret/{} {what} for cluster {}{token}{replaced}",
            self.secret, self.cluster
        )
    }
}
