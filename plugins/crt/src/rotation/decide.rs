//! The next safe step of a rotation of a cluster's registration tokens. **All of its safety is in this file.**
//!
//! There are two tokens: O, which the agent ran with at the start, and N, the new one. A rotation leads from O to N; a
//! rollback is the same road with the two exchanged. So there is one road, *toward* a target T and away from the other
//! one X, and it is walked from wherever the world is found to be:
//!
//! | # | if | then | phase |
//! |---|---|---|---|
//! | 0 | the downstream side is not shown to be this cluster | refuse, in every direction | – |
//! | 1 | `system` holds something that nobody brought there but Rancher or an admin, or holds N without this run's record | adopt it as N | make |
//! | 2 | `system` must change, and Rancher would then forget a value | keep that value first (P: a bridge; S: far grace) | make |
//! | 3 | `system` does not hold T | one write: T into `system` (S: what it held becomes the previous token) | make |
//! | 4 | S: X is needed and is not the protected previous token | protect it for seven days | make |
//! | 5 | Rancher does not accept T yet | wait | make |
//! | 6 | the Deployment does not name T, or another writer has replaced its template meanwhile | create the Secret with T, then point the Deployment at it, **held** | place |
//! | 7 | `stv-aggregation` does not say T and the address of the present template: no agent of it was accepted yet, or one with X reconnected later | wait; then restart, held | prove |
//! | 8 | S: Rancher did not apply T itself | trigger it and wait; not where it would push another address | prove |
//! | 9 | the rollout is held, 7 is still true of the present template, and no push of another token is to come | release it | prove |
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
//! * The road is walked from the top each time, so what another writer has written back is put right by the same line. The
//!   settling begins anew then, and the third time is one too many: the run turns back while it may. After line 12 it goes on
//!   putting right until its patience ends.
//! * What a run may do is read from the objects: the record on `system`, the values that are held, the labels of bridges. Who
//!   may write Leases and nothing else can make a run stop, start again, or go back while it still may.
//! * A token of another cluster is never brought into this one: it is not kept, not protected and not restored.
//! * Until line 12 the goal may change at any time; the same lines lead back. On the way back 3 and 6 are carried out even
//!   if T is there already: they give `system` and the Deployment a new version, so that a write which a former holder of the lock
//!   decided on before, and which is still under way, is refused by the API server when it arrives after line 12.

use client::secret::Fingerprint;
use engine::phase::{Goal, Phase};
use engine::protocol::{Next, Obstacle, Run};
use rancher::era::Era;

use super::view::{Age, Connection, Downstream, Grace, Holder, Notes, Trigger, View};
use super::write::{Shown, Write};
use super::{Crt, Timer};

type Step = Next<Crt>;

