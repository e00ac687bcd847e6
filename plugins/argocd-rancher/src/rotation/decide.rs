//! The next safe step of a rotation of the token that Argo CD has for a cluster. **All of its safety is in this file.**
//!
//! There are two tokens: O, which is rotated, and N, the new one. A rotation leads from O to N; a rollback leads back. So there
//! is one road, *toward* a token T and away from the other one X, and it is walked from wherever the world is found to be:
//!
//! | # | if | then | phase |
//! |---|---|---|---|
//! | 1 | the cluster Secret holds a token that is not of this run, or is gone | **leave it**: refuse, or go on at 7 where nothing depends on it | – |
//! | 2 | the value of O stands in the cluster Secret alone | park it | make |
//! | 3 | T is N, and there is no token that lives and whose value is known | park one that was just minted; else mint one | make |
//! | 4 | T is O, and O is dead, or nobody knows its value any more | there is no way back: keep N (below) | make |
//! | 5 | Rancher, or the cluster through it, does not let T in | wait | make |
//! | 6 | the cluster Secret holds X, or a token that was minted in vain | put T there | place |
//! | 7 | Argo CD watches the cluster, and was not seen to call with N since 6 | wait | prove |
//! | 8 | the grace time since then has not passed | wait: Argo CD may write an old copy back, which 6 puts right | prove |
//! | 9 | X, or a token that was minted in vain, lives | delete it. **The only step that breaks anything** | retire |
//! | 10 | Rancher lets X in still, and can be asked | wait | confirm |
//! | 11 | values are parked | delete them | confirm |
//!
//! Why no cluster is cut off, whatever happens between two lines:
//! * Lines 1–8 take nothing away: O and N both live, and the cluster Secret names one that was let in (5 before 6).
//! * Line 9 is reached only when, *in one and the same observation*, T lives and will for longer than any write may take (3, 4),
//!   is let in everywhere where Argo CD goes with it (5), and is what the cluster Secret holds (6), and has been for the whole
//!   grace time (8), since line 6 stops that each time. In this time Argo CD has read T, and has no copy with X any more that it
//!   could write back.
//! * The road is walked from the top each time. If Argo CD, or anybody, puts X back, the same line puts T there again, and the
//!   grace time begins anew; that is so after line 9 too, where X is dead: hence values are parked to the very end (11 after 10).
//! * No value is known to one place alone when the cluster Secret is written: T is parked (3) and so is O (2).
//! * A token that is neither O nor one of this run is never overwritten (1): whoever put it there knows why. Nothing is made for
//!   such a Secret, and what was made may go once the grace time has passed: it is named nowhere.
//! * A deletion in Rancher cannot be conditional, so that one which was decided on long ago may arrive at any time. But a
//!   name is never used twice, and a token that was ever to be deleted is never relied on again: instead of it another is minted.
//!   O is deleted only where there is no way back any more.
//! * The goal may change at any time before line 9. On the way back a cluster Secret that holds O already is written once more:
//!   that gives it a new version, so that a late write of N by a former holder of the lock does not fit any more.
//! * Time may cut off the way back: O expires, or somebody deletes it (Rancher's list says so before the last of its servers
//!   refuses it), or what was parked is lost. From then on N may be the only
//!   one that lives: that is journaled, and the road leads to N after all; O is not touched any more.
//!
//! Only the user of Rancher who minted a token can list or delete it, so a run is gone on with by that user alone.

use engine::phase::Phase;
use engine::protocol::{Next, Obstacle, Run};

use super::view::{Answer, Consumer, Known, Leg, Life, Minted, Name, Notes, Target, View};
use super::write::{Named, Shown, Which, Write};
use super::{ArgocdRancher, Timer};

type Step = Next<ArgocdRancher>;

