//! The next safe step of a rotation of a cluster's registration tokens. **All of its safety is in this file.**
//!
//! There are two tokens: O, which the agent ran with at the start, and N, the new one. A rotation leads from O to N; a
//! rollback is the same road with the two exchanged. So there is one road, *toward* a target T and away from the other
//! one X, and it is walked from wherever the world is found to be:
//!
//! | # | if | then | phase |
//! |---|---|---|---|
//! | 1 | `system` holds something that nobody brought there but Rancher or an admin | adopt it as N | make |
//! | 2 | `system` must change, and Rancher would then forget a value | keep that value first (P: a bridge; S: far grace) | make |
//! | 3 | `system` does not hold T | one write: T into `system` (S: what it held becomes the previous token) | make |
//! | 4 | S: X is needed and is not the protected previous token | protect it for seven days | make |
//! | 5 | Rancher does not accept T yet | wait | make |
//! | 6 | the Deployment does not name T | create the Secret with T, then point the Deployment at it, **held** | place |
//! | 7 | `stv-aggregation` does not say T: no agent with T was accepted yet, or one with X reconnected later | wait; then restart, held | prove |
//! | 8 | S: Rancher did not apply T itself | touch the cluster and wait | prove |
//! | 9 | the roll-out is held | release it | prove |
//! | 10 | a pod without T is left, or none with T runs, or a fresh call fails | wait | prove |
//! | 11 | T came into `system` less than the settling time ago | wait: a redeploy that began before renders X for that long | prove |
//! | 12 | X has a holder | remove it. **The only step that breaks anything** | retire |
//! | 13 | other tokens are to change (forward only) | one write each | retire |
//! | 14 | Rancher accepts X still | wait | confirm |
//! | 15 | X's Secret is still there | delete it (on the way back before 12) | confirm |
//!
//! Why no cluster can be lost, whatever happens between two lines:
//! * Lines 1–11 take nothing away: whatever an agent may hold, X or T, Rancher accepts it (2, 4), and no pod is removed
//!   that runs with an accepted token before one with T was accepted by Rancher (6, 7, 9).
//! * Line 12 is reached only when, *in one and the same observation*, T is what Rancher deploys (3), what Rancher
//!   accepts (5), what the Deployment names (6), what the agent that connected last used (7), what Rancher says it has
//!   applied (8), and what every pod mounts (10), and when no redeploy can still be under way that renders X (11).
//! * The road is walked from the top each time, so whatever is put back by somebody else is put right by the same line.
//! * Until line 12 the goal may change at any time; the same lines lead back. On the way back 3 and 6 are carried out even
//!   if T is there already: they give `system` and the Deployment a new version, so that a write which a former holder of the lock
//!   decided on before, and which is still under way, is refused by the API server when it arrives after line 12.

use kubectl_core::secret::Fingerprint;
use rancher::era::Era;
use rotation::phase::{Goal, Phase};
use rotation::protocol::{Next, Obstacle, Run};

use super::view::{Age, Grace, Holder, Notes, View};
use super::write::{Shown, Write};
use super::{Crt, Timer};

type Step = Next<Crt>;

/// See the module. The first line whose condition holds is the step.
pub fn decide(view: &View, run: Option<&Run<Crt>>) -> Step {
    let Some(run) = run else { return begin(view) };
    let old = run.notes.old;
    let step = match (run.goal, run.notes.new) {
        (Goal::Forward, None) => mint(view, run, None),
        (Goal::Forward, Some(new)) => toward(
            view,
            run,
            Road {
                target: new,
                other: Some(old),
            },
        ),
        (Goal::Back, new) => toward(
            view,
            run,
            Road {
                target: old,
                other: new,
            },
        ),
    };
    // The settling runs from the first moment at which the last change of `system` was *seen*: a write that was only
    // intended may still be on its way, and a redeploy may begin just before it arrives.
    let changes_system = matches!(&step, Next::Do(step) if step.stops.contains(&Timer::Settle));
    if changes_system || run.timers.contains_key(&Timer::Settle) {
        step
    } else {
        step.and_start(Timer::Settle)
    }
}

