//! `kubectl argocd-rancher remove`: takes the cluster Secret away from Argo CD, revokes its token, and deletes the Secret. In this order a
//! cluster never has an invalid token, and the same command finishes a removal that was interrupted.

use argocd::{ClusterSecret, application, cluster_secret, secret_name};
use cli::app::{Context, GlobalFlags};
use cli::rotation::force;
use cli::ui::Ui;
use cli::{ExitCode, Failures};
use client::error::{Error, Kind};
use client::secret::Secret;
use engine::rotation::Check;
use rancher::ClusterId;
use rancher::api_token::proof::CallResult;
use rancher::api_token::{self, ApiToken, Credential};

use crate::connections::{Argo, Rancher, RancherFlags, of_argocd};
use crate::controller::fleet;
use crate::hints::Hints;
use crate::leftovers::{Claims, Leftover};
use crate::rotation::ArgocdRancher;
use crate::token_check::TokenCheck;
use crate::token_facts::TokenFacts;
use crate::{mark, report};

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

    /// Keep the cluster; only revoke tokens and delete backup Secrets that killed commands left
    #[arg(long)]
    pub leftovers: bool,

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
    help: "revoke a token that is in no Secret but was used or issued in the last 15 minutes",
};

const EXAMPLES: &str = "\
Examples:
  # Print what would be done, or the Applications that prevent it
  kubectl argocd-rancher remove staging --rancher-context rancher --dry-run

  # Delete the cluster Secret and revoke its token
  kubectl argocd-rancher remove staging --rancher-context rancher

Kill it at any point: run the same command again to finish the removal.";

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
    let hints = Hints::new(&remove.rancher, global, &argo.namespace);
    let rancher = remove.rancher.require(&argo, global, context).await?;
    let command = RemoveCommand {
        remove: &remove,
        argo: &argo,
        rancher: &rancher,
        ui: &context.ui,
        hints: &hints,
        user: rancher.whoami().await?.id,
        tokens: rancher.tokens().await?,
        identity: argo.identity().await?,
    };
    let mut is_token_kept = false;
    let mut failures = Failures::of(&context.ui, "clusters", remove.targets.len());
    for name in &remove.targets {
        match command.one(name).await {
            Ok(is_kept) => is_token_kept |= is_kept,
            Err(error) => failures.add(name, error)?,
        }
    }
    failures.end("removed")?;
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
    hints: &'a Hints,
    /// The Rancher user, and their tokens.
    user: String,
    tokens: Vec<ApiToken>,
    /// The identity of Argo CD, for the marks of tokens.
    identity: Option<String>,
}

