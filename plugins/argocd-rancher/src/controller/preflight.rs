//! The preflight: what speaks against beginning a rotation, and whether we have the permissions that it needs.

use std::time::Duration;

use argocd::ClusterSecret;
use argocd::config::Method;
use client::access::{self, Right};
use client::error::Error;
use client::secret::Secret;
use engine::credential::Acceptance;
use engine::rotation::Blocker;
use rancher::api_token::proof::CallResult;

use super::abstraction::{self, Snapshot};
use super::{ClusterController, check};
use crate::address::RancherAddress as _;
use crate::mark;
use crate::proof::Proofs;
use crate::rotation::observed::{ClusterSync, Observed};
use crate::sides::ARGOCD;

/// A token that is valid for a shorter time than this would be about to expire for most of it.
const SHORT: Duration = Duration::from_mins(15);

impl ClusterController<'_> {
    /// What speaks against beginning. Missing permissions are an error.
    pub(super) async fn blockers(&self, seen: &Observed, snapshot: &Snapshot) -> Result<Vec<Blocker>, Error> {
        let Some(cluster) = &snapshot.cluster else {
            let name = &self.cluster.object.name;
            return Ok(vec![Blocker::new(
                format!("Secret {name} is gone"),
                "`kubectl argocd-rancher list` shows the Secrets that exist",
            )]);
        };
        let mut all = self.of_cluster(seen, cluster);
        if all.is_empty() {
            all.extend(self.of_scope(cluster).await?);
        }
        if all.is_empty() {
            self.require_permissions(snapshot.backup.is_some()).await?;
        }
        Ok(all)
    }

    fn of_cluster(&self, seen: &Observed, cluster: &ClusterSecret) -> Vec<Blocker> {
        let mut all = of_secret(cluster);
        all.extend(self.fleet.duplicate(cluster).map(|duplicate| {
            Blocker::new(
                duplicate,
                "Argo CD writes to any of them: delete all but one, then `kubectl argocd-rancher verify` the one that remains",
            )
        }));
        if let Some((reason, hint)) = mark::owned(cluster).filter(|_| !self.forces(check::OWNER)) {
            all.push(Blocker::new(reason, hint).unless_forced(check::OWNER.name));
        }
        if !self.fleet.is_of_this_rancher(cluster) {
            let rancher = &self.fleet.rancher.base;
            all.push(Blocker::new(
                format!("{} is not reached through {rancher}", cluster.server),
                "give the Rancher that it is reached through, with --rancher-context or --rancher-url",
            ));
        }
        if self.options.ttl.granted(self.fleet.limit).duration() < SHORT {
            all.push(Blocker::new(
                "the new token would be valid for less than 15 minutes",
                "give a longer --ttl, or raise the setting auth-token-max-ttl-minutes of Rancher",
            ));
        }
        let Some(token) = cluster.token().filter(|_| all.is_empty()) else {
            return all;
        };
        let is_rejected = seen.old_accepted == Acceptance::Rejected;
        if !is_rejected {
            all.extend(self.of_owner(seen, cluster, &token));
        }
        if let Some(surveyed) = &self.state().surveyed {
            all.extend(self.of_old(seen, &surveyed.proofs));
        }
        if seen.watched && !is_rejected {
            all.extend(of_sync(&seen.sync));
        }
        all
    }

    /// Which clusters a new token must be for.
    async fn of_scope(&self, cluster: &ClusterSecret) -> Result<Option<Blocker>, Error> {
        let Some((_, id)) = cluster.server.rancher() else {
            return Ok(None);
        };
        let wrong = self.fleet.rancher.wrong_scope(&id, self.options.unscoped).await?;
        Ok(wrong.map(|(reason, hint)| Blocker::new(reason, hint)))
    }

    /// The old token is valid: it must be ours to revoke, and used by nothing else.
    fn of_owner(&self, seen: &Observed, cluster: &ClusterSecret, token: &Secret) -> Option<Blocker> {
        if self.options.keep_old {
            return None;
        }
        let name = mark::shown(token);
        if let Some(by) = &seen.old_needed_by {
            return Some(Blocker::new(
                format!("{name} must not be revoked: {by}"),
                "log in to Rancher with another token, or leave this one valid with --keep-old",
            ));
        }
        let sharing = self.fleet.sharing(cluster, token);
        if !sharing.is_empty() {
            return Some(Blocker::new(
                format!("{name} is in other Secrets too: {}", sharing.join(", ")),
                "give each cluster a token of its own with --keep-old; the last one can then be rotated without it",
            ));
        }
        if seen.old.is_some() {
            return None;
        }
        let owner = cluster.annotations.get(mark::TOKEN_USER);
        let owner = owner.map_or_else(|| "another user".to_owned(), |user| format!("user {user}"));
        let me = &self.fleet.user.id;
        Some(Blocker::new(
            format!("{name} is not a token of {me}, the Rancher user of this command, but of {owner}"),
            "only its owner can revoke it: rotate as that user, or leave it valid with --keep-old",
        ))
    }

    /// The new one will be able to do what the old one can, if it is the same user's.
    fn of_old(&self, seen: &Observed, proofs: &Proofs) -> Option<Blocker> {
        if abstraction::is_forgiven(proofs, &self.options.forced) {
            return None;
        }
        let against = proofs.against();
        if proofs.lack_the_cluster_only() {
            return Some(
                Blocker::new(
                    format!("the new token could not be proven now: {against}"),
                    "wait until the agent is back; --force=offline proves the new token at Rancher only",
                )
                .unless_forced(check::OFFLINE.name),
            );
        }
        let same_user = seen.old.is_some();
        if same_user && proofs.lack_rights_only() {
            return Some(
                Blocker::new(
                    format!("Argo CD could not work with a token of this user: {against}"),
                    "give the user the role cluster-owner, or one that may get, list and watch everything; --force=rights rotates \
                     anyway",
                )
                .unless_forced(check::RIGHTS.name),
            );
        }
        let not_a_member = matches!(
            proofs.proxy,
            Some(CallResult::NotAMember { .. } | CallResult::ClusterGone)
        );
        let unclear = matches!(seen.old_accepted, Acceptance::Unknown(_));
        (unclear || same_user && not_a_member).then(|| {
            Blocker::new(
                format!("Argo CD cannot work with the token in use: {against}"),
                "`kubectl argocd-rancher verify` shows the details",
            )
        })
    }

    /// Asks once.
    async fn require_permissions(&self, has_backup: bool) -> Result<(), Error> {
        if self.state().has_permissions {
            return Ok(());
        }
        let (namespace, name) = (&self.cluster.object.namespace, &self.cluster.object.name);
        let there = |verb: &str, group: &str, resource: &str| Right::new(verb, group, resource).in_namespace(namespace);
        let on = |verb: &str, name: &str| there(verb, "", "secrets").named(name);
        let mut rights: Vec<Right> = ["get", "patch"].map(|verb| on(verb, name)).into();
        rights.extend(["get", "patch", "delete"].map(|verb| on(verb, self.backup.name())));
        if !has_backup {
            rights.push(there("create", "", "secrets"));
        }
        rights.extend(["get", "patch"].map(|verb| there(verb, "coordination.k8s.io", "leases").named(name)));
        rights.push(there("create", "coordination.k8s.io", "leases"));
        access::require(&self.argo().server, ARGOCD, &rights).await?;
        self.state().has_permissions = true;
        Ok(())
    }
}