/// Which of the two tokens the rotation shall end on.
#[derive(Clone, Copy)]
struct Road {
    target: Fingerprint,
    /// `None` on the way back from a run that never drew a new token.
    other: Option<Fingerprint>,
}

/// Nothing is under way: refuse what is unsafe, else write down where we start from.
fn begin(view: &View) -> Step {
    if !view.obstacles.is_empty() {
        return Next::Refuse(view.obstacles.clone());
    }
    let Some(old) = view.names else {
        return refuse("the agent's Deployment names no Secret with a token");
    };
    Next::Begin(Notes {
        old,
        new: rotated_by_rancher(view, old),
        system: view.system.as_ref().map(|holder| holder.token),
        others: if view.only_agent {
            [].into()
        } else {
            view.others.clone()
        },
        mark: None,
        old_secret: view.named_secret.clone(),
        rollout: view.rollout,
    })
}

/// Era S: Rancher's own time to live has rotated `system` and not pushed it yet. Its new value is as good as ours.
fn rotated_by_rancher(view: &View, old: Fingerprint) -> Option<Fingerprint> {
    let holder = view.system.as_ref()?;
    (view.era == Era::Secret && holder.token != old && holder.previous == Some(old)).then_some(holder.token)
}

fn toward(view: &View, run: &Run<Crt>, road: Road) -> Step {
    make(view, run, road)
        .or_else(|| place(view, run, road))
        .or_else(|| prove(view, run, road))
        .or_else(|| retire(view, run, road))
        .or_else(|| confirm(view, run, road))
        .unwrap_or(Next::Done)
}

/// Lines 1–5: Rancher holds T, and goes on accepting whatever an agent may still use.
fn make(view: &View, run: &Run<Crt>, road: Road) -> Option<Step> {
    if !system_is_at(view, run, road.target) {
        return Some(mint(view, run, Some(road.target)));
    }
    protect(view, road).or_else(|| {
        let accepted = view.live.contains(&road.target);
        (!accepted).then(|| wait(run, Phase::Make, format!("Rancher to accept {}", Shown(&road.target))))
    })
}

/// Whether `system` holds T, and no write of a former holder of the lock can change that.
fn system_is_at(view: &View, run: &Run<Crt>, target: Fingerprint) -> bool {
    let out_of_reach = |holder: &Holder| run.goal == Goal::Forward || run.notes.new.is_none() || holder.going_back;
    view.system
        .as_ref()
        .is_some_and(|holder| holder.token == target && out_of_reach(holder))
}

/// Lines 1–3. Without a target there is no new token yet.
fn mint(view: &View, run: &Run<Crt>, target: Option<Fingerprint>) -> Step {
    let held = view.system.as_ref().map(|holder| holder.token);
    if let Some(token) = held
        && run.goal == Goal::Forward
        && held != run.notes.system
        && token != run.notes.old
    {
        return Next::write(Phase::Make, Write::Adopt { token }).and_stop(Timer::Settle);
    }
    let replaced = view.system.as_ref().filter(|holder| Some(holder.token) != target);
    if let Some(step) = replaced.and_then(|holder| keep_what_system_holds(view, run, holder, target)) {
        return step;
    }
    let write = match run.goal {
        Goal::Forward => Write::Mint,
        Goal::Back => Write::Restore { token: run.notes.old },
    };
    let proof_begins = run.goal == Goal::Forward && !run.timers.contains_key(&Timer::Proof);
    let starts = if proof_begins { vec![Timer::Proof] } else { Vec::new() };
    Next::write_and_start(Phase::Make, write, starts).and_stop(Timer::Settle)
}

