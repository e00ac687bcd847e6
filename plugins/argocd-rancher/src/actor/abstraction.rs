//! Everything that is read in one look, with the values and versions that writes need.

use std::collections::{BTreeMap, BTreeSet};

use ::rotation::protocol::Run;
use argocd::ClusterSecret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kubectl_core::ownership::Owner;
use kubectl_core::secret::Secret;
use rancher::api_token::{ApiToken, Credential, TokenName};
use serde::{Deserialize, Serialize};

use crate::mark::{self, TOOL};
use crate::parked;
use crate::rotation::ArgocdRancher;
use crate::rotation::view::{self, Answer, Consumer, Known, Leg, Life, Minted, Name, Parked, Target, View, Writer};

/// What Argo CD's application controller and API server call themselves when they write a cluster Secret from their own copy
/// (seen on Argo CD 3.5.1).
const ARGOCD_ITSELF: [&str; 2] = ["argocd-application-controller", "argocd-server"];

/// On the cluster Secret: the run that wrote it, and the leg of its way.
pub(super) const MARK: &str = "kubectl-rotation.github.io/argocd-rancher";
/// On the cluster Secret: [`Left`], as JSON.
pub(super) const LEFT: &str = "kubectl-rotation.github.io/argocd-rancher-run";

/// What the run that is named by [`MARK`] leaves for a process that resumes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Left {
    /// The user of Rancher who began.
    pub(super) user: String,
    /// The token that is rotated.
    pub(super) old: Known,
    /// It is to stay valid.
    pub(super) keep_old: bool,
    /// Every new token that was put there.
    pub(super) placed: BTreeSet<Name>,
    /// When the token that is there was put there, by the clock of Argo CD's API server.
    pub(super) placed_at: Option<Timestamp>,
    /// The last use of that token before, as Rancher noted it.
    pub(super) used_before: Option<String>,
}

/// A token that ends sooner than this could end while a write is under way.
const NEAR: SignedDuration = SignedDuration::from_mins(5);

/// One look.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) cluster: Option<ClusterSecret>,
    pub(super) parked: Option<parked::Seen>,
    pub(super) tokens: Vec<ApiToken>,
    /// `namespace/name` of the cluster Secret, as the marks of tokens say it.
    pub(super) subject: String,
    /// Of Argo CD, as the marks of tokens say it.
    pub(super) identity: Option<String>,
    pub(super) user: String,
    pub(super) kept: bool,
}

impl Snapshot {
    /// Every value that was read.
    pub(super) fn values(&self) -> impl Iterator<Item = Secret> {
        let held = self.cluster.as_ref().and_then(ClusterSecret::token);
        let parked = self
            .parked
            .iter()
            .flat_map(|parked| [parked.old.clone(), parked.new.clone()]);
        parked.flatten().chain(held)
    }

    /// Which token is meant, among the caller's.
    pub(super) fn token(&self, name: &str) -> Option<&ApiToken> {
        self.tokens.iter().find(|token| token.name.as_str() == name)
    }

    /// As `decide` sees it. `minted`: what this process alone knows. What has to be asked is left open.
    pub(super) fn view(
        &self,
        run: Option<&Run<ArgocdRancher>>,
        now: Timestamp,
        minted: &BTreeMap<TokenName, Secret>,
    ) -> View {
        let id = run.map(|run| run.id.to_string());
        let target = self.target(id.as_deref());
        let old = run.map(|run| run.notes.old.name.clone());
        let old = old.unwrap_or_else(|| target.held().and_then(|held| held.name.clone()));
        let own = self.parked.as_ref();
        let own = own.filter(|parked| Some(&parked.run.id) == id.as_ref());
        View {
            obstacles: Vec::new(),
            user: self.user.clone(),
            same_rancher: false,
            parked: own.map(|parked| Parked {
                user: parked.run.user.clone(),
                keep_old: parked.run.keep_old,
                old: parked.old.as_ref().map(known),
                new: parked.new.as_ref().map(known),
            }),
            old_needed_by: None,
            consumer: Consumer::default(),
            old: old.and_then(|name| self.token(&name.0)).map(|token| life(token, now)),
            old_answer: Answer::Unasked,
            minted: self.minted(id.as_deref(), now, minted),
            new_answer: Answer::Unasked,
            watched: false,
            quiet: false,
            keep_old: false,
            target,
        }
    }

