//! `kubectl argocd-rancher remove`: Argo CD forgets a cluster, and its token is ended, in this order: between the two there
//! is a token that nobody uses, never a cluster without one. Run again, it ends what a killed run left.

use argocd::{ClusterSecret, application, cluster_secret};
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::leases;
use cli::ui::Ui;
use client::error::{Error, Kind};
use client::secret::Secret;
use rancher::api_token::proof::CallResult;
use rancher::api_token::{self, ApiToken, Credential};

use super::verify;
use crate::address::RancherAddress as _;
use crate::mark;
use crate::proof::Trial;
use crate::report::product;
use crate::rotation::ArgocdRancher;
use crate::sides::{Argo, RANCHER, Rancher, RancherFlags, of_argocd};

/// How often, and how far apart, an ended token is tried until it is refused: each replica of Rancher learns of it by
/// itself.
const TRIES: u32 = 20;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// What is typed after `kubectl argocd-rancher remove`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Remove {
    /// Clusters by id, by the name that Argo CD calls them, or by the name of their Secret
    #[arg(value_name = "CLUSTER", required = true)]
    pub subjects: Vec<String>,

    /// Go on although this check failed
    #[arg(long, value_enum, value_name = "CHECK", value_delimiter = ',')]
    pub force: Vec<Check>,

    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Do not ask
    #[arg(short = 'y', long)]
    pub yes: bool,

    /// The other side.
    #[command(flatten)]
    pub rancher: RancherFlags,
}

/// What may be overridden.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Applications are deployed there; they stay, and Argo CD can no longer reach what they have deployed
    Applications,
    /// The token was not minted by this program; it is ended all the same
    ForeignToken,
    /// Something else, such as GitOps, manages the Secret and may bring it back, with a token that is ended
    Owner,
    /// The token is in no Secret here, but was used within the last 15 minutes; it is ended all the same
    InUse,
}

const EXAMPLES: &str = "\
Examples:
  # What would be done, and which Applications are deployed there
  kubectl argocd-rancher remove staging --rancher-context rancher --dry-run

  # Forget the cluster and end its token
  kubectl argocd-rancher remove staging --rancher-context rancher";

/// What will become of the token.
enum Fate<'a> {
    /// There is none.
    None,
    /// It is ours to end.
    End(&'a ApiToken),
    /// It lives on, for this reason.
    Keep(String),
}

/// Runs it.
pub(crate) async fn run(remove: Remove, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let argo = Argo::open(global, &context.environment)?;
    let rancher = remove.rancher.require(&argo, global, context).await?;
    let me = rancher.whoami().await?.id;
    let tokens = api_token::list(&rancher.client.0)
        .await
        .map_err(|error| error.on(RANCHER))?;
    let work = Work {
        remove: &remove,
        argo: &argo,
        rancher: &rancher,
        ui: &context.ui,
        identity: argo.identity().await?,
        me,
        tokens,
    };
    let mut left = false;
    for asked in &remove.subjects {
        if context.ui.interrupt().is_cancelled() {
            return Err(Error::new(
                Kind::Interrupted,
                format!("interrupted before cluster {asked}"),
            ));
        }
        let clusters = argo.clusters().await?;
        left |= match verify::find(&clusters, asked) {
            Ok(cluster) => work.cluster(cluster, &clusters).await?,
            Err(error) if error.kind == Kind::NotFound => work.strays(asked, &clusters, error).await?,
            Err(error) => return Err(error),
        };
    }
    Ok(if left { ExitCode::Failed } else { ExitCode::Done })
}

struct Work<'a> {
    remove: &'a Remove,
    argo: &'a Argo,
    rancher: &'a Rancher,
    ui: &'a Ui,
    me: String,
    tokens: Vec<ApiToken>,
    identity: Option<String>,
}

