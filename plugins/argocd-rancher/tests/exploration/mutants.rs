//! Mistakes in the stages. The exploration must find each, or it proves nothing.
//!
//! Each is the real decision on a false input: it then does what one would do that did not check.

use engine::credential::{Acceptance, Validity};
use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Decision, Next, Timer, decide};
use kubectl_argocd_rancher::rotation::ArgocdRancher;
use kubectl_argocd_rancher::rotation::observed::{Backup, ClusterSync, Observed, RunMark, SecretState, TokenRef};
use kubectl_argocd_rancher::rotation::step::Step;

use crate::environment::{Run, foreign, held, old, token};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The real rotation.
    None,
    /// N is placed before Rancher accepts it.
    PlacesUnaccepted,
    /// A call without a clear result counts as accepted.
    UnknownIsAccepted,
    /// N is placed before anything is backed up.
    NoBackup,
    /// O is revoked before N is placed.
    RevokesBeforePlace,
    /// The grace time is not waited for.
    NoGrace,
    /// The grace time is not restarted when T is written again.
    GraceGoesOn,
    /// Once N is placed, the Secret is not read again.
    SecretNotReread,
    /// Argo CD's use of N is not waited for.
    UseNotAwaited,
    /// Our own call counts as Argo CD's.
    OwnCallCounts,
    /// In a rollback a Secret that holds O already is not fenced, so that a late write still fits it.
    NoFence,
    /// In a rollback it is not checked whether O is still valid.
    RestoresInvalidOld,
    /// A token that was about to be revoked is relied on again.
    ReliesOnRevoked,
    /// A foreign token is overwritten.
    OverwritesForeign,
    /// A token that is about to expire counts as valid.
    NoExpiryMargin,
    /// A token counts as rejected as soon as it is not listed.
    NoConfirmation,
    /// The backup is deleted once N is placed.
    DeletesBackupEarly,
    /// Once N is placed, its value is not backed up again.
    NotBackedUpAgain,
    /// A run is resumed by another user than the one who began it.
    AnyUser,
    /// A new token that Argo CD may have is revoked when its value is lost.
    RevokesPlaced,
    /// The token of another user is revoked.
    RevokesForeign,
    /// What the Lease claims is trusted.
    TrustsJournal,
    /// Another Rancher is changed than the one of the cluster Secret.
    AnyRancher,
    /// Any client's call with N counts as Argo CD's.
    AnyUseCounts,
    /// It is not checked whether Argo CD can work with N.
    IgnoresFailedSync,
    /// A token is revoked that was put into another Secret meanwhile.
    RevokesShared,
}

impl Mutant {
    pub(crate) fn decide(self, mut seen: Observed, real: &Run) -> Decision<ArgocdRancher> {
        let mut run = real.clone();
        self.misread(&mut seen, &run);
        self.misremember(&mut run);
        if self == Self::DeletesBackupEarly && places_new(&seen, &run) && seen.backup.is_some() {
            return Decision {
                phase: Phase::Place,
                next: Next::step(Step::DeleteBackup),
            };
        }
        let mut decision = decide(&seen, &run);
        if let (Self::GraceGoesOn, Next::Step(intent)) = (self, &mut decision.next) {
            intent.stops.clear();
        }
        decision
    }

    pub(crate) fn recall(self, seen: &Observed, mut claimed: Run) -> Option<Run> {
        if self == Self::TrustsJournal {
            claimed.timers.clear();
            return Some(claimed);
        }
        claimed.resumed(seen)
    }

    fn misread(self, seen: &mut Observed, run: &Run) {
        let forward = run.direction == Direction::Forward;
        let new = run.record.new.clone();
        let was_placed = !run.record.placed.is_empty();
        match self {
            Self::PlacesUnaccepted => seen.new_accepted = Acceptance::Accepted,
            Self::NoGrace if was_placed => seen.new_accepted = Acceptance::Accepted,
            Self::UnknownIsAccepted if matches!(seen.new_accepted, Acceptance::Unknown(_)) => {
                seen.new_accepted = Acceptance::Accepted;
            }
            Self::NoBackup => {
                seen.backup = Some(Backup {
                    old: Some(token(old())),
                    new,
                    ..Backup::default()
                });
            }
            Self::NotBackedUpAgain if run.phase < Phase::Confirm && places_new(seen, run) => {
                seen.backup.get_or_insert_default().new = new;
            }
            Self::RevokesBeforePlace if forward && new.is_some() => hold(seen, new),
            Self::SecretNotReread if forward && was_placed => hold(seen, new),
            Self::UseNotAwaited => seen.watched = false,
            Self::OwnCallCounts => seen.own_calls_recorded = true,
            Self::NoFence => {
                if let SecretState::Holds { mark, .. } = &mut seen.secret {
                    *mark = Some(RunMark {
                        direction: Direction::RollForward,
                        details: None,
                    });
                }
            }
            Self::RestoresInvalidOld if !forward => {
                seen.old = Some(Validity::Valid);
                seen.old_accepted = Acceptance::Accepted;
            }
            Self::OverwritesForeign if held(seen).is_none_or(|value| value == foreign()) => {
                hold(seen, Some(token(old())));
            }
            Self::NoExpiryMargin => {
                let all = seen.issued.values_mut().map(|issued| &mut issued.validity);
                for validity in all.chain(&mut seen.old).filter(|it| **it == Validity::Expiring) {
                    *validity = Validity::Valid;
                }
            }
            Self::NoConfirmation if seen.old.is_none() => seen.old_accepted = Acceptance::Rejected,
            Self::RevokesForeign => seen.old = Some(Validity::Valid),
            Self::AnyRancher => seen.same_rancher = true,
            Self::AnyUser => seen.user.clone_from(&run.record.user),
            Self::AnyUseCounts => seen.sync = ClusterSync::Since,
            Self::IgnoresFailedSync if seen.sync == ClusterSync::Failed => seen.sync = ClusterSync::Since,
            Self::RevokesShared => seen.old_needed_by = None,
            _ => {}
        }
    }

    fn misremember(self, run: &mut Run) {
        match self {
            Self::NoGrace => {
                run.timers.insert(Timer::Quiet, true);
            }
            Self::ReliesOnRevoked => run.record.revoked.clear(),
            Self::RevokesPlaced => run.record.placed.clear(),
            Self::RevokesForeign => run.record.keep_old = false,
            _ => {}
        }
    }
}

fn hold(seen: &mut Observed, token: Option<TokenRef>) {
    if let SecretState::Holds { held, .. } = &mut seen.secret {
        *held = token;
    }
}

fn places_new(seen: &Observed, run: &Run) -> bool {
    run.record.new.as_ref().is_some_and(|new| seen.secret.holds(new.value))
}