impl RemoveCommand<'_> {
    /// `true`: the token stays valid.
    async fn one(&self, name: &str) -> Result<bool, Error> {
        super::check_interrupt(self.ui, &name)?;
        let clusters = self.argo.clusters().await?;
        let found = super::find_cluster(&clusters, name, self.hints);
        if self.remove.leftovers {
            self.leftovers(name, &clusters, found).await?;
            return Ok(false);
        }
        let not_found = match found {
            Ok(cluster) => return self.cluster(cluster, &clusters).await,
            Err(error) if error.kind == Kind::NotFound => error,
            Err(error) => return Err(error),
        };
        let detached = self.argo.detached().await?;
        match super::find_cluster(&detached, name, self.hints) {
            Ok(cluster) => self.resume(cluster, &clusters).await,
            Err(error) if error.kind == Kind::NotFound => {
                self.leftovers(name, &clusters, Err(not_found)).await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn cluster(&self, cluster: &ClusterSecret, clusters: &[ClusterSecret]) -> Result<bool, Error> {
        let name = &cluster.object.name;
        super::refuse(self.rancher.not_here(cluster))?;
        super::refuse(mark::owned(cluster, self.remove.force.contains(&OWNER)))?;
        super::require_no_rotation(self.argo, name, "delete", self.hints).await?;
        self.applications(cluster).await?;
        let value = cluster.token();
        let removal = self.removal(cluster, clusters, value.as_ref());
        if !self.is_confirmed(cluster, &removal).await? {
            return Ok(false);
        }
        let _hold = self.ui.hold();
        let client = &self.argo.server.client;
        // The Secret stays until its token is revoked, so that the same command finds both again.
        let detached = cluster_secret::detach(client, &cluster.object, &rancher::Write::by(mark::TOOL)).await;
        let detached = detached.map_err(|error| resumable(of_argocd(error)))?;
        self.finish(&detached, removal).await
    }

    /// Finishes a removal that was interrupted.
    async fn resume(&self, cluster: &ClusterSecret, clusters: &[ClusterSecret]) -> Result<bool, Error> {
        let value = cluster.token();
        let removal = self.removal(cluster, clusters, value.as_ref());
        if !self.is_confirmed(cluster, &removal).await? {
            return Ok(false);
        }
        let _hold = self.ui.hold();
        self.finish(cluster, removal).await
    }

    /// `false`: a dry run.
    async fn is_confirmed(&self, cluster: &ClusterSecret, removal: &Removal<'_>) -> Result<bool, Error> {
        let name = &cluster.object.name;
        let then = match removal {
            Removal::NoToken => "it holds no valid token".to_owned(),
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
        Ok(true)
    }

    /// Revokes the token, and deletes the Secret, which Argo CD has forgotten.
    async fn finish(&self, cluster: &ClusterSecret, removal: Removal<'_>) -> Result<bool, Error> {
        let name = &cluster.object.name;
        if let (Removal::Revoke(token), Ok(config), Some(value)) = (&removal, &cluster.config, cluster.token()) {
            self.revoke(token).await?;
            let confirmed = self.confirm(&TokenCheck::of(cluster, config, &value), token).await;
            confirmed.map_err(resumable)?;
        }
        // Before the Secret, so that the same command finds both again after a kill.
        let lease = report::lease(&cluster.object.namespace, name);
        lease.delete_unused::<ArgocdRancher>(&self.argo.server).await;
        let write = rancher::Write::by(mark::TOOL);
        let deleted = cluster_secret::delete(&self.argo.server.client, &cluster.object, &write).await;
        deleted.map_err(|error| resumable(of_argocd(error)))?;
        self.ui.out(format!("secret/{name} deleted"));
        let Removal::Keep(why) = removal else { return Ok(false) };
        self.ui.warn(format!("the token of Secret {name} stays valid: {why}"));
        Ok(true)
    }

    /// Refuses to remove a cluster to which Applications are deployed.
    async fn applications(&self, cluster: &ClusterSecret) -> Result<(), Error> {
        let client = &self.argo.server.client;
        let is_forced = self.remove.force.contains(&APPLICATIONS);
        let visible = match application::visible(client, &self.argo.namespace).await {
            Err(error) if error.is_forbidden() && is_forced => return Ok(()),
            other => other.map_err(of_argocd)?,
        };
        let there: Vec<String> = visible
            .applications
            .iter()
            .filter(|application| application.points_at(cluster))
            .map(|application| format!("{}/{}", application.namespace, application.name))
            .collect();
        if there.is_empty() && visible.incomplete && !is_forced {
            let message = format!(
                "it is unknown whether Applications outside of namespace {} are deployed to cluster {:?}: no permission to list them",
                self.argo.namespace, cluster.name
            );
            return Err(Error::new(Kind::Forbidden, message)
                .hint(fleet::LIST_ALL)
                .hint("--force=applications removes the cluster anyway"));
        }
        if there.is_empty() {
            return Ok(());
        }
        let message = format!(
            "Applications are deployed to cluster {:?}: {}",
            cluster.name,
            there.join(", ")
        );
        if is_forced {
            self.ui.warn(message);
            return Ok(());
        }
        Err(Error::failed(message)
            .hint("delete them or move them to another cluster first")
            .hint(
                "--force=applications removes the cluster anyway; Argo CD can then no longer reach what they deployed",
            ))
    }

    fn removal(&self, cluster: &ClusterSecret, clusters: &[ClusterSecret], value: Option<&Secret>) -> Removal<'_> {
        let Some(value) = value else { return Removal::NoToken };
        let others = fleet::others_with(clusters, cluster, value);
        if !others.is_empty() {
            return Removal::Keep(format!("it is in Secret {} too", others.join(", ")));
        }
        let credential = Credential::of(value);
        let Some(name) = credential.api_token() else {
            return Removal::Keep("it is not a Rancher API token".to_owned());
        };
        let Some(token) = self.tokens.iter().find(|token| token.name == *name) else {
            let facts = TokenFacts::of(cluster, Some(value), Some(&self.tokens), Some(&self.user));
            if facts.revoked {
                return Removal::NoToken;
            }
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

    /// Ends what interrupted commands have left for a cluster: tokens that are in no Secret, a backup Secret without a rotation, and the
    /// Lease of a Secret that is gone.
    async fn leftovers(
        &self,
        name: &str,
        clusters: &[ClusterSecret],
        found: Result<&ClusterSecret, Error>,
    ) -> Result<(), Error> {
        let claims = Claims::read(self.argo, self.identity.as_deref(), clusters).await?;
        if claims.rotations.unknown {
            let message = "cannot tell leftovers from tokens of a rotation in progress: no permission to list Leases";
            return Err(Error::new(Kind::Forbidden, message));
        }
        let cluster = match &found {
            Ok(_) => None,
            Err(_) => self.cluster_called(name).await,
        };
        let of_cluster = cluster.as_ref().map(|id| self.rancher.server_of(id));
        let of_cluster = of_cluster.and_then(|server| secret_name(server.as_str()).ok());
        let of_found = found.as_ref().ok().map(|cluster| cluster.object.name.clone());
        let secrets: Vec<String> = [Some(name.to_owned()), of_cluster, of_found]
            .into_iter()
            .flatten()
            .collect();
        let in_progress = |secret: &&String| claims.in_progress(secret);
        if let (Err(_), Some(secret)) = (&found, secrets.iter().find(in_progress)) {
            let rollback = self.hints.with_rancher("rollback", secret);
            let message = format!("Secret {secret} was deleted, and its rotation is not finished");
            return Err(Error::failed(message).hint(format!("{rollback} ends the rotation")));
        }
        let is_of =
            |left: &Leftover<'_>| secrets.contains(&left.secret) || cluster.is_some() && left.token.cluster == cluster;
        let now = self.argo.server.clock.now();
        let tokens = claims.tokens(&self.tokens, now).into_iter().filter(is_of);
        let tokens: Vec<&ApiToken> = tokens.map(|left| left.token).collect();
        let backups = claims.backups();
        let backups = backups.filter(|(_, secret)| secrets.iter().any(|of| of == secret));
        let backups: Vec<_> = backups.map(|(backup, _)| backup).collect();
        let leases: Vec<&String> = secrets.iter().filter(|secret| claims.is_lease_unused(secret)).collect();
        if tokens.is_empty() && backups.is_empty() && leases.is_empty() {
            return found.map(|_| self.ui.status(format!("Nothing is left over for cluster {name}.")));
        }
        tokens.iter().try_for_each(|token| self.require_unused(token))?;
        if self.remove.dry_run {
            for token in tokens {
                self.ui
                    .out(format!("token/{} would be revoked: it is in no Secret", token.name));
            }
            for backup in backups {
                self.ui.out(format!("secret/{} would be deleted", backup.object.name));
            }
            for secret in leases {
                self.ui.out(format!("lease/{secret} would be deleted"));
            }
            return Ok(());
        }
        let names = tokens.iter().map(|token| token.name.to_string());
        let names: Vec<String> = names
            .chain(backups.iter().map(|backup| backup.object.name.clone()))
            .chain(leases.iter().map(|secret| format!("Lease {secret}")))
            .collect();
        let question = format!(
            "What interrupted commands have left for cluster {name} will be revoked or deleted: {}.",
            names.join(", ")
        );
        self.ui.require_confirmation(&question, self.remove.yes).await?;
        let _hold = self.ui.hold();
        for token in tokens {
            self.revoke(token).await?;
        }
        for backup in backups {
            let deleted = backup.delete(&self.argo.server.client).await;
            deleted.map_err(|error| resumable(of_argocd(error)))?;
            self.ui.out(format!("secret/{} deleted", backup.object.name));
        }
        for secret in leases {
            let lease = report::lease(&self.argo.namespace, secret);
            if lease.delete_unused::<ArgocdRancher>(&self.argo.server).await {
                self.ui.out(format!("lease/{secret} deleted"));
            } else {
                self.ui.warn(format!(
                    "Lease {secret} stays: it could not be deleted, or is in use again"
                ));
            }
        }
        Ok(())
    }

    /// The cluster of this id or display name. Its Secret is gone, so that only Rancher knows the name.
    async fn cluster_called(&self, name: &str) -> Option<ClusterId> {
        let known = api_token::find_cluster(&self.rancher.client, name).await;
        known.map(|cluster| cluster.id).or_else(|_| name.parse()).ok()
    }

    /// Refuses to revoke a leftover token that is still used.
    fn require_unused(&self, token: &ApiToken) -> Result<(), Error> {
        if self.rancher.logs_in_with(token) {
            return Err(Error::failed(own_login(token)));
        }
        let recent = mark::recent_use(token, self.argo.server.clock.now());
        let Some(recent) = recent.filter(|_| !self.remove.force.contains(&IN_USE)) else {
            return Ok(());
        };
        let message = format!("token {} is in no Secret here, but {recent}", token.name);
        Err(Error::failed(message).hint("find out what uses it; --force=in-use revokes it anyway"))
    }
}

fn resumable(error: Error) -> Error {
    error.hint("run the same command again to finish the removal")
}

fn own_login(token: &ApiToken) -> String {
    format!("this command logs in to Rancher with {}", token.name)
}
