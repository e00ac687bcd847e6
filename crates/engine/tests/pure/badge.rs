//! The smallest rotation that is still a real one: an issuer accepts badges, and a consumer wears one of them.
//!
//! O is the badge that the consumer wears at the start, N the one that the run issues. Both sides are slow: the issuer reads its
//! list some time after it has changed, and the consumer uses the badge that it has loaded until it loads another. The consumer
//! keeps access at every moment, because the issuer accepts both badges from *make* to *retire*, and *retire* needs a call that
//! the consumer has made with the badge that it keeps.
//!
//! This half is pure. `tests/e2e/tests/engine` carries it out on a real API server.

use std::collections::BTreeSet;
use std::fmt;

use client::secret::Fingerprint;
use engine::direction::Direction;
use engine::phase::Phase;
use engine::rotation::{Blocker, Check, Credentials, Look, Next, Proof, Rotation, Timer};
use engine::run::{Draw, Run};
use serde::{Deserialize, Serialize};

/// The rotation of a badge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Badge;

/// What a consumer wears: a badge, and the mark of the step that handed it out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Worn {
    pub(crate) badge: Fingerprint,
    pub(crate) mark: Option<String>,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Observed {
    /// The issuer's list.
    pub(crate) issued: BTreeSet<Fingerprint>,
    /// What the issuer accepts. It follows the list.
    pub(crate) accepted: BTreeSet<Fingerprint>,
    /// What the consumer was handed last.
    pub(crate) handed: Option<Worn>,
    /// The last call of the consumer that the issuer accepted.
    pub(crate) called: Option<Worn>,
    /// An admin has closed the issuer.
    pub(crate) closed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) old: Fingerprint,
    pub(crate) new: Option<Fingerprint>,
    /// Of the step that was intended last to hand a badge out; the one before the run while there was none.
    pub(crate) mark: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Issue,
    Hand { badge: Fingerprint },
    Revoke { badge: Fingerprint },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issue => f.write_str("issue a new badge"),
            Self::Hand { badge } => write!(f, "hand {badge} to the consumer"),
            Self::Revoke { badge } => write!(f, "revoke {badge}"),
        }
    }
}

/// Why *make* is passed.
pub(crate) enum Made {
    /// The badge that the direction asks for is on the list, and the issuer accepts it.
    Accepted(Fingerprint),
}

/// Why *place* is passed.
pub(crate) enum Placed {
    /// The consumer was handed this badge by this run, or wears it since before the run.
    Handed(Fingerprint),
}

/// Why *prove* is passed.
pub(crate) enum Proven {
    /// The consumer has called with the badge that it was handed. The other one may be revoked.
    Called,
}

/// Why *retire* is passed.
pub(crate) enum Retired {
    /// This badge is not on the list any more: it must be rejected.
    Revoked(Fingerprint),
    /// A rollback before the new badge was drawn: there is no other one.
    NeverDrawn,
}

impl Rotation for Badge {
    const KIND: &'static str = "badge";
    const FIELD_MANAGER: &'static str = "engine-test";
    const QUIET_FLAG: &'static str = "settle";
    const CHECKS: &'static [Check] = &[];

    type Observed = Observed;
    type Record = Record;
    type Step = Step;
    type Made = Made;
    type Placed = Placed;
    type Proven = Proven;
    type Retired = Retired;

    fn survey(seen: &Observed) -> Result<Record, Vec<Blocker>> {
        let blocked = |reason: &str, hint: &str| Err(vec![Blocker::new(reason, hint)]);
        match &seen.handed {
            _ if seen.closed => blocked("the issuer is closed", "open it"),
            Some(worn) if seen.accepted == [worn.badge].into() => Ok(Record {
                old: worn.badge,
                new: None,
                mark: worn.mark.clone(),
            }),
            Some(worn) if seen.accepted.contains(&worn.badge) => {
                blocked("the issuer accepts a badge that no consumer wears", "revoke it")
            }
            _ => blocked("the consumer wears no badge that the issuer accepts", "hand it one"),
        }
    }

    fn guard(_: Look<'_, Self>) -> Result<(), Next<Self>> {
        Ok(())
    }

    /// The issuer accepts the badge that the direction asks for. The value of the old badge is kept nowhere, so it cannot be
    /// issued again.
    ///
    /// | if | then |
    /// |---|---|
    /// | in a rollback, the old badge is not on the issuer's list | refuse |
    /// | the new badge is not on the issuer's list | issue a new badge |
    /// | the issuer does not accept the badge yet | wait |
    fn make(look: Look<'_, Self>) -> Result<Made, Next<Self>> {
        let target = match look.direction() {
            Direction::Rollback => Some(look.record().old),
            Direction::Forward | Direction::RollForward => look.record().new,
        };
        let Some(target) = target.filter(|target| look.seen.issued.contains(target)) else {
            return Err(if look.direction().is_rollback() {
                Next::refuse("the old badge is not on the issuer's list", "hand out another badge")
            } else {
                Next::step(Step::Issue).starting(Timer::Proof)
            });
        };
        if !look.seen.accepted.contains(&target) {
            return Err(look.wait(format!("the issuer to accept {target}")));
        }
        Ok(Made::Accepted(target))
    }