/// See the module. The first line whose condition holds is the step.
pub fn decide(view: &View, run: Option<&Run<Crt>>) -> Step {
    if let Some(refusal) = wrong_downstream(view) {
        return refusal;
    }
    let Some(run) = run else { return begin(view) };
    let old = run.notes.old;
    if let Some(refusal) = cannot_be_restored(view, run) {
        return refusal;
    }
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

/// Line 0. Another cluster is refused whatever is forced.
fn wrong_downstream(view: &View) -> Option<Step> {
    let (check, reason, hint) = match view.downstream {
        Downstream::Proven => return None,
        Downstream::Another => (
            None,
            "the context of the downstream side leads to another cluster",
            "give a context of this cluster with --downstream-context, or leave it out to go through Rancher",
        ),
        Downstream::Unproven => (
            Some("context"),
            "it cannot be shown that the context of the downstream side leads to this cluster: its CA is not the one that \
             Rancher has noted, and there is no way through Rancher to compare",
            "use a context of Rancher with --context, so that both ways can be compared",
        ),
    };
    Some(Next::Refuse(vec![Obstacle {
        check,
        reason: reason.to_owned(),
        hint: hint.to_owned(),
    }]))
}

/// On the way back the old value must be at hand, and this cluster's.
fn cannot_be_restored(view: &View, run: &Run<Crt>) -> Option<Step> {
    let old = run.notes.old;
    let is_system = view.system.as_ref().is_some_and(|holder| holder.token == old);
    if run.goal == Goal::Forward {
        return None;
    }
    if view.foreign.contains(&old) {
        return Some(refuse(
            format!("the old token {old} belongs to another cluster: restoring it would disconnect the agent"),
            "discard the rollback with `kubectl crt rotate --force=journal`, which rotates again",
        ));
    }
    (!is_system && !view.has_value(old)).then(|| {
        refuse(
            format!("no object holds the value of the old token {old} any more, so it cannot be restored"),
            "discard the rollback with `kubectl crt rotate --force=journal`, which rotates again",
        )
    })
}

/// What the objects say of a run that is resumed.
pub(super) fn recall(view: &View, claimed: &Run<Crt>) -> Option<Notes> {
    if let Some(record) = view.record_of(&claimed.id.to_string()) {
        let placed = view.names == record.notes.new;
        return Some(Notes {
            mark: view.mark.clone().filter(|_| placed),
            ..record.notes.clone()
        });
    }
    // Before `system` was written there can only be a bridge, and a write of a former holder that is still to come.
    let old = view.names.filter(|_| claimed.goal == Goal::Back)?;
    Some(notes_of(view, old, None))
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
        return refuse("the agent's Deployment names no Secret with a token", BY_HAND);
    };
    Next::Begin(notes_of(view, old, rotated_by_rancher(view, old)))
}

fn notes_of(view: &View, old: Fingerprint, new: Option<Fingerprint>) -> Notes {
    let address = view.address;
    Notes {
        old,
        new,
        system: view.system.as_ref().map(|holder| holder.token),
        others: if view.only_agent {
            [].into()
        } else {
            view.others.clone()
        },
        mark: None,
        home: view.home.clone(),
        worked: view.connected == Some(Connection { token: old, address }),
        old_secret: view.named_secret.clone(),
        rollout: view.rollout,
    }
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
        (!accepted).then(|| {
            wait(
                view,
                run,
                Phase::Make,
                format!("Rancher to accept {}", Shown(&road.target)),
            )
        })
    })
}

/// Whether `system` holds T and this run's record of it, and no write of a former holder of the lock can change that.
fn system_is_at(view: &View, run: &Run<Crt>, target: Fingerprint) -> bool {
    let record = view.record_of(&run.id.to_string());
    let recorded = match run.goal {
        Goal::Forward => record.is_some_and(|record| record.notes.new == Some(target)),
        Goal::Back => record.is_some_and(|record| record.back),
    };
    let holds = |holder: &Holder| holder.token == target;
    view.system.as_ref().is_some_and(holds) && recorded
}

/// Lines 1–3. Without a target there is no new token yet.
fn mint(view: &View, run: &Run<Crt>, target: Option<Fingerprint>) -> Step {
    let held = view.system.as_ref().map(|holder| holder.token);
    let adopts = held == run.notes.new || held != run.notes.system;
    if let Some(token) = held
        && run.goal == Goal::Forward
        && adopts
        && token != run.notes.old
        && !view.foreign.contains(&token)
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
    let step = Next::write_and_start(Phase::Make, write, starts).and_stop(Timer::Settle);
    if run.goal == Goal::Forward && run.notes.new.is_some() {
        let who = "whoever writes registration token system";
        return step.putting_back(run, may_turn_back(view, run), who);
    }
    step
}

/// Whether the run may turn back by itself: nothing is retired, and the state at the start worked and can be had back.
fn may_turn_back(view: &View, run: &Run<Crt>) -> bool {
    let old = run.notes.old;
    let restorable = run.notes.worked && !view.foreign.contains(&old) && view.has_value(old);
    run.goal == Goal::Forward && run.phase.may_be_undone() && restorable
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
                refuse(
                    format!("registration token system holds a previous token {previous} that is neither of this run"),
                    BY_HAND,
                )
            })
        }
    }
}

