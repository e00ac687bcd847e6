//! The smallest rotation that is still a real one: an issuer accepts badges, and a consumer wears one of them.
//!
//! Both sides are slow: the issuer takes notice of a change some time later, and the consumer goes on with the badge
//! that it has loaded until it looks again. So the order of the phases matters, and both proofs are real calls.
//!
//! This half is pure; `tests/e2e/tests/engine` carries it out on a real API server.

use std::collections::BTreeSet;
use std::fmt;

use client::secret::Fingerprint;
use engine::phase::{Goal, Phase};
use engine::protocol::{Draw, Next, Obstacle, Protocol, Run};
use serde::{Deserialize, Serialize};

/// The protocol. `Badge<false>` is the same with one mistake, for the exploration to find: it retires before it proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Badge<const CAREFUL: bool = true>;

/// What a consumer wears: a badge, and the mark of the write that handed it out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Worn {
    pub(crate) badge: Fingerprint,
    pub(crate) mark: Option<String>,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    /// What the issuer's list says.
    pub(crate) issued: BTreeSet<Fingerprint>,
    /// What the issuer really accepts; it follows the list.
    pub(crate) accepted: BTreeSet<Fingerprint>,
    /// What the consumer has been told to wear.
    pub(crate) handed: Option<Worn>,
    /// The last call of the consumer that the issuer accepted.
    pub(crate) called: Option<Worn>,
    /// An admin has closed the issuer.
    pub(crate) closed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Notes {
    pub(crate) old: Fingerprint,
    pub(crate) new: Option<Fingerprint>,
    /// Of the hand-out that was intended last; of the one before the run when there was none yet.
    pub(crate) mark: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Write {
    Issue,
    Hand { badge: Fingerprint },
    Revoke { badge: Fingerprint },
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issue => f.write_str("issue a new badge"),
            Self::Hand { badge } => write!(f, "hand {badge} to the consumer"),
            Self::Revoke { badge } => write!(f, "revoke {badge}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Timer {
    /// Until then the consumer must have called with the new badge.
    Proof,
}

impl<const CAREFUL: bool> Protocol for Badge<CAREFUL> {
    type View = View;
    type Notes = Notes;
    type Write = Write;
    type Timer = Timer;

    fn decide(view: &View, run: Option<&Run<Self>>) -> Next<Self> {
        let Some(run) = run else { return begin(view) };
        let (target, other) = match run.goal {
            Goal::Forward => (run.notes.new, Some(run.notes.old)),
            Goal::Back => (Some(run.notes.old), run.notes.new),
        };
        let late = if CAREFUL {
            prove(view, run, target).or_else(|| retire(view, other))
        } else {
            retire(view, other).or_else(|| prove(view, run, target))
        };
        make(view, run, target)
            .or_else(|| place(view, run, target))
            .or(late)
            .or_else(|| confirm(view, other))
            .unwrap_or(Next::Done)
    }

    /// Nothing in this test forges a journal, and its objects carry no marks.
    fn recall(_: &View, claimed: &Run<Self>) -> Option<Notes> {
        Some(claimed.notes.clone())
    }

    fn predict(view: &mut View, run: &Run<Self>, write: &Write) {
        match write {
            Write::Issue => view.issued.extend(run.notes.new),
            Write::Hand { badge } => {
                view.handed = Some(Worn {
                    badge: *badge,
                    mark: run.notes.mark.clone(),
                });
            }
            Write::Revoke { badge } => {
                view.issued.remove(badge);
            }
        }
    }

    fn rest(view: &mut View, _: &mut Run<Self>) {
        view.accepted.clone_from(&view.issued);
        view.called.clone_from(&view.handed);
    }

    fn intend(write: &Write, run: &Run<Self>, draw: &mut dyn Draw) -> Notes {
        let mut notes = run.notes.clone();
        match write {
            Write::Issue => notes.new = Some(draw.credential()),
            Write::Hand { .. } => notes.mark = Some(draw.mark()),
            Write::Revoke { .. } => {}
        }
        notes
    }
}

fn begin<P: Protocol<Notes = Notes>>(view: &View) -> Next<P> {
    let refuse = |reason: &str, hint: &str| {
        Next::Refuse(vec![Obstacle {
            check: None,
            reason: reason.to_owned(),
            hint: hint.to_owned(),
        }])
    };
    match &view.handed {
        _ if view.closed => refuse("the issuer is closed", "open it"),
        Some(worn) if view.accepted == [worn.badge].into() => Next::Begin(Notes {
            old: worn.badge,
            new: None,
            mark: worn.mark.clone(),
        }),
        Some(worn) if view.accepted.contains(&worn.badge) => {
            refuse("the issuer accepts a badge that nobody wears", "revoke it")
        }
        _ => refuse("the consumer wears no badge that the issuer accepts", "hand it one"),
    }
}

fn make<P: Protocol<Write = Write, Timer = Timer>>(
    view: &View,
    run: &Run<P>,
    target: Option<Fingerprint>,
) -> Option<Next<P>> {
    let issued = target.filter(|target| view.issued.contains(target));
    let Some(target) = issued else {
        // The old badge's value is in nobody's hand any more: nothing can bring it back.
        return Some(match run.goal {
            Goal::Forward => Next::write_and_start(Phase::Make, Write::Issue, [Timer::Proof]),
            Goal::Back => Next::Refuse(vec![Obstacle {
                check: None,
                reason: "the old badge is not on the issuer's list any more".to_owned(),
                hint: "go forward".to_owned(),
            }]),
        });
    };
    (!view.accepted.contains(&target)).then(|| Next::wait(Phase::Make, format!("the issuer to accept {target}")))
}

/// On the way back the badge is handed out again even if it never changed: a write of a former holder of the lock,
/// still under way, then finds another version and is refused.
fn place<P: Protocol<Write = Write, Notes = Notes>>(
    view: &View,
    run: &Run<P>,
    target: Option<Fingerprint>,
) -> Option<Next<P>> {
    let wanted = Worn {
        badge: target?,
        mark: run.notes.mark.clone(),
    };
    let untouched = run.goal == Goal::Back && run.notes.new.is_some() && run.phase < Phase::Place;
    (view.handed.as_ref() != Some(&wanted) || untouched)
        .then(|| Next::write(Phase::Place, Write::Hand { badge: wanted.badge }))
}

fn prove<P: Protocol<Timer = Timer>>(view: &View, run: &Run<P>, target: Option<Fingerprint>) -> Option<Next<P>> {
    let target = target?;
    if view.called == view.handed {
        return None;
    }
    let late = run.goal == Goal::Forward && run.passed(Timer::Proof) && run.phase.may_be_undone();
    Some(if late {
        Next::TurnBack(format!("no call with {target} came in time"))
    } else {
        let wait = Next::wait(Phase::Prove, format!("a call with {target}"));
        if run.goal == Goal::Forward {
            wait.and_start(Timer::Proof)
        } else {
            wait
        }
    })
}

fn retire<P: Protocol<Write = Write>>(view: &View, other: Option<Fingerprint>) -> Option<Next<P>> {
    let badge = other.filter(|other| view.issued.contains(other))?;
    Some(Next::write(Phase::Retire, Write::Revoke { badge }))
}

fn confirm<P: Protocol>(view: &View, other: Option<Fingerprint>) -> Option<Next<P>> {
    let badge = other.filter(|other| view.accepted.contains(other))?;
    Some(Next::wait(Phase::Confirm, format!("the issuer to refuse {badge}")))
}
