//! The next safe step of a rotation of a bootstrap token. **All of its safety is in this file.**
//!
//! There are two tokens: O, which is rotated, and N, the new one. A rotation leads from O to N; a rollback leads back. So there
//! is one road, *toward* a token T and away from the other one X, and it is walked from wherever the world is found to be:
//!
//! | # | if | then | phase |
//! |---|---|---|---|
//! | 0 | the target is a file on another host | **leave everything as it is**; or, told that it is lost, leave *it* behind | – |
//! | 1 | T is N, and there is no Secret with its id; or that is somebody else's | create it; draw another id | make |
//! | 2 | T is N, and its Secret lost its value, is about to expire, or breaks a rule | delete it; put it right | make |
//! | 3 | T is O, and O is not good for as long as any write may take | there is no way back: keep N (below) | make |
//! | 4 | the API server does not accept T yet | wait | make |
//! | 5 | T is N, O is signed in cluster-info and N is not | wait; then touch N | make |
//! | 6 | the target holds X, or a former value of N | give it T | place |
//! | 7 | the target holds what is neither O nor N, or is gone | **leave it**: refuse, or go on where nothing depends on it | place |
//! | 8 | the API server does not accept what is read back from the target; or as 5 | wait | prove |
//! | 9 | the overlap since T was placed has not passed | wait: a node may have read X just before | prove |
//! | 10 | X has a Secret | delete it. **The only step that breaks anything** | retire |
//! | 11 | the API server accepts X still, and can be asked | wait | confirm |
//!
//! Why nobody is left at the door, whatever happens between two lines:
//! * Lines 1–9 take nothing away: O and N are both there, and the target names one that the API server accepts (4 before 6).
//! * Line 10 is reached only when, *in one and the same observation*, T's Secret is there with T's value, within its rules and
//!   not about to expire (1–3), the API server accepts T (4), and what is read from the target is T, which is accepted (6, 8).
//! * The road is walked from the top each time. If N is revoked, changed or expires meanwhile, or O is put into the target
//!   again, the same line puts it right; and whoever read the other token in between gets the whole overlap (9).
//! * If the target holds X again after T was delivered, another writer has put it there: the overlap begins anew each time (6),
//!   and the third time turns back while that is possible. After line 10 T is delivered again, and an O that is created again is
//!   deleted again; it is done only after a whole overlap without a disturbance.
//! * Before line 0 it is asked at every look whether everything belongs to this cluster, and whether X is the token that the
//!   command itself logs in with. Then nothing is written.
//! * A value that is neither O nor N is never overwritten (7): whoever put it there may know of consumers that we do not.
//!   While everything can be undone we stop and say so; the way back leaves it where it is, since nothing that the way back
//!   takes away is named there. After O is gone there is nothing left to do to the target.
//! * The goal may change at any time before line 10. On the way back a target that holds O already is written once more: that
//!   gives it a new version, so that a delivery of N which a former holder of the lock decided on before does not fit any
//!   more when it arrives after N is gone.
//! * What is in a file on another host cannot be known, so nothing is done that it may depend on (0). Only the user can know
//!   that nobody reads it any more. When he says so the road goes on as if nothing had ever been delivered, but for the
//!   overlap, which begins again. If he is wrong, whoever reads that file may be refused: that is what he is told.
//! * Time may cut off the way back: O expires, and the token cleaner deletes it. From then on N may be the only one that
//!   lives, and is never deleted: that is journaled, N is marked, so that a late deletion of it does not fit any more, and the
//!   road leads to N after all, without 9–11.
//!
//! A creation cannot be conditional on more than a free name. One that arrives late finds the name taken, since a run keeps
//! its id; if it arrives after the end of a rollback, a token is left over that nobody has and that expires by itself.

use engine::phase::Phase;
use engine::protocol::{Next, Obstacle, Run};

use super::view::{Answer, Doubt, Held, Id, Known, Leg, Notes, Side, Standing, Target, Token, View};
use super::write::{Shown, Which, Write};
use super::{BootstrapToken, Timer};

type Step = Next<BootstrapToken>;