/// Line 4: X stays accepted for as long as an agent may need it, whoever forgot it.
fn protect(view: &View, road: Road) -> Option<Step> {
    let token = road
        .other
        .filter(|other| view.is_in_use(*other) && !view.foreign.contains(other))?;
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

/// The Deployment was seen to name the new token. Where it does not any more, another writer was there.
pub(crate) fn was_placed(run: &Run<Crt>) -> bool {
    run.goal == Goal::Forward && run.phase > Phase::Place
}

/// The template is not the one that this process has written or found: another writer was there between two looks, and
/// Rancher, or a colleague, has put the token right since. The quiet time counts from the last write of this run.
fn was_replaced(view: &View, run: &Run<Crt>) -> bool {
    was_placed(run) && run.notes.mark.is_some() && view.mark != run.notes.mark
}

/// Line 6: the agent's Deployment names the Secret with T.
fn place(view: &View, run: &Run<Crt>, Road { target, .. }: Road) -> Option<Step> {
    let named = view.names == Some(target);
    // Where the target was in place before, another writer was there.
    let put_right = |step: Step| match run.goal {
        Goal::Forward if was_placed(run) => step.putting_back(run, may_turn_back(view, run), &view.writer),
        // It was restored before: only then is the Deployment marked so.
        Goal::Back if view.deployment_going_back => step.putting_back(run, false, &view.writer),
        Goal::Forward | Goal::Back => step,
    };
    match view.credentials.get(&target) {
        None => {
            let create = Next::write(Phase::Place, Write::CreateCredentials { token: target });
            return Some(put_right(create));
        }
        // An agent with another token may clean it away at any time now.
        Some(Age::Old) if !named => return Some(Next::write(Phase::Place, Write::DeleteCredentials { token: target })),
        Some(_) => {}
    }
    let exposed = may_push_another(view, target) && !view.held;
    if named && !exposed && !was_replaced(view, run) {
        let out_of_reach = run.goal == Goal::Forward || view.deployment_going_back;
        return (!out_of_reach).then(|| Next::write(Phase::Place, Write::Guard));
    }
    // On the way back from a new agent that never connected: the old one is still there as it always was. Not where Rancher
    // is about to push something: that must come into a held rollout.
    let pushed = view.era == Era::Plain || view.pushed == Some(target);
    let quiet = pushed && !may_push_another(view, target);
    let undisturbed = run.goal == Goal::Back && quiet && view.is_connected(target) && view.runs(target);
    if undisturbed {
        return Some(Next::write(Phase::Place, Write::PointBack { token: target }));
    }
    // The quiet time starts again: the writer that pointed it elsewhere may come back.
    let point = Next::write_and_start(Phase::Place, Write::PointHeld { token: target }, [Timer::Reconnect]);
    Some(put_right(point.and_stop(Timer::Settle)))
}

/// Rancher was triggered for another token, has not noted that it applied it, and has not had the time: it may apply it at any
/// moment, with the address that the settings have by then, which is not proven.
fn may_push_another(view: &View, target: Fingerprint) -> bool {
    let triggered = view
        .trigger
        .filter(|trigger| trigger.token != target && !trigger.overdue);
    view.era == Era::Secret && triggered.is_some_and(|trigger| view.pushed != Some(trigger.token))
}

/// Lines 7–11: the agent works with T, by every sign that there is.
fn prove(view: &View, run: &Run<Crt>, Road { target, .. }: Road) -> Option<Step> {
    let shown = Shown(&target);
    if !view.is_connected(target) {
        return Some(reconnect(view, run, target));
    }
    if view.era == Era::Secret && view.pushed != Some(target) {
        return Some(trigger(view, run, target));
    }
    if may_push_another(view, target) {
        return Some(wait(
            view,
            run,
            Phase::Prove,
            "Rancher to apply the other token, or to let it be",
        ));
    }
    if view.held {
        return Some(if view.runs_as_deployed(target) {
            Next::write(Phase::Prove, Write::Release)
        } else {
            wait(view, run, Phase::Prove, format!("a pod of the agent with {shown}"))
        });
    }
    if view.pods.iter().any(|pod| pod.token != Some(target)) {
        return Some(wait(view, run, Phase::Prove, "the agent's other pods to end"));
    }
    if !view.runs(target) {
        return Some(wait(
            view,
            run,
            Phase::Prove,
            format!("a pod of the agent with {shown}"),
        ));
    }
    if view.answers == Some(false) {
        return Some(wait(view, run, Phase::Prove, "a call through the agent's tunnel"));
    }
    // Where no other value is to be taken away there is nothing to settle.
    let previous = view.system.as_ref().and_then(|holder| holder.previous);
    let takes_away = view.bridges.iter().chain(&previous).any(|token| *token != target);
    (takes_away && !run.passed(Timer::Settle))
        .then(|| Next::wait(Phase::Prove, "a redeploy that Rancher may have begun before (--settle)"))
}

/// Line 7. A new pod is made only when the one that should connect had its time: each template change costs a rollout.
fn reconnect(view: &View, run: &Run<Crt>, target: Fingerprint) -> Step {
    let not_started = !run.timers.contains_key(&Timer::Reconnect);
    if run.running(Timer::Reconnect) || not_started && view.held {
        let what = format!("the agent to connect with {}", Shown(&target));
        return wait(view, run, Phase::Prove, what).and_start(Timer::Reconnect);
    }
    Next::write_and_start(Phase::Prove, Write::PointHeld { token: target }, [Timer::Reconnect])
}

/// Line 8. Rancher looks at a cluster only when it changes (seen on Rancher 2.15.0). What it pushes then is everything that
/// its settings say.
fn trigger(view: &View, run: &Run<Crt>, target: Fingerprint) -> Step {
    let moves = view.pushes.is_some_and(|pushes| pushes != view.address);
    if moves && !view.may_move && !view.held {
        return Next::write_and_start(Phase::Prove, Write::PointHeld { token: target }, [Timer::Reconnect]);
    }
    if moves && !view.may_move {
        let what = "Rancher's server-url and cacerts to be what the agent runs with: they were changed, and would be pushed too";
        return wait(view, run, Phase::Prove, what);
    }
    match view.trigger {
        Some(Trigger { token, overdue: false }) if token == target => wait(
            view,
            run,
            Phase::Prove,
            format!("Rancher to apply {} itself", Shown(&target)),
        ),
        _ => Next::write(Phase::Prove, Write::Touch).triggering(),
    }
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
        .filter(|token| !view.is_held(**token) && !view.foreign.contains(token))
        .find(|token| view.live.contains(token))
    {
        return Some(wait(view, run, Phase::Confirm, format!("Rancher to refuse {token}")));
    }
    let token = other.filter(|other| view.credentials.contains_key(other))?;
    Some(Next::write(Phase::Confirm, Write::DeleteCredentials { token }))
}

/// Waits; on the way forward only until the proof is overdue, while everything can still be undone.
fn wait(view: &View, run: &Run<Crt>, phase: Phase, what: impl Into<String>) -> Step {
    let what = what.into();
    let may_turn = may_turn_back(view, run);
    if may_turn && run.passed(Timer::Proof) {
        return Next::TurnBack(format!("still waiting for {what} when --timeout ran out"));
    }
    let wait = Next::wait(phase, what);
    if may_turn { wait.and_start(Timer::Proof) } else { wait }
}

const BY_HAND: &str = "look at `kubectl crt status`, and put it right by hand";

fn refuse(reason: impl Into<String>, hint: &str) -> Step {
    Next::Refuse(vec![Obstacle {
        check: None,
        reason: reason.into(),
        hint: hint.to_owned(),
    }])
}
