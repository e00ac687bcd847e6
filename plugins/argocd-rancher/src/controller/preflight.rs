//! The preflight: the blockers of a rotation, and the permissions that it needs.

use std::time::Duration;

use argocd::ClusterSecret;
use argocd::config::Method;
use client::access::Right;
use client::error::Error;
use client::secret::Secret;
use engine::credential::Acceptance;
use engine::rotation::Blocker;
use rancher::api_token::proof::CallResult;

use super::abstraction::{self, Snapshot};
use super::{ClusterController, SYNC_FAILED, check, fleet};
use crate::address::RancherAddress as _;
use crate::connections::{ARGOCD, NAMESPACE};
use crate::hints::Hints;
use crate::rights;
use crate::rotation::observed::{ClusterSync, Observed};
use crate::token_check::TokenResults;
use crate::{mark, remedy};

/// A token with a shorter validity than this would count as about to expire most of the time.
const SHORT: Duration = Duration::from_mins(15);

impl ClusterController<'_> {
    /// The blockers.
    pub(super) async fn blockers(&self, seen: &Observed, snapshot: &Snapshot) -> Result<Vec<Blocker>, Error> {
        let Some(cluster) = &snapshot.cluster else {
            let name = &self.cluster.object.name;
            let list = self.options.hints.command("list", "");
            return Ok(vec![Blocker::new(
                format!("Secret {name} not found"),
                format!("{list} prints the Secrets that exist"),
            )]);
        };
        let mut all = self.of_cluster(seen, cluster);
        if all.is_empty()
            && let Some((_, id)) = cluster.server.rancher()
        {
            all.extend(self.fleet.rancher.wrong_scope(&id, self.options.unscoped).await?);
        }
        Ok(all)
    }

    fn of_cluster(&self, seen: &Observed, cluster: &ClusterSecret) -> Vec<Blocker> {
        let hints = &self.options.hints;
        let mut all = of_secret(cluster, hints);
        all.extend(self.fleet.duplicate(cluster).map(|duplicate| {
            Blocker::new(
                duplicate,
                "Argo CD writes to either of them: delete all but one, then verify that one",
            )
        }));
        all.extend(mark::owned(cluster, self.forces(check::OWNER)));
        all.extend(self.fleet.rancher.not_here(cluster));
        if self.options.ttl.granted(self.fleet.limit).duration() < SHORT {
            all.push(Blocker::new(
                "the new token would be valid for less than 15 minutes",
                "use a longer --ttl, or raise the setting auth-token-max-ttl-minutes of Rancher",
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
            all.extend(self.of_old(seen, &surveyed.results));
        }
        if seen.watched && self.fleet.is_watched(cluster).is_none() {
            all.push(self.unlistable());
        } else if seen.watched && !is_rejected {
            all.extend(of_sync(&seen.sync, cluster));
        }
        all
    }

    /// A valid old token must belong to this user, and nothing else may use it.
    fn of_owner(&self, seen: &Observed, cluster: &ClusterSecret, token: &Secret) -> Option<Blocker> {
        if self.options.keep_old {
            return None;
        }
        let name = mark::token_name(token);
        if let Some(by) = &seen.old_needed_by {
            return Some(Blocker::new(
                format!("{name} must not be revoked: {by}"),
                "log in to Rancher with another token, or leave this one valid with --keep-old",
            ));
        }
        let sharing = fleet::others_with(&self.fleet.clusters, cluster, token);
        if !sharing.is_empty() {
            return Some(Blocker::new(
                format!("{name} is in other Secrets too: {}", sharing.join(", ")),
                "give each cluster its own token with --keep-old; the last one can then be rotated without it",
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

    /// The old token must work. A new token of the same user has the same permissions.
    fn of_old(&self, seen: &Observed, results: &TokenResults) -> Option<Blocker> {
        if abstraction::are_overridden(results, &self.options.forced) {
            return None;
        }
        let failures = results.failures();
        if results.lack_the_cluster_only() {
            return Some(
                Blocker::new(
                    format!("the new token could not be checked now: {failures}"),
                    "wait until the agent is connected; --force=offline checks the new token at Rancher only",
                )
                .unless_forced(check::OFFLINE.name),
            );
        }
        let same_user = seen.old.is_some();
        if same_user && results.lack_rights_only() {
            return Some(
                Blocker::new(
                    format!("Argo CD could not use a token of this user: {failures}"),
                    "give the user the role cluster-owner, or one with get, list and watch on everything; --force=rights \
                     rotates anyway",
                )
                .unless_forced(check::RIGHTS.name),
            );
        }
        let not_a_member = matches!(
            results.proxy,
            Some(CallResult::NotAMember { .. } | CallResult::ClusterGone)
        );
        let unclear = matches!(seen.old_accepted, Acceptance::Unknown(_));
        (unclear || same_user && not_a_member).then(|| {
            Blocker::new(
                format!("Argo CD cannot use the present token: {failures}"),
                format!(
                    "{} shows the details",
                    self.options.hints.command("verify", &self.cluster.object.name)
                ),
            )
        })
    }

    /// Without the permission to list Applications it is unknown whether Argo CD calls the cluster.
    fn unlistable(&self) -> Blocker {
        let namespace = &self.fleet.argo.namespace;
        let (whose, grant) = match self.fleet.applications {
            None => (String::new(), fleet::LIST_OWN),
            Some(_) => (format!(" outside of namespace {namespace}"), fleet::LIST_ALL),
        };
        let blocker = Blocker::new(
            format!(
                "it is unknown whether Applications{whose} are deployed to the cluster: no permission to list them"
            ),
            format!("{grant}; --force=use rotates without waiting for Argo CD's use of the new token"),
        );
        blocker.unless_forced(check::USE.name)
    }

    /// The permissions that a run needs in Argo CD's namespace.
    pub(super) fn rights(&self) -> Vec<Right> {
        let values = [
            (NAMESPACE, self.cluster.object.namespace.as_str()),
            (rights::SECRET, self.cluster.object.name.as_str()),
            (rights::BACKUP, self.backup.name()),
        ];
        rights::TABLE.required("rotate", ARGOCD, &[], &values)
    }
}

/// Argo CD's metrics must be readable, because Rancher's last use of a token can be that of any client.
fn of_sync(sync: &ClusterSync, cluster: &ClusterSecret) -> Option<Blocker> {
    let blocker = match sync {
        ClusterSync::Before | ClusterSync::Since => return None,
        ClusterSync::Failed => Blocker::new(
            format!("{SYNC_FAILED}, so its use of the new token could not be observed"),
            format!(
                "`argocd cluster get {}` says why; --force=use rotates without waiting for Argo CD's use of the new token",
                cluster.server
            ),
        ),
        ClusterSync::Unknown(why) => Blocker::new(
            format!("Argo CD's use of the new token could not be observed: {why}"),
            "grant get on services/proxy in Argo CD's namespace, so that Argo CD's metrics can be read; --force=use rotates \
             without waiting for Argo CD's use of the new token",
        ),
    };
    Some(blocker.unless_forced(check::USE.name))
}

fn of_secret(cluster: &ClusterSecret, hints: &Hints) -> Vec<Blocker> {
    let name = &cluster.object.name;
    let wrong = mark::unchangeable(cluster, &[Method::Bearer]);
    let blocker = |wrong, hint| Blocker::new(format!("Secret {name}: {wrong}"), hint);
    if !wrong.is_empty() {
        return wrong
            .into_iter()
            .map(|wrong| blocker(wrong, hints.repair(name)))
            .collect();
    }
    let replace = || match cluster.server.rancher() {
        Some((_, id)) => remedy::replace(&id, hints),
        None => hints.repair(name),
    };
    cluster
        .flaws()
        .into_iter()
        .map(|flaw| blocker(flaw, replace()))
        .collect()
}
