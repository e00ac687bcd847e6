//! Mutants of the rotation. The model checker must find each of them.
//!
//! A mutant makes the real decision from a changed observation, as a rotation without that check would.

use engine::credential::{Acceptance, Validity};
use engine::direction::Direction;
use engine::rotation::{Decision, Next, Repeats, Timer, decide};
use kubectl_bootstrap_token::rotation::BootstrapToken;
use kubectl_bootstrap_token::rotation::observed::{Delivery, Observed};
use kubectl_bootstrap_token::rotation::record::{Record, TokenRef};

use crate::environment::{Run, holds, old};

/// One mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// N is delivered before the API server accepts it.
    NotAccepted,
    /// O is deleted before N is delivered.
    NotDelivered,
    /// There is no overlap.
    NoOverlap,
    /// In a rollback N is deleted before O is delivered.
    RevokesTooEarly,
    /// A value that is neither O nor N is overwritten.
    Overwrites,
    /// N is not checked after it was delivered.
    NoProof,
    /// In a rollback a delivery that holds O is not fenced, so that a late delivery matches it.
    NoFence,
    /// In a rollback it is not checked whether O is still valid.
    ExpiredOld,
    /// A run that rolls forward does not fence N, so that a late deletion matches it.
    NoMark,
    /// N is delivered before cluster-info is signed with it.
    NotSigned,
    /// The result of one API server counts for all.
    OneServer,
    /// A token that is about to expire counts as valid.
    NoMargin,
    /// A token counts as rejected when its Secret is deleted.
    NoConfirmation,
    /// The run does not wait for the cache of an API server that is not probed.
    NoCache,
    /// A file on another host is abandoned without `--force=target`.
    Abandons,
    /// There is no overlap after a file is abandoned.
    NoOverlapAfterAbandoning,
    /// The overlap continues after another writer has written O back.
    KeepsQuiet,
    /// The login of the command is not checked.
    IgnoresLogin,
    /// The cluster is not checked after the rotation has begun.
    IgnoresCluster,
    /// A resumed run trusts the record in its journal.
    TrustsJournal,
    /// A resumed run trusts its journal that N was never delivered.
    TrustsDelivered,
    /// A resumed run trusts its journal that it rolls forward.
    TrustsDirection,
}

impl Mutant {
    /// The decision of this mutant, or of the real rotation.
    pub(crate) fn decide(mutant: Option<Self>, seen: &Observed, run: &Run) -> Decision<BootstrapToken> {
        let Some(mutant) = mutant else {
            return decide(seen, run);
        };
        let (mut seen, mut run) = (seen.clone(), run.clone());
        mutant.misread(&mut seen, &run);
        match mutant {
            Self::NoOverlap => drop(run.timers.insert(Timer::Quiet, true)),
            Self::NoOverlapAfterAbandoning if run.record.abandoned.is_some() => {
                run.timers.insert(Timer::Quiet, true);
            }
            Self::NoCache => drop(run.timers.insert(Timer::Cache, true)),
            _ => {}
        }
        let mut decision = decide(&seen, &run);
        if let (Self::KeepsQuiet, Next::Step(intent)) = (mutant, &mut decision.next)
            && matches!(intent.repeats, Repeats::Reapply(_))
        {
            intent.stops.clear();
        }
        decision
    }

    /// The run that this mutant, or the real rotation, resumes from a journal.
    pub(crate) fn recall(mutant: Option<Self>, seen: &Observed, claimed: Run) -> Option<Run> {
        let claim = claimed.clone();
        let resumed = claimed.resumed(seen);
        let timers = [].into();
        match mutant {
            Some(Self::TrustsJournal) => Some(Run { timers, ..claim }),
            Some(Self::TrustsDelivered) => resumed.map(|run| Run {
                record: Record {
                    delivered: claim.record.delivered,
                    ..run.record
                },
                ..run
            }),
            Some(Self::TrustsDirection) => resumed.map(|run| Run {
                direction: claim.direction,
                ..run
            }),
            _ => resumed,
        }
    }

    fn misread(self, seen: &mut Observed, run: &Run) {
        let back = run.direction.is_rollback();
        let new = run.record.new.as_ref().zip(seen.new.value());
        match self {
            Self::NotAccepted => seen.new.acceptance = Acceptance::Accepted,
            Self::NotDelivered if !back => {
                if let (Delivery::Holds { .. }, Some((new, value))) = (&seen.delivery, new) {
                    let id = new.id.clone();
                    seen.delivery = holds(TokenRef { id, value }, Acceptance::Accepted);
                }
            }
            Self::RevokesTooEarly if back => {
                seen.delivery = holds(old(), Acceptance::Accepted);
                fence(seen);
            }
            Self::Overwrites => {
                let foreign = match &seen.delivery {
                    Delivery::Missing => true,
                    Delivery::Holds { content, .. } => content.id.is_none(),
                    Delivery::None | Delivery::OtherHost => false,
                };
                if foreign {
                    seen.delivery = holds(old(), Acceptance::Accepted);
                }
            }
            Self::NoProof => {
                let id = run.record.new.as_ref().map(|new| &new.id);
                if let Delivery::Holds {
                    content, acceptance, ..
                } = &mut seen.delivery
                    && content.id.as_ref() == id
                    && let Some(secret) = &mut seen.new.secret
                {
                    secret.validity = Validity::Valid;
                    seen.new.acceptance = Acceptance::Accepted;
                    *acceptance = Acceptance::Accepted;
                }
            }
            Self::NoFence => fence(seen),
            Self::ExpiredOld if back => {
                if let Some(secret) = &mut seen.old.secret {
                    secret.validity = Validity::Valid;
                    seen.old.acceptance = Acceptance::Accepted;
                }
                if let Delivery::Holds {
                    content, acceptance, ..
                } = &mut seen.delivery
                    && content.value == old().value
                {
                    *acceptance = Acceptance::Accepted;
                }
            }
            Self::NoMark => {
                if let Some(secret) = &mut seen.new.secret {
                    secret.mark = Some(Direction::RollForward);
                }
            }
            Self::NotSigned => seen.new.signed = true,
            Self::Abandons => seen.lost = true,
            Self::IgnoresLogin => seen.login = None,
            Self::IgnoresCluster => seen.another_cluster = None,
            Self::NoConfirmation if seen.old.secret.is_none() => seen.old.acceptance = Acceptance::Rejected,
            Self::OneServer => {
                let delivery = match &mut seen.delivery {
                    Delivery::Holds { acceptance, .. } => Some(acceptance),
                    _ => None,
                };
                for acceptance in [&mut seen.new.acceptance].into_iter().chain(delivery) {
                    if acceptance.may_be_accepted() {
                        *acceptance = Acceptance::Accepted;
                    }
                }
            }
            Self::NoMargin => {
                for secret in [&mut seen.old.secret, &mut seen.new.secret].into_iter().flatten() {
                    if secret.validity == Validity::Expiring {
                        secret.validity = Validity::Valid;
                    }
                }
            }
            _ => {}
        }
    }
}

fn fence(seen: &mut Observed) {
    if let Delivery::Holds { mark, .. } = &mut seen.delivery {
        *mark = Some(Direction::RollForward);
    }
}
