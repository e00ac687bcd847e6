//! What is looked at before a rotation begins: what speaks against it, and whether we may do what it takes.

use std::time::Duration;

use ::rotation::protocol::Obstacle;
use argocd::ClusterSecret;
use argocd::config::Method;
use kubectl_core::access::{self, Right};
use kubectl_core::error::Error;
use kubectl_core::secret::Secret;
use rancher::api_token::proof::Standing;

use super::snapshot::Snapshot;
use super::{Check, ClusterActor};
use crate::mark;
use crate::proof::Proofs;
use crate::rotation::view::{Answer, Consumer, View};
use crate::sides::{ARGOCD, Argo};

/// A token with a shorter life than this would be about to expire for most of it.
const SHORT: Duration = Duration::from_mins(15);

impl ClusterActor<'_> {
    /// Says what speaks against beginning.
    pub(super) async fn survey(&self, view: &mut View, snapshot: &Snapshot) -> Result<(), Error> {
        let name = &self.cluster.object.name;
        view.obstacles = match &snapshot.cluster {
            None => vec![never(
                format!("Secret {name} is gone"),
                "`kubectl argocd-rancher list` shows those that there are",
            )],
            Some(cluster) => {
                let mut all = self.obstacles(view, cluster);
                if all.is_empty() {
                    all.extend(self.of_scope(cluster).await?);
                }
                all
            }
        };
        if view.obstacles.is_empty() {
            self.check_rights(snapshot.parked.as_ref()).await?;
        }
        Ok(())
    }

    fn obstacles(&self, view: &View, cluster: &ClusterSecret) -> Vec<Obstacle> {
        let mut all = of_secret(cluster);
        if let Some(duplicate) = self.fleet.duplicate(cluster) {
            all.push(never(
                duplicate,
                "Argo CD writes into any of them: delete all but one, then `kubectl argocd-rancher verify` the one that stays",
            ));
        }
        if let Some((reason, hint)) = mark::owned(cluster).filter(|_| !self.options.forced.contains(&Check::Owner)) {
            all.push(Obstacle {
                check: Some(Check::Owner.name()),
                reason,
                hint,
            });
        }
        if !self.fleet.is_of_this_rancher(cluster) {
            let rancher = &self.fleet.rancher.base;
            all.push(never(
                format!("{} is not reached through {rancher}", cluster.server),
                "give the Rancher that it is reached through, with --rancher-context or --rancher-url",
            ));
        }
        if self.options.ttl.granted(self.fleet.limit).duration() < SHORT {
            all.push(never(
                "the new token would live for less than a quarter of an hour".to_owned(),
                "give a longer --ttl, or raise the setting auth-token-max-ttl-minutes of Rancher",
            ));
        }
        let Some(token) = cluster.token().filter(|_| all.is_empty()) else {
            return all;
        };
        if view.old_answer != Answer::Refused {
            all.extend(self.of_owner(view, cluster, &token));
        }
        let state = self.state();
        if let Some(surveyed) = &state.surveyed {
            all.extend(self.of_proofs_of_old(view, &surveyed.proofs));
        }
        if view.watched && view.old_answer != Answer::Refused {
            all.extend(of_consumer(&view.consumer));
        }
        all
    }

    /// Which clusters a new token must be for.
    async fn of_scope(&self, cluster: &ClusterSecret) -> Result<Option<Obstacle>, Error> {
        let Some((_, id)) = cluster.server.rancher() else {
            return Ok(None);
        };
        let wrong = self.fleet.rancher.wrong_scope(&id, self.options.unscoped).await?;
        Ok(wrong.map(|(reason, hint)| never(reason, hint)))
    }

    /// The old token lives: it must be ours to end, and nobody else's.
    fn of_owner(&self, view: &View, cluster: &ClusterSecret, token: &Secret) -> Option<Obstacle> {
        if self.options.keep_old {
            return None;
        }
        let shown = mark::shown(token);
        if let Some(by) = &view.old_needed_by {
            return Some(never(
                format!("{shown} must not be revoked: {by}"),
                "log in to Rancher with another token, or leave this one valid with --keep-old",
            ));
        }
        let sharing = self.fleet.sharing(cluster, token);
        if !sharing.is_empty() {
            return Some(never(
                format!("{shown} is in other Secrets too: {}", sharing.join(", ")),
                "give each cluster a token of its own with --keep-old; the last one can then be rotated without it",
            ));
        }
        if view.old.is_some() {
            return None;
        }
        let owner = cluster.annotations.get(mark::TOKEN_USER);
        let owner = owner.map_or_else(|| "somebody else".to_owned(), |user| format!("user {user}"));
        let me = &self.fleet.user.id;
        Some(never(
            format!("{shown} is not a token of {me}, the user of Rancher who rotates it, but of {owner}"),
            "only its owner can end it: rotate as that user, or leave it alive with --keep-old",
        ))
    }

    /// The new one will be able to do what the old one can, if it is the same user's.
    fn of_proofs_of_old(&self, view: &View, proofs: &Proofs) -> Option<Obstacle> {
        if self.forgives(proofs) {
            return None;
        }
        if proofs.lack_the_cluster_only() {
            return Some(Obstacle {
                check: Some(Check::Offline.name()),
                reason: format!("nothing can be proven now: {}", proofs.against()),
                hint: "wait until its agent is back; --force=offline proves the new token at Rancher alone".to_owned(),
            });
        }
        let same_user = view.old.is_some();
        if same_user && proofs.lack_rights_only() {
            return Some(Obstacle {
                check: Some(Check::Rights.name()),
                reason: format!("Argo CD could not work with a token of this user: {}", proofs.against()),
                hint: "give the user the role cluster-owner, or one that may get, list and watch everything; --force=rights \
                       rotates all the same"
                    .to_owned(),
            });
        }
        let not_a_member = matches!(proofs.proxy, Some(Standing::NotAMember { .. } | Standing::ClusterGone));
        let unclear = matches!(view.old_answer, Answer::Open(_));
        (unclear || same_user && not_a_member).then(|| {
            never(
                format!("the token in use is not as it should be: {}", proofs.against()),
                "`kubectl argocd-rancher verify` says more",
            )
        })
    }
}