    /// The consumer was handed the badge. A rollback hands the old badge out again even if it never changed: a step of a former
    /// holder that arrives later then finds another version and is rejected.
    ///
    /// | if | then |
    /// |---|---|
    /// | the consumer was handed another badge, or by another step | hand the badge to the consumer |
    /// | in a rollback, a new badge was drawn and none handed out | hand the badge to the consumer |
    fn place<'look>(look: Look<'look, Self>, made: &Proof<'look, Made>) -> Result<Placed, Next<Self>> {
        let Made::Accepted(badge) = **made;
        let handed = Worn {
            badge,
            mark: look.record().mark.clone(),
        };
        let is_fenced =
            !look.direction().is_rollback() || look.record().new.is_none() || look.run.phase >= Phase::Place;
        if look.seen.handed.as_ref() != Some(&handed) || !is_fenced {
            return Err(Next::step(Step::Hand { badge }));
        }
        Ok(Placed::Handed(badge))
    }

    /// The issuer has accepted a call of the consumer with the badge.
    ///
    /// | if | then |
    /// |---|---|
    /// | the last accepted call was not made with what the consumer was handed | wait |
    fn prove<'look>(look: Look<'look, Self>, placed: &Proof<'look, Placed>) -> Result<Proven, Next<Self>> {
        let Placed::Handed(badge) = **placed;
        if look.seen.called != look.seen.handed {
            return Err(look.wait(format!("a call with {badge}")));
        }
        Ok(Proven::Called)
    }

    /// The other badge is off the issuer's list.
    ///
    /// | if | then |
    /// |---|---|
    /// | the other badge is on the issuer's list | revoke it |
    fn retire<'look>(look: Look<'look, Self>, proven: &Proof<'look, Proven>) -> Result<Retired, Next<Self>> {
        let Proven::Called = **proven;
        let Some(badge) = other(look) else {
            return Ok(Retired::NeverDrawn);
        };
        if look.seen.issued.contains(&badge) {
            return Err(Next::step(Step::Revoke { badge }));
        }
        Ok(Retired::Revoked(badge))
    }

    /// The issuer rejects the other badge.
    ///
    /// | if | then |
    /// |---|---|
    /// | the issuer still accepts the other badge | wait |
    fn confirm<'look>(look: Look<'look, Self>, retired: &Proof<'look, Retired>) -> Result<(), Next<Self>> {
        match **retired {
            Retired::Revoked(badge) if look.seen.accepted.contains(&badge) => {
                Err(Next::wait(format!("the issuer to reject {badge}")))
            }
            Retired::Revoked(_) | Retired::NeverDrawn => Ok(()),
        }
    }

    fn is_restorable(look: Look<'_, Self>) -> bool {
        look.seen.issued.contains(&look.record().old)
    }

    fn takes_away(look: Look<'_, Self>) -> bool {
        other(look).is_some_and(|badge| look.seen.issued.contains(&badge))
    }

    /// No test of this rotation forges a journal, and its objects carry no marks.
    fn recall(_: &Observed, claimed: &Run<Self>) -> Option<Record> {
        Some(claimed.record.clone())
    }

    fn intend(step: &Step, run: &Run<Self>, draw: &mut dyn Draw) -> Record {
        let mut record = run.record.clone();
        match step {
            Step::Issue => record.new = Some(draw.credential()),
            Step::Hand { .. } => record.mark = Some(draw.mark()),
            Step::Revoke { .. } => {}
        }
        record
    }

    fn predict(seen: &mut Observed, run: &Run<Self>, step: &Step) {
        match step {
            Step::Issue => seen.issued.extend(run.record.new),
            Step::Hand { badge } => {
                seen.handed = Some(Worn {
                    badge: *badge,
                    mark: run.record.mark.clone(),
                });
            }
            Step::Revoke { badge } => {
                seen.issued.remove(badge);
            }
        }
    }

    fn settle(seen: &mut Observed, _: &Run<Self>) {
        seen.accepted.clone_from(&seen.issued);
        seen.called.clone_from(&seen.handed);
    }

    fn credentials(record: &Record) -> Credentials {
        Credentials {
            old: record.old,
            new: record.new,
        }
    }

    fn start(_: &Observed, record: &Record) -> String {
        format!("the consumer wears {}", record.old)
    }
}

/// The badge that the run does not end on, once it is drawn.
fn other(look: Look<'_, Badge>) -> Option<Fingerprint> {
    match look.direction() {
        Direction::Forward | Direction::RollForward => Some(look.record().old),
        Direction::Rollback => look.record().new,
    }
}