/// See the module. The first line whose condition holds is the step.
pub fn decide(view: &View, run: Option<&Run<BootstrapToken>>) -> Step {
    let Some(run) = run else { return begin(view) };
    let road = Road { view, run };
    refused_always(view, road.goes())
        .or_else(|| road.another_place())
        .or_else(|| road.elsewhere())
        .or_else(|| road.unknown_delivery())
        .or_else(|| road.make())
        .or_else(|| road.place())
        .or_else(|| road.prove())
        .or_else(|| road.retire())
        .or_else(|| road.confirm())
        .unwrap_or(Next::Done)
}

/// Nothing is under way: refuse what is unsafe, else write down where we start from.
fn begin(view: &View) -> Step {
    let doubt = |doubt: Doubt| Next::Refuse(vec![doubt.obstacle(&view.id, view.place.as_ref())]);
    if let Some(refused) = refused_always(view, Some(&view.id)) {
        return refused;
    }
    if !view.obstacles.is_empty() {
        return Next::Refuse(view.obstacles.clone());
    }
    let Some(token) = &view.old.token else {
        return doubt(Doubt::Unknown);
    };
    let Some(value) = token.value else {
        return doubt(Doubt::NoValue);
    };
    if token.standing == Standing::Dead {
        return doubt(Doubt::CannotWork(vec!["it has expired, or breaks a rule".to_owned()]));
    }
    if view.old.answer != Answer::Accepted {
        return doubt(Doubt::NotAccepted);
    }
    match &view.target {
        Target::Nothing => {}
        Target::Holds { held, .. } if held.value == value => {}
        Target::Holds { held, .. } => return doubt(Doubt::TargetHoldsAnother { id: held.id.clone() }),
        Target::Missing => return doubt(Doubt::TargetMissing),
        Target::Unreachable => return doubt(Doubt::TargetElsewhere),
    }
    Next::Begin(Notes {
        old: Known {
            id: view.id.clone(),
            value,
        },
        new: None,
        place: view.place.clone(),
        left: None,
        delivered: false,
        placed: None,
        kept: false,
    })
}

/// What is asked at every look and in every direction; `goes`: the token that would be revoked.
fn refused_always(view: &View, goes: Option<&Id>) -> Option<Step> {
    if let Some(obstacle) = &view.another_cluster {
        return Some(Next::Refuse(vec![obstacle.clone()]));
    }
    let own = goes.filter(|goes| view.login.as_ref() == Some(*goes))?;
    Some(Next::Refuse(vec![Doubt::OwnLogin.obstacle(own, view.place.as_ref())]))
}

/// The way of a run, from where the world is found to be.
struct Road<'a> {
    view: &'a View,
    run: &'a Run<BootstrapToken>,
}

/// A token with its name.
type Named<'a> = (Which, &'a Id, &'a Side);

impl<'a> Road<'a> {
    fn leg(&self) -> Leg {
        leg(self.run)
    }

    /// T: the token that the run shall end on.
    fn target(&self) -> Which {
        if self.leg() == Leg::Back {
            Which::Old
        } else {
            Which::New
        }
    }