/// Line 2: what `system` holds now must outlive the write that replaces it.
fn keep_what_system_holds(view: &View, run: &Run<Crt>, holder: &Holder, target: Option<Fingerprint>) -> Option<Step> {
    match view.era {
        Era::Plain => (!view.is_held_beside_system(holder.token))
            .then(|| Next::write(Phase::Make, Write::Bridge { token: holder.token })),
        Era::Secret if view.status_grace == Some(Grace::Near) => Some(Next::write(Phase::Make, Write::PostponeGrace)),
        // There is one place for a previous token. Ours to overwrite are only the two of this run.
        Era::Secret => {
            let ours = [
                Some(run.notes.old),
                run.notes.new,
                run.notes.system,
                target,
                Some(holder.token),
            ];
            let foreign = holder.previous.filter(|previous| !ours.contains(&Some(*previous)));
            foreign.filter(|previous| view.is_in_use(*previous)).map(|previous| {
                refuse(format!(
                    "registration token system holds a previous token {previous} that is neither of this run"
                ))
            })
        }
    }
}

/// Line 4: X stays accepted for as long as an agent may need it, whoever forgot it.
fn protect(view: &View, road: Road) -> Option<Step> {
    let token = road.other.filter(|other| view.is_in_use(*other))?;
    let holder = view.system.as_ref()?;
    let step = match view.era {
        Era::Secret if view.status_grace == Some(Grace::Near) && holder.previous.is_some() => Write::PostponeGrace,
        Era::Secret if holder.previous == Some(token) && holder.protected => return None,
        Era::Secret if holder.previous != Some(token) && view.is_held_beside_system(token) => return None,
        Era::Secret => Write::Protect { token },
        Era::Plain if view.is_held_beside_system(token) => return None,
        Era::Plain => Write::Bridge { token },
    };
    Some(Next::write(Phase::Make, step))
}

/// Line 6: the agent's Deployment names the Secret with T.
fn place(view: &View, run: &Run<Crt>, Road { target, .. }: Road) -> Option<Step> {
    let named = view.names == Some(target);
    match view.credentials.get(&target) {
        None => return Some(Next::write(Phase::Place, Write::CreateCredentials { token: target })),
        // An agent with another token may clean it away at any time now.
        Some(Age::Old) if !named => return Some(Next::write(Phase::Place, Write::DeleteCredentials { token: target })),
        Some(_) => {}
    }
    if named {
        let out_of_reach = run.goal == Goal::Forward || run.notes.mark.is_none() || view.deployment_going_back;
        return (!out_of_reach).then(|| Next::write(Phase::Place, Write::Guard));
    }
    // On the way back from a new agent that never connected: the old one is still there as it always was.
    let undisturbed = run.goal == Goal::Back && view.connected == Some(target) && view.runs(target);
    if undisturbed {
        return Some(Next::write(Phase::Place, Write::PointBack { token: target }));
    }
    Some(Next::write_and_start(
        Phase::Place,
        Write::PointHeld { token: target },
        [Timer::Reconnect],
    ))
}

/// Lines 7–11: the agent works with T, by every sign that there is.
fn prove(view: &View, run: &Run<Crt>, Road { target, .. }: Road) -> Option<Step> {
    let shown = Shown(&target);
    if view.connected != Some(target) {
        return Some(reconnect(view, run, target));
    }
    if view.era == Era::Secret && view.pushed != Some(target) {
        return Some(touch(run, target));
    }
    if view.held {
        return Some(if view.runs(target) {
            Next::write(Phase::Prove, Write::Release)
        } else {
            wait(run, Phase::Prove, format!("a pod of the agent with {shown}"))
        });
    }
    if view.pods.iter().any(|pod| pod.token != Some(target)) {
        return Some(wait(run, Phase::Prove, "the agent's other pods to end"));
    }
    if !view.runs(target) {
        return Some(wait(run, Phase::Prove, format!("a pod of the agent with {shown}")));
    }
    if view.answers == Some(false) {
        return Some(wait(run, Phase::Prove, "a call through the agent's tunnel"));
    }
    // Once something was taken away the settling is over; before there was a new token there is nothing to settle.
    let unsettled = !run.passed(Timer::Settle) && run.phase < Phase::Retire && run.notes.new.is_some();
    unsettled.then(|| Next::wait(Phase::Prove, "a redeploy that Rancher may have begun before (--settle)"))
}