    fn target(&self, run: Option<&str>) -> Target {
        let Some(cluster) = self.cluster.as_ref().filter(|cluster| !cluster.deleting) else {
            return Target::Missing;
        };
        Target::Holds {
            held: cluster.token().as_ref().map(known),
            mark: self.mark(run),
            writer: writer(cluster),
        }
    }

    /// What this run has left on the cluster Secret.
    fn mark(&self, run: Option<&str>) -> Option<view::Mark> {
        let cluster = self.cluster.as_ref()?;
        let leg = cluster.annotations.get(MARK).and_then(|mark| Leg::in_mark(mark, run))?;
        let left = self.left();
        Some(view::Mark {
            leg,
            user: left.as_ref().map(|left| left.user.clone()).unwrap_or_default(),
            keep_old: left.as_ref().is_none_or(|left| left.keep_old),
            placed: left.as_ref().map(|left| left.placed.clone()).unwrap_or_default(),
            used_before: left.as_ref().and_then(|left| left.used_before.clone()),
            old: left.map(|left| left.old),
        })
    }

    /// What is left there, of whatever run.
    pub(super) fn left(&self) -> Option<Left> {
        let text = self.cluster.as_ref()?.annotations.get(LEFT)?;
        serde_json::from_str(text).ok()
    }

    fn minted(
        &self,
        run: Option<&str>,
        now: Timestamp,
        in_hand: &BTreeMap<TokenName, Secret>,
    ) -> BTreeMap<Name, Minted> {
        let by_name: BTreeMap<TokenName, Secret> = self
            .values()
            .filter_map(|value| Some((Credential::of(&value).api_token()?.clone(), value)))
            .collect();
        let minted = |token: &ApiToken| {
            let value = by_name.get(&token.name).or_else(|| in_hand.get(&token.name));
            let mark = mark::of_ours(token, self.identity.as_deref(), value.is_some())?;
            let minted = Minted {
                life: life(token, now),
                value: value.map(Secret::fingerprint),
                replaces: mark.replaces.map(Name),
                used: token.last_used.map(|at| at.to_string()),
            };
            let is_of_run = Some(mark.run.as_str()) == run && mark.subject == self.subject;
            is_of_run.then(|| (Name(token.name.to_string()), minted))
        };
        self.tokens.iter().filter_map(minted).collect()
    }
}

/// Who wrote the config last. Argo CD writes the Secret from its copy whenever it invalidates a cache; where it applies the
/// Secret as part of an Application, it is another writer like any other.
fn writer(cluster: &ClusterSecret) -> Writer {
    let of_application = matches!(cluster.owner(), Some(Owner::ArgocdApplication(_)));
    match cluster.config_writer("") {
        Some(writer) if writer.manager == TOOL => Writer::Ours,
        Some(writer) if !of_application && ARGOCD_ITSELF.contains(&writer.manager.as_str()) => Writer::ArgoCd,
        Some(writer) => Writer::Other(writer.to_string()),
        None => Writer::Ours,
    }
}

/// A value by its name and fingerprint.
pub(super) fn known(value: &Secret) -> Known {
    Known {
        name: Credential::of(value).api_token().map(|name| Name(name.to_string())),
        value: value.fingerprint(),
    }
}

/// By what Rancher says of it, and the clock of Argo CD's API server: those of two servers differ by less than the margin.
fn life(token: &ApiToken, now: Timestamp) -> Life {
    let soon = now.saturating_add(NEAR).unwrap_or(Timestamp::MAX);
    if !token.is_alive(now) {
        Life::Dead
    } else if token.is_alive(soon) {
        Life::Sound
    } else {
        Life::Ending
    }
}
