//! `kubectl argocd-rancher remove`: deletes the cluster Secret, then revokes its token. In this order a cluster never has an invalid
//! token. Run again, it revokes a token that an interrupted run has left.

use argocd::{ClusterSecret, application, cluster_secret};
use cli::ExitCode;
use cli::app::{Context, GlobalFlags};
use cli::rotation::force;
use cli::ui::Ui;
use client::error::{Error, Kind};
use client::secret::Secret;
use engine::rotation::Check;
use rancher::api_token::proof::CallResult;
use rancher::api_token::{ApiToken, Credential};

use crate::connections::{Argo, Rancher, RancherFlags, of_argocd};
use crate::controller::fleet;
use crate::mark;
use crate::token_check::TokenCheck;

/// How often a revoked token is tried until it is rejected, and the time in between: each replica of Rancher learns of it by itself.
const TRIES: u32 = 20;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// The flags of `kubectl argocd-rancher remove`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Remove {
    /// Cluster id, name in Argo CD, or name of the cluster Secret
    #[arg(value_name = "CLUSTER", required = true)]
    pub targets: Vec<String>,

    /// Override a check; can be repeated
    #[arg(long, value_name = "CHECK", value_delimiter = ',', value_parser = force::of(&[APPLICATIONS, FOREIGN_TOKEN, OWNER, IN_USE]))]
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
}

const APPLICATIONS: Check = Check {
    name: "applications",
    help: "remove a cluster with Applications; Argo CD can no longer reach what they deployed",
};
const FOREIGN_TOKEN: Check = Check {
    name: "foreign-token",
    help: "revoke a token that this program did not issue",
};
const OWNER: Check = Check {
    name: "owner",
    help: "delete a Secret that a GitOps tool or controller owns, and may restore",
};
const IN_USE: Check = Check {
    name: "in-use",
    help: "revoke a token that is in no Secret but was used in the last 15 minutes",
};

const EXAMPLES: &str = "\
Examples:
  # Print what would be done, or the Applications that prevent it
  kubectl argocd-rancher remove staging --rancher-context rancher --dry-run

  # Delete the cluster Secret and revoke its token
  kubectl argocd-rancher remove staging --rancher-context rancher";

/// What happens to the token.
enum Removal<'a> {
    /// There is none.
    NoToken,
    /// It is revoked.
    Revoke(&'a ApiToken),
    /// It stays valid, for this reason.
    Keep(String),
}

pub(crate) async fn run(remove: Remove, global: &GlobalFlags, context: &Context) -> Result<ExitCode, Error> {
    let argo = Argo::open(global, &context.environment)?;
    let rancher = remove.rancher.require(&argo, global, context).await?;
    let command = RemoveCommand {
        remove: &remove,
        argo: &argo,
        rancher: &rancher,
        ui: &context.ui,
        user: rancher.whoami().await?.id,
        tokens: rancher.tokens().await?,
        identity: argo.identity().await?,
    };
    let mut is_token_kept = false;
    for name in &remove.targets {
        super::check_interrupt(&context.ui, name)?;
        let clusters = argo.clusters().await?;
        match super::find_cluster(&clusters, name) {
            Ok(cluster) => is_token_kept |= command.cluster(cluster, &clusters).await?,
            Err(error) if error.kind == Kind::NotFound => command.leftovers(name, &clusters, error).await?,
            Err(error) => return Err(error),
        }
    }
    Ok(if is_token_kept {
        ExitCode::Failed
    } else {
        ExitCode::Done
    })
}

/// What is the same for every cluster of one command.
struct RemoveCommand<'a> {
    remove: &'a Remove,
    argo: &'a Argo,
    rancher: &'a Rancher,
    ui: &'a Ui,
    /// The Rancher user, and their tokens.
    user: String,
    tokens: Vec<ApiToken>,
    /// The identity of Argo CD, for the marks of tokens.
    identity: Option<String>,
}