/// Use of the new token is told by Argo CD itself; Rancher's last use alone may be anybody's.
fn of_consumer(consumer: &Consumer) -> Option<Obstacle> {
    let (reason, hint) = match consumer {
        Consumer::Before | Consumer::Since => return None,
        Consumer::Failed => (
            "Argo CD's last sync of the cluster failed, so that its use of the new token could not be told".to_owned(),
            "`argocd cluster get` says why; --force=use rotates without waiting for Argo CD's use of the new token",
        ),
        Consumer::Unknown(why) => (
            format!("Argo CD's use of the new token could not be told: {why}"),
            "get on services/proxy in Argo CD's namespace lets this command read Argo CD's metrics; --force=use rotates without \
             waiting for Argo CD's use of the new token",
        ),
    };
    Some(Obstacle {
        check: Some(Check::Use.name()),
        reason,
        hint: hint.to_owned(),
    })
}

/// The Secret itself.
fn of_secret(cluster: &ClusterSecret) -> Vec<Obstacle> {
    let name = &cluster.object.name;
    let mut wrong = Vec::new();
    if cluster.deleting {
        wrong.push("it is being deleted".to_owned());
    }
    if cluster.immutable {
        wrong.push("it is immutable".to_owned());
    }
    wrong.extend(cluster.flaws());
    if cluster
        .config
        .as_ref()
        .is_ok_and(|config| config.method() != Method::Bearer)
    {
        wrong.push("Argo CD does not log in with a token there".to_owned());
    }
    let obstacle = |wrong| never(format!("Secret {name}: {wrong}"), &mark::cure(name));
    wrong.into_iter().map(obstacle).collect()
}

fn never(reason: String, hint: &str) -> Obstacle {
    Obstacle {
        check: None,
        reason,
        hint: hint.to_owned(),
    }
}

/// What a rotation needs the rights for.
pub(super) async fn rights(argo: &Argo, cluster: &ClusterSecret, parked: &str, is_parked: bool) -> Result<(), Error> {
    let (namespace, name) = (&cluster.object.namespace, &cluster.object.name);
    let there = |verb: &str, group: &str, resource: &str| Right::new(verb, group, resource).in_namespace(namespace);
    let mut rights: Vec<Right> = ["get", "patch"]
        .map(|verb| there(verb, "", "secrets").named(name))
        .into();
    rights.extend(["get", "patch", "delete"].map(|verb| there(verb, "", "secrets").named(parked)));
    if !is_parked {
        rights.push(there("create", "", "secrets"));
    }
    rights.extend(["get", "patch"].map(|verb| there(verb, "coordination.k8s.io", "leases").named(name)));
    rights.push(there("create", "coordination.k8s.io", "leases"));
    access::require(&argo.server, ARGOCD, &rights).await
}