/// Line 7. A new pod is made only when the one that should connect had its time: each template change costs a roll-out.
fn reconnect(view: &View, run: &Run<Crt>, target: Fingerprint) -> Step {
    let restarted = view.mark.is_some() && view.mark == run.notes.mark;
    if restarted && run.running(Timer::Reconnect) {
        return wait(
            run,
            Phase::Prove,
            format!("the agent to connect with {}", Shown(&target)),
        );
    }
    Next::write_and_start(Phase::Prove, Write::PointHeld { token: target }, [Timer::Reconnect])
}

/// Line 8. Rancher looks at a cluster only when it changes (seen on Rancher 2.15.0).
fn touch(run: &Run<Crt>, target: Fingerprint) -> Step {
    if run.running(Timer::Touch) {
        return wait(run, Phase::Prove, format!("Rancher to apply {} itself", Shown(&target)));
    }
    Next::write_and_start(Phase::Prove, Write::Touch, [Timer::Touch])
}

/// Lines 12 and 13: X goes.
fn retire(view: &View, run: &Run<Crt>, Road { target, other }: Road) -> Option<Step> {
    let retire = |write| Some(Next::write(Phase::Retire, write));
    // On the way back line 15 comes first: the name of N's Secret follows from N's value, which nobody holds afterwards.
    let placed = other.filter(|other| run.goal == Goal::Back && view.credentials.contains_key(other));
    if let Some(token) = placed {
        return retire(Write::DeleteCredentials { token });
    }
    if let Some(token) = view.bridges.iter().next() {
        return retire(Write::Unbridge { token: *token });
    }
    // On the way back only ours: what was there before us stays.
    let ours = |previous: &Fingerprint| run.goal == Goal::Forward || Some(*previous) == other;
    if let Some(token) = view.system.as_ref().and_then(|holder| holder.previous).filter(ours) {
        return retire(Write::DropPrevious { token });
    }
    if view.era == Era::Secret && view.status_grace.is_some() {
        return retire(Write::ClearGrace);
    }
    if run.goal == Goal::Back {
        return None;
    }
    let unchanged = |(name, had): &(&String, &Fingerprint)| **had != target && view.others.get(*name) == Some(*had);
    let (name, _) = run.notes.others.iter().find(unchanged)?;
    retire(Write::Renew { name: name.clone() })
}

/// Lines 14 and 15: X is dead, by Rancher's own word.
fn confirm(view: &View, run: &Run<Crt>, Road { other, target }: Road) -> Option<Step> {
    let renewed = run.notes.others.values().filter(|_| run.goal == Goal::Forward);
    let dead = other.iter().chain(renewed).filter(|token| **token != target);
    if let Some(token) = dead
        .filter(|token| !view.is_held(**token))
        .find(|token| view.live.contains(token))
    {
        return Some(wait(run, Phase::Confirm, format!("Rancher to refuse {token}")));
    }
    let token = other.filter(|other| view.credentials.contains_key(other))?;
    Some(Next::write(Phase::Confirm, Write::DeleteCredentials { token }))
}

/// Waits; on the way forward only until the proof is overdue, while everything can still be undone.
fn wait(run: &Run<Crt>, phase: Phase, what: impl Into<String>) -> Step {
    let what = what.into();
    if run.goal == Goal::Forward && run.phase.may_be_undone() && run.passed(Timer::Proof) {
        return Next::TurnBack(format!("still waiting for {what} when --timeout ran out"));
    }
    Next::wait(phase, what)
}

fn refuse(reason: impl Into<String>) -> Step {
    Next::Refuse(vec![Obstacle {
        check: None,
        reason: reason.into(),
        hint: "look at `kubectl crt status`, and put it right by hand".to_owned(),
    }])
}