impl Work<'_> {
    /// `true`: a token lives on.
    async fn cluster(&self, cluster: &ClusterSecret, clusters: &[ClusterSecret]) -> Result<bool, Error> {
        let name = &cluster.object.name;
        let (_, id) = cluster
            .server
            .rancher()
            .ok_or_else(|| Error::failed("it does not lead through Rancher"))?;
        if !self.rancher.server_of(&id).same_place(&cluster.server) {
            let rancher = &self.rancher.base;
            return Err(
                Error::failed(format!("{} is not reached through {rancher}", cluster.server))
                    .hint("give the Rancher that it is reached through, with --rancher-context or --rancher-url"),
            );
        }
        if let Some((reason, hint)) = mark::owned(cluster).filter(|_| !self.remove.force.contains(&Check::Owner)) {
            return Err(Error::failed(reason).hint(hint));
        }
        self.rotation(cluster).await?;
        self.applications(cluster).await?;
        let value = cluster.token();
        let fate = value
            .as_ref()
            .map_or(Fate::None, |value| self.fate(cluster, clusters, value));
        let then = match &fate {
            Fate::None => "it holds no token".to_owned(),
            Fate::End(token) => format!("and token {} ended", token.name),
            Fate::Keep(why) => format!("but its token lives on: {why}"),
        };
        if self.remove.dry_run {
            self.ui.out(format!("secret/{name} would be deleted, {then}"))?;
            return Ok(false);
        }
        let question = format!(
            "Secret {name} in namespace {} (cluster {:?}) will be deleted, {then}.",
            cluster.object.namespace, cluster.name
        );
        if !self.ui.confirm(&question, self.remove.yes).await? {
            return Err(Error::failed("nothing was changed"));
        }
        let _hold = self.ui.hold();
        let write = rancher::Write::by(mark::TOOL);
        cluster_secret::delete(&self.argo.server.client, &cluster.object, &write)
            .await
            .map_err(of_argocd)?;
        self.ui.out(format!("secret/{name} deleted"))?;
        match (fate, &cluster.config, &value) {
            (Fate::End(token), Ok(config), Some(value)) => {
                self.end(token).await?;
                self.confirm(&Trial::of(cluster, config, value), token).await?;
                Ok(false)
            }
            (Fate::Keep(why), ..) => {
                self.ui.warn(format!("the token of Secret {name} lives on: {why}"));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// A rotation would go on with a token that nobody needs, or stop where its Secret was.
    async fn rotation(&self, cluster: &ClusterSecret) -> Result<(), Error> {
        let rotation = leases::of::<ArgocdRancher>(&self.argo.server, &product::lease(cluster)).await?;
        let Some(part) = rotation.as_ref().and_then(product::Part::of) else {
            return Ok(());
        };
        let name = &cluster.object.name;
        let status = format!("`kubectl argocd-rancher status {name}`");
        Err(
            Error::failed(format!("Secret {name} is not deleted: {part}")).hint(format!(
                "finish the rotation or undo it first; {status} gives the commands"
            )),
        )
    }

    /// Names the Applications that would be left without their cluster, and refuses.
    async fn applications(&self, cluster: &ClusterSecret) -> Result<(), Error> {
        let client = &self.argo.server.client;
        let all = application::visible(client, &self.argo.namespace).await;
        let all = all.map_err(of_argocd)?;
        let there: Vec<String> = all
            .iter()
            .filter(|application| application.points_at(cluster))
            .map(|application| format!("{}/{}", application.namespace, application.name))
            .collect();
        if there.is_empty() {
            return Ok(());
        }
        let sentence = format!(
            "Applications are deployed to cluster {:?}: {}",
            cluster.name,
            there.join(", ")
        );
        if self.remove.force.contains(&Check::Applications) {
            self.ui.warn(sentence);
            return Ok(());
        }
        Err(Error::failed(sentence)
            .hint("delete them or point them elsewhere first")
            .hint("--force=applications leaves them there, and Argo CD unable to reach what they have deployed"))
    }

    fn fate(&self, cluster: &ClusterSecret, clusters: &[ClusterSecret], value: &Secret) -> Fate<'_> {
        let others: Vec<&str> = clusters
            .iter()
            .filter(|other| other.object.uid != cluster.object.uid)
            .filter(|other| {
                let token = other.token();
                token.as_ref() == Some(value)
            })
            .map(|other| other.object.name.as_str())
            .collect();
        if !others.is_empty() {
            return Fate::Keep(format!("it is in Secret {} too", others.join(", ")));
        }
        let credential = Credential::of(value);
        let Some(name) = credential.api_token() else {
            return Fate::Keep("it is no API token of Rancher's".to_owned());
        };
        let Some(token) = self.tokens.iter().find(|token| token.name == *name) else {
            return Fate::Keep(format!(
                "{name} is not a token of {}, and Rancher lets only its owner end it",
                self.me
            ));
        };
        let object = &cluster.object;
        if self.rancher.logs_in_with(token) {
            // It would be the last thing that this login does.
            return Fate::Keep(format!(
                "{name} is the token that this command itself logs in to Rancher with"
            ));
        }
        let subject = format!("{}/{}", object.namespace, object.name);
        let is_ours = mark::of_ours(token, self.identity.as_deref(), true).is_some_and(|mark| mark.subject == subject);
        if is_ours || self.remove.force.contains(&Check::ForeignToken) {
            Fate::End(token)
        } else {
            Fate::Keep(format!(
                "{name} was not minted by this program; --force=foreign-token ends it all the same"
            ))
        }
    }

    async fn end(&self, token: &ApiToken) -> Result<(), Error> {
        let ended = api_token::delete(&self.rancher.client.0, &token.name).await;
        ended.map_err(|error| {
            error
                .on(RANCHER)
                .hint("run the same command again: it ends what was left")
        })?;
        self.ui.out(format!("token/{} ended", token.name))
    }

    /// A call with the ended token must be refused.
    async fn confirm(&self, trial: &Trial<'_>, token: &ApiToken) -> Result<(), Error> {
        let mut last = None;
        for _ in 0..TRIES {
            match trial.alone(self.argo, Some(self.rancher)).await? {
                CallResult::Rejected => {
                    self.ui.status(format!("Rancher refuses {}", token.name));
                    return Ok(());
                }
                other => last = Some(other),
            }
            tokio::time::sleep(PAUSE).await;
        }
        let last = last.map_or_else(String::new, |last| format!(": {last}"));
        Err(Error::failed(format!(
            "token {} was ended, but it could not be shown that Rancher refuses it{last}",
            token.name
        )))
    }

    /// There is no Secret: what is left is a token that a killed run has minted for that cluster, or not ended.
    async fn strays(&self, asked: &str, clusters: &[ClusterSecret], not_found: Error) -> Result<bool, Error> {
        let held = |subject: &str| {
            let is =
                |cluster: &ClusterSecret| format!("{}/{}", cluster.object.namespace, cluster.object.name) == subject;
            clusters.iter().any(is)
        };
        let is_stray = |token: &&ApiToken| {
            let scoped = token.cluster.as_ref().is_some_and(|cluster| cluster.as_str() == asked);
            let mark = mark::of_ours(token, self.identity.as_deref(), false);
            let here = format!("{}/", self.argo.namespace);
            scoped && mark.is_some_and(|mark| mark.subject.starts_with(&here) && !held(&mark.subject))
        };
        let strays: Vec<&ApiToken> = self.tokens.iter().filter(is_stray).collect();
        if strays.is_empty() {
            return Err(not_found);
        }
        let now = self.argo.server.clock.now();
        let refused = strays.iter().find_map(|token| {
            if self.rancher.logs_in_with(token) {
                return Some(Error::failed(format!(
                    "{} is the token that this command itself logs in to Rancher with",
                    token.name
                )));
            }
            let forced = self.remove.force.contains(&Check::InUse);
            let used = mark::used_lately(token, now).filter(|_| !forced)?;
            let error = Error::failed(format!(
                "token {} is in no Secret here, but was used {used} ago",
                token.name
            ));
            Some(error.hint("find out who uses it; --force=in-use revokes it all the same"))
        });
        if let Some(refused) = refused {
            return Err(refused);
        }
        if self.remove.dry_run {
            for token in strays {
                self.ui
                    .out(format!("token/{} would be ended: it is in no Secret", token.name))?;
            }
            return Ok(false);
        }
        let names: Vec<&str> = strays.iter().map(|token| token.name.as_str()).collect();
        let question = format!(
            "Tokens for cluster {asked} that are in no Secret will be ended: {}.",
            names.join(", ")
        );
        if !self.ui.confirm(&question, self.remove.yes).await? {
            return Err(Error::failed("nothing was changed"));
        }
        let _hold = self.ui.hold();
        for token in strays {
            self.end(token).await?;
        }
        Ok(false)
    }
}