/// See the module. The first line whose condition holds is the step.
pub fn decide(view: &View, run: Option<&Run<ArgocdRancher>>) -> Step {
    let Some(run) = run else { return begin(view) };
    if view.user != run.notes.user {
        let reason = format!(
            "the rotation was begun as user {} of Rancher, and this is {}",
            run.notes.user, view.user
        );
        let hint = "only the user who made a token can delete it: go on with the identity that began".to_owned();
        return refuse(reason, hint);
    }
    if !view.same_rancher {
        let reason = "the cluster Secret does not lead through the Rancher that was given".to_owned();
        let hint = "give the Rancher of the cluster Secret with --rancher-context or --rancher-url".to_owned();
        return refuse(reason, hint);
    }
    let road = Road { view, run };
    road.leave_alone()
        .or_else(|| road.make())
        .or_else(|| road.place())
        .or_else(|| road.prove())
        .or_else(|| road.retire())
        .or_else(|| road.confirm())
        .unwrap_or(Next::Done)
}

/// Nothing is under way: refuse what is unsafe, else write down where we start from.
fn begin(view: &View) -> Step {
    if !view.obstacles.is_empty() {
        return Next::Refuse(view.obstacles.clone());
    }
    let Some(old) = view.target.held() else {
        let reason = "the cluster Secret holds no token that could be rotated".to_owned();
        return refuse(reason, "`kubectl argocd-rancher add` gives it one".to_owned());
    };
    Next::Begin(Notes {
        user: view.user.clone(),
        old: old.clone(),
        old_worked: view.old_answer == Answer::Works,
        keep_old: view.keep_old,
        new: None,
        used_before: None,
        placed: [].into(),
        given_up: [].into(),
        kept: false,
    })
}

/// The way of a run, from where the world is found to be.
struct Road<'a> {
    view: &'a View,
    run: &'a Run<ArgocdRancher>,
}

impl<'a> Road<'a> {
    fn leg(&self) -> Leg {
        leg(self.run)
    }