    /// The id of X, while X is there.
    fn goes(&self) -> Option<&'a Id> {
        match self.leg() {
            Leg::Forward => Some(&self.old().id).filter(|_| self.view.old.holds(self.old().value)),
            Leg::Back => self.new_id().filter(|_| self.own().is_some()),
            Leg::Stay => None,
        }
    }

    fn old(&self) -> &'a Known {
        &self.run.notes.old
    }

    fn new_id(&self) -> Option<&'a Id> {
        self.run.notes.new.as_ref().map(|new| &new.id)
    }

    fn named(&self, which: Which) -> Option<Named<'a>> {
        match which {
            Which::Old => Some((which, &self.old().id, &self.view.old)),
            Which::New => self.new_id().map(|id| (which, id, &self.view.new)),
        }
    }

    /// The Secret with N's id, if this run made it: by its mark, or by the value that this process has drawn for it.
    fn own(&self) -> Option<&'a Token> {
        let drawn = self.run.notes.new.as_ref().map(|new| new.value);
        let token = self.view.new.token.as_ref()?;
        (token.mark.is_some() || token.value.is_some() && token.value == drawn).then_some(token)
    }

    /// `--deliver` names another place than the one that the run delivers to.
    fn another_place(&self) -> Option<Step> {
        let (asked, place) = (self.view.place.as_ref()?, self.run.notes.place.as_ref());
        if place == Some(asked) {
            return None;
        }
        let instead = place.map_or_else(|| "nothing".to_owned(), |place| format!("to {place}"));
        let reason = format!("the rotation in progress delivers {instead}, not to {asked}");
        Some(refuse(reason, "run the same command without --deliver".to_owned()))
    }

    /// Line 0: nothing is done about a file that cannot be seen from here, until the user has given it up.
    fn elsewhere(&self) -> Option<Step> {
        let notes = &self.run.notes;
        let place = notes
            .place
            .as_ref()
            .filter(|_| self.view.target == Target::Unreachable)?;
        if !self.view.lost {
            let mut elsewhere = Doubt::TargetElsewhere.obstacle(&notes.old.id, Some(place));
            elsewhere.hint += "; or, if that host is lost for good, add --force=target: the file stays as it is, and whoever \
                               reads it may find a token that is revoked";
            return Some(Next::Refuse(vec![elsewhere]));
        }
        let dies = match self.leg() {
            Leg::Forward | Leg::Stay => Some(notes.old.id.clone()),
            Leg::Back => self.new_id().filter(|_| notes.delivered).cloned(),
        };
        let (at, host) = (place.at.clone(), place.host().to_owned());
        // Whoever has read it up to now gets the whole overlap.
        let leave = Next::write(self.run.phase.max(Phase::Make), Write::Leave { at, host, dies });
        Some(leave.and_stop(Timer::Overlap))
    }

    /// Line 7, on a way back that another process began: the new token is gone, and its record with it.
    fn unknown_delivery(&self) -> Option<Step> {
        let notes = &self.run.notes;
        let at = &notes.place.as_ref()?.at;
        if self.leg() != Leg::Back || !notes.delivered || notes.new.is_some() {
            return None;
        }
        let what = match &self.view.target {
            Target::Holds { held, .. } if held.value != notes.old.value => "holds another token",
            Target::Missing => "is gone",
            _ => return None,
        };
        Some(refuse(
            format!("{at} {what}, and nothing shows any more what the rotation has delivered there"),
            "write a valid token there and run the same command again, or end the rollback with --force=journal"
                .to_owned(),
        ))
    }

    /// Lines 1–5: T is there, within its rules, and the API server accepts it.
    fn make(&self) -> Option<Step> {
        let step = match self.target() {
            Which::New => self.make_new(),
            Which::Old => self.way_back_is_cut_off(),
        };
        step.or_else(|| {
            let (_, id, side) = self.named(self.target())?;
            let accepted = side.answer == Answer::Accepted;
            (!accepted).then(|| self.wait(Phase::Make, format!("the API server to accept {}", Shown(id))))
        })
        // A target that names N already is better off with one that is not signed yet than with one that is gone.
        .or_else(|| if self.target_names_new() { None } else { self.sign() })
    }

    /// Lines 1 and 2.
    fn make_new(&self) -> Option<Step> {
        let (Some(id), Some(_)) = (self.new_id(), &self.view.new.token) else {
            return Some(self.create(self.new_id()));
        };
        let Some(token) = self.own() else {
            return Some(self.create(None));
        };
        let id = id.clone();
        if token.value.is_none() {
            return Some(Next::write(Phase::Make, Write::Clear { id }));
        }
        if self.leg() == Leg::Stay && token.mark != Some(Leg::Stay) {
            return Some(Next::write(Phase::Make, Write::GuardToken { id }));
        }
        match token.standing {
            Standing::Sound => None,
            // Nobody was refused, so that the overlap goes on: it may be longer than the time to live.
            Standing::Ending => Some(Next::write(Phase::Make, Write::Mend { id })),
            Standing::Dead => Some(self.puts_back(renewed(Write::Mend { id }), self.view.new.writer.as_deref())),
        }
    }

    fn create(&self, id: Option<&Id>) -> Step {
        renewed(Write::Create {
            id: id.cloned(),
            like: self.old().id.clone(),
        })
    }

    /// Line 3. Where N was never made, or is gone and nobody is pointed at it, there is nothing to keep either.
    fn way_back_is_cut_off(&self) -> Option<Step> {
        if self.view.old.is_sound(self.old().value) {
            return None;
        }
        let (id, lost) = (self.new_id().cloned(), self.old().id.clone());
        match id.filter(|_| self.own().is_some() || self.target_names_new()) {
            Some(id) => Some(Next::write(Phase::Make, Write::Keep { id, lost })),
            None => Some(self.confirm().unwrap_or(Next::Done)),
        }
    }

    /// Lines 5 and 8. Only a signature shows that the signer works, so O's is the measure. Where there is no way back any more
    /// a signer that is off must not keep N from where it is needed.
    fn sign(&self) -> Option<Step> {
        let lives = |token: &Token| token.value == Some(self.old().value) && token.standing != Standing::Dead;
        let old_is_signed = self.view.old.signed && self.view.old.token.as_ref().is_some_and(lives);
        let undoable = self.leg() == Leg::Forward && self.run.phase.may_be_undone();
        let id = self.new_id()?;
        if !undoable || !old_is_signed || self.view.new.signed {
            return None;
        }
        let phase = self.run.phase.max(Phase::Make);
        let wait = self.wait(phase, format!("cluster-info to be signed with {}", Shown(id)));
        Some(match wait {
            Next::Wait(_) if self.run.passed(Timer::Touch) => {
                Next::write_and_start(phase, Write::Touch { id: id.clone() }, [Timer::Touch])
            }
            wait => wait.and_start(Timer::Touch),
        })
    }

    /// Lines 6 and 7: the target holds T, or what is there is no business of ours any more.
    fn place(&self) -> Option<Step> {
        let (which, id, side) = self.named(self.target())?;
        let value = side.token.as_ref()?.value?;
        let at = self.run.notes.place.as_ref()?.at.clone();
        match &self.view.target {
            Target::Nothing => None,
            Target::Holds { held, leg, .. } if held.value == value => {
                let is_file = self.run.notes.place.as_ref().is_some_and(|place| place.host.is_some());
                let guarded = is_file || *leg >= self.guarded_from();
                (!guarded).then(|| Next::write(Phase::Place, Write::GuardTarget { at }))
            }
            Target::Holds { held, writer, .. } if self.is_of_this_run(held) => {
                let names_other = held.value == self.old().value || which == Which::Old;
                let id = id.clone();
                let deliver =
                    Next::write(Phase::Place, Write::Deliver { which, id, value, at }).and_stop(Timer::Overlap);
                // What this run has delivered was written over: whoever has read that gets the whole overlap again. Nothing is
                // retired before T is delivered.
                let retires = self.leg() != Leg::Stay && !self.run.phase.may_be_undone();
                let was_placed = retires || self.run.notes.placed == Some(which);
                Some(if names_other && was_placed {
                    self.puts_back(deliver, writer.as_deref())
                } else {
                    deliver
                })
            }
            Target::Holds { .. } | Target::Missing | Target::Unreachable => self.leave_alone(id, &at),
        }
    }

    /// A step that undoes the write of another writer. The third one turns back, while there is a way back.
    fn puts_back(&self, step: Step, writer: Option<&str>) -> Step {
        let undoable = self.run.phase.may_be_undone() && self.view.old.is_sound(self.old().value);
        let may_turn = self.leg() == Leg::Forward && undoable;
        step.putting_back(self.run, may_turn, writer.unwrap_or("another process"))
    }

    /// The mark that a target must carry so that no write which was decided on before this leg fits it.
    fn guarded_from(&self) -> Option<Leg> {
        match self.leg() {
            Leg::Forward => None,
            Leg::Back if !self.run.notes.delivered => None,
            leg => Some(leg),
        }
    }

    /// O, N, or a former value of N: ours to replace.
    fn is_of_this_run(&self, held: &Held) -> bool {
        held.value == self.old().value || self.is_new(held)
    }

    /// Also where N's Secret is gone. One that this run did not make is somebody else's, whatever its id.
    fn is_new(&self, held: &Held) -> bool {
        let not_theirs = self.view.new.token.is_none() || self.own().is_some();
        held.id.is_some() && held.id.as_ref() == self.new_id() && not_theirs
    }

    fn target_names_new(&self) -> bool {
        matches!(&self.view.target, Target::Holds { held, .. } if self.is_new(held))
    }

    /// Line 7.
    fn leave_alone(&self, new: &Id, at: &str) -> Option<Step> {
        let undoable = self.run.phase.may_be_undone();
        let old_is_there = self.view.old.holds(self.old().value);
        if self.leg() != Leg::Forward || !(undoable || old_is_there) {
            return None;
        }
        let (old, new) = (Shown(&self.old().id), Shown(new));
        let what = match &self.view.target {
            Target::Holds { .. } => format!("{at} was changed by somebody else: it holds neither {old} nor {new}"),
            _ => format!("{at} is gone"),
        };
        let out = if undoable {
            "`kubectl bootstrap-token rollback`, which leaves it as it is".to_owned()
        } else {
            format!("revoke {old}, and run the same command again")
        };
        let old_is_good = self.view.old.is_sound(self.old().value);
        let good = if old_is_good { old } else { new };
        let hint = format!("write {good} there and run the same command again; or {out}");
        Some(refuse(what, hint))
    }

    /// Line 8: what consumers read is asked with itself.
    fn prove(&self) -> Option<Step> {
        let (.., side) = self.named(self.target())?;
        match &self.view.target {
            Target::Holds { held, answer, .. } if side.holds(held.value) && *answer != Answer::Accepted => {
                Some(self.wait(Phase::Prove, "the API server to accept what was delivered"))
            }
            _ => self.sign(),
        }
    }

    /// Lines 9 and 10: X goes.
    fn retire(&self) -> Option<Step> {
        let (which, id, is_there) = match self.leg() {
            Leg::Forward => (Which::Old, &self.old().id, self.view.old.holds(self.old().value)),
            Leg::Back => (Which::New, self.new_id()?, self.own().is_some()),
            Leg::Stay => return None,
        };
        if !is_there {
            return None;
        }
        // On the way back from a token that was never to be delivered nobody can have read it.
        let may_be_in_use = which == Which::Old || self.run.notes.delivered;
        if may_be_in_use && !self.run.passed(Timer::Overlap) {
            let what = format!("whoever has read {} to use it (--overlap)", Shown(id));
            return Some(Next::wait(Phase::Prove, what).and_start(Timer::Overlap));
        }
        let id = id.clone();
        let delete = Next::write(Phase::Retire, Write::Delete { which, id });
        if which == Which::Old && self.view.old.returned {
            let delete = delete.and_stop(Timer::Overlap);
            return Some(self.puts_back(delete, self.view.old.writer.as_deref()));
        }
        Some(delete)
    }

    /// Line 11: X is dead, by the API server's own word.
    fn confirm(&self) -> Option<Step> {
        // Another writer was put right: only a whole overlap without a disturbance shows that it has stopped.
        let disturbed = self.run.put_back > 0 && !self.run.phase.may_be_undone();
        if disturbed && self.leg() != Leg::Stay && !self.run.passed(Timer::Overlap) {
            let what = "no other writer to write the old state back (--overlap)";
            return Some(Next::wait(Phase::Confirm, what).and_start(Timer::Overlap));
        }
        let (id, side) = match self.leg() {
            Leg::Forward => (Some(&self.old().id), &self.view.old),
            Leg::Back if self.view.new.token.is_none() => (self.new_id(), &self.view.new),
            Leg::Back | Leg::Stay => return None,
        };
        let alive = matches!(side.answer, Answer::Accepted | Answer::Mixed);
        let id = id.map_or_else(|| "the new token".to_owned(), |id| Shown(id).to_string());
        alive.then(|| self.wait(Phase::Confirm, format!("the API server to refuse {id}")))
    }

    /// Waits; on the way forward only until the proof is overdue, while everything can still be undone. Once N has been
    /// proven, a server that does not answer for a moment is no reason to turn back; and with a dead O there is no way back.
    fn wait(&self, phase: Phase, what: impl Into<String>) -> Step {
        let (what, run) = (what.into(), self.run);
        let proven = run.timers.contains_key(&Timer::Overlap);
        let undoable = run.phase.may_be_undone() && self.view.old.is_sound(self.old().value);
        if self.leg() != Leg::Forward || !undoable || proven {
            return Next::wait(phase, what);
        }
        if run.passed(Timer::Proof) {
            return Next::TurnBack(format!("still waiting for {what} when --timeout ran out"));
        }
        // Another process began the run, and its timers ended with it.
        Next::wait(phase, what).and_start(Timer::Proof)
    }
}

/// The leg that a run is on.
pub(crate) fn leg(run: &Run<BootstrapToken>) -> Leg {
    Leg::of(run.goal, run.notes.kept)
}

/// A write after which N must be proven anew.
fn renewed(write: Write) -> Step {
    Next::write_and_start(Phase::Make, write, [Timer::Proof]).and_stop(Timer::Overlap)
}

fn refuse(reason: String, hint: String) -> Step {
    let check = None;
    Next::Refuse(vec![Obstacle { check, reason, hint }])
}
