//! Everything that is read in one look, with the values and versions that writes need.

use std::collections::BTreeMap;

use ::rotation::protocol::Run;
use argocd::ClusterSecret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kubectl_core::secret::Secret;
use rancher::api_token::{ApiToken, Credential, Mark, TokenName};

use crate::mark::TOOL;
use crate::parked;
use crate::rotation::ArgocdRancher;
use crate::rotation::view::{Answer, Known, Leg, Life, Minted, Name, Parked, Target, View};

/// On the cluster Secret: the run that wrote it, and the leg of its way.
pub(super) const MARK: &str = "kubectl-rotation.github.io/argocd-rancher";

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
        let own = self.parked.as_ref().filter(|parked| Some(&parked.run) == id.as_ref());
        View {
            obstacles: Vec::new(),
            user: self.user.clone(),
            parked: own.map(|parked| Parked {
                old: parked.old.as_ref().map(Secret::fingerprint),
                new: parked.new.as_ref().map(Secret::fingerprint),
            }),
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
            leg: cluster
                .annotations
                .get(MARK)
                .and_then(|mark| Leg::in_mark(mark, run))
                .unwrap_or(Leg::Forward),
        }
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
        let of_run = |token: &&ApiToken| {
            let mark = Mark::read(&token.description);
            mark.is_some_and(|mark| mark.by == TOOL && Some(mark.run.as_str()) == run && mark.subject == self.subject)
        };
        let minted = |token: &ApiToken| {
            let value = by_name.get(&token.name).or_else(|| in_hand.get(&token.name));
            let minted = Minted {
                life: life(token, now),
                value: value.map(Secret::fingerprint),
                used: token.last_used.map(|at| at.to_string()),
            };
            (Name(token.name.to_string()), minted)
        };
        self.tokens.iter().filter(of_run).map(minted).collect()
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
