//! What interrupted commands have left: valid tokens that are in no Secret, backup Secrets without a rotation, and Secrets that are
//! still to be deleted. Each is listed with the command that ends it.
//!
//! A token that stays valid on purpose is not a leftover while its cluster Secret says so.

use std::collections::{BTreeMap, BTreeSet};

use argocd::ClusterSecret;
use cli::rotation::leases::LeasedRotations;
use client::error::Error;
use engine::journal::Journal;
use k8s_openapi::jiff::Timestamp;
use rancher::api_token::{ApiToken, Credential, Mark};

use crate::backup::{self, StoredBackup};
use crate::connections::{ARGOCD, Argo, of_argocd};
use crate::hints::Hints;
use crate::mark;
use crate::report::LeasedRotation;
use crate::rotation::ArgocdRancher;

/// The flag of `remove` that ends leftovers and keeps the cluster.
pub(crate) const FLAG: &str = "--leftovers";

/// What says which tokens and Secrets are still in use.
pub(crate) struct Claims<'a> {
    pub(crate) namespace: &'a str,
    /// The identity of Argo CD, for the marks of tokens.
    pub(crate) identity: Option<&'a str>,
    pub(crate) clusters: &'a [ClusterSecret],
    /// The Secrets whose removal was interrupted.
    pub(crate) detached: Vec<ClusterSecret>,
    pub(crate) backups: Vec<StoredBackup>,
    pub(crate) rotations: LeasedRotations<ArgocdRancher>,
}

/// A token, and the name of the Secret that it was issued for.
pub(crate) struct Leftover<'a> {
    pub(crate) token: &'a ApiToken,
    pub(crate) secret: String,
}

impl<'a> Claims<'a> {
    pub(crate) async fn read(
        argo: &'a Argo,
        identity: Option<&'a str>,
        clusters: &'a [ClusterSecret],
    ) -> Result<Self, Error> {
        let namespace = argo.namespace.as_str();
        let backups = async {
            let found = backup::list(&argo.server.client, namespace).await;
            found.map_err(of_argocd)
        };
        let (detached, backups) = futures::try_join!(argo.detached(), backups)?;
        // After the backups: the Lease of a rotation that has just begun is older than its backup Secret.
        let rotations = LeasedRotations::read(&argo.server, Some(namespace), ARGOCD).await?;
        Ok(Self {
            namespace,
            identity,
            clusters,
            detached,
            backups,
            rotations,
        })
    }

    /// The leftovers among the tokens of the Rancher user.
    pub(crate) fn tokens(&self, own: &'a [ApiToken], now: Timestamp) -> Vec<Leftover<'a>> {
        let held: BTreeSet<String> = self
            .clusters
            .iter()
            .chain(&self.detached)
            .filter_map(ClusterSecret::token)
            .filter_map(|value| Credential::of(&value).api_token().map(ToString::to_string))
            .collect();
        let leftover = |token: &'a ApiToken| {
            let mark = mark::of_ours(token, self.identity, false)?;
            let (namespace, secret) = mark.subject.split_once('/')?;
            let name = token.name.as_str();
            let is_leftover = namespace == self.namespace
                && !held.contains(name)
                && !self.is_kept(secret, name)
                && !self.is_rotated(secret, name, &mark);
            let secret = secret.to_owned();
            is_leftover.then_some(Leftover { token, secret })
        };
        own.iter()
            .filter(|token| token.is_valid(now))
            .filter_map(leftover)
            .collect()
    }

    /// The backup Secrets without a rotation in progress, and the Secrets that they belong to.
    pub(crate) fn backups(&self) -> impl Iterator<Item = (&StoredBackup, &str)> {
        let with_secret = self
            .backups
            .iter()
            .filter_map(|backup| Some((backup, backup.secret()?)));
        with_secret.filter(|(_, secret)| !self.rotations.unknown && !self.in_progress(secret))
    }

    /// Whether there is a Lease of this Secret, which is gone, and no rotation is in progress.
    pub(crate) fn is_lease_unused(&self, secret: &str) -> bool {
        let is_detached = self.detached.iter().any(|cluster| cluster.object.name == secret);
        let rotation = self.rotations.of(self.namespace, secret);
        !self.exists(secret) && !is_detached && rotation.is_some_and(|rotation| !rotation.in_progress())
    }

    /// Whether a rotation of the token of this Secret is in progress.
    pub(crate) fn in_progress(&self, secret: &str) -> bool {
        let rotation = self.rotations.of(self.namespace, secret);
        rotation.is_some_and(LeasedRotation::in_progress)
    }

    /// The warnings about all leftovers, by the hint that ends them.
    pub(crate) fn warnings(&self, own: &'a [ApiToken], now: Timestamp, hints: &Hints) -> BTreeMap<String, Vec<String>> {
        let mut warnings: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut add = |hint: String, warning: String| warnings.entry(hint).or_default().push(warning);
        for Leftover { token, secret } in self.tokens(own, now) {
            let used = mark::recent_use(token, now).map_or_else(String::new, |recent| format!("; it {recent}"));
            let warning = format!(
                "token {} was issued for Secret {}/{secret} but is not in it: a run was killed, or is in progress{used}",
                token.name, self.namespace
            );
            add(self.remedy(&secret, hints), warning);
        }
        for (backup, secret) in self.backups() {
            let warning = format!(
                "backup Secret {} holds tokens, but no rotation is in progress",
                backup.object.name
            );
            add(self.remedy(secret, hints), warning);
        }
        for backup in &self.backups {
            let secret = backup.secret().filter(|secret| self.in_progress(secret));
            if let Some(secret) = secret.filter(|secret| !self.exists(secret)) {
                let names = backup.token_names().join(" and ");
                let warning =
                    format!("Secret {secret} was deleted during its rotation; its backup Secret holds {names}");
                add(self.remedy(secret, hints), warning);
            }
        }
        for secret in &self.detached {
            let name = &secret.object.name;
            let remove = hints.with_rancher("remove", name);
            add(
                format!("{remove} finishes it"),
                format!("the removal of Secret {name} was interrupted"),
            );
        }
        warnings
    }

    /// The command that ends the leftovers of a Secret.
    fn remedy(&self, secret: &str, hints: &Hints) -> String {
        if self.in_progress(secret) {
            format!("{} ends its rotation", hints.with_rancher("rollback", secret))
        } else {
            format!("{} ends it", hints.with_flag("remove", secret, FLAG))
        }
    }

    fn exists(&self, secret: &str) -> bool {
        self.clusters.iter().any(|cluster| cluster.object.name == secret)
    }

    fn is_kept(&self, secret: &str, token: &str) -> bool {
        let mut clusters = self.clusters.iter().filter(|cluster| cluster.object.name == secret);
        clusters.any(|cluster| mark::kept(cluster).contains(&token))
    }

    /// A rotation in progress uses or revokes it. It does not if its cluster Secret was deleted.
    fn is_rotated(&self, secret: &str, token: &str, mark: &Mark) -> bool {
        let mut runs = self
            .rotations
            .all()
            .filter_map(LeasedRotation::journal)
            .map(Journal::run);
        self.exists(secret)
            && runs.any(|run| {
                let tokens = [Some(&run.record.old), run.record.new.as_ref()];
                let mut names = tokens.into_iter().flatten().filter_map(|token| token.name.as_ref());
                run.id.to_string() == mark.run || names.any(|name| name.0 == token)
            })
    }
}