    fn notes(&self) -> &'a Notes {
        &self.run.notes
    }

    /// T: the token that the run shall end on. `None`: there is no N yet that could be relied on.
    fn target(&self) -> Option<(Which, &'a Known)> {
        match self.leg() {
            Leg::Back => Some((Which::Old, &self.notes().old)),
            Leg::Forward | Leg::Stay => self.good_new().map(|new| (Which::New, new)),
        }
    }

    /// N, if it lives, will for long enough, was never to be deleted, and its value is known.
    fn good_new(&self) -> Option<&'a Known> {
        let new = self.notes().new.as_ref()?;
        let (name, minted) = self.view.minted.get_key_value(new.name.as_ref()?)?;
        (self.is_good(name, minted) && minted.value == Some(new.value)).then_some(new)
    }

    fn is_good(&self, name: &Name, minted: &Minted) -> bool {
        minted.life == Life::Sound && !self.notes().given_up.contains(name)
    }

    fn is_parked(&self, which: Which, known: &Known) -> bool {
        let parked = self.view.parked.as_ref();
        let there = parked.and_then(|parked| match which {
            Which::Old => parked.old.as_ref(),
            Which::New => parked.new.as_ref(),
        });
        there.is_some_and(|there| there.value == known.value)
    }

    /// Whether the cluster Secret holds O or a token that this run has made.
    fn holds_ours(&self) -> bool {
        let held = self.view.target.held();
        held.is_some_and(|held| self.notes().is_of_this_run(held, &self.view.minted))
    }

    /// Line 1. On the way back nothing of ours is named there, so what was made may go; and once O is gone, or where it stays,
    /// there is nothing left to do to the Secret.
    fn leave_alone(&self) -> Option<Step> {
        let undoable = self.run.phase.may_be_undone();
        let old_is_to_go = self.view.old.is_some() && !self.notes().keep_old;
        if self.holds_ours() || self.leg() != Leg::Forward || !undoable && !old_is_to_go {
            return None;
        }
        let reason = match &self.view.target {
            Target::Missing => "the cluster Secret is gone",
            Target::Holds { .. } => "the cluster Secret was given another token by somebody else",
        };
        let old = shown(&self.notes().old);
        let hint = if undoable {
            "`kubectl argocd-rancher rollback` leaves it as it is, and revokes what was made".to_owned()
        } else {
            format!("make sure that nobody needs {old}, and delete it in Rancher; then run the same command again")
        };
        Some(refuse(reason.to_owned(), hint))
    }

    /// Lines 2–5: T is there, its value is in two places, and it is let in. Only if the Secret is to hold it.
    fn make(&self) -> Option<Step> {
        if !self.holds_ours() {
            return None;
        }
        self.park_old()
            .or_else(|| match self.leg() {
                Leg::Forward | Leg::Stay => self.make_new(),
                Leg::Back => self.way_back_is_cut_off(),
            })
            .or_else(|| self.is_let_in())
    }

    /// Line 2. Where O is gone, or no new token was ever to be put in its place, it need not be kept.
    fn park_old(&self) -> Option<Step> {
        let old = &self.notes().old;
        let needed = match self.leg() {
            Leg::Forward => self.run.phase.may_be_undone() || self.view.old.is_some(),
            Leg::Back => !self.notes().placed.is_empty() && self.run.phase < Phase::Confirm,
            Leg::Stay => false,
        };
        let wanted = needed && self.view.target.holds(old.value) && !self.is_parked(Which::Old, old);
        wanted.then(|| {
            let (name, value) = (old.name.clone(), old.value);
            Next::write(Phase::Make, Write::ParkOld { name, value })
        })
    }

    /// Line 3.
    fn make_new(&self) -> Option<Step> {
        if let Some(new) = self.good_new() {
            // At the end what was parked is gone, and the cluster Secret is the place.
            let at_the_end = self.run.phase >= Phase::Confirm && self.view.target.holds(new.value);
            let name = new.name.as_ref()?;
            return (!self.is_parked(Which::New, new) && !at_the_end).then(|| park_new(name, new.value));
        }
        let mut minted = self.view.minted.iter();
        if let Some((name, minted)) = minted.find(|(name, minted)| self.is_good(name, minted) && minted.value.is_some())
        {
            return Some(park_new(name, minted.value?));
        }
        // One whose value was lost with the process that minted it, and that was never put anywhere.
        let lost = |(name, minted): &(&Name, &Minted)| minted.value.is_none() && !self.notes().placed.contains(*name);
        if let Some((name, _)) = self.view.minted.iter().find(lost) {
            return Some(revoke(Phase::Make, Which::New, name));
        }
        let replaces = self.notes().old.name.clone().filter(|_| !self.notes().keep_old);
        Some(Next::write_and_start(Phase::Make, Write::Mint { replaces }, [Timer::Proof]).and_stop(Timer::Grace))
    }

    /// Line 4. Where no new token was ever to be put into the cluster Secret, and none is ready, there is nothing to keep.
    fn way_back_is_cut_off(&self) -> Option<Step> {
        if self.old_would_serve() {
            return None;
        }
        let is_ready = |(name, minted): (&Name, &Minted)| self.is_good(name, minted) && minted.value.is_some();
        if !self.notes().placed.is_empty() || self.view.minted.iter().any(is_ready) {
            return Some(Next::write(Phase::Make, Write::Keep));
        }
        Some(self.retire().or_else(|| self.confirm()).unwrap_or(Next::Done))
    }

    /// Line 5: T is let in. While Argo CD alone shall be seen to use it, nobody else calls with it.
    fn is_let_in(&self) -> Option<Step> {
        let (which, known) = self.target()?;
        let answer = match which {
            Which::Old => &self.view.old_answer,
            Which::New => &self.view.new_answer,
        };
        let in_use = self.view.target.holds(known.value);
        if *answer == Answer::Works || in_use && !self.run.passed(Timer::Grace) {
            return None;
        }
        let phase = if in_use { Phase::Prove } else { Phase::Make };
        let what = format!("Rancher to let {} in", shown(known));
        let why = match answer {
            Answer::Open(why) => why,
            Answer::Works | Answer::Refused | Answer::Unasked => "",
        };
        Some(self.wait(phase, what, why))
    }

    /// Line 6: the cluster Secret holds T.
    fn place(&self) -> Option<Step> {
        let (which, known) = self.target().filter(|_| self.holds_ours())?;
        if self.view.target.holds(known.value) {
            let mark = self.view.target.leg();
            let guarded = self.leg() == Leg::Forward || mark >= self.leg() || self.notes().placed.is_empty();
            return (!guarded).then(|| Next::write(Phase::Place, Write::Guard));
        }
        if which == Which::New && self.view.watched && !self.view.quiet {
            let what = format!("a moment without a call of our own with {}", shown(known));
            return Some(self.wait(Phase::Place, what, ""));
        }
        let place = Write::Place {
            which,
            name: known.name.clone(),
            value: known.value,
            used: self.last_use(),
        };
        let step = Next::write_and_start(Phase::Place, place, [Timer::Proof]).and_stop(Timer::Grace);
        let was_there = match which {
            Which::Old => self.view.target.mark().is_some_and(|mark| mark.leg == Leg::Back),
            Which::New => known
                .name
                .as_ref()
                .is_some_and(|name| self.notes().placed.contains(name)),
        };
        Some(match self.view.target.other_writer() {
            Some(writer) if was_there => step.putting_back(self.run, self.may_turn_back(), writer),
            _ => step,
        })
    }

    fn last_use(&self) -> Option<String> {
        let name = self.good_new()?.name.as_ref()?;
        self.view.minted.get(name)?.used.clone()
    }

    /// Lines 7 and 8.
    fn prove(&self) -> Option<Step> {
        if self.leg() == Leg::Back && self.notes().placed.is_empty() || self.is_finished() {
            return None;
        }
        let in_use = self.good_new().filter(|new| self.view.target.holds(new.value));
        if let Some(new) = in_use.filter(|_| self.view.watched && self.leg() != Leg::Back)
            && let Some(wait) = self.consumer(new)
        {
            return Some(wait);
        }
        if self.run.passed(Timer::Grace) {
            return None;
        }
        let what = "Argo CD to have no old copy left that it could write back (--grace)";
        Some(Next::wait(Phase::Prove, what).and_start(Timer::Grace))
    }

    /// Line 7: Argo CD itself says that it has read the whole cluster since N was put into the Secret, and Rancher that N was
    /// used. Each alone may be somebody else's doing: anybody's call moves the last use, and a sync that was begun with O may
    /// end after N was put there.
    fn consumer(&self, new: &Known) -> Option<Step> {
        let before = &self.notes().used_before;
        let is_used = before.is_none() || self.last_use() != *before;
        let has_failed = self.view.consumer == Consumer::Failed;
        if has_failed && self.may_turn_back() {
            let reason = format!("Argo CD cannot work with the cluster since it has {}", shown(new));
            return Some(Next::TurnBack(reason));
        }
        let is_seen = is_used && self.view.consumer == Consumer::Since;
        let was_seen = self.run.timers.contains_key(&Timer::Grace);
        if is_seen || was_seen && !(has_failed && self.view.old.is_some()) {
            return None;
        }
        let why = match &self.view.consumer {
            Consumer::Unknown(why) => why,
            Consumer::Failed => "its last sync of the cluster failed",
            Consumer::Before | Consumer::Since => "",
        };
        Some(self.wait(Phase::Prove, format!("Argo CD to call with {}", shown(new)), why))
    }

    /// An earlier process has done everything but the last word: nothing is left that could be taken away.
    fn is_finished(&self) -> bool {
        let stays = self.target().and_then(|(_, known)| known.name.as_ref());
        let nothing_to_revoke = self.view.minted.keys().all(|name| Some(name) == stays);
        self.run.phase >= Phase::Confirm
            && self.view.parked.is_none()
            && nothing_to_revoke
            && (self.leg() != Leg::Forward || self.notes().keep_old || self.view.old.is_none())
    }

    /// Line 9: X goes, and whatever was minted in vain.
    fn retire(&self) -> Option<Step> {
        let old = &self.notes().old;
        if self.leg() == Leg::Forward
            && !self.notes().keep_old
            && self.view.old.is_some()
            && let Some(name) = &old.name
        {
            if let Some(by) = &self.view.old_needed_by {
                let hint = "run it again with --keep-old to leave it valid, or undo the rotation with rollback";
                return Some(refuse(format!("{name} must not be revoked: {by}"), hint.to_owned()));
            }
            return Some(revoke(Phase::Retire, Which::Old, name));
        }
        let stays = self.target().and_then(|(_, known)| known.name.as_ref());
        let mut minted = self.view.minted.keys();
        let name = minted.find(|name| Some(*name) != stays)?;
        Some(revoke(Phase::Retire, Which::New, name))
    }

    /// Lines 10 and 11: X is dead, by Rancher's own word, and nothing is left over.
    fn confirm(&self) -> Option<Step> {
        let old = &self.notes().old;
        let (gone, answer) = match self.leg() {
            Leg::Forward if !self.notes().keep_old => (Some(old), &self.view.old_answer),
            Leg::Back => (self.notes().new.as_ref(), &self.view.new_answer),
            Leg::Forward | Leg::Stay => (None, &Answer::Unasked),
        };
        if let (Some(gone), Answer::Works | Answer::Open(_)) = (gone, answer) {
            return Some(self.wait(Phase::Confirm, format!("Rancher to refuse {}", shown(gone)), ""));
        }
        let parked = self.view.parked.is_some();
        parked.then(|| Next::write(Phase::Confirm, Write::Unpark))
    }

    /// With a dead O there is no way back.
    fn may_turn_back(&self) -> bool {
        let undoable = self.leg() == Leg::Forward && self.run.phase.may_be_undone();
        undoable && self.notes().old_worked && self.old_would_serve()
    }

    /// Waits; on the way forward only until the proof is overdue, while everything can still be undone. Once N has been
    /// proven, a server that does not answer for a moment is no reason to turn back.
    fn wait(&self, phase: Phase, what: String, why: &str) -> Step {
        let proven = self.run.timers.contains_key(&Timer::Grace);
        if self.may_turn_back() && !proven && self.run.passed(Timer::Proof) {
            let because = if why.is_empty() {
                String::new()
            } else {
                format!(": {why}")
            };
            return Next::TurnBack(format!("still waiting for {what} when --timeout ran out{because}"));
        }
        let wait = Next::wait(phase, what);
        // A resumed run has no deadline yet.
        if self.leg() == Leg::Forward {
            wait.and_start(Timer::Proof)
        } else {
            wait
        }
    }

    /// Rancher's list says what has been deleted before the last of its servers refuses it.
    fn old_would_serve(&self) -> bool {
        let notes = self.notes();
        let is_known = self.view.target.holds(notes.old.value) || self.is_parked(Which::Old, &notes.old);
        let lives = match self.view.old {
            Some(life) => life == Life::Sound,
            // Somebody else's token, which is to stay: only its owner can see it.
            None => notes.keep_old,
        };
        is_known && lives && self.view.old_answer != Answer::Refused
    }
}

/// The leg that a run is on.
pub(crate) fn leg(run: &Run<ArgocdRancher>) -> Leg {
    Leg::of(run.goal, run.notes.kept)
}

fn park_new(name: &Name, value: client::secret::Fingerprint) -> Step {
    let name = name.clone();
    Next::write(Phase::Make, Write::ParkNew { name, value })
}

fn revoke(phase: Phase, which: Which, name: &Name) -> Step {
    let name = name.clone();
    Next::write(phase, Write::Revoke { which, name })
}

fn shown(known: &Known) -> String {
    match &known.name {
        Some(name) => Named(name).to_string(),
        None => Shown(None, known.value).to_string(),
    }
}

fn refuse(reason: String, hint: String) -> Step {
    let check = None;
    Next::Refuse(vec![Obstacle { check, reason, hint }])
}