/// Argo CD itself tells that it uses the new token; Rancher's last use alone may be any client's.
fn of_sync(sync: &ClusterSync) -> Option<Blocker> {
    let blocker = match sync {
        ClusterSync::Before | ClusterSync::Since => return None,
        ClusterSync::Failed => Blocker::new(
            "Argo CD's last sync of the cluster failed, so its use of the new token could not be observed",
            "`argocd cluster get` says why; --force=use rotates without waiting for Argo CD's use of the new token",
        ),
        ClusterSync::Unknown(why) => Blocker::new(
            format!("Argo CD's use of the new token could not be observed: {why}"),
            "get on services/proxy in Argo CD's namespace lets this command read Argo CD's metrics; --force=use rotates without \
             waiting for Argo CD's use of the new token",
        ),
    };
    Some(blocker.unless_forced(check::USE.name))
}

/// The Secret itself.
fn of_secret(cluster: &ClusterSecret) -> Vec<Blocker> {
    let name = &cluster.object.name;
    let mut wrong = Vec::new();
    if cluster.deleting {
        wrong.push("it is being deleted".to_owned());
    }
    if cluster.immutable {
        wrong.push("it is immutable".to_owned());
    }
    wrong.extend(cluster.flaws());
    let method = cluster.config.as_ref().map(argocd::ClusterConfig::method);
    if method.is_ok_and(|method| method != Method::Bearer) {
        wrong.push("Argo CD does not log in with a token there".to_owned());
    }
    let blocker = |wrong| Blocker::new(format!("Secret {name}: {wrong}"), mark::cure(name));
    wrong.into_iter().map(blocker).collect()
}