impl RemoveCommand<'_> {
    /// `true`: the token stays valid.
    async fn cluster(&self, cluster: &ClusterSecret, clusters: &[ClusterSecret]) -> Result<bool, Error> {
        let name = &cluster.object.name;
        super::refuse(self.rancher.not_here(cluster))?;
        super::refuse(mark::owned(cluster, self.remove.force.contains(&OWNER)))?;
        super::require_no_rotation(self.argo, cluster, "delete").await?;
        self.applications(cluster).await?;
        let value = cluster.token();
        let removal = match &value {
            Some(value) => self.removal(cluster, clusters, value),
            None => Removal::NoToken,
        };
        let then = match &removal {
            Removal::NoToken => "it holds no token".to_owned(),
            Removal::Revoke(token) => format!("and token {} revoked", token.name),
            Removal::Keep(why) => format!("but its token stays valid: {why}"),
        };
        if self.remove.dry_run {
            self.ui.out(format!("secret/{name} would be deleted, {then}"));
            return Ok(false);
        }
        let question = format!(
            "Secret {name} in namespace {} (cluster {:?}) will be deleted, {then}.",
            cluster.object.namespace, cluster.name
        );
        self.ui.require_confirmation(&question, self.remove.yes).await?;
        let _hold = self.ui.hold();
        let write = rancher::Write::by(mark::TOOL);
        cluster_secret::delete(&self.argo.server.client, &cluster.object, &write)
            .await
            .map_err(of_argocd)?;
        self.ui.out(format!("secret/{name} deleted"));
        match (removal, &cluster.config, &value) {
            (Removal::Revoke(token), Ok(config), Some(value)) => {
                self.revoke(token).await?;
                self.confirm(&TokenCheck::of(cluster, config, value), token).await?;
                Ok(false)
            }
            (Removal::Keep(why), ..) => {
                self.ui.warn(format!("the token of Secret {name} stays valid: {why}"));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Refuses to remove a cluster to which Applications are deployed.
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
        let message = format!(
            "Applications are deployed to cluster {:?}: {}",
            cluster.name,
            there.join(", ")
        );
        if self.remove.force.contains(&APPLICATIONS) {
            self.ui.warn(message);
            return Ok(());
        }
        Err(Error::failed(message)
            .hint("delete them or move them to another cluster first")
            .hint(
                "--force=applications removes the cluster anyway; Argo CD can then no longer reach what they deployed",
            ))
    }

    fn removal(&self, cluster: &ClusterSecret, clusters: &[ClusterSecret], value: &Secret) -> Removal<'_> {
        let others = fleet::others_with(clusters, cluster, value);
        if !others.is_empty() {
            return Removal::Keep(format!("it is in Secret {} too", others.join(", ")));
        }
        let credential = Credential::of(value);
        let Some(name) = credential.api_token() else {
            return Removal::Keep("it is not a Rancher API token".to_owned());
        };
        let Some(token) = self.tokens.iter().find(|token| token.name == *name) else {
            return Removal::Keep(format!(
                "{name} is not a token of user {}, and only its owner can revoke it",
                self.user
            ));
        };
        if self.rancher.logs_in_with(token) {
            return Removal::Keep(own_login(token));
        }
        let subject = format!("{}/{}", cluster.object.namespace, cluster.object.name);
        let is_ours = mark::of_ours(token, self.identity.as_deref(), true).is_some_and(|mark| mark.subject == subject);
        if is_ours || self.remove.force.contains(&FOREIGN_TOKEN) {
            Removal::Revoke(token)
        } else {
            Removal::Keep(format!(
                "{name} was not issued by this program; --force=foreign-token revokes it anyway"
            ))
        }
    }

    async fn revoke(&self, token: &ApiToken) -> Result<(), Error> {
        let revoked = self.rancher.revoke(&token.name).await;
        revoked.map_err(|error| error.hint("run the same command again to revoke the remaining tokens"))?;
        self.ui.out(format!("token/{} revoked", token.name));
        Ok(())
    }

    /// Waits until Rancher rejects the revoked token.
    async fn confirm(&self, check: &TokenCheck<'_>, token: &ApiToken) -> Result<(), Error> {
        let mut last = String::new();
        for _ in 0..TRIES {
            match check.at_rancher(self.argo, Some(self.rancher)).await? {
                CallResult::Rejected => {
                    self.ui.status(format!("Rancher rejects {}", token.name));
                    return Ok(());
                }
                other => last = format!(": {other}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(Error::failed(format!(
            "token {} was revoked, but it could not be verified that Rancher rejects it{last}",
            token.name
        )))
    }

    /// Without a Secret: revokes the tokens for this cluster that interrupted runs have left.
    async fn leftovers(&self, name: &str, clusters: &[ClusterSecret], not_found: Error) -> Result<(), Error> {
        let exists = |subject: &str| {
            let secret = |cluster: &ClusterSecret| format!("{}/{}", cluster.object.namespace, cluster.object.name);
            clusters.iter().any(|cluster| secret(cluster) == subject)
        };
        let is_leftover = |token: &&ApiToken| {
            let is_scoped = token.cluster.as_ref().is_some_and(|cluster| cluster.as_str() == name);
            let mark = mark::of_ours(token, self.identity.as_deref(), false);
            let here = format!("{}/", self.argo.namespace);
            is_scoped && mark.is_some_and(|mark| mark.subject.starts_with(&here) && !exists(&mark.subject))
        };
        let leftovers: Vec<&ApiToken> = self.tokens.iter().filter(is_leftover).collect();
        if leftovers.is_empty() {
            return Err(not_found);
        }
        leftovers.iter().try_for_each(|token| self.require_unused(token))?;
        if self.remove.dry_run {
            for token in leftovers {
                self.ui
                    .out(format!("token/{} would be revoked: it is in no Secret", token.name));
            }
            return Ok(());
        }
        let names: Vec<&str> = leftovers.iter().map(|token| token.name.as_str()).collect();
        let question = format!(
            "The tokens for cluster {name} that are in no Secret will be revoked: {}.",
            names.join(", ")
        );
        self.ui.require_confirmation(&question, self.remove.yes).await?;
        let _hold = self.ui.hold();
        for token in leftovers {
            self.revoke(token).await?;
        }
        Ok(())
    }

    /// Refuses to revoke a leftover token that is still used.
    fn require_unused(&self, token: &ApiToken) -> Result<(), Error> {
        if self.rancher.logs_in_with(token) {
            return Err(Error::failed(own_login(token)));
        }
        let recent = mark::recent_use(token, self.argo.server.clock.now());
        let Some(ago) = recent.filter(|_| !self.remove.force.contains(&IN_USE)) else {
            return Ok(());
        };
        let message = format!("token {} is in no Secret here, but was used {ago} ago", token.name);
        Err(Error::failed(message).hint("find out what uses it; --force=in-use revokes it anyway"))
    }
}

fn own_login(token: &ApiToken) -> String {
    format!("this command logs in to Rancher with {}", token.name)
}
