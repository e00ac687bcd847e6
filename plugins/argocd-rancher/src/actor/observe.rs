//! Calls with the tokens themselves, as Argo CD would make them: when they are made, and what is read from the answers.
//!
//! With the new token nobody but Argo CD calls once it is in the cluster Secret, until the grace time is over: Rancher notes the
//! last use of a token, and a call of ours would hide what is to be seen.

use ::rotation::phase::Phase;
use ::rotation::protocol::Run;
use argocd::{ClusterConfig, ClusterSecret};
use futures::future::try_join_all;
use kubectl_core::error::Error;
use kubectl_core::secret::{Fingerprint, Secret};
use rancher::api_token::proof::Standing;
use tokio::time::Instant;

use super::snapshot::Snapshot;
use super::{Check, ClusterActor, FRESH, Surveyed};
use crate::proof::{Patience, Proofs, Trial};
use crate::rotation::view::{Answer, Leg, View};
use crate::rotation::{ArgocdRancher, Timer, leg};

/// How many connections a token is sent over that must be refused: behind a load balancer each replica of Rancher learns of a
/// deletion by itself.
const LOOKS: usize = 3;

impl ClusterActor<'_> {
    /// Asks with the tokens whose life or death matters now; in the first look with the old one, for the plan's sake.
    pub(super) async fn ask(
        &self,
        view: &mut View,
        snapshot: &Snapshot,
        run: Option<&Run<ArgocdRancher>>,
    ) -> Result<(), Error> {
        let Some(cluster) = &snapshot.cluster else {
            // Without the Secret nobody knows how Argo CD trusts Rancher: as it was when the command began.
            return self.ask_with(view, self.cluster, run).await;
        };
        if run.is_none() {
            view.old_answer = self.survey_old(cluster).await?;
        }
        self.ask_with(view, cluster, run).await
    }

    async fn ask_with(
        &self,
        view: &mut View,
        cluster: &ClusterSecret,
        run: Option<&Run<ArgocdRancher>>,
    ) -> Result<(), Error> {
        let Some(run) = run else { return Ok(()) };
        let (leg, retired) = (leg(run), run.phase >= Phase::Retire);
        let first = self.state().snapshot.is_none();
        let old = run.notes.old.value;
        if leg == Leg::Back || first || retired && leg == Leg::Forward {
            let gone = retired && view.old.is_none();
            view.old_answer = self.ask_alone(cluster, old, gone).await?;
        }
        let unknown = retired && leg == Leg::Forward && !run.notes.keep_old && self.value(old).is_none();
        self.state().unproven = unknown.then_some(old);
        let Some(new) = &run.notes.new else { return Ok(()) };
        let is_listed = new.name.as_ref().is_some_and(|name| view.minted.contains_key(name));
        let is_used_by_others = view.target.holds(new.value) && !run.passed(Timer::Grace);
        view.new_answer = match leg {
            Leg::Back if retired => self.ask_alone(cluster, new.value, !is_listed).await?,
            Leg::Forward | Leg::Stay if is_listed && !is_used_by_others => self.prove(cluster, new.value).await?,
            _ => Answer::Unasked,
        };
        Ok(())
    }

    /// Before a rotation: everything that Argo CD does with the token.
    async fn survey_old(&self, cluster: &ClusterSecret) -> Result<Answer, Error> {
        let (Ok(config), Some(token)) = (&cluster.config, cluster.token()) else {
            return Ok(Answer::Unasked);
        };
        let value = token.fingerprint();
        let known = |surveyed: &Surveyed| surveyed.value == value && surveyed.at.elapsed() < FRESH;
        if !self.state().surveyed.as_ref().is_some_and(known) {
            let proofs = trial(cluster, config, &token)
                .run(self.argo(), Some(&self.fleet.rancher))
                .await?;
            let at = Instant::now();
            self.state().surveyed = Some(Surveyed { value, at, proofs });
        }
        let state = self.state();
        let alone = state.surveyed.as_ref().map(|surveyed| &surveyed.proofs.alone);
        Ok(alone.map(of_standing).unwrap_or_default())
    }

    /// Whether Rancher knows the token. Where it must not, every connection has to say so.
    async fn ask_alone(
        &self,
        cluster: &ClusterSecret,
        value: Fingerprint,
        must_be_dead: bool,
    ) -> Result<Answer, Error> {
        let (Ok(config), Some(token)) = (&cluster.config, self.value(value)) else {
            return Ok(Answer::Unasked);
        };
        let trial = trial(cluster, config, &token);
        let (argo, rancher) = (self.argo(), Some(&self.fleet.rancher));
        if !must_be_dead {
            return Ok(of_standing(&trial.alone(argo, rancher).await?));
        }
        let looks = (0..LOOKS).map(|_| trial.alone_anew(argo, rancher));
        let answers: Vec<Answer> = try_join_all(looks).await?.iter().map(of_standing).collect();
        let not_refused = answers.iter().find(|answer| **answer != Answer::Refused);
        Ok(not_refused.cloned().unwrap_or(Answer::Refused))
    }

    /// Whether the new token does all that Argo CD needs it for.
    async fn prove(&self, cluster: &ClusterSecret, value: Fingerprint) -> Result<Answer, Error> {
        let (Ok(config), Some(token)) = (&cluster.config, self.value(value)) else {
            return Ok(Answer::Unasked);
        };
        if let Some((at, answer)) = self.state().answered.get(&value)
            && at.elapsed() < FRESH
        {
            return Ok(answer.clone());
        }
        let config = config.clone().with_bearer(&token);
        let trial = trial(cluster, &config, &token);
        let proofs = trial.run(self.argo(), Some(&self.fleet.rancher)).await?;
        let now = Instant::now();
        let answer = self.of_proofs(&proofs);
        let mut state = self.state();
        state.called = now;
        // What Rancher has noted of this call is read before anything is concluded from the last use.
        state.rancher_since = now;
        if answer == Answer::Works {
            state.answered.insert(value, (now, answer.clone()));
        }
        Ok(answer)
    }

    fn of_proofs(&self, proofs: &Proofs) -> Answer {
        if proofs.are_good() || self.forgives(proofs) {
            Answer::Works
        } else if proofs.alone.is_dead() {
            Answer::Refused
        } else {
            Answer::Open(proofs.against())
        }
    }

    pub(super) fn forgives(&self, proofs: &Proofs) -> bool {
        let forced = |check| self.options.forced.contains(&check);
        forced(Check::Offline) && proofs.lack_the_cluster_only() || forced(Check::Rights) && proofs.lack_rights_only()
    }
}

fn trial<'a>(cluster: &'a ClusterSecret, config: &'a ClusterConfig, token: &'a Secret) -> Trial<'a> {
    Trial {
        patience: Patience::SHORT,
        ..Trial::of(cluster, config, token)
    }
}

fn of_standing(standing: &Standing) -> Answer {
    if standing.is_dead() {
        Answer::Refused
    } else if standing.is_alive() {
        Answer::Works
    } else {
        Answer::Open(standing.to_string())
    }
}
